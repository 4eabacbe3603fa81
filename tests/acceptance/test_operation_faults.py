"""What providers do wrong in other operations than chats: before the first content another key is asked, after it the
caller is told; what was used is charged, and nobody's names come through.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest

from ostiary.agents.agent_keys import NewAgentKey
from tests.acceptance import inside
from tests.servers.gateway import Gateway
from tests.servers.operations import SOUND, response, response_events, typed
from tests.servers.upstream import Behaviour, Exchange, Received, Upstream
from tests.servers.waiting import until
from tests.servers.wire import LAST, ORGANIZATION, TEXT, event, framed, head, stream_head, whole

MODEL = "openai-compatible/words"


@pytest.fixture(name="key")
def the_key(gateway: Gateway, upstream: Upstream) -> inside.Key:
    inside.add_provider_keys(gateway, *(("openai-compatible", name, upstream.url) for name in ("one", "two")))
    inside.set_prices(gateway, MODEL)
    return inside.mint(gateway, NewAgentKey(name="alice"))[0]


def streaming(*parts: Callable[[Received], bytes], ends: bool = True) -> Behaviour:
    """A stream of these parts."""

    async def speak(exchange: Exchange) -> None:
        await exchange.send(stream_head(), *(framed(part(exchange.request)) for part in parts))
        if ends:
            await exchange.send(LAST)
        else:
            exchange.cut()

    return speak


def begun(request: Received) -> bytes:
    return b"".join(response_events(request)[:4])


def words(request: Received) -> bytes:
    return b"".join(response_events(request)[4:7])


def failed(request: Received) -> bytes:
    error = {"code": "server_error", "message": f"The model of {ORGANIZATION} had an error."}
    return typed("response.failed", sequence_number=9, response=response(request, "failed", error=error))


def stream(gateway: Gateway, key: inside.Key) -> tuple[Any, str]:
    body = {"model": MODEL, "input": "x", "stream": True, "max_output_tokens": 50}
    with httpx2.stream("POST", f"{gateway.url}/responses", json=body, headers=key.bearer, timeout=20) as answer:
        return answer, answer.read().decode()


@pytest.mark.main_job
@pytest.mark.parametrize("wrong", [streaming(begun, failed), streaming(failed)])
def test_before_content_another_key_is_asked_and_nobody_notices(
    gateway: Gateway, upstream: Upstream, key: inside.Key, wrong: Behaviour
) -> None:
    upstream.push(wrong)
    answer, text = stream(gateway, key)
    assert answer.status_code == 200
    assert answer.headers["x-ostiary-attempts"] == "2"
    assert text == b"".join(response_events(upstream.calls[1])).decode()
    statuses = [event["status"] for event in inside.events(gateway, answer.headers["x-request-id"], 2)]
    assert statuses == ["error", "ok"]


def test_a_stream_that_ends_without_a_word_goes_to_the_next_key_and_both_are_paid(
    gateway: Gateway, upstream: Upstream, key: inside.Key
) -> None:
    """The provider may have done the work, and would charge for it."""
    upstream.push(streaming(begun))
    answer, text = stream(gateway, key)
    assert (answer.status_code, len(upstream.calls)) == (200, 2)
    assert b"response.completed" in text.encode()
    first, second = inside.events(gateway, answer.headers["x-request-id"], 2)
    assert (first["status"], second["status"]) == ("error", "ok")
    assert first["cost_nano"] == first["held_nano"]


def test_a_failure_after_content_is_the_providers_own_event_without_its_names(
    gateway: Gateway, upstream: Upstream, key: inside.Key
) -> None:
    upstream.push(streaming(begun, words, failed))
    answer, text = stream(gateway, key)
    last = json.loads(text.rstrip().rpartition("data: ")[2])
    assert (last["type"], last["response"]["error"]["code"]) == ("response.failed", "server_error")
    assert "had an error" in last["response"]["error"]["message"]
    assert ORGANIZATION not in text
    assert "[DONE]" not in text
    (event,) = inside.events(gateway, answer.headers["x-request-id"])
    assert (event["status"], event["usage_source"]) == ("error", "estimated")
    assert 0 < event["cost_nano"] <= event["held_nano"]
    assert len(upstream.calls) == 1


def test_a_stream_that_breaks_off_ends_with_an_error_the_sdk_raises(
    gateway: Gateway, upstream: Upstream, key: inside.Key
) -> None:
    upstream.push(streaming(begun, words, ends=False))
    with openai.OpenAI(base_url=gateway.url, api_key=key.secret, max_retries=0) as client:
        events = client.responses.create(model=MODEL, input="x", stream=True)
        seen: list[str] = []
        with pytest.raises(openai.APIError, match="broke off"):
            seen.extend(event.type for event in events)
    assert "response.completed" not in seen
    assert len(upstream.calls) == 1


def test_a_whole_answer_that_failed_goes_to_the_next_key(gateway: Gateway, upstream: Upstream, key: inside.Key) -> None:
    async def speak(exchange: Exchange) -> None:
        error = {"code": "server_error", "message": "no"}
        body = response(exchange.request, "failed", error=error)
        await exchange.send(whole(200, json.dumps(body).encode()))

    upstream.push(speak)
    answer = gateway.client(key.secret).post("/v1/responses", json={"model": MODEL, "input": "x"})
    assert answer.headers["x-ostiary-attempts"] == "2"
    assert answer.json()["output"][0]["content"][0]["text"] == TEXT


# ---- the other streams ------------------------------------------------------------------------------------------


def spoilt(_request: Received) -> bytes:
    return typed("error", error={"code": "server_error", "message": f"The model of {ORGANIZATION} had an error."})


def beginning(part: bytes) -> Callable[[Received], bytes]:
    return lambda _request: part


_CHOICE = {"index": 0, "text": "The ostiary", "finish_reason": None}
STREAMS: dict[str, tuple[dict[str, Any], str | None, bytes]] = {
    "completions": (
        {"prompt": "Who keeps", "max_tokens": 50, "stream": True},
        None,
        event({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "words", "choices": [_CHOICE]}),
    ),
    "images/generations": (
        {"prompt": "a door", "partial_images": 1, "stream": True},
        None,
        typed("image_generation.partial_image", b64_json="AAAA", partial_image_index=0),
    ),
    "images/edits": (
        {"prompt": "a door", "stream": "true"},
        "image",
        typed("image_edit.partial_image", b64_json="AAAA", partial_image_index=0),
    ),
    "audio/speech": (
        {"input": "Open the door", "voice": "alloy", "stream_format": "sse"},
        None,
        typed("speech.audio.delta", audio="AAAA"),
    ),
    "audio/transcriptions": ({"stream": "true"}, "file", typed("transcript.text.delta", delta="The door")),
}
"""By path: what is asked, the name of its file if it has one, and the first event with content."""
EVERY_STREAM = pytest.mark.parametrize("path", STREAMS)


def ask(gateway: Gateway, key: inside.Key, path: str) -> httpx2.Response:
    body, file, _ = STREAMS[path]
    told: dict[str, Any] = {"json": {"model": MODEL, **body}}
    if file is not None:
        told = {"data": {"model": MODEL, **body}, "files": {file: ("a", b"\x89PNG" + bytes(500))}}
    return gateway.client(key.secret).post(f"/v1/{path}", **told)


@EVERY_STREAM
def test_a_stream_of_any_kind_that_begins_with_an_error_comes_from_the_next_key(
    gateway: Gateway, upstream: Upstream, key: inside.Key, path: str
) -> None:
    upstream.push(streaming(spoilt))
    answer = ask(gateway, key, path)
    assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, "2")
    first, second = upstream.calls
    assert first.key != second.key
    assert answer.text == ask(gateway, key, path).text, "the caller sees one clean stream"
    assert "error" not in answer.text
    statuses = [row["status"] for row in inside.events(gateway, answer.headers["x-request-id"], 2)]
    assert statuses == ["error", "ok"]


@EVERY_STREAM
@pytest.mark.parametrize("breaks", [True, False])
def test_a_stream_of_any_kind_that_fails_after_content_ends_with_an_error_and_is_not_tried_again(
    gateway: Gateway, upstream: Upstream, key: inside.Key, path: str, *, breaks: bool
) -> None:
    begun = STREAMS[path][2]
    upstream.push(streaming(beginning(begun), *([] if breaks else [spoilt]), ends=not breaks))
    answer = ask(gateway, key, path)
    assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, "1")
    assert answer.text.startswith(begun.decode())
    last = json.loads(answer.text.rstrip().rpartition("data: ")[2])
    assert last["error"]["request_id"] == answer.headers["x-request-id"]
    assert "[DONE]" not in answer.text
    assert ORGANIZATION not in answer.text
    assert len(upstream.calls) == 1
    (row,) = inside.events(gateway, answer.headers["x-request-id"])
    assert (row["status"], row["error_code"]) == ("error", "provider_error")


# ---- files ------------------------------------------------------------------------------------------------------

SPEECH = {"model": MODEL, "input": "Open the door", "voice": "alloy"}


def sound(kind: bytes = b"audio/mpeg", *, ends: bool = True) -> Behaviour:
    async def speak(exchange: Exchange) -> None:
        await exchange.send(head(200, b"transfer-encoding: chunked", kind=kind), framed(SOUND))
        if ends:
            await exchange.send(LAST)
        else:
            await exchange.gate()
            exchange.reset()

    return speak


def test_a_file_that_breaks_off_breaks_off(gateway: Gateway, upstream: Upstream, key: inside.Key) -> None:
    upstream.push(sound(ends=False))
    with httpx2.stream("POST", f"{gateway.url}/audio/speech", json=SPEECH, headers=key.bearer, timeout=20) as answer:
        pieces = answer.iter_raw()
        seen = next(pieces)
        upstream.gate.set()
        with pytest.raises(httpx2.RemoteProtocolError):
            for piece in pieces:
                seen += piece
        assert SOUND.startswith(seen)
    (event,) = inside.events(gateway, answer.headers["x-request-id"])
    assert (event["status"], event["error_code"], event["characters"]) == ("error", "provider_error", 13)
    assert event["cost_nano"] > 0


def test_who_hangs_up_is_charged_and_the_provider_is_told(
    gateway: Gateway, upstream: Upstream, key: inside.Key
) -> None:
    upstream.push(sound(ends=False))
    with httpx2.stream("POST", f"{gateway.url}/audio/speech", json=SPEECH, headers=key.bearer, timeout=20) as answer:
        next(answer.iter_raw())
    (event,) = inside.events(gateway, answer.headers["x-request-id"])
    assert (event["status"], event["characters"]) == ("cancelled", 13)
    assert event["cost_nano"] > 0
    until(upstream.calls[0].abandoned.is_set, "the provider to be told")


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (b"audio/wav", "audio/wav"),
        (b"AUDIO/PCM; rate=24000", "audio/pcm; rate=24000"),
        (b"text/html", "application/octet-stream"),
        (b"audio/mpeg; owner=" + ORGANIZATION.encode(), "audio/mpeg"),
        (b"image/svg+xml", "application/octet-stream"),
    ],
)
def test_only_types_that_are_known_are_passed_on(
    gateway: Gateway, upstream: Upstream, key: inside.Key, kind: bytes, shown: str
) -> None:
    upstream.push(sound(kind))
    answer = gateway.client(key.secret).post("/v1/audio/speech", json=SPEECH)
    assert (answer.headers["content-type"], answer.content) == (shown, SOUND)
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_error_with_status_200_in_place_of_a_file_goes_to_the_next_key(
    gateway: Gateway, upstream: Upstream, key: inside.Key
) -> None:
    async def speak(exchange: Exchange) -> None:
        await exchange.send(whole(200, b'{"error":{"message":"no","code":503}}'))

    upstream.push(speak)
    answer = gateway.client(key.secret).post("/v1/audio/speech", json=SPEECH)
    assert (answer.headers["x-ostiary-attempts"], answer.content) == ("2", SOUND)


def test_a_stopped_key_ends_its_file_at_once(gateway: Gateway, upstream: Upstream, key: inside.Key) -> None:
    upstream.push(sound(ends=False))
    with httpx2.stream("POST", f"{gateway.url}/audio/speech", json=SPEECH, headers=key.bearer, timeout=20) as answer:
        pieces = answer.iter_raw()
        next(pieces)
        gateway.cli("keys", "revoke", "alice")
        with pytest.raises(httpx2.RemoteProtocolError):
            list(pieces)
