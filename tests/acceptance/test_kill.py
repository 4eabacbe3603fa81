"""kill -9 at any moment: every answer that reached a client whole is in the ledger once, and no hold is unexplained."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal

import httpx2
import pytest

from tests.servers.gateway import Gateway
from tests.servers.upstream import Upstream

_KILLS = 20
_CALLERS = 6
_MODEL = "openai-compatible/ok"


@dataclass
class Load:
    """Callers that go on through every restart, and remember which answers they got to the end."""

    gateway: Gateway
    secret: str
    whole: dict[str, Decimal | None] = field(default_factory=dict)
    broken: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        body = {"model": _MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 10}
        streams = number % 2 == 1
        with httpx2.Client(headers={"authorization": f"Bearer {self.secret}"}, timeout=10) as client:
            while not self.stop.is_set():
                try:
                    self._call(client, body | {"stream": streams}, streams=streams)
                except (httpx2.TransportError, httpx2.StreamError):
                    self.broken += 1
                    time.sleep(0.02)

    def _call(self, client: httpx2.Client, body: dict[str, object], *, streams: bool) -> None:
        answer = client.post(f"{self.gateway.url}/chat/completions", json=body)
        if answer.status_code != 200 or (streams and not answer.text.endswith("data: [DONE]\n\n")):
            return
        cost = answer.headers.get("x-ostiary-cost-usd")
        self.whole[answer.headers["x-request-id"]] = Decimal(cost) if cost else None


def test_no_answer_that_was_given_is_lost(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "1", "--output", "1")
    load = Load(gateway, gateway.create_key("a", "--budget-usd", "100", "--expires", "never"))
    chance = random.Random(7)  # noqa: S311 - moments, not secrets
    with ThreadPoolExecutor(_CALLERS) as pool:
        running = [pool.submit(load.run, number) for number in range(_CALLERS)]
        try:
            for _ in range(_KILLS):
                time.sleep(chance.uniform(0.02, 0.5))
                gateway.kill()
                gateway.start()
            time.sleep(0.3)
        finally:
            load.stop.set()
        for one in running:
            one.result()
    assert gateway.stop() == 0
    _check(gateway, load)


def _check(gateway: Gateway, load: Load) -> None:
    assert len(load.whole) > 100, "the load was real"
    assert load.broken, "calls were cut off"
    with sqlite3.connect(gateway.data_dir / "ostiary.db") as db:
        events = db.execute(
            "SELECT request_id, cost_nano, status, usage_source, held_nano FROM usage_events"
        ).fetchall()
        accounts = db.execute("SELECT scope, period_id, spent_nano, leased_nano FROM accounts").fetchall()
        leases = db.execute("SELECT * FROM leases").fetchall()
    db.close()
    written = {request_id: cost for request_id, cost, *_ in events}
    assert len(written) == len(events), "each attempt once"
    lost = load.whole.keys() - written.keys()
    assert not lost
    for request_id, cost in load.whole.items():
        if cost is not None:
            assert Decimal(written[request_id]).scaleb(-9) == cost
    for _, cost, status, source, held in events:
        if status == "unknown":
            assert (source, cost) == ("none", held), "a hold without a settlement is charged as it was held"
    total = sum(written.values())
    for scope, period_id, spent, leased in accounts:
        assert (spent, leased) == (total, 0), (scope, period_id)
    assert leases == []
    assert list((gateway.data_dir / "spool").iterdir()) == []


@pytest.mark.parametrize("streams", [False, True])
def test_the_answer_is_in_the_ledger_before_its_last_byte(
    gateway: Gateway, upstream: Upstream, *, streams: bool
) -> None:
    """Killed the very moment the answer is whole, before the batch writer has had its turn."""
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "1", "--output", "1")
    secret = gateway.create_key("a", "--budget-usd", "1")
    answer = gateway.chat(secret, _MODEL, stream=streams)
    gateway.kill()
    assert answer.status_code == 200
    gateway.start()
    event = gateway.traces()[0]
    assert event["request_id"] == answer.headers["x-request-id"]
    assert (event["status"], event["usage_source"]) == ("ok", "provider")
