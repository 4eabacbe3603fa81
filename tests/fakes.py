"""A clock that tests set, for parts that are tested without a process."""

from __future__ import annotations

import asyncio

_START = 1_795_200_000_000
"""2026-11-20 18:40 UTC."""


class SetClock:
    """Stands still until it is moved."""

    def __init__(self, at: int = _START) -> None:
        self.at = at
        self.mono = 1_000.0

    def now(self) -> int:
        return self.at

    def monotonic(self) -> float:
        return self.mono

    async def sleep(self, seconds: float) -> None:
        """Waits for real, so that loops in the background do not spin."""
        await asyncio.sleep(seconds)

    def move(self, seconds: float) -> None:
        """Ahead, or back."""
        self.at += int(seconds * 1000)
        self.mono += max(seconds, 0)
