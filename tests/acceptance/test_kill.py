"""kill -9 at any moment: every answer that reached a client whole is in the ledger once, and no hold is unexplained."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_KILLS = 50
_IN_ROW = 4
"""Callers of each gateway: streams and whole answers, quick ones and slow ones."""
_BREATH_S = 0.05
"""Between two calls of one caller: most of the machine is for the gateways that start."""
_MODEL = "openai-compatible/ok"
_SLOW = "openai-compatible/slow-stream"
_GATED = "openai-compatible/gated"
_MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="
_LIMITS: Final = ("--rpm", "1000000", "--rpd", "10000000", "--tpm", "100000000", "--parallel", "1000")
"""Never reached, and leased like any other."""


@dataclass
class Load:
    """Callers that go on through every restart, and remember what they were answered."""

    gateways: Sequence[Gateway]
    secret: str
    whole: dict[str, Decimal | None] = field(default_factory=dict)
    """Answers that were read to their end, by request id, and what they said they cost."""
    begun: set[str] = field(default_factory=set)
    """Answers of which at least the head came."""
    broken: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        """Call one of the gateways again and again."""
        gateway = self.gateways[number % len(self.gateways)]
        kind = number // len(self.gateways)
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 10, "stream": kind % 2 == 1}
        body["model"] = _SLOW if kind == _IN_ROW - 1 else _MODEL
        with httpx2.Client(headers={"authorization": f"Bearer {self.secret}"}, timeout=10) as client:
            while not self.stop.is_set():
                time.sleep(_BREATH_S)
                try:
                    self._call(client, f"{gateway.url}/chat/completions", body)
                except (httpx2.TransportError, httpx2.StreamError):
                    self.broken += 1
                    time.sleep(0.02)

    def _call(self, client: httpx2.Client, url: str, body: dict[str, Any]) -> None:
        with client.stream("POST", url, json=body) as answer:
            if answer.status_code != httpx2.codes.OK:
                return
            request_id, cost = answer.headers["x-request-id"], answer.headers.get("x-ostiary-cost-usd")
            self.begun.add(request_id)
            text = answer.read()
        if not body["stream"] or text.endswith(b"data: [DONE]\n\n"):
            self.whole[request_id] = Decimal(cost) if cost else None


@dataclass
class Killer:
    """Ends a gateway with kill -9 and starts it again, until all together have done so often enough."""

    turns: Any = field(default_factory=lambda: iter(range(_KILLS)))
    early: Any = field(default_factory=count)
    """Kills that struck while it was starting: while it adopts what the one before it left."""

    def run(self, gateway: Gateway, seed: int) -> None:
        """One gateway's deaths."""
        chance = random.Random(seed)  # noqa: S311 - moments, not secrets
        for _ in self.turns:
            time.sleep(chance.uniform(0.02, 0.5))
            gateway.kill()
            if chance.random() < 1 / 8:
                gateway.spawn()
                time.sleep(chance.uniform(0.3, 1.2))
                gateway.kill()
                next(self.early)
            gateway.start()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "shared.db"


@pytest.fixture
def pair(gateways: GatewayMaker, upstream: Upstream, database: Path) -> list[Gateway]:
    """Two on one database, each with a spool of its own."""
    env = {"OSTIARY_DATABASE_URL": f"sqlite:///{database}", "OSTIARY_MASTER_KEY": _MASTER_KEY}
    made = [gateways(allow=[upstream.origin], env=env) for _ in range(2)]
    made[0].add_provider_key("openai-compatible", "upstream", upstream.url)
    for model in (_MODEL, _SLOW, _GATED):
        made[0].cli("prices", "set", model, "--input", "1", "--output", "1")
    return made


def test_no_answer_that_was_given_is_lost(pair: list[Gateway], upstream: Upstream, database: Path) -> None:
    secret = pair[0].create_key("a", "--budget-usd", "100", "--expires", "never", *_LIMITS)
    pair[1].hear()
    load, killer = Load(pair, secret), Killer()
    with ThreadPoolExecutor(_IN_ROW * len(pair) + len(pair)) as pool:
        running = [pool.submit(load.run, number) for number in range(_IN_ROW * len(pair))]
        try:
            for one in [pool.submit(killer.run, gateway, seed) for seed, gateway in enumerate(pair)]:
                one.result()
            time.sleep(0.3)
        finally:
            load.stop.set()
        for one in running:
            one.result()
    assert [gateway.stop() for gateway in pair] == [0, 0]
    assert next(killer.early), "some died while they started"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        db.row_factory = sqlite3.Row
        _check_events(db, load, upstream)
        _check_money(db)
        _check_sums(db)
    for gateway in pair:
        assert list((gateway.data_dir / "spool").iterdir()) == []
        assert "Traceback" not in gateway.output


def _check_events(db: sqlite3.Connection, load: Load, upstream: Upstream) -> None:
    assert len(load.whole) > 100, "the load was real"
    assert load.broken, "calls were cut off"
    assert load.begun - load.whole.keys(), "streams were cut off"
    events = db.execute("SELECT * FROM usage_events").fetchall()
    written = {event["request_id"]: event for event in events}
    assert len(written) == len(events), "each attempt once"
    assert not load.whole.keys() - written.keys()
    assert not load.begun - written.keys(), "not even what was cut off"
    assert len(upstream.calls) <= len(events), "nobody is called for nothing"
    for request_id, cost in load.whole.items():
        event = written[request_id]
        assert (event["status"], event["usage_source"]) == ("ok", "provider")
        assert cost is None or Decimal(event["cost_nano"]).scaleb(-9) == cost
    unknown = [event for event in events if event["status"] == "unknown"]
    assert unknown, "calls were under way"
    for event in unknown:
        assert event["usage_source"] == "none", "a hold without a settlement is charged as it was held"
        assert event["cost_nano"] == event["held_nano"] > 0


def _check_money(db: sqlite3.Connection) -> None:
    """Leases were returned or charged, accounts are what the events come to, and nobody holds a part of a window."""
    total = db.execute("SELECT sum(cost_nano) FROM usage_events").fetchone()[0]
    accounts = db.execute("SELECT scope, period_id, spent_nano, leased_nano FROM accounts").fetchall()
    assert {account["leased_nano"] for account in accounts} == {0}
    sums: Counter[tuple[str, int]] = Counter()  # of all periods of a kind: one may have ended meanwhile
    for account in accounts:
        sums[account["scope"], account["period_id"].count("-")] += account["spent_nano"]
    in_all, of_months, of_days = range(3)
    everybodys = {
        (scope, kind) for scope in ("agent_key", "organization", "provider_key") for kind in (in_all, of_months)
    }
    assert sums == dict.fromkeys(everybodys | {("provider_key", of_days)}, total)
    assert db.execute("SELECT * FROM leases").fetchall() == []
    assert db.execute('SELECT * FROM window_leases WHERE "until" IS NULL').fetchall() == []
    assert db.execute("SELECT * FROM owners WHERE closed_at IS NULL").fetchall() == []


def _check_sums(db: sqlite3.Connection) -> None:
    """By hour and by day: the same as summing the events up, place by place."""
    rest = "provider, model, provider_key_id"
    figures = ("input_tokens", "output_tokens", "latency_ms", "cost_nano")
    counted = {
        "requests": "attempt = 1",
        "attempts": "1",
        "errors": "status IN ('error', 'unknown')",
        "unknown": "status = 'unknown'",
        "cancelled": "status = 'cancelled'",
        **{name: name for name in figures},
    }
    sums = ", ".join(f"sum({sql})" for sql in counted.values())
    for table, span, length in (("usage_hours", "hour", 3_600_000), ("usage_days", "day", 86_400_000)):
        kept = db.execute(
            f"SELECT {span}, agent_key_id, {rest}, {', '.join(counted)}, max_latency_ms, max_cost_nano "  # noqa: S608 - words of this function
            f"FROM {table} ORDER BY 1, 2, 3, 4, 5"
        )
        summed = db.execute(
            f"SELECT started_at / {length}, agent_key_id, {rest}, {sums}, max(latency_ms), max(cost_nano) "  # noqa: S608 - words of this function
            "FROM usage_events GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
        )
        assert [tuple(row) for row in kept] == [tuple(row) for row in summed], table


@pytest.mark.main_job
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


def test_what_one_held_when_it_died_is_anothers_once_it_is_back(
    pair: list[Gateway], upstream: Upstream, database: Path
) -> None:
    """Killed in the middle of a call: the hold is charged, the slot comes back, the rest of the budget too."""
    one, two = pair
    secret = one.create_key("a", "--budget-usd", "0.001", "--parallel", "1", "--expires", "never")
    body = {"model": _GATED, "messages": [], "max_tokens": 100}
    two.hear()
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(one.client(secret).post, "/v1/chat/completions", json=body)
        upstream.wait_for(1)
        assert two.chat(secret, _MODEL, max_tokens=1).json()["error"]["code"] == "too_many_parallel_requests"
        one.kill()
        with pytest.raises(httpx2.TransportError):
            lost.result()
    refused = two.chat(secret, _MODEL, max_tokens=1)
    assert refused.status_code == httpx2.codes.TOO_MANY_REQUESTS, "while nobody knows whether it still runs"
    one.start()
    until(lambda: two.chat(secret, _MODEL, max_tokens=1).status_code == httpx2.codes.OK, "the slot")
    shown = two.client(secret).get("/v1/key").json()["limits"]
    assert (shown["parallel_requests"]["used"], shown["parallel_requests"]["remaining"]) == (0, 1)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        charged, held = db.execute("SELECT cost_nano, held_nano FROM usage_events WHERE status = 'unknown'").fetchone()
        spent = db.execute("SELECT sum(cost_nano) FROM usage_events").fetchone()[0]
    assert charged == held > 0
    assert round(shown["budget"]["spent_usd"] * 10**9) == spent


@pytest.mark.parametrize(
    ("sync", "boot", "rest"), [("normal", "first", "back"), ("normal", "second", "spent"), ("full", "second", "back")]
)
def test_what_the_power_took_along_is_charged(
    gateways: GatewayMaker, upstream: Upstream, tmp_path: Path, sync: str, boot: str, rest: str
) -> None:
    """A spool that was not on the disk may lack calls that were answered: then all that it had leased counts."""
    boots = tmp_path / "boot"
    boots.write_text("first")
    env = {"OSTIARY_SPOOL_SYNC": sync, "BOOT_FILE": str(boots)}
    gateway = gateways(allow=[upstream.origin], env=env, entry="tests.rebooted_entry")
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "1", "--output", "1")
    secret = gateway.create_key("a", "--budget-usd", "1", "--expires", "never")
    cost = Decimal(gateway.chat(secret, _MODEL).headers["x-ostiary-cost-usd"])
    gateway.kill()
    boots.write_text(boot)
    gateway.start()
    spent = Decimal(str(gateway.json("keys", "show", "a")["spent_usd"]))
    assert (spent == cost) if rest == "back" else (cost < spent <= 1)
    gateway.stop()
    with closing(sqlite3.connect(gateway.data_dir / "ostiary.db")) as db:
        assert db.execute("SELECT sum(leased_nano) FROM accounts").fetchone() == (0,)
