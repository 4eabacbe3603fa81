"""While the main database is away the spools remember; when it is back every call is in the ledger once."""

from __future__ import annotations

import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ostiary.agents import agent_keys
from ostiary.errors import Refusal
from tests.acceptance import inside
from tests.acceptance.cluster import COST, GATED, Cluster, founded
from tests.acceptance.crowd import Load, behind, costs, loading, one
from tests.acceptance.inside import Key
from tests.servers import postgres
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.postgres import Postgres
from tests.servers.reaper import watch
from tests.servers.upstream import Upstream
from tests.servers.waiting import stop, until

_DOLLAR = 1_000_000_000
_CENT = 10_000_000
_AWAY_S = {"ended": 30.0, "frozen": 8.0}
"""Longer than gateways take one another for alive that say nothing (15 s), and so short that it is soon over."""


@dataclass(slots=True)
class Authority:
    """A PostgreSQL of this file's own, which may be ended and started again."""

    server: Postgres

    def end(self) -> None:
        """An orderly stop: every connection is closed, nobody listens any more."""
        self.server.process.send_signal(signal.SIGINT)
        self.server.process.wait(20)

    def start(self) -> None:
        """The same server on the same data."""
        nobody = pwd.getpwnam("nobody")
        who: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        with (self.server.folder / "postgres.log").open("ab") as out:
            process = subprocess.Popen(
                self.server.process.args,
                stdout=out,
                stderr=out,
                cwd=self.server.folder,
                **(who if Path("/proc/self").owner() == "root" else {}),
            )
        self.server.process = watch(process)


@pytest.fixture(scope="module")
def authority(canaries: Canaries) -> Iterator[Authority]:
    """Ended by whoever started it last."""
    with postgres.running(canaries) as server:
        mortal = Authority(server)
        yield mortal
        stop(server.process, 20)


@pytest.fixture(params=["ended", "frozen"])
def away(
    request: pytest.FixtureRequest, authority: Authority
) -> Iterator[tuple[Callable[[], None], Callable[[], None], float]]:
    """How the database goes, how it comes back, and after how many seconds."""
    server = authority.server
    ways = {"ended": (authority.end, authority.start), "frozen": (server.freeze, server.thaw)}
    yield (*ways[request.param], _AWAY_S[request.param])
    if server.process.poll() is not None:
        authority.start()
    server.thaw()


# ---- the database is away -------------------------------------------------------------------------------------------


def test_calls_go_on_without_the_database_and_all_are_counted_when_it_is_back(
    gateways: GatewayMaker,
    upstream: Upstream,
    authority: Authority,
    away: tuple[Callable[[], None], Callable[[], None], float],
) -> None:
    go, come_back, away_s = away
    cluster = founded(gateways, upstream, authority.server.url(authority.server.make()), 2)
    free, rich, poor = cluster.mint(), cluster.mint(_DOLLAR), cluster.mint(_CENT)
    with loading(cluster.gateways, [free.secret, rich.secret, poor.secret], callers=1) as load:
        until(lambda: all(len(load.of(key.secret)) > 10 for key in (free, rich, poor)), "calls", 20)
        go()
        gone_at = time.monotonic()
        time.sleep(away_s)
        come_back()
        back_at = time.monotonic()
        until(lambda: all(_served_since(load, key, back_at) for key in (free, rich, poor)), "calls to go on", 25)
    assert not load.cut
    statuses = {answer.status for _, answer in load.answers}
    assert statuses <= {200, 503} | {402}, "never a 401: nobody's key was judged without knowing"
    while_gone = load.of(free.secret, gone_at, back_at)
    assert len(while_gone) > 20
    assert {answer.status for answer in while_gone} == {200}
    took = [answer.took_s for answer in while_gone]
    assert _is_prompt(took), "what has no budget does not wait for the database"
    assert {answer.status for answer in load.of(rich.secret, gone_at, back_at)} == {200}, "its lease was long enough"
    served = [one for one in load.of(poor.secret, gone_at, back_at) if one.status == 200]
    assert len(served) * COST <= _CENT // 2, "no more than was leased"
    books = cluster.end()
    books.check(load.costs())
    assert len(books.events) == len(load.costs())
    assert books.spent_by(poor.id) <= _CENT


def _is_prompt(taken: list[float]) -> bool:
    """Nine of ten, for a machine may stand still more than once in so long; what waits for the database does always."""
    return sorted(taken)[len(taken) * 9 // 10] < 3


def _served_since(load: Load, key: Key, since: float) -> bool:
    """Served again, or told in so many words that its budget is spent, but no longer that something is away."""
    after = load.of(key.secret, since)
    return len(after) > 5 and after[-1].status in (200, 402)


def test_a_spent_lease_is_a_503_and_a_strange_key_is_no_401_while_the_database_is_away(
    gateways: GatewayMaker, upstream: Upstream, authority: Authority
) -> None:
    cluster = founded(gateways, upstream, authority.server.url(authority.server.make()), 1)
    key, stranger = cluster.mint(_CENT), cluster.mint()
    inside.change(cluster[0], stranger, agent_keys.delete)
    cluster.hear()
    assert one(cluster[0], key.secret).status == 200
    assert one(cluster[0], stranger.secret).status == 401
    with behind([partial(one, cluster[0], key.secret, GATED)]):  # so that its lease is not idle, and does not go back
        upstream.wait_for(2)
        authority.end()
        try:
            answers = [one(cluster[0], key.secret) for _ in range(200)]
            strange = one(cluster[0], stranger.secret)
        finally:
            upstream.gate.set()
            authority.start()
    assert [answer.status for answer in answers] == sorted(answer.status for answer in answers)
    assert {answer.status for answer in answers} == {200, 503}
    assert answers[-1].error["code"] == "service_unavailable"
    assert _is_prompt([answer.took_s for answer in answers])
    assert strange.status == 503, "it may have been made a moment ago, for all this gateway knows"
    until(lambda: one(cluster[0], key.secret).status == 200, "the budget to be read again", 30)
    books = cluster.end()
    assert books.events.keys() >= costs(answers).keys()
    assert books.spent_by(key.id) == len(books.events) * COST


def test_what_lies_idle_when_the_database_goes_comes_back_when_it_does(
    gateways: GatewayMaker, upstream: Upstream, authority: Authority
) -> None:
    """Nobody calls here again, so nothing but its own diligence makes the gateway give its lease to the others."""
    cluster = founded(gateways, upstream, authority.server.url(authority.server.make()), 2)
    key = cluster.mint(_CENT)
    with behind([partial(one, cluster[0], key.secret, GATED)]) as calls:
        upstream.wait_for(1)
        authority.end()
        upstream.gate.set()
        answer = calls[0].result()
    time.sleep(2.5)  # idle for a second, then tried to give back what it has, and could not
    authority.start()
    until(_answering(cluster), "the database", 30)
    until(lambda: cluster.sql("SELECT SUM(leased_nano) AS nano FROM accounts")[0]["nano"] == 0, "it to come back", 10)
    books = cluster.end()
    books.check(costs([answer]))


def _answering(cluster: Cluster) -> Callable[[], bool]:
    """Whether its database does."""

    def look() -> bool:
        try:
            return bool(cluster.sql("SELECT 1 AS one"))
        except Refusal:
            return False

    return look


# ---- what a dead process left ---------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of either kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'shared.db'}"


def _spool(gateway: Gateway) -> Path:
    return gateway.data_dir / "spool"


def test_two_spools_in_one_folder_are_both_adopted(gateways: GatewayMaker, upstream: Upstream, url: str) -> None:
    cluster = founded(gateways, upstream, url, 2)
    heir, other = cluster.gateways
    key = cluster.mint(_DOLLAR)
    answers = [one(gateway, key.secret) for gateway in cluster.gateways for _ in range(4)]
    with behind([partial(one, gateway, key.secret, GATED) for gateway in cluster.gateways]) as cut:
        upstream.wait_for(len(answers) + 2)
        for gateway in cluster.gateways:
            gateway.kill()
        for running in cut:
            assert running.exception(), "nobody got that answer"
    upstream.gate.set()
    for file in list(_spool(other).iterdir()):
        shutil.move(file, _spool(heir) / file.name)
    heir.start()
    assert heir.output.count("spool.adopted") == 2
    held = cluster.sql("SELECT held_nano, cost_nano FROM usage_events WHERE usage_source = 'none'")
    assert len(held) == 2
    assert all(row["cost_nano"] == row["held_nano"] > COST for row in held), "charged as they were held"
    answers.append(one(heir, key.secret))
    books = cluster.end()
    books.check(costs(answers))
    assert books.spent_by(key.id) == len(answers) * COST + sum(row["cost_nano"] for row in held)


def test_what_the_database_has_already_counts_once_however_often_the_spool_is_sent(
    gateways: GatewayMaker, upstream: Upstream, url: str, tmp_path: Path
) -> None:
    """The process dies between the database's commit and its own note of it; then a backup of the spool returns."""
    cluster = founded(gateways, upstream, url, 2)
    dying, other = cluster.gateways
    key = cluster.mint(_DOLLAR)
    answers = [one(gateway, key.secret) for gateway in cluster.gateways for _ in range(5)]
    until(lambda: len(cluster.sql("SELECT * FROM usage_events")) == 10, "all of it in the ledger", 10)
    dying.kill()
    assert list(_spool(dying).glob("*.spool")), "its settlements are still in its spool"
    shutil.copytree(_spool(dying), tmp_path / "copy")
    for _ in range(2):
        dying.start()
        assert "settled=5" in dying.output
        answers.append(one(dying, key.secret))
        assert dying.stop() == 0
        shutil.copytree(tmp_path / "copy", _spool(dying), dirs_exist_ok=True)
    dying.start()
    answers.append(one(other, key.secret))
    books = cluster.end()
    books.check(costs(answers))
    assert books.spent_by(key.id) == len(answers) * COST == 13 * COST
