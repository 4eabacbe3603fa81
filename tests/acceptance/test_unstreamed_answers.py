"""A stream was asked for and the model does not stream: its whole answer is passed on and counted as any other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ostiary.agents.agent_keys import NewAgentKey
from tests.acceptance import inside
from tests.servers.gateway import Gateway
from tests.servers.operations import TRANSCRIPT, USAGE, response, response_events, typed
from tests.servers.upstream import Behaviour, Exchange, Received, Upstream
from tests.servers.wire import LAST, completion, framed, stream_head, usage, whole

MODEL = "openai-compatible/words"
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}
SOUND = "audio/transcriptions"
HEARD = {"type": "tokens", "input_tokens": 14, "output_tokens": 5, "total_tokens": 19}
WORDS = {"input_tokens": 14, "output_tokens": 5}


@pytest.fixture(scope="module", name="shared_key")
def the_shared_key(shared_gateway: Gateway) -> inside.Key:
    inside.set_prices(shared_gateway, MODEL)
    return inside.mint(shared_gateway, NewAgentKey(name="alice"))[0]


@pytest.fixture(name="key")
def the_key(gateway: Gateway, upstream: Upstream) -> inside.Key:
    inside.add_provider_keys(gateway, *(("openai-compatible", name, upstream.url) for name in ("one", "two")))
    inside.set_prices(gateway, MODEL)
    return inside.mint(gateway, NewAgentKey(name="alice"))[0]


def saying(body: bytes, kind: bytes = b"application/json") -> Behaviour:
    """An answer with its length."""

    async def speak(exchange: Exchange) -> None:
        await exchange.send(whole(200, body, kind=kind))

    return speak


def ask(gateway: Gateway, key: inside.Key, path: str, **more: Any) -> Any:
    """Ask for a stream: of sound and edits by a form, of the rest in JSON."""
    client, body = gateway.client(key.secret), {"model": MODEL, "stream": "true", **more}
    if path in (SOUND, "audio/translations"):
        return client.post(f"/v1/{path}", data=body, files={"file": ("a.mp3", b"ID3" * 9_000)})
    if path == "images/edits":
        return client.post(f"/v1/{path}", data=body, files={"image": ("a.png", b"PNG" * 99)})
    return client.post(f"/v1/{path}", json={**body, "stream": True})


ANSWERS: list[tuple[str, dict[str, Any], dict[str, Any], tuple[int, int]]] = [
    ("chat/completions", CHAT, {"choices": [{"message": {"content": "hi"}}], "usage": usage()}, (11, 7)),
    ("completions", {"prompt": "x"}, {"choices": [{"text": "hi"}], "usage": usage()}, (11, 7)),
    ("responses", {"input": "x"}, {"id": "resp_whole", "output": [{"type": "message"}], "usage": USAGE}, (20, 9)),
    ("images/generations", {"prompt": "x"}, {"data": [{"b64_json": "AAAB"}], "usage": USAGE}, (20, 9)),
    ("images/edits", {"prompt": "x"}, {"data": [{"b64_json": "AAAB"}], "usage": USAGE}, (20, 9)),
    (SOUND, {}, {"text": TRANSCRIPT, "usage": HEARD}, (14, 5)),
    ("audio/translations", {}, {"text": TRANSCRIPT, "usage": HEARD}, (14, 5)),
    (SOUND, {"response_format": "text"}, {"text": TRANSCRIPT, "usage": HEARD}, (14, 5)),
]


@pytest.mark.main_job
@pytest.mark.parametrize(("path", "more", "said", "counted"), ANSWERS)
def test_json_is_passed_on_whole_and_counted(
    shared_gateway: Gateway,
    shared_upstream: Upstream,
    shared_key: inside.Key,
    path: str,
    more: dict[str, Any],
    said: dict[str, Any],
    counted: tuple[int, int],
) -> None:
    shared_upstream.push(saying(json.dumps(said).encode()))
    answer = ask(shared_gateway, shared_key, path, **more)
    assert (answer.status_code, answer.json()) == (200, said), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-ostiary-attempts"] == "1"
    (event,) = inside.events(shared_gateway, answer.headers["x-request-id"])
    assert (event["status"], event["usage_source"], event["stream"]) == ("ok", "provider", 1)
    assert (event["input_tokens"], event["output_tokens"]) == counted
    assert 0 < event["cost_nano"] < event["held_nano"]


@pytest.mark.parametrize("path", [SOUND, "audio/translations"])
@pytest.mark.parametrize(
    ("wanted", "kind", "text"),
    [
        ("text", b"text/plain; charset=utf-8", f"{TRANSCRIPT}\n"),
        ("srt", b"application/x-subrip", f"1\n00:00:00,000 --> 00:00:09,000\n{TRANSCRIPT}\n"),
        ("vtt", b"text/vtt", f"WEBVTT\n\n00:00.000 --> 00:09.000\n{TRANSCRIPT}\n"),
    ],
)
def test_text_of_sound_is_passed_on_whole_and_estimated(
    shared_gateway: Gateway,
    shared_upstream: Upstream,
    shared_key: inside.Key,
    path: str,
    wanted: str,
    kind: bytes,
    text: str,
) -> None:
    shared_upstream.push(saying(text.encode(), kind))
    answer = ask(shared_gateway, shared_key, path, response_format=wanted)
    assert (answer.status_code, answer.text) == (200, text)
    assert answer.headers["content-type"] == kind.decode()
    (event,) = inside.events(shared_gateway, answer.headers["x-request-id"])
    assert (event["status"], event["usage_source"]) == ("ok", "estimated")
    assert 0 < event["cost_nano"] < event["held_nano"]


def test_text_that_streams_all_the_same_is_a_stream(
    shared_gateway: Gateway, shared_upstream: Upstream, shared_key: inside.Key
) -> None:
    async def speak(exchange: Exchange) -> None:
        done = typed("transcript.text.done", text=TRANSCRIPT, usage=HEARD)
        await exchange.send(stream_head(), framed(typed("transcript.text.delta", delta=TRANSCRIPT)), framed(done), LAST)

    shared_upstream.push(speak)
    answer = ask(shared_gateway, shared_key, SOUND, response_format="text")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    (event,) = inside.events(shared_gateway, answer.headers["x-request-id"])
    assert {name: event[name] for name in WORDS} == WORDS


PAGE = b"\n<!DOCTYPE html><html><body>Sign in</body></html>"


@pytest.mark.parametrize(
    ("path", "more", "wrong"),
    [
        ("chat/completions", CHAT, saying(b'{"detail": "busy"}')),
        ("audio/speech", {"input": "x", "voice": "v", "stream_format": "sse"}, saying(b'{"text": "x"}')),
        (SOUND, {"response_format": "text"}, saying(PAGE, b"text/plain")),
    ],
)
def test_what_is_no_answer_is_none(
    gateway: Gateway, upstream: Upstream, path: str, more: dict[str, Any], wrong: Behaviour
) -> None:
    inside.add_provider_keys(gateway, ("openai-compatible", "only", upstream.url))
    inside.set_prices(gateway, MODEL)
    (key,) = inside.mint(gateway, NewAgentKey(name="bob"))
    upstream.push(wrong)
    answer = ask(gateway, key, path, **more)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_error")
    assert [one["reason"] for one in answer.json()["error"]["attempts"]] == ["not_a_stream"]
    (event,) = inside.events(gateway, answer.headers["x-request-id"])
    assert (event["status"], event["cost_nano"]) == ("error", event["held_nano"])


def test_an_error_in_place_of_it_goes_to_the_next_key(gateway: Gateway, upstream: Upstream, key: inside.Key) -> None:
    async def right(exchange: Exchange) -> None:
        await exchange.send(whole(200, json.dumps(completion(exchange.request, usage())).encode()))

    upstream.push(saying(b'{"error": {"message": "no", "code": 503}}'))
    upstream.push(right)
    answer = ask(gateway, key, "chat/completions", **CHAT)
    assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, "2")


# ---- the id of a response that failed ---------------------------------------------------------------------------


def test_a_response_that_failed_before_its_first_word_is_not_remembered(
    gateway: Gateway, upstream: Upstream, key: inside.Key
) -> None:
    def told(request: Received) -> bytes:
        error = {"code": "server_error", "message": "no"}
        lost = {"id": "resp_lost"}
        begun = typed("response.created", sequence_number=0, response=response(request, "in_progress") | lost)
        return begun + typed(
            "response.failed", sequence_number=1, response=response(request, "failed", error=error) | lost
        )

    async def fail(exchange: Exchange) -> None:
        await exchange.send(stream_head(), framed(told(exchange.request)), LAST)

    async def without_id(exchange: Exchange) -> None:
        parts = [
            part.replace(b'"id": "resp_', b'"not_id": "').replace(b'"id":"resp_', b'"not_id":"')
            for part in response_events(exchange.request)
        ]
        await exchange.send(stream_head(), *map(framed, parts), LAST)

    upstream.push(fail)
    upstream.push(without_id)
    answer = ask(gateway, key, "responses", input="x")
    assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, "2")
    inside.events(gateway, answer.headers["x-request-id"], 2)
    assert inside.rows(gateway, "SELECT id FROM responses WHERE id = ?", "resp_lost") == []
    assert gateway.client(key.secret).get("/v1/responses/resp_lost").status_code == 404
