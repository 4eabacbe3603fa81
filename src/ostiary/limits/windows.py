"""How often, how many tokens, how many at once: the windows of one holder (pure; times are given)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from typing import ClassVar

MINUTE_S = 60.0
NEVER = -math.inf
"""`asked_at` of a window of which nothing is known from elsewhere."""
ALL = 1 << 62
"""`leased` where no other process shares the window."""
Receipt = float | None
"""What `take` gives: the moment or day of a request, the place of a call's tokens, nothing for a slot."""

_UNTAKEN = -1
_FEW = 1_024
"""So many old moments may stay where they are: moving the others down costs more than their room."""


class Window(ABC):
    """What this process has taken of one window, and how much of it is its own to take.

    Every kind is used alike: `fits`, in the same step `take` for a receipt, and with it `settle` when the call is over
    or `untake` when it was refused after all. `now` is monotonic seconds, `day` the UTC day's number.
    """

    name: ClassVar[str]
    counts: ClassVar[bytes | None] = None
    """What of a call it counts, as headers name it; None for what they do not tell of."""
    ends: ClassVar[bool] = False
    """Whether the end of a call matters to it."""
    __slots__ = ("asked_at", "leased", "room")

    def __init__(self, leased: int = ALL) -> None:
        """`leased` is this process's own part of the limit, `room` what nobody had when that was last asked."""
        self.leased = leased
        self.room = 0
        self.asked_at = NEVER

    @property
    def is_known(self) -> bool:
        """Whether `leased` and `room` are what the authority said, and nothing happened since that may change them."""
        return self.asked_at > NEVER

    @property
    @abstractmethod
    def mark(self) -> float:
        """Something that rises with each call."""

    @abstractmethod
    def used(self, now: float, day: int) -> int:
        """What counts in the window at this moment."""

    @abstractmethod
    def take(self, tokens: int, now: float, day: int) -> Receipt:
        """Count one call."""

    def after(self, _tokens: int, now: float, day: int) -> int:
        """What would count with one more call in it, that is thought to use so many tokens."""
        return self.used(now, day) + 1

    def need(self, _tokens: int) -> int:
        """How much of the window a call takes that is thought to use so many tokens."""
        return 1

    def fits(self, limit: int, tokens: int, now: float, day: int) -> bool:
        """Whether one more call fits, into the limit and into what is this process's own."""
        after = self.after(tokens, now, day)
        return after <= limit and after <= self.leased

    def wait_s(self, _limit: int, _tokens: int, _now: float) -> float:
        """Seconds until a call that does not fit may fit, if nothing more is taken."""
        return 1.0

    def reset_s(self, _now: float) -> float:
        """Seconds until the window is empty, if nothing more is taken."""
        return 0.0

    def settle(self, _receipt: Receipt, _tokens: int | None) -> None:
        """The call is over, and used so many tokens if that is known."""
        return

    @abstractmethod
    def untake(self, receipt: Receipt) -> None:
        """Forget a call that was refused after all."""


class Sliding(Window):
    """Any sixty seconds of the monotonic clock; remembers a moment for each call.

    The moments are packed, as a busy minute has hundreds of thousands: 8 bytes each, and nothing the collector walks.
    """

    __slots__ = ("_first", "_moments")

    def __init__(self, leased: int = ALL) -> None:
        super().__init__(leased)
        self._moments = array("d")
        self._first = 0
        """Where the oldest stands that counts; what is before it has slid out."""

    @property
    def mark(self) -> float:
        """When the newest was taken."""
        return self._moments[-1] if len(self._moments) > self._first else 0

    def reset_s(self, now: float) -> float:
        """Until the newest slides out."""
        return max(self._moments[-1] + MINUTE_S - now, 0.0) if len(self._moments) > self._first else 0.0

    def _slide(self, now: float) -> None:
        """Let go of what is sixty seconds old; the room of it is given back once it is the most of all."""
        moments, first, edge = self._moments, self._first, now - MINUTE_S
        count = len(moments)
        while first < count and moments[first] <= edge:
            first += 1
        if first > self._first:
            self._leave(self._first, first)
            self._first = first
            if first > _FEW and first * 2 > count:
                self._drop(first)

    def _leave(self, start: int, end: int) -> None:
        """Those of these places slide out."""

    def _drop(self, count: int) -> None:
        """Give the room of so many of the oldest back."""
        del self._moments[:count]
        self._first -= count


class SlidingMinute(Sliding):
    """Requests in any sixty seconds."""

    name = "minute"
    counts = b"requests"
    __slots__ = ()

    def used(self, now: float, _day: int = 0) -> int:
        """Requests taken in the last sixty seconds."""
        self._slide(now)
        return len(self._moments) - self._first

    def after(self, _tokens: int, now: float, _day: int) -> int:
        """The same, in fewer steps: asked at every call."""
        moments, first = self._moments, self._first
        count = len(moments)
        return (count - first if count > first and moments[first] > now - MINUTE_S else self.used(now)) + 1

    def wait_s(self, limit: int, _tokens: int, now: float) -> float:
        """Until the oldest that is in the way slides out."""
        used = self.used(now)
        if not used or not limit:
            return MINUTE_S
        return self._moments[self._first + max(used - limit, 0)] + MINUTE_S - now

    def take(self, _tokens: int, now: float, _day: int) -> float:
        """Count one request."""
        self._moments.append(now)
        return now

    def untake(self, receipt: Receipt) -> None:
        """Forget one request of that moment; it is among the newest."""
        moments = self._moments
        for place in range(len(moments) - 1, self._first - 1, -1):
            if moments[place] == receipt:
                del moments[place]
                return


class SlidingTokens(Sliding):
    """Tokens in any sixty seconds: each call at its estimate, and at what it really used once that is known."""

    name = "tokens"
    counts = b"tokens"
    ends = True
    __slots__ = ("_dropped", "_holes", "_sum", "_tokens")

    def __init__(self, leased: int = ALL) -> None:
        super().__init__(leased)
        self._tokens = array("q")
        """Beside the moments; `_UNTAKEN` where a call was refused after all, which `_holes` counts."""
        self._holes = 0
        self._dropped = 0
        """How many were ever given up: a receipt is a place counted from the very first."""
        self._sum = 0

    def used(self, now: float, _day: int = 0) -> int:
        """Tokens taken in the last sixty seconds."""
        self._slide(now)
        return self._sum

    def need(self, tokens: int) -> int:
        """As many as the call is thought to use."""
        return tokens

    def after(self, tokens: int, now: float, _day: int) -> int:
        """The same, in fewer steps: asked at every call."""
        moments, first = self._moments, self._first
        counts = len(moments) > first and moments[first] > now - MINUTE_S
        return tokens + (self._sum if counts else self.used(now))

    def wait_s(self, limit: int, tokens: int, now: float) -> float:
        """Until enough of the oldest have slid out; a call larger than the limit never fits, and is told a minute."""
        over = self.used(now) + tokens - limit
        for place in range(self._first, len(self._tokens)):
            over -= max(self._tokens[place], 0)
            if over <= 0:
                return self._moments[place] + MINUTE_S - now
        return MINUTE_S

    def take(self, tokens: int, now: float, _day: int) -> int:
        """Count what the call is thought to use."""
        self._moments.append(now)
        self._tokens.append(tokens)
        self._sum += tokens
        return self._dropped + len(self._tokens) - 1

    def settle(self, receipt: Receipt, tokens: int | None) -> None:
        """Put what was used in place of what was thought; what has slid out meanwhile stays out."""
        place = self._place_of(receipt)
        if place is not None and tokens is not None:
            tokens = min(tokens, ALL)
            self._sum += tokens - self._tokens[place]
            self._tokens[place] = tokens

    def untake(self, receipt: Receipt) -> None:
        """Used nothing, and is no longer there."""
        place = self._place_of(receipt)
        if place is None:
            return
        self._sum -= self._tokens[place]
        self._tokens[place] = _UNTAKEN
        self._holes += 1
        while len(self._tokens) > self._first and self._tokens[-1] == _UNTAKEN:
            self._tokens.pop()
            self._moments.pop()
            self._holes -= 1

    def _place_of(self, receipt: Receipt) -> int | None:
        """Where its tokens stand, None when they have slid out."""
        if receipt is None:
            return None
        place = int(receipt) - self._dropped
        return place if place >= self._first else None

    def _leave(self, start: int, end: int) -> None:
        going = self._tokens[start:end]
        untaken = going.count(_UNTAKEN) if self._holes else 0
        self._holes -= untaken
        self._sum -= sum(going) - untaken * _UNTAKEN

    def _drop(self, count: int) -> None:
        super()._drop(count)
        del self._tokens[:count]
        self._dropped += count


class Slots(Window):
    """Calls that are open now."""

    name = "parallel"
    ends = True
    __slots__ = ("_opened", "open")

    def __init__(self, leased: int = ALL) -> None:
        super().__init__(leased)
        self.open = 0
        self._opened = 0

    @property
    def mark(self) -> float:
        """How many were ever opened."""
        return self._opened

    def used(self, _now: float = 0, _day: int = 0) -> int:
        """How many are open."""
        return self.open

    def after(self, _tokens: int, _now: float, _day: int) -> int:
        """How many would be."""
        return self.open + 1

    def take(self, _tokens: int, _now: float, _day: int) -> None:
        """Open one."""
        self.open += 1
        self._opened += 1

    def settle(self, _receipt: Receipt, _tokens: int | None) -> None:
        """Close one; whoever calls sees to it that this happens once a call."""
        self.open -= 1

    def untake(self, _receipt: Receipt) -> None:
        """Close one."""
        self.open -= 1


class DayCount(Window):
    """Requests of one UTC day; a later day starts at zero, an earlier one (a clock set back) counts on."""

    name = "day"
    counts = b"requests"
    __slots__ = ("_count", "day", "is_fresh")

    def __init__(self, leased: int = ALL) -> None:
        super().__init__(leased)
        self.day = 0
        self.is_fresh = True
        self._count = 0

    @property
    def mark(self) -> float:
        """The count itself."""
        return self._count

    def start(self, count: int) -> None:
        """Begin the day with what is known to be taken already."""
        self.is_fresh = False
        self._count += count

    def used(self, _now: float, day: int) -> int:
        """Requests taken on that day."""
        if day > self.day:
            self.day = day
            self._count = self.room = 0
            self.is_fresh = True
            self.asked_at = NEVER
            if self.leased != ALL:
                self.leased = 0  # what was leased was yesterday's
        return self._count

    def after(self, _tokens: int, now: float, day: int) -> int:
        """The same, in fewer steps: asked at every call."""
        return (self._count if day <= self.day else self.used(now, day)) + 1

    def take(self, _tokens: int, _now: float, _day: int) -> float:
        """Count one request."""
        self._count += 1
        return self.day

    def untake(self, receipt: Receipt) -> None:
        """Forget a request of that day."""
        if receipt == self.day and self._count:
            self._count -= 1
