"""Provider keys that fail: who pays for it, what callers see of it, and how they heal, in two processes at once."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx2
import pytest

from ostiary.limits.budgets import Budget
from ostiary.vault import provider_keys
from ostiary.vault.provider_keys import ProviderKeyEdit
from tests.acceptance.inside import OPERATOR, rows, set_prices
from tests.acceptance.pair import Pair, pair_of
from tests.servers import behaviours, google_errors
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell
from tests.servers.upstream import Exchange
from tests.servers.waiting import until
from tests.servers.wire import COMPLETION_TOKENS, ORGANIZATION, PROMPT_TOKENS

TWENTY = [f"k-{number:02}" for number in range(20)]
FLEET, ONE, TWO = "groq/m", "xai/m", "cerebras/m"
WRITTEN_S = 0.6
"""In which a gateway has written what is new of keys, twice over."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Pair]:
    with pair_of(tmp_path_factory.mktemp("healing"), canaries, shell) as made:
        made.furnish("groq", *TWENTY)
        made.furnish("xai", "only")
        made.furnish("cerebras", "first", "second", strategy="fill")
        yield made


def say(pair: Pair, model: str, count: int, *, at: int | None = None, since: int = 0) -> list[Any]:
    """Different conversations, half of them at each gateway; others than those of another `since`."""
    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(pair.ask, model, f"{model} {number}", at=number % 2 if at is None else at)
            for number in range(since, since + count)
        ]
        return [one.result() for one in asked]


def say_until(pair: Pair, is_met: Callable[[], object]) -> list[Any]:
    """To the twenty: which of them a conversation comes to is chance, and none of two hundred may come to one."""
    answers: list[Any] = []
    for number in range(5):
        answers += say(pair, FLEET, 200, since=200 * number)
        if is_met():
            break
    return answers


def explained(pair: Pair, model: str, at: int = 0) -> Any:
    """What a call would do at one of the gateways."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return pair.clients[at].post("/v1/explain", json=body, headers=pair.caller.bearer).json()


def standing(pair: Pair) -> dict[str, str]:
    """How the vault says that each of the twenty is."""
    return {one["name"]: one["status"] for one in pair.gateways[0].json("vault", "list") if one["name"] in TWENTY}


@pytest.mark.main_job
def test_one_bad_key_of_twenty_is_disabled_and_nobody_sees_a_failure(pair: Pair) -> None:
    pair.by_key["k-07"] = behaviours.unauthorized
    since = len(pair.upstream.calls)
    answers = say_until(pair, lambda: pair.used(since)["k-07"])
    assert {answer.status_code for answer in answers} == {200}
    assert pair.used(since)["k-07"] >= 1
    pair.await_state("k-07", "disabled")
    written = [str(pair.health("k-07")), *(gateway.output for gateway in pair.gateways)]
    assert "Groq answered 401: Incorrect API key provided: ***. Owner ***" in written[0]
    for mark in (pair.secrets["k-07"], ORGANIZATION, "billing@owner.example"):
        assert not [text for text in written if mark in text], "the provider's words, without what they give away"
    pair.hear()
    told = [one for one in pair.gateways[0].json("notifications", "list") if one["kind"] == "provider_key.disabled"]
    assert [one["subject"]["name"] for one in told] == ["k-07"], "and somebody was told, once"
    since = len(pair.upstream.calls)
    answers = say_until(pair, lambda: len(pair.used(since)) >= 19)
    assert {answer.status_code for answer in answers} == {200}
    used = pair.used(since)
    assert used["k-07"] == 0, "nor at the gateway that never saw it fail"
    assert len(used) == 19
    assert standing(pair) == dict.fromkeys(TWENTY, "healthy") | {"k-07": "disabled"}, "and the others are untouched"


def test_a_test_call_that_takes_long_keeps_no_other_waiting(pair: Pair) -> None:
    pair.reset("k-07")
    pair.shift(31)  # so soon no key is tested twice

    async def slow_to_say(exchange: Exchange) -> None:
        await (exchange.stall() if exchange.request.method == "GET" else behaviours.unauthorized(exchange))

    def tests(name: str) -> int:
        return sum(one.method == "GET" and one.key == pair.secrets[name] for one in pair.upstream.received[since:])

    def called(name: str) -> int:
        return sum(one.method != "GET" and one.key == pair.secrets[name] for one in pair.upstream.received[since:])

    since = len(pair.upstream.received)
    pair.by_key["k-07"] = slow_to_say
    say_until(pair, lambda: called("k-07"))
    until(lambda: tests("k-07"), "the test call that takes long", 10)
    pair.by_key["k-08"] = behaviours.unauthorized
    since = len(pair.upstream.received)
    say_until(pair, lambda: called("k-08"))
    pair.await_state("k-08", "disabled")
    assert [one["state"] for one in pair.health("k-07")] in (["degraded"], ["unhealthy"])
    pair.by_key["k-07"] = behaviours.unauthorized
    del pair.by_key["k-08"]
    pair.reset("k-08")
    pair.shift(31)
    since = len(pair.upstream.received)
    say_until(pair, lambda: called("k-07"))
    pair.await_state("k-07", "disabled")


def test_who_is_disabled_comes_back_by_hand(pair: Pair) -> None:
    pair.by_key.clear()
    pair.shift(24 * 3_600)
    since = len(pair.upstream.calls)
    say(pair, FLEET, 100)
    assert pair.used(since)["k-07"] == 0, "no time heals what a person must mend"
    pair.reset("k-07")
    say_until(pair, lambda: pair.used(since)["k-07"])
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
    until(lambda: standing(pair) == dict.fromkeys(TWENTY, "healthy"), "none of them to be held guilty")


@pytest.mark.parametrize(("provider", "names"), [("together", ["alone"]), ("deepseek", ["left", "right"])])
def test_half_a_minute_of_503_disables_nobody_and_is_over_with_the_first_call_after_it(
    pair: Pair, provider: str, names: list[str]
) -> None:
    pair.furnish(provider, *names)
    model = f"{provider}/m"
    pair.by_key |= dict.fromkeys(names, behaviours.status(503))

    def fails() -> bool:
        assert {one.status_code for one in say(pair, model, 6)} == {502}, "asked all the time, whatever is known"
        return all([one["state"] for one in pair.health(name)] == ["unhealthy"] for name in names)

    until(fails, "the keys to rest", 30)  # before time is moved: what is over in a moment is not written down
    for _ in range(10):
        pair.shift(3)
        fails()
    for name in names:
        pair.await_state(name, "unhealthy")
    pair.by_key.clear()
    since = len(pair.upstream.calls)
    assert [pair.ask(model, at=at).status_code for at in (0, 1)] == [200, 200]
    assert len(pair.upstream.calls) == since + 2, "the first call found out, and no other key was asked for it"
    pair.shift(3_600)  # as long as the longest rest
    assert {one.headers["x-ostiary-attempts"] for one in say(pair, model, 24)} == {"1"}
    for name in names:
        pair.await_state(name, None)


def test_half_a_minute_of_503_for_twenty_keys_under_traffic_disables_none_and_is_over_with_the_first_call(
    pair: Pair,
) -> None:
    names = [f"s-{number:02}" for number in range(20)]
    pair.furnish("siliconflow", *names)
    model = "siliconflow/m"
    assert {one.status_code for one in say(pair, model, 40)} == {200}
    pair.by_key |= dict.fromkeys(names, behaviours.status(503))
    asked = len(pair.upstream.calls)
    for _ in range(15):
        assert {one.status_code for one in say(pair, model, 12)} == {502}, "asked all the time, whatever is known"
        pair.shift(2)
    assert len(pair.used(asked)) == len(names), "all of them have failed"
    assert pair.used(asked).total() >= 15 * 12
    pair.by_key.clear()
    since = len(pair.upstream.calls)
    answers = [pair.ask(model, at=at) for at in (0, 1)]
    assert {(one.status_code, one.headers["x-ostiary-attempts"]) for one in answers} == {(200, "1")}
    assert len(pair.upstream.calls) == since + 2, "the first call found out, and no other key was asked for it"
    assert {one.headers["x-ostiary-attempts"] for one in say(pair, model, 100)} == {"1"}
    held = {name: pair.health(name) for name in names}
    assert {name: found for name, found in held.items() if found} == {}, "nobody has paid for it"
    since = len(pair.upstream.calls)
    for number in range(256):  # once round, whoever the turns belong to
        body = {"model": model, "input": f"text {number}"}
        answer = pair.clients[0].post("/v1/embeddings", json=body, headers=pair.caller.bearer)
        assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, "1")
    assert len(pair.used(since)) >= len(names) - 1, "one may own no turn at all"


def test_an_address_that_is_slowed_down_costs_none_of_the_keys(pair: Pair) -> None:
    pair.by_key |= dict.fromkeys(TWENTY, behaviours.refuse(429, "slow down", None, b"retry-after: 3000"))
    since = len(pair.upstream.calls)
    assert {one.status_code for one in say(pair, FLEET, 60)} == {502}, "asked all the time, whatever it says"
    assert len(pair.used(since)) == len(TWENTY)
    pair.by_key.clear()
    since = len(pair.upstream.calls)
    answers = say(pair, FLEET, 100)
    assert {(one.status_code, one.headers["x-ostiary-attempts"]) for one in answers} == {(200, "1")}
    assert len(pair.used(since)) >= 17
    until(lambda: standing(pair) == dict.fromkeys(TWENTY, "healthy"), "none of them to be held guilty", 10)


def test_a_key_that_rests_says_until_when_and_rests_at_every_gateway(pair: Pair) -> None:
    pair.upstream.push(behaviours.refuse(429, "slow down", None, b"retry-after: 600"))
    first = pair.ask(ONE)
    assert first.status_code == 502
    assert first.headers["retry-after"] == "600"
    seen = len(pair.upstream.calls)
    refused = pair.ask(ONE)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "no_usable_key")
    assert 500 <= int(refused.headers["retry-after"]) <= 600
    ((told,)) = error["keys"]
    assert (told["provider_key"], told["state"], told["model"]) == ("only", "cooling", "m")
    until(lambda: not explained(pair, ONE, at=1)["allowed"], "the other gateway to hear of it")
    assert pair.ask(ONE, at=1).status_code == 503
    assert len(pair.upstream.calls) == seen, "nobody has asked the provider"
    assert pair.ask("xai/other").status_code == 200, "another model of the same key is no matter of it"
    assert explained(pair, ONE)["would_answer"]["error"]["code"] == "no_usable_key"
    pair.shift(601)
    assert [pair.ask(ONE, at=at).status_code for at in (0, 1)] == [200, 200]
    pair.await_state("only", None)


@pytest.mark.parametrize(
    "lines",
    [
        (b"x-ratelimit-remaining-requests: 0", b"x-ratelimit-reset-requests: 6m0s"),
        (b"x-ratelimit-remaining-requests-day: 0.0", b"x-ratelimit-reset-requests-day: 359.2840924263"),
    ],
    ids=["requests", "requests of the day"],
)
def test_a_quota_that_the_provider_says_is_used_up_is_left_alone(pair: Pair, lines: tuple[bytes, bytes]) -> None:
    pair.upstream.push(behaviours.right(*lines))
    since = len(pair.upstream.calls)
    assert pair.ask(TWO, "a").status_code == 200
    assert pair.ask(TWO, "b").status_code == 200
    assert pair.used(since) == {"first": 1, "second": 1}
    pair.shift(361)
    assert pair.ask(TWO, "c").status_code == 200
    assert pair.used(since)["first"] == 2, "what is filled first is filled again"


def saying(remaining: int, most: int, reset: str) -> Any:
    """A right answer that says how much is left."""
    return behaviours.right(
        b"x-ratelimit-remaining-requests: %d" % remaining,
        b"x-ratelimit-limit-requests: %d" % most,
        b"x-ratelimit-reset-requests: %b" % reset.encode(),
    )


def test_of_keys_that_take_turns_one_that_is_nearly_dry_comes_last_and_what_is_left_is_shown(pair: Pair) -> None:
    model = "mistral/m"
    with pair.lent("mistral", "low", "full"):
        pair.by_key |= {"low": saying(4, 100, "5m0s"), "full": saying(90, 100, "5m0s")}
        since = len(pair.upstream.calls)
        text = next(str(n) for n in range(99) if pair.ask(model, str(n)).is_success and pair.used(since)["low"])

        def firsts() -> list[str]:
            body = {"model": model, "messages": [{"role": "user", "content": text}]}
            told = pair.clients[0].post("/v1/explain", json=body, headers=pair.caller.bearer).json()
            return [one["provider_key"] for one in told["targets"]]

        until(lambda: firsts() == ["full", "low"], "what was said to count")
        assert {pair.ask(model, str(n)).status_code for n in range(20)} == {200}
        assert pair.used(since)["low"] == 1, "others have enough left"
        assert pair.ask("mistral/other", text).is_success
        assert pair.used(since)["low"] == 2, "it is said of one model"
        pair.by_key["full"] = behaviours.status(503)
        assert pair.ask(model, text).headers["x-ostiary-attempts"] == "2", "nearly dry is not dry"

        def left(name: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = pair.gateways[0].json("vault", "show", name, "--org", "default")["quota_left"]
            return found

        until(lambda: len(left("low")) == 2, "it to be written down", 20)
        told = left("low")[0]
        assert (told["model"], told["what"], told["remaining"], told["limit"]) == ("m", "requests", 4, 100)
        assert told["in_words"].startswith(
            f"m: 4 of 100 requests left until {told['resets_at']}, as {told['gateway']} "
        )
        shown = pair.gateways[0].cli("vault", "show", "low", "--org", "default").out
        assert "m: 4 of 100 requests left until" in shown
        pair.by_key.clear()
        pair.shift(31)  # what failed is no longer in doubt
        assert firsts() == ["full", "low"]
        pair.shift(270)
        assert firsts() == ["low", "full"], "there is more, and the conversation is back"


def test_a_quota_of_the_day_rests_the_key_for_that_model_though_google_says_soon(pair: Pair) -> None:
    model, other = "gemini/gemini-2.5-flash", "gemini/gemini-2.5-pro"
    with pair.lent("gemini", "minute", priority=1), pair.lent("gemini", "day"):
        pair.pass_to_noon()  # and no day ends in the next hour
        pair.by_key["minute"] = behaviours.said(429, google_errors.OF_THE_MINUTE)
        pair.by_key["day"] = behaviours.said(429, google_errors.OF_BOTH)
        assert pair.ask(model).status_code == 502
        first, second = pair.ask(model).json()["error"]["keys"]
        assert (first["provider_key"], first["state"]) == ("minute", "cooling")
        assert (second["provider_key"], second["state"]) == ("day", "exhausted")
        assert second["reason"] == "the key's quota of the day is used up"
        pair.await_state("day", "exhausted")
        assert [one["model"] for one in pair.health("day")] == ["gemini-2.5-flash"]
        pair.by_key.clear()
        pair.shift(google_errors.RETRY_S + 1)
        since = len(pair.upstream.calls)
        assert [pair.ask(model, str(number), at=number % 2).status_code for number in range(6)] == [200] * 6
        assert pair.used(since) == {"minute": 6}
        pair.by_key["minute"] = behaviours.status(503)
        assert pair.ask(model).json()["error"]["code"] == "provider_error", "nobody else may be asked for it"
        assert pair.ask(other).status_code == 200, "another model has a quota of its own"
        assert pair.used(since)["day"] == 1
        pair.shift(3_600)  # and then one real call finds out
        assert pair.ask(model).status_code == 200
        assert pair.used(since)["day"] == 2
        pair.await_state("day", None)


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


# ---- what it costs the database ---------------------------------------------------------------------------------


def told_of(pair: Pair, name: str) -> int:
    """How often gateways were told that something is new of how a provider key is."""
    query = "SELECT seq FROM changes JOIN provider_keys USING (id) WHERE noun = 'key_health' AND name = ?"
    return len(rows(pair.gateways[0], query, name))


def test_calls_that_go_well_write_nothing_of_how_a_key_is(pair: Pair) -> None:
    pair.furnish("nebius", "fine")
    assert {one.status_code for one in say(pair, "nebius/m", 60)} == {200}
    pair.hear()
    time.sleep(WRITTEN_S)
    assert told_of(pair, "fine") == 0


def test_a_hundred_failures_are_written_down_at_once_and_not_one_by_one(pair: Pair) -> None:
    """Nobody can write meanwhile, so what is put together does not depend on how fast the calls are."""
    pair.furnish("novita", "failing")
    pair.by_key["failing"] = behaviours.status(500)
    url = pair.gateways[0].environment()["OSTIARY_DATABASE_URL"]
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert {one.status_code for one in say(pair, "novita/m", 100)} == {502}, "and no call waits for the database"
        other.execute("ROLLBACK")
    pair.await_state("failing", "unhealthy")
    pair.by_key.clear()
    time.sleep(WRITTEN_S)
    most = 2 * len(pair.gateways)
    assert 1 <= told_of(pair, "failing") <= most, "one that was begun and one that tells the rest, at each gateway"


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
    until(
        lambda: [pair.ask(TWO, at=at).status_code for at in (0, 1)] == [503, 503],
        "what each gateway has of both to be used up",
    )
    refused = pair.ask(TWO)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "no_usable_key")
    assert {one["state"] for one in error["keys"]} == {"limited"}
    assert int(refused.headers["retry-after"]) >= 1
    assert pair.used(since)["first"] <= 4
    for name in ("first", "second"):
        limit(pair, name, rpm=None)
    assert pair.ask(TWO).status_code == 200


def test_of_twenty_keys_with_limits_each_is_used_before_anybody_is_refused(pair: Pair) -> None:
    names = [f"b-{number:02}" for number in range(20)]
    pair.furnish("baseten", *names, rpm=1)
    model, since = "baseten/m", len(pair.upstream.calls)
    assert [pair.ask(model, str(number)).status_code for number in range(20)] == [200] * 20
    assert pair.used(since) == dict.fromkeys(names, 1)
    refused = pair.ask(model).json()["error"]
    assert refused["code"] == "no_usable_key"
    assert sorted((one["provider_key"], one["state"]) for one in refused["keys"]) == [(one, "limited") for one in names]


def test_who_failed_goes_on_past_every_key_that_has_no_room(pair: Pair) -> None:
    model, full = "hyperbolic/m", [f"full {number}" for number in range(6)]
    pair.furnish("hyperbolic", "fails")
    pair.furnish("hyperbolic", *full, rpm=1)
    since = len(pair.upstream.calls)
    assert {one.status_code for one in say(pair, model, 60, at=0)} == {200}
    assert {name: pair.used(since)[name] for name in full} == dict.fromkeys(full, 1)
    pair.furnish("hyperbolic", "more")
    pair.by_key["fails"] = behaviours.status(503)
    answers = say(pair, model, 60, at=0)
    assert {one.status_code for one in answers} == {200}
    assert {one.headers["x-ostiary-attempts"] for one in answers} == {"1", "2"}


def test_nothing_usable_says_of_each_key_whether_it_rests_or_has_no_room(pair: Pair) -> None:
    model = "scaleway/m"
    pair.furnish("scaleway", "resting", "scarce", strategy="fill")
    limit(pair, "scarce", rpm=1)
    pair.by_key["resting"] = behaviours.refuse(429, "slow down", None, b"retry-after: 120")
    assert pair.ask(model).headers["x-ostiary-attempts"] == "2"
    refused = pair.ask(model)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "no_usable_key")
    told = {one["provider_key"]: (one["state"], one["retry_at"] is not None) for one in error["keys"]}
    assert told == {"resting": ("cooling", True), "scarce": ("limited", False)}
    assert 1 <= int(refused.headers["retry-after"]) <= 120, "whichever is soonest"
    assert "or rests" in error["message"]
    assert explained(pair, model)["would_answer"]["error"]["keys"] == error["keys"]


def test_tokens_a_minute_of_its_own_are_not_passed_and_come_back(pair: Pair) -> None:
    pair.furnish("fireworks", "of tokens", tpm=40)
    model, each = "fireworks/m", PROMPT_TOKENS + COMPLETION_TOKENS
    since = len(pair.upstream.calls)
    codes = [pair.ask(model, str(number)).status_code for number in range(6)]
    assert codes == sorted(codes)
    assert set(codes) == {200, 503}
    assert 1 <= len(pair.upstream.calls) - since <= 40 // each
    assert limited_by(pair, model) == "token_limit_exceeded"
    pair.shift(61)
    assert pair.ask(model).status_code == 200


def test_requests_a_day_of_its_own_are_not_passed_at_any_gateway_and_come_back_at_midnight(pair: Pair) -> None:
    pair.pass_to_noon()
    pair.furnish("mistral", "of days", rpd=3)
    model = "mistral/m"
    since = len(pair.upstream.calls)
    assert {one.status_code for one in say(pair, model, 12)} == {200, 503}
    assert 1 <= len(pair.upstream.calls) - since <= 3
    until(lambda: [pair.ask(model, at=at).status_code for at in (0, 1)] == [503, 503], "the day to be used up", 10)
    assert len(pair.upstream.calls) - since <= 3
    assert limited_by(pair, model) == "daily_rate_limit_exceeded"
    pair.shift(24 * 3_600)
    assert pair.ask(model).status_code == 200


def test_calls_at_once_of_its_own_go_to_the_next_key_and_are_refused_where_there_is_none(pair: Pair) -> None:
    pair.furnish("openrouter", "narrow", parallel=1, priority=9)
    model = "openrouter/gated"
    pair.upstream.gate.clear()
    since = len(pair.upstream.calls)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pair.ask, model, "one")
        pair.upstream.wait_for(since + 1)
        assert pair.ask(model, "two").status_code == 503
        assert limited_by(pair, model) == "too_many_parallel_requests"
        pair.furnish("openrouter", "next", priority=1)
        second = pool.submit(pair.ask, model, "three")
        pair.upstream.wait_for(since + 2)
        pair.upstream.gate.set()
        assert (first.result().status_code, second.result().status_code) == (200, 200)
    assert pair.used(since) == {"narrow": 1, "next": 1}
    assert pair.ask(model, "four").status_code == 200
    assert pair.used(since) == {"narrow": 2, "next": 1}, "its one place is free again"


def limited_by(pair: Pair, model: str) -> Any:
    """Why the only key for a model is not used."""
    refused = pair.ask(model)
    error = refused.json()["error"]
    ((told,)) = error["keys"]
    assert (refused.status_code, error["code"], told["state"]) == (503, "no_usable_key", "limited")
    return told["reason"]


def test_a_key_with_a_spend_cap_is_used_up_before_the_next_and_not_only_its_first_lease(pair: Pair) -> None:
    pair.pass_to_noon()
    model = "sambanova/m"
    set_prices(pair.gateways[0], model, input_usd=100, output_usd=1_000)
    cost = 11 * 100_000 + 7 * 1_000_000
    pair.furnish("sambanova", "capped", priority=9, budget=Budget("day", 40 * cost))
    pair.furnish("sambanova", "spare", priority=1)
    since = len(pair.upstream.calls)
    assert {pair.ask(model, f"call {number}").status_code for number in range(60)} == {200}
    used = pair.used(since)
    assert used["capped"] + used["spare"] == 60
    assert 36 <= used["capped"] <= 40, used


def test_a_spend_cap_of_a_day_is_never_passed_and_ends_with_the_day(pair: Pair) -> None:
    pair.pass_to_noon()
    set_prices(pair.gateways[0], ONE, input_usd=100, output_usd=1_000)
    cost = 11 * 100_000 + 7 * 1_000_000
    limit(pair, "only", budget=Budget("day", 5 * cost))
    before = len(pair.upstream.calls)
    answers = say(pair, ONE, 40)
    assert {answer.status_code for answer in answers} == {200, 503}
    refused: list[httpx2.Response] = []

    def is_spent() -> bool:
        """What lies at the other gateway may come back between two looks."""
        refused[:] = [pair.ask(ONE, at=at) for at in (0, 1)]
        return {one.status_code for one in refused} == {503}

    until(is_spent, "the cap to be spent", 10)
    assert 2 <= len(pair.upstream.calls) - before <= 5
    error = refused[0].json()["error"]
    assert (error["code"], error["keys"][0]["reason"]) == ("no_usable_key", "budget_exceeded")
    pair.shift(24 * 3_600)
    assert pair.ask(ONE).status_code == 200
    limit(pair, "only", budget=None)
    assert [one.status_code for one in say(pair, ONE, 10)] == [200] * 10
