"""The known names nearest to a mistyped one, found in about a millisecond among thousands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

_LONGEST: Final = 100
_LOOKED_AT: Final = 24
_NEAR_ENOUGH: Final = 0.5


class Speller:
    """An index of names by their runs of three characters: only names sharing some are compared at all."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._holders: dict[str, list[int]] = {}
        for number, name in enumerate(self._names):
            for run in _runs(name):
                self._holders.setdefault(run, []).append(number)

    def near(self, name: str, n: int = 3) -> tuple[str, ...]:
        """The `n` names most like this one, nearest first; none when nothing is like it."""
        wanted = name[:_LONGEST].casefold()
        shared: Counter[int] = Counter()
        for run in _runs(wanted):
            shared.update(self._holders.get(run, ()))
        # Of names that share equally much, the shorter ones are the likelier.
        likely = sorted(shared, key=lambda number: (-shared[number], len(self._names[number])))[:_LOOKED_AT]
        scored = [(SequenceMatcher(None, wanted, self._names[number].casefold()).ratio(), number) for number in likely]
        best = sorted((-score, number) for score, number in scored if score >= _NEAR_ENOUGH)
        return tuple(self._names[number] for _, number in best[:n])


def _runs(name: str) -> set[str]:
    framed = f"^{name.casefold()}$"
    return {framed[start : start + 3] for start in range(max(1, len(framed) - 2))}
