"""Moves settled calls from the spool into the database, in batches, and adopts what dead processes left."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from ostiary.clock import DAY_MS, Clock
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ledger import alerts, operation_store, retention, store
from ostiary.ledger.events import Event
from ostiary.ledger.spool import Leftover, Orphan, Spool, find_orphans
from ostiary.limits import store as money
from ostiary.limits.budgets import AccountKey, periods_of
from ostiary.limits.charge_store import Cost, charge_all
from ostiary.logs import get

Leased = tuple[tuple[str, str, str], ...]
Charged = Mapping[AccountKey, tuple[int, int]]
"""What was spent of each account before and after, in nano-dollars."""


class Wrote(Protocol):
    """Hears of events that are in the ledger now; `are_over`: of a process that is no more."""

    def __call__(self, events: Sequence[Event], /, *, are_over: bool) -> None:
        """Must neither wait nor fail."""


_BATCH = 1_000
"""Of so many the next follows at once; PostgreSQL is never told more in one go."""
_MOST = 4_000
"""SQLite is: the more turns of the loop a batch takes, the more calls settle meanwhile."""
_MOST_BYTES = 16_000_000
"""Of captured contents in a batch: while they are written nobody else can write to SQLite."""
_PAUSE_S = 0.25
"""Between batches under load; a few calls are written nearly at once, so that a look at the ledger finds them."""
_SHORT_PAUSE_S = 0.02
_FEW = 20
_BACK_OFF_S = 1.0
_HEARTBEAT_MS = 5_000
_ADOPT_MS = 30_000


def nobody(_events: Sequence[Event], /, *, are_over: bool) -> None:
    """Nobody wants to hear it."""
    del are_over


class Writer:
    """The one way from this process's spool to the ledger."""

    def __init__(self, database: Database, spool: Spool, clock: Clock) -> None:
        """Shares the spool's event loop."""
        self._database = database
        self._spool = spool
        self._clock = clock
        self._log = get("ledger")
        self._beat_at = 0
        self._adopted_at = clock.now()
        self._is_down = False
        self._one = asyncio.Lock()
        self.position: Callable[[], int | None] = lambda: None
        """Up to which change of the feed this gateway knows everything; goes with each heartbeat."""
        self.charged: Callable[[Charged], None] = lambda _charged: None
        """Who wants to hear what a batch has charged."""
        self.wrote: Wrote = nobody
        """Who wants to hear what the ledger has got, once it has it."""

    @property
    def behind(self) -> int:
        """Settled calls that the database does not have yet."""
        return len(self._spool.unsent)

    @property
    def written(self) -> int:
        """Settlements of this process that it has."""
        return self._spool.settled - self._spool.late - self.behind

    async def run(self) -> None:
        """Until cancelled: write, stay alive, adopt. A database that is away is waited for, never given up on."""
        while True:
            try:
                wrote = await self.flush_once()
                await self._database.to_the_end(self._keep_house())
                self._say_up()
            except Refusal as refusal:
                self._say_down(refusal)
                await self._clock.sleep(_BACK_OFF_S)
            else:
                pause = _SHORT_PAUSE_S if wrote < _FEW else _PAUSE_S
                await self._clock.sleep(0 if wrote >= _BATCH else pause)

    async def flush(self) -> None:
        """Write all that is settled now, for a report that must not miss it; what settles later may wait."""
        unsent = self._spool.unsent
        newest = unsent[-1][0] if unsent else 0
        while unsent and unsent[0][0] <= newest:
            await self.flush_once()

    async def flush_once(self) -> int:
        """Write one batch; the answer is how many events it held."""
        return await self._database.to_the_end(self._flush_batch())

    async def _flush_batch(self) -> int:
        async with self._one:
            return await self._write_batch()

    async def _write_batch(self) -> int:
        batch = self._next_batch()
        if batch:
            async with self._database.transaction() as tx:
                inserted, charged = await write_events(tx, self._spool.owner, [event for _, event in batch])
            self.charged(charged)
            for _ in batch:
                self._spool.unsent.popleft()
            self._spool.mark_sent(batch[-1][0])
            self.wrote(inserted, are_over=False)
        return len(batch)

    def _next_batch(self) -> list[tuple[int, Event]]:
        batch: list[tuple[int, Event]] = []
        size = 0
        for one in islice(self._spool.unsent, _MOST if self._database.is_sqlite else _BATCH):
            size += len(one[1].content or "")
            if batch and size > _MOST_BYTES:
                break
            batch.append(one)
        return batch

    async def close(self) -> None:
        """Write everything, give every lease back, and delete the spool.

        If the database is away, the spool could not keep a settlement, or a call is still open, the file stays for
        whoever adopts it.
        """
        is_whole = await self._spool.commit_late()
        try:
            await self.flush()
            is_whole = is_whole and not self._spool.open_holds
            if is_whole:
                async with self._database.transaction() as tx:
                    await close_leases(tx, self._spool.owner, self._clock.now(), charge_rest=False)
        except Refusal as refusal:
            self._say_down(refusal)
            is_whole = False
        await self._spool.close(remove=is_whole)

    async def _keep_house(self) -> None:
        now = self._clock.now()
        if abs(now - self._beat_at) >= _HEARTBEAT_MS:
            async with self._database.transaction() as tx:
                await money.mark_owner(tx, self._spool.owner, now)
                position = self.position()
                if position is not None:
                    await operation_store.mark_revision(tx, self._spool.owner, position)
            self._beat_at = now
            late = self._spool.retry_late()
            if late:
                self._log.warning("spool.retried", settlements=late)
        if abs(now - self._adopted_at) >= _ADOPT_MS:
            self._adopted_at = now
            await adopt(self._database, self._spool.folder, self._clock, self.wrote)

    def _say_down(self, refusal: Refusal) -> None:
        if not self._is_down:
            self._is_down = True
            self._log.error("ledger.down", behind=self.behind, reason=str(refusal.__cause__ or refusal))

    def _say_up(self) -> None:
        if self._is_down:
            self._is_down = False
            self._log.warning("ledger.up", behind=self.behind)


async def adopt(database: Database, folder: Path, clock: Clock, wrote: Wrote = nobody) -> int:
    """Take over every spool in the folder whose process is gone; the answer is how many.

    What was settled is sent, what was only held is charged at the held amount, then the leases are closed; the file is
    deleted last. Dying in between repeats it, and counts nothing twice.
    """
    orphans = find_orphans(folder)
    try:
        for orphan in orphans:
            await _adopt_one(database, orphan, clock, wrote)
    finally:
        for orphan in orphans:
            orphan.unlock()
    return len(orphans)


async def _adopt_one(database: Database, orphan: Orphan, clock: Clock, wrote: Wrote) -> None:
    left = orphan.read()
    await _take_over(database, left, clock.now(), wrote)
    get("ledger").warning(
        "spool.adopted",
        owner=left.owner,
        settled=len(left.settled),
        charged_holds=len(left.held),
        damaged=left.damaged,
        lost_power=left.lost_power,
    )
    if left.damaged:
        orphan.keep()
    else:
        orphan.finish()


async def _take_over(database: Database, left: Leftover, at: int, wrote: Wrote) -> None:
    """Step by step: each has its accounts in the order of all writers, and none asks for more while it has them."""
    inserted: list[Event] = []
    try:
        for events, may_be_gone in ((left.settled, True), (left.held, False)):
            for start in range(0, len(events), _BATCH):
                batch = events[start : start + _BATCH]
                async with database.transaction() as tx:
                    if may_be_gone:
                        batch = await retention.still_wanted(tx, left.owner, batch, at)
                    found, _ = await write_events(tx, left.owner, batch)
                inserted += found
    finally:
        wrote(inserted, are_over=True)
    async with database.transaction() as tx:
        await close_leases(tx, left.owner, at, charge_rest=left.lost_power)


async def close_leases(tx: Transaction, owner: str, at: int, *, charge_rest: bool) -> None:
    """End everything an owner holds and the owner itself."""
    await money.lock_owner(tx, owner)
    for key in await money.list_lease_keys(tx, owner):
        await money.close_lease(tx, owner, key, charge_rest=charge_rest)
    await money.mark_owner(tx, owner, at, closed=True)


async def write_events(tx: Transaction, owner: str, events: list[Event]) -> tuple[list[Event], Charged]:
    """Insert events and charge their accounts: the sums are of the rows that were really inserted."""
    inserted = await store.add_events(tx, owner, events)
    if not inserted:
        return [], {}
    charged = await charge_all(tx, owner, _costs_of(inserted))
    await alerts.watch(tx, charged, max(event.started_at + event.latency_ms for event in inserted), inserted)
    return inserted, charged


def _costs_of(events: Iterable[Event]) -> dict[AccountKey, Cost]:
    """What each account pays; under load most of a batch pay from the same ones."""
    together: defaultdict[tuple[str, str | None, str | None, str, int, Leased], list[int]] = defaultdict(list)
    for event in events:
        day = (event.held_at or event.started_at) // DAY_MS
        keys = event.agent_key_id, event.parent_key_id, event.provider_key_id
        together[event.organization_id, *keys, day, event.leased].append(event.cost_nano)
    costs: defaultdict[AccountKey, list[int]] = defaultdict(lambda: [0, 0])
    for (organization_id, key_id, parent_id, provider_key_id, day, leased), spent in together.items():
        nano = sum(spent)
        for key in accounts_of(organization_id, (key_id, parent_id), provider_key_id, day * DAY_MS):
            costs[key][0] += nano
            costs[key][1] += nano if key in leased else 0
    return {key: Cost(*sums) for key, sums in costs.items()}


def accounts_of(
    organization_id: str, agent_key_ids: Iterable[str | None], provider_key_id: str, held_at: int
) -> list[AccountKey]:
    """Every account an attempt counts in: spend is known per month and in total, with or without a cap.

    The keys are that of the call and its parent: what a child spends is spent by its parent too. What a provider key
    spends is known per day as well, and whoever pays, it is the same provider key that spends.
    """
    whose = [("organization", organization_id)]
    whose += [("agent_key", id_) for id_ in agent_key_ids if id_ is not None]
    whose.append(("provider_key", provider_key_id))
    return [AccountKey(scope, id_, period) for scope, id_ in whose for period in periods_of(scope, held_at)]
