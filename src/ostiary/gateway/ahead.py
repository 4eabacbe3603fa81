"""What is ahead of a call that has failed: other keys and targets, each in turn, and then what may be well again."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Final

from ostiary.clock import SECOND_MS, Clock
from ostiary.gateway.attempt import Failure
from ostiary.gateway.target import Place, Route, Target
from ostiary.providers import quota

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 2.0
_LONGEST_WAIT_S: Final = 5.0
"""Who says that it wants to be left alone for longer is not waited for: the caller hears of it instead."""
_HALF: Final = 0.5


def next_of(places: Sequence[Place], tried: Collection[Place], attempts: int) -> int:
    """Which of what is left comes next: the first, unless every attempt that remains is due to a place untried."""
    untried = {place for place in places if place not in tried}
    if len(untried) < attempts:
        return 0
    return next((number for number, place in enumerate(places) if place in untried), 0)


def pause_s(number: int, chance: float) -> float:
    """How long to wait before a key is tried again for that many times, from half of it to all by `chance`."""
    return min(_FIRST_PAUSE_S * float(2**number), _LONGEST_PAUSE_S) * (_HALF + chance * _HALF)


class Ahead:
    """Of one call. `ends_at` is when it has taken so long that nothing is tried again."""

    def __init__(self, route: Route, others: Sequence[Target], clock: Clock, ends_at: float) -> None:
        self._attempts = route.attempts
        self._is_of_endpoint = route.endpoint is not None
        self._left = list(others)
        self._again: list[tuple[Target, float]] = []
        """What failed for a moment, and not before when it may be tried again; asked for by endpoints only."""
        self._tried: set[Place] = set()
        self._pauses = 0
        self._clock = clock
        self._ends_at = ends_at

    @property
    def is_empty(self) -> bool:
        """Whether nothing comes after what was taken last; what failed already is no reason to hurry on."""
        return not self._left

    def note(self, target: Target, failure: Failure, *, is_of_provider: bool, may_be_repeated: bool) -> None:
        """Learn from one failure. `may_be_repeated` is whether what was sent may be sent to the same server again."""
        self._attempts -= 1
        self._tried.add(target.place)
        verdict = failure.verdict
        if verdict.next == "next_target":  # who asks for one model at one provider has nothing else left
            self._left = [one for one in self._left if one.place != target.place]
        elif verdict.scope == "caller":
            self._left, self._again = [], []
        if is_of_provider or verdict.scope == "provider":  # its other keys come after everybody else's
            self._left.sort(key=target.is_beside)
        if not may_be_repeated:
            self._left = [one for one in self._left if not target.is_beside(one)]
            self._again = [one for one in self._again if not target.is_beside(one[0])]
        elif verdict.next == "same_key" and failure.tokens is None and self._is_of_endpoint:
            wait_s = self._wait_s(failure)
            if wait_s is not None:
                self._again.append((target, self._clock.monotonic() + wait_s))

    def take(self) -> tuple[Target, float] | None:
        """The next to try, and how many seconds from now; None where there is none, or not in this call's time."""
        if self._attempts <= 0:
            return None
        if self._left:
            return self._left.pop(next_of([one.place for one in self._left], self._tried, self._attempts)), 0.0
        if not self._again:
            return None
        target, ready_at = self._again.pop(0)
        chance = random.random()  # noqa: S311 - spreads those who fail together; guards nothing
        now = self._clock.monotonic()
        wait_s = max(pause_s(self._pauses, chance), ready_at - now)
        self._pauses += 1
        return (target, wait_s) if now + wait_s < self._ends_at else None

    def _wait_s(self, failure: Failure) -> float | None:
        """How long the provider wants to be left alone; None where that is too long, or it wants no second try."""
        if failure.headers.get("x-should-retry").lower() == "false":
            return None
        at = self._clock.now()
        until = quota.resets_at(failure.headers, failure.body, at)
        wait_s = 0.0 if until is None else (until - at) / SECOND_MS
        return wait_s if wait_s <= _LONGEST_WAIT_S else None
