"""No crowd, whatever it does and however many gateways it does it at, spends more than a hard budget allows."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.cluster import COST, GATED, Cluster, founded
from tests.acceptance.crowd import MODEL, Answer, behind, costs, one, rush
from tests.acceptance.inside import Key
from tests.servers.gateway import PATIENT, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_CENT = 10_000_000
_CALLS = 1_000
_TRIES = 15
"""Until nearly all is spent, one is told that only open calls are in the way; how soon it is depends on the machine."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of either kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'shared.db'}"


def _check_crowd(cluster: Cluster, account: str, answers: list[Answer]) -> None:
    assert {answer.status for answer in answers} == {200, 402}
    served = costs(answers)
    assert set(served.values()) == {COST}
    books = cluster.end()
    books.check(served)
    assert len(books.events) == len(served), "nothing was charged that was not answered"
    assert books.spent_by(account) == len(served) * COST <= _CENT
    affordable = _CENT // COST
    assert len(served) >= affordable * 0.9, f"{len(served)} of {affordable} that could be afforded"


def test_a_thousand_calls_at_four_gateways_never_pass_a_cent(
    gateways: GatewayMaker, upstream: Upstream, url: str
) -> None:
    cluster = founded(gateways, upstream, url, 4, entry=PATIENT)
    key = cluster.mint(_CENT)
    _check_crowd(cluster, key.id, rush(cluster.gateways, [key.secret], _CALLS, _TRIES))


def test_nor_do_two_keys_that_share_the_budget_of_their_organization(
    gateways: GatewayMaker, upstream: Upstream, url: str
) -> None:
    cluster = founded(gateways, upstream, url, 4, entry=PATIENT)
    rich, richer = cluster.mint(_CENT * 10), cluster.mint()
    organization = cluster.budget_of_all(_CENT)
    # Five turns of four gateways and two keys: each key comes to each gateway.
    secrets = [rich.secret, rich.secret, richer.secret, richer.secret, richer.secret]
    _check_crowd(cluster, organization, rush(cluster.gateways, secrets, _CALLS, _TRIES))


# ---- a budget that changes under open calls -------------------------------------------------------------------------


def _held(cluster: Cluster) -> int:
    return int(cluster.sql("SELECT COALESCE(SUM(amount_nano - used_nano), 0) AS held FROM leases")[0]["held"])


def _edit_under_open_calls(cluster: Cluster, key: Key) -> tuple[list[Answer], list[Answer]]:
    """Lower the cap below what ten calls hold, raise it again, lift it, set it low again: what was served meanwhile."""
    cluster.budget(key, 5 * COST)
    refused = [one(gateway, key.secret) for gateway in cluster.gateways]
    assert {answer.status for answer in refused} == {402}
    assert {answer.error["limit_usd"] for answer in refused} == {5 * COST / 1e9}
    hold = round(refused[0].error["needed_usd"] * 1e9)
    hold += (len(GATED) - len(MODEL)) * 1_000  # one token for each byte of a longer name
    until(lambda: _held(cluster) == 10 * hold, "all that is not held to come back")
    cluster.budget(key, _CENT)
    raised = [one(gateway, key.secret) for gateway in cluster.gateways]
    assert {answer.status for answer in raised} == {200}
    cluster.budget(key, None)
    lifted = [one(gateway, key.secret, max_tokens=50_000) for gateway in cluster.gateways]
    assert {answer.status for answer in lifted} == {200}, "any one of them could cost five times the old cap"
    cluster.budget(key, 5 * COST)
    return raised, lifted


def test_a_cap_that_is_lowered_raised_and_lifted_while_calls_are_open(
    gateways: GatewayMaker, upstream: Upstream, url: str
) -> None:
    cluster = founded(gateways, upstream, url, 2)
    key = cluster.mint(_CENT)
    calls = [partial(one, cluster[number % 2], key.secret, GATED) for number in range(10)]
    with behind(calls) as open_calls:
        try:
            upstream.wait_for(10)
            raised, lifted = _edit_under_open_calls(cluster, key)
        finally:
            upstream.gate.set()
        late = [running.result() for running in open_calls]
    assert {answer.status for answer in late} == {200}, "what was let in under the old cap is served"
    until(lambda: _held(cluster) == 0, "every lease to come back")
    again = [one(gateway, key.secret) for gateway in cluster.gateways]
    assert {(answer.status, answer.may_be_retried) for answer in again} == {(402, False)}
    answered = costs([*raised, *lifted, *late])
    books = cluster.end()
    books.check(answered)
    assert books.spent_by(key.id) == len(answered) * COST == 14 * COST
