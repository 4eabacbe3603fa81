"""`explain` says yes exactly when the call is let in, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostiary.agents.policy import SCOPES, Choice, Policy
from ostiary.app import judging
from ostiary.errors import Refusal
from ostiary.gateway.caller import Caller
from ostiary.gateway.explain import explain_call
from ostiary.gateway.gate import Gate
from ostiary.gateway.pipeline import admit
from ostiary.gateway.unheard import unheard
from ostiary.ground import ground
from ostiary.ledger import prices
from ostiary.limits import store
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

policies = st.builds(
    Policy,
    status=st.sampled_from(["active", "active", "active", "revoked"]),
    scopes=st.sampled_from([SCOPES, frozenset({"gate:usage"})]),
    models=st.sampled_from([Choice(), Choice("only", frozenset({_MODEL})), Choice("only", frozenset({"other"}))]),
    providers=st.sampled_from([Choice(), Choice("none")]),
    free_only=st.booleans(),
)
bodies = st.fixed_dictionaries(
    {"model": st.sampled_from([_MODEL, _MODEL, "openai-compatible/unpriced", "nosuch"]), "messages": st.just([])},
    optional={"max_tokens": st.sampled_from([1, 500, 10_000, 0]), "stream": st.just(True), "plugins": st.just([1])},
)
limits = st.none() | st.integers(1, 3)
calls = st.lists(bodies, min_size=1, max_size=4)


class World:
    """A gate over a real database, with a loop of its own."""

    def __init__(self, runner: asyncio.Runner, gate: Gate, organization_id: str) -> None:
        self.runner = runner
        self.gate = gate
        self.organization_id = organization_id
        self.numbers = itertools.count()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it to the end."""
        return self.runner.run(work)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("explain")

    async def opened(stack: AsyncExitStack) -> tuple[Gate, str]:
        base = await stack.enter_async_context(ground(Settings.load(environment={}, data_dir=folder)))
        at = base.clock.now()
        async with base.database.transaction() as tx:
            whole = (await organizations.list_(tx, _OPERATOR))[0]
            provider = base.catalog.get("openai-compatible")
            wish = NewProviderKey("k", provider, Secret(canaries.plant()), "https://provider.example/v1")
            await provider_keys.add(tx, _OPERATOR, whole.id, wish, seal=base.seal, egress=base.egress, at=at)
            rates = {"input": 10**9, "output": 10**9}
            await prices.set_price(tx, _OPERATOR, provider, "m", rates, at)
        return await stack.enter_async_context(judging(base)), whole.id

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        gate, organization_id = runner.run(opened(stack))
        yield World(runner, gate, organization_id)
        runner.run(stack.aclose())


async def _said(gate: Gate, caller: Caller, body: bytes) -> str:
    try:
        told = await explain_call(gate, caller, unheard(body, "192.0.2.7"))
    except Refusal as refusal:
        return refusal.code
    return "allowed" if told["allowed"] else str(told["would_answer"]["error"]["code"])


async def _done(gate: Gate, caller: Caller, body: bytes) -> str:
    operation = "chat"
    try:
        admitted = await admit(gate, caller, unheard(body, "192.0.2.7"), operation)
    except Refusal as refusal:
        return refusal.code
    admitted.hold.settle(admitted.hold.size.nano, 10)
    return "allowed"


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(policy=policies, rpm=limits, parallel=limits, cap=st.none() | st.integers(0, 4 * _CENT), bodies=calls)
def test_explain_says_yes_exactly_when_the_call_is_let_in(
    world: World, policy: Policy, rpm: int | None, parallel: int | None, cap: int | None, bodies: list[dict[str, Any]]
) -> None:
    key_id = f"key_{next(world.numbers)}"
    budget = Budget("total", cap) if cap is not None else None
    holder = Holder("agent_key", key_id, rpm=rpm, parallel=parallel)
    allowance = Allowance(key_id, (holder,), (("agent_key", key_id, budget),) if budget else ())
    caller = Caller(world.organization_id, policy, allowance)

    async def play() -> None:
        async with world.gate.database.transaction() as tx:
            await store.change_budget(tx, "agent_key", key_id, budget, world.gate.clock.now())
        for body in bodies:
            data = json.dumps(body).encode()
            said = [await _said(world.gate, caller, data) for _ in range(3)]
            assert said == [await _done(world.gate, caller, data)] * 3

    world.run(play())
