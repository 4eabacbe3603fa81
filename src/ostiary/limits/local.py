"""Windows counted in the memory of this process."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Final

from ostiary.clock import Clock, day_ends, day_of
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget
from ostiary.limits.windows import ALL, NEVER, DayCount, Receipt, SlidingMinute, SlidingTokens, Slots, Window

_KINDS: Final[dict[str, type[Window]]] = {one.name: one for one in (SlidingMinute, DayCount, SlidingTokens, Slots)}
_SOON_S: Final = 2.0
"""When to try again what other processes may give back any moment."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose limits: `scope` is agent_key or organization. None is no limit."""

    scope: str
    id: str
    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    parallel: int | None = None

    def limits(self) -> dict[str, int]:
        """What is limited, by the name of its window, in the order in which it is asked."""
        named = {"minute": self.rpm, "day": self.rpd, "tokens": self.tpm, "parallel": self.parallel}
        return {name: limit for name, limit in named.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits a call must fit, all of them: those of each holder, and (scope, id, budget) of every hard cap.

    Holders without a limit and budgets without a cap are left out when it is made: they cost a call nothing.
    """

    key_id: str
    holders: tuple[Holder, ...] = ()
    budgets: tuple[tuple[str, str, Budget], ...] = ()

    def __post_init__(self) -> None:
        limited = tuple(holder for holder in self.holders if holder.limits())
        hard = tuple(one for one in self.budgets if one[2].cap_nano is not None)
        object.__setattr__(self, "holders", limited)
        object.__setattr__(self, "budgets", hard)


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


class Book:
    """The windows of one holder in this process."""

    __slots__ = ("_marks", "_still_since", "asking", "edits", "holder", "limited", "windows")

    def __init__(self) -> None:
        self._marks: list[float] = []
        self._still_since = 0.0
        self.holder: Holder | None = None
        self.windows: dict[str, Window] = {}
        self.limited: tuple[tuple[Window, int], ...] = ()
        self.asking = asyncio.Lock()
        """One question to the authority at a time."""
        self.edits = 0
        """How often its limits were edited: what was asked before an edit says nothing after it."""

    def fit(self, holder: Holder, leased: int) -> None:
        """Heed the limits as they are now. A window once open stays: calls that were taken in it end in it."""
        self.holder = holder
        for name in holder.limits():
            if name not in self.windows:
                self.windows[name] = _KINDS[name](leased)
        self.limited = tuple((self.windows[name], limit) for name, limit in holder.limits().items())

    def forget_leases(self) -> None:
        """What is this process's own has to be asked again; what it has taken stays counted."""
        for window in self.windows.values():
            window.leased = 0
            window.asked_at = NEVER

    def idle_s(self, now: float) -> float:
        """How long nothing was taken, as far as was seen when this was asked before."""
        marks = [window.mark for window in self.windows.values()]
        if len(marks) != len(self._marks) or any(new > old for new, old in zip(marks, self._marks, strict=True)):
            self._still_since = now
        self._marks = marks
        return now - self._still_since

    def is_in_use(self, now: float) -> bool:
        """Whether anything counts still but the requests of the day, which are kept elsewhere too."""
        return any(window.used(now, 0) for window in self.windows.values() if not isinstance(window, DayCount))


class Fitted:
    """Every limited window of an allowance, found once: a call walks through them in order."""

    __slots__ = ("allowance", "checks", "ending", "told", "windows")

    def __init__(self, allowance: Allowance, checks: tuple[tuple[Window, int], ...]) -> None:
        self.allowance = allowance
        self.checks = checks
        self.windows = tuple(window for window, _ in checks)
        self.ending = tuple((place, window) for place, window in enumerate(self.windows) if window.ends)
        """Those to which the end of a call matters, with their places."""
        units = dict.fromkeys(window.counts for window in self.windows if window.counts is not None)
        places = enumerate(checks)
        told = [(window.counts, (place, window, limit)) for place, (window, limit) in places]
        self.told = tuple((unit, tuple(check for counts, check in told if counts == unit)) for unit in units)
        """What headers tell of: for each thing that is counted, the windows that count it, with places and limits."""

    def settle(self, receipts: list[Receipt], tokens: int | None) -> None:
        """The call is over: slots are free again, tokens are what they were."""
        for place, window in self.ending:
            window.settle(receipts[place], tokens)

    def untake(self, receipts: list[Receipt]) -> None:
        """The call was refused after all, and leaves no trace."""
        for window, receipt in zip(self.windows, receipts, strict=True):
            window.untake(receipt)


class LocalCounters:
    """What every limited holder has taken, and whether one call more fits."""

    def __init__(self, clock: Clock, *, is_shared: bool = False) -> None:
        """Minutes slide on the monotonic clock; the day is the clock's UTC day.

        When the windows are shared with other processes, nothing is this one's own until it is leased.
        """
        self._clock = clock
        self._leased = 0 if is_shared else ALL
        self._fitted: dict[str, Fitted] = {}
        self.books: dict[str, Book] = {}
        self.sure_until = math.inf
        """Until then this process's own part is certainly its own."""

    def book_of(self, holder: Holder) -> Book:
        """The book of a holder, opened or brought up to date if need be."""
        book = self.books.get(holder.id)
        if book is None:
            book = self.books[holder.id] = Book()
        if book.holder is not holder:
            book.fit(holder, self._leased)
        return book

    def close(self, holder_id: str) -> None:
        """Forget a holder of whom nothing was heard for long; the next call opens a new book."""
        self.books.pop(holder_id, None)
        self._fitted.clear()

    def fit(self, allowance: Allowance) -> Fitted:
        """The windows of an allowance, looked up anew when it is not the one that this key had at its last call."""
        fitted = self._fitted.get(allowance.key_id)
        if fitted is None or fitted.allowance is not allowance:
            checks = tuple(check for holder in allowance.holders for check in self.book_of(holder).limited)
            fitted = self._fitted[allowance.key_id] = Fitted(allowance, checks)
        return fitted

    def judge(self, fitted: Fitted, tokens: int, now: float, day: int) -> list[int] | Holder:
        """What each window would count with this call in it; or the first holder of whose windows more must be leased.

        Refuses with 429 where the limit itself is in the way. Counts nothing.
        """
        if now > self.sure_until and fitted.checks:
            return fitted.allowance.holders[0]
        counts = []
        for window, limit in fitted.checks:
            after = window.after(tokens, now, day)
            if after > limit:
                raise self.refuse(self._holder_of(fitted, window), window, limit, tokens)
            if after > window.leased:
                return self._holder_of(fitted, window)
            counts.append(after)
        return counts

    def _holder_of(self, fitted: Fitted, window: Window) -> Holder:
        return next(holder for holder in fitted.allowance.holders if window in self.book_of(holder).windows.values())

    def refuse(self, holder: Holder, window: Window, limit: int, tokens: int) -> Refusal:
        """Why a call does not fit a window, and when to try again."""
        at, now = self._clock.now(), self._clock.monotonic()
        need, used = window.need(tokens), self._pace(window, limit, now, at).used
        if window.name == "day":
            wait = (day_ends(at) - at) / 1000
        elif window.used(now, day_of(at)) + need > limit:
            wait = window.wait_s(limit, tokens, now)
        else:
            wait = min(window.wait_s(max(window.leased, 0), tokens, now), _SOON_S)
        wait_s = max(math.ceil(wait), 1)
        whose = " of the organization" if holder.scope == "organization" else ""
        code, text = _WORDS[window.name]
        message = text.format(after=max(used, limit - need + 1) + need, limit=limit, whose=whose)
        if need > limit > 0:
            message += " No call may be as large as this one: lower its max_tokens."
        return Refusal(
            code,
            f"{message} Try again in {wait_s} s.",
            headers=((b"retry-after", b"%d" % wait_s),),
            scope=holder.scope,
            limit=limit,
            retry_after_s=wait_s,
        )

    # ---- how it stands -----------------------------------------------------------------------------------------

    def pace(self, allowance: Allowance) -> list[tuple[Holder, dict[str, Pace]]]:
        """How each limited window of each limited holder stands, by name: `minute`, `day`, `tokens`, `parallel`."""
        now, at = self._clock.monotonic(), self._clock.now()
        return [
            (
                holder,
                {window.name: self._pace(window, limit, now, at) for window, limit in self.book_of(holder).limited},
            )
            for holder in allowance.holders
        ]

    @staticmethod
    def _pace(window: Window, limit: int, now: float, at: int) -> Pace:
        used = window.used(now, day_of(at))
        if window.is_known and window.leased + window.room < limit:
            used += limit - window.leased - window.room  # what others have of it is not to be had here
        reset_s = (day_ends(at) - at) / 1000 if window.name == "day" else window.reset_s(now)
        return Pace(limit, used, reset_s)


_WORDS: Final = {
    "minute": ("rate_limit_exceeded", "Rate limit exceeded: {after}/{limit} requests per minute{whose}."),
    "day": ("daily_rate_limit_exceeded", "Daily rate limit exceeded: {after}/{limit} requests per day{whose}."),
    "tokens": ("token_limit_exceeded", "Token limit exceeded: {after}/{limit} tokens per minute{whose}."),
    "parallel": ("too_many_parallel_requests", "Too many requests in parallel: {after}/{limit}{whose}."),
}
