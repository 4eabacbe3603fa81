"""Shared windows are never above their limit, whatever processes do, and a refused call leaves no trace."""

from __future__ import annotations

import asyncio
import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, update

from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.db.migrate import migrate
from ostiary.errors import Refusal
from ostiary.ledger.events import Event
from ostiary.ledger.store import add_events
from ostiary.limits import store
from ostiary.limits.budgets import Bid
from ostiary.limits.local import Allowance, Holder, LocalCounters
from ostiary.limits.purse import Purses
from ostiary.limits.ration import Rations
from ostiary.limits.reserve import Hold, Reserve
from ostiary.limits.windows import DayCount
from tests.fakes import SetClock

_ORG = "orgn_1"
_process = st.integers(0, 2)
_deeds = st.lists(
    st.one_of(
        st.tuples(st.just("call"), _process, st.integers(1, 90)),
        st.tuples(st.just("call"), _process, st.integers(1, 90)),
        st.tuples(st.just("burst"), _process, st.integers(4, 15)),
        st.tuples(st.just("burst"), _process, st.integers(4, 15)),
        st.tuples(st.just("end"), _process, st.integers(0, 90)),
        st.tuples(st.just("undo"), _process, st.just(0)),
        st.tuples(st.just("pass"), _process, st.integers(1, 30)),
        st.tuples(st.just("sleep"), _process, st.integers(1, 300)),
        st.tuples(st.just("clock"), _process, st.sampled_from((-3_600, 3_600))),
        st.tuples(st.just("restart"), _process, st.just(0)),
        st.tuples(st.just("edit"), _process, st.integers(1, 12)),
    ),
    min_size=5,
    max_size=40,
)
_limits = st.one_of(
    st.fixed_dictionaries({"rpm": st.integers(1, 12)}),
    st.fixed_dictionaries({"rpd": st.integers(1, 30)}),
    st.fixed_dictionaries({"parallel": st.integers(1, 12)}),
    st.fixed_dictionaries({"tpm": st.integers(10, 200)}),
    st.fixed_dictionaries(
        {
            "rpm": st.integers(1, 12),
            "rpd": st.integers(1, 40),
            "tpm": st.integers(50, 500),
            "parallel": st.integers(1, 12),
        }
    ),
)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        asyncio.run(_make(path))
        yield path


async def _make(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    await migrate(database)
    async with database.transaction() as tx:
        await tx.execute(insert(schema.organizations).values(id=_ORG, client_id="org_1", name="Home", created_at=0))
    await database.close()


class World:
    """Three processes that share one organization's limits, and what an outsider counts."""

    def __init__(self, database: Database, limits: dict[str, int]) -> None:
        self.database = database
        self.clock = SetClock()
        self.limits = dict(limits)
        self.taken: list[Taken] = []
        self.processes: list[Process] = []
        self.number = 0
        self.calls = 0

    async def begin(self) -> None:
        await self.write_limits()
        self.processes = [await self.born() for _ in range(3)]

    async def born(self) -> Process:
        self.number += 1
        made = Process(self, f"spool_{self.number}")
        async with self.database.transaction() as tx:
            await store.add_owner(tx, made.owner, made.owner, "test", self.clock.now())
        return made

    async def write_limits(self) -> None:
        async with self.database.transaction() as tx:
            await tx.execute(update(schema.organizations).values(**self.limits))

    async def edit(self, rpm: int) -> None:
        """A limit that is lowered binds from then on: what was taken before is not held against it."""
        if "rpm" not in self.limits:
            return
        if rpm < self.limits["rpm"]:
            self.taken = []
        self.limits["rpm"] = rpm
        await self.write_limits()
        for process in self.processes:
            process.hear()
            await process.rations._tidy()

    def jump(self, seconds: int) -> None:
        """Set the wall clock of all. What ended processes took counts for a minute of it: there is no other clock."""
        self.clock.at += seconds * 1_000
        live = {process.owner for process in self.processes}
        for one in self.taken:
            if seconds > 0 and one.owner not in live:
                one.moment = -math.inf

    def check(self) -> None:
        now = self.clock.monotonic()
        lately = [one for one in self.taken if now - 60 < one.moment]
        assert len(lately) <= self.limits.get("rpm", 10_000)
        assert sum(one.tokens for one in lately) <= self.limits.get("tpm", 10_000)
        days = [one.day for one in self.taken]
        assert max((days.count(day) for day in days), default=0) <= self.limits.get("rpd", 10_000)
        open_calls = [hold for process in self.processes for hold in process.open]
        assert len(open_calls) <= self.limits.get("parallel", 10_000)


@dataclass
class Taken:
    """One call, as an outsider noted it."""

    moment: float
    day: int
    tokens: int
    at: int
    owner: str


class Process:
    """One process; while it sleeps nothing of it is heard."""

    def __init__(self, world: World, owner: str) -> None:
        self.world, self.owner = world, owner
        self.open: list[tuple[Hold, Taken]] = []
        self.unsent: list[Taken] = []
        self.counters = LocalCounters(world.clock, is_shared=True)
        self.rations = Rations(world.database, self.counters, owner, world.clock)
        purses = Purses(world.database, owner, world.clock)
        self.reserve = Reserve(world.clock, self.counters, purses, self.rations)
        self.hear()

    def hear(self) -> None:
        self.allowance = Allowance("any", (Holder("organization", _ORG, **self.world.limits),))
        self.rations.mark_changed(_ORG)

    def used(self) -> dict[str, int]:
        now = self.world.clock.monotonic()
        windows = [window for book in self.counters.books.values() for window in book.windows.values()]
        return {window.name: window.used(now, 0) for window in windows if window.name != "day"}

    async def calls(self, count: int, tokens: int) -> None:
        """Several at once; who is refused leaves no trace."""
        before = self.used()
        served = sum(await asyncio.gather(*(self.call(tokens) for _ in range(count))))
        for name, used in self.used().items():
            assert used == before.get(name, 0) + served * (tokens if name == "tokens" else 1), name

    async def call(self, tokens: int) -> bool:
        at = self.world.clock.now()
        try:
            hold = await self.reserve.take(self.allowance, Bid(0, 1, 0, may_shrink=False, tokens=tokens))
        except Refusal as refusal:
            assert refusal.status in (429, 503)  # noqa: PT017 - any other refusal is a fault
            return False
        days = [window.day for window in hold.fitted.windows if isinstance(window, DayCount)]
        taken = Taken(self.world.clock.monotonic(), sum(days), tokens, at, self.owner)
        self.open.append((hold, taken))
        self.world.taken.append(taken)
        return True

    def end(self, tokens: int) -> None:
        """Settle the oldest, at no more than was thought: what is used beyond that is nobody's to prevent."""
        if self.open:
            hold, taken = self.open.pop(0)
            taken.tokens = min(tokens, taken.tokens)
            hold.settle(0, taken.tokens)
            hold.settle(0, 0)
            self.unsent.append(taken)

    def undo(self) -> None:
        if self.open:
            hold, taken = self.open.pop()
            self.reserve.undo(hold)
            self.reserve.undo(hold)
            self.world.taken = [one for one in self.world.taken if one is not taken]

    async def hang_up(self) -> None:
        """Every open call ends, and the ledger gets to know: of a process that is silent it is what counts."""
        while self.open:
            self.end(90)
        self.world.calls += len(self.unsent)
        events = [_event(self.world.calls - number, taken) for number, taken in enumerate(self.unsent)]
        self.unsent = []
        async with self.world.database.transaction() as tx:
            await add_events(tx, self.owner, events)

    async def restart(self) -> Process:
        """End gracefully; another takes its place."""
        await self.hang_up()
        await self.rations.close()
        async with self.world.database.transaction() as tx:
            await store.mark_owner(tx, self.owner, self.world.clock.now(), closed=True)
        return await self.world.born()

    async def beat(self) -> None:
        async with self.world.database.transaction() as tx:
            await store.mark_owner(tx, self.owner, self.world.clock.now() + self.world.number)
        await self.rations._tidy()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=_limits, deeds=_deeds)
def test_no_window_is_ever_above_its_limit(
    limits: dict[str, int], deeds: list[tuple[str, int, int]], template: Path
) -> None:
    asyncio.run(_live(limits, deeds, template))


async def _live(limits: dict[str, int], deeds: list[tuple[str, int, int]], template: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ostiary.db"
        shutil.copy(template, path)
        database = Database(f"sqlite:///{path}")
        try:
            world = World(database, limits)
            await world.begin()
            for deed, number, amount in deeds:
                await _do(world, deed, number, amount)
                world.check()
        finally:
            await database.close()


async def _do(world: World, deed: str, number: int, amount: int) -> None:
    process = world.processes[number]
    match deed:
        case "call":
            await process.calls(1, amount)
        case "burst":
            await process.calls(amount, 1)
        case "end":
            process.end(amount)
        case "undo":
            process.undo()
        case "pass":
            world.clock.move(amount)
            for one in world.processes:
                await one.beat()
        case "sleep":
            await _sleep(world, number, amount)
        case "clock":
            world.jump(amount)
        case "edit":
            await world.edit(amount)
        case _:
            world.processes[number] = await process.restart()


def _event(number: int, taken: Taken) -> Event:
    return Event(
        request_id=f"req_{number}",
        attempt=1,
        organization_id=_ORG,
        agent_key_id=None,
        agent_key_name=None,
        credential_id=None,
        operation="chat.completions",
        provider="openai",
        model_asked="m",
        model="m",
        provider_key_id="pkey_1",
        provider_key_name="one",
        stream=False,
        started_at=taken.at,
        client_ip=None,
        metadata={},
        held_nano=0,
        leased=(),
        price_version=None,
        cost_nano=0,
        usage_source="provider",
        status="ok",
        input_tokens=taken.tokens,
    )


async def _sleep(world: World, number: int, seconds: int) -> None:
    """One process is stopped while the others go on; its open calls end with their connections."""
    await world.processes[number].hang_up()
    while seconds > 0:
        world.clock.move(min(seconds, 20))
        seconds -= 20
        for one in world.processes:
            if one is not world.processes[number]:
                await one.beat()
