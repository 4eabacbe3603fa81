"""Two who do something at the same moment: the later one goes on from what the earlier one left, and nobody fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.db.database import Database, Transaction
from ostiary.ledger.audit_store import list_audit
from ostiary.limits.budgets import AccountKey, Budget
from ostiary.limits.charge_store import Cost, charge_all
from ostiary.limits.store import change_budget, find_budget, list_accounts
from ostiary.orgs import organizations
from ostiary.secret import Secret
from tests.people import NOW, People, settle

T = TypeVar("T")

PEPPER = Secret("pepper for tests")
USD = 1_000_000_000
LITTLE, MUCH = Budget("month", USD), Budget("month", 9 * USD)


async def begun(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Somebody else's work that has come as far as it comes: it waits for a transaction that is open."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.2)
    assert not task.done()
    return task


async def make_key(tx: Transaction, folk: People, by: str = "alice", **wish: Any) -> AgentKey:
    """A key called ci."""
    made = await agent_keys.create(tx, folk[by], folk.home.id, NewAgentKey("ci", **wish), pepper=PEPPER, at=NOW)
    return made[0]


# ---- edits ------------------------------------------------------------------------------------------------------


async def test_who_waits_to_edit_a_key_knows_the_budget_it_has_by_then(database: Database) -> None:
    """Else who puts back what somebody has just changed would be told that it is so, and it would not."""
    folk = await settle(database)
    async with database.transaction() as tx:
        key = await make_key(tx, folk, budget=LITTLE)

    async def edit(**wished: Any) -> AgentKey:
        async with database.transaction() as tx:
            return await agent_keys.change(tx, folk["alice"], folk.home.id, "ci", wished, NOW)

    async with database.transaction() as tx:
        await agent_keys.change(tx, folk["alice"], folk.home.id, "ci", {"budget": MUCH}, NOW)
        other = await begun(edit(budget=LITTLE))
    assert (await other).budget == LITTLE
    async with database.read() as tx:
        assert await find_budget(tx, "agent_key", key.id) == LITTLE
        told = (await list_audit(tx, folk.home.id))[0]
    assert [(one or {})["budget"]["cap_nano"] for one in (told.before, told.after)] == [9 * USD, USD]


async def test_who_waits_to_edit_an_organization_knows_the_budget_it_has_by_then(database: Database) -> None:
    folk = await settle(database)

    async def edit(tx: Transaction, budget: Budget) -> organizations.Organization:
        return await organizations.change(tx, folk["alice"], folk.home.id, {"budget": budget}, NOW)

    async def edit_alone(budget: Budget) -> organizations.Organization:
        async with database.transaction() as tx:
            return await edit(tx, budget)

    await edit_alone(LITTLE)
    async with database.transaction() as tx:
        await edit(tx, MUCH)
        other = await begun(edit_alone(LITTLE))
    assert (await other).budget == LITTLE
    async with database.read() as tx:
        assert await find_budget(tx, "organization", folk.home.id) == LITTLE
        told = (await list_audit(tx, folk.home.id))[0]
    assert [(one or {})["budget"]["cap_nano"] for one in (told.before, told.after)] == [9 * USD, USD]


# ---- money ------------------------------------------------------------------------------------------------------


async def test_a_budget_is_changed_while_what_it_is_for_is_charged(database: Database) -> None:
    """Whoever charges has the account of the month before that of the day, and so must whoever caps both."""

    async def cap(budget: Budget) -> None:
        async with database.transaction() as tx:
            await change_budget(tx, "provider_key", "pkey_1", budget, NOW)

    async def charge(tx: Transaction, period: str) -> None:
        await charge_all(tx, "", {AccountKey("provider_key", "pkey_1", period): Cost(5)})

    await cap(LITTLE)
    async with database.transaction() as tx:
        await charge(tx, "2026-11")
        other = await begun(cap(Budget("day", USD)))
        await charge(tx, "2026-11-18")
    await other
    async with database.read() as tx:
        found = {
            one.period_id: (one.cap_nano, one.spent_nano) for one in await list_accounts(tx, "provider_key", "pkey_1")
        }
    assert found == {"2026-11": (None, 5), "2026-11-18": (USD, 5), "total": (None, 0)}
