"""Provider keys that fail: who pays for it, what callers see of it, and how they heal, in two processes at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ostiary.limits.budgets import Budget
from ostiary.vault import provider_keys
from ostiary.vault.provider_keys import ProviderKeyEdit
from tests.acceptance.inside import OPERATOR, set_prices
from tests.acceptance.pair import Pair, pair_of
from tests.servers import behaviours
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell
from tests.servers.upstream import Exchange
from tests.servers.waiting import until

TWENTY = [f"k-{number:02}" for number in range(20)]
FLEET, ONE, TWO = "groq/m", "xai/m", "cerebras/m"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Pair]:
    with pair_of(tmp_path_factory.mktemp("healing"), canaries, shell) as made:
        made.furnish("groq", *TWENTY)
        made.furnish("xai", "only")
        made.furnish("cerebras", "first", "second", strategy="fill")
        yield made


def say(pair: Pair, model: str, count: int, *, at: int | None = None) -> list[Any]:
    """Different conversations, half of them at each gateway."""
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(pair.ask, model, f"{model} {number}", at=number % 2 if at is None else at)
            for number in range(count)
        ]
        return [one.result() for one in asked]


def explained(pair: Pair, model: str, at: int = 0) -> Any:
    """What a call would do at one of the gateways."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return pair.clients[at].post("/v1/explain", json=body, headers=pair.caller.bearer).json()


def test_one_bad_key_of_twenty_is_disabled_and_nobody_sees_a_failure(pair: Pair) -> None:
    pair.by_key["k-07"] = behaviours.unauthorized
    since = len(pair.upstream.calls)
    answers = say(pair, FLEET, 200)
    assert {answer.status_code for answer in answers} == {200}
    assert pair.used(since)["k-07"] >= 1
    pair.await_state("k-07", "disabled")
    assert pair.secrets["k-07"] not in str(pair.health("k-07"))
    pair.hear()
    told = [one for one in pair.gateways[0].json("notifications", "list") if one["kind"] == "provider_key.disabled"]
    assert [one["subject"]["name"] for one in told] == ["k-07"], "and somebody was told, once"
    since = len(pair.upstream.calls)
    assert {answer.status_code for answer in say(pair, FLEET, 200)} == {200}
    used = pair.used(since)
    assert used["k-07"] == 0, "nor at the gateway that never saw it fail"
    assert len(used) == 19
    assert all(pair.health(name) == [] for name in ("k-00", "k-19"))


def test_a_test_call_that_takes_long_keeps_no_other_waiting(pair: Pair) -> None:
    pair.reset("k-07")

    async def slow_to_say(exchange: Exchange) -> None:
        await (exchange.stall() if exchange.request.method == "GET" else behaviours.unauthorized(exchange))

    pair.by_key |= {"k-07": slow_to_say, "k-08": behaviours.unauthorized}
    say(pair, FLEET, 200)
    pair.await_state("k-08", "disabled")
    assert [one["state"] for one in pair.health("k-07")] in (["degraded"], ["unhealthy"])
    pair.by_key["k-07"] = behaviours.unauthorized
    del pair.by_key["k-08"]
    pair.reset("k-08")
    pair.shift(31)
    say(pair, FLEET, 200)
    pair.await_state("k-07", "disabled")


def test_who_is_disabled_comes_back_by_hand(pair: Pair) -> None:
    pair.by_key.clear()
    pair.shift(24 * 3_600)
    since = len(pair.upstream.calls)
    say(pair, FLEET, 100)
    assert pair.used(since)["k-07"] == 0, "no time heals what a person must mend"
    pair.reset("k-07")
    say(pair, FLEET, 200)
    assert pair.used(since)["k-07"] >= 1


def test_a_provider_that_fails_costs_none_of_its_keys(pair: Pair) -> None:
    pair.by_key |= dict.fromkeys(TWENTY, behaviours.status(503))
    codes = {answer.status_code for answer in say(pair, FLEET, 60)}
    assert codes == {502}
    pair.shift(30)
    pair.by_key.clear()
    since = len(pair.upstream.calls)
    answers = say(pair, FLEET, 100)
    assert {(one.status_code, one.headers["x-ostiary-attempts"]) for one in answers} == {(200, "1")}
    assert len(pair.used(since)) >= 17
    told = {one["name"]: one["health"] for one in pair.gateways[0].json("vault", "list")}
    assert all(health in ("healthy", [], None) for name, health in told.items() if name in TWENTY), told


def test_an_address_that_is_slowed_down_costs_none_of_the_keys(pair: Pair) -> None:
    pair.by_key |= dict.fromkeys(TWENTY, behaviours.refuse(429, "slow down", None, b"retry-after: 3000"))
    say(pair, FLEET, 60)
    pair.by_key.clear()
    since = len(pair.upstream.calls)
    answers = say(pair, FLEET, 100)
    assert {one.status_code for one in answers} == {200}
    assert len(pair.used(since)) >= 17


def test_a_key_that_rests_says_until_when_and_rests_at_every_gateway(pair: Pair) -> None:
    pair.upstream.push(behaviours.refuse(429, "slow down", None, b"retry-after: 90"))
    first = pair.ask(ONE)
    assert first.status_code == 502
    assert first.headers["retry-after"] == "90"
    seen = len(pair.upstream.calls)
    refused = pair.ask(ONE)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "no_usable_key")
    assert 80 <= int(refused.headers["retry-after"]) <= 90
    ((told,)) = error["keys"]
    assert (told["provider_key"], told["state"], told["model"]) == ("only", "cooling", "m")
    until(lambda: not explained(pair, ONE, at=1)["allowed"], "the other gateway to hear of it", 5)
    assert pair.ask(ONE, at=1).status_code == 503
    assert len(pair.upstream.calls) == seen, "nobody has asked the provider"
    assert pair.ask("xai/other").status_code == 200, "another model of the same key is no matter of it"
    assert explained(pair, ONE)["would_answer"]["error"]["code"] == "no_usable_key"
    pair.shift(91)
    assert [pair.ask(ONE, at=at).status_code for at in (0, 1)] == [200, 200]
    pair.await_state("only", None)


def test_a_quota_that_the_provider_says_is_used_up_is_left_alone(pair: Pair) -> None:
    lines = (b"x-ratelimit-remaining-requests: 0", b"x-ratelimit-reset-requests: 6m0s")
    pair.upstream.push(behaviours.right(*lines))
    since = len(pair.upstream.calls)
    assert pair.ask(TWO, "a").status_code == 200
    assert pair.ask(TWO, "b").status_code == 200
    assert pair.used(since) == {"first": 1, "second": 1}
    pair.shift(361)
    assert pair.ask(TWO, "c").status_code == 200
    assert pair.used(since)["first"] == 2, "what is filled first is filled again"


def test_money_rests_an_hour_and_half_open_by_one_real_call(pair: Pair) -> None:
    pair.by_key["first"] = behaviours.quota
    since = len(pair.upstream.calls)
    answers = [pair.ask(TWO, str(number)) for number in range(6)]
    assert {answer.status_code for answer in answers} == {200}
    assert pair.used(since) == {"first": 1, "second": 6}
    pair.await_state("first", "exhausted")
    pair.hear()
    pair.shift(3_601)
    since = len(pair.upstream.calls)
    assert [pair.ask(TWO, str(number)).status_code for number in range(6)] == [200] * 6
    assert pair.used(since)["first"] == 1, "one call has found out for all"
    pair.shift(3_601)
    pair.by_key.clear()
    since = len(pair.upstream.calls)
    assert [pair.ask(TWO, str(number)).status_code for number in range(6)] == [200] * 6
    assert pair.used(since) == {"first": 6}


def test_a_callers_mistakes_harm_nobody(pair: Pair) -> None:
    for status in (400, 404, 413, 422):
        for _ in range(5):
            assert pair.ask(f"xai/status-{status}").status_code in (400, 404, 413, 422)
    assert pair.health("only") == []
    assert pair.ask(ONE).status_code == 200


# ---- limits of its own ------------------------------------------------------------------------------------------


def limit(pair: Pair, name: str, **limits: Any) -> None:
    async def deed(base: Any, tx: Any, organization: Any) -> None:
        key = await provider_keys.show(tx, OPERATOR, organization.id, name, seal=base.seal)
        edit = ProviderKeyEdit(base.catalog.get(key.provider), limits)
        await provider_keys.change(
            tx, OPERATOR, organization.id, name, edit, seal=base.seal, egress=base.egress, at=base.clock.now()
        )

    pair.do(deed)


def test_a_limit_of_its_own_sends_calls_to_the_next_key_and_holds_over_both_gateways(pair: Pair) -> None:
    pair.shift(61)
    limit(pair, "first", rpm=4)
    since = len(pair.upstream.calls)
    answers = say(pair, TWO, 20)
    assert {answer.status_code for answer in answers} == {200}
    assert pair.used(since)["first"] <= 4
    limit(pair, "second", rpm=1)
    codes = [answer.status_code for answer in say(pair, TWO, 12)]
    assert set(codes) <= {200, 503}
    refused = pair.ask(TWO)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "no_usable_key")
    assert {one["state"] for one in error["keys"]} == {"limited"}
    assert int(refused.headers["retry-after"]) >= 1
    assert pair.used(since)["first"] <= 4
    for name in ("first", "second"):
        limit(pair, name, rpm=None)
    assert pair.ask(TWO).status_code == 200


def test_a_spend_cap_of_a_day_is_never_passed_and_ends_with_the_day(pair: Pair) -> None:
    set_prices(pair.gateways[0], ONE, input_usd=100, output_usd=1_000)
    cost = 11 * 100_000 + 7 * 1_000_000
    limit(pair, "only", budget=Budget("day", 5 * cost))
    before = len(pair.upstream.calls)
    answers = say(pair, ONE, 40)
    assert {answer.status_code for answer in answers} == {200, 503}
    until(lambda: [pair.ask(ONE, at=at).status_code for at in (0, 1)] == [503, 503], "the cap to be spent", 10)
    assert 2 <= len(pair.upstream.calls) - before <= 5
    error = pair.ask(ONE).json()["error"]
    assert (error["code"], error["keys"][0]["reason"]) == ("no_usable_key", "budget_exceeded")
    pair.shift(24 * 3_600)
    assert pair.ask(ONE).status_code == 200
    limit(pair, "only", budget=None)
    assert [one.status_code for one in say(pair, ONE, 10)] == [200] * 10
