"""Where the time of a call went, step by step, out of what its attempts have noted (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ostiary.ledger.reports import Trace

_BEFORE: Final = ("identify", "admit", "reserve")
_AFTER: Final = ("relay", "settle")
_US: Final = 1_000


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a call, in microseconds since the first of them began. `attempt` is None before the first one."""

    name: str
    attempt: int | None
    begins_us: int
    lasts_us: int


def steps_of(attempts: Sequence[Trace]) -> list[Step]:
    """The steps of one call in their order: identify, admit, reserve, and for each attempt it, its relay, its settling.

    When an attempt began is known to the millisecond; how long a step lasted, to the microsecond. A step that was not
    reached, or not noted, is left out.
    """
    if not attempts:
        return []
    return list(_steps(sorted(attempts, key=lambda one: one.attempt)))


def _steps(attempts: Sequence[Trace]) -> Iterator[Step]:
    first = attempts[0]
    passed = 0
    for name in _BEFORE:
        lasts = _noted(first.timings, name)
        if lasts is not None:
            yield Step(name, None, passed, lasts)
            passed += lasts
    for one in attempts:
        begins = max(passed, passed + (one.at - first.at) * _US)
        waited = _noted(one.timings, "attempt")
        lasts = one.latency_ms * _US if waited is None else waited
        yield Step("attempt", one.attempt, begins, lasts)
        begins += lasts
        for name in _AFTER:
            after = _noted(one.timings, name)
            if after is not None:
                yield Step(name, one.attempt, begins, after)
                begins += after


def _noted(timings: Mapping[str, Any], name: str) -> int | None:
    found = timings.get(f"{name}_us")
    return max(found, 0) if isinstance(found, int) else None
