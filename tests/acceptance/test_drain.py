"""SIGTERM: what is on its way comes to its end and is settled, new calls find the door closed."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.lodge import Lodge
from tests.servers.gateway import NO_TLS, Gateway, GatewayMaker
from tests.servers.smtp import Smtp
from tests.servers.upstream import Upstream
from tests.servers.waiting import until


def _is_shut(gateway: Gateway) -> bool:
    """Whether nobody listens any more."""
    try:
        httpx2.get(f"{gateway.origin}/health", verify=NO_TLS)
    except httpx2.ConnectError:
        return True
    except httpx2.TransportError:
        return False  # let in while the door was being closed, and put out with it
    return False


def _prepared(gateway: Gateway, upstream: Upstream) -> str:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", "openai-compatible/gated", "--input", "1", "--output", "1")
    return gateway.create_key("a", "--budget-usd", "1")


@pytest.mark.main_job
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
    until(lambda: _is_shut(gateway), "the door to be closed")
    upstream.gate.set()
    calling.join(60)
    assert gateway.process.wait(20) == 0
    assert answers[0].status_code == 200
    event = gateway.traces()[0]
    assert (event["status"], event["request_id"]) == ("ok", answers[0].headers["x-request-id"])
    assert list((gateway.data_dir / "spool").iterdir()) == []


@pytest.mark.usefixtures("one_day")
def test_what_outlasts_the_drain_is_cut_off_and_settled(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], env={"OSTIARY_DRAIN_S": "1"})
    secret = _prepared(gateway, upstream)

    body = {"model": "openai-compatible/gated", "messages": [], "max_tokens": 10, "stream": True}
    with gateway.client(secret).stream("POST", "/v1/chat/completions", json=body) as answer:
        pieces = answer.iter_raw()
        next(pieces)
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 20  # a drain takes 30 where nothing else is said
        with pytest.raises(httpx2.TransportError):
            list(pieces)
    event = gateway.traces()[0]
    assert event["status"] == "cancelled"
    assert event["cost_usd"] > 0
    assert gateway.json("usage")[0]["cost_usd"] == event["cost_usd"]


def test_a_gateway_that_ends_by_a_fault_of_its_own_drains_first(
    gateways: GatewayMaker, upstream: Upstream, tmp_path: Path
) -> None:
    """What it holds of an open call would be given back, and its settlement find the books closed."""
    fault = tmp_path / "fault"
    gateway = gateways(entry="tests.failing_entry", allow=[upstream.origin], env={"FAIL_FILE": str(fault)})
    secret = _prepared(gateway, upstream)
    answers: list[httpx2.Response] = []
    calling = threading.Thread(target=lambda: answers.append(gateway.chat(secret, "openai-compatible/gated")))
    calling.start()
    upstream.wait_for(1)
    fault.touch()
    until(lambda: _is_shut(gateway), "the door to be closed")
    upstream.gate.set()
    calling.join(60)
    assert gateway.process
    assert gateway.process.wait(20) == 1
    assert "a keeper has failed" in gateway.output
    assert [answer.status_code for answer in answers] == [200]
    assert [event["status"] for event in gateway.traces()] == ["ok"]
    assert list((gateway.data_dir / "spool").iterdir()) == []


class _Slow(Smtp):
    """Takes a letter when it is let."""

    goes_on: threading.Event

    async def handle_DATA(self, *given: Any) -> str:  # noqa: N802 - the library's name
        while not self.goes_on.is_set():  # noqa: ASYNC110 - the event is another thread's
            await asyncio.sleep(0.02)
        return await Smtp.handle_DATA(self, *given)


def test_a_letter_on_its_way_arrives(gateways: GatewayMaker) -> None:
    """Whoever has forgotten a password was told that it comes."""
    slow = _Slow()
    slow.goes_on = threading.Event()
    with slow.running():
        mail = {"OSTIARY_SMTP_URL": slow.url, "OSTIARY_MAIL_FROM": "Ostiary <gate@example.org>"}
        gateway = gateways(env=mail)
        assert Lodge(gateway).open("alice").client().post("/forgotten", email="alice@example.org").is_success
        assert gateway.process
        gateway.process.terminate()
        until(lambda: "letters.awaited" in gateway.output, "the gateway to wait for it")
        slow.goes_on.set()
        assert gateway.process.wait(20) == 0
        assert slow.wait_for(1).to == ("alice@example.org",)
    assert "letters.unsent" not in gateway.output
