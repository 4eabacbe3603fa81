"""The hostile upstream does what its behaviours say, and remembers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.servers import behaviours
from tests.servers.canaries import Canaries
from tests.servers.upstream import Upstream
from tests.servers.waiting import until
from tests.servers.wire import COMPLETION_TOKENS, PROMPT_TOKENS, TEXT


@pytest.fixture
def client(upstream: Upstream) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=upstream.origin, timeout=5) as client:
        yield client


def body(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


def ask(client: httpx2.Client, model: str, **more: object) -> httpx2.Response:
    return client.post("/v1/chat/completions", json=body(model, **more))


def events(response: httpx2.Response) -> list[dict[str, object]]:
    lines = [line.removeprefix("data:").strip() for line in response.text.splitlines() if line.startswith("data:")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_right_answer(client: httpx2.Client, upstream: Upstream) -> None:
    answer = ask(client, "ok").json()
    assert answer["choices"][0]["message"]["content"] == TEXT
    assert answer["usage"]["total_tokens"] == PROMPT_TOKENS + COMPLETION_TOKENS
    assert upstream.calls[0].json == body("ok")


@pytest.mark.parametrize(("asked", "expected"), [(True, 1), (False, 0)])
def test_usage_in_streams_only_when_asked(client: httpx2.Client, asked: bool, expected: int) -> None:  # noqa: FBT001 - a parameter of the test
    answer = ask(client, "ok", stream=True, stream_options={"include_usage": asked})
    assert answer.text.endswith("data: [DONE]\n\n")
    assert sum("usage" in event for event in events(answer)) == expected


@pytest.mark.parametrize("model", ["byte-by-byte", "slow-stream", "always-usage"])
def test_odd_but_right_streams_say_the_same(client: httpx2.Client, model: str) -> None:
    chunks = events(ask(client, model, stream=True))
    said = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]  # type: ignore[attr-defined]
    assert "".join(said) == TEXT


def test_names_pushed_come_first_and_in_order(client: httpx2.Client, upstream: Upstream) -> None:
    upstream.push(behaviours.status(503), behaviours.quota)
    assert [ask(client, "ok").status_code for _ in range(3)] == [503, 429, 200]


@pytest.mark.parametrize("model", ["drop", "reset", "short-body", "not-http", "bad-chunk", "truncated"])
def test_broken_answers_break(client: httpx2.Client, model: str) -> None:
    with pytest.raises(httpx2.TransportError):
        ask(client, model, stream=True)


def test_a_reset_is_one(upstream: Upstream) -> None:
    said = json.dumps(body("reset")).encode()
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=5) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said))
        with pytest.raises(ConnectionResetError):
            raw.recv(1)


@pytest.mark.parametrize("model", ["stall-first-byte", "stall-head", "stall-body", "stall-stream", "drip"])
def test_stalled_answers_end_when_the_client_leaves(client: httpx2.Client, upstream: Upstream, model: str) -> None:
    start = time.monotonic()
    with (
        pytest.raises(httpx2.TransportError),
        client.stream(
            "POST", "/v1/chat/completions", json=body(model, stream=True), timeout=httpx2.Timeout(5, read=0.2)
        ) as answer,
    ):
        for _ in answer.iter_raw():
            if time.monotonic() - start > 1:  # a drip never times out by itself
                raise httpx2.ReadTimeout("enough")
    client.close()
    assert upstream.wait_for(1).abandoned.wait(30)
    assert not upstream.calls[0].answered.is_set()


def test_gated_answer_waits_for_the_gate(client: httpx2.Client, upstream: Upstream) -> None:
    with client.stream("POST", "/v1/chat/completions", json=body("gated", stream=True)) as answer:
        parts = answer.iter_lines()
        assert "role" in next(parts)
        assert not upstream.calls[0].answered.is_set()
        upstream.gate.set()
        assert list(parts)[-2] == "data: [DONE]"


def test_keys_are_checked_and_quoted_back(client: httpx2.Client, upstream: Upstream, canaries: Canaries) -> None:
    upstream.keys = {canaries.plant()}
    wrong = canaries.plant()
    answer = client.get("/v1/models", headers={"authorization": f"Bearer {wrong}"})
    assert answer.status_code == 401
    assert wrong in answer.text


def test_keep_alive_is_seen(client: httpx2.Client, upstream: Upstream) -> None:
    for model in ("ok", "closes-idle"):
        ask(client, model)
    until(lambda: 1 in upstream.ended, "the end of the first connection")
    ask(client, "ok")
    assert [call.connection for call in upstream.calls] == [1, 1, 2]


def test_server_can_go_and_come_back_on_its_port() -> None:
    with behaviours.serving() as first:
        port = first.port
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{port}/v1/models")
    with behaviours.serving(port) as second:
        assert httpx2.get(f"{second.url}/models").status_code == 200


def test_stumbling_behaviour_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="went wrong"), behaviours.serving() as upstream:

        async def stumble(_exchange: object) -> None:
            raise KeyError

        upstream.push(stumble)
        with pytest.raises(httpx2.TransportError):
            httpx2.post(f"{upstream.url}/chat/completions", json=body("ok"))
        until(lambda: upstream.faults, "the fault")


def test_embeddings(client: httpx2.Client) -> None:
    answer = client.post("/v1/embeddings", json={"model": "e", "input": ["a", "b"]}).json()
    assert [row["index"] for row in answer["data"]] == [0, 1]
