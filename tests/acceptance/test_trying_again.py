"""What an endpoint does when an attempt failed: others first, then the same key again, and no target is left out."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.vault import aliases, endpoints, provider_keys
from ostiary.vault.endpoint_changes import NewEndpoint
from ostiary.vault.endpoint_store import EndpointTarget
from tests.acceptance.inside import OPERATOR, Key, add_provider_keys, do, events, mint, rows, set_prices
from tests.acceptance.pair import CHAT, Pair, pair_of
from tests.acceptance.wire import post, took, wire
from tests.servers import behaviours, faults, gateway
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell
from tests.servers.upstream import Behaviour, Exchange
from tests.servers.waiting import until

A, B, C = (EndpointTarget(provider, "m") for provider in ("groq", "xai", "cerebras"))
LAST = replace(C, is_fallback=True)
TRIES = range(4)
"""So often is tried again what only says something when the machine has not stood still meanwhile."""
SOON, SURELY_S = behaviours.refuse(503, "soon", None, b"retry-after: 4"), 3.5
"""A pause before the next attempt, and how long it lasts in any case: five seconds are the most one may ask for."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Pair]:
    with pair_of(tmp_path_factory.mktemp("again"), canaries, shell) as made:
        for provider, name in (("groq", "a"), ("xai", "b"), ("cerebras", "c")):
            made.furnish(provider, name)
        yield made


@pytest.fixture(autouse=True)
def well(pair: Pair) -> Iterator[None]:
    """What one case does to the keys is no matter of the next one."""
    yield
    if pair.by_key:
        pair.by_key.clear()
        pair.reset("a", "b", "c")


def told(answer: httpx2.Response) -> tuple[int, str | None, str | None, str | None]:
    """Status, who answered, after how many attempts, and who was asked first."""
    names = ("x-ostiary-provider", "x-ostiary-attempts", "x-ostiary-fallback-from")
    return (answer.status_code, *(answer.headers.get(name) for name in names))  # type: ignore[return-value]


# ---- the same key again -----------------------------------------------------------------------------------------


@contextmanager
def failing_first(pair: Pair, name: str, *first: Behaviour) -> Iterator[int]:
    """The provider does so to the first requests with a key, and answers the others; gives how many calls it saw."""
    left, well = list(first), behaviours.BY_NAME["ok"]

    async def speak(exchange: Exchange) -> None:
        await (left.pop(0) if left else well)(exchange)

    pair.by_key[name] = speak
    yield len(pair.upstream.calls)
    assert not left, "every one of them was met"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
def test_the_only_key_of_the_only_target_is_tried_again_after_what_passes(
    pair: Pair, status: int, *, stream: bool
) -> None:
    set_prices(pair.gateways[0], "groq/m", input_usd=1, output_usd=1)
    name = f"alone {status} {stream}"
    pair.endpoint(name, A, retries=2)
    with failing_first(pair, "a", behaviours.status(status), behaviours.status(status)) as since:
        answer = pair.ask(name, stream=stream)
        assert told(answer) == (200, "groq", "3", None), "it fell back to nobody"
    assert pair.used(since) == {"a": 3}
    rows = events(pair.gateways[0], answer.headers["x-request-id"], 3)
    assert [(row["attempt"], row["status"], row["http_status"]) for row in rows] == [
        (1, "error", status),
        (2, "error", status),
        (3, "ok", 200),
    ]
    assert [row["cost_nano"] > 0 for row in rows] == [False, False, True]
    pair.await_state("a", None)


@pytest.mark.main_job
def test_a_connection_that_is_refused_is_tried_again_and_told_of_each_time(
    tmp_path: Path, canaries: Canaries, shell: Shell
) -> None:
    with closing(socket.socket()) as nobody, gateway.making(tmp_path, canaries, shell) as maker:
        nobody.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        house = maker(allow=[origin])
        add_provider_keys(house, ("groq", "nobody", f"{origin}/v1"))

        async def deed(base: Any, tx: Any, organization: Any) -> None:
            wish, at = NewEndpoint("to nobody", (A,), retries=2), base.clock.now()
            await endpoints.create(tx, OPERATOR, organization.id, wish, catalog=base.catalog, at=at)

        do(house, deed)
        (key,) = mint(house, NewAgentKey("caller"))
        body = {"model": "to nobody", "messages": [{"role": "user", "content": "hi"}]}
        refused = house.client(key.secret).post(CHAT, json=body)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (502, "provider_error")
        assert [one["reason"] for one in error["attempts"]] == ["refused"] * 3
        assert len(events(house, refused.headers["x-request-id"], 3)) == 3
        # And not unhealthy: a call has found it once, however often it tried.
        until(
            lambda: [one["state"] for one in house.json("vault", "show", "nobody")["health"]] == ["degraded"], "it", 10
        )


def test_without_an_endpoint_or_its_retries_nothing_is_tried_again(pair: Pair) -> None:
    pair.endpoint("never again", A, retries=0)
    pair.by_key["a"] = behaviours.status(503)
    for name in ("never again", "groq/m"):
        since = len(pair.upstream.calls)
        assert pair.ask(name).status_code == 502
        assert pair.used(since) == {"a": 1}


@pytest.mark.parametrize(
    "fault",
    [behaviours.status(number) for number in (400, 401, 402, 403, 404, 413, 422, 429)]
    + [behaviours.quota, behaviours.refuse(503, "later", None, b"retry-after: 60")]
    + [behaviours.refuse(503, "never", None, b"x-should-retry: false")]
    + [behaviours.BY_NAME["drop"], faults.truncated],
    ids=["400", "401", "402", "403", "404", "413", "422", "429", "quota", "later", "never", "dropped", "truncated"],
)
def test_what_no_second_try_helps_is_tried_once(pair: Pair, fault: Behaviour) -> None:
    name = f"once and for all {len(pair.upstream.calls)}"
    pair.endpoint(name, A, retries=3)
    pair.by_key["a"] = fault
    since = len(pair.upstream.calls)
    pair.ask(name, stream=fault is faults.truncated)
    assert [one.method for one in pair.upstream.calls[since:]].count("POST") == 1


def test_others_come_before_the_same_key_again(pair: Pair) -> None:
    pair.endpoint("round and round", A, B, retries=3)
    pair.by_key |= dict.fromkeys("ab", behaviours.status(503))
    since = len(pair.upstream.calls)
    error = pair.ask("round and round").json()["error"]
    assert [one["provider"] for one in error["attempts"]] == ["groq", "xai", "groq", "xai"]
    assert pair.used(since) == {"a": 2, "b": 2}
    for name in "ab":
        pair.await_state(name, "degraded")


def test_who_hangs_up_during_the_pause_is_not_tried_for_again(pair: Pair) -> None:
    pair.endpoint("given up", A, retries=9)
    pair.by_key["a"] = SOON
    for number in TRIES:
        (caller,) = mint(pair.gateways[0], NewAgentKey(f"impatient {number}"))
        since = len(pair.upstream.calls)
        with wire(pair.gateways[0]) as line:
            line.send(post(caller.secret, b'{"model": "given up", "messages": [{"role": "user", "content": "hi"}]}'))
            called_at = pair.upstream.wait_for(since + 1).at
            until(partial(_has_event, pair, caller), "the first attempt to be over")
            line.reset()
        is_in_time = took(called_at) < SURELY_S
        pair.hear()  # and so has it heard of that
        pair.shift(60)  # the pause is over for whoever still waits
        assert told(pair.ask("cerebras/m"))[0] == 200
        if is_in_time:
            break
    assert is_in_time
    assert pair.used(since) == {"a": 1, "c": 1}


def _has_event(pair: Pair, key: Key) -> bool:
    return bool(rows(pair.gateways[0], "SELECT 1 FROM usage_events WHERE agent_key_id = ?", key.id))


def test_a_key_that_is_taken_away_during_the_pause_is_not_asked_again(pair: Pair) -> None:
    pair.endpoint("left alone", EndpointTarget("fireworks", "m"), retries=1)

    async def remove(base: Any, tx: Any, organization: Any) -> None:
        await provider_keys.remove(tx, OPERATOR, organization.id, name, base.clock.now(), force=True)

    for name in (f"leaving {number}" for number in TRIES):
        pair.furnish("fireworks", name)
        pair.by_key[name] = SOON
        since = len(pair.upstream.calls)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(pair.ask, "left alone")
            called_at = pair.upstream.wait_for(since + 1).at
            pair.do(remove)
            is_in_time = took(called_at) < SURELY_S
            pair.shift(10)
            assert call.result().status_code == 502
        if is_in_time:
            break
    assert is_in_time
    assert pair.used(since) == {name: 1}


# ---- a target that is no more -----------------------------------------------------------------------------------

GONE = [
    behaviours.status(404),
    behaviours.refuse(410, "The model is no longer available."),
    behaviours.refuse(400, "The model `m` has been decommissioned", "model_decommissioned"),
]


@pytest.mark.parametrize("fault", GONE, ids=["404", "410", "400"])
def test_a_model_that_a_target_does_not_have_leads_to_the_next_target(pair: Pair, fault: Behaviour) -> None:
    pair.furnish("groq", "a2", priority=-1)
    pair.by_key |= {"a": fault, "a2": fault}
    for is_alias in (False, True):
        name = f"moved {is_alias}"
        pair.endpoint(name, A, B, is_alias=is_alias)
        since = len(pair.upstream.calls)
        answer = pair.ask(name)
        assert told(answer) == (200, "xai", "2", "groq")
        assert pair.used(since) == {"a": 1, "b": 1}, "another key of that provider has the same model, or none"
        first, second = events(pair.gateways[0], answer.headers["x-request-id"], 2)
        assert (first["status"], first["cost_nano"], second["status"]) == ("error", 0, "ok")
    assert pair.health("a") == pair.health("a2") == []

    async def clear(base: Any, tx: Any, organization: Any) -> None:
        at = base.clock.now()
        await endpoints.remove(tx, OPERATOR, organization.id, "moved False", at)
        await aliases.remove(tx, OPERATOR, "moved True", at)
        await provider_keys.remove(tx, OPERATOR, organization.id, "a2", at, force=True)

    pair.do(clear)


def test_where_no_target_has_its_model_the_caller_hears_of_it_and_where_another_failed_of_that(pair: Pair) -> None:
    pair.endpoint("all gone", A, B)
    pair.by_key |= {"a": behaviours.status(404), "b": behaviours.status(404)}
    answer = pair.ask("all gone")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], len(error["attempts"])) == (404, "model_not_found", 2)
    pair.by_key["a"] = behaviours.quota
    answer = pair.ask("all gone")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (502, "provider_error"), "that will pass"
    assert [one["status"] for one in error["attempts"]] == [429, 404]


def test_who_names_the_model_at_its_provider_is_told_at_once(pair: Pair) -> None:
    for fault, status, code in zip(GONE, (404, 400, 400), ("model_not_found", *["invalid_request"] * 2), strict=True):
        pair.by_key["a"] = fault
        since = len(pair.upstream.calls)
        answer = pair.ask("groq/m")
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert pair.used(since) == {"a": 1}
    assert pair.health("a") == []


@pytest.mark.parametrize("fault", GONE, ids=["404", "410", "400"])
def test_a_bare_name_that_one_provider_does_not_know_is_asked_for_at_the_next(pair: Pair, fault: Behaviour) -> None:
    model = "gpt-oss-120b"  # as the catalogue has it at OpenAI, Cerebras and OVHcloud, in this order
    with pair.lent("openai", "o", "o2"), pair.lent("ovhcloud", "v"):
        set_prices(pair.gateways[0], f"openai/{model}", input_usd=1, output_usd=1)
        pair.by_key |= {"o": fault, "o2": fault}
        way = (
            pair.clients[0]
            .post(
                "/v1/explain",
                json={"model": model, "messages": [{"role": "user", "content": "hi"}]},
                headers=pair.caller.bearer,
            )
            .json()
        )
        assert [one["provider"] for one in way["targets"]] == ["openai", "openai", "cerebras", "ovhcloud"]
        for stream in (False, True):
            since = len(pair.upstream.calls)
            answer = pair.ask(model, stream=stream)
            assert told(answer) == (200, "cerebras", "2", "openai")
            assert [pair.used(since)[name] for name in ("o", "o2", "c")] in ([1, 0, 1], [0, 1, 1])
            first, second = events(pair.gateways[0], answer.headers["x-request-id"], 2)
            assert (first["status"], first["cost_nano"], second["status"]) == ("error", 0, "ok")
        # None of them has it: the caller hears what the last one said, as where it names the provider.
        pair.by_key |= {"c": fault, "v": behaviours.status(404)}
        since = len(pair.upstream.calls)
        answer = pair.ask(model)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (404, "model_not_found")
        assert [one["provider"] for one in error["attempts"]] == ["openai", "cerebras", "ovhcloud"]
        assert pair.used(since).total() == 3
        assert pair.health("o") == pair.health("o2") == pair.health("c") == pair.health("v") == []


# ---- whose turn it is -------------------------------------------------------------------------------------------


def test_keys_that_have_run_dry_leave_an_attempt_to_the_fallback(pair: Pair) -> None:
    names = [f"dry-{number}" for number in range(4)]
    pair.furnish("together", *names)
    pair.endpoint("dry", EndpointTarget("together", "m"), LAST, retries=2)
    pair.by_key |= dict.fromkeys(names, behaviours.quota)
    since = len(pair.upstream.calls)
    answer = pair.ask("dry")
    assert told(answer) == (200, "cerebras", "3", "together")
    assert pair.used(since).total() == 3


def test_the_other_keys_of_a_dry_account_are_not_asked(pair: Pair) -> None:
    pair.furnish("novita", "one-of-it", "another-of-it", account="theirs")
    pair.endpoint("one account", EndpointTarget("novita", "m"), LAST, retries=5)
    pair.by_key |= dict.fromkeys(("one-of-it", "another-of-it"), behaviours.quota)
    since = len(pair.upstream.calls)
    assert told(pair.ask("one account")) == (200, "cerebras", "2", "novita")
    assert pair.used(since).total() == 2
