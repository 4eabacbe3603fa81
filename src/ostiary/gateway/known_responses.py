"""The responses that this gateway has passed on lately, and which provider key knows each of them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

_MOST: Final = 50_000
_MOST_MISSED: Final = 10_000
_MISSED_S: Final = 1.0
"""How long nobody asks the ledger again for what it did not have: a response is not given out before it is known."""


class Bound(NamedTuple):
    """Who knows a response: only this provider key can be asked about it."""

    provider_key_id: str
    provider: str
    model: str


class KnownResponses:
    """By organization and id, the last used kept longest; what is forgotten here is in the ledger."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, str], Bound] = OrderedDict()
        self._missed: OrderedDict[tuple[str, str], float] = OrderedDict()

    def note(self, organization_id: str, response_id: str, bound: Bound) -> None:
        """Remember a response."""
        self._missed.pop((organization_id, response_id), None)
        self._known[organization_id, response_id] = bound
        self._known.move_to_end((organization_id, response_id))
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def find(self, organization_id: str, response_id: str) -> Bound | None:
        """Who knows it, as far as is remembered."""
        found = self._known.get((organization_id, response_id))
        if found is not None:
            self._known.move_to_end((organization_id, response_id))
        return found

    def miss(self, organization_id: str, response_id: str, now: float) -> None:
        """Not even the ledger knows it."""
        self._missed[organization_id, response_id] = now + _MISSED_S
        self._missed.move_to_end((organization_id, response_id))
        if len(self._missed) > min(self._most, _MOST_MISSED):
            self._missed.popitem(last=False)

    def is_missed(self, organization_id: str, response_id: str, now: float) -> bool:
        """Whether the ledger did not have it a moment ago."""
        return self._missed.get((organization_id, response_id), now) > now

    def forget(self, organization_id: str, response_id: str) -> None:
        """It was deleted."""
        self._known.pop((organization_id, response_id), None)
