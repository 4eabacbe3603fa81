"""A process's own part of each window, so that a call needs no round trip though several processes share a limit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from ostiary.clock import Clock, day_of
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.limits import store, window_store
from ostiary.limits.local import Book, Holder, LocalCounters
from ostiary.limits.watch import Watch
from ostiary.limits.window_store import NOBODY, WindowKey, WindowLease
from ostiary.limits.windows import ALL, DayCount, Window

_ASK_AGAIN_S: Final = 0.25
"""After 'there is no more', so long is it believed: a caller who hammers must not reach the database each time."""
_PART: Final = 2
"""Where others live, one asks for a part in 2 × live processes of the room, and for the exact need near the limit."""
_TIDY_S: Final = 1.0
_MOST_AT_ONCE: Final = 200
_IDLE_S: Final = 60.0
"""After so long without a call others get all that is not in use, not only what is more than a fair share."""
_FORGET_S: Final = 600.0
_PRUNE_S: Final = 60.0
_TWO_DAYS: Final = 2
"""A question asked before midnight is asked once more for the day it was answered in."""


@dataclass(frozen=True, slots=True)
class RationState:
    """How this process shares windows with others, for whoever looks after it."""

    live: int
    """Processes that share, this one among them."""
    is_sure: bool
    """Whether the others know that it lives; if not, limited calls are refused until they do."""
    holders: int
    """Keys and organizations of whose windows it has a part."""
    asked: int
    """How often it asked the database for more since it started."""


class Rations:
    """Every leased window of this process; the authority is the database.

    What all processes may take of a window together is never more than its limit: each counts what it takes, and takes
    no more than it leased. What it took in the last minute it does not give back, so this holds for every minute.
    """

    def __init__(self, database: Database, counters: LocalCounters, owner: str, clock: Clock) -> None:
        """`owner` is the id of this process's spool, under which the leases stand; its windows are `counters`'."""
        self._database = database
        self._counters = counters
        self._owner = owner
        self._clock = clock
        self._watch = Watch(owner, clock.monotonic())
        self._stale: set[str] = set()
        self._dropped: set[tuple[str, int]] = set()
        self._pruned_at = clock.monotonic()
        self._asked = 0
        counters.sure_until = self._watch.sure_until

    @property
    def state(self) -> RationState:
        """For `/health/details`."""
        now = self._clock.monotonic()
        books = self._counters.books.values()
        holders = sum(1 for book in books if any(0 < window.leased < ALL for window in book.windows.values()))
        return RationState(self._watch.count_live(now), now <= self._watch.sure_until, holders, self._asked)

    def mark_changed(self, id: str) -> None:
        """Limits were edited: the next call reads them again, and `run` gives back what is too much."""
        book = self._counters.books.get(id)
        if book is not None:
            book.edits += 1
            book.forget_leases()
            self._stale.add(id)

    # ---- what the path of a call asks --------------------------------------------------------------------------

    async def fill(self, holder: Holder, tokens: int) -> None:
        """Return when more has been leased of the holder's windows; refuse (429, 503) when that can't be."""
        await self._database.to_the_end(self._fill(holder, tokens))

    async def _fill(self, holder: Holder, tokens: int) -> None:
        async with self._asking(holder) as book:
            if self._clock.monotonic() > self._watch.sure_until:
                await self._become_sure()
            short = _find_short(book, holder, tokens, self._clock)
            for _ in range(_TWO_DAYS):
                if short is None or not self._is_worth_asking(*short, tokens):
                    break
                await self._ask(book, tokens)
                short = _find_short(book, holder, tokens, self._clock)
        if short is not None:
            raise self._counters.refuse(holder, *short, tokens)

    async def look(self, holder: Holder) -> None:
        """Ask how the windows stand, where that is not known."""
        await self._database.to_the_end(self._look(holder))

    async def _look(self, holder: Holder) -> None:
        async with self._asking(holder) as book:
            if not all(window.is_known for window, _ in book.limited):
                await self._ask(book, 0)

    @asynccontextmanager
    async def _asking(self, holder: Holder) -> AsyncIterator[Book]:
        """The holder's book while nobody else asks for it; one that was closed while we waited is not the one."""
        while True:
            book = self._counters.book_of(holder)
            async with book.asking:
                if self._counters.books.get(holder.id) is book:
                    yield book
                    return

    def _is_worth_asking(self, window: Window, limit: int, tokens: int) -> bool:
        now = self._clock.monotonic()
        missing = window.used(now, day_of(self._clock.now())) + window.need(tokens) - window.leased
        return missing <= limit and (missing <= window.room or now - window.asked_at >= _ASK_AGAIN_S)

    async def _become_sure(self) -> None:
        """Others may have shared out what this process leased: say that it lives, and ask for everything anew."""
        self._forget_leases()
        at, now = self._clock.now(), self._clock.monotonic()
        async with self._database.transaction() as tx:
            await store.mark_owner(tx, self._owner, at)
        self._watch.beat(at, now)
        self._counters.sure_until = self._watch.sure_until

    # ---- asking the authority ----------------------------------------------------------------------------------

    async def _ask(self, book: Book, tokens: int) -> None:
        """Lease what is needed of every window of a holder, or give back what a lowered limit no longer allows."""
        if book.holder is None:
            return
        scope, id_, edits = book.holder.scope, book.holder.id, book.edits
        at, now = self._clock.now(), self._clock.monotonic()
        for window in book.windows.values():
            window.leased = min(window.leased, window.used(now, day_of(at)))  # nobody takes while we are asking
        found: list[tuple[Window, str, int, int]] = []
        async with self._database.transaction() as tx:
            limits = await window_store.lock_limits(tx, scope, id_) or dict.fromkeys(book.windows, 0)
            leases = await window_store.list_leases(tx, scope, id_, at)
            self._heard(await window_store.list_beats(tx), now)
            for name, window in list(book.windows.items()):  # a call with a limit set since then adds its own to them
                key = WindowKey(scope, id_, _name_of(window))
                rows = await self._seeded(tx, key, [row for row in leases if row.window == key.window], window)
                if key.window != _name_of(window):
                    continue  # a call has begun the next day meanwhile: what was yesterday's says nothing of it
                mine = sum(row.amount for row in rows if row.owner == self._owner)
                others = sum(row.amount for row in rows) - mine
                _count_what_was_forgotten(window, mine)
                share = self._size(window, limits.get(name), mine, others, tokens)
                if share[0] != mine:
                    await window_store.put_lease(tx, self._owner, key, 0 if share[0] >= ALL else share[0])
                found.append((window, key.window, *share))
        for window, name, leased, room in found:
            if name == _name_of(window) and book.edits == edits:
                window.leased, window.room, window.asked_at = leased, room, now
        self._asked += 1

    def _size(self, window: Window, limit: int | None, mine: int, others: int, tokens: int) -> tuple[int, int]:
        """What to lease now, and what nobody has then."""
        if limit is None:
            return ALL, 0
        now = self._clock.monotonic()
        used = window.used(now, 0)
        room, short = limit - mine - others, used + window.need(tokens) - mine
        live = self._watch.count_live(now)
        if used - mine > max(room, 0):
            by = used - mine  # used beyond what was leased, and beyond what is left: the others must know of all of it
        elif room < 0:
            by = -min(-room, max(mine - used, 0))
        elif live == 1:
            by = room
        elif 0 < short <= room:
            by = max(short, room // (_PART * live))
        else:
            by = 0
        return mine + by, max(room - by, 0)

    async def _seeded(
        self, tx: Transaction, key: WindowKey, rows: list[WindowLease], window: Window
    ) -> list[WindowLease]:
        """The leases of a window; what the ledger knows of this day and nobody counted is as good as leased."""
        if not isinstance(window, DayCount) or (rows and window.is_known):
            return rows
        missing = await window_store.count_requests(tx, key.scope, key.id, window.day) - sum(row.amount for row in rows)
        if missing <= 0:
            return rows
        uncounted = missing + sum(row.amount for row in rows if row.owner == NOBODY)
        await window_store.put_lease(tx, NOBODY, key, uncounted, window_store.until_of(key, 0))
        return [*(row for row in rows if row.owner != NOBODY), WindowLease(NOBODY, key.window, uncounted, None)]

    # ---- sharing with others -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: hear who lives, give back what others need more, take what is nobody's any more."""
        while True:
            await self._clock.sleep(_TIDY_S)
            try:
                await self._database.to_the_end(self._tidy())
            except Refusal:
                continue  # the database is away: what is leased stays, until nobody is sure of it any more

    async def _tidy(self) -> None:
        await self._look_around()
        now, day = self._clock.monotonic(), day_of(self._clock.now())
        self._stale |= {
            id_
            for id_, book in self._counters.books.items()
            if any(window.leased < window.used(now, day) for window in book.windows.values())
        }
        for id_ in list(self._stale):
            book = self._counters.books.get(id_)
            if book is not None:
                if book.asking.locked():
                    continue  # who asks now may have begun before the edit: next time
                edits = book.edits
                async with book.asking:
                    await self._ask(book, 0)
                if book.edits != edits:
                    continue
            self._stale.discard(id_)
        await self._give_back()

    async def _look_around(self) -> None:
        now = self._clock.monotonic()
        async with self._database.read() as tx:
            self._heard(await window_store.list_beats(tx), now)
        for silent in set(self._watch.list_silent(now)) - self._dropped:
            async with self._database.transaction() as tx:
                await window_store.drop_silent(tx, *silent, self._clock.now())
            self._dropped.add(silent)
        if now - self._pruned_at >= _PRUNE_S:
            self._pruned_at = now
            async with self._database.transaction() as tx:
                await window_store.prune_leases(tx, self._clock.now())

    def _forget_leases(self) -> None:
        for book in self._counters.books.values():
            book.forget_leases()

    def _heard(self, beats: dict[str, int], looked_at: float) -> None:
        if self._clock.monotonic() > self._watch.sure_until:
            self._forget_leases()  # whoever slept must not become sure by its own next heartbeat
        self._watch.hear(beats, looked_at)
        self._counters.sure_until = self._watch.sure_until

    async def _give_back(self) -> None:
        """Lower here first, so that nothing is taken of what is being given back."""
        now = self._clock.monotonic()
        live = self._watch.count_live(now)
        lowered: dict[WindowKey, int] = {}
        over: list[str] = []
        async with AsyncExitStack() as asking:
            for id_, book in list(self._counters.books.items()):
                if book.asking.locked() or book.holder is None or len(lowered) >= _MOST_AT_ONCE:
                    continue
                await asking.enter_async_context(book.asking)  # free, so this does not wait
                idle_s = book.idle_s(now)
                lowered |= _lower(book, book.holder, live, idle_s, now)
                if idle_s >= _FORGET_S and not book.is_in_use(now):
                    over.append(id_)
                    lowered |= _used(book, book.holder, now)
            if lowered:
                async with self._database.transaction() as tx:
                    for key, amount in lowered.items():
                        await window_store.lower_lease(tx, self._owner, key, amount)
            for id_ in over:  # not before: a new book takes for used whatever it finds leased
                self._counters.close(id_)

    async def close(self) -> None:
        """End every lease: what was taken counts as long as it must, the rest is free for others at once."""
        now = self._clock.monotonic()
        left: dict[WindowKey, int] = {}
        for book in self._counters.books.values():
            if book.holder is not None:
                left |= _used(book, book.holder, now)
                book.forget_leases()
        try:
            async with self._database.transaction() as tx:
                await window_store.end_leases(tx, self._owner, left, self._clock.now())
        except Refusal:
            return  # whoever adopts the spool ends them, by what the ledger knows


def _find_short(book: Book, holder: Holder, tokens: int, clock: Clock) -> tuple[Window, int] | None:
    now, day = clock.monotonic(), day_of(clock.now())
    checks = ((book.windows[name], limit) for name, limit in holder.limits().items())
    return next((check for check in checks if not check[0].fits(check[1], tokens, now, day)), None)


def _name_of(window: Window) -> str:
    return window_store.name_of(window.name, window.day if isinstance(window, DayCount) else 0)


def _count_what_was_forgotten(window: Window, mine: int) -> None:
    """What stands leased under our name before we first asked in a day was taken, for all we know."""
    if isinstance(window, DayCount) and window.is_fresh:
        window.start(mine)


def _lower(book: Book, holder: Holder, live: int, idle_s: float, now: float) -> dict[WindowKey, int]:
    """Keep less of each window where others need it; the answer is what to tell the authority."""
    limits = holder.limits()
    lowered = {}
    for window in book.windows.values():
        keep = _keep(window, limits.get(window.name, 0), live, idle_s, now)
        if keep < window.leased < ALL:
            window.room += window.leased - keep
            window.leased = keep
            lowered[WindowKey(holder.scope, holder.id, _name_of(window))] = keep
    return lowered


def _used(book: Book, holder: Holder, now: float) -> dict[WindowKey, int]:
    """What a book has taken of each window, for the authority; not of a day of which it has never asked that."""
    return {
        WindowKey(holder.scope, holder.id, _name_of(window)): window.used(now, 0)
        for window in book.windows.values()
        if not (isinstance(window, DayCount) and window.is_fresh)
    }


def _keep(window: Window, limit: int, live: int, idle_s: float, now: float) -> int:
    """How much of a window to keep: what is in use, and a fair share where it is called for."""
    used = window.used(now, 0)
    if idle_s >= _FORGET_S:
        return used
    if live == 1:
        return window.leased
    if idle_s >= _IDLE_S:
        return used
    if isinstance(window, DayCount):
        return used + (max(window.leased - used, 0) + window.room) // (_PART * live)
    return max(used, limit // live)
