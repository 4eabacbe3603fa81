"""The waterfall of a call as bars: where each step begins and how long it lasts, in thousandths of the whole (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ostiary.ledger.waterfall import Step

WIDTH: Final = 1_000
_THINNEST: Final = 4
"""A step of microseconds in a call of seconds is still to be seen."""
_SAYS: Final = {
    "identify": "Who is calling",
    "admit": "Whether it may",
    "reserve": "Rates and money set aside",
    "attempt": "Waiting for the provider",
    "relay": "Passing the answer on",
    "settle": "Writing down what it cost",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One step. `x` and `width` are in thousandths of the whole."""

    name: str
    says: str
    attempt: int | None
    x: int
    width: int
    begins: str
    lasts: str


def drawn(steps: Sequence[Step]) -> list[Bar]:
    """The bars of a call in their order; none where no times were noted."""
    whole = max((step.begins_us + step.lasts_us for step in steps), default=0)
    return [_bar(step, max(whole, 1)) for step in steps]


def _bar(step: Step, whole: int) -> Bar:
    width = max(step.lasts_us * WIDTH // whole, _THINNEST)
    x = min(step.begins_us * WIDTH // whole, WIDTH - width)
    says = _SAYS.get(step.name, "")
    return Bar(step.name, says, step.attempt, max(x, 0), width, short(step.begins_us), short(step.lasts_us))


def short(us: int) -> str:
    """Microseconds to the digits that matter: `8 µs`, `1.2 ms`, `3.41 s`."""
    if us < 1_000:  # noqa: PLR2004 - a millisecond
        return f"{us} µs"
    if us < 1_000_000:  # noqa: PLR2004 - a second
        return f"{us / 1_000:.1f} ms".replace(".0 ", " ")
    return f"{us / 1_000_000:.2f} s"
