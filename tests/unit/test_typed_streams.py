"""Streams whose events have types: forwarded as they came, the last event held back until the call is settled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ostiary.providers.dialect import Ask, StreamReader, StreamTooWide
from ostiary.providers.openai import OpenAI
from ostiary.providers.openai_events import Events
from ostiary.providers.tokens import Tokens

DIALECT = OpenAI()
USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}


def ask(operation: str = "responses", **fields: Any) -> Ask:
    usual: dict[str, Any] = {"responses": {"input": "x"}, "audio.speech": {"input": "hello", "voice": "v"}}.get(
        operation, {"prompt": "x"}
    )
    return DIALECT.read_ask(operation, json.dumps({"model": "m", "stream": True, **usual, **fields}).encode())


def event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


def response(name: str, **fields: Any) -> bytes:
    return event(name, sequence_number=3, response={"id": "resp_1", "status": "x", "error": None, **fields})


CREATED = response("response.created", instructions="long", usage=None)
ITEM = event("response.output_item.added", item={"type": "message", "content": []})
PART = event("response.content_part.added", part={"type": "output_text", "text": ""})
HELLO = event("response.output_text.delta", delta="Hello")
DONE = response("response.completed", usage=USAGE)


def fed(*pieces: bytes, of: Ask | None = None) -> tuple[bytes, StreamReader]:
    stream = DIALECT.watch(of or ask())
    return b"".join(map(stream.feed, pieces)), stream


def test_a_right_stream_passes_but_for_its_last_event() -> None:
    out, stream = fed(CREATED, ITEM, PART, HELLO, HELLO, DONE)
    assert out == CREATED + ITEM + PART + HELLO + HELLO
    assert stream.ending() == DONE
    assert (stream.tokens, stream.is_ended, stream.error) == (Tokens(11, 7), True, None)
    assert stream.response_id == "resp_1"


@pytest.mark.parametrize("cut", [1, 2, 7, 64])
def test_however_it_is_cut_up(cut: int) -> None:
    whole = CREATED + ITEM + PART + HELLO + DONE
    out, stream = fed(*(whole[at : at + cut] for at in range(0, len(whole), cut)))
    assert out + stream.ending() == whole
    assert stream.tokens == Tokens(11, 7)


def test_nothing_is_given_out_before_the_first_content() -> None:
    out, stream = fed(CREATED, response("response.in_progress"), ITEM, PART)
    assert (out, stream.has_content) == (b"", False)
    assert stream.feed(HELLO).endswith(HELLO)
    assert stream.has_content


@pytest.mark.parametrize(
    "first",
    [
        event("response.function_call_arguments.delta", delta="{"),
        event("response.reasoning_summary_text.delta", delta="Well"),
        event("response.image_generation_call.partial_image", partial_image_b64="AA"),
        event("response.web_search_call.in_progress"),
        event("response.output_item.done", item={"type": "function_call"}),
        event("response.something.new"),
        b'data: {"no":"type"}\n\n',
    ],
)
def test_whatever_else_comes_is_content(first: bytes) -> None:
    out, stream = fed(CREATED, first)
    assert out == CREATED + first
    assert stream.has_content


def test_a_failure_before_content_is_an_error_and_nothing_was_sent() -> None:
    failed = response("response.failed", error={"code": "server_error", "message": "no"}, usage=USAGE)
    out, stream = fed(CREATED, failed)
    assert (out, stream.has_content) == (b"", False)
    assert stream.error == {"code": "server_error", "message": "no"}
    assert stream.tokens == Tokens(11, 7)


def test_a_failure_after_content_is_told_in_words_fit_for_the_caller() -> None:
    failed = response("response.failed", error={"code": "server_error", "message": "org-SECRET"}, usage=USAGE)
    out, stream = fed(CREATED, HELLO, failed)
    assert out == CREATED + HELLO
    told = stream.error_event({"message": "scrubbed", "code": "provider_error"})
    assert told.startswith(b"event: response.failed\ndata: {")
    assert b"SECRET" not in told
    said = json.loads(told.partition(b"data: ")[2])
    assert said["response"]["error"] == {"code": "server_error", "message": "scrubbed"}
    assert said["response"]["usage"] == USAGE


@pytest.mark.parametrize(
    "wrong",
    [
        event("error", code="rate_limit", message="too fast", param=None, sequence_number=4),
        b'event: error\ndata: {"error":{"message":"too fast","code":"rate_limit"}}\n\n',
        b'data: {"error":{"message":"too fast","code":"rate_limit"}}\n\n',
    ],
)
def test_an_error_in_any_of_its_forms(wrong: bytes) -> None:
    out, stream = fed(CREATED, HELLO, wrong)
    assert out == CREATED + HELLO
    assert stream.error is not None
    assert (stream.error["message"], stream.error["code"]) == ("too fast", "rate_limit")
    assert stream.error_event({"message": "m", "code": "c"}).startswith(b"event: error\ndata: ")


def test_an_incomplete_response_is_whole() -> None:
    last = response("response.incomplete", incomplete_details={"reason": "max_output_tokens"}, usage=USAGE)
    _, stream = fed(CREATED, HELLO, last)
    assert (stream.is_ended, stream.error, stream.ending()) == (True, None, last)


def test_what_looks_like_an_end_in_the_words_is_only_words() -> None:
    words = event("response.output_text.delta", delta='{"type":"response.completed"} [DONE] "error":{')
    tool = event("response.output_item.done", item={"type": "function_call", "schema": {"type": "response.completed"}})
    out, stream = fed(CREATED, words, tool)
    assert out == CREATED + words + tool
    assert (stream.is_ended, stream.error) == (False, None)


def test_a_stream_without_its_last_event_is_not_whole_and_is_estimated() -> None:
    words = [event("response.output_text.delta", delta="word") for _ in range(40)]
    _, stream = fed(CREATED, *words)
    assert stream.close()
    assert (stream.is_ended, stream.is_finished, stream.tokens) == (False, False, None)
    assert stream.estimate() == 40


def test_an_end_without_its_blank_line_is_the_end() -> None:
    out, stream = fed(CREATED, HELLO, DONE[:-2])
    assert stream.close()
    assert stream.is_ended
    assert out + stream.ending() == CREATED + HELLO + DONE


def test_an_event_without_end_is_refused() -> None:
    stream = DIALECT.watch(ask("audio.speech", stream_format="sse"))
    with pytest.raises(StreamTooWide):
        for _ in range(9):
            stream.feed(b"x" * 524_288)


def test_a_response_that_is_not_kept_has_no_id_here() -> None:
    _, stream = fed(CREATED, HELLO, DONE, of=ask(store=False))
    assert stream.response_id is None


def test_images_end_when_all_of_them_are_there() -> None:
    partial = event("image_generation.partial_image", b64_json="AA")
    first, second = (event("image_generation.completed", b64_json=b, usage=USAGE) for b in ("AB", "AC"))
    out, stream = fed(partial, first, second, of=ask("images.generations", n=2))
    assert out + stream.ending() == partial + first + second
    assert stream.ending() == second
    assert stream.is_ended
    assert stream.tokens == Tokens(22, 14, images=2)


def test_one_image_alone_is_begun_and_ended() -> None:
    only = event("image_generation.completed", b64_json="AB", usage=USAGE)
    out, stream = fed(only, of=ask("images.generations"))
    assert (out, stream.has_content, stream.ending(), stream.is_ended) == (b"", True, only, True)
    assert stream.tokens == Tokens(11, 7, images=1)


def test_speech_tells_its_tokens_and_characters() -> None:
    sound, last = event("speech.audio.delta", audio="AA"), event("speech.audio.done", usage=USAGE)
    out, stream = fed(sound, last, of=ask("audio.speech", stream_format="sse"))
    assert (out, stream.ending()) == (sound, last)
    assert stream.tokens == Tokens(11, 7, characters=5)


def test_a_transcript_tells_its_seconds() -> None:
    words = event("transcript.text.delta", delta="The")
    last = event("transcript.text.done", text="The door", usage={"type": "duration", "seconds": 3})
    told = DIALECT.read_ask("audio.transcriptions", b'{"model":"m","stream":true,"file_bytes":4000}')
    out, stream = fed(words, last, of=told)
    assert (out, stream.ending(), stream.tokens) == (words, last, Tokens(audio_ms=3_000))
    assert isinstance(stream, Events)
