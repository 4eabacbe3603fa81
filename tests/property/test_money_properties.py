"""Spend never passes the cap and no hold leaks, whatever the order of deeds, deaths, edits and clocks."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostiary.db.database import Database
from ostiary.db.migrate import migrate
from ostiary.errors import Refusal
from ostiary.ledger import writer
from ostiary.ledger.events import Event
from ostiary.limits import reserve as reserving
from ostiary.limits import store
from ostiary.limits.budgets import AccountKey, Bid, Budget
from ostiary.limits.local import Allowance, LocalCounters
from ostiary.limits.purse import Purses
from ostiary.limits.reserve import Hold, Reserve
from ostiary.limits.upkeep import tend
from tests.fakes import SetClock

_RATE = 1_000_000_000
_KEY, _ORG = "key_1", "orgn_1"
_ORG_CAP = 400_000
_HOUR_S = 3_600
_END_OF_NOVEMBER = 1_796_083_200_000 - 1_800_000
"""Half an hour before December: a jump of the clock by an hour is one to another month."""

_process = st.integers(0, 2)
_deeds = st.lists(
    st.one_of(
        st.tuples(st.just("take"), _process, st.integers(1, 120), st.booleans()),
        st.tuples(st.just("take"), _process, st.integers(1, 120), st.booleans()),
        st.tuples(st.just("extend"), _process, st.just(0), st.booleans()),
        st.tuples(st.just("settle"), _process, st.integers(0, 130), st.booleans()),
        st.tuples(st.just("undo"), _process, st.just(0), st.booleans()),
        st.tuples(st.just("write"), _process, st.just(0), st.booleans()),
        st.tuples(st.just("tidy"), _process, st.just(0), st.booleans()),
        st.tuples(st.just("cap"), _process, st.integers(0, 300), st.booleans()),
        st.tuples(st.just("lift"), _process, st.just(0), st.booleans()),
        st.tuples(st.just("retire"), _process, st.just(0), st.booleans()),
        st.tuples(st.just("clock"), _process, st.sampled_from((-_HOUR_S, _HOUR_S)), st.booleans()),
        st.tuples(st.just("days"), _process, st.integers(1, 12), st.booleans()),
        st.tuples(st.just("die"), _process, st.just(0), st.booleans()),
    ),
    max_size=30,
)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        asyncio.run(_migrated(path))
        yield path


async def _migrated(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    await migrate(database)
    await database.close()


class World:
    """Three processes on one database, and what an outsider knows must be true of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = SetClock(_END_OF_NOVEMBER)
        self.cap: int | None = None
        self.highest_cap: int | None = 0
        """The highest cap there was; None after there was none for a while."""
        self.spent: defaultdict[AccountKey, int] = defaultdict(int)
        self.over: defaultdict[AccountKey, int] = defaultdict(int)
        self.numbers = iter(range(10_000))
        self.processes = [Process(self, f"spool_{n}") for n in range(3)]

    @property
    def allowance(self) -> Allowance:
        budgets = (
            ("agent_key", _KEY, Budget("month", self.cap, soft_nano=1)),
            ("organization", _ORG, Budget("total", _ORG_CAP)),
        )
        return Allowance(_KEY, (), budgets)

    async def begin(self, cap: int) -> None:
        for process in self.processes:
            await process.born()
        async with self.database.transaction() as tx:
            await store.change_budget(tx, "organization", _ORG, Budget("total", _ORG_CAP), self.clock.now())
        await self.set_cap(cap)

    async def set_cap(self, cap: int | None) -> None:
        self.cap = cap
        self.highest_cap = None if cap is None or self.highest_cap is None else max(cap, self.highest_cap)
        async with self.database.transaction() as tx:
            await store.change_budget(tx, "agent_key", _KEY, Budget("month", cap, soft_nano=1), self.clock.now())
        for process in self.processes:
            process.purses.mark_changed("agent_key", _KEY)

    def charge(self, hold: Hold, cost: int) -> None:
        """What the ledger will have to show for one call."""
        month = AccountKey("agent_key", _KEY, Budget("month", 0).period_at(hold.at))
        for key in {month, AccountKey("agent_key", _KEY, "total"), AccountKey("organization", _ORG, "total")}:
            self.spent[key] += cost
            self.over[key] += max(cost - hold.held_nano, 0)

    async def accounts(self) -> list[store.Account]:
        async with self.database.read() as tx:
            return [
                *await store.list_accounts(tx, "agent_key", _KEY),
                *await store.list_accounts(tx, "organization", _ORG),
            ]

    async def rests(self) -> defaultdict[AccountKey, list[int]]:
        """What is left of each lease and not charged."""
        found: defaultdict[AccountKey, list[int]] = defaultdict(list)
        async with self.database.read() as tx:
            for process in self.processes:
                for key in await store.list_lease_keys(tx, process.owner):
                    lease = await store.find_lease(tx, process.owner, key)
                    assert lease is not None
                    found[key].append(lease.rest_nano)
        return found

    async def check(self) -> None:
        """The authority never promises more than the highest cap there was, but for what calls cost beyond holds."""
        rests = await self.rests()
        for account in await self.accounts():
            key = AccountKey(account.scope, account.id, account.period_id)
            assert account.leased_nano == sum(rests[key]), key
            assert min(account.spent_nano, *rests[key], 0) >= 0, key
            bound = _ORG_CAP if key.scope == "organization" else self.highest_cap
            is_capped = key.period_id != "total" if key.scope == "agent_key" else key.period_id == "total"
            if is_capped and bound is not None:
                assert account.spent_nano + account.leased_nano <= bound + self.over[key], key
        for process in self.processes:
            for key, purse in process.purses._purses.items():
                assert purse.free >= -self.over[key]
                assert purse.held == sum(hold.held_nano for hold in process.open if key in hold.accounts)

    async def end(self) -> None:
        """When all has settled and closed: the spend is what was charged, and nothing is leased."""
        for process in self.processes:
            await process.die()
        for account in await self.accounts():
            assert account.leased_nano == 0
            key = AccountKey(account.scope, account.id, account.period_id)
            if key in self.spent:
                assert account.spent_nano == self.spent.pop(key)
        assert not any(self.spent.values()), "every hold was settled or charged"


class Process:
    """A process that can die: what it settled stands in its spool, what it held is charged."""

    def __init__(self, world: World, owner: str) -> None:
        self.world = world
        self.owner = owner

    async def born(self) -> None:
        self.owner += "x"
        self.purses = Purses(self.world.database, self.owner, self.world.clock)
        self.reserve = Reserve(self.world.clock, LocalCounters(self.world.clock), self.purses)
        self.open: list[Hold] = []
        self.spool: list[Event] = []
        async with self.world.database.transaction() as tx:
            await store.add_owner(tx, self.owner, "gateway", "test", self.world.clock.now())

    async def do(self, deed: str, amount: int, *, flag: bool) -> None:
        match deed:
            case "take":
                await self.take(amount, may_shrink=flag)
            case "extend":
                await self.extend()
            case "settle":
                self.settle(amount)
            case "undo":
                self.undo()
            case "write":
                await self.write(and_again=flag)
            case "tidy":
                await self.tidy()
            case "retire":
                await self.retire(wakes=flag)
            case _:
                await self.die()

    async def take(self, tokens: int, *, may_shrink: bool) -> None:
        try:
            self.open.append(await self.reserve.take(self.world.allowance, Bid(0, tokens, _RATE, may_shrink)))
        except Refusal as refusal:
            assert refusal.code == "budget_exceeded"  # noqa: PT017 - any other refusal is a fault

    async def extend(self) -> None:
        if self.open:
            hold = self.open[0]
            expected = hold.held_nano + hold.size.nano * await self.reserve.extend(hold)
            assert hold.held_nano == expected

    def settle(self, percent: int) -> None:
        if self.open:
            hold = self.open.pop(0)
            cost = hold.held_nano * percent // 100
            hold.settle(cost)
            hold.settle(cost + 1)
            self.spool.append(self._event(hold, cost))

    def undo(self) -> None:
        if self.open:
            self.reserve.undo(self.open.pop())

    async def write(self, *, and_again: bool) -> None:
        for _ in range(1 + and_again):
            async with self.world.database.transaction() as tx:
                if self.spool:
                    await writer.write_events(tx, self.owner, self.spool)
        self.spool = []

    async def tidy(self) -> None:
        """Give back what is free, as is done with an idle purse, an edited budget, or a month that is over."""
        for purse in list(self.purses._purses.values()):
            await self.purses.give_back(purse)

    async def retire(self, *, wakes: bool) -> None:
        """Somebody gives it up, but it was only asleep."""
        async with self.world.database.transaction() as tx:
            await store.retire_owner(tx, self.owner, self.world.clock.now())
        if wakes:
            async with self.world.database.transaction() as tx:
                await store.mark_owner(tx, self.owner, self.world.clock.now())

    async def die(self) -> None:
        """Kill -9, and adoption by whoever is next."""
        left = self.spool + [self._event(hold, hold.held_nano) for hold in self.open]
        async with self.world.database.transaction() as tx:
            if left:
                await writer.write_events(tx, self.owner, left)
            await writer.close_leases(tx, self.owner, self.world.clock.now(), charge_rest=False)
        await self.born()

    def _event(self, hold: Hold, cost: int) -> Event:
        self.world.charge(hold, cost)
        number = next(self.world.numbers)
        return Event(
            f"r{number}", 1, _ORG, _KEY, "a", None, "chat", "p", "m", "m", "pkey", "pk", False,
            self.world.clock.now(), None, {}, hold.held_nano, hold.accounts, "v", cost, "provider", "ok", 200,
            held_at=hold.at,
        )  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cap=st.integers(0, 300), deeds=_deeds)
def test_any_interleaving_keeps_the_books(
    cap: int, deeds: list[tuple[str, int, int, bool]], template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "_PATIENCE_S", 0.0)
    asyncio.run(_live(cap * 1_000, deeds, template))


async def _live(cap: int, deeds: list[tuple[str, int, int, bool]], template: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ostiary.db"
        shutil.copy(template, path)
        database = Database(f"sqlite:///{path}")
        try:
            world = World(database)
            await world.begin(cap)
            for deed, number, amount, flag in deeds:
                await _do(world, deed, world.processes[number], amount, flag=flag)
                await world.check()
            await world.end()
        finally:
            await database.close()


async def _do(world: World, deed: str, process: Process, amount: int, *, flag: bool) -> None:
    match deed:
        case "cap":
            await world.set_cap(amount * 1_000)
        case "lift":
            await world.set_cap(None)
        case "clock":
            world.clock.at += amount * 1_000
        case "days":
            world.clock.move(amount * 86_400)
            await tend(world.database, world.clock.now())
        case _:
            await process.do(deed, amount, flag=flag)
