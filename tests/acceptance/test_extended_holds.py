"""Another attempt after one that may have been billed: it has a hold of its own, or it is not made."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.limits.budgets import Budget
from ostiary.orgs import organizations
from tests.acceptance.inside import (
    OPERATOR,
    USD,
    Key,
    add_provider_keys,
    do,
    events,
    events_of,
    mint,
    rows,
    set_prices,
    spent,
)
from tests.acceptance.wire import post, wire
from tests.servers import behaviours
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway
from tests.servers.shell import Shell
from tests.servers.upstream import Exchange, Upstream
from tests.servers.waiting import until

CHAT = "/v1/chat/completions"
TRUE_COST = 11 * 100_000 + 7 * 1_000_000
ONE_HOLD = USD * 17 // 100
"""Room for one hold of a little over 10 cents, not for two."""
THREE_HOLDS = USD * 40 // 100
DROP = behaviours.BY_NAME["drop"]


@dataclass
class Scene:
    """The gateway, and its provider with three keys."""

    gateway: Gateway
    upstream: Upstream

    def key(self, name: str, cap_nano: int = THREE_HOLDS, **wish: Any) -> Key:
        (made,) = mint(self.gateway, NewAgentKey(name, budget=Budget("total", cap_nano), **wish))
        return made

    def ask(self, key: Key, model: str = "sample/ok", **headers: str) -> httpx2.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
        return self.gateway.client().post(CHAT, json=body, headers={**key.bearer, **headers})

    def require_sums(self, key: Key, cost: int, cap_nano: int = THREE_HOLDS) -> None:
        """So much is spent, all else can be held again, and the leases are what the accounts say."""
        limits = self.gateway.client(key.secret).get("/v1/key").json()["limits"]
        assert spent(self.gateway, key) == cost
        assert round(limits["budget"]["remaining_usd"] * USD) == cap_nano - cost
        accounts = "SELECT coalesce(sum(leased_nano), 0) FROM accounts"
        leases = "SELECT coalesce(sum(amount_nano - used_nano), 0) FROM leases"
        (sums,) = rows(self.gateway, f"SELECT ({accounts}) AS leased, ({leases}) AS held")  # of one moment
        assert sums["leased"] == sums["held"]


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, shared_upstream: Upstream
) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("insistent")
    env = {"OSTIARY_EGRESS_ALLOW": shared_upstream.origin}
    gateway = Gateway(folder, canaries, shell, env, entry="tests.insistent_entry")
    try:
        add_provider_keys(gateway, *(("sample", f"sample-{number}", shared_upstream.url) for number in (1, 2, 3)))
        set_prices(gateway, "sample/ok", "sample/gated", input_usd=100, output_usd=1_000)
        gateway.start()
        yield Scene(gateway, shared_upstream)
    finally:
        gateway.close()


@pytest.mark.parametrize("broken", [1, 2])
def test_each_attempt_that_may_be_billed_is_paid_for_beside_the_one_that_answers(scene: Scene, broken: int) -> None:
    key = scene.key(f"paid {broken}", rpm=10, parallel=2)
    scene.upstream.push(*[DROP] * broken)
    answer = scene.ask(key)
    assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, str(broken + 1))
    assert answer.headers["x-ratelimit-remaining-requests"] == "9"
    *lost, last = events(scene.gateway, answer.headers["x-request-id"], broken + 1)
    for row in lost:
        assert (row["status"], row["usage_source"], row["cost_nano"]) == ("error", "none", row["held_nano"])
    assert (last["status"], last["cost_nano"]) == ("ok", TRUE_COST)
    cost = sum(row["cost_nano"] for row in (*lost, last))
    assert answer.headers["x-ostiary-cost-usd"] == f"{cost / USD:.9f}".rstrip("0")
    scene.require_sums(key, cost)
    slots = scene.gateway.client(key.secret).get("/v1/key").json()["limits"]["parallel_requests"]
    assert (slots["used"], slots["remaining"]) == (0, 2), "one slot, given back once"


def test_all_of_them_may_be_billed(scene: Scene) -> None:
    key = scene.key("all billed")
    scene.upstream.push(DROP, DROP, DROP)
    answer = scene.ask(key)
    assert answer.status_code == 502
    assert len(answer.json()["error"]["attempts"]) == 3
    found = events(scene.gateway, answer.headers["x-request-id"], 3)
    assert all(row["cost_nano"] == row["held_nano"] > 0 for row in found)
    scene.require_sums(key, sum(row["cost_nano"] for row in found))


def test_without_room_for_another_hold_there_is_no_other_attempt(scene: Scene) -> None:
    key = scene.key("no room", ONE_HOLD)
    heard = len(scene.upstream.calls)
    scene.upstream.push(DROP)
    answer = scene.ask(key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_error")
    assert len(answer.json()["error"]["attempts"]) == 1
    assert len(scene.upstream.calls) == heard + 1
    (row,) = events(scene.gateway, answer.headers["x-request-id"])
    assert row["cost_nano"] == row["held_nano"]
    scene.require_sums(key, row["cost_nano"], ONE_HOLD)
    assert scene.ask(key).status_code == 402


def test_the_organizations_room_is_needed_too(scene: Scene) -> None:
    key = scene.key("rich member")
    used = rows(scene.gateway, "SELECT spent_nano FROM accounts WHERE scope = 'organization' AND period_id = 'total'")
    already = used[0]["spent_nano"] if used else 0
    _limit_organization(scene, Budget("total", already + ONE_HOLD))
    heard = len(scene.upstream.calls)
    try:
        scene.upstream.push(DROP)
        answer = scene.ask(key)
        assert (answer.status_code, len(scene.upstream.calls)) == (502, heard + 1)
        (row,) = events(scene.gateway, answer.headers["x-request-id"])
        scene.require_sums(key, row["cost_nano"])
    finally:
        _limit_organization(scene, None)


def _limit_organization(scene: Scene, budget: Budget | None) -> None:
    async def deed(base: Any, tx: Any, organization: Any) -> None:
        await organizations.change(tx, OPERATOR, organization.id, {"budget": budget}, base.clock.now())

    do(scene.gateway, deed)
    scene.gateway.hear()


def test_a_call_keeps_its_own_cap_over_all_attempts(scene: Scene) -> None:
    key = scene.key("own cap")
    heard = len(scene.upstream.calls)
    scene.upstream.push(DROP)
    answer = scene.ask(key, **{"x-ostiary-max-cost-usd": "0.15"})
    assert (answer.status_code, len(scene.upstream.calls)) == (502, heard + 1)
    scene.upstream.push(DROP)
    answer = scene.ask(key, **{"x-ostiary-max-cost-usd": "0.25"})
    assert (answer.status_code, len(scene.upstream.calls)) == (200, heard + 3)


def test_an_attempt_that_was_free_needs_no_other_hold(scene: Scene) -> None:
    key = scene.key("free first", ONE_HOLD)
    scene.upstream.push(behaviours.status(500), behaviours.status(503))
    answer = scene.ask(key)
    assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, "3")
    scene.require_sums(key, TRUE_COST, ONE_HOLD)


def test_a_caller_who_goes_during_the_second_attempt_pays_for_both(scene: Scene) -> None:
    key = scene.key("gone")
    heard = len(scene.upstream.calls)
    scene.upstream.push(DROP)
    with wire(scene.gateway) as line:
        line.send(post(key.secret, b'{"model":"sample/gated","messages":[],"max_tokens":100}'))
        received = scene.upstream.wait_for(heard + 2)
        line.reset()
    assert received.abandoned.wait(30)
    first, second = events_of(scene.gateway, key, 2)
    assert (first["status"], second["status"]) == ("error", "cancelled")
    assert first["request_id"] == second["request_id"]
    assert first["cost_nano"] == second["cost_nano"] == first["held_nano"]
    scene.require_sums(key, 2 * first["cost_nano"])


def test_killed_during_the_second_attempt(scene: Scene) -> None:
    key = scene.key("killed")
    heard = len(scene.upstream.calls)
    scene.upstream.push(DROP)
    with wire(scene.gateway) as line:
        line.send(post(key.secret, b'{"model":"sample/gated","messages":[],"max_tokens":100}'))
        scene.upstream.wait_for(heard + 2)
        scene.gateway.kill()
    scene.gateway.start()
    first, second = events_of(scene.gateway, key, 2)
    assert (first["status"], second["status"]) == ("error", "unknown")
    assert first["cost_nano"] == second["cost_nano"] == first["held_nano"]
    scene.require_sums(key, 2 * first["cost_nano"])


@pytest.mark.main_job
def test_many_at_once_never_pass_the_cap(scene: Scene) -> None:
    cap_nano = USD
    key = scene.key("many", cap_nano)

    async def odd(exchange: Exchange) -> None:
        await (DROP if len(scene.upstream.calls) % 2 else behaviours.BY_NAME["ok"])(exchange)

    scene.upstream.push(*[odd] * 24)
    with ThreadPoolExecutor(8) as pool:
        found = [answer.status_code for answer in pool.map(lambda _: scene.ask(key), range(24))]
    assert set(found) <= {200, 402, 502}
    query = "SELECT * FROM usage_events WHERE agent_key_id = ?"
    made = len(found) - found.count(402)
    until(
        lambda: len({row["request_id"] for row in rows(scene.gateway, query, key.id)}) == made,
        "all that was called",
    )
    scene.gateway.client(key.secret).get("/v1/key")  # writes down what is settled before it answers
    written = rows(scene.gateway, query, key.id)
    cost = sum(row["cost_nano"] for row in written)
    assert cost <= cap_nano
    scene.require_sums(key, cost, cap_nano)
