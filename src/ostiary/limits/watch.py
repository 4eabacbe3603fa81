"""Which of the processes that share limits are still heard of (pure; by one's own monotonic clock alone)."""

from __future__ import annotations

from collections.abc import Mapping

SURE_S = 60.0
"""After so long unheard, a process must not use what it leased of a window…"""
_LOST_S = 120.0
"""…and after so long the others take it."""
_LIVE_S = 15.0


class Watch:
    """When each heartbeat was last seen to change, one's own included: as the others see it."""

    def __init__(self, owner: str, now: float) -> None:
        self._owner = owner
        self._looked_at = now
        self._seen: dict[str, tuple[int, float]] = {}
        self.sure_until = now + SURE_S
        """Until then the others know that this process lives, by the monotonic clock."""

    def beat(self, at: int, now: float) -> None:
        """Note a heartbeat of one's own that was written after `now`."""
        self._seen[self._owner] = (at, now)
        self.sure_until = now + SURE_S

    def hear(self, beats: Mapping[str, int], looked_at: float) -> None:
        """The heartbeats of all that have not closed, as they stood a moment after `looked_at`."""
        seen = {}
        for owner, beat in beats.items():
            known = self._seen.get(owner)
            # One's own may be as old as the look before this one; the others' are taken to be new.
            since = self._looked_at if owner == self._owner else looked_at
            seen[owner] = known if known is not None and known[0] == beat else (beat, since)
        if self._owner in seen:
            self.sure_until = seen[self._owner][1] + SURE_S
        self._seen = seen
        self._looked_at = looked_at

    def count_live(self, now: float) -> int:
        """How many share, this one among them."""
        others = (since for owner, (_, since) in self._seen.items() if owner != self._owner)
        return 1 + sum(1 for since in others if now - since <= _LIVE_S)

    def list_silent(self, now: float) -> list[tuple[str, int]]:
        """Others that have not been heard of for too long, with their last heartbeat."""
        return [
            (owner, beat)
            for owner, (beat, since) in self._seen.items()
            if owner != self._owner and now - since > _LOST_S
        ]
