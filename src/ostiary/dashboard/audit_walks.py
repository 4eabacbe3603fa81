"""Walks through the audit log that pages have begun, kept between one portion and the next."""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from ostiary.db.database import Database
from ostiary.ids import new_id
from ostiary.ledger.verify import Walk

_MOST: Final = 8
"""At once; the oldest makes room. Whoever began it begins anew."""


class Walks:
    """By a name that only who began one was told."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, Walk]] = {}

    def keep(self, actor_id: str, walk: Walk, at: int) -> str:
        """Until the next portion is asked for, by the name that this gives."""
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        name = new_id("walk", at)
        self._known[name] = (actor_id, walk)
        return name

    def take(self, name: str, actor_id: str) -> Walk | None:
        """What this actor has begun under a name; nobody else can go on with it meanwhile."""
        whose, walk = self._known.get(name, ("", None))
        if whose != actor_id:
            return None
        del self._known[name]
        return walk


_WALKS: Final[WeakKeyDictionary[Database, Walks]] = WeakKeyDictionary()
"""They go with the database that they walk through."""


def walks_of(database: Database) -> Walks:
    """Those through this database."""
    return _WALKS.setdefault(database, Walks())
