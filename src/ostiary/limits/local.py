"""Windows counted in the memory of this process."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ostiary.clock import Clock, day_ends, day_of
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget
from ostiary.limits.windows import DayCount, SlidingMinute


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits a call must fit, all of them: windows of the key, and (scope, id, budget) of every hard cap."""

    key_id: str
    rpm: int | None = None
    rpd: int | None = None
    budgets: tuple[tuple[str, str, Budget], ...] = ()


@dataclass(frozen=True, slots=True)
class Pace:
    """How one window stands: for headers and for `GET /v1/key`."""

    limit: int
    used: int
    reset_s: float

    @property
    def remaining(self) -> int:
        """What is left; never below zero."""
        return max(self.limit - self.used, 0)


@dataclass(slots=True)
class _Counts:
    minute: SlidingMinute = field(default_factory=SlidingMinute)
    day: DayCount = field(default_factory=DayCount)


class LocalCounters:
    """Requests per minute and per day of every key with such a limit."""

    def __init__(self, clock: Clock) -> None:
        """The minute slides on the monotonic clock; the day is the clock's UTC day."""
        self._clock = clock
        self._counts: dict[str, _Counts] = {}

    def seed_day(self, key_id: str, count: int) -> None:
        """Start today's count at what the ledger knows; a count already running is left alone."""
        if key_id not in self._counts:
            self._counts[key_id] = _Counts(day=DayCount(day_of(self._clock.now()), count))

    def require(self, allowance: Allowance) -> None:
        """Refuse with 429 if one more request does not fit; counts nothing."""
        counts = self._counts.get(allowance.key_id)
        if counts is None:
            counts = self._counts[allowance.key_id] = _Counts()
        if allowance.rpm is not None:
            now = self._clock.monotonic()
            wait = counts.minute.wait_s(allowance.rpm, now)
            if wait is not None:
                used = counts.minute.used(now)
                raise _too_often("rate_limit_exceeded", "Rate limit exceeded", used, allowance.rpm, "minute", wait)
        if allowance.rpd is not None:
            at = self._clock.now()
            used = counts.day.used(day_of(at))
            if used >= allowance.rpd:
                wait = (day_ends(at) - at) / 1000
                head = "Daily rate limit exceeded"
                raise _too_often("daily_rate_limit_exceeded", head, used, allowance.rpd, "day", wait)

    def take(self, allowance: Allowance) -> tuple[float, int]:
        """Count one request; the answer is what `untake` needs."""
        counts = self._counts[allowance.key_id]
        moment, day = self._clock.monotonic(), day_of(self._clock.now())
        if allowance.rpm is not None:
            counts.minute.take(moment)
        counts.day.take(day)
        return moment, day

    def untake(self, allowance: Allowance, taken: tuple[float, int]) -> None:
        """Forget a counted request that was refused after all."""
        counts = self._counts.get(allowance.key_id)
        if counts is not None:
            counts.minute.untake(taken[0])
            counts.day.untake(taken[1])

    def tightest(self, allowance: Allowance) -> Pace | None:
        """The window with the least left, for the headers of every answer; None where nothing is limited."""
        counts = self._counts.get(allowance.key_id)
        if counts is None or (allowance.rpm is None and allowance.rpd is None):
            return None
        now, at = self._clock.monotonic(), self._clock.now()
        in_minute, in_day = counts.minute.used(now), counts.day.used(day_of(at))
        rpm, rpd = allowance.rpm, allowance.rpd
        if rpm is not None and (rpd is None or rpm - in_minute <= rpd - in_day):
            return Pace(rpm, in_minute, counts.minute.reset_s(now))
        return Pace(rpd or 0, in_day, (day_ends(at) - at) / 1000)

    def pace(self, allowance: Allowance) -> dict[str, Pace]:
        """How each limited window stands now, by name: `minute`, `day`."""
        counts = self._counts.get(allowance.key_id) or _Counts()
        paces = {}
        if allowance.rpm is not None:
            now = self._clock.monotonic()
            paces["minute"] = Pace(allowance.rpm, counts.minute.used(now), counts.minute.reset_s(now))
        if allowance.rpd is not None:
            at = self._clock.now()
            paces["day"] = Pace(allowance.rpd, counts.day.used(day_of(at)), (day_ends(at) - at) / 1000)
        return paces


def _too_often(code: str, head: str, used: int, limit: int, unit: str, wait_s: float) -> Refusal:
    wait = max(math.ceil(wait_s), 1)
    return Refusal(
        code,
        f"{head}: {used + 1}/{limit} requests per {unit}. Try again in {wait} s.",
        headers=((b"retry-after", b"%d" % wait),),
        limit=limit,
        retry_after_s=wait,
    )
