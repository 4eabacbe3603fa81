"""The body of a request as it comes in: all at once, or piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Protocol

from ostiary.errors import Refusal
from ostiary.outgoing import Outgoing

Headers = list[tuple[bytes, bytes]]

MAX_BODY = 10 * 1024 * 1024
_HIGH_WATER: Final = 65_536
"""Bytes of a body that lie here before anybody takes them; then the socket waits."""


class Wire(Protocol):
    """What an exchange needs of its connection."""

    out: Outgoing
    is_stuck: bool

    async def drain(self) -> None:
        """Wait until the reader has caught up."""

    def ask_for_body(self, *, is_expected: bool) -> None:
        """Read on; with `is_expected` the caller waits to be told to."""

    def hold_back(self) -> None:
        """Read no more for now."""

    def has_ended(self, exchange: Incoming) -> None:
        """The answer is complete: the connection is the next request's."""


class Incoming:
    """What has come of a body, and the wait for more."""

    __slots__ = (
        "_is_by_pieces",
        "_lying",
        "_parts",
        "_size",
        "_waiter",
        "_wire",
        "headers",
        "is_ended",
        "is_gone",
        "is_whole",
        "most_body",
    )

    def __init__(self, wire: Wire, headers: dict[bytes, bytes]) -> None:
        self._wire = wire
        self.headers = headers
        self.is_whole = False
        self.is_ended = False
        self.is_gone = False
        self.most_body = MAX_BODY
        """Bytes that the body may have; who reads it piece by piece may take more."""
        self._parts: list[bytes] = []
        self._size = self._lying = 0
        self._is_by_pieces = False
        self._waiter: asyncio.Future[None] | None = None

    async def read_body(self, wait_s: float) -> bytes:
        """The whole body, at most 10 MB; `wait_s` is for all of it."""
        if int(self.headers.get(b"content-length", b"0")) > MAX_BODY:
            raise _too_large(MAX_BODY)
        if not self.is_whole:
            try:
                async with asyncio.timeout(wait_s):
                    await self._read_rest()
            except TimeoutError:
                raise Refusal("request_timeout", headers=((b"connection", b"close"),)) from None
        if self._size > MAX_BODY:
            raise _too_large(MAX_BODY)
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_pieces(self, wait_s: float, most: int) -> AsyncIterator[bytes]:
        """The body as it comes, at most `most` bytes; `wait_s` is for all of it. What is not taken yet is not read."""
        self.most_body = most
        self._is_by_pieces = True
        if int(self.headers.get(b"content-length", b"0")) > most:
            raise _too_large(most)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        is_expected = self.headers.get(b"expect", b"").lower() == b"100-continue"
        while True:
            is_last = self.is_whole
            parts, self._parts, self._lying = self._parts, [], 0
            if self._size > most:
                raise _too_large(most)
            for part in parts:
                yield part
            if is_last:
                return
            if self.is_gone:
                raise asyncio.CancelledError  # the caller hung up in the middle of its own request
            if self._parts or self.is_whole:
                continue
            self._wire.ask_for_body(is_expected=is_expected)
            is_expected = False
            self._waiter = loop.create_future()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._waiter
            except TimeoutError:
                raise Refusal("request_timeout", headers=((b"connection", b"close"),)) from None
            finally:
                self._waiter = None

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
                raise _too_large(MAX_BODY)
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
        self._lying += len(data)
        if self._waiter is not None:
            self._wake()
        # Who was woken by pieces does not run yet, while the loop may read the socket thirty times over.
        if self._lying > _HIGH_WATER and (self._waiter is None or self._is_by_pieces):
            self._wire.hold_back()

    def complete(self) -> None:
        """The body has ended."""
        self.is_whole = True
        if self._waiter is not None:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _too_large(most: int) -> Refusal:
    return Refusal("request_too_large", f"The body is larger than {most // 1024 // 1024} MB.")
