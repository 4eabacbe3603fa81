"""Leases of processes that fall silent: marked, never moved; charged once by hand or long after; drawn down later."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.ledger import writer
from ostiary.ledger.events import Event
from ostiary.limits import store
from ostiary.limits.budgets import AccountKey, Bid, Budget
from ostiary.limits.charge_store import Cost, charge_all
from ostiary.limits.local import Allowance, Holder, LocalCounters
from ostiary.limits.purse import Purses
from ostiary.limits.reserve import Hold, Reserve
from ostiary.limits.upkeep import tend
from tests.fakes import SetClock

pytestmark = pytest.mark.anyio
_KEY = AccountKey("agent_key", "key_1", "2026-11")
_CAP = 1_000_000
_ALLOWANCE = Allowance(_KEY.id, (), (("agent_key", _KEY.id, Budget("month", _CAP)),))


class Process:
    """One gateway's money, without the gateway."""

    def __init__(self, database: Database, clock: SetClock, owner: str) -> None:
        self.database, self.clock, self.owner = database, clock, owner
        self.purses = Purses(database, owner, clock)
        self.reserve = Reserve(clock, LocalCounters(clock), self.purses)

    async def register(self) -> Process:
        async with self.database.transaction() as tx:
            await store.add_owner(tx, self.owner, self.owner, "test", self.clock.now())
        return self

    async def take(self, nano: int) -> Hold:
        bid = Bid(fixed_nano=nano, output_tokens=0, output_rate=0, may_shrink=False)
        return await self.reserve.take(_ALLOWANCE, bid)

    async def write(self, hold: Hold, cost: int, request_id: str) -> None:
        hold.settle(cost)
        event = Event(
            request_id, 1, "orgn_1", _KEY.id, "a", None, "chat", "p", "m", "m", "pkey", "pk", False, hold.at, None, {},
            hold.size.nano, hold.accounts, "v", cost, "provider", "ok", 200,
        )  # fmt: skip
        async with self.database.transaction() as tx:
            await writer.write_events(tx, self.owner, [event])

    async def beat(self) -> None:
        async with self.database.transaction() as tx:
            await store.mark_owner(tx, self.owner, self.clock.now())

    async def close(self, *, charge_rest: bool = False) -> None:
        async with self.database.transaction() as tx:
            await writer.close_leases(tx, self.owner, self.clock.now(), charge_rest=charge_rest)

    async def retire(self) -> int:
        async with self.database.transaction() as tx:
            return await store.retire_owner(tx, self.owner, self.clock.now())


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def lost(database: Database, clock: SetClock) -> Process:
    """A process that holds a quarter of a budget, and falls silent."""
    process = await Process(database, clock, "spool_lost").register()
    async with database.transaction() as tx:
        await store.change_budget(tx, "agent_key", _KEY.id, Budget("month", _CAP), clock.now())
    return process


async def books(database: Database) -> tuple[int, int]:
    """Spent and leased of November."""
    async with database.read() as tx:
        accounts = await store.list_accounts(tx, "agent_key", _KEY.id)
    return next((one.spent_nano, one.leased_nano) for one in accounts if one.period_id == _KEY.period_id)


async def marks(database: Database) -> list[str | None]:
    async with database.read() as tx:
        return list((await tx.execute(select(schema.leases.c.mark))).scalars())


async def test_silence_marks_a_lease_and_waking_lifts_the_mark(
    database: Database, clock: SetClock, lost: Process
) -> None:
    hold = await lost.take(100_000)
    before = await books(database)
    clock.move(14)
    await tend(database, clock.now())
    assert await marks(database) == [None]
    clock.move(2)
    await tend(database, clock.now())
    assert await marks(database) == ["lost"]
    assert await books(database) == before, "the money stays where it is"
    await lost.write(hold, 60_000, "r1")
    assert (await books(database))[0] == 60_000
    await lost.beat()
    assert await marks(database) == [None]


async def test_money_of_a_lost_process_is_not_given_to_another(
    database: Database, clock: SetClock, lost: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.limits.reserve._PATIENCE_S", 0.05)
    await lost.take(900_000)
    other = await Process(database, clock, "spool_other").register()
    clock.move(86_400)
    await tend(database, clock.now())
    with pytest.raises(Refusal) as caught:
        await other.take(200_000)
    assert caught.value.details["retryable"] is True
    hold = await other.take(100_000)
    await other.write(hold, 100_000, "r1")
    await lost.close()
    await other.take(900_000)


async def test_retiring_charges_the_rest_once(database: Database, lost: Process) -> None:
    await lost.write(await lost.take(100_000), 60_000, "r1")
    spent, leased = await books(database)
    assert (spent, await lost.retire()) == (60_000, leased)
    assert await books(database) == (60_000 + leased, 0)
    assert await lost.retire() == 0
    assert await books(database) == (60_000 + leased, 0)


async def test_a_process_that_wakes_after_it_was_retired_is_not_charged_twice(
    database: Database, lost: Process
) -> None:
    open_call, another = await lost.take(100_000), await lost.take(50_000)
    charged = await lost.retire()
    await lost.beat()
    await lost.write(open_call, 70_000, "r1")
    assert await books(database) == (charged, 0), "what it settles was charged already"
    await lost.write(another, 50_000, "r2")
    assert await books(database) == (charged, 0)
    await lost.purses.give_back(lost.purses.get(_KEY))
    assert await books(database) == (120_000, 0), "what it returns was never spent"
    await lost.write(await lost.take(880_000), 880_000, "r3")
    with pytest.raises(Refusal):
        await lost.take(1_000)
    assert await books(database) == (_CAP, 0)
    await lost.close()
    assert await books(database) == (_CAP, 0)


async def test_a_retired_process_that_leases_more_keeps_both_apart(database: Database, lost: Process) -> None:
    first = await lost.take(100_000)
    charged = await lost.retire()
    second = await lost.take(charged + 50_000)
    spent, leased = await books(database)
    assert (spent, leased) == (charged, lost.purses.get(_KEY).leased - charged)
    await lost.write(second, charged + 50_000, "r1")
    spent, leased = await books(database)
    assert spent == charged + 50_000
    await lost.write(first, 30_000, "r2")
    await lost.close()
    assert await books(database) == (charged + 80_000, 0)


async def test_the_spool_of_a_retired_process_turns_up(database: Database, lost: Process) -> None:
    hold = await lost.take(100_000)
    await lost.retire()
    await lost.write(hold, hold.size.nano, "r1")
    await lost.close()
    assert await books(database) == (100_000, 0)


async def test_after_a_power_cut_the_charge_stays(database: Database, lost: Process) -> None:
    await lost.take(100_000)
    charged = await lost.retire()
    await lost.close(charge_rest=True)
    assert await books(database) == (charged, 0)


async def test_an_answer_dearer_than_the_charge_is_written_in_full(database: Database, lost: Process) -> None:
    hold = await lost.take(100_000)
    charged = await lost.retire()
    await lost.write(hold, charged + 5_000, "r1")
    assert await books(database) == (charged + 5_000, 0)


async def test_months_long_over_are_charged_when_their_process_is_silent(
    database: Database, clock: SetClock, lost: Process
) -> None:
    hold = await lost.take(100_000)
    leased = (await books(database))[1]
    clock.move(16 * 86_400)
    await tend(database, clock.now())
    assert await books(database) == (0, leased), "December has begun, but not long ago"
    clock.move(3 * 86_400)
    await lost.beat()
    await tend(database, clock.now())
    assert await books(database) == (0, leased), "it lives, and gives it back by itself"
    clock.move(2 * 86_400)
    await tend(database, clock.now())
    assert await books(database) == (leased, 0)
    await lost.write(hold, 40_000, "r1")
    await lost.close()
    assert await books(database) == (40_000, 0)


async def test_a_month_that_ends_while_a_call_of_it_asks_for_money_gets_the_rest_back(
    database: Database, clock: SetClock, lost: Process
) -> None:
    """The database is busy at midnight: the purse at which the call waits stays, empty as it is until then."""
    async with database.transaction() as busy:
        await store.lock_account(busy, _KEY)
        taking = asyncio.ensure_future(lost.take(100_000))
        await asyncio.sleep(0)  # it asks, and is kept waiting
        clock.move(12 * 86_400)
        await lost.purses.tidy()
    hold = await taking
    assert [key.period_id for key in hold.accounts] == ["2026-12"], "it is December that pays"
    assert (await books(database))[1] > 0
    await lost.purses.tidy()
    assert await books(database) == (0, 0)


async def test_a_purse_that_is_forgotten_while_a_call_waits_for_its_rate_is_not_the_one_it_pays_from(
    clock: SetClock, lost: Process
) -> None:
    counters, budgets = LocalCounters(clock, is_shared=True), _ALLOWANCE.budgets
    allowance = Allowance(_KEY.id, (Holder("agent_key", _KEY.id, rpm=5),), budgets)

    class AtMidnight:
        """Where more of the window is to be had, while the month ends."""

        async def fill(self, holder: Holder, _tokens: int) -> None:
            counters.book_of(holder).windows["minute"].leased = 5
            clock.move(12 * 86_400)
            await lost.purses.tidy()

        async def look(self, _holder: Holder) -> None:
            return

    reserve = Reserve(clock, counters, lost.purses, AtMidnight())
    await reserve.take(allowance, Bid(100_000, 0, 0, may_shrink=False), at=clock.now())
    assert lost.purses.get(_KEY).held == 100_000


async def test_what_was_spent_before_and_after_is_told_without_what_was_charged(
    database: Database, lost: Process
) -> None:
    await lost.take(100_000)
    charged = await lost.retire()
    async with database.transaction() as tx:
        told = await charge_all(tx, lost.owner, {_KEY: Cost(charged + 10, charged + 10)})
    assert told == {_KEY: (charged, charged + 10)}


# ---- attempts after one that may have been billed ---------------------------------------------------------------


async def test_a_hold_is_extended_for_another_attempt_and_settled_once(lost: Process) -> None:
    hold = await lost.take(300_000)
    assert await lost.reserve.extend(hold)
    assert (hold.size.nano, hold.held_nano, lost.purses.get(_KEY).held) == (300_000, 600_000, 600_000)
    assert await lost.reserve.extend(hold)
    assert not await lost.reserve.extend(hold), "the budget has no room for a fourth"
    hold.settle(450_000)
    purse = lost.purses.get(_KEY)
    assert (purse.held, purse.free) == (0, purse.leased - 450_000)
    assert not await lost.reserve.extend(hold), "it is over"
    await lost.take(550_000)


async def test_an_extended_hold_that_is_undone_leaves_no_trace(lost: Process) -> None:
    hold = await lost.take(300_000)
    assert await lost.reserve.extend(hold)
    lost.reserve.undo(hold)
    purse = lost.purses.get(_KEY)
    assert (purse.held, purse.free) == (0, purse.leased)
    await lost.take(_CAP)


async def test_an_extension_never_passes_the_calls_own_cap(lost: Process) -> None:
    bid = Bid(fixed_nano=100, output_tokens=0, output_rate=0, may_shrink=False)
    hold = await lost.reserve.take(_ALLOWANCE, bid, 250)
    assert await lost.reserve.extend(hold)
    assert not await lost.reserve.extend(hold)
    assert hold.held_nano == 200


async def test_a_call_without_a_budget_is_extended_at_once(database: Database, clock: SetClock) -> None:
    process = Process(database, clock, "spool_1")
    hold = await process.reserve.take(Allowance("free"), Bid(10, 0, 0, may_shrink=False))
    assert await process.reserve.extend(hold)


# ---- how often the authority is asked ---------------------------------------------------------------------------


async def test_away_from_the_cap_a_thousand_calls_ask_five_times_at_most(
    database: Database, clock: SetClock, lost: Process
) -> None:
    four = [lost] + [await Process(database, clock, f"spool_{n}").register() for n in range(3)]
    for _ in range(250):
        for process in four:
            (await process.take(100)).settle(80)
        clock.move(0.01)
    assert sum(process.purses.top_ups for process in four) <= 5
