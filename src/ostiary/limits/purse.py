"""A process's own part of each capped account, so that a call needs no round trip to the authority."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ostiary.clock import Clock, date_of, month_of
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.limits import store
from ostiary.limits.budgets import TOTAL, AccountKey

_PART = 4
"""A top-up takes one part in 4 × live processes of what remains, and the exact hold near the cap."""
_TRIES = 3
_TIDY_S = 0.5
_IDLE_S = 1.0


@dataclass(slots=True, eq=False)
class Purse:
    """What this process may spend of one account without asking, in nano-dollars.

    `free` + `held` + spent-here = `leased`; `room` is what nobody had leased when the authority was last asked.
    `others` is what other processes had leased then, and `spent` what was written
    down as spent. `free` is below zero after an answer cost more than its hold:
    a debt the next hold must not build on.
    """

    key: AccountKey
    leased: int = 0
    free: int = 0
    held: int = 0
    room: int = 0
    cap: int | None = None
    others: int = 0
    spent: int = 0
    is_known: bool = False
    is_unsure: bool = False
    """Whether the lease may have changed though nobody could tell us."""
    used_at: float = 0.0
    """When something was last taken or filled in, by the monotonic clock."""
    asked_at: float = -math.inf
    """When the authority was last asked, by the monotonic clock."""
    missed_at: float = -math.inf
    """When somebody who may not wait last found that it could not be asked."""
    line: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Calls that wait for room, in order."""
    waiting: int = 0
    """How many calls are at it, in the line or at its head: what they get must not be forgotten."""
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One question to the authority at a time, also by those who no longer wait for its answer."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def headroom(self) -> int:
        """The most a hold could be made of now, as far as is known here."""
        return max(self.free, 0) + self.room

    @property
    def possible(self) -> int:
        """What a hold could become if every open hold and every lease of others came back unspent."""
        return self.headroom + self.held + self.others

    def take(self, nano: int, now: float) -> None:
        """Hold `nano` at a monotonic moment; the caller has seen that it is free."""
        self.used_at = now
        self.free -= nano
        self.held += nano

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """At the head of the line, once all who came before have left."""
        self.waiting += 1
        try:
            async with self.line:
                yield
        finally:
            self.waiting -= 1

    def give(self, held_nano: int, cost_nano: int) -> None:
        """End a hold at its true cost and wake whoever waits for room."""
        self.held -= held_nano
        self.free += held_nano - cost_nano
        if self.held == 0 and self.free < 0:
            self.free = 0  # the lease is used up, and the ledger counts what went over as spent
        self.settled.set()


class Purses:
    """Every purse of this process; the only caller of leases outside adoption."""

    def __init__(self, database: Database, owner: str, clock: Clock) -> None:
        """`owner` is the id of this process's spool, under which the leases stand."""
        self._database = database
        self._owner = owner
        self._clock = clock
        self.top_ups = 0
        """How often more was leased, for whoever measures."""
        self._purses: dict[AccountKey, Purse] = {}
        self._stale: set[AccountKey] = set()

    def get(self, key: AccountKey) -> Purse:
        """The purse of an account, empty and unknown at first."""
        purse = self._purses.get(key)
        if purse is None:
            purse = self._purses[key] = Purse(key)
        return purse

    def totals(self) -> tuple[int, int, int]:
        """Nano-dollars that are free, held by open calls, and leased in all, over every purse."""
        purses = self._purses.values()
        return sum(one.free for one in purses), sum(one.held for one in purses), sum(one.leased for one in purses)

    async def top_up(self, purse: Purse, need_nano: int) -> None:
        """Ask the authority for enough that `need_nano` is free; afterwards `room` and `cap` are fresh.

        Takes nothing when that much is not to be had. A change whose outcome stayed unknown is read again first.
        """
        for _ in range(_TRIES):
            if await self._database.to_the_end(self._try_top_up(purse, need_nano)):
                return
        raise Refusal("service_unavailable", "The budget could not be read. Try again shortly.")

    async def _try_top_up(self, purse: Purse, need_nano: int) -> bool:
        aside, is_told = 0, True
        try:
            async with purse.asking, self._database.transaction() as tx:
                account = await store.lock_account(tx, purse.key)
                lease = await store.find_lease(tx, self._owner, purse.key)
                in_sql = lease.amount_nano if lease else 0
                missed = in_sql - purse.leased  # an earlier change that committed though we were not told
                live = await store.count_live_owners(tx, self._clock.now())
                want = _size_top_up(need_nano - purse.free - missed, account, live)
                want = want or -min(_over(account), max(purse.free + missed, 0))
                aside = min(max(-want, 0) + max(-missed, 0), max(purse.free, 0))
                purse.free -= aside  # nobody may take what is gone, or goes back, while the authority is being told
                self.top_ups += want > 0
                is_told = not want
                if want and not await store.change_lease(tx, self._owner, account, in_sql, want):
                    is_told = True
                    return False
            is_told, purse.is_unsure = True, False
            purse.leased = in_sql + want
            purse.free += missed + want
        finally:
            purse.free += aside
            if not is_told:
                self._doubt(purse, may_take=aside == 0)
        purse.cap = account.cap_nano
        purse.spent = account.spent_nano
        purse.room = account.room_nano - max(want, 0) if account.cap_nano is not None else 0
        purse.others = account.leased_nano - (lease.rest_nano if lease else 0)
        purse.is_known = True
        purse.asked_at = self._clock.monotonic()
        if want + missed > 0:  # who asks in vain must not keep from others what lies here
            purse.used_at = purse.asked_at
        return True

    def _doubt(self, purse: Purse, *, may_take: bool) -> None:
        """The answer was lost: what lies in SQL is read when more is asked for, or by `run`.

        Until then what is free may be taken, unless some of it went back.
        """
        purse.is_known = purse.is_known and may_take
        purse.is_unsure = True
        self._stale.add(purse.key)

    async def give_back(self, purse: Purse) -> None:
        """Return what is free to the account: its cap was changed, or the period is over."""
        async with purse.line:
            await self._database.to_the_end(self._give_back(purse))

    async def put_together(self, purse: Purse) -> None:
        """Let others have what does not do for a call here: only together it may. For who stands first in the line."""
        if purse.free > 0 and purse.others and not purse.held:
            await self._database.to_the_end(self._give_back(purse))

    async def _give_back(self, purse: Purse) -> None:
        back, moved = 0, False
        try:
            if purse.is_unsure:
                await self._try_top_up(purse, 0)
            back = max(purse.free, 0)
            purse.free -= back  # nobody may take it while the authority is being told
            if back:
                moved = await self._try_give_back(purse, back)
            purse.is_known = False
        except Refusal:
            self._stale.add(purse.key)  # others wait for what lies here: told again when the authority is back
        if not moved:
            purse.free += back

    async def _try_give_back(self, purse: Purse, back: int) -> bool:
        async with purse.asking, self._database.transaction() as tx:
            account = await store.lock_account(tx, purse.key)
            purse.is_known = False  # it may move though we are not told: the next top-up reads how it came out
            moved = await store.change_lease(tx, self._owner, account, purse.leased, -back)
        if moved:
            purse.leased -= back
        return moved

    def mark_changed(self, scope: str, id: str) -> None:
        """The budget was edited: the next call reads it again, and `run` returns what is not held."""
        for key, purse in self._purses.items():
            if key.scope == scope and key.id == id:
                purse.is_known = False
                self._stale.add(key)

    def _find_idle(self) -> set[AccountKey]:
        """Purses from which nothing was taken for a while: others may need what lies in them."""
        patience = self._clock.monotonic() - _IDLE_S
        return {
            key
            for key, purse in self._purses.items()
            if purse.free > 0 and purse.used_at < patience and not (purse.held or purse.waiting)
        }

    async def run(self) -> None:
        """Until cancelled: return what edited and idle accounts do not need, and forget periods that are over."""
        while True:
            await self._clock.sleep(_TIDY_S)
            await self.tidy()

    async def tidy(self) -> None:
        """One turn of that. A period may end while a call of it still asks for money: its purse stays until it has."""
        now = self._clock.now()
        over = {key for key in self._purses if key.period_id not in (TOTAL, month_of(now), date_of(now))}
        for key in self._stale | {key for key in over if self._purses[key].free > 0} | self._find_idle():
            self._stale.discard(key)
            await self.give_back(self._purses[key])
        for key in over:
            purse = self._purses[key]
            if purse.leased == 0 and not (purse.is_unsure or purse.waiting or purse.asking.locked()):
                del self._purses[key]
                self._stale.discard(key)  # its budget may have been edited while others were given back


def _over(account: store.Account) -> int:
    """By how much a lowered cap is passed by what is spent and leased already."""
    return max(account.spent_nano + account.leased_nano - account.cap_nano, 0) if account.cap_nano is not None else 0


def _size_top_up(short: int, account: store.Account, live: int) -> int:
    """How much to lease when `short` is missing: a fair part of the room, the exact sum near the cap, else nothing."""
    if short <= 0 or account.cap_nano is None:  # a cap lifted a moment ago: the exact sum will do
        return max(short, 0)
    room = account.room_nano
    return max(short, room // (_PART * live)) if short <= room else 0
