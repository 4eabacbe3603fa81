"""Recosts that pages have begun: each goes on to its end whoever looks, and says meanwhile how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger.recost import Tally
from ostiary.providers.prices import PriceBook

_MOST: Final = 8
"""Kept at once; the oldest makes room. It goes on, but nobody is told."""


@dataclass(slots=True)
class Recost:
    """One of them. `tallies` and `refusal` are there when it is over; `wished` is the form that began it."""

    id: str
    actor_id: str
    wished: Mapping[str, str]
    book: PriceBook
    is_applied: bool
    done: int = 0
    total: int = 0
    changed: int = 0
    tallies: list[Tally] | None = None
    refusal: Refusal | None = None

    def note(self, done: int, total: int, changed: int) -> None:
        """How many calls were looked at, of how many, and how many of them cost something else."""
        self.done, self.total, self.changed = done, total, changed

    @property
    def is_running(self) -> bool:
        """Nothing came of it yet."""
        return self.tallies is None and self.refusal is None


class Recosts:
    """By a name that only who began one was told."""

    def __init__(self) -> None:
        self._known: dict[str, Recost] = {}

    def begin(self, actor_id: str, wished: Mapping[str, str], book: PriceBook, at: int, *, is_applied: bool) -> Recost:
        """One more."""
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        made = Recost(new_id("recost", at), actor_id, wished, book, is_applied)
        self._known[made.id] = made
        return made

    def find_running(
        self, actor_id: str, wished: Mapping[str, str], book: PriceBook, *, is_applied: bool
    ) -> Recost | None:
        """One of this actor that does just this already, by the same prices."""
        asked = (actor_id, wished, is_applied)
        for one in self._known.values():
            is_same = (one.actor_id, one.wished, one.is_applied) == asked and one.book.has_same_overrides(book)
            if is_same and one.is_running:
                return one
        return None

    def find(self, id: str, actor_id: str) -> Recost | None:
        """What this actor has begun under a name, at this gateway."""
        found = self._known.get(id)
        return found if found is not None and found.actor_id == actor_id else None


_RECOSTS: Final[WeakKeyDictionary[Database, Recosts]] = WeakKeyDictionary()
"""They go with the database that they write."""


def recosts_of(database: Database) -> Recosts:
    """Those of this database."""
    return _RECOSTS.setdefault(database, Recosts())
