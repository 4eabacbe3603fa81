"""Two who do something at the same moment: the later one goes on from what the earlier one left, and nobody fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from ostiary.admin import store as admin_store
from ostiary.admin.store import Claim, Kept
from ostiary.agents import agent_keys, ephemeral_keys, store
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.agents.ephemeral_keys import NewEphemeralKey
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.ledger import gateways
from ostiary.ledger.audit_store import list_audit
from ostiary.ledger.writer import close_leases
from ostiary.limits import store as money
from ostiary.limits import window_store
from ostiary.limits.budgets import AccountKey, Budget, Kind
from ostiary.limits.charge_store import Cost, charge_all
from ostiary.limits.store import change_budget, find_budget, list_accounts
from ostiary.limits.window_store import NOBODY, WindowKey
from ostiary.orgs import invitations, members, organizations, roles, session_store, sessions
from ostiary.orgs.invitations import Invitation
from ostiary.secret import Secret
from tests.people import DAY, HOUR, NOW, People, refused, settle

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


async def test_a_key_is_revoked_while_it_is_written_down_when_its_children_were_used(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        parent = await make_key(tx, folk)
        children = []
        for later in (1, 2):
            child, _ = await ephemeral_keys.create(
                tx, folk["alice"], folk.home.id, parent.id, NewEphemeralKey(), pepper=PEPPER, at=NOW + later
            )
            children.append(child.id)
    async with database.transaction() as tx:  # the first one stands behind the second in the table and its indexes
        await store.change_agent_key(tx, folk.home.id, children[0], {"name": "elsewhere"})

    async def revoke() -> None:
        async with database.transaction() as tx:
            await agent_keys.revoke(tx, folk["alice"], folk.home.id, parent.id, NOW + 3)

    async with database.transaction() as tx:
        await store.mark_agent_keys_used(tx, {children[0]: NOW + 3})
        other = await begun(revoke())
        await store.mark_agent_keys_used(tx, {children[1]: NOW + 3})
    await other
    async with database.read() as tx:
        found = await store.list_children(tx, parent.id)
    assert [(one.status, one.last_used_at) for one in found] == [("revoked", NOW + 3)] * 2


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


@pytest.mark.parametrize(("kind", "period"), [("month", "2026-12"), ("day", "2026-11-19")])
async def test_a_budget_is_changed_while_a_period_begins(database: Database, kind: Kind, period: str) -> None:
    """A form may come slowly, and clocks differ: what was charged in the next one already is capped like the rest."""
    async with database.transaction() as tx:
        await change_budget(tx, "provider_key", "pkey_1", Budget(kind, 9 * USD), NOW)
        assert (await money.lock_account(tx, AccountKey("provider_key", "pkey_1", period))).cap_nano == 9 * USD
        await change_budget(tx, "provider_key", "pkey_1", Budget(kind, USD), NOW)
        assert (await money.lock_account(tx, AccountKey("provider_key", "pkey_1", period))).cap_nano == USD
        await change_budget(tx, "provider_key", "pkey_1", Budget("total", USD), NOW)
        assert (await money.lock_account(tx, AccountKey("provider_key", "pkey_1", period))).cap_nano is None


async def lost(database: Database) -> None:
    """A gateway that has leased of a budget and of a window, and is silent."""
    async with database.transaction() as tx:
        await money.add_owner(tx, "spool_1", "east", "test", NOW)
        account = await money.lock_account(tx, AccountKey("agent_key", "key_1", "2026-11"))
        assert await money.change_lease(tx, "spool_1", account, 0, 500)
        await window_store.put_lease(tx, "spool_1", WindowKey("agent_key", "key_1", "parallel"), 5)
        assert await money.mark_lost(tx, NOW + HOUR) == 1


async def end(database: Database, how: str) -> None:
    """Adopted by another gateway, or given up by the operator."""
    async with database.transaction() as tx:
        if how == "closed":
            await close_leases(tx, "spool_1", NOW, charge_rest=False)
        else:
            await money.retire_owner(tx, "spool_1", NOW)


@pytest.mark.parametrize("how", ["closed", "retired"])
@pytest.mark.parametrize("what", ["taken for lost", "heard of again"])
async def test_a_gateway_ends_while_others_take_it_for_lost_or_it_is_heard_of(
    database: Database, how: str, what: str
) -> None:
    """Each has the gateway's own row before anything that it has leased."""
    await lost(database)
    async with database.transaction() as tx:
        await money.lock_owner(tx, "spool_1")
        other = await begun(end(database, how))
        if what == "taken for lost":
            assert await window_store.drop_silent(tx, "spool_1", NOW, NOW)
        else:
            await money.mark_owner(tx, "spool_1", NOW)
    await other
    async with database.read() as tx:
        [account] = await list_accounts(tx, "agent_key", "key_1")
    assert (account.spent_nano, account.leased_nano) == (0 if how == "closed" else 500, 0)


async def test_two_gateways_write_down_what_nobody_counted_of_a_key_that_is_gone(database: Database) -> None:
    """Neither has a lock of its holder, and a gateway would end of it."""
    key = WindowKey("agent_key", "key_1", "day-20775")

    async def seed(amount: int) -> None:
        async with database.transaction() as tx:
            await window_store.put_lease(tx, NOBODY, key, amount, NOW + HOUR)

    async with database.transaction() as tx:
        await window_store.put_lease(tx, NOBODY, key, 5, NOW + HOUR)
        other = await begun(seed(6))
    await other
    async with database.transaction() as tx:
        [row] = await window_store.list_leases(tx, "agent_key", "key_1", NOW)
    assert (row.owner, row.amount, row.until) == (NOBODY, 6, NOW + HOUR)


async def test_two_gateways_of_a_name_are_given_up_while_a_budget_is_changed(database: Database) -> None:
    """Both have every account before they say anything."""
    await lost(database)
    key = AccountKey("agent_key", "key_2", "2026-11")
    async with database.transaction() as tx:
        await money.add_owner(tx, "spool_2", "east", "test", NOW - 1)  # looked at after the other
        assert await money.change_lease(tx, "spool_2", await money.lock_account(tx, key), 0, 500)

    async def retire() -> int:
        async with database.transaction() as tx:
            return len(await gateways.retire(tx, roles.operator(), "east", NOW + HOUR))

    async with database.transaction() as tx:
        await change_budget(tx, "agent_key", "key_2", LITTLE, NOW)
        other = await begun(retire())
        await changes.append(tx, "agent_key", "orgn_1", "key_2", NOW)
    assert await other == 2
    async with database.read() as tx:
        spent = [one.spent_nano for one in await list_accounts(tx, "agent_key", "key_2")]
    assert spent == [500, 0]


# ---- the admin API ----------------------------------------------------------------------------------------------


async def test_what_was_answered_is_not_forgotten_while_it_is_asked_for_again(database: Database) -> None:
    one = Claim("orgn_1", "key_1", "again", b"d" * 32)
    async with database.transaction() as tx:
        assert await admin_store.claim(tx, one, NOW)
        await admin_store.keep_answer(tx, one, 201, {"id": "x"})
    async with database.transaction() as tx:
        assert not await admin_store.claim(tx, one, NOW + DAY - 1)
        other = await begun(admin_store.prune(database, NOW + DAY))
        assert await admin_store.get_answer(tx, one) == Kept(one.digest, 201, {"id": "x"})
    await other
    async with database.transaction() as tx:
        assert await admin_store.claim(tx, one, NOW + DAY)


# ---- who leaves -------------------------------------------------------------------------------------------------


async def let_go(tx: Transaction, folk: People, who: str = "bob") -> None:
    """Alice removes somebody, with their keys."""
    address = f"{who}@example.org"
    await members.remove(tx, folk["alice"], folk.home.id, address, NOW, let_go=agent_keys.revoke_all_of)


async def let_go_alone(database: Database, folk: People, who: str = "bob") -> None:
    async with database.transaction() as tx:
        await let_go(tx, folk, who)


async def status_of(database: Database, folk: People) -> str:
    async with database.read() as tx:
        return (await store.get_agent_key(tx, folk.home.id, "ci")).status


async def test_a_key_that_somebody_makes_while_they_are_let_go_is_revoked(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await make_key(tx, folk, "bob")
        other = await begun(let_go_alone(database, folk))
    await other
    assert await status_of(database, folk) == "revoked"


async def test_who_was_let_go_meanwhile_makes_no_key(database: Database) -> None:
    folk = await settle(database)

    async def make() -> None:
        async with database.transaction() as tx:
            await make_key(tx, folk, "bob")

    async with database.transaction() as tx:
        await let_go(tx, folk)
        other = await begun(make())
    with refused("invalid_field", "owner_id"):
        await other


async def test_a_key_is_given_to_nobody_who_is_let_go_meanwhile(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await make_key(tx, folk, "alice")

    async def give() -> None:
        async with database.transaction() as tx:
            await agent_keys.change(tx, folk["alice"], folk.home.id, "ci", {"owner_id": folk["bob"].id}, NOW)

    async with database.transaction() as tx:
        await let_go(tx, folk)
        other = await begun(give())
    with refused("invalid_field", "owner_id"):
        await other


async def test_a_key_is_given_away_while_its_owner_is_let_go(database: Database) -> None:
    """Who gives it has the member before the key, as who lets a member go."""
    folk = await settle(database)
    async with database.transaction() as tx:
        await make_key(tx, folk, "bob")
    async with database.transaction() as tx:
        await store.find_owner(tx, folk.home.id, folk["erin"].id, lock=True)
        other = await begun(let_go_alone(database, folk))
        await agent_keys.change(tx, folk["alice"], folk.home.id, "ci", {"owner_id": folk["erin"].id}, NOW)
    await other
    assert await status_of(database, folk) == "active"


async def invite(tx: Transaction, folk: People, by: str = "erin", email: str = "frank@example.org") -> Invitation:
    return (await invitations.invite(tx, folk[by], folk.home.id, email, "member", NOW))[0]


async def invite_alone(database: Database, folk: People) -> Invitation:
    async with database.transaction() as tx:
        return await invite(tx, folk)


async def list_open(database: Database, folk: People) -> list[str]:
    async with database.read() as tx:
        found = await invitations.list_(tx, folk.operator, folk.home.id, NOW)
    return [one.id for one in found if one.is_open(NOW)]


async def test_what_somebody_hands_out_while_they_are_let_go_is_taken_back(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await invite(tx, folk)
        other = await begun(let_go_alone(database, folk, "erin"))
    await other
    assert await list_open(database, folk) == []


async def test_who_may_no_longer_invite_does_not(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await members.change_role(tx, folk["alice"], folk.home.id, "erin@example.org", "member", NOW)
        other = await begun(invite_alone(database, folk))
    with refused("conflict"):
        await other
    assert await list_open(database, folk) == []


async def test_of_two_invitations_for_one_address_one_is_open(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await invite(tx, folk)
        other = await begun(invite_alone(database, folk))
    later = await other
    assert await list_open(database, folk) == [later.id]


async def test_somebody_is_let_go_while_a_session_of_theirs_is_ended(database: Database) -> None:
    """Who ends a session has it before they say so, and who lets somebody go says so of their keys."""
    folk = await settle(database)
    async with database.transaction() as tx:
        await make_key(tx, folk, "bob")
        session, _ = await sessions.start(tx, folk["bob"].id, folk.home.id, NOW, address=None, agent=None)
    async with database.transaction() as tx:
        await session_store.remove_sessions(tx, [session.id])
        other = await begun(let_go_alone(database, folk))
        await changes.append(tx, "session", folk.home.id, folk["bob"].id, NOW)
    await other
    assert await status_of(database, folk) == "revoked"
