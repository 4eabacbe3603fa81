"""The only source of now, month boundaries and waiting."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

SECOND_MS = 1_000
DAY_MS = 86_400_000


class Clock(Protocol):
    """What tells the time; handed down from `app.py`, so that a process under test can be given another."""

    def now(self) -> int:
        """Milliseconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait without blocking the loop."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> int:
        """Milliseconds since the epoch, UTC."""
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)
    """Seconds that never run backwards. The function itself: a call looks at it many times."""

    async def sleep(self, seconds: float) -> None:
        """Wait without blocking the loop."""
        await asyncio.sleep(seconds)


def month_of(at: int) -> str:
    """The UTC calendar month of a time, as the period id of monthly accounts: `2026-11`."""
    return _month_of_day(at // DAY_MS)


@lru_cache(maxsize=64)
def _month_of_day(day: int) -> str:
    """Asked at every call, and the same for a whole day."""
    return _date_of_day(day)[:-3]


def date_of(at: int) -> str:
    """The UTC date of a time, as the period id of daily accounts: `2026-11-20`."""
    return _date_of_day(at // DAY_MS)


@lru_cache(maxsize=64)
def _date_of_day(day: int) -> str:
    return moment(day * DAY_MS).date().isoformat()


def month_ends(at: int) -> int:
    """When the UTC month of `at` ends, in milliseconds since the epoch."""
    first = moment(at).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return _ms((first + timedelta(days=32)).replace(day=1))


def day_of(at: int) -> int:
    """The number of the UTC day since the epoch."""
    return at // DAY_MS


def day_ends(at: int) -> int:
    """When the UTC day of `at` ends, in milliseconds since the epoch."""
    return (at // DAY_MS + 1) * DAY_MS


def moment(at: int) -> datetime:
    """A time as an aware datetime."""
    return datetime.fromtimestamp(at / SECOND_MS, UTC)


def iso(at: int) -> str:
    """A time as people and JSON read it: `2026-11-20T22:53:17Z`; a year has four digits, as strftime's has not."""
    return moment(at).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _ms(at: datetime) -> int:
    return int(at.timestamp()) * SECOND_MS
