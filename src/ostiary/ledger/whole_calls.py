"""Puts the attempts of calls together again: the ledger gets them one by one, and none says that it was the last."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ostiary.ledger.events import Event


class WholeCalls:
    """Attempts that failed, until their call has ended: only after one of those another may follow."""

    def __init__(self) -> None:
        self.still_open: Callable[[], Collection[str]] = frozenset
        """The ids of the calls that are being answered now."""
        self.settled: Callable[[], int] = lambda: 0
        """How many attempts have been settled so far."""
        self.written: Callable[[], int] = lambda: 0
        """How many of them have been heard of here."""
        self._attempts: dict[str, list[Event]] = {}
        self._ends_with: dict[str, int] = {}
        """By calls that have ended: with which settlement at the latest all of their attempts are here."""
        self.waiting = 0
        """Attempts that are kept."""

    def add(self, event: Event) -> list[Event] | None:
        """One more attempt; all of its call if nothing can follow."""
        if event.status == "error":
            self.keep(event)
            return None
        return [*self.forget(event.request_id), event]

    def keep(self, event: Event) -> None:
        """One more attempt, after which others may come."""
        self._attempts.setdefault(event.request_id, []).append(event)
        self.waiting += 1

    def take_ended(self) -> list[list[Event]]:
        """The calls that have ended meanwhile, with the last of their attempts a failed one, too."""
        if not self._attempts:
            return []
        still_open, settled, written = self.still_open(), self.settled(), self.written()
        for id in self._attempts.keys() - self._ends_with.keys() - set(still_open):
            self._ends_with[id] = settled
        return [self.forget(id) for id in [id for id, last in self._ends_with.items() if last <= written]]

    def take_all(self) -> list[list[Event]]:
        """Everything that is here, when no call can be open any more."""
        return [self.forget(id) for id in list(self._attempts)]

    def forget(self, request_id: str) -> list[Event]:
        """Let go of a call; what was here of it."""
        self._ends_with.pop(request_id, None)
        found = self._attempts.pop(request_id, [])
        self.waiting -= len(found)
        return found
