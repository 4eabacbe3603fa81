"""One HTTP/1.1 connection to a provider: sends a request, parses its answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, cast

import httptools

from ostiary.outgoing import Outgoing
from ostiary.providers.upload import Body, Reader

Failure = Literal[
    "refused",
    "dns",
    "tls",
    "connect_timeout",
    "first_byte_timeout",
    "idle_timeout",
    "total_timeout",
    "broken",
    "too_large",
    "blocked",
    "encoding",
]

_MOST_HEADERS: Final = 100
_LONGEST_HEADER: Final = 16 * 1024
_MOST_FRAMING: Final = 64 * 1024
"""Bytes in a row that are no body: interim answers and a head, or what a sender puts behind its last chunk."""
_MOST_BEHIND: Final = 256 * 1024
"""Bytes of body nobody has taken yet, from which on no more are read."""
_PIECE: Final = 64 * 1024
_BURST: Final = 1024 * 1024
"""Bytes of a long body written before the loop gets its turn."""
_VERSIONS: Final = ("1.1", "1.0")
_ONLY_ONCE: Final = (b"transfer-encoding", b"content-encoding")
_SWITCHING, _FINAL, _WITHOUT_BODY = 101, 200, (204, 304)
_NEVER: Final = float("inf")


class TransportError(Exception):
    """No answer, or not all of it. `sent`: some of the request may have reached the server. `text` holds no secret."""

    def __init__(self, kind: Failure, *, sent: bool, text: str) -> None:
        self.kind: Failure = kind
        self.sent = sent
        self.text = text
        super().__init__(f"{kind}: {text}")


@dataclass(frozen=True, slots=True)
class Waits:
    """How long to wait, in seconds: for the connection with its TLS, for the head and then for the first of the body,
    between two pieces of the body, for everything.
    """

    connect_s: float = 10
    first_byte_s: float = 120
    idle_s: float = 60
    total_s: float = 600
    begin_s: float | None = None
    """Until `begun` is said, whatever comes before that; None where `total_s` is the only bound."""


class _NotAsAgreedError(Exception):
    """Thrown through the parser, which stops at it."""


class Connection(asyncio.Protocol):
    """Carries one call at a time. Whoever keeps it calls `expire` when `due_at` has passed."""

    __slots__ = (
        "_behind",
        "_failure",
        "_fields",
        "_framing",
        "_is_full",
        "_is_kept",
        "_is_paused",
        "_is_unsent",
        "_is_until_close",
        "_loop",
        "_out",
        "_parser",
        "_pieces",
        "_rest",
        "_total_at",
        "_transport",
        "_waiter",
        "_waits",
        "_whole_at",
        "due_at",
        "has_body",
        "has_head",
        "headers",
        "idle_at",
        "is_done",
        "origin",
        "socket",
        "status",
        "tap",
        "was_nudged",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: str, raw: socket.socket) -> None:
        """`raw` is what the loop's transport reads from and writes to."""
        self.origin = origin
        self.socket = raw
        self.idle_at = 0.0
        """Since when it is idle."""
        self.due_at = _NEVER
        """When waiting ends, by the loop's clock."""
        self.is_done = True
        """The answer has come whole; also while there is no call."""
        self.has_body = False
        """Some of the answer's body has been taken."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.tap: Callable[[bytes], bool] | None = None
        """Is handed each piece of the body as it comes, without anybody being woken; False leaves it to who waits."""
        self.was_nudged = False
        """Who waits was woken though nothing came."""
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._out: Outgoing | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._waits = Waits()
        self._total_at = self._whole_at = _NEVER
        self._failure: tuple[Failure, str] | None = None
        self._is_unsent = False
        self._pieces: list[bytes] = []
        self._behind = self._framing = self._fields = 0
        self.has_head = False
        """The head of the answer has come."""
        self._is_until_close = self._is_kept = False
        self._is_paused = self._is_full = False
        self._rest: memoryview | Reader | None = None

    # ---- the call ---------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether a request can be written to it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        """Whether another call may follow: this one is over on both sides, and nothing came behind its answer."""
        return self.is_done and self._is_kept and self._rest is None and not self._is_paused and self.is_open

    def start(self, head: bytes, body: Body | None, waits: Waits, began_at: float) -> asyncio.Future[None]:
        """Write a request to an open connection; what is to be awaited for the head of its answer, and then `check`."""
        self.is_done = self.has_body = self.has_head = self._is_until_close = self._is_kept = False
        self.headers = {}
        self.tap = None
        self.was_nudged = False
        self._pieces = []
        self._behind = self._framing = self._fields = 0
        self._waits = waits
        self._total_at = self._whole_at = began_at + waits.total_s
        if waits.begin_s is not None:
            self._total_at = min(began_at + waits.begin_s, self._whole_at)
        transport = cast("asyncio.Transport", self._transport)
        if body is None:
            transport.write(head)
        elif len(body) <= _PIECE and isinstance(body, bytes):
            cast("Outgoing", self._out).write(head + body)
        else:
            transport.write(head)
            self._rest = memoryview(body) if isinstance(body, bytes) else body.reader()
            self._pump()
        return self._wait(waits.first_byte_s)

    def check(self) -> None:
        """Raise the TransportError there was, if there was one."""
        if self._failure is not None and not self.is_done:
            kind, text = self._failure
            raise TransportError(kind, sent=not self._is_unsent, text=text)

    async def arrive(self) -> None:
        """Wait until there is something to take, the answer is done, or there was an error."""
        if self._pieces or self.is_done or self._failure is not None or self.was_nudged:
            return
        waits = self._waits
        try:
            await self._wait(waits.idle_s if self.has_body else waits.first_byte_s)
        except asyncio.CancelledError:
            self.abort()
            raise

    def take(self) -> bytes:
        """What has come of the body since it was last asked for."""
        pieces = self._pieces
        if not pieces:
            return b""
        self.has_body = True
        self.tap = None  # until these are on their way, what comes next waits behind them
        self._pieces = []
        self._behind = 0
        if self._is_paused and self.is_open:
            self._is_paused = False
            cast("asyncio.Transport", self._transport).resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def abort(self, kind: Failure = "broken", text: str = "the call was given up") -> None:
        """Close at once, without waiting for a peer that does not read; whoever waits is told why."""
        if self._failure is None:
            self._failure = (kind, text)
        self._rest = None
        self.tap = None
        if self._out is not None and self._out.abort():
            self._is_unsent = True
        self._wake()

    def begun(self) -> None:
        """What was waited for has begun to come; what is left is bounded by the time for everything."""
        self.due_at = self._total_at = self._whole_at

    def nudge(self) -> None:
        """Wake who waits: the tap has seen what it was waiting for, and hears no more."""
        self.tap = None
        self.was_nudged = True
        self._wake()

    def expire(self, now: float, *, is_silent: bool) -> None:
        """The wait has been too long; unless what it was for is here, and the loop has not come to tell."""
        if now >= self._total_at:
            self.abort("total_timeout", "the whole answer took too long")
        elif is_silent:
            self.abort("idle_timeout" if self.has_body else "first_byte_timeout", "nothing came for too long")

    def _wait(self, seconds: float) -> asyncio.Future[None]:
        self.due_at = min(self._loop.time() + seconds, self._total_at)
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            self.due_at = self._total_at
            if not waiter.done():
                waiter.set_result(None)

    def _pump(self) -> None:
        """Write on of a long body while there is room, at most a burst in one go."""
        written = 0
        while self._rest is not None and not self._is_full and self.is_open:
            if written >= _BURST:
                self._loop.call_soon(self._pump)
                return
            rest = self._rest
            piece: bytes | memoryview
            if isinstance(rest, Reader):
                try:
                    piece = rest.take(_PIECE)
                except (OSError, ValueError):  # its disk fails, or its caller is gone
                    self.abort("broken", "the request could not be read")
                    return
                self._rest = None if rest.is_done else rest
            else:
                piece, left = rest[:_PIECE], rest[_PIECE:]
                self._rest = left or None
            cast("asyncio.Transport", self._transport).write(piece)
            written += _PIECE

    # ---- what the loop tells ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, and behind TLS where there is any."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._out = Outgoing(self._loop, self._transport)
        self._parser = httptools.HttpResponseParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._transport = self._parser = self._rest = None
        if not self.is_done:
            self.abort("broken", _lost(exc, has_head=self.has_head))

    def eof_received(self) -> None:
        """The server will send no more; where it said so, that is how the answer ends."""
        if self.is_done:
            return
        if self.has_head and self._is_until_close:
            self.is_done = True
            self._wake()
        else:
            self.abort("broken", _lost(None, has_head=self.has_head))

    def pause_writing(self) -> None:
        """The server reads slower than we write."""
        self._is_full = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._is_full = False
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Parse; what comes behind an answer, or unasked, ends the connection."""
        parser, out = self._parser, self._out
        if parser is None or out is None or self._failure is not None:
            return
        if self.is_done or out.pieces:  # nothing is owed, or the request that it would answer has not even left
            self.abort("broken", "more came than the answer")
            return
        if not self._framing and not self.has_head and data[0] != 72:  # noqa: PLR2004 - H; llhttp also reads RTSP
            self.abort("broken", "the answer is not HTTP as agreed")
            return
        self._framing += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort("broken", "the answer is not HTTP as agreed")
            return
        if self._framing > _MOST_FRAMING:
            self.abort("broken", "the answer has too much around its body")
        elif self._behind > _MOST_BEHIND and not self._is_paused and self.is_open:
            self._is_paused = True
            cast("asyncio.Transport", self._transport).pause_reading()

    # ---- what the parser tells --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Another answer behind the one that was asked for is refused."""
        if self.is_done:
            raise _NotAsAgreedError

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the head; those behind the last chunk are only counted."""
        self._fields += 1
        if self._fields > _MOST_HEADERS or len(value) > _LONGEST_HEADER:
            raise _NotAsAgreedError
        if self.has_head:
            return
        name, headers = name.lower(), self.headers
        if name not in headers:
            headers[name] = value
        elif name in _ONLY_ONCE:
            raise _NotAsAgreedError

    def on_headers_complete(self) -> None:
        """The head is whole, if it is not that of an interim answer."""
        parser = cast("httptools.HttpResponseParser", self._parser)
        status = parser.get_status_code()
        if status < _FINAL:
            if status < 100 or status == _SWITCHING:  # noqa: PLR2004 - no such status
                raise _NotAsAgreedError
            self.headers = {}
            return
        if parser.get_http_version() not in _VERSIONS:
            raise _NotAsAgreedError
        coding = self.headers.get(b"transfer-encoding")
        if coding is None:
            self._is_until_close = b"content-length" not in self.headers and status not in _WITHOUT_BODY
        elif coding.strip().lower() != b"chunked":
            raise _NotAsAgreedError
        self.status = status
        self.has_head = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._framing = 0
        if self.tap is not None and not self._pieces and self.tap(body):
            self.has_body = True
            self.due_at = min(self._loop.time() + self._waits.idle_s, self._total_at)
            return
        self._behind += len(body)
        self._pieces.append(body)
        self._wake()

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self.has_head:
            self.is_done = True
            self._is_kept = cast("httptools.HttpResponseParser", self._parser).should_keep_alive()
            self._wake()


def _lost(exc: Exception | None, *, has_head: bool) -> str:
    text = "the answer broke off" if has_head else "the connection was closed without an answer"
    # What the system itself says of it: "Connection reset by peer". None of it is the request's.
    detail = getattr(exc, "strerror", None)
    return f"{text} ({detail})" if detail else text
