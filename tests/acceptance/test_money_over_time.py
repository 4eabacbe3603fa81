"""Sums stay exact when gateways sleep, are given up, wake again, and when the calendar jumps under their feet."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ostiary.clock import month_ends, month_of
from ostiary.errors import Refusal
from tests.acceptance.cluster import COST, GATED, Cluster, founded, jumpy
from tests.acceptance.crowd import Load, behind, costs, loading, one
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_DOLLAR = 1_000_000_000
_HOUR = 3_600


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of either kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'shared.db'}"


# ---- a gateway that sleeps ------------------------------------------------------------------------------------------


def _send(gateway: Gateway, number: int) -> None:
    assert gateway.process
    os.kill(gateway.process.pid, number)


@pytest.mark.parametrize("retired", [False, True])
def test_a_gateway_that_slept_past_its_heartbeat_settles_to_the_nano(
    gateways: GatewayMaker, upstream: Upstream, url: str, *, retired: bool
) -> None:
    cluster = founded(gateways, upstream, url, 2, clock=True)
    sleeper, waker = cluster.gateways
    key = cluster.mint(_DOLLAR)
    answers = [one(gateway, key.secret) for gateway in cluster.gateways]
    with behind([lambda: one(sleeper, key.secret, GATED)] * 3) as open_calls:
        upstream.wait_for(5)
        owner = cluster.sql("SELECT id FROM owners WHERE name = 'gate-0'")[0]["id"]
        try:
            _stop_between_writes(cluster, sleeper)
            cluster.tamper("UPDATE owners SET heartbeat_at = heartbeat_at - 60000 WHERE id = :owner", owner=owner)
            sleeper.clock_file.write_text("60")
            upstream.gate.set()
            waker.shift(20)  # it looks for silent ones by the clock
            until(lambda: {row["mark"] for row in _leases(cluster, owner)} == {"lost"}, "the mark", 30)
            left = sum(row["amount_nano"] - row["used_nano"] for row in _leases(cluster, owner))
            before = _account(cluster, key.id)
            assert before["leased_nano"] >= left > 0, "what is lost is counted all the same"
            if retired:
                given_up = waker.json("gateways", "retire", "gate-0")
                assert [one["id"] for one in given_up] == [owner]
                charged = _account(cluster, key.id)
                assert charged["spent_nano"] >= before["spent_nano"] + left
                again = waker.cli("gateways", "retire", "gate-0", check=False)
                assert again.code != 0, "nobody is charged twice"
                assert _account(cluster, key.id)["spent_nano"] == charged["spent_nano"]
            answers += [one(waker, key.secret) for _ in range(3)]
        finally:
            _send(sleeper, signal.SIGCONT)
        answers += [running.result() for running in open_calls]
    assert {answer.status for answer in answers} == {200}
    until(lambda: {row["mark"] for row in _leases(cluster, owner)} == {None}, "the sleeper to be known as alive", 30)
    until(lambda: one(sleeper, key.secret).status == 200, "the sleeper to serve again", 30)
    later = [one(gateway, key.secret) for gateway in cluster.gateways]
    assert {answer.status for answer in later} == {200}
    books = cluster.end()
    books.check(costs(answers + later))
    assert books.spent_by(key.id) == len(books.events) * COST


def _stop_between_writes(cluster: Cluster, sleeper: Gateway) -> None:
    """Whoever is stopped in the middle of a write keeps SQLite's one lock: then nobody writes, and nothing is shown."""
    for _ in range(5):
        _send(sleeper, signal.SIGSTOP)
        if _may_write(cluster):
            return
        _send(sleeper, signal.SIGCONT)
        until(lambda: _may_write(cluster), "the write that it was stopped in to end", 30)
    raise AssertionError("it writes all the time")


def _may_write(cluster: Cluster) -> bool:
    """Whether nobody keeps a lock; PostgreSQL has one for each row."""
    try:
        for same in ("owners SET name = name", "accounts SET id = id", "leases SET owner = owner"):
            cluster.tamper(f"UPDATE {same}")
    except Refusal:
        return False
    return True


def _leases(cluster: Cluster, owner: str) -> list[dict[str, Any]]:
    return cluster.sql("SELECT amount_nano, used_nano, mark FROM leases WHERE owner = :owner", owner=owner)


def _account(cluster: Cluster, key_id: str) -> dict[str, Any]:
    return cluster.sql("SELECT * FROM accounts WHERE id = :id AND period_id = 'total'", id=key_id)[0]


# ---- a calendar that jumps ------------------------------------------------------------------------------------------


def _next_month() -> tuple[float, str, str]:
    """How many seconds away it is, the month that ends then, and the one that begins."""
    now = int(datetime.now(UTC).timestamp() * 1000)
    ends = month_ends(now)
    return (ends - now) / 1000, month_of(now), month_of(ends)


def test_a_month_ends_under_load_and_the_calendar_jumps_to_and_fro(
    gateways: GatewayMaker, upstream: Upstream, url: str
) -> None:
    ahead, old, new = _next_month()
    with jumpy(gateways, upstream, url, 2, ahead - _HOUR) as cluster:
        key, free = cluster.mint(_DOLLAR, "month"), cluster.mint()
        with loading(cluster.gateways, [key.secret, free.secret]) as load:
            for first, second in ((-1, -1), (1, 1), (1 - _HOUR, 1), (1, 1 - _HOUR), (_HOUR, 1), (1, _HOUR)):
                now_s, *_ = _next_month()
                for gateway, jump in zip(cluster.gateways, (first, second), strict=True):
                    gateway.jump(now_s + jump)  # type: ignore[attr-defined]
                goal = len(load.answers) + 40
                until(partial(_has, load, goal), "calls to go on", 20)
        assert not load.cut
        assert {answer.status for _, answer in load.answers} == {200}
        assert max(answer.took_s for _, answer in load.answers) < 25
        until(lambda: _leased(cluster, old) == 0, "leases of the old month to come back", 30)
        books = cluster.end()
    books.check(load.costs())
    for whose in (key, free):
        in_old, in_new = books.spent_by(whose.id, old), books.spent_by(whose.id, new)
        assert min(in_old, in_new) > 0
        assert in_old + in_new == books.spent_by(whose.id) == len(load.of(whose.secret)) * COST
    known = {old, new, "total"} | {month_of(time.time_ns() // 1_000_000)}
    assert {period for scope, _, period in books.spent if scope != "provider_key"} <= known
    of_provider_keys = {period for scope, _, period in books.spent if scope == "provider_key"}
    assert {period[: len(old)] for period in of_provider_keys} <= known
    assert any(period.count("-") == 2 for period in of_provider_keys), "days are counted for them"


def _has(load: Load, answers: int) -> bool:
    return len(load.answers) >= answers


def _leased(cluster: Cluster, period: str) -> int:
    """What is leased of a month. A gateway may stand in either, so what is held of both is not idle for long."""
    return int(
        cluster.sql("SELECT COALESCE(SUM(leased_nano), 0) AS held FROM accounts WHERE period_id = :p", p=period)[0][
            "held"
        ]
    )


@pytest.mark.main_job
def test_a_month_that_is_spent_stays_spent_however_often_it_comes_back(
    gateways: GatewayMaker, upstream: Upstream, tmp_path: Path
) -> None:
    ahead, old, new = _next_month()
    cap = 50 * COST
    with jumpy(gateways, upstream, f"sqlite:///{tmp_path / 'shared.db'}", 1, ahead - 60) as cluster:
        gateway = cluster[0]
        key = cluster.mint(cap, "month")
        served = {old: 0, new: 0}
        for place, month in ((-60, old), (60, new), (60 - _HOUR, old), (_HOUR, new), (-_HOUR, old), (60, new)):
            gateway.jump(_next_month()[0] + place)  # type: ignore[attr-defined]
            answers = [one(gateway, key.secret) for _ in range(25)]
            served[month] += sum(answer.status == 200 for answer in answers)
            refused = [answer for answer in answers if answer.status != 200]
            assert {(answer.status, answer.may_be_retried) for answer in refused} <= {(402, False)}
        last = [one(gateway, key.secret).status for _ in range(5)]
        books = cluster.end()
    assert served == {old: served[new], new: served[old]}, "a month is as good as the other"
    assert served[old] > 25, "what was left was still there when the month came back"
    assert last[-1] == 402
    for month in (old, new):
        assert books.spent_by(key.id, month) <= cap
        assert books.spent_by(key.id, month) >= served[month] * COST
