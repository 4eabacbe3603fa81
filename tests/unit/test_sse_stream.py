"""A stream of events going by: forwarded as it came, its usage found, its end held back, its errors seen."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ostiary.providers.dialect import StreamTooWide
from ostiary.providers.openai_answer import Stream
from ostiary.providers.tokens import Tokens

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
TOKENS = Tokens(11, 7)


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(finish: str | None = None, **said: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": said, "finish_reason": finish}])


ROLE = delta(role="assistant", content="")
HELLO = delta(content="Hello")
STOP = delta("stop")
COUNT = event(choices=[], usage=USAGE)


def fed(*pieces: bytes, hides_usage: bool = True) -> tuple[bytes, Stream]:
    stream = Stream(hides_usage=hides_usage)
    return b"".join(map(stream.feed, pieces)), stream


def test_a_right_stream_passes_but_for_its_usage_and_its_end() -> None:
    out, stream = fed(ROLE, HELLO, HELLO, STOP, COUNT, DONE)
    assert out == ROLE + HELLO + HELLO + STOP
    assert (stream.tokens, stream.is_finished, stream.is_ended, stream.error) == (TOKENS, True, True, None)


def test_usage_that_was_asked_for_is_left_in() -> None:
    out, stream = fed(ROLE, HELLO, STOP, COUNT, DONE, hides_usage=False)
    assert out == ROLE + HELLO + STOP + COUNT
    assert stream.tokens == TOKENS


def test_usage_beside_a_choice_is_counted_and_stays() -> None:
    last = event(choices=[{"delta": {}, "finish_reason": "stop"}], usage=USAGE)
    out, stream = fed(HELLO, last, DONE)
    assert out == HELLO + last
    assert stream.tokens == TOKENS


def test_usage_that_grows_with_every_event_counts_as_it_was_last() -> None:
    events = [event(choices=[{"delta": {"content": "a"}}], usage=USAGE | {"completion_tokens": n}) for n in range(1, 4)]
    out, stream = fed(*events)
    assert out == b"".join(events)
    assert stream.tokens == Tokens(11, 3)


@pytest.mark.parametrize(
    "hidden",
    [
        event(usage=USAGE),
        event(choices=None, usage=USAGE),
        b"data:" + json.dumps({"usage": USAGE, "choices": []}, separators=(" , ", " : ")).encode() + b"\n\n",
        event(choices=[], usage=USAGE).replace(b"\n\n", b"\r\n\r\n"),
        b": comment\nid: 4\n" + event(choices=[], usage=USAGE),
        json.dumps({"choices": [], "usage": USAGE}, indent=1).replace("\n", "\ndata:").join(("data:", "\n\n")).encode(),
    ],
)
def test_hidden_usage_never_leaks_in_whatever_form_it_comes(hidden: bytes) -> None:
    out, stream = fed(HELLO, hidden, STOP)
    assert out == HELLO + STOP
    assert stream.tokens == TOKENS


def test_null_usage_is_not_usage() -> None:
    words = event(choices=[{"delta": {"content": "a"}}], usage=None)
    found = event(choices=[], usage=None, prompt_filter_results=[])
    out, stream = fed(found, words)
    assert out == found + words
    assert stream.tokens is None


def test_what_looks_like_a_marker_in_the_words_is_only_words() -> None:
    texts = ['"usage": {"prompt_tokens": 1}', "[DONE]", 'data: [DONE]\n\n"error":{"message":"x"}', "event: error\n"]
    events = [delta(content=text) for text in texts]
    out, stream = fed(*events)
    assert out == b"".join(events)
    assert (stream.tokens, stream.error, stream.is_ended) == (None, None, False)


def test_after_the_end_nothing_counts_or_passes() -> None:
    out, stream = fed(HELLO, DONE + HELLO, COUNT, DONE, event(error={"message": "late"}))
    assert out == HELLO
    assert (stream.tokens, stream.error) == (None, None)


# ---- before the first content -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prelude",
    [
        ROLE,
        ROLE + ROLE,
        event(choices=[]),
        event(choices=[], prompt_filter_results=[{}]),
        delta(role="assistant", content=None, tool_calls=[], reasoning_content=""),
        event(id="x", object="chat.completion.chunk"),
    ],
)
def test_what_says_nothing_is_held_until_something_does(prelude: bytes) -> None:
    stream = Stream(hides_usage=True)
    assert (stream.feed(prelude), stream.has_content) == (b"", False)
    assert (stream.feed(HELLO), stream.has_content) == (prelude + HELLO, True)
    assert stream.feed(ROLE) == ROLE


@pytest.mark.parametrize(
    "content",
    [
        HELLO,
        delta(role="assistant", content="H"),
        delta(reasoning_content="hm"),
        delta(refusal="no"),
        delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]),
        delta(unheard_of={"a": 1}),
        STOP,
        b"data: not JSON\n\n",
        event(choices="odd"),
    ],
)
def test_any_content_opens_the_stream(content: bytes) -> None:
    out, stream = fed(ROLE, content)
    assert out == ROLE + content
    assert stream.has_content


def test_comments_before_the_content_are_not_kept() -> None:
    stream = Stream(hides_usage=True)
    for _ in range(10_000):
        assert stream.feed(b": still here\n\n") == b""
    assert not stream.has_content
    assert stream.feed(HELLO) == HELLO
    assert stream.feed(b": ping\n\n") == b": ping\n\n"


def test_what_is_held_is_bounded() -> None:
    stream = Stream(hides_usage=True)
    given = taken = 0
    while not taken and given < 200_000:
        given += len(ROLE)
        taken = len(stream.feed(ROLE))
    assert taken == given


def test_an_error_before_the_content_lets_nothing_out() -> None:
    out, stream = fed(ROLE, event(error={"message": "Overloaded", "code": 503}))
    assert out == b""
    assert (stream.has_content, stream.error) == (False, {"message": "Overloaded", "code": 503})


# ---- errors and ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (event(error={"message": "broke"}), "broke"),
        (event(error="broke"), "broke"),
        (event(choices=[{"delta": {}, "finish_reason": "error"}], error={"message": "broke"}), "broke"),
        (b'event: error\ndata: {"message": "broke"}\n\n', '{"message": "broke"}'),
        (b'id: 1\nevent:error\ndata: {"message": "broke"}\n\n', '{"message": "broke"}'),
        (b'data: {"error": {"message": \n\n', "The provider sent an event that is not valid JSON."),
        (b'data: {"choices":[],"usage":{"a":NaN}}\n\n', "The provider sent an event that is not valid JSON."),
    ],
)
def test_an_error_in_the_stream_is_seen_and_not_forwarded(fault: bytes, message: str) -> None:
    out, stream = fed(HELLO + fault + HELLO)
    assert out == HELLO
    assert stream.error is not None
    assert stream.error["message"] == message


def test_an_event_of_another_shape_passes() -> None:
    odd = event(choices=[{"finish_reason": "stop"}], usage=[1])
    strange = event(choices={"finish_reason": "stop"})
    out, stream = fed(HELLO, odd, strange)
    assert out == HELLO + odd + strange
    assert (stream.error, stream.tokens) == (None, None)


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "content_filter"])
def test_the_model_says_that_it_is_done(finish: str) -> None:
    assert fed(HELLO, delta(finish))[1].is_finished
    assert not fed(HELLO, HELLO)[1].is_finished


@pytest.mark.parametrize(
    ("tail", "is_whole", "is_ended"),
    [
        (b"", True, False),
        (b"\n", True, False),
        (b": ping\n", True, False),
        (b"data: [DONE]", True, True),
        (b"data:[DONE]\r\n", True, True),
        (HELLO[:-2], False, False),
        (HELLO[:9], False, False),
        (b"data: [DON", False, False),
    ],
)
def test_a_provider_that_hangs_up_is_judged_by_what_is_left(tail: bytes, is_whole: bool, is_ended: bool) -> None:  # noqa: FBT001 - parameters of the test
    out, stream = fed(HELLO, tail)
    assert out == HELLO
    assert (stream.close(), stream.is_ended) == (is_whole, is_ended)


# ---- odd framing, hostile sizes ---------------------------------------------------------------------------------


def test_lines_may_end_as_in_any_of_the_usual_ways_and_mixed() -> None:
    crlf = HELLO.replace(b"\n", b"\r\n")
    mixed = HELLO[:-2] + b"\n\r\n"
    out, stream = fed(HELLO + crlf + mixed, crlf, crlf[:-1], crlf[-1:] + HELLO, COUNT.replace(b"\n", b"\r\n"))
    assert out == HELLO + crlf + mixed + crlf + crlf + HELLO
    assert stream.tokens == TOKENS


def test_an_event_may_be_a_megabyte_and_no_more() -> None:
    wide = delta(content="x" * 1_000_000)
    assert fed(wide[:700_000], wide[700_000:])[0] == wide
    stream = Stream(hides_usage=True)
    with pytest.raises(StreamTooWide):
        for _ in range(100):
            stream.feed(b"x" * 20_000)


def test_a_wide_event_that_comes_byte_by_byte_takes_no_longer_than_it_should() -> None:
    wide = delta(content="x" * 300_000)
    stream = Stream(hides_usage=True)
    begun = time.process_time()
    out = b"".join(stream.feed(wide[i : i + 1]) for i in range(len(wide)))
    assert out == wide
    assert time.process_time() - begun < 10  # a second or two; minutes, were each byte a look at all before it


def test_deep_nesting_breaks_nothing() -> None:
    deep = b'data: {"usage":{"a":' + b"[" * 400_000 + b"]" * 400_000 + b"}}\n\n"
    assert fed(HELLO, deep)[1].error is not None


# ---- estimates --------------------------------------------------------------------------------------------------


def test_nothing_went_by_is_nothing_estimated() -> None:
    assert fed(b": ping\n\n")[1].estimate() == 0


def test_an_event_is_a_token_and_long_ones_are_more() -> None:
    assert 10 <= fed(ROLE, *[HELLO] * 9)[1].estimate() <= 20
    assert 240 <= fed(ROLE, delta(content="x" * 1_000))[1].estimate() <= 270
    assert 2_300 <= fed(delta(content="x" * 10_000))[1].estimate() <= 2_600
