"""A key that is stopped ends its open calls within seconds, and what they used is settled."""

from __future__ import annotations

import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import pytest

from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import NewAgentKey
from tests.acceptance.inside import change, mint
from tests.acceptance.wire import get, post, wire
from tests.servers.gateway import Gateway
from tests.servers.upstream import Exchange, Upstream
from tests.servers.waiting import require_prompt
from tests.servers.wire import events, framed, stream_head, usage

_BODY = {"messages": [{"role": "user", "content": "x"}]}


def _read_to_the_end(gateway: Gateway, secret: str, model: str) -> tuple[str, float]:
    headers = {"authorization": f"Bearer {secret}"}
    text = ""
    with httpx2.stream(
        "POST", f"{gateway.url}/chat/completions", json={**_BODY, "model": model, "stream": True}, headers=headers,
        timeout=30,
    ) as answer:  # fmt: skip
        assert answer.status_code == 200
        for piece in answer.iter_text():
            text += piece
    return text, time.monotonic()


@pytest.mark.parametrize("deed", ["revoke", "deactivate", "delete"])
def test_an_open_stream_ends_within_five_seconds(gateway: Gateway, upstream: Upstream, deed: str) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", "openai-compatible/stall-stream", "--input", "1", "--output", "1")
    other = gateway.create_key("b")

    def trial(number: int) -> list[float]:
        name = f"a-{number}"
        secret = gateway.create_key(name, "--budget-usd", "5")
        with ThreadPoolExecutor(2) as pool:
            reading = pool.submit(_read_to_the_end, gateway, secret, "openai-compatible/stall-stream")
            beside = pool.submit(_read_to_the_end, gateway, other, "openai-compatible/slow-stream")
            upstream.wait_for(2 * number)
            gateway.cli("keys", deed, name)
            since = time.monotonic()
            text, ended_at = reading.result(30)
            assert "[DONE]" not in text
            assert "was stopped while its call was open" in text
            assert beside.result(30)[0].rstrip().endswith("[DONE]"), "another key's stream goes on"
        trace = next(one for one in gateway.traces(calls=2 * number) if one["agent_key"] == name)
        assert (trace["status"], trace["error_code"]) == ("cancelled", "invalid_api_key")
        assert trace["cost_usd"] > 0
        return [ended_at - since]

    require_prompt(trial, 5, callers=0)


@pytest.mark.parametrize("deed", ["revoke", "deactivate", "delete"])
def test_an_open_stream_of_a_child_ends_with_its_parent(gateway: Gateway, upstream: Upstream, deed: str) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)

    def trial(number: int) -> list[float]:
        parent, name = f"ci-{number}", f"job-{number}"
        gateway.create_key(parent)
        child: str = gateway.json("keys", "ephemeral", parent, "--name", name)["secret"]
        gateway.hear()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(_read_to_the_end, gateway, child, "openai-compatible/stall-stream")
            upstream.wait_for(number)
            gateway.cli("keys", deed, parent)
            since = time.monotonic()
            text, ended_at = reading.result(30)
        assert "was stopped while its call was open" in text
        traces = gateway.traces(calls=number)
        assert len(traces) == number
        trace = traces[0]
        assert (trace["agent_key"], trace["status"], trace["error_code"]) == (name, "cancelled", "invalid_api_key")
        return [ended_at - since]

    require_prompt(trial, 5, callers=0)


def test_an_open_stream_of_a_client_credential_ends_with_it(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    other = gateway.create_credential("another")

    def trial(number: int) -> list[float]:
        triple = gateway.create_credential(f"backend-{number}")
        with ThreadPoolExecutor(2) as pool:
            reading = pool.submit(_read_to_the_end, gateway, triple, "openai-compatible/stall-stream")
            beside = pool.submit(_read_to_the_end, gateway, other, "openai-compatible/slow-stream")
            upstream.wait_for(2 * number)
            gateway.cli("credentials", "revoke", f"backend-{number}")
            since = time.monotonic()
            text, ended_at = reading.result(30)
            assert beside.result(30)[0].rstrip().endswith("[DONE]"), "another credential's stream goes on"
        assert "was stopped while its call was open" in text
        ends = sorted((one["status"], one["error_code"]) for one in gateway.traces(calls=2 * number))
        assert ends == [*[("cancelled", "invalid_api_key")] * number, *[("ok", None)] * number]
        return [ended_at - since]

    require_prompt(trial, 5, callers=0)


@pytest.mark.main_job
def test_an_open_call_that_has_said_nothing_yet_is_refused(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    secret = gateway.create_key("a")
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(gateway.chat, secret, "openai-compatible/stall-first-byte")
        upstream.wait_for(1)
        gateway.cli("keys", "revoke", "a")
        answer = asking.result(30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert upstream.calls[0].abandoned.wait(30)


def test_a_key_stopped_after_its_answer_leaves_the_next_one_on_its_connection_alone(
    gateway: Gateway, upstream: Upstream
) -> None:
    """The provider keeps silent behind the end marker, so for a second the call is not over on its side.

    Streams end one after another until the stop is heard of: it meets the last of them in that second. The first ends
    before there is anything to hear of.
    """
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    stopped, other = mint(gateway, NewAgentKey("stopped"), NewAgentKey("other"))
    gates = [threading.Event() for _ in range(40)]
    numbers = itertools.count()

    async def ends_without_ending(exchange: Exchange) -> None:
        mine = gates[next(numbers)]
        parts = events(exchange.request, usage())
        await exchange.send(stream_head(), *map(framed, parts[:2]))
        while not mine.is_set():
            await exchange.pause(0.01)
        await exchange.send(*map(framed, parts[2:]))
        await exchange.stall()

    upstream.push(*[ends_without_ending] * len(gates))
    streamed = json.dumps({"model": "openai-compatible/x", "messages": [], "stream": True}).encode()
    gated = json.dumps({"model": "openai-compatible/gated", "messages": []}).encode()
    ended = []
    with ExitStack() as stack:
        lines = [stack.enter_context(wire(gateway)) for _ in gates]
        for count, line in enumerate(lines, 1):
            line.send(post(stopped.secret, streamed))
            upstream.wait_for(count)
        for gate, line in zip(gates, lines, strict=True):
            gate.set()
            if not line.answer().body.endswith(b"data: [DONE]\n\n"):
                break
            ended.append(line)
            line.send(post(other.secret, gated))
            upstream.wait_for(len(gates) + len(ended))
            if len(ended) == 1:
                change(gateway, stopped, agent_keys.revoke)
            time.sleep(0.2)
        assert 0 < len(ended) < len(gates), "the stop came neither before nor behind all of them"
        upstream.gate.set()
        for line in ended:
            answer = line.answer()
            assert (answer.status, answer.json["object"]) == (200, "chat.completion")
            line.send(get())
            assert line.answer().json["status"] == "ok"
