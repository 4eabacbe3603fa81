"""SIGTERM: what is on its way comes to its end and is settled, new calls find the door closed."""

from __future__ import annotations

import threading
import time

import httpx2
import pytest

from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.upstream import Upstream


def _prepared(gateway: Gateway, upstream: Upstream) -> str:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", "openai-compatible/gated", "--input", "1", "--output", "1")
    return gateway.create_key("a", "--budget-usd", "1")


@pytest.mark.parametrize("streams", [False, True])
def test_a_call_on_its_way_is_finished_and_settled(gateway: Gateway, upstream: Upstream, *, streams: bool) -> None:
    secret = _prepared(gateway, upstream)
    answers: list[httpx2.Response] = []
    calling = threading.Thread(
        target=lambda: answers.append(gateway.chat(secret, "openai-compatible/gated", stream=streams))
    )
    calling.start()
    upstream.wait_for(1)
    assert gateway.process
    gateway.process.terminate()
    time.sleep(0.5)
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{gateway.origin}/health")
    upstream.gate.set()
    calling.join(20)
    assert gateway.process.wait(20) == 0
    assert answers[0].status_code == 200
    event = gateway.traces()[0]
    assert (event["status"], event["request_id"]) == ("ok", answers[0].headers["x-request-id"])
    assert list((gateway.data_dir / "spool").iterdir()) == []


def test_what_outlasts_the_drain_is_cut_off_and_settled(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], env={"OSTIARY_DRAIN_S": "1"})
    secret = _prepared(gateway, upstream)

    def call() -> None:
        with pytest.raises(httpx2.TransportError):
            gateway.chat(secret, "openai-compatible/gated", stream=True)

    calling = threading.Thread(target=call)
    calling.start()
    upstream.wait_for(1)
    began = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - began < 10
    calling.join(20)
    event = gateway.traces()[0]
    assert event["status"] == "cancelled"
    assert event["cost_usd"] > 0
    assert gateway.json("usage")[0]["cost_usd"] == event["cost_usd"]
