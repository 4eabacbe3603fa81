"""What a connection has to send, kept until the loop has gone round once."""

from __future__ import annotations

import asyncio
from typing import Final

_MOST_KEPT: Final = 65_536
"""Bytes from which on nothing is kept back: then whoever writes must hear at once that the reader is slow."""


class Outgoing:
    """The sending side of one connection: everything written in one round of the loop goes out together, after it.

    To send wakes the peer, which has gone to sleep again before the next connection's turn; sent one behind the other
    they find it awake. Nothing is late by it: the loop comes round before it waits for anything.
    """

    __slots__ = ("_kept", "_loop", "_transport", "pieces")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self.pieces: list[bytes] = []
        """What is kept until this round is over."""
        self._kept = 0

    def write(self, data: bytes) -> None:
        """Send it with the rest of this round; nothing if the connection is closing."""
        if not self.pieces:
            self._loop.call_soon(self.flush)
        self.pieces.append(data)
        self._kept += len(data)
        if self._kept >= _MOST_KEPT:
            self.flush()

    def flush(self) -> None:
        """Send it now."""
        pieces = self.pieces
        if not pieces:
            return
        self.pieces = []
        self._kept = 0
        if not self._transport.is_closing():
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def close(self) -> None:
        """Send what there is, and hang up."""
        self.flush()
        self._transport.close()

    def abort(self) -> bool:
        """Hang up at once; whether anything of what was written has not been sent."""
        is_unsent = bool(self.pieces)
        self.pieces = []
        self._kept = 0
        self._transport.abort()
        return is_unsent
