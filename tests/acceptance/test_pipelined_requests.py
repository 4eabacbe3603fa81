"""Requests behind one another on one connection: a few wait, the rest is not read, and too many are cut off."""

from __future__ import annotations

import json
import threading

import pytest

from ostiary.agents.agent_keys import NewAgentKey
from tests.acceptance.inside import Key, events_of, mint
from tests.acceptance.wire import get, post, say, wire
from tests.servers.behaviours import BY_NAME
from tests.servers.gateway import Gateway
from tests.servers.upstream import Exchange, Upstream

_BODY = json.dumps({"model": "openai-compatible/ok", "messages": []}).encode()
_GATED = json.dumps({"model": "openai-compatible/gated", "messages": []}).encode()
_MOST = 64


@pytest.fixture
def key(gateway: Gateway, upstream: Upstream) -> Key:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    (made,) = mint(gateway, NewAgentKey("many"))
    return made


def test_nothing_is_read_while_requests_wait(gateway: Gateway, upstream: Upstream, key: Key) -> None:
    """Any number may be sent: what came after those that wait is left to the kernel, and is none too many."""
    second = threading.Event()

    async def held(exchange: Exchange) -> None:
        while not second.is_set():
            await exchange.pause(0.01)
        await BY_NAME["ok"](exchange)

    upstream.push(BY_NAME["gated"], held)
    with wire(gateway) as line:
        line.send(post(key.secret, _BODY) + post(key.secret, _BODY) + get() * (_MOST - 1))
        upstream.wait_for(1)
        line.send(get() * _MOST)
        upstream.gate.set()
        assert line.answer().status == 200
        upstream.wait_for(2)
        assert say(gateway, get()).status == 200
        second.set()
        assert [line.answer().status for _ in range(2 * _MOST)] == [200] * (2 * _MOST)
        line.send(get())
        assert line.answer().status == 200


def test_one_too_many_ends_the_connection_and_the_call_under_way(
    gateway: Gateway, upstream: Upstream, key: Key
) -> None:
    """None of those that waited is begun: whoever is cut off must not go on to cost anything."""
    with wire(gateway) as line:
        line.send(post(key.secret, _GATED))
        under_way = upstream.wait_for(1)
        line.send(post(key.secret, _BODY) * (_MOST + 1))
        assert line.is_closed()
        assert under_way.abandoned.wait(30)
    assert len(upstream.calls) == 1
    [event] = events_of(gateway, key, 1)
    assert event["status"] == "cancelled"
    assert say(gateway, get()).status == 200
