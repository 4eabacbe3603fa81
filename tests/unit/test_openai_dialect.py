"""The OpenAI dialect: what is read of a request, what is changed in it, and what an answer tells of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ostiary.errors import Refusal
from ostiary.providers import catalog
from ostiary.providers.openai import OpenAI
from ostiary.providers.tokens import Tokens

DIALECT = OpenAI()
ANY = catalog.load().get("openai-compatible")
OPENAI = catalog.load().get("openai")
MISTRAL = catalog.load().get("mistral")


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [], **fields}).encode()


def raw(tail: bytes) -> bytes:
    return b'{"model":"m","messages":[]' + tail + b"}"


def written(body: bytes, provider: catalog.Provider = ANY, max_tokens: int | None = None) -> bytes:
    found = DIALECT.write_body(DIALECT.read_ask("chat", body), provider, "m", max_tokens)
    assert isinstance(found, bytes)
    return found


# ---- what is read -----------------------------------------------------------------------------------------------


def test_what_we_act_on_is_read() -> None:
    body = chat(model="x", messages=[1, 2], tools=[{}], stream=True, stream_options={"include_usage": True}, n=3)
    ask = DIALECT.read_ask("chat", body)
    assert (ask.model, ask.stream, ask.wants_usage, ask.choices, ask.output_tokens) == ("x", True, True, 3, None)
    assert (ask.messages, ask.size, ask.media, ask.escape) == (3, len(body), 0, None)


def test_a_name_in_its_long_spelling_is_the_same_name() -> None:
    assert DIALECT.read_ask("chat", rb'{"mod\u0065l":"\u006d","messages":[]}').model == "m"


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": None}, None),
        ({"max_tokens": 7, "n": 4}, 28),
        ({"max_tokens": 7, "n": None}, 7),
    ],
)
def test_the_output_is_bounded_by_whatever_the_provider_may_heed(fields: dict[str, Any], output: int | None) -> None:
    assert DIALECT.read_ask("chat", chat(**fields)).output_tokens == output


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"messages":[]}', "model"),
        (b'{"model":"m"}', "messages"),
        (chat(model=1), "model"),
        (chat(model=None), "model"),
        (chat(messages="hi"), "messages"),
        (chat(messages=None), "messages"),
        (chat(stream="yes"), "stream"),
        (chat(stream=1), "stream"),
        (chat(stream_options=[]), "stream_options"),
        (chat(stream_options={"include_usage": 1}), "stream_options.include_usage"),
        (chat(max_tokens="7"), "max_tokens"),
        (chat(max_tokens=True), "max_tokens"),
        (chat(max_tokens=7.5), "max_tokens"),
        (chat(max_tokens=0), "max_tokens"),
        (chat(max_tokens=-1), "max_tokens"),
        (chat(max_tokens=2**31), "max_tokens"),
        (chat(max_completion_tokens=10**30), "max_completion_tokens"),
        (chat(n=0), "n"),
        (chat(n=129), "n"),
        (chat(tools={}), "tools"),
        (chat(tools=[1]), "tools[0]"),
    ],
)
def test_a_wrong_field_is_named(body: bytes, param: str) -> None:
    with pytest.raises(Refusal) as refused:
        DIALECT.read_ask("chat", body)
    assert (refused.value.code, refused.value.param) == ("invalid_request", param)
    assert f"`{param}`" in refused.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        raw(b",") + b"}",
        raw(b"") + b"x",
        raw(b',"x":NaN'),
        raw(b',"x":[1,-Infinity]'),
        raw(b',"x":01'),
        raw(b',"x":"\n"'),
        raw(b',"x":[1,]'),
        b"\xef\xbb\xbf" + raw(b""),
        raw(b"").decode().encode("utf-16"),
        b'{"model":"\\ud83d","messages":[]}',
        b"{'model':'m','messages':[]}",
    ],
)
def test_what_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        DIALECT.read_ask("chat", body)
    assert refused.value.code == "invalid_request"
    assert "JSON" in refused.value.message


@pytest.mark.parametrize(
    ("fields", "escape"),
    [
        ({"models": ["a"]}, "models"),
        ({"route": "fallback"}, "route"),
        ({"preset": "x"}, "preset"),
        ({"provider": {"order": []}}, "provider"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"search_parameters": {"mode": "on"}}, "search_parameters"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "function"}, {"type": "custom"}, {}]}, None),
        ({"service_tier": "flex"}, None),
        ({"service_tier": None, "models": None}, None),
        ({"metadata": {"models": ["a"]}}, None),
    ],
)
def test_fields_that_pick_something_dearer_are_found(fields: dict[str, Any], escape: str | None) -> None:
    assert DIALECT.read_ask("chat", chat(**fields)).escape == escape


def test_media_are_counted_however_they_are_spelled() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    plain = chat(messages=[{"role": "user", "content": [part, part]}])
    spelled = plain.replace(b"image_url", rb"im\u0061ge\u005Furl")
    assert DIALECT.read_ask("chat", plain).media == 4  # the type and the field; one too many is on the safe side
    assert DIALECT.read_ask("chat", spelled).media == 4
    video = chat(messages=[{"content": [{"video_url": {}}, {"input_audio": {}}, {"file": {}}, {"document_url": ""}]}])
    assert DIALECT.read_ask("chat", video).media == 4


def test_embeddings_have_no_output() -> None:
    ask = DIALECT.read_ask("embeddings", b'{"model":"e","input":["a","b"],"dimensions":3}')
    assert (ask.model, ask.stream, ask.output_tokens, ask.messages) == ("e", False, 0, 2)
    for body, param in ((b'{"model":"e"}', "input"), (b'{"model":"e","input":3}', "input"), (b'{"input":""}', "model")):
        with pytest.raises(Refusal) as refused:
            DIALECT.read_ask("embeddings", body)
        assert refused.value.param == param


# ---- what is written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b"123456789012345678901234567890",
        b"0.1000",
        b"1e999",
        b"-0.0",
        b"1E+2",
        rb'"\u00e9\ud83d\ude00\/"',
        '"é😀"'.encode(),
        b'{"b":1,  "a":[ 1 ,2],"a":3}',
        b"[ ]",
        b"null",
    ],
)
def test_what_we_do_not_act_on_keeps_its_bytes(value: bytes) -> None:
    assert written(raw(b',"x":' + value)) == raw(b',"x":' + value)


def test_order_is_kept_and_of_two_the_last_counts() -> None:
    assert written(b'{"z":1,"messages":[],"model":"a","z":2,"model":"m","y":3}') == (
        b'{"z":2,"messages":[],"model":"m","y":3}'
    )


def test_the_model_is_replaced_by_its_name_at_the_provider() -> None:
    ask = DIALECT.read_ask("chat", chat(model="openai-compatible/é"))
    body = DIALECT.write_body(ask, ANY, "é", None)
    assert isinstance(body, bytes)
    assert json.loads(body)["model"] == "é"


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"stream": True}, {"include_usage": True}),
        ({"stream": True, "stream_options": None}, {"include_usage": True}),
        ({"stream": True, "stream_options": {"include_usage": False, "x": 1}}, {"include_usage": True, "x": 1}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"include_usage": True}),
        ({"stream": False}, None),
        ({}, None),
    ],
)
def test_usage_is_asked_for_in_streams(fields: dict[str, Any], sent: dict[str, Any] | None) -> None:
    assert json.loads(written(chat(**fields))).get("stream_options") == sent


def test_who_tells_unasked_or_never_is_not_asked() -> None:
    asking = chat(stream=True, stream_options={"include_usage": True})
    assert MISTRAL.stream_usage == "always"
    assert "stream_options" not in json.loads(written(asking, MISTRAL))
    assert "stream_options" not in json.loads(written(chat(stream=True), MISTRAL))
    assert "stream_options" not in json.loads(written(chat(stream=True), replace(ANY, stream_usage="never")))


def test_a_limit_goes_where_the_provider_looks_for_it() -> None:
    both = chat(max_tokens=5, max_completion_tokens=6)
    assert json.loads(written(both, ANY, 4)) == {"model": "m", "messages": [], "max_tokens": 4}
    assert json.loads(written(both, OPENAI, 4)) == {"model": "m", "messages": [], "max_completion_tokens": 4}
    assert json.loads(written(chat(), ANY, 4))["max_tokens"] == 4
    assert json.loads(written(both)) == json.loads(both)


def test_writing_twice_does_not_build_up() -> None:
    ask = DIALECT.read_ask("chat", chat(stream=True))
    first = DIALECT.write_body(ask, ANY, "m", 9)
    assert DIALECT.write_body(ask, OPENAI, "n", None) != first
    assert DIALECT.write_body(ask, ANY, "m", 9) == first


# ---- what an answer tells ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}, Tokens(11, 7)),
        ({"prompt_tokens": 11, "total_tokens": 11}, Tokens(11)),
        ({"total_tokens": 11}, Tokens(11)),
        ({"completion_tokens": 7, "total_tokens": 18}, Tokens(11, 7)),
        (
            {
                "prompt_tokens": 11,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 2, "new_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": None},
            },
            Tokens(11, 7, cache_read=5, reasoning=3, audio=2),
        ),
        ({"prompt_tokens": 11, "completion_tokens": 7, "prompt_tokens_details": None}, Tokens(11, 7)),
        ({"prompt_tokens": "11", "completion_tokens": 7.0}, Tokens(11, 7)),
        ({"prompt_tokens": 0, "completion_tokens": 7}, Tokens(0, 7)),
        ({"prompt_tokens": -5, "completion_tokens": 7}, None),
        ({"prompt_tokens": 5, "completion_tokens": -7}, None),
        ({"prompt_tokens": 10**30, "completion_tokens": 7}, Tokens(16_000_000, 7)),
        ({"prompt_tokens": -5, "completion_tokens": "seven"}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": 11, "completion_tokens": [7]}, None),
        ({}, None),
        ([], None),
        (None, None),
        ("11", None),
    ],
)
def test_usage_is_read_where_it_can_be(usage: Any, tokens: Tokens | None) -> None:
    reading = DIALECT.read_answer(json.dumps({"choices": [], "usage": usage}).encode())
    assert (reading.tokens, reading.error, reading.is_malformed) == (tokens, None, False)


@pytest.mark.parametrize(
    ("error", "read"),
    [
        ({"message": "no", "code": 429}, {"message": "no", "code": 429}),
        ("no", {"message": "no"}),
        (["no"], {"message": "['no']"}),
        (None, None),
        (False, None),
        ("", None),
        ({}, None),
    ],
)
def test_an_error_in_a_200_is_seen_whatever_its_shape(error: Any, read: Any) -> None:
    assert DIALECT.read_answer(json.dumps({"error": error}).encode()).error == read


@pytest.mark.parametrize("body", [b"", b"<!doctype html>", b'{"a":', b"[1]", b"null", b'{"error":NaN}', b"[" * 100_000])
def test_what_is_not_an_object_is_malformed(body: bytes) -> None:
    assert DIALECT.read_answer(body).is_malformed


def test_deep_nesting_in_an_error_breaks_nothing() -> None:
    body = b'{"error":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert DIALECT.read_answer(body).is_malformed


def test_a_file_is_seen_however_its_field_is_spelled() -> None:
    for field in (b'"file_id"', b'"file\\u005fid"', b'"\\u0066ile_id"'):
        body = b'{"model":"m","messages":[{"role":"user","content":[{"type":"x",' + field + b':"f"}]}]}'
        assert OpenAI().read_ask("chat", body).reaches_out, field
