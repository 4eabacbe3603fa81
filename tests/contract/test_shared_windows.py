"""Rates, tokens, slots and days that several processes share: never above the limit together, and nothing wasted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import insert, update

from ostiary.db import schema
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ledger import writer
from ostiary.ledger.events import Event
from ostiary.limits import store, window_store
from ostiary.limits.budgets import Bid
from ostiary.limits.local import Allowance, Holder, LocalCounters
from ostiary.limits.onlook import Onlooker
from ostiary.limits.purse import Purses
from ostiary.limits.ration import Rations
from ostiary.limits.reserve import Hold, Reserve
from tests.contract.nowhere import database_away
from tests.fakes import SetClock

pytestmark = pytest.mark.anyio
_DAY_S = 86_400
_KEY, _ORG = "key_1", "orgn_1"


class World:
    """A key and its organization in a database, and processes that share their limits."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = SetClock()
        self.limits: dict[str, dict[str, int]] = {"agent_key": {}, "organization": {}}
        self.number = 0

    async def open(self, *, organization: dict[str, int] | None = None, **wished: int | None) -> World:
        """Rows whose limits the authority reads: of the key, and of its organization."""
        at = self.clock.now()
        limits = {name: limit for name, limit in wished.items() if limit is not None}
        self.limits = {"agent_key": limits, "organization": organization or {}}
        chosen = {"models_mode": "all", "providers_mode": "all", "addresses_mode": "all"}
        lists: dict[str, Any] = {name: [] for name in ("scopes", "models", "providers", "addresses")}
        async with self.database.transaction() as tx:
            await tx.execute(
                insert(schema.organizations).values(
                    id=_ORG, client_id="org_1", name="Home", created_at=at, **self.limits["organization"]
                )
            )
            await tx.execute(
                insert(schema.agent_keys).values(
                    id=_KEY, organization_id=_ORG, name="k", status="active", free_only=False, metadata={},
                    created_at=at, updated_at=at, **chosen, **lists, **limits,
                )
            )  # fmt: skip
        return self

    async def change(self, **limits: int | None) -> None:
        """Edit the key's limits; processes are told by `Process.hear`."""
        async with self.database.transaction() as tx:
            await tx.execute(update(schema.agent_keys).where(schema.agent_keys.c.id == _KEY).values(**limits))
        kept = {**self.limits["agent_key"], **limits}
        self.limits["agent_key"] = {name: limit for name, limit in kept.items() if limit is not None}

    async def process(self, owner: str = "a") -> Process:
        """Start one more."""
        made = Process(self, f"spool_{owner}")
        async with self.database.transaction() as tx:
            await store.add_owner(tx, made.owner, owner, "test", self.clock.now())
        return made

    async def leased(self, window: str) -> dict[str, int]:
        """What stands in the authority, by owner."""
        async with self.database.read() as tx:
            rows = await window_store.list_leases(tx, "agent_key", _KEY, self.clock.now())
        return {row.owner: row.amount for row in rows if row.window.startswith(window)}

    def move(self, seconds: float) -> None:
        self.clock.move(seconds)

    async def live(self, seconds: float, *processes: Process) -> None:
        """Let time pass as it does: everybody is heard of now and then."""
        while seconds > 0:
            step = min(seconds, 20)
            self.move(step)
            for process in processes:
                await process.beat()
            seconds -= step


class Process:
    """One gateway's limits, without the gateway; `served` are the holds it gave."""

    def __init__(self, world: World, owner: str) -> None:
        self.world, self.owner = world, owner
        self.counters = LocalCounters(world.clock, is_shared=True)
        self.rations = Rations(world.database, self.counters, owner, world.clock)
        purses = Purses(world.database, owner, world.clock)
        self.reserve = Reserve(world.clock, self.counters, purses, self.rations)
        self.served: list[Hold] = []
        self.hear()

    def hear(self) -> None:
        """The directory has read the limits again."""
        limits = self.world.limits
        holders = (
            Holder("agent_key", _KEY, **limits["agent_key"]),
            Holder("organization", _ORG, **limits["organization"]),
        )
        self.allowance = Allowance(_KEY, holders)
        self.rations.mark_changed(_KEY)

    async def call(self, tokens: int = 0) -> str:
        """Take a hold; the answer is `ok` or the code of the refusal."""
        try:
            self.served.append(await self.reserve.take(self.allowance, Bid(0, 1, 0, may_shrink=False, tokens=tokens)))
        except Refusal as refusal:
            return refusal.code
        return "ok"

    async def calls(self, count: int, tokens: int = 0) -> int:
        """How many of so many were served."""
        return [await self.call(tokens) for _ in range(count)].count("ok")

    async def refusal(self, tokens: int = 0) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await self.reserve.take(self.allowance, Bid(0, 1, 0, may_shrink=False, tokens=tokens))
        return caught.value

    async def beat(self) -> None:
        """What the writer does every few seconds, and then what the tidying does."""
        async with self.world.database.transaction() as tx:
            await store.mark_owner(tx, self.owner, self.world.clock.now())
        await self.tidy()

    async def tidy(self) -> None:
        await self.rations._tidy()

    async def write(self, tokens: int = 0) -> None:
        """All that was served is settled and in the ledger."""
        for hold in self.served:
            hold.settle(0)
        at = self.world.clock.now()
        events = [_event(f"{self.owner}{number}", at, tokens) for number in range(len(self.served))]
        async with self.world.database.transaction() as tx:
            await writer.write_events(tx, self.owner, events)

    async def stop(self) -> None:
        """End as a process does that was told to."""
        await self.write()
        await self.rations.close()
        await self.adopted()

    async def adopted(self) -> None:
        """What becomes of a process that is no more."""
        async with self.world.database.transaction() as tx:
            await writer.close_leases(tx, self.owner, self.world.clock.now(), charge_rest=False)


def _event(request_id: str, at: int, tokens: int) -> Event:
    return Event(
        request_id, 1, _ORG, _KEY, "k", None, "chat", "p", "m", "m", "pkey", "pk", False, at, None, {},
        0, (), "v", 0, "provider", "ok", 200, input_tokens=tokens,
    )  # fmt: skip


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


async def test_one_process_alone_has_the_whole_limit_and_asks_once(world: World) -> None:
    one = await (await world.open(rpm=5)).process()
    assert await one.calls(8) == 5
    assert one.rations.state.asked == 1
    refusal = await one.refusal()
    assert (refusal.code, refusal.status, refusal.details["limit"]) == ("rate_limit_exceeded", 429, 5)
    assert refusal.message == "Rate limit exceeded: 6/5 requests per minute. Try again in 60 s."
    assert refusal.headers == ((b"retry-after", b"60"),)
    world.move(59)
    assert await one.calls(1) == 0
    world.move(1)
    assert await one.calls(8) == 5
    assert one.rations.state.asked == 1


async def test_two_processes_never_pass_the_limit_and_use_all_of_it(world: World) -> None:
    one = await (await world.open(rpm=10)).process("a")
    assert await one.calls(2) == 2
    two = await world.process("b")
    assert await two.call() == "rate_limit_exceeded", "the first has it all"
    assert (await two.refusal()).details["retry_after_s"] <= 2
    await one.beat()
    assert sum((await world.leased("minute")).values()) <= 10
    world.move(1)
    assert await two.calls(9) >= 3, "a fair share has come back"
    world.move(1)
    total = len(one.served) + len(two.served) + await one.calls(9) + await two.calls(9)
    assert total == 10
    assert sum((await world.leased("minute")).values()) == 10


async def test_four_processes_hammered_at_once_stay_below_in_every_minute(world: World) -> None:
    await world.open(rpm=60)
    four = [await world.process(name) for name in "abcd"]
    taken: list[float] = []
    for _ in range(30):
        for process in four:
            taken += [world.clock.monotonic()] * await process.calls(8)
        await world.live(5, *four)
    for moment in taken:
        assert sum(moment - 60 < one <= moment for one in taken) <= 60
    assert len(taken) >= 150, "two and a half minutes of sixty each"


async def test_a_hammered_limit_does_not_hammer_the_database(world: World) -> None:
    one = await (await world.open(rpm=4)).process("a")
    two = await world.process("b")
    await one.calls(4)
    await two.calls(4)
    asked = two.rations.state.asked
    assert await two.calls(500) == 0
    assert two.rations.state.asked - asked <= 1


async def test_a_restart_does_not_begin_the_minute_anew(world: World) -> None:
    one = await (await world.open(rpm=10)).process("a")
    assert await one.calls(4) == 4
    await one.stop()
    two = await world.process("b")
    assert await two.calls(10) == 6
    await world.live(61, two)
    assert await two.calls(20) == 10


@pytest.mark.parametrize("limit", ["rpm", "rpd"])
async def test_after_a_crash_the_ledger_says_what_was_taken(world: World, limit: str) -> None:
    await world.open(rpm=10 if limit == "rpm" else None, rpd=10 if limit == "rpd" else None)
    one = await world.process("a")
    assert await one.calls(4) == 4
    await one.write()
    await one.adopted()
    two = await world.process("b")
    assert await two.calls(10) == 6


async def test_after_a_crash_tokens_are_what_was_used_and_slots_are_free(world: World) -> None:
    one = await (await world.open(tpm=1_000, parallel=2)).process("a")
    assert await one.calls(2, tokens=400) == 2
    await one.write(tokens=300)
    one.served.clear()
    await one.calls(1, tokens=100)
    await one.adopted()
    two = await world.process("b")
    assert (await two.refusal(tokens=500)).code == "token_limit_exceeded"
    assert await two.call(tokens=400) == "ok"


async def test_what_died_unwritten_and_silent_is_shared_out_after_two_minutes(world: World) -> None:
    one = await (await world.open(rpm=10, parallel=10)).process("a")
    assert await one.calls(4) == 4
    two = await world.process("b")
    await two.tidy()
    for _ in range(12):
        await world.live(10, two)
        assert await two.calls(1) == 0
    await world.live(1, two)
    assert await two.calls(20) == 10


async def test_of_a_day_what_a_silent_process_wrote_stays_counted(world: World) -> None:
    one = await (await world.open(rpd=10)).process("a")
    assert await one.calls(4) == 4
    await one.write()
    two = await world.process("b")
    await two.tidy()
    await world.live(130, two)
    assert await two.calls(3) == 3
    await world.live(40, one, two)
    assert await one.calls(20) + await two.calls(20) == 3


async def test_a_stalled_process_that_wakes_asks_anew(world: World) -> None:
    one = await (await world.open(rpm=10)).process("a")
    assert await one.calls(1) == 1
    two = await world.process("b")
    await two.tidy()
    await world.live(130, two)
    assert await two.calls(20) == 10
    assert one.rations.state.is_sure is False
    assert await one.call() == "rate_limit_exceeded", "it asks anew, and the other has it all"
    assert (one.rations.state.is_sure, one.rations.state.live) == (True, 2)
    await world.live(61, one, two)
    assert await one.calls(20) + await two.calls(20) == 10


async def test_a_day_is_exact_over_processes_and_restarts(world: World) -> None:
    await world.open(rpd=20)
    three = [await world.process(name) for name in "abc"]
    assert [await process.calls(3) for process in three] == [3, 3, 3]
    await three[0].stop()
    await three[1].write()
    await three[1].adopted()
    four = await world.process("d")
    world.move(1)
    served = 9
    for _ in range(8):
        for process in (three[2], four):
            served += await process.calls(1)
        await world.live(1, three[2], four)
    assert served == 20
    refusal = await four.refusal()
    assert refusal.code == "daily_rate_limit_exceeded"
    assert "21/20 requests per day" in refusal.message
    assert 1 <= refusal.details["retry_after_s"] <= _DAY_S
    world.move(_DAY_S)
    await world.live(40, four)
    assert await four.calls(1) == 1


async def test_a_daily_limit_set_at_noon_knows_the_morning(world: World) -> None:
    one = await (await world.open()).process("a")
    await one.calls(7)
    await one.write()
    one.served.clear()
    await world.change(rpd=10)
    one.hear()
    assert await one.calls(10) == 3
    await world.change(rpd=None)
    one.hear()
    assert await one.calls(5) == 5
    two = await world.process("b")
    await world.change(rpd=12)
    one.hear()
    two.hear()
    assert await two.calls(10) == 2, "what was not limited and is not written yet is not known"


async def test_an_organizations_day_counts_what_its_keys_did(world: World) -> None:
    one = await (await world.open()).process("a")
    await one.calls(4)
    await one.write()
    async with world.database.transaction() as tx:
        await tx.execute(update(schema.organizations).values(rpd=6))
    world.limits["organization"] = {"rpd": 6}
    two = await world.process("b")
    assert await two.calls(10) == 2
    refusal = await two.refusal()
    assert (refusal.code, refusal.details["scope"]) == ("daily_rate_limit_exceeded", "organization")
    assert "7/6 requests per day of the organization" in refusal.message


async def test_a_clock_set_to_tomorrow_and_back_gives_no_second_day(world: World) -> None:
    one = await (await world.open(rpd=10)).process("a")
    assert await one.calls(4) == 4
    world.clock.at += 6 * 3_600_000
    assert await one.calls(3) == 3
    world.clock.at -= 6 * 3_600_000
    assert await one.calls(20) == 7, "it goes on in the day that it has begun"
    world.clock.at += 6 * 3_600_000
    assert await one.calls(20) == 0


async def test_midnight_while_asking_gives_nothing_of_yesterday_to_today(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.open(rpd=10)
    two = [await world.process(name) for name in "ab"]
    put_lease, is_first = window_store.put_lease, True

    async def pass_midnight(*args: Any) -> None:
        nonlocal is_first
        await put_lease(*args)
        if is_first:
            is_first = False
            world.clock.at += _DAY_S * 1000
            book = two[0].counters.books[_KEY]
            book.windows["day"].used(0, world.clock.now() // (_DAY_S * 1000))  # as the next call looks at it

    monkeypatch.setattr(window_store, "put_lease", pass_midnight)
    assert await two[0].calls(1) == 1, "asked again for the day it was answered in"
    await two[0].write()
    served = 1
    for _ in range(12):
        for process in reversed(two):
            served += await process.calls(1)
        await world.live(1, *two)
    assert served == 10


async def test_a_call_that_is_let_in_after_it_has_asked_over_midnight_is_one_of_the_new_day(world: World) -> None:
    two = [await (await world.open(rpd=4)).process("a"), await world.process("b")]
    for process in two:
        await process.tidy()
    assert await two[0].calls(4) == 4
    midnight = (world.clock.at // (_DAY_S * 1000) + 1) * _DAY_S * 1000
    world.clock.at = midnight - 1
    async with two[1].counters.book_of(two[1].allowance.holders[0]).asking:
        asking = asyncio.create_task(two[1].call())
        await asyncio.sleep(0)
        world.clock.at = midnight
    assert await asking == "ok"
    assert two[1].served[0].at == midnight, "the ledger counts it where the windows do"


async def test_slots_are_shared_and_come_back_once(world: World) -> None:
    one = await (await world.open(parallel=3)).process("a")
    two = await world.process("b")
    assert await one.calls(2) == 2
    await one.beat()
    world.move(1)
    assert await two.calls(5) == 1
    assert (await two.refusal()).message == "Too many requests in parallel: 4/3. Try again in 1 s."
    one.served[0].settle(0)
    one.served[0].settle(0)
    one.reserve.undo(one.served[0])
    assert await one.calls(5) == 1, "a slot is free once, however often the call is ended"
    for hold in one.served:
        hold.settle(0)
    await world.live(100, one, two)
    assert await two.calls(5) == 2, "what lies idle comes to where it is asked for"


async def test_tokens_are_shared_at_their_estimate_and_trued_up(world: World) -> None:
    one = await (await world.open(tpm=1_000)).process("a")
    assert await one.call(tokens=600) == "ok"
    refusal = await one.refusal(tokens=600)
    assert refusal.code == "token_limit_exceeded"
    assert refusal.message.startswith("Token limit exceeded: 1200/1000 tokens per minute.")
    one.served[0].settle(0, tokens=100)
    assert await one.call(tokens=600) == "ok"
    too_large = await one.refusal(tokens=1_001)
    assert "lower its max_tokens" in too_large.message
    left = one.counters.pace(one.allowance)[0][1]["tokens"]
    assert left is not None
    assert (left.limit, left.remaining) == (1_000, 300)


async def test_a_limit_lowered_raised_and_lifted_in_flight(world: World) -> None:
    one = await (await world.open(rpm=10)).process("a")
    assert await one.calls(4) == 4
    await world.change(rpm=5)
    one.hear()
    assert await one.calls(5) == 1
    assert await world.leased("minute") == {"spool_a": 5}
    await world.change(rpm=8)
    one.hear()
    assert await one.calls(5) == 3
    await world.change(rpm=2)
    one.hear()
    assert await one.calls(5) == 0
    await world.change(rpm=None)
    one.hear()
    assert await one.calls(50) == 50
    await one.tidy()
    assert await world.leased("minute") == {}


@pytest.mark.parametrize("asks", ["call", "tidy"])
async def test_a_limit_edited_while_it_is_asked_for_is_asked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    """The answer is of before the edit, and comes after it was heard."""
    one = await (await world.open(rpm=2)).process("a")
    assert await one.calls(2) == 2
    await world.change(rpm=3)
    one.hear()
    transaction, limits = Database.transaction, iter([9])

    @asynccontextmanager
    async def edited_as_it_ends(database: Database) -> AsyncIterator[Transaction]:
        async with transaction(database) as tx:
            yield tx
        for limit in limits:
            await world.change(rpm=limit)
            one.hear()

    with monkeypatch.context() as patch:
        patch.setattr(Database, "transaction", edited_as_it_ends)
        await (one.call() if asks == "call" else one.tidy())
    assert await one.calls(10) == (6 if asks == "call" else 7)


async def test_a_limit_that_is_set_while_the_others_are_asked_for_is_asked_for_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that has heard of it comes between two of the windows: who tidies meanwhile must not fall over it."""
    one = await (await world.open(rpm=2)).process("a")
    assert await one.calls(1) == 1
    await world.change(rpm=9)
    one.hear()
    await world.change(rpd=2)
    put_lease, came = window_store.put_lease, list[asyncio.Task[str]]()

    async def as_a_call_comes(*args: Any) -> None:
        await put_lease(*args)
        if not came:
            one.hear()
            came.append(asyncio.create_task(one.call()))
            while "day" not in one.counters.books[_KEY].windows:  # noqa: ASYNC110 - till it has come
                await asyncio.sleep(0)

    monkeypatch.setattr(window_store, "put_lease", as_a_call_comes)
    await one.tidy()
    assert [await call for call in came] == ["ok"]
    assert await one.calls(5) == 1, "of 2 a day"


async def test_a_limit_lowered_takes_back_what_others_have_too_much(world: World) -> None:
    one = await (await world.open(rpm=100)).process("a")
    two = await world.process("b")
    await one.calls(3)
    await one.beat()
    world.move(1)
    await two.calls(3)
    await world.change(rpm=8)
    for process in (one, two):
        process.hear()
        await process.tidy()
    assert sum((await world.leased("minute")).values()) <= 8
    assert await one.calls(20) + await two.calls(20) <= 2


async def test_all_or_nothing_and_a_refusal_consumes_nothing(world: World) -> None:
    await world.open(rpm=3, rpd=3, tpm=300, organization={"rpm": 9, "parallel": 1})
    one = await world.process("a")
    assert await one.call(tokens=100) == "ok"
    for _ in range(20):
        refusal = await one.refusal(tokens=100)
        assert (refusal.code, refusal.details["scope"]) == ("too_many_parallel_requests", "organization")
    one.reserve.undo(one.served.pop())
    for expected in ("ok", "ok", "ok", "rate_limit_exceeded"):
        assert await one.call(tokens=100) == expected
        if expected == "ok":
            one.served[-1].settle(0)
    paces = {
        (holder.scope, name): pace.used for holder, of in one.counters.pace(one.allowance) for name, pace in of.items()
    }
    assert paces == {
        ("agent_key", "minute"): 3,
        ("agent_key", "day"): 3,
        ("agent_key", "tokens"): 300,
        ("organization", "minute"): 3,
        ("organization", "parallel"): 0,
    }


async def test_how_it_stands_is_known_before_the_first_call(world: World) -> None:
    one = await (await world.open(rpd=10)).process("a")
    await one.calls(4)
    await one.stop()
    two = await world.process("b")
    await two.reserve.look(two.allowance)
    ((_, paces),) = two.counters.pace(two.allowance)
    assert (paces["day"].used, paces["day"].remaining) == (4, 6)


async def test_without_its_database_a_process_goes_on_with_what_it_has(world: World) -> None:
    one = await (await world.open(rpm=10, organization={"rpm": 100})).process("a")
    assert await one.calls(2) == 2
    async with database_away() as away:
        one.rations._database = away
        assert await one.calls(20) == 8
        stranger = Holder("agent_key", "key_2", rpm=5)
        with pytest.raises(Refusal) as caught:
            await one.reserve.take(Allowance("key_2", (stranger,)), Bid(0, 1, 0, may_shrink=False))
        assert caught.value.code == "service_unavailable"
        world.move(61)
        assert await one.call() == "service_unavailable", "after a minute others may think that it is gone"


async def test_a_deleted_holder_is_not_served(world: World) -> None:
    one = await (await world.open(rpm=10)).process("a")
    async with world.database.transaction() as tx:
        await tx.execute(schema.agent_keys.delete())
    assert await one.call() == "rate_limit_exceeded"


async def test_books_of_idle_holders_are_closed_and_nothing_is_forgotten(world: World) -> None:
    one = await (await world.open(rpm=10, rpd=10)).process("a")
    assert await one.calls(4) == 4
    await world.live(660, one)
    assert one.counters.books == {}
    assert await world.leased("minute") == {}
    assert await world.leased("day") == {"spool_a": 4}
    assert await one.calls(20) == 6


async def test_a_day_leased_before_a_long_sleep_is_given_back_and_not_taken_for_used(world: World) -> None:
    two = [await (await world.open(rpd=20)).process("a"), await world.process("b")]
    for process in two:
        await process.tidy()
    await two[0].reserve.look(two[0].allowance)
    await two[0].tidy()
    assert await world.leased("day") == {"spool_a": 5}, "nothing is used, and the rest is nobody's"
    world.move(3_600)
    for process in two:
        await process.beat()  # both live: nobody takes for silent who has just woken
    assert two[0].counters.books == {}
    assert await world.leased("day") == {}
    served = 0
    for _ in range(12):
        for process in two:
            served += await process.calls(2)
        await world.live(1, *two)
    assert served == 20


async def test_a_call_that_comes_while_its_idle_book_is_closed_finds_what_is_left_and_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await (await world.open(rpm=6, rpd=20)).process("a")
    assert await one.calls(4) == 4
    await world.live(580, one)
    book, transaction = one.counters.books[_KEY], Database.transaction
    came: list[asyncio.Task[str]] = []

    @asynccontextmanager
    async def after_a_call_came(database: Database) -> AsyncIterator[Transaction]:
        if book.asking.locked() and not came:
            came.append(asyncio.create_task(one.call()))
            await asyncio.sleep(0.2)
        async with transaction(database) as tx:
            yield tx

    with monkeypatch.context() as patch:
        patch.setattr(Database, "transaction", after_a_call_came)
        await world.live(40, one)
    assert await came[0] == "ok", "of a day of 20 there were 16 left"
    assert one.counters.books[_KEY] is not book
    two = await world.process("b")
    assert 1 + await two.calls(10) + await one.calls(10) <= 6
    served = len(one.served) + len(two.served)
    for _ in range(12):
        await world.live(61, one, two)
        for process in (two, one):
            served += await process.calls(3)
    assert served == 20


@pytest.mark.parametrize("is_open", [False, True])
async def test_what_a_closed_book_took_of_a_day_counts_after_its_process_has_ended(
    world: World, *, is_open: bool
) -> None:
    two = [await (await world.open(rpd=20)).process("a"), await world.process("b")]
    for process in two:
        await process.tidy()
    assert await two[0].calls(4) == 4
    await world.live(300, *two)
    assert await two[1].calls(2) == 2
    await world.live(360, *two)
    assert two[0].counters.books == {}
    if is_open:
        two[0].counters.fit(two[0].allowance)  # as by a call that has not asked yet
    await two[0].stop()
    assert await two[1].calls(30) == 14


async def test_who_only_looks_on_counts_what_was_called_and_leases_nothing(world: World) -> None:
    limits = {"rpm": 5, "rpd": 6, "tpm": 1_000, "parallel": 2}
    one = await (await world.open(**limits, organization={"rpm": 4})).process("a")
    assert await one.calls(2, tokens=100) == 2
    await one.write(tokens=300)
    leased = await world.leased("minute"), await world.leased("tokens"), await world.leased("day")
    assert leased[0] == {"spool_a": 5}, "far more than was called"
    world.move(10)
    counters = LocalCounters(world.clock, is_shared=True)
    looking = one.reserve.beside(counters, Onlooker(world.database, counters, world.clock))

    async def ask(tokens: int) -> str:
        try:
            hold = await looking.take(one.allowance, Bid(0, 1, 0, may_shrink=False, tokens=tokens))
        except Refusal as refusal:
            return f"{refusal.code} {refusal.details['scope']} {refusal.details['retry_after_s']}"
        hold.settle(0, 0)
        return "ok"

    assert await ask(401) == "token_limit_exceeded agent_key 50", "they slide out a minute after they were made"
    assert [await ask(400) for _ in range(3)] == ["ok", "ok", "rate_limit_exceeded organization 50"]
    world.move(51)
    assert [await ask(1_000) for _ in range(2)] == ["ok", "ok"]
    assert (await ask(1)).startswith("daily_rate_limit_exceeded agent_key")
    assert leased == (await world.leased("minute"), await world.leased("tokens"), await world.leased("day"))
