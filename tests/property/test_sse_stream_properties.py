"""However the network cuts a stream, the same bytes are forwarded and the same is known of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ostiary.providers.openai_answer import Stream
from ostiary.providers.tokens import Tokens

DONE = b"data: [DONE]"
LINE_ENDS = [b"\n", b"\r\n"]

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"usage":{', "[DONE]", "data: [DONE]\n\n", '"error":{"message":"x"}', "\r\n\r\n", "event: error"]
)
counts = st.integers(1, 5_000)


def chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": choices, **more}


deltas = words.map(lambda text: chunk([{"index": 0, "delta": {"content": text}, "finish_reason": None}]))
roles = st.just(chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}}]))
usages = st.builds(
    lambda given, made: chunk([], usage={"prompt_tokens": given, "completion_tokens": made}), counts, counts
)
finishes = st.sampled_from(["stop", "length"]).map(lambda why: chunk([{"delta": {}, "finish_reason": why}]))
bodies = st.lists(deltas | roles | usages | finishes, max_size=12)


@st.composite
def framed(draw: st.DrawFn) -> list[bytes]:
    """Events as they stand on the wire, with comments, in either line ending, in JSON of either spelling."""
    found = []
    for body in draw(bodies):
        end = draw(st.sampled_from(LINE_ENDS))
        text = json.dumps(body, ensure_ascii=draw(st.booleans())).encode()
        found.append(draw(st.sampled_from([b"data: ", b"data:", b"id: 1" + end + b"data: "])) + text + end * 2)
        if draw(st.booleans()):
            found.append(b": ping" + end * 2)
    if draw(st.booleans()):
        found.append(DONE + b"\n\n")
    return found


def fed(pieces: list[bytes], *, hides_usage: bool) -> tuple[bytes, Stream]:
    stream = Stream(hides_usage=hides_usage)
    return b"".join(map(stream.feed, pieces)), stream


def told(stream: Stream) -> tuple[object, ...]:
    return (stream.tokens, stream.error, stream.has_content, stream.is_finished, stream.is_ended, stream.close())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(framed(), st.lists(st.integers(0, 10_000), max_size=20), st.booleans())
def test_any_chunking_gives_the_same(events: list[bytes], places: list[int], hides_usage: bool) -> None:  # noqa: FBT001 - drawn
    data = b"".join(events)
    by_event, first = fed(events, hides_usage=hides_usage)
    by_piece, second = fed(cut(data, places), hides_usage=hides_usage)
    by_byte, third = fed([data[i : i + 1] for i in range(len(data))], hides_usage=hides_usage)
    at_once, fourth = fed([data], hides_usage=hides_usage)
    assert by_event == by_piece == by_byte == at_once
    assert told(first) == told(second) == told(third) == told(fourth)


@given(framed(), st.lists(st.integers(0, 10_000), max_size=20))
def test_what_is_forwarded_is_what_came_but_for_usage_and_end(events: list[bytes], places: list[int]) -> None:
    out, stream = fed(cut(b"".join(events), places), hides_usage=True)
    expected, expected_tokens = [], None
    for one in events:
        body = read(one)
        if body and body.get("usage"):
            expected_tokens = Tokens(body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"])
        elif not one.startswith(DONE):
            expected.append(one)
    assert b"[DONE]\n\n" not in out or b"[DONE]\n\n" in b"".join(expected)
    assert stream.tokens == expected_tokens
    if stream.has_content:
        opening = next(i for i, one in enumerate(expected) if says(one))
        held = [one for one in expected[:opening] if not one.startswith(b":")]
        assert out == b"".join(held + expected[opening:])
    else:
        assert out == b""


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"data: ", b"\n\n", b"\r", b"\n", DONE, b'"usage":{'])))
def test_no_bytes_break_it_and_none_are_made_up(pieces: list[bytes]) -> None:
    stream = Stream(hides_usage=True)
    out = b"".join(map(stream.feed, pieces))
    rest = iter(b"".join(pieces))
    assert all(byte in rest for byte in out)
    stream.close()


def read(event: bytes) -> dict[str, Any] | None:
    lines = [line.removeprefix(b"data:") for line in event.splitlines() if line.startswith(b"data:")]
    if not lines or lines[0].strip() == b"[DONE]":
        return None
    body: dict[str, Any] = json.loads(lines[0])
    return body


def says(event: bytes) -> bool:
    choices = (read(event) or {}).get("choices", [])
    return any(choice.get("finish_reason") or choice["delta"].get("content") for choice in choices)
