"""Several real gateways on one database: their rates and budgets are one, and one that stalls changes nothing."""

from __future__ import annotations

import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from itertools import count
from pathlib import Path

import httpx2
import pytest

from tests.servers.gateway import NO_TLS, Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL = "openai-compatible/ok"
_GATED = "openai-compatible/gated"
_MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="


@pytest.fixture(params=["sqlite", "postgresql"])
def four(request: pytest.FixtureRequest, gateways: GatewayMaker, upstream: Upstream, tmp_path: Path) -> list[Gateway]:
    """On a fresh database, each under a clock of its own that the test moves."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    env = {"OSTIARY_DATABASE_URL": url, "OSTIARY_MASTER_KEY": _MASTER_KEY}
    made = [gateways(allow=[upstream.origin], env=env, clock=True) for _ in range(4)]
    for number, gateway in enumerate(made):
        gateway._heard = count(1_000 * number)  # they share the names of what they wait for
    made[0].add_provider_key("openai-compatible", "upstream", upstream.url)
    made[0].cli("prices", "set", _MODEL, "--input", "100", "--output", "100")
    return made


def _call(gateway: Gateway, secret: str, **more: object) -> httpx2.Response:
    body = {"model": _MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20, **more}
    headers = {"authorization": f"Bearer {secret}"}
    return httpx2.post(f"{gateway.url}/chat/completions", json=body, headers=headers, timeout=90, verify=NO_TLS)


def _cost(answer: httpx2.Response) -> Decimal:
    assert answer.status_code == 200, answer.text
    return Decimal(answer.headers["x-ostiary-cost-usd"])


def _hammer(gateways: list[Gateway], secret: str, calls: int) -> int:
    """How many of so many calls were served; the others were refused for their rate, and told when to come again."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: _call(gateways[number % len(gateways)], secret), range(calls)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(1 <= int(answer.headers["retry-after"]) <= 86_400 for answer in refused)
    served = [answer for answer in answers if answer.status_code == 200]
    assert len(served) + len(refused) == calls
    return len(served)


def _in_a_minute(gateways: list[Gateway], secret: str) -> int:
    """How many are served: what one that stands still has leased for itself, the others may have a little later."""
    end = time.monotonic() + 40
    served = _hammer(gateways, secret, 200)
    while served < 50 and time.monotonic() < end:
        served += _hammer(gateways, secret, 20)
    return served


def test_sixty_a_minute_are_sixty_over_four_processes_and_two_boundaries(four: list[Gateway]) -> None:
    secret = four[0].create_key("a", "--rpm", "60")
    served = []
    for minute in range(3):
        served.append(_in_a_minute(four, secret))
        for gateway in four:
            gateway.shift(61 * (minute + 1))
    assert max(served) <= 60
    assert sum(served) >= 150, "and most of what is allowed is served"


@pytest.mark.usefixtures("one_day")
def test_a_day_is_one_day_over_processes_restarts_and_deaths(four: list[Gateway]) -> None:
    secret = four[0].create_key("a", "--rpd", "40")
    served = _hammer(four, secret, 24)
    four[0].restart()
    four[1].kill()
    four[1].start()
    served += _hammer(four, secret, 60)
    until(lambda: _hammer(four, secret, 4) == 0, "nothing left of the day", 30)
    assert 30 <= served <= 40
    assert len(four[0].traces()) <= 40


def _stop_between_writes(gateway: Gateway, database: Path) -> None:
    """Whoever is stopped in the middle of a write, be it of a heartbeat, keeps SQLite's one lock from everybody."""
    assert gateway.process is not None
    for _ in range(20):
        gateway.process.send_signal(signal.SIGSTOP)
        with closing(sqlite3.connect(database, timeout=1, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                gateway.process.send_signal(signal.SIGCONT)
                db.execute("PRAGMA busy_timeout = 30000")
                db.executescript("BEGIN IMMEDIATE; ROLLBACK")  # the write has ended: it stands elsewhere next time
            else:
                db.execute("ROLLBACK")
                return
    raise AssertionError("it writes all the time")


def test_a_stopped_gateway_wakes_after_it_was_retired_and_nothing_is_charged_twice(
    gateways: GatewayMaker, upstream: Upstream, tmp_path: Path
) -> None:
    env = {"OSTIARY_DATABASE_URL": f"sqlite:///{tmp_path / 'shared.db'}", "OSTIARY_MASTER_KEY": _MASTER_KEY}
    one = gateways(allow=[upstream.origin], env={**env, "OSTIARY_NAME": "sleeper"})
    two = gateways(allow=[upstream.origin], env={**env, "OSTIARY_NAME": "other"})
    one.add_provider_key("openai-compatible", "upstream", upstream.url)
    for model in (_MODEL, _GATED):
        one.cli("prices", "set", model, "--input", "100", "--output", "100")
    secret = one.create_key("a", "--budget-usd", "1")
    two.hear()
    costs = [_cost(_call(one, secret))]
    assert one.process is not None
    until(lambda: Decimal(str(two.json("keys", "show", "a")["spent_usd"])) == costs[0], "its call to be written down")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(_call, one, secret, model=_GATED)  # what it has leased is not idle, and does not go back
        upstream.wait_for(2)
        try:
            _stop_between_writes(one, tmp_path / "shared.db")
            until(lambda: two.cli("gateways", "retire", "sleeper", check=False).code == 0, "it to be lost", 40)
            costs.append(_cost(_call(two, secret)))
            retired = Decimal(str(two.json("keys", "show", "a")["spent_usd"]))
            assert retired > sum(costs), "all that it had leased"
        finally:
            upstream.gate.set()
            one.process.send_signal(signal.SIGCONT)
        costs.append(_cost(held.result()))
    costs.append(_cost(_call(one, secret)))
    one.stop()
    shown = Decimal(str(two.json("keys", "show", "a")["spent_usd"]))
    assert shown == sum(costs), "what the charge was too much came back with the gateway"
