"""How the windows stand as the ledger knows them, for who lets nobody in and leases nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ostiary.clock import SECOND_MS, Clock, day_of
from ostiary.db.database import Database
from ostiary.limits import window_store
from ostiary.limits.local import Holder, LocalCounters
from ostiary.limits.window_store import Written
from ostiary.limits.windows import ALL, MINUTE_S, DayCount, SlidingMinute, SlidingTokens, Window

_MINUTE_MS: Final = int(MINUTE_S) * SECOND_MS


class Onlooker:
    """In place of rations: what gateways have leased and not used is to be had by whoever calls them.

    Of calls that are open, and of those that no gateway has written down yet, it knows nothing.
    """

    def __init__(self, database: Database, counters: LocalCounters, clock: Clock) -> None:
        """The windows are `counters`', of which nothing is anybody's own until it is looked at here."""
        self._database = database
        self._counters = counters
        self._clock = clock

    async def fill(self, holder: Holder, _tokens: int) -> None:
        """Return when it is known how the holder's windows stand: then the limits themselves decide."""
        await self.look(holder)

    async def look(self, holder: Holder) -> None:
        """Put what was called lately in windows that were not looked at before."""
        book = self._counters.book_of(holder)
        async with book.asking:
            unknown = [window for window in book.windows.values() if window.leased != ALL]
            if not unknown:
                return
            at, now = self._clock.now(), self._clock.monotonic()
            async with self._database.read() as tx:
                calls = await window_store.list_written(tx, holder.scope, holder.id, at - _MINUTE_MS)
                today = await window_store.count_requests(tx, holder.scope, holder.id, day_of(at))
            for window in unknown:
                _fill_in(window, calls, today, at, now)
                window.leased = ALL


def _fill_in(window: Window, calls: Sequence[Written], today: int, at: int, now: float) -> None:
    if isinstance(window, DayCount):
        window.used(now, day_of(at))
        window.start(today)
    elif isinstance(window, SlidingMinute | SlidingTokens):
        is_requests = isinstance(window, SlidingMinute)
        for call in calls:
            if call.is_request or not is_requests:
                window.take(call.tokens, now - (at - call.started_at) / SECOND_MS, 0)
