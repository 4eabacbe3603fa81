"""Endpoints and aliases at work: in order, split, with fallbacks, in time, and as the caller's key allows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import OpenAI

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.agents.policy import choice_of
from ostiary.limits.budgets import Budget
from ostiary.orgs import organizations, roles, users
from ostiary.secret import Secret
from ostiary.vault import endpoints, provider_keys
from ostiary.vault.endpoint_store import EndpointTarget
from ostiary.vault.provider_keys import NewProviderKey
from tests.acceptance.inside import OPERATOR, USD, events, mint, set_prices
from tests.acceptance.pair import CHAT, Pair, pair_of
from tests.servers import behaviours, faults, wire
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell
from tests.servers.upstream import Behaviour, Exchange
from tests.servers.wire import TEXT, framed, stream_head

A, B, C = (EndpointTarget(provider, "m") for provider in ("groq", "xai", "cerebras"))
LAST = replace(C, is_fallback=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Pair]:
    with pair_of(tmp_path_factory.mktemp("routing"), canaries, shell) as made:
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


@pytest.mark.main_job
def test_the_first_healthy_target_answers_and_the_next_when_it_fails(pair: Pair) -> None:
    pair.endpoint("ordered", A, B, LAST)
    assert told(pair.ask("ordered")) == (200, "groq", "1", None)
    pair.by_key["a"] = behaviours.status(503)
    assert told(pair.ask("ordered")) == (200, "xai", "2", "groq")
    pair.by_key["b"] = behaviours.quota
    answer = pair.ask("ordered")
    assert told(answer) == (200, "cerebras", "2", "xai"), "what has failed comes after what has not, but for fallbacks"
    rows = events(pair.gateways[0], answer.headers["x-request-id"], 2)
    assert [(row["endpoint"], row["provider"], row["status"]) for row in rows] == [
        ("ordered", "xai", "error"),
        ("ordered", "cerebras", "ok"),
    ]
    trace = pair.gateways[0].json("traces", "show", answer.headers["x-request-id"])
    assert "ordered" in json.dumps(trace)


def test_an_alias_is_everybodys_and_an_own_endpoint_hides_it(pair: Pair) -> None:
    pair.endpoint("ostiary/quick", B, is_alias=True)
    assert told(pair.ask("ostiary/quick", at=1)) == (200, "xai", "1", None)
    pair.endpoint("llama-hidden", C)
    pair.endpoint("llama-hidden", A, is_alias=True)
    assert told(pair.ask("llama-hidden")) == (200, "cerebras", "1", None)
    pair.endpoint("our-own", C)
    names = {one["id"] for one in pair.clients[0].get("/v1/models", headers=pair.caller.bearer).json()["data"]}
    assert {"ostiary/quick", "llama-hidden", "our-own"} <= names
    public = {one["id"] for one in pair.clients[0].get("/v1/models").json()["data"]}
    assert "ostiary/quick" in public
    assert "our-own" not in public
    aliases = json.dumps(pair.clients[0].get("/v1/aliases").json())
    assert "ostiary/quick" in aliases


def test_an_edit_counts_for_the_next_call_at_every_gateway(pair: Pair) -> None:
    pair.endpoint("edited", A)
    assert told(pair.ask("edited", at=1)) == (200, "groq", "1", None)

    async def deed(base: Any, tx: Any, organization: Any) -> None:
        at = base.clock.now()
        await endpoints.change(tx, OPERATOR, organization.id, "edited", {"targets": (C,)}, catalog=base.catalog, at=at)

    pair.do(deed)
    assert [told(pair.ask("edited", at=at))[1] for at in (0, 1)] == ["cerebras", "cerebras"]

    async def remove(base: Any, tx: Any, organization: Any) -> None:
        await endpoints.remove(tx, OPERATOR, organization.id, "edited", base.clock.now())

    pair.do(remove)
    gone = pair.ask("edited", at=1)
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")


def test_a_split_shares_calls_by_weight_and_conversations_stay(pair: Pair) -> None:
    pair.endpoint("shared", replace(A, weight=3), B, strategy="split")
    drawn = Counter(pair.ask("shared", f"conversation {number}", at=number % 2).headers["x-ostiary-provider"]
                    for number in range(200))  # fmt: skip
    assert 110 <= drawn["groq"] <= 185
    assert drawn.total() == drawn["groq"] + drawn["xai"] == 200
    for number in range(20):
        first = {"role": "user", "content": f"conversation {number}"}
        later = [first, {"role": "assistant", "content": "so"}, {"role": "user", "content": "and then?"}]
        seen = {
            pair.ask("shared", at=at, messages=said).headers["x-ostiary-provider"]
            for at, said in ((0, [first]), (1, later))
        }
        assert len(seen) == 1, "at both gateways"


def test_as_many_attempts_as_the_endpoint_says(pair: Pair) -> None:
    pair.endpoint("once", A, B, retries=0)
    pair.endpoint("thrice", A, B, C, retries=2)
    pair.by_key |= dict.fromkeys("abc", behaviours.status(500))
    for name, attempts in (("once", 1), ("thrice", 3)):
        error = pair.ask(name).json()["error"]
        assert (error["code"], len(error["attempts"])) == ("provider_error", attempts)


def test_who_does_not_answer_in_the_endpoints_time_is_left(pair: Pair) -> None:
    set_prices(pair.gateways[0], "groq/m", "xai/m", input_usd=1, output_usd=1)
    pair.endpoint("hurried", A, B, timeout_ms=5_000)  # which bind the other, too
    pair.by_key["a"] = faults.stall_first_byte
    for stream in (False, True):
        answer = pair.ask("hurried", stream=stream)
        assert told(answer) == (200, "xai", "2", "groq")
        first, second = events(pair.gateways[0], answer.headers["x-request-id"], 2)
        assert (first["error_code"], second["status"]) == ("provider_timeout", "ok")
        assert first["cost_nano"] == first["held_nano"] > 0, "it may have been billed, and is"
        assert pair.health("a") == [], "an endpoint's impatience is no fault of the key"
    pair.by_key["a"] = faults.drip
    answer = pair.ask("hurried", stream=True)
    assert told(answer) == (200, "xai", "2", "groq"), "a stream that says nothing has not begun"
    assert pair.health("a") == []
    pair.by_key["a"] = faults.stall_first_byte
    (poor,) = mint(pair.gateways[0], NewAgentKey("poor", budget=Budget("total", first["held_nano"] * 3 // 2)))
    late = pair.ask("hurried", key=poor)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "provider_timeout")
    assert len(late.json()["error"]["attempts"]) == 1, "nothing was left for another attempt"


def test_what_is_late_by_the_providers_own_word_is_the_keys_fault(pair: Pair) -> None:
    pair.endpoint("patient", A, B, timeout_ms=60_000)
    pair.by_key["a"] = behaviours.status(504)
    assert told(pair.ask("patient")) == (200, "xai", "2", "groq")
    pair.await_state("a", "degraded")
    pair.reset("a")


def test_a_stream_falls_back_before_its_first_content_and_never_after(pair: Pair) -> None:
    pair.endpoint("streamed", A, B)
    pair.by_key["a"] = faults.error_first_in_stream
    with OpenAI(base_url=pair.gateways[0].url, api_key=pair.caller.secret, max_retries=0) as client:
        pieces = [
            part.choices[0].delta.content or ""
            for part in client.chat.completions.create(
                model="streamed", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            if part.choices
        ]
    assert "".join(pieces) == TEXT, "one clean stream"
    seen = len(pair.upstream.calls)
    pair.by_key["a"] = faults.truncated
    pair.reset("a")
    text = pair.ask("streamed", stream=True).text
    assert '"error"' in text
    assert "[DONE]" not in text
    assert len(pair.upstream.calls) == seen + 1, "and nothing was tried again"


@pytest.mark.parametrize("fault", ["cut-before-content", "drop", "reset"])
def test_a_connection_that_breaks_before_the_first_content_leads_to_another_provider(pair: Pair, fault: str) -> None:
    pair.endpoint(f"broken by {fault}", A, B)
    pair.by_key["a"] = behaviours.BY_NAME[fault]
    answer = pair.ask(f"broken by {fault}", stream=True)
    assert told(answer) == (200, "xai", "2", "groq")
    assert answer.text.endswith("data: [DONE]\n\n")
    if fault != "cut-before-content":
        pair.reset("a")
        assert told(pair.ask(f"broken by {fault}")) == (200, "xai", "2", "groq")


async def reset_after_head(exchange: Exchange) -> None:
    """A RST once the head of the stream is under way."""
    await exchange.send(stream_head())
    exchange.reset()


async def reset_after_role(exchange: Exchange) -> None:
    """A RST behind the event that only says who speaks."""
    await exchange.send(stream_head(), framed(wire.events(exchange.request, None)[0]))
    exchange.reset()


async def reset_after_words(exchange: Exchange) -> None:
    """A RST behind the first words, once the test has seen them."""
    await exchange.send(stream_head(), *map(framed, wire.events(exchange.request, None)[:3]))
    await exchange.gate()
    exchange.reset()


@pytest.mark.parametrize("fault", [reset_after_head, reset_after_role])
def test_a_reset_before_the_first_content_leads_to_another_provider_and_one_clean_stream(
    pair: Pair, fault: Behaviour
) -> None:
    name = fault.__name__
    pair.endpoint(name, A, B)
    pair.by_key["a"] = fault
    since = len(pair.upstream.calls)
    answer = pair.ask(name, stream=True)
    assert told(answer) == (200, "xai", "2", "groq")
    assert pair.used(since) == {"a": 1, "b": 1}
    *parts, end, last = answer.text.split("\n\n")
    assert (end, last) == ("data: [DONE]", "")
    pieces = [json.loads(part.removeprefix("data: "))["choices"][0]["delta"] for part in parts]
    assert [piece.get("role") for piece in pieces].count("assistant") == 1
    assert "".join(piece.get("content", "") for piece in pieces) == TEXT
    first, second = events(pair.gateways[0], answer.headers["x-request-id"], 2)
    assert (first["status"], second["status"]) == ("error", "ok")


def test_a_reset_after_the_first_content_is_said_and_nothing_is_tried_again(pair: Pair) -> None:
    pair.endpoint("reset in it", A, B)
    pair.by_key["a"] = reset_after_words
    pair.upstream.gate.clear()
    since = len(pair.upstream.calls)
    body = {"model": "reset in it", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50, "stream": True}
    with pair.clients[0].stream("POST", CHAT, json=body, headers=pair.caller.bearer) as answer:
        lines = list(until_words(answer.iter_lines(), pair))
    assert told(answer) == (200, "groq", "1", None)
    assert "[DONE]" not in "".join(lines)
    parts = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert "".join(part["choices"][0]["delta"]["content"] for part in parts[:-1]) == "".join(wire.WORDS[:2])
    assert parts[-1]["error"]["code"] == "provider_error"
    assert parts[-1]["error"]["request_id"] == answer.headers["x-request-id"]
    assert pair.used(since) == {"a": 1}
    (row,) = events(pair.gateways[0], answer.headers["x-request-id"])
    assert (row["status"], row["attempt"]) == ("error", 1)


def until_words(lines: Iterator[str], pair: Pair) -> Iterator[str]:
    """The events of a stream; the provider goes on when its first words have come."""
    for line in filter(None, lines):
        yield line
        if wire.WORDS[1] in line:
            pair.upstream.gate.set()


def test_a_spend_cap_of_a_key_is_not_passed_by_models_without_a_price(pair: Pair) -> None:
    pair.furnish("together", "capped", budget=Budget("day", 1))
    refused = pair.ask("together/without-a-price")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_priced")


def test_a_cheap_key_with_a_cap_is_held_for_itself_not_for_the_dear_fallback(pair: Pair) -> None:
    pair.furnish("fireworks", "cheap", budget=Budget("day", USD // 1_000))
    set_prices(pair.gateways[0], "fireworks/m", input_usd=1, output_usd=1)
    set_prices(pair.gateways[0], "groq/m", input_usd=1_000, output_usd=1_000)
    pair.endpoint("cheap first", EndpointTarget("fireworks", "m"), replace(A, is_fallback=True))
    assert told(pair.ask("cheap first")) == (200, "fireworks", "1", None)
    answer = pair.ask("fireworks/m", max_tokens=None)
    assert answer.status_code == 200, "where there is no other key, the answer is made to fit"
    assert pair.upstream.calls[-1].json["max_tokens"] < 1_000


def test_an_allow_list_names_endpoints_and_every_target_is_judged(pair: Pair) -> None:
    pair.endpoint("listed", A, B)
    wishes = (
        NewAgentKey("by endpoint", models=choice_of(["listed"])),
        NewAgentKey("by model", models=choice_of(["xai/m"])),
        NewAgentKey("by provider", providers=choice_of(["xai"])),
        NewAgentKey("by another", models=choice_of(["other"])),
    )
    by_endpoint, by_model, by_provider, by_another = mint(pair.gateways[0], *wishes)
    assert told(pair.ask("listed", key=by_endpoint))[:2] == (200, "groq")
    refused = pair.ask("groq/m", key=by_endpoint)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    for key in (by_model, by_provider):
        assert told(pair.ask("listed", key=key))[:2] == (200, "xai"), "no fallback leads around a list"
        pair.by_key["b"] = behaviours.status(503)
        assert pair.ask("listed", key=key).status_code == 502
        pair.by_key.clear()
        pair.reset("b")
    assert pair.ask("listed", key=by_another).json()["error"]["code"] == "model_not_allowed"


def test_the_hold_is_for_the_dearest_target(pair: Pair) -> None:
    set_prices(pair.gateways[0], "groq/m", input_usd=1, output_usd=1)
    set_prices(pair.gateways[0], "xai/m", input_usd=1, output_usd=1_000)
    pair.endpoint("dear", A, B)
    (key,) = mint(pair.gateways[0], NewAgentKey("thrifty", budget=Budget("total", USD // 1_000)))
    body = {"model": "dear", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    explained = pair.clients[0].post("/v1/explain", json=body, headers=key.bearer).json()
    assert explained["would_answer"]["error"]["code"] == "budget_exceeded"
    assert pair.ask("dear", key=key).status_code == 402
    assert pair.ask("groq/m", key=key).status_code == 200


def test_explain_names_the_way(pair: Pair) -> None:
    pair.endpoint("explained", A, B, LAST, retries=1)
    body = {"model": "explained", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    answer = pair.clients[0].post("/v1/explain", json=body, headers=pair.caller.bearer).json()
    assert (answer["allowed"], answer["endpoint"], answer["attempts"]) == (True, "explained", 2)
    assert [one["provider_key"] for one in answer["targets"]] == ["a", "b", "c"]


def test_of_the_pool_the_operators_key_comes_before_what_another_organization_shares(
    tmp_path: Path, canaries: Canaries, shell: Shell
) -> None:
    with pair_of(tmp_path, canaries, shell) as pair:
        _share_and_ask(pair)


def _share_and_ask(pair: Pair) -> None:
    secrets = {name: pair.gateways[0].canaries.plant() for name in ("theirs", "house")}

    async def share(base: Any, tx: Any, _home: Any) -> None:
        at = base.clock.now()
        elsewhere = await organizations.create(tx, OPERATOR, "Elsewhere", at)
        dora = await users.ensure(tx, "dora@example.org", "Dora", at)
        # Reaching further than an owner does, since only so may what is shared lead to the test's own server.
        owner = replace(roles.member_actor(dora, "owner", elsewhere.id, "test"), organization_id=None)
        for by, name in ((owner, "theirs"), (OPERATOR, "house")):
            row, secret = base.catalog.get("sambanova"), Secret(secrets[name])
            wish = NewProviderKey(name, row, secret, pair.upstream.url, shared=True, priority=9 if by is owner else 0)
            await provider_keys.add(tx, by, elsewhere.id, wish, seal=base.seal, egress=base.egress, at=at)

    pair.secrets |= secrets
    pair.do(share)
    since = len(pair.upstream.calls)
    assert {pair.ask("sambanova/m", f"{number}", at=number % 2).status_code for number in range(6)} == {200}
    assert pair.used(since) == {"house": 6}
    pair.by_key["house"] = behaviours.quota
    assert told(pair.ask("sambanova/m", "more"))[:3] == (200, "sambanova", "2")
    assert pair.used(since) == {"house": 7, "theirs": 1}
