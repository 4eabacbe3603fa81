"""How often, how many tokens, how many at once: the windows of one holder (pure; times are given)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import ClassVar

MINUTE_S = 60.0
NEVER = -math.inf
"""`asked_at` of a window of which nothing is known from elsewhere."""
ALL = 1 << 62
"""`leased` where no other process shares the window."""


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


class SlidingMinute(Window):
    """Requests in any sixty seconds of the monotonic clock; remembers one time a request."""

    name = "minute"
    counts = b"requests"
    __slots__ = ("_taken",)

    def __init__(self, leased: int = ALL) -> None:
        super().__init__(leased)
        self._taken: deque[float] = deque()

    @property
    def mark(self) -> float:
        """When the newest was taken."""
        return self._taken[-1] if self._taken else 0

    def used(self, now: float, _day: int = 0) -> int:
        """Requests taken in the last sixty seconds."""
        taken = self._taken
        edge = now - MINUTE_S
        while taken and taken[0] <= edge:
            taken.popleft()
        return len(taken)

    def after(self, _tokens: int, now: float, _day: int) -> int:
        """The same, in fewer steps: asked at every call."""
        taken = self._taken
        return (len(taken) if taken and taken[0] > now - MINUTE_S else self.used(now)) + 1

    def wait_s(self, limit: int, _tokens: int, now: float) -> float:
        """Until the oldest that is in the way slides out."""
        used = self.used(now)
        if not used or not limit:
            return MINUTE_S
        return self._taken[max(used - limit, 0)] + MINUTE_S - now

    def reset_s(self, now: float) -> float:
        """Until the newest slides out."""
        return max(self._taken[-1] + MINUTE_S - now, 0.0) if self._taken else 0.0

    def take(self, _tokens: int, now: float, _day: int) -> float:
        """Count one request."""
        self._taken.append(now)
        return now

    def untake(self, receipt: Receipt) -> None:
        """Forget one request of that moment; it is among the newest."""
        taken = self._taken
        for place in range(len(taken) - 1, -1, -1):
            if taken[place] == receipt:
                del taken[place]
                return


class TokensTaken:
    """The tokens of one call: thought at first, then known."""

    __slots__ = ("moment", "tokens")

    def __init__(self, moment: float, tokens: int) -> None:
        self.moment = moment
        self.tokens = tokens


Receipt = float | TokensTaken | None
"""What `take` gives: the moment or day of a request, the tokens of a call, nothing for a slot."""


class SlidingTokens(Window):
    """Tokens in any sixty seconds: each call at its estimate, and at what it really used once that is known."""

    name = "tokens"
    counts = b"tokens"
    ends = True
    __slots__ = ("_sum", "_taken")

    def __init__(self, leased: int = ALL) -> None:
        super().__init__(leased)
        self._taken: deque[TokensTaken] = deque()
        self._sum = 0

    @property
    def mark(self) -> float:
        """When the newest were taken."""
        return self._taken[-1].moment if self._taken else 0

    def used(self, now: float, _day: int = 0) -> int:
        """Tokens taken in the last sixty seconds."""
        taken = self._taken
        edge = now - MINUTE_S
        while taken and taken[0].moment <= edge:
            one = taken.popleft()
            self._sum -= one.tokens
            one.moment = -math.inf  # what is learnt of it later no longer counts
        return self._sum

    def need(self, tokens: int) -> int:
        """As many as the call is thought to use."""
        return tokens

    def after(self, tokens: int, now: float, _day: int) -> int:
        """The same, in fewer steps: asked at every call."""
        taken = self._taken
        return tokens + (self._sum if taken and taken[0].moment > now - MINUTE_S else self.used(now))

    def wait_s(self, limit: int, tokens: int, now: float) -> float:
        """Until enough of the oldest have slid out; a call larger than the limit never fits, and is told a minute."""
        over = self.used(now) + tokens - limit
        for one in self._taken:
            over -= one.tokens
            if over <= 0:
                return one.moment + MINUTE_S - now
        return MINUTE_S

    def reset_s(self, now: float) -> float:
        """Until the newest slides out."""
        return max(self._taken[-1].moment + MINUTE_S - now, 0.0) if self._taken else 0.0

    def take(self, tokens: int, now: float, _day: int) -> TokensTaken:
        """Count what the call is thought to use."""
        one = TokensTaken(now, tokens)
        self._taken.append(one)
        self._sum += tokens
        return one

    def settle(self, receipt: Receipt, tokens: int | None) -> None:
        """Put what was used in place of what was thought; what has slid out meanwhile stays out."""
        if isinstance(receipt, TokensTaken) and tokens is not None and receipt.moment > -math.inf:
            self._sum += tokens - receipt.tokens
            receipt.tokens = tokens

    def untake(self, receipt: Receipt) -> None:
        """Used nothing, and is no longer there."""
        self.settle(receipt, 0)
        if isinstance(receipt, TokensTaken) and receipt in self._taken:
            self._taken.remove(receipt)


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
