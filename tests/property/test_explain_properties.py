"""`explain` says yes exactly when the call is let in, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.agents.policy import Choice, Policy
from ostiary.app import standing
from ostiary.errors import Refusal
from ostiary.gateway.caller import Caller
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.explain import explain_call
from ostiary.gateway.gate import Gate
from ostiary.gateway.pipeline import admit
from ostiary.gateway.unheard import unheard
from ostiary.ground import ground
from ostiary.ledger import prices
from ostiary.limits.budgets import Budget
from ostiary.limits.local import Allowance, Holder
from ostiary.orgs import organizations, roles
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault import provider_keys
from ostiary.vault.provider_keys import NewProviderKey
from tests.servers.canaries import Canaries

T = TypeVar("T")

_MODEL = "openai-compatible/m"
_OPERATOR = roles.operator()
_CENT = 10_000_000

_ADDRESS = "192.0.2.7"

RESTRICTIONS: list[dict[str, Any]] = [
    {"status": "revoked"},
    {"expires_at": 1},
    {"expires_at": 2**41},
    {"networks": (ip_network("192.0.2.0/24"),)},
    {"networks": (ip_network("2001:db8::/32"),)},
    {"scopes": frozenset({"gate:usage"})},
    {"models": Choice("only", frozenset({_MODEL}))},
    {"models": Choice("only", frozenset({"other"}))},
    {"providers": Choice("none")},
    {"free_only": True},
]
narrowed = st.lists(st.sampled_from(RESTRICTIONS), max_size=1).map(lambda found: Policy(**(found[0] if found else {})))
policies = st.builds(lambda policy, parent: replace(policy, within=parent), st.just(Policy()) | narrowed, narrowed)
"""Few restrictions at a time: else hardly any call would come as far as its money."""
models = st.sampled_from([*[_MODEL] * 6, "openai-compatible/unpriced", "nosuch"])
fields = st.sampled_from([*[{"max_tokens": most} for most in (1, 1, 500, 500, 10_000, 0)], {}, {"plugins": [1]}])
bodies = st.builds(lambda model, more: {"model": model, "messages": [], **more}, models, fields)


@dataclass(frozen=True)
class Limits:
    rates: Mapping[str, Any]
    budget: Budget | None


counts = st.none() | st.integers(1, 3)
tokens = st.none() | st.integers(100, 2_000)
rates = st.fixed_dictionaries({}, optional={"rpm": counts, "rpd": counts, "parallel": counts, "tpm": tokens})
budgets = st.none() | st.builds(Budget, st.just("total"), st.sampled_from([0, 200_000, 500_000, 2_000_000, _CENT]))
limits = st.builds(Limits, rates, budgets)
own_caps = st.sampled_from([None, None, b"0.001", b"1"])
calls = st.lists(st.tuples(bodies, own_caps), min_size=1, max_size=5)


class World:
    """A gate over a real database, with a loop of its own."""

    def __init__(self, runner: asyncio.Runner, gate: Gate, organization_id: str, pepper: Secret) -> None:
        self.runner = runner
        self.gate = gate
        self.organization_id = organization_id
        self.pepper = pepper
        self.numbers = itertools.count()

    async def limited(self, own: Limits, common: Limits) -> Allowance:
        """That of a new key and a new organization: who is in no row has nothing to lease, so nothing is let in."""
        at, name = self.gate.clock.now(), f"n{next(self.numbers)}"
        async with self.gate.database.transaction() as tx:
            whole = await organizations.create(tx, _OPERATOR, name, at)
            await organizations.change(tx, _OPERATOR, whole.id, {**common.rates, "budget": common.budget}, at)
            wish = NewAgentKey(name, budget=own.budget, **own.rates)
            key, _ = await agent_keys.create(tx, _OPERATOR, whole.id, wish, pepper=self.pepper, at=at)
        whose = (("agent_key", key.id, own), ("organization", whole.id, common))
        holders = tuple(Holder(scope, id_, **limits.rates) for scope, id_, limits in whose)
        budgets = tuple((scope, id_, limits.budget) for scope, id_, limits in whose if limits.budget is not None)
        return Allowance(key.id, holders, budgets)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it to the end."""
        return self.runner.run(work)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("explain")

    async def opened(stack: AsyncExitStack) -> tuple[Gate, str, Secret]:
        base = await stack.enter_async_context(ground(Settings.load(environment={}, data_dir=folder)))
        at = base.clock.now()
        async with base.database.transaction() as tx:
            whole = (await organizations.list_(tx, _OPERATOR))[0]
            provider = base.catalog.get("openai-compatible")
            wish = NewProviderKey("k", provider, Secret(canaries.plant()), "https://provider.example/v1")
            await provider_keys.add(tx, _OPERATOR, whole.id, wish, seal=base.seal, egress=base.egress, at=at)
            rates = {"input": 10**9, "output": 10**9}
            await prices.set_price(tx, _OPERATOR, provider, "m", rates, at)
        return await stack.enter_async_context(standing(base)), whole.id, base.seal.pepper

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        yield World(runner, *runner.run(opened(stack)))
        runner.run(stack.aclose())


def _asked(body: bytes, own_cap: bytes | None) -> Exchange:
    exchange = unheard(body, _ADDRESS)
    if own_cap is not None:
        exchange.headers[b"x-ostiary-max-cost-usd"] = own_cap
    return exchange


async def _said(gate: Gate, caller: Caller, exchange: Exchange) -> str:
    try:
        told = await explain_call(gate, caller, exchange)
    except Refusal as refusal:
        return refusal.code
    return "allowed" if told["allowed"] else str(told["would_answer"]["error"]["code"])


async def _done(gate: Gate, caller: Caller, exchange: Exchange) -> str:
    operation = "chat"
    try:
        admitted = await admit(gate, caller, exchange, operation)
    except Refusal as refusal:
        return refusal.code
    admitted.hold.settle(admitted.hold.size.nano, 10)
    return "allowed"


def test_explain_says_yes_exactly_when_the_call_is_let_in(world: World) -> None:
    """Whatever the key, its parent and its organization are limited to."""
    seen: set[str] = set()

    async def play(policy: Policy, own: Limits, common: Limits, calls: list[tuple[dict[str, Any], Any]]) -> None:
        caller = Caller(world.organization_id, policy, await world.limited(own, common))
        for body, own_cap in calls:
            data = json.dumps(body).encode()
            said = [await _said(world.gate, caller, _asked(data, own_cap)) for _ in range(3)]
            assert said == [await _done(world.gate, caller, _asked(data, own_cap))] * 3
            seen.update(said)

    @settings(deadline=None, max_examples=120)
    @given(policy=policies, own=limits, common=limits, calls=calls)
    def check(policy: Policy, own: Limits, common: Limits, calls: list[tuple[dict[str, Any], Any]]) -> None:
        world.run(play(policy, own, common, calls))

    twice = [({"model": _MODEL, "messages": [], "max_tokens": 1}, None)] * 2
    for one in ({"rpm": 1}, {"rpd": 1}, {"tpm": 1}):
        world.run(play(Policy(), Limits(one, None), Limits({}, None), twice))
    for cap in (0, _CENT):
        world.run(play(Policy(), Limits({}, None), Limits({}, Budget("total", cap)), twice))
    limited = {"rate_limit_exceeded", "daily_rate_limit_exceeded", "token_limit_exceeded", "budget_exceeded"}
    assert seen == {"allowed", *limited}, "else both would say no for a reason of their own"
    check()
