"""Budgets, purses and leases against the authority: SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ledger import writer
from ostiary.ledger.events import Event
from ostiary.limits import store
from ostiary.limits.budgets import AccountKey, Bid, Budget, Kind
from ostiary.limits.charge_store import Cost, charge_all
from ostiary.limits.local import Allowance, Holder, LocalCounters
from ostiary.limits.purse import Purse, Purses
from ostiary.limits.reserve import Hold, Reserve
from tests.contract.nowhere import database_away
from tests.fakes import SetClock

pytestmark = pytest.mark.anyio
_RATE = 1_000_000_000
_KEY = "key_1"


def _bid(nano: int, *, may_shrink: bool = False) -> Bid:
    """A bid that holds exactly `nano`: 1,000 nano-dollars a token."""
    return Bid(fixed_nano=0, output_tokens=nano // 1_000, output_rate=_RATE, may_shrink=may_shrink)


class Process:
    """One gateway's limits, without the gateway."""

    def __init__(self, database: Database, clock: SetClock, owner: str = "spool_a") -> None:
        self.database, self.clock, self.owner = database, clock, owner
        self.purses = Purses(database, owner, clock)
        self.reserve = Reserve(clock, LocalCounters(clock), self.purses)

    async def register(self) -> Process:
        async with self.database.transaction() as tx:
            await store.add_owner(tx, self.owner, self.owner, "test", self.clock.now())
        return self

    def allowance(self, cap: int, kind: Kind = "month", **limits: int) -> Allowance:
        budgets = (("agent_key", _KEY, Budget(kind, cap)),)
        return Allowance(_KEY, (Holder("agent_key", _KEY, **limits),), budgets)

    async def written(self, hold: Hold, cost: int, request_id: str) -> None:
        """Settle a hold and write it, as spool and writer do."""
        hold.settle(cost)
        async with self.database.transaction() as tx:
            await writer.write_events(tx, self.owner, [_event(request_id, hold, cost, self.clock.now())])


def _event(request_id: str, hold: Hold, cost: int, at: int) -> Event:
    return Event(
        request_id, 1, "orgn_1", _KEY, "a", None, "chat", "p", "m", "m", "pkey", "pk", False, at, None, {},
        hold.size.nano, hold.accounts, "v", cost, "provider", "ok", 200,
    )  # fmt: skip


async def _cap(database: Database, cap: int | None, clock: SetClock, kind: Kind = "month") -> None:
    async with database.transaction() as tx:
        await store.change_budget(tx, "agent_key", _KEY, None if cap is None else Budget(kind, cap), clock.now())


async def _account(database: Database, period: str) -> store.Account:
    async with database.read() as tx:
        return next(one for one in await store.list_accounts(tx, "agent_key", _KEY) if one.period_id == period)


async def _given_back(database: Database, tidying: asyncio.Future[None], period: str) -> None:
    """Wait until nothing of the period is leased any more."""
    async with asyncio.timeout(30):
        while (await _account(database, period)).leased_nano:
            assert not tidying.done()
            await asyncio.sleep(0.01)


async def test_holds_settle_to_the_true_cost_and_the_rest_comes_back(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    allowance = process.allowance(1_000_000)
    hold = await process.reserve.take(allowance, _bid(400_000))
    await process.written(hold, 100_000, "r1")
    await process.written(await process.reserve.take(allowance, _bid(900_000)), 900_000, "r2")
    with pytest.raises(Refusal) as refused:
        await process.reserve.take(allowance, _bid(1_000))
    assert refused.value.code == "budget_exceeded"
    assert refused.value.details["retryable"] is False
    assert bytes(refused.value.details["spent_usd"]) == b"0.001"
    account = await _account(database, "2026-11")
    assert (account.spent_nano, account.leased_nano) == (1_000_000, 0)
    assert (await _account(database, "total")).spent_nano == 1_000_000


async def test_many_processes_at_once_never_pass_the_cap(database: Database) -> None:
    clock = SetClock()
    cap, cost = 1_000_000, 30_000
    await _cap(database, cap, clock)
    processes = [await Process(database, clock, f"spool_{n}").register() for n in range(4)]
    held: list[int] = []

    async def call(process: Process, number: int) -> None:
        try:
            hold = await process.reserve.take(process.allowance(cap), _bid(cost))
        except Refusal:
            return
        held.append(number)
        await asyncio.sleep(0.001)
        await process.written(hold, cost, f"r{number}")

    await asyncio.gather(*(call(processes[n % 4], n) for n in range(80)))
    account = await _account(database, "2026-11")
    assert account.spent_nano == len(held) * cost
    assert account.spent_nano + account.leased_nano <= cap
    assert len(held) >= cap // cost * 0.9


async def test_waits_in_order_behind_open_holds_and_is_served_when_they_settle(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 100_000, clock)
    allowance = process.allowance(100_000)
    first = await process.reserve.take(allowance, _bid(100_000))
    served: list[int] = []

    async def wait(number: int) -> None:
        hold = await process.reserve.take(allowance, _bid(40_000))
        served.append(number)
        hold.settle(40_000)

    waiting = [asyncio.ensure_future(wait(number)) for number in (1, 2)]
    await asyncio.sleep(0.05)
    assert served == []
    first.settle(10_000)
    await asyncio.gather(*waiting)
    assert served == [1, 2]


async def test_a_hold_in_the_way_is_retryable_and_spend_is_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.limits.reserve._PATIENCE_S", 0.05)
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 100_000, clock)
    allowance = process.allowance(100_000)
    hold = await process.reserve.take(allowance, _bid(80_000))
    with pytest.raises(Refusal) as refused:
        await process.reserve.take(allowance, _bid(50_000))
    assert refused.value.details["retryable"] is True
    assert bytes(refused.value.details["held_usd"]) == b"0.00008"
    with pytest.raises(Refusal) as refused:
        await process.reserve.take(allowance, _bid(101_000))
    assert refused.value.details["retryable"] is False, "no settlement can make room for that"
    hold.settle(0)


async def test_a_refusal_consumes_nothing(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 100_000, clock)
    allowance = process.allowance(100_000, rpm=2, rpd=2)
    for _ in range(5):
        with pytest.raises(Refusal, match="budget"):
            await process.reserve.take(allowance, _bid(200_000))
    for _ in range(2):
        process.reserve.undo(await process.reserve.take(allowance, _bid(100_000)))
    for number in range(2):
        await process.written(await process.reserve.take(allowance, _bid(10_000)), 10_000, f"r{number}")
    with pytest.raises(Refusal, match=r"3/2 requests per minute"):
        await process.reserve.take(allowance, _bid(10_000))
    clock.move(61)
    with pytest.raises(Refusal, match=r"3/2 requests per day"):
        await process.reserve.take(allowance, _bid(10_000))


async def test_a_cap_lowered_in_flight_binds_the_next_call(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    hold = await process.reserve.take(process.allowance(1_000_000), _bid(100_000))
    await _cap(database, 150_000, clock)
    process.purses.mark_changed("agent_key", _KEY)
    await process.written(hold, 100_000, "r1")
    with pytest.raises(Refusal):
        await process.reserve.take(process.allowance(150_000), _bid(60_000))
    await process.written(await process.reserve.take(process.allowance(150_000), _bid(50_000)), 50_000, "r2")
    account = await _account(database, "2026-11")
    assert (account.spent_nano, account.leased_nano) == (150_000, 0)


async def test_an_attempt_after_the_cap_was_lowered_finds_it_lowered(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    hold = await process.reserve.take(process.allowance(1_000_000), _bid(10_000))
    purse = process.purses.get(AccountKey("agent_key", _KEY, "2026-11"))
    assert purse.free > 10_000
    await _cap(database, 15_000, clock)
    process.purses.mark_changed("agent_key", _KEY)
    assert await process.reserve.extend(hold) is False
    assert (purse.free, purse.room, purse.leased) == (5_000, 0, 15_000)


async def test_what_goes_back_to_a_lowered_cap_is_nobodys_meanwhile(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that takes it while the authority is being told would spend it above the cap."""
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    hold = await process.reserve.take(process.allowance(1_000_000), _bid(10_000))
    purse = process.purses.get(AccountKey("agent_key", _KEY, "2026-11"))
    seen = []
    change = store.change_lease

    async def watched(tx: Transaction, owner: str, account: store.Account, known_nano: int, by_nano: int) -> bool:
        seen.append((by_nano < 0, purse.free))
        return await change(tx, owner, account, known_nano, by_nano)

    monkeypatch.setattr(store, "change_lease", watched)
    await _cap(database, 12_000, clock)
    await process.purses.top_up(purse, 1_000)
    assert seen == [(True, 2_000)]
    assert (purse.free, purse.room) == (2_000, 0)
    await process.written(hold, 10_000, "r1")
    account = await _account(database, "2026-11")
    assert account.spent_nano + account.leased_nano == 12_000


async def test_a_cap_raised_or_added_mid_month_knows_what_was_spent(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    free = Allowance(_KEY)
    await process.written(await process.reserve.take(free, _bid(70_000)), 70_000, "r1")
    await _cap(database, 100_000, clock)
    with pytest.raises(Refusal):
        await process.reserve.take(process.allowance(100_000), _bid(40_000))
    await _cap(database, 200_000, clock)
    process.purses.mark_changed("agent_key", _KEY)
    await process.reserve.take(process.allowance(200_000), _bid(130_000))


async def test_an_answer_dearer_than_its_hold_is_written_in_full_and_the_next_is_refused(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 100_000, clock)
    allowance = process.allowance(100_000)
    await process.written(await process.reserve.take(allowance, _bid(90_000)), 120_000, "r1")
    account = await _account(database, "2026-11")
    assert (account.spent_nano, account.leased_nano) == (120_000, 0)
    with pytest.raises(Refusal):
        await process.reserve.take(allowance, _bid(1_000))


async def test_a_new_month_is_a_new_account(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 100_000, clock)
    allowance = process.allowance(100_000)
    late = await process.reserve.take(allowance, _bid(100_000))
    clock.move(11 * 86_400)
    await process.written(await process.reserve.take(allowance, _bid(100_000)), 100_000, "r2")
    late.settle(30_000)
    async with database.transaction() as tx:
        await writer.write_events(tx, process.owner, [_event("r1", late, 30_000, clock.now() - 11 * 86_400_000)])
    assert (await _account(database, "2026-11")).spent_nano == 30_000
    assert (await _account(database, "2026-12")).spent_nano == 100_000
    assert (await _account(database, "total")).spent_nano == 130_000


async def test_the_same_events_twice_count_once(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    hold = await process.reserve.take(process.allowance(1_000_000), _bid(100_000))
    old, new = _event("r1", hold, 60_000, clock.now()), _event("r2", hold, 40_000, clock.now())
    for batch in ([old], [old, new], [new, old]):
        async with database.transaction() as tx:
            await writer.write_events(tx, process.owner, batch)
    assert (await _account(database, "2026-11")).spent_nano == 100_000


async def test_closing_an_owner_returns_what_it_did_not_use(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    await process.written(await process.reserve.take(process.allowance(1_000_000), _bid(100_000)), 60_000, "r1")
    assert (await _account(database, "2026-11")).leased_nano > 0
    async with database.transaction() as tx:
        await writer.close_leases(tx, process.owner, clock.now(), charge_rest=False)
    account = await _account(database, "2026-11")
    assert (account.spent_nano, account.leased_nano) == (60_000, 0)


async def test_a_lease_whose_owner_may_have_forgotten_is_charged(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    await process.reserve.take(process.allowance(1_000_000), _bid(100_000))
    leased = (await _account(database, "2026-11")).leased_nano
    async with database.transaction() as tx:
        await writer.close_leases(tx, process.owner, clock.now(), charge_rest=True)
    account = await _account(database, "2026-11")
    assert (account.spent_nano, account.leased_nano) == (leased, 0)


async def test_a_top_up_of_unknown_outcome_is_read_again(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    key = AccountKey("agent_key", _KEY, "2026-11")
    async with database.transaction() as tx:  # committed, but the answer never came
        account = await store.lock_account(tx, key)
        assert await store.change_lease(tx, process.owner, account, 0, 300_000)
    hold = await process.reserve.take(process.allowance(1_000_000), _bid(200_000))
    purse = process.purses.get(key)
    assert purse.leased == (await _account(database, "2026-11")).leased_nano
    await process.written(hold, 200_000, "r1")
    await process.reserve.take(process.allowance(1_000_000), _bid(800_000))


async def test_a_top_up_of_unknown_outcome_comes_back_when_nobody_calls_any_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)

    @contextlib.asynccontextmanager
    async def cut_off() -> AsyncIterator[Transaction]:
        async with Database.transaction(database) as tx:
            yield tx
        monkeypatch.undo()
        raise Refusal("service_unavailable", "It committed, and the connection was lost before it could say so.")

    monkeypatch.setattr(database, "transaction", cut_off)
    with pytest.raises(Refusal, match="It committed"):
        await process.reserve.take(process.allowance(1_000_000), _bid(200_000))
    assert (await _account(database, "2026-11")).leased_nano > 200_000
    await process.purses.tidy()
    assert (await _account(database, "2026-11")).leased_nano == 0
    hold = await process.reserve.take(process.allowance(1_000_000), _bid(1_000_000))
    await process.written(hold, 1_000_000, "r1")
    account = await _account(database, "2026-11")
    assert (account.spent_nano, account.leased_nano) == (1_000_000, 0)


async def test_a_free_model_passes_over_a_spent_budget(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000, clock)
    hold = await process.reserve.take(process.allowance(1_000), Bid(0, 100, 0, may_shrink=False))
    assert hold.accounts == ()


async def test_a_calls_own_cap_shrinks_or_refuses(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    hold = await process.reserve.take(Allowance(_KEY), _bid(1_000_000, may_shrink=True), 100_000)
    assert (hold.size.nano, hold.size.shrunk) == (100_000, True)
    with pytest.raises(Refusal) as refused:
        await process.reserve.take(Allowance(_KEY), _bid(1_000_000), 100_000)
    assert refused.value.details["scope"] == "call"


async def test_a_caller_who_gives_up_while_the_purse_is_filled_leaves_it_right(database: Database) -> None:
    """Whatever the moment: the database stays free for others, and what was leased is known."""
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 10_000_000, clock)
    allowance = process.allowance(10_000_000)
    key = AccountKey("agent_key", _KEY, "2026-11")
    for step in range(40):
        calling = asyncio.ensure_future(process.reserve.take(allowance, _bid(240_000)))
        await asyncio.sleep(step / 10_000)
        calling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            (await calling).settle(0)
    hold = await process.reserve.take(allowance, _bid(1_000_000))
    purse = process.purses.get(key)
    assert purse.held == 1_000_000
    assert purse.leased == (await _account(database, "2026-11")).leased_nano == purse.free + purse.held
    hold.settle(0)


async def test_an_idle_purse_is_given_back_for_others(database: Database) -> None:
    clock = SetClock()
    one = await Process(database, clock, "spool_1").register()
    await _cap(database, 1_000_000, clock)
    await one.written(await one.reserve.take(one.allowance(1_000_000), _bid(10_000)), 10_000, "r1")
    tidying = asyncio.ensure_future(one.purses.run())
    clock.move(5)
    await _given_back(database, tidying, "2026-11")
    tidying.cancel()
    await one.reserve.take(one.allowance(1_000_000), _bid(990_000))


async def test_who_may_not_wait_leases_more_where_there_is_room(database: Database) -> None:
    """Else a key that is not the last to be tried would be passed over once its first lease is used up."""
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    allowance = process.allowance(1_000_000)
    for number in range(100):
        hold = await process.reserve.take(allowance, _bid(10_000), may_wait=False)
        await process.written(hold, 10_000, f"r{number}")
    with pytest.raises(Refusal, match="than is left"):
        await process.reserve.take(allowance, _bid(10_000), may_wait=False)


async def test_who_may_not_wait_does_without_what_cannot_be_asked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database is away another key may serve them; and it is not asked for at every call."""
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    allowance = process.allowance(1_000_000)
    await process.reserve.take(allowance, _bid(200_000), may_wait=False)
    asked = _asked(process, monkeypatch)
    async with database_away() as away:
        process.purses._database = away
        for _ in range(20):
            with pytest.raises(Refusal, match="budget"):
                await process.reserve.take(allowance, _bid(100_000), may_wait=False)
        assert asked == [100_000]
        with pytest.raises(Refusal, match="database"):
            await process.reserve.take(allowance, _bid(100_000))
    process.purses._database = database
    clock.move(1)
    await process.reserve.take(allowance, _bid(100_000), may_wait=False)


def _asked(process: Process, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the authority is asked for from now on."""
    asked: list[int] = []
    top_up = process.purses.top_up

    async def noted(purse: Purse, need_nano: int) -> None:
        asked.append(need_nano)
        await top_up(purse, need_nano)

    monkeypatch.setattr(process.purses, "top_up", noted)
    return asked


async def test_who_may_not_wait_asks_nobody_for_what_is_spent(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are used up till the end of the day cost those behind them nothing."""
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 100_000, clock)
    allowance = process.allowance(100_000)
    await process.written(await process.reserve.take(allowance, _bid(100_000)), 100_000, "r1")
    with pytest.raises(Refusal, match="than is left"):
        await process.reserve.take(allowance, _bid(10_000), may_wait=False)
    asked = _asked(process, monkeypatch)
    for _ in range(3):
        clock.move(1)
        with pytest.raises(Refusal, match="than is left"):
            await process.reserve.take(allowance, _bid(10_000), may_wait=False)
    assert asked == []


async def test_who_may_not_wait_hears_of_what_others_gave_back(database: Database) -> None:
    clock, cap = SetClock(), 1_000_000
    await _cap(database, cap, clock)
    one, other = [await Process(database, clock, name).register() for name in ("spool_1", "spool_2")]
    theirs = await other.reserve.take(other.allowance(cap), _bid(cap))
    with pytest.raises(Refusal, match="open calls hold the rest"):
        await one.reserve.take(one.allowance(cap), _bid(10_000), may_wait=False)
    async with database_away() as away:
        one.purses._database = away
        for _ in range(20):  # and all who come at once ask once
            with pytest.raises(Refusal, match="open calls hold the rest"):
                await one.reserve.take(one.allowance(cap), _bid(10_000), may_wait=False)
    one.purses._database = database
    theirs.settle(0)
    clock.move(2)
    await other.purses.tidy()
    (await one.reserve.take(one.allowance(cap), _bid(10_000), may_wait=False)).settle(0)


async def _rests(database: Database, *rests: int) -> tuple[list[Process], int]:
    """Processes with so much of a budget each, of which nothing else is left; and what it is."""
    clock, cap = SetClock(), 1_000_000
    await _cap(database, cap, clock)
    found = [await Process(database, clock, f"spool_{number}").register() for number in range(len(rests))]
    for process, rest in zip(found, rests, strict=True):
        (await process.reserve.take(process.allowance(cap), _bid(rest))).settle(0)
    last = await Process(database, clock, "spool_last").register()
    left = (await _account(database, "2026-11")).room_nano
    await last.written(await last.reserve.take(last.allowance(cap), _bid(left)), left, "r1")
    return found, cap


async def test_rests_too_small_for_a_call_at_each_process_do_for_one_together(database: Database) -> None:
    """Though calls are waiting at both, so that neither is idle."""
    both, cap = await _rests(database, 300_000, 350_000)
    calling = [process.reserve.take(process.allowance(cap), _bid(600_000)) for process in both]
    came = await asyncio.gather(*calling, return_exceptions=True)
    assert {type(one) for one in came} == {Hold, Refusal}, came


async def test_a_rest_does_not_stay_where_it_is_asked_for_in_vain(database: Database) -> None:
    """Who calls again and again for more than there is keeps nothing from others who need less."""
    (one, other), cap = await _rests(database, 300_000, 350_000)
    for _ in range(2):
        with pytest.raises(Refusal, match="than is left"):
            await one.reserve.take(one.allowance(cap), _bid(900_000))
        one.clock.move(0.9)
    await one.purses.tidy()
    (await other.reserve.take(other.allowance(cap), _bid(600_000))).settle(0)


async def test_a_budget_edited_while_a_month_is_closed_ends_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a month that is over, and of which nothing is leased any more, nothing is left to be told."""
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    allowance = process.allowance(1_000_000)
    (await process.reserve.take(allowance, _bid(10_000))).settle(0)
    process.purses.get(AccountKey("agent_key", "key_2", "2026-11"))
    change_lease = store.change_lease

    async def edited(*args: Any) -> bool:
        process.purses.mark_changed("agent_key", "key_2")
        return await change_lease(*args)

    monkeypatch.setattr(store, "change_lease", edited)
    monkeypatch.setattr("ostiary.limits.purse._TIDY_S", 0.01)
    clock.move(11 * 86_400)
    tidying = asyncio.ensure_future(process.purses.run())
    await _given_back(database, tidying, "2026-11")
    (await process.reserve.take(allowance, _bid(10_000))).settle(0)
    clock.move(5)
    await _given_back(database, tidying, "2026-12")
    tidying.cancel()


async def test_a_later_attempt_is_paid_by_the_month_of_the_hold(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 1_000_000, clock)
    hold = await process.reserve.take(process.allowance(1_000_000), _bid(500_000))
    clock.move(11 * 86_400)
    event = _event("r1", hold, 400_000, clock.now())
    event.attempt, event.held_at = 2, hold.at
    hold.settle(400_000)
    async with database.transaction() as tx:
        await writer.write_events(tx, process.owner, [event])
        await writer.close_leases(tx, process.owner, clock.now(), charge_rest=False)
    november = await _account(database, "2026-11")
    assert (november.spent_nano, november.leased_nano) == (400_000, 0)


async def test_a_key_and_its_organization_agree_on_the_size_of_a_hold(database: Database) -> None:
    """What a quarter of one budget affords alone is less than all of the smaller one: they are asked together."""
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 300_000, clock)
    async with database.transaction() as tx:
        await store.change_budget(tx, "organization", "orgn_1", Budget("month", 255_000), clock.now())
    budgets = (("agent_key", _KEY, Budget("month", 300_000)), ("organization", "orgn_1", Budget("month", 255_000)))
    taking = process.reserve.take(Allowance(_KEY, (), budgets), _bid(1_000_000, may_shrink=True))
    hold = await asyncio.wait_for(taking, 10)
    assert (hold.size.nano, hold.size.shrunk) == (255_000, True)
    with pytest.raises(Refusal) as refused:
        await process.reserve.take(Allowance(_KEY, (), budgets), _bid(100_000))
    assert refused.value.details["scope"] == "agent_key", "the first in the way"
    hold.settle(255_000)
    with pytest.raises(Refusal) as refused:
        await process.reserve.take(Allowance(_KEY, (), budgets), _bid(40_000))
    assert (refused.value.details["scope"], refused.value.details["retryable"]) == ("organization", False)
    assert process.purses.get(AccountKey("agent_key", _KEY, "2026-11")).held == 0, "nothing was taken of the other"


async def test_a_budget_keeps_its_soft_limit_and_thresholds(database: Database) -> None:
    clock = SetClock()
    budgets = (
        Budget("month", 5_000, soft_nano=4_000, thresholds=(10, 90)),
        Budget("total", None, soft_nano=4_000),
        Budget("total", 7_000, thresholds=()),
    )
    for budget in budgets:
        async with database.transaction() as tx:
            await store.change_budget(tx, "agent_key", _KEY, budget, clock.now())
            assert await store.find_budget(tx, "agent_key", _KEY) == budget
        total = budget.cap_nano if budget.kind == "total" else None
        assert (await _account(database, "total")).cap_nano == total
        assert (await _account(database, "2026-11")).cap_nano == (None if budget.kind == "total" else budget.cap_nano)
    async with database.transaction() as tx:
        await store.change_budget(tx, "agent_key", _KEY, None, clock.now())
        assert await store.find_budget(tx, "agent_key", _KEY) is None
    assert (await _account(database, "total")).cap_nano is None


async def test_a_soft_budget_holds_nothing(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    async with database.transaction() as tx:
        await store.change_budget(tx, "agent_key", _KEY, Budget("month", None, soft_nano=10), clock.now())
    allowance = Allowance(_KEY, (), (("agent_key", _KEY, Budget("month", None, soft_nano=10)),))
    assert allowance.budgets == ()
    assert (await process.reserve.take(allowance, _bid(1_000_000))).accounts == ()


async def test_what_was_spent_is_told_before_and_after(database: Database) -> None:
    key, other = AccountKey("agent_key", _KEY, "2026-11"), AccountKey("organization", "orgn_1", "total")
    async with database.transaction() as tx:
        assert await charge_all(tx, "spool_a", {key: Cost(30), other: Cost(0)}) == {key: (0, 30)}
        assert await charge_all(tx, "spool_a", {other: Cost(5), key: Cost(12)}) == {key: (30, 42), other: (0, 5)}


async def test_a_spent_budget_that_is_hammered_does_not_hammer_the_database(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    await _cap(database, 100_000, clock)
    allowance = process.allowance(100_000)
    await process.written(await process.reserve.take(allowance, _bid(90_000)), 90_000, "r1")
    with pytest.raises(Refusal):
        await process.reserve.take(allowance, _bid(20_000))
    async with database_away() as away:
        process.purses._database = away
        for _ in range(50):
            with pytest.raises(Refusal, match="budget"):
                await process.reserve.take(allowance, _bid(20_000))
        clock.move(1)
        with pytest.raises(Refusal, match="database"):
            await process.reserve.take(allowance, _bid(20_000))
    process.purses._database = database
    await process.written(await process.reserve.take(allowance, _bid(10_000)), 10_000, "r2")
