"""What may stand in a body: what a provider may know passes untouched, and what is no request is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.limits.budgets import Budget
from tests.acceptance.inside import USD, events, mint, set_prices
from tests.servers.gateway import Gateway
from tests.servers.upstream import Upstream

pytestmark = pytest.mark.main_job

MODEL = "openai-compatible/ok"
MEGABYTE = 1024 * 1024
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Caller:
    """Posts bytes as they are, with a key that has no limits, or one with a hard budget."""

    client: httpx2.Client
    upstream: Upstream

    def post(self, body: Any, path: str = CHAT, **headers: str) -> httpx2.Response:
        kind = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        return self.client.post(path, content=body, headers=kind)

    def refused(self, body: Any, status: int, code: str, path: str = CHAT, **headers: str) -> dict[str, Any]:
        """The error; and that nobody upstream has heard of it."""
        before = len(self.upstream.calls)
        answer = self.post(body, path, **headers)
        error: dict[str, Any] = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code), error
        assert error["type"] in {"invalid_request_error", "not_found_error"}
        assert len(self.upstream.calls) == before
        return error


@pytest.fixture(scope="module")
def caller(shared_gateway: Gateway, shared_upstream: Upstream) -> Caller:
    (key,) = mint(shared_gateway, NewAgentKey("bodies"))
    return Caller(shared_gateway.client(key.secret), shared_upstream)


@pytest.fixture(scope="module")
def thrifty(shared_gateway: Gateway, shared_upstream: Upstream) -> Caller:
    set_prices(shared_gateway, MODEL)
    (key,) = mint(shared_gateway, NewAgentKey("thrifty", budget=Budget("total", 100 * USD)))
    return Caller(shared_gateway.client(key.secret), shared_upstream)


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def raw(tail: bytes) -> bytes:
    return b'{"model":"' + MODEL.encode() + b'","messages":[]' + tail + b"}"


# ---- not JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"{",
        b'{"model":',
        b"null",
        b"[]",
        b'"text"',
        b"42",
        raw(b"") + raw(b""),
        raw(b',"x":NaN'),
        raw(b',"x":[Infinity]'),
        raw(b',"x":{"y":-Infinity}'),
        raw(b',"x":01'),
        raw(b',"x":.5'),
        raw(b",\"x\":'y'"),
        raw(b',"x":"\n"'),
        raw(b","),
        raw(b',"x":1,}')[:-1],
        b"\xef\xbb\xbf" + raw(b""),
        raw(b"").decode().encode("utf-16"),
        raw(b',"x":"\xff\xfe"'),
        raw(b',"x":"\xc0\xaf"'),
        b"model=x&messages=y",
        b"\x00" * 100,
    ],
)
def test_what_is_not_a_json_object(caller: Caller, body: bytes) -> None:
    error = caller.refused(body, 400, "invalid_request")
    assert "JSON" in error["message"] or "UTF-8" in error["message"]
    assert error["param"] is None


# ---- deep, large, many ------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    """A body of so many levels, its own object being the first."""
    return raw(b',"x":' + b"[" * (depth - 1) + b"]" * (depth - 1))


def test_sixty_four_levels_pass_and_sixty_five_do_not(caller: Caller) -> None:
    assert caller.post(nested(64)).status_code == 200
    assert "64" in caller.refused(nested(65), 400, "invalid_request")["message"]
    assert "64" in caller.refused(nested(100_000), 400, "invalid_request")["message"]


def test_brackets_in_words_are_not_levels(caller: Caller) -> None:
    assert caller.post(chat(metadata={"x": "[{" * 500 + '\\"'})).status_code == 200


def test_more_things_than_any_conversation_has(caller: Caller) -> None:
    assert "250000" in caller.refused(raw(b',"x":[' + b"[]," * 250_000 + b"1]"), 400, "invalid_request")["message"]


def padded(size: int) -> bytes:
    body = chat(padding="")
    return body.replace(b'"padding": ""', b'"padding": "' + b"x" * (size - len(body)) + b'"')


def in_chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 100_000):
        yield body[start : start + 100_000]


def test_ten_megabytes_pass(caller: Caller) -> None:
    body = padded(10 * MEGABYTE)
    assert caller.post(body).status_code == 200
    assert len(caller.upstream.calls[-1].body) > 10 * MEGABYTE - 100
    assert caller.post(in_chunks(body)).status_code == 200


@pytest.mark.parametrize("extra", [1, 5 * MEGABYTE])
def test_more_than_ten_megabytes_are_refused_and_the_answer_arrives(caller: Caller, extra: int) -> None:
    body = padded(10 * MEGABYTE + extra)
    assert "10 MB" in caller.refused(body, 413, "request_too_large")["message"]
    assert "10 MB" in caller.refused(in_chunks(body), 413, "request_too_large")["message"]
    assert caller.post(chat()).status_code == 200  # the same client goes on


# ---- kinds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/xml", "", "json", "*/*"]
)
def test_another_content_type(caller: Caller, kind: str) -> None:
    caller.refused(chat(), 415, "unsupported_media_type", content_type=kind)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/json;x=y"])
def test_json_by_any_spelling(caller: Caller, kind: str) -> None:
    assert caller.post(chat(), content_type=kind).status_code == 200


def test_no_content_type_is_taken_for_json(caller: Caller) -> None:
    request = caller.client.build_request("POST", CHAT, content=chat())
    assert "content-type" not in request.headers
    assert caller.client.send(request).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "gzip, identity"])
def test_a_compressed_body(caller: Caller, encoding: str) -> None:
    error = caller.refused(gzip.compress(chat()), 415, "unsupported_media_type", content_encoding=encoding)
    assert "uncompressed" in error["message"]


def test_identity_is_no_compression(caller: Caller) -> None:
    assert caller.post(chat(), content_encoding="identity").status_code == 200


# ---- fields -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 5}, "model"),
        ({"model": ["a"]}, "model"),
        ({"model": None}, "model"),
        ({"messages": "hi"}, "messages"),
        ({"messages": {}}, "messages"),
        ({"stream": "true"}, "stream"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**19}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 1_000}, "n"),
        ({"n": "2"}, "n"),
        ({"tools": [{"type": "function"}, 7]}, "tools[1]"),
    ],
)
def test_a_wrong_type_names_the_field(caller: Caller, fields: dict[str, Any], param: str) -> None:
    error = caller.refused(chat(**fields), 400, "invalid_request")
    assert error["param"] == param
    assert f"`{param}`" in error["message"]


@pytest.mark.parametrize(("body", "param"), [(b'{"messages":[]}', "model"), (b'{"model":"m"}', "messages")])
def test_a_missing_field_is_named(caller: Caller, body: bytes, param: str) -> None:
    assert caller.refused(body, 400, "invalid_request")["param"] == param


def test_embeddings_fields(caller: Caller) -> None:
    path = "/v1/embeddings"
    assert "JSON" in caller.refused(b"[]", 400, "invalid_request", path)["message"]
    assert "JSON" in caller.refused(b'{"input":NaN}', 400, "invalid_request", path)["message"]
    assert caller.refused(b'{"model":"m"}', 400, "invalid_request", path)["param"] == "input"
    assert caller.refused(b'{"model":"m","input":{}}', 400, "invalid_request", path)["param"] == "input"
    assert caller.refused(b'{"input":"x"}', 400, "invalid_request", path)["param"] == "model"


@pytest.mark.parametrize(
    "model", ["", "x" * 201, "a\nb", "a\x00b", "a\x1b[31mb", "a\u202eb", "a\u2028b", "a\x7f", "openai/gpt\r\nx-evil: 1"]
)
def test_a_name_no_model_has(caller: Caller, model: str) -> None:
    error = caller.refused(chat(model=model), 400, "invalid_request")
    assert error["param"] == "model"
    assert not model or model not in error["message"]


def test_an_unknown_model_names_near_ones(caller: Caller) -> None:
    error = caller.refused(chat(model="gpt-4o-minii"), 404, "model_not_found")
    assert error["param"] == "model"
    assert "gpt-4o-mini" in error["near"]
    assert "gpt-4o-mini" in error["message"]
    strange = caller.refused(chat(model="zzzzzzzzzzzzzzzz-nothing-like-it"), 404, "model_not_found")
    assert "/v1/models" in strange["message"] or strange["near"]


@pytest.mark.parametrize("value", ["1e999999", "nan", "-1", "", "1e-10", "ten", "0x10", "9" * 5_000, "Infinity", "$1"])
def test_a_cap_on_the_call_that_is_no_amount(caller: Caller, value: str) -> None:
    error = caller.refused(chat(), 400, "invalid_request", x_ostiary_max_cost_usd=value)
    assert error["param"] == "x-ostiary-max-cost-usd"


# ---- what passes ------------------------------------------------------------------------------------------------

VALUES = [
    b"123456789012345678901234567890",
    b"-9223372036854775809",
    b"0.1000000000000000055511151231257827",
    b"1.0",
    b"1e2",
    b"1E+400",
    b"-0",
    rb'"\u00e9\ud83d\ude00\u0000\/\b"',
    '"é 😀 \u2028"'.encode(),
    b'{"b":1,"a":{"z":[1,2,{"y":null}]},"b":2}',
    b"[ 1 ,\t2,\n3 ]",
    b'""',
    b"null",
    b"true",
]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("field", ["temperature", "never_heard_of", "response_format", "\u00fcber"])
def test_what_we_do_not_act_on_arrives_byte_for_byte(caller: Caller, value: bytes, field: str) -> None:
    assert caller.post(raw(b',"' + field.encode() + b'":' + value)).status_code == 200
    sent = b'{"model":"ok","messages":[],"' + field.encode() + b'":' + value + b"}"
    assert caller.upstream.calls[-1].body == sent


def test_messages_arrive_byte_for_byte(caller: Caller) -> None:
    messages = (
        rb'[{"role":"user",  "content":[{"type":"text","text":"\u0041\n"}], "x":1.50}, {"role": "tool"}, 7, null]'
    )
    assert caller.post(b'{"messages":' + messages + b',"model":"' + MODEL.encode() + b'"}').status_code == 200
    assert caller.upstream.calls[-1].body == b'{"messages":' + messages + b',"model":"ok"}'


def test_an_answer_passes_byte_for_byte(caller: Caller) -> None:
    answer = caller.post(chat(model="openai-compatible/echo", odd=1.5))
    assert answer.json()["choices"][0]["message"]["content"] == caller.upstream.calls[-1].body.decode()


def test_of_duplicate_keys_the_last_counts_for_us_and_for_the_provider(caller: Caller) -> None:
    body = (
        b'{"model":"gpt-4o","stream":true,"messages":[1],"messages":[],"stream":false,"model":"'
        + MODEL.encode()
        + b'"}'
    )
    answer = caller.post(body)
    assert answer.headers["content-type"] == "application/json"
    assert caller.upstream.calls[-1].body == b'{"model":"ok","stream":false,"messages":[]}'


def test_a_key_in_its_long_spelling_is_the_same_key(caller: Caller) -> None:
    body = rb'{"model":"gpt-4o","messages":[],"mod\u0065l":"' + MODEL.encode() + b'"}'
    assert caller.post(body).status_code == 200
    assert caller.upstream.calls[-1].json == {"model": "ok", "messages": []}


# ---- under a hard budget ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"models": ["other/dear"]},
        {"route": "fallback"},
        {"provider": {"order": ["dear"]}},
        {"plugins": [{"id": "web"}]},
        {"service_tier": "priority"},
        {"web_search_options": {}},
        {"tools": [{"type": "web_search"}]},
    ],
)
def test_what_picks_something_dearer_is_refused_under_a_budget_only(
    caller: Caller, thrifty: Caller, fields: dict[str, Any]
) -> None:
    error = thrifty.refused(chat(**fields), 400, "unsupported_parameter")
    assert error["param"] == next(iter(fields))
    assert caller.post(chat(**fields)).status_code == 200


def test_a_fixed_limit_is_put_where_the_provider_heeds_it_under_a_budget_only(caller: Caller, thrifty: Caller) -> None:
    asked = chat(max_completion_tokens=5)
    assert caller.post(asked).status_code == 200
    assert caller.upstream.calls[-1].json["max_completion_tokens"] == 5
    assert thrifty.post(asked).status_code == 200
    sent = thrifty.upstream.calls[-1].json
    assert sent["max_tokens"] == 5
    assert "max_completion_tokens" not in sent


def test_a_limit_that_is_already_right_is_not_touched(thrifty: Caller) -> None:
    assert thrifty.post(raw(b',"max_tokens":5,"z":1')).status_code == 200
    assert thrifty.upstream.calls[-1].body == b'{"model":"ok","messages":[],"max_tokens":5,"z":1}'


def test_a_lowered_limit_is_for_each_choice(shared_gateway: Gateway, shared_upstream: Upstream) -> None:
    set_prices(shared_gateway, MODEL, output_usd=100)
    (key,) = mint(shared_gateway, NewAgentKey("poor", budget=Budget("total", USD // 10)))
    client = shared_gateway.client(key.secret)
    answer = client.post(CHAT, content=chat(n=4), headers={"content-type": "application/json"})
    assert answer.status_code == 200
    sent = shared_upstream.calls[-1].json["max_tokens"]
    assert int(answer.headers["x-ostiary-max-tokens-capped"]) == sent
    assert 4 * sent * 100 * 1_000 <= USD // 10 // 4  # a quarter of the headroom
    assert 4 * sent * 100 * 1_000 <= events(shared_gateway, answer.headers["x-request-id"])[0]["held_nano"]
