"""The one HTTP client: pooled, bounded in time and bytes, never redirected, and only where egress lets it."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, NamedTuple

from ostiary.providers.connection import Connection, Failure, TransportError, Waits
from ostiary.providers.egress import Blocked, Egress, Target
from ostiary.providers.pool import Pool
from ostiary.providers.upload import Body, UploadedBody

__all__ = ["DEFAULT_WAITS", "FRAMING", "MOST_STREAMED", "Answer", "Failure", "Transport", "TransportError", "Waits"]

DEFAULT_WAITS: Final = Waits()
MOST_STREAMED: Final = 64 * 1024 * 1024
"""Bytes of one streamed answer: more than any model writes in ten minutes."""
_HEADS_KEPT: Final = 1_024
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""What is answered with a body framed as usual; HEAD is not."""
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
FRAMING: Final = frozenset(
    {
        *("host", "accept-encoding", "content-length", "transfer-encoding", "te", "trailer"),
        *("connection", "keep-alive", "proxy-connection", "upgrade", "expect"),
    }
)
"""Headers that frame a request, or that say what we can read: nobody else sets them."""


class _Head(NamedTuple):
    """The part of a request that is the same for every call with a provider key."""

    target: Target
    data: bytes
    """Up to the length of the body."""


class Transport:
    """Opened once in a process; every call to a provider passes here."""

    def __init__(self, egress: Egress, trust: ssl.SSLContext | None = None) -> None:
        """`trust` replaces the system's certificate authorities."""
        self._egress = egress
        self._trust = trust
        self._pool: Pool | None = None
        self._heads: dict[tuple[str, str, tuple[tuple[str, str], ...]], _Head] = {}

    async def open(self) -> None:
        """Make the pool; it belongs to the running loop."""
        self._pool = Pool(self._egress, self._trust)

    async def close(self) -> None:
        """Close every connection; calls under way end as `broken`."""
        pool, self._pool = self._pool, None
        self._heads.clear()
        if pool is not None:
            pool.close()
            await asyncio.sleep(0)  # the loop closes the sockets in its next round

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: Body | None = None,
        limits: Waits = DEFAULT_WAITS,
    ) -> Answer:
        """Send a request and wait for the head of the answer, whatever its status. Raises TransportError.

        An uploaded body says itself of what type it is, whatever `headers` say, and is read while it is sent. The
        answer must be read to its end, released or aborted.
        """
        pool = self._pool
        if pool is None:
            raise TransportError("broken", sent=False, text="the client is closed")
        framing = b"\r\n" if body is None else b"content-length: %d\r\n\r\n" % len(body)
        if isinstance(body, UploadedBody):
            headers = tuple(pair for pair in headers if pair[0].lower() != "content-type")
            framing = b"content-type: %b\r\n%b" % (body.content_type.encode("ascii"), framing)
        key = (method, url, headers if type(headers) is tuple else tuple(headers))
        head = self._heads.get(key) or self._head(key)
        if isinstance(head, TransportError):
            raise head
        began_at = asyncio.get_running_loop().time()
        connection = pool.take(head.target.origin)
        if connection is None:
            begin_s = limits.total_s if limits.begin_s is None else limits.begin_s
            outcome = await pool.connect(head.target, min(limits.connect_s, limits.total_s, begin_s))
            if isinstance(outcome, TransportError):
                raise outcome
            connection = outcome
        try:
            await connection.start(head.data + framing, body, limits, began_at)
        except asyncio.CancelledError:
            connection.abort()
            raise
        if not connection.has_head:
            connection.check()
        return _answer(pool, connection)

    def _head(self, key: tuple[str, str, tuple[tuple[str, str], ...]]) -> _Head | TransportError:
        """Returns the error, for it to be raised where no exception that knows more hangs on to it."""
        method, url, headers = key
        try:
            target = self._egress.check_url(url)
        except Blocked as error:
            return TransportError("blocked", sent=False, text=error.reason)
        if method not in _METHODS:
            return TransportError("blocked", sent=False, text="the method is not one to call by")
        lines = _lines(headers)
        if lines is None:
            return TransportError("blocked", sent=False, text="the request holds a forbidden header or character")
        path = target.url[len(target.origin) :]
        first = f"{method} {path if path.startswith('/') else f'/{path}'} HTTP/1.1\r\n"
        host = target.origin.partition("://")[2]
        data = f"{first}host: {host}\r\naccept-encoding: identity\r\n".encode("ascii") + lines
        if len(self._heads) >= _HEADS_KEPT:
            self._heads.clear()
        known = self._heads[key] = _Head(target, data)
        return known


class Headers:
    """The headers of an answer; the first of several with one name."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        """`fields` by their names in lower case."""
        self._fields = fields

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """All of them as they came, by names in lower case."""
        return self._fields

    def get(self, name: str, default: str = "") -> str:
        """A header by its name, however that is spelled."""
        value = self._fields.get(name.lower().encode())
        return default if value is None else value.decode("latin-1").strip()


class Answer:
    """An answer whose head is here and whose body comes as it is read."""

    __slots__ = ("_connection", "_fields", "_is_whole", "_pool", "status")

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self._pool = pool
        self._connection: Connection | None = connection
        self._fields = connection.headers
        self._is_whole = False
        self.status: int = connection.status

    @property
    def fields(self) -> Mapping[bytes, bytes]:
        """What the head says, as it came, by names in lower case."""
        return self._fields

    @property
    def headers(self) -> Headers:
        """What the head says."""
        return Headers(self._fields)

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body. Raises TransportError, `too_large` as soon as it is known to be."""
        declared = self._fields.get(b"content-length")
        if declared is not None and int(declared) > limit_bytes:
            self.abort()
            raise _too_large()
        first = await self.piece(limit_bytes)
        if self._is_whole:
            return first
        parts = [first]
        left = limit_bytes - len(first)
        while chunk := await self.piece(left):
            parts.append(chunk)
            left -= len(chunk)
        return b"".join(parts)

    async def chunks(self, limit_bytes: int = MOST_STREAMED) -> AsyncIterator[bytes]:
        """The body in the pieces in which it came. Raises TransportError, and then the connection is closed."""
        left = limit_bytes
        while chunk := await self.piece(left):
            left -= len(chunk)
            yield chunk

    def tap(self, pass_on: Callable[[bytes], bool]) -> None:
        """From now on hand each piece to `pass_on` the moment it comes; one that it answers with False waits here.

        A task that is woken for every piece of a stream costs more than everything done with the piece.
        """
        if self._connection is not None and not self._connection.is_done:
            self._connection.tap = pass_on

    def begun(self) -> None:
        """The first of what was asked for has come: `begin_s` of the waits bounds it no longer."""
        if self._connection is not None:
            self._connection.begun()

    def nudge(self) -> None:
        """End the tap, and have `piece` return, empty, though the body may not have ended."""
        if self._connection is not None:
            self._connection.nudge()

    async def piece(self, left: int) -> bytes:
        """What has come since, at most `left` bytes; empty at the end, when the connection has been given back."""
        connection = self._connection
        if connection is None:
            if self._is_whole:
                return b""
            raise TransportError("broken", sent=True, text="the answer was given up")
        await connection.arrive()
        chunk = connection.take()
        was_nudged, connection.was_nudged = connection.was_nudged, False
        if len(chunk) > left:
            self.abort()
            raise _too_large()
        if connection.is_done:
            self._is_whole = True
            self.release()
        elif not chunk and not was_nudged:
            self.abort()
            connection.check()
        return chunk

    def release(self) -> None:
        """Done with it: the connection is kept if all was read, closed otherwise. Can be said twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)

    def abort(self) -> None:
        """Close the connection at once, so that the provider stops too. Can be said twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


def _answer(pool: Pool, connection: Connection) -> Answer:
    """The answer, unless it is one that nobody here can read."""
    answer = Answer(pool, connection)
    encoding = connection.headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        answer.abort()
        raise TransportError("encoding", sent=True, text="the answer is compressed, though we asked for it plain")
    return answer


def _lines(headers: Sequence[tuple[str, str]]) -> bytes | None:
    """The headers as they are written; None when one is not fit to be."""
    for name, value in headers:
        if not _NAME.fullmatch(name) or name.lower() in FRAMING or not _VALUE.fullmatch(value):
            return None
    try:
        return "".join(f"{name}: {value}\r\n" for name, value in headers).encode()
    except UnicodeEncodeError:
        return None


def _too_large() -> TransportError:
    return TransportError("too_large", sent=True, text="the answer is larger than we take")
