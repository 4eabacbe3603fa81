"""How often: a sliding minute and a UTC day (pure; times are given)."""

from __future__ import annotations

from collections import deque

MINUTE_S = 60.0


class SlidingMinute:
    """At most `limit` requests in any sixty seconds of the monotonic clock; remembers one time a request."""

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken: deque[float] = deque()

    def used(self, now: float) -> int:
        """Requests taken in the last sixty seconds."""
        taken = self._taken
        edge = now - MINUTE_S
        while taken and taken[0] <= edge:
            taken.popleft()
        return len(taken)

    def wait_s(self, limit: int, now: float) -> float | None:
        """None when one more fits, else the seconds until it will."""
        used = self.used(now)
        if used < limit:
            return None
        return self._taken[used - limit] + MINUTE_S - now if limit else MINUTE_S

    def reset_s(self, now: float) -> float:
        """Seconds until the window is empty, if nothing more is taken."""
        return self._taken[-1] + MINUTE_S - now if self.used(now) else 0.0

    def take(self, now: float) -> None:
        """Count one request."""
        self._taken.append(now)

    def untake(self, now: float) -> None:
        """Forget a request counted at `now` that was turned down after all."""
        if now in self._taken:
            self._taken.remove(now)


class DayCount:
    """Requests of one UTC day; a later day starts at zero, an earlier one (a clock set back) counts on."""

    __slots__ = ("_count", "_day")

    def __init__(self, day: int = 0, count: int = 0) -> None:
        self._day = day
        self._count = count

    def used(self, day: int) -> int:
        """Requests taken on that day."""
        if day > self._day:
            self._day = day
            self._count = 0
        return self._count

    def take(self, day: int) -> None:
        """Count one request."""
        self._count = self.used(day) + 1

    def untake(self, day: int) -> None:
        """Forget a request of that day that was turned down after all."""
        if day == self._day and self._count:
            self._count -= 1
