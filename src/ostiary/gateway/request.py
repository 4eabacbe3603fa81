"""One request as it comes in: its head, its body, and whether its caller is still there."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from ostiary.errors import Refusal

Headers = list[tuple[bytes, bytes]]

MAX_BODY = 10 * 1024 * 1024
_HIGH_WATER: Final = 65_536
"""Bytes of a body that lie here before anybody asks for it; then the socket waits."""


class Wire(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    is_stuck: bool

    async def drain(self) -> None:
        """Wait until the reader has caught up."""

    def ask_for_body(self, *, is_expected: bool) -> None:
        """Read on; with `is_expected` the caller waits to be told to."""

    def hold_back(self) -> None:
        """Read no more for now."""

    def has_ended(self, exchange: Request) -> None:
        """The answer is complete: the connection is the next request's."""


class Request:
    """What the steps read of a request.

    `repeated` holds the headers that came a second time. `peer` is who connected, `address` who is meant by it.
    """

    __slots__ = (
        "_is_watched",
        "_parts",
        "_size",
        "_waiter",
        "_wire",
        "address",
        "headers",
        "is_ended",
        "is_gone",
        "is_started",
        "is_whole",
        "keep_alive",
        "method",
        "path",
        "peer",
        "query",
        "repeated",
        "request_id",
        "task",
        "version",
    )

    def __init__(  # noqa: PLR0913 - one argument a part of the head
        self,
        wire: Wire,
        method: str,
        path: str,
        query: bytes,
        headers: dict[bytes, bytes],
        repeated: Headers,
        *,
        version: str = "1.1",
        keep_alive: bool = True,
        peer: str | None = None,
    ) -> None:
        self._wire = wire
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.repeated = repeated
        self.version = version
        self.keep_alive = keep_alive
        self.peer = peer
        self.address = peer
        self.request_id = ""
        self.is_whole = False
        self.is_started = False
        self.is_ended = False
        self.is_gone = False
        self._is_watched = False
        self.task: asyncio.Task[None] | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    def all_of(self, name: bytes) -> list[bytes]:
        """Every value of a header, in the order they came."""
        first = self.headers.get(name)
        return [] if first is None else [first, *(value for other, value in self.repeated if other == name)]

    # ---- the request -------------------------------------------------------------------------------------------

    async def read_body(self, wait_s: float) -> bytes:
        """The whole body, at most 10 MB; `wait_s` is for all of it."""
        if int(self.headers.get(b"content-length", b"0")) > MAX_BODY:
            raise _too_large()
        if not self.is_whole:
            try:
                async with asyncio.timeout(wait_s):
                    await self._read_rest()
            except TimeoutError:
                raise Refusal("request_timeout", headers=((b"connection", b"close"),)) from None
        if self._size > MAX_BODY:
            raise _too_large()
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def peek_body(self, wait_s: float) -> bytes:
        """The whole body, which can be read again."""
        body = await self.read_body(wait_s)
        self._parts = [body]
        return body

    async def _read_rest(self) -> None:
        self._wire.ask_for_body(is_expected=self.headers.get(b"expect", b"").lower() == b"100-continue")
        while not self.is_whole:
            if self.is_gone:
                raise asyncio.CancelledError  # the caller hung up in the middle of its own request
            if self._size > MAX_BODY:
                raise _too_large()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def take_in(self, data: bytes) -> None:
        """A piece of the body has come; what comes after the answer is thrown away."""
        if self.is_ended:
            return
        self._parts.append(data)
        self._size += len(data)
        if self._waiter is not None:
            self._wake()
        elif self._size > _HIGH_WATER:
            self._wire.hold_back()

    def complete(self) -> None:
        """The body has ended."""
        self.is_whole = True
        if self._waiter is not None:
            self._wake()

    def lose(self) -> None:
        """The caller's connection is gone."""
        self.is_gone = True
        self._wake()
        if self._is_watched and not self.is_ended and self.task is not None:
            self.task.cancel()
        self._is_watched = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def watch(self) -> None:
        """Have the task of this request cancelled when the caller's connection goes before the answer has ended.

        Raises CancelledError when it has gone already.
        """
        if self.is_gone and not self.is_ended:
            raise asyncio.CancelledError
        self._is_watched = True

    def unwatch(self) -> None:
        """From here on the task ends by itself."""
        self._is_watched = False


def _too_large() -> Refusal:
    return Refusal("request_too_large", f"The body is larger than {MAX_BODY // 1024 // 1024} MB.")
