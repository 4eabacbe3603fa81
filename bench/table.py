"""Medians of rounds, ratios taken within a round, and the table of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Round = Mapping[str, Mapping[str, float]]
"""What one round found: target → measure → value."""


def median_of(rounds: Sequence[Round], target: str, measure: str) -> float | None:
    """The median over the rounds that have it, None when none has."""
    return _median(one[target][measure] for one in rounds if measure in one.get(target, {}))


def ratio_of(rounds: Sequence[Round], target: str, base: str, measure: str) -> float | None:
    """The median of the ratios to `base`, each within one round: what slows the machine slows both."""
    return _paired(rounds, target, base, measure, lambda value, against: value / against if against else None)


def ratio_within(rounds: Sequence[Round], target: str, measure: str, base: str) -> float | None:
    """The median of the ratios of one measure of a target to another, each within one round."""
    both = (one[target] for one in rounds if {measure, base} <= one.get(target, {}).keys())
    return _median(one[measure] / one[base] for one in both if one[base])


def added_of(rounds: Sequence[Round], target: str, base: str, measure: str) -> float | None:
    """The median of what `target` adds to `base`, each within one round."""
    return _paired(rounds, target, base, measure, lambda value, against: value - against)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading and the value of a target's row."""

    heading: str
    value: Callable[[str], float | None]
    digits: int = 1


def markdown(targets: Sequence[str], columns: Sequence[Column]) -> str:
    """A table in markdown; what was not measured is a dash."""
    lines = [
        f"| | {' | '.join(column.heading for column in columns)} |",
        f"|---|{'--:|' * len(columns)}",
        *(f"| {target} | {' | '.join(_cell(column, target) for column in columns)} |" for target in targets),
    ]
    return "\n".join(lines)


def number(value: float | None, digits: int) -> str:
    """A value with thousands marked, or a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def _cell(column: Column, target: str) -> str:
    return number(column.value(target), column.digits)


def _paired(
    rounds: Sequence[Round], target: str, base: str, measure: str, of: Callable[[float, float], float | None]
) -> float | None:
    both = (one for one in rounds if measure in one.get(target, {}) and measure in one.get(base, {}))
    found = (of(one[target][measure], one[base][measure]) for one in both)
    return _median(value for value in found if value is not None)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None
