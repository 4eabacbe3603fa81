"""The calls that are open now, and the end of those whose key was stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from ostiary.clock import Clock
from ostiary.gateway.caller import Caller
from ostiary.gateway.directory import Directory
from ostiary.gateway.exchange import Exchange

_LOOK_S: Final = 1.0


class Open(Protocol):
    """A call that is being answered."""

    caller: Caller
    exchange: Exchange

    def stop(self) -> None:
        """End it."""


@dataclass(slots=True, eq=False)
class OpenAnswer:
    """One that has no book, because it costs nothing."""

    caller: Caller
    exchange: Exchange
    is_stopped: bool = False

    def stop(self) -> None:
        """End it: its key was stopped."""
        if self.exchange.task is not None and not self.is_stopped and not self.exchange.is_ended:
            self.is_stopped = True
            self.exchange.task.cancel()


class OpenCalls:
    """A key that is stopped, expires or is deleted ends its open calls too, within a second or so of being heard of."""

    def __init__(self) -> None:
        self._open: set[Open] = set()
        self.add = self._open.add
        self.discard = self._open.discard

    def ids(self) -> set[str]:
        """The request ids of all of them."""
        return {call.exchange.request_id for call in self._open}

    async def run(self, directory: Directory, clock: Clock) -> None:
        """Until cancelled, look once a second."""
        while True:
            await clock.sleep(_LOOK_S)
            for call in list(self._open):
                if not directory.is_live(call.caller):
                    call.stop()
