"""Spend never passes the cap and no hold leaks, whatever the order of deeds, deaths and edits."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
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
from tests.fakes import SetClock

_RATE = 1_000_000_000
_KEY = "key_1"
_ACCOUNT = AccountKey("agent_key", _KEY, "2026-11")

_process = st.integers(0, 2)
_deeds = st.lists(
    st.one_of(
        st.tuples(st.just("take"), _process, st.integers(1, 120), st.booleans()),
        st.tuples(st.just("settle"), _process, st.integers(0, 100), st.booleans()),
        st.tuples(st.just("write"), _process, st.just(0), st.booleans()),
        st.tuples(st.just("cap"), _process, st.integers(0, 300), st.booleans()),
        st.tuples(st.just("die"), _process, st.just(0), st.booleans()),
    ),
    max_size=25,
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

    def __init__(self, database: Database, cap: int) -> None:
        self.database = database
        self.clock = SetClock()
        self.cap = self.highest_cap = cap
        self.spent = 0
        self.numbers = iter(range(10_000))
        self.processes = [Process(self, f"spool_{n}") for n in range(3)]

    async def set_cap(self, cap: int) -> None:
        self.cap = cap
        self.highest_cap = max(cap, self.highest_cap)
        async with self.database.transaction() as tx:
            await store.change_budget(tx, "agent_key", _KEY, "month", cap, self.clock.now())
        for process in self.processes:
            process.purses.mark_changed("agent_key", _KEY)

    async def check(self) -> None:
        """The authority never promises more than the highest cap there was, and counts what was written."""
        async with self.database.read() as tx:
            accounts = await store.list_accounts(tx, "agent_key", _KEY)
        month = next(one for one in accounts if one.period_id == _ACCOUNT.period_id)
        assert month.leased_nano >= 0
        assert month.spent_nano + month.leased_nano <= self.highest_cap
        for process in self.processes:
            purse = process.purses.get(_ACCOUNT)
            assert purse.free >= 0
            assert purse.held == sum(hold.size.nano for hold in process.open)

    async def end(self) -> None:
        """When all has settled and closed: the spend is what was charged, and nothing is leased."""
        for process in self.processes:
            await process.die()
        async with self.database.read() as tx:
            month = next(
                one for one in await store.list_accounts(tx, "agent_key", _KEY) if one.period_id == _ACCOUNT.period_id
            )
        assert (month.spent_nano, month.leased_nano) == (self.spent, 0)


class Process:
    """A process that can die: what it settled stands in its spool, what it held is charged."""

    def __init__(self, world: World, owner: str) -> None:
        self.world = world
        self.owner = owner
        self.born()

    def born(self) -> None:
        self.owner += "x"
        self.purses = Purses(self.world.database, self.owner, self.world.clock)
        self.reserve = Reserve(self.world.clock, LocalCounters(self.world.clock), self.purses)
        self.open: list[Hold] = []
        self.spool: list[Event] = []

    async def take(self, tokens: int, *, may_shrink: bool) -> None:
        allowance = Allowance(_KEY, budgets=(("agent_key", _KEY, Budget("month", self.world.cap)),))
        try:
            self.open.append(await self.reserve.take(allowance, Bid(0, tokens, _RATE, may_shrink)))
        except Refusal as refusal:
            assert refusal.code == "budget_exceeded"  # noqa: PT017 - any other refusal is a fault

    def settle(self, percent: int) -> None:
        if self.open:
            hold = self.open.pop(0)
            cost = hold.size.nano * percent // 100
            hold.settle(cost)
            self.spool.append(self._event(hold, cost))

    async def write(self, *, and_again: bool) -> None:
        for _ in range(1 + and_again):
            async with self.world.database.transaction() as tx:
                if self.spool:
                    await writer.write_events(tx, self.owner, self.spool)
        self.spool = []

    async def die(self) -> None:
        """Kill -9, and adoption by whoever is next."""
        left = self.spool + [self._event(hold, hold.size.nano) for hold in self.open]
        async with self.world.database.transaction() as tx:
            if left:
                await writer.write_events(tx, self.owner, left)
            await writer.close_leases(tx, self.owner, self.world.clock.now(), charge_rest=False)
        self.born()

    def _event(self, hold: Hold, cost: int) -> Event:
        self.world.spent += cost
        number = next(self.world.numbers)
        return Event(
            f"r{number}", 1, "orgn_1", _KEY, "a", None, "chat", "p", "m", "m", "pkey", "pk", False,
            self.world.clock.now(), None, {}, hold.size.nano, hold.accounts, "v", cost, "provider", "ok", 200,
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
        world = World(database, cap)
        await world.set_cap(cap)
        for deed, number, amount, flag in deeds:
            process = world.processes[number]
            if deed == "take":
                await process.take(amount, may_shrink=flag)
            elif deed == "settle":
                process.settle(amount)
            elif deed == "write":
                await process.write(and_again=flag)
            elif deed == "cap":
                await world.set_cap(amount * 1_000)
            else:
                await process.die()
            await world.check()
        await world.end()
        await database.close()
