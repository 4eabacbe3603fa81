"""Counts the times at which what is known of health became something else, so that what follows from it can be kept."""

from __future__ import annotations

from ostiary.gateway.incidents import Incidents
from ostiary.gateway.remaining import Remaining
from ostiary.gateway.troubles import Troubles


class Epoch:
    """Another number once anything has changed or has come to its end; to ask for it is cheap, which calls do."""

    def __init__(self, troubles: Troubles, incidents: Incidents, remaining: Remaining) -> None:
        self._troubles = troubles
        self._incidents = incidents
        self._remaining = remaining
        self._count = self._changes = 0
        self._since = 0
        self._until: float = 0

    def number(self, at: int) -> int:
        """The same for as long as nothing is otherwise."""
        changes = self._troubles.changes + self._incidents.changes + self._remaining.changes
        if changes != self._changes or not self._since <= at < self._until:
            self._count += 1
            self._changes, self._since = changes, at
            self._until = min(one.turn_at(at) for one in (self._troubles, self._incidents, self._remaining))
        return self._count
