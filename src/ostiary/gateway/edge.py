"""Reads HTTP from a connection, and refuses what is malformed, oversized or slow before anything else sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, ClassVar, Final
from urllib.parse import unquote

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.server import ServerState

from ostiary.errors import Refusal
from ostiary.gateway.address import plain
from ostiary.gateway.exchange import MAX_BODY, STATUS, Exchange
from ostiary.gateway.head import MAX_HEAD, judge_head, without_upgrade
from ostiary.gateway.incoming import Incoming
from ostiary.outgoing import Outgoing

_FRAMING: Final = 2
"""So many times as large as a body may be all of it with its framing, read or thrown away: chunks have heads."""
_SWEEP_S: Final = 1.0
_MOST_WAITING: Final = 64
"""Requests behind the one that is being answered."""


class EdgeProtocol(asyncio.Protocol):
    """One connection, under uvicorn's server: which opens and closes it, and asks it to end at a shutdown.

    Times are looked at by one sweep a second over all connections, so that a request costs no timer of its own.
    """

    head_s: ClassVar[float] = 5.0
    stalled_s: ClassVar[float] = 60.0
    linger_s: ClassVar[float] = 10.0
    """For how long the rest of a body is thrown away that was answered before it was read."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn's signature
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.out: Outgoing = None  # type: ignore[assignment]
        self.is_stuck = False
        self._door: Callable[[Exchange], Coroutine[Any, Any, None]] = config.app  # type: ignore[assignment]
        self._loop = _loop or asyncio.get_running_loop()
        self._state = server_state
        self._idle_s = config.timeout_keep_alive
        self._parser = httptools.HttpRequestParser(self)
        # A request behind one that ends the connection is rubbish; the answer to the first goes out all the same.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._peer: str | None = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeated: list[tuple[bytes, bytes]] = []
        self._bytes_of_trailers = 0
        self._reading: Exchange | None = None
        self._answering: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[Exchange] = deque()
        self._stuck: list[asyncio.Future[None]] = []
        self._is_held_back = False
        self._is_lost = False
        self._head_since: float | None = self._loop.time()
        self._idle_since: float | None = None
        self._stuck_since: float | None = None
        self._is_in_body = False
        self._piece = 0
        self._counted = 0
        self._refusal: Refusal | None = None

    # ---- the connection ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there."""
        self.transport = transport
        self.out = Outgoing(self._loop, transport)
        peer = transport.get_extra_info("peername")
        self._peer = plain(str(peer[0])) if isinstance(peer, tuple) else None
        self._state.connections.add(self)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Nobody is listening any more: the call on its way is told, the others never begin."""
        self._is_lost = True
        self._state.connections.discard(self)
        self._waiting.clear()
        self.resume_writing()
        if self._answering is not None:
            self._answering.lose()

    def eof_received(self) -> None:
        """The caller will send no more, and the loop closes behind this: what was written goes out before."""
        self.out.flush()

    def shutdown(self) -> None:
        """The server stops: end now, or with the answer under way."""
        if self._answering is None:
            self.out.close()
        else:
            self._answering.keep_alive = False

    def pause_writing(self) -> None:
        """The reader is slow."""
        self.is_stuck = True

    def resume_writing(self) -> None:
        """The reader has caught up, or is gone."""
        self.is_stuck = False
        self._stuck_since = None
        stuck, self._stuck = self._stuck, []
        for waiter in stuck:
            if not waiter.done():
                waiter.set_result(None)

    async def drain(self) -> None:
        """Wait until the reader has caught up."""
        while self.is_stuck and not self._is_lost:
            waiter = self._loop.create_future()
            self._stuck.append(waiter)
            await waiter

    def hold_back(self) -> None:
        """Read no more for now."""
        if not self._is_held_back and not self.transport.is_closing():
            self._is_held_back = True
            self.transport.pause_reading()

    def ask_for_body(self, *, is_expected: bool) -> None:
        """Read on; with `is_expected` the caller waits to be told to."""
        if is_expected and not self.transport.is_closing():
            self.out.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._read_on()

    def _read_on(self) -> None:
        if self._is_held_back and not self.transport.is_closing():
            self._is_held_back = False
            self.transport.resume_reading()

    # ---- what comes in -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse, counting what has come of the head or body that is not complete yet."""
        if not self._is_in_body:
            if self._head_since is None:
                self._head_since = self._loop.time()
                self._counted = 0
            if b"pgrade" in data:
                data = without_upgrade(data)
        self._piece = len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(self._refusal or Refusal("invalid_request", "This is not valid HTTP."))
            return
        self._counted += self._piece
        if self._counted > MAX_HEAD and not self.transport.is_closing():
            if self._head_since is not None:
                self._refuse(Refusal("headers_too_large"))
            elif self._is_in_body and self._counted > _FRAMING * self._most_body():
                self._refuse(Refusal("request_too_large"))

    def _most_body(self) -> int:
        return MAX_BODY if self._reading is None else self._reading.most_body

    def on_message_begin(self) -> None:
        """A head begins, at times in the piece that ends the request before it: then counting begins after it."""
        if self._head_since is None:
            self._head_since = self._loop.time()
            self._counted = -self._piece
        self._url = b""
        self._headers = {}
        self._repeated = []
        self._bytes_of_trailers = 0

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer, which nobody will look at."""
        headers = self._headers
        name = name.lower()
        if self._is_in_body:
            self._bytes_of_trailers += len(name) + len(value)
            if self._bytes_of_trailers > MAX_HEAD:
                raise ValueError("trailers without end")
        elif name in headers:
            self._repeated.append((name, value))
        else:
            headers[name] = value

    def on_headers_complete(self) -> None:
        """The whole head is here: judge it, and let the call begin."""
        parser = self._parser
        version = parser.get_http_version()
        headers, repeated = self._headers, self._repeated
        self._head_since = None
        self._counted = -self._piece
        self._refusal = judge_head(headers, repeated, version, len(self._url))
        if parser.should_upgrade():
            self._refusal = Refusal("invalid_request", "This connection stays with HTTP/1.1.")
        if self._refusal is not None:
            raise ValueError(self._refusal.code)  # stops the parser; data_received answers
        self._is_in_body = True  # from here on headers are trailers, which nobody in front has looked at as headers
        path, query = (_split if len(self._url) <= _SHORT_URL and b"?" not in self._url else _parse)(self._url)
        exchange = self._reading = Exchange(
            self,
            parser.get_method().decode("ascii"),
            path,
            query,
            headers,
            repeated,
            version=version,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            peer=self._peer,
        )
        if self._answering is None:
            self._begin(exchange)
        else:
            self._waiting.append(exchange)
            self.hold_back()
            if len(self._waiting) > _MOST_WAITING:
                self._refusal = Refusal("invalid_request", "Too many requests behind one another on one connection.")
                raise ValueError(self._refusal.code)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._reading is not None:
            self._reading.take_in(body)

    def on_message_complete(self) -> None:
        """The body has ended, whether anybody read it or not."""
        self._is_in_body = False
        if self._reading is not None:
            self._reading.complete()

    # ---- what goes out -----------------------------------------------------------------------------------------

    def _begin(self, exchange: Exchange) -> None:
        self._answering = exchange
        self._idle_since = None
        task = self._task = exchange.task = self._loop.create_task(self._door(exchange))
        self._state.tasks.add(task)
        task.add_done_callback(self._is_over)

    def _is_over(self, task: asyncio.Task[None]) -> None:
        """The step is done; an answer that it left unfinished is cut off, so that nobody takes it for whole."""
        self._state.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler({"message": "a call failed outside its door", "task": task})
        if self._answering is not None and self._task is task:
            self.out.close()

    def has_ended(self, exchange: Incoming) -> None:
        """The answer is complete: the connection is the next request's."""
        if exchange is not self._answering:
            return
        self._answering = None
        self._state.total_requests += 1
        if self.transport.is_closing():
            return
        if not exchange.keep_alive:
            self.out.close()
            return
        if self._waiting:
            self._begin(self._waiting.popleft())
        else:
            self._idle_since = self._loop.time()
        if not self._waiting:  # else whoever sends many at once could fill the memory
            self._read_on()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, if it is this request's turn and nothing was said yet, and hang up."""
        if self.transport.is_closing():
            return
        current = self._answering
        is_first = current is not None and current is self._reading and self._is_in_body
        if current is not None and not (is_first and not current.is_started):
            if not self._is_in_body:
                (self._waiting[-1] if self._waiting else current).keep_alive = False  # asked before: still answered
                return
        else:
            body = msgspec.json.encode(refusal.body())
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.out.write(STATUS[refusal.status] + head + body)
        if current is not None:
            current.lose()
        self.out.close()

    # ---- patience ----------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Close what has been slow for too long."""
        if self._answering is None:
            if self._head_since is not None and now - self._head_since > self.head_s:
                self._refuse(Refusal("request_timeout", "The head of the request was not received in time."))
            elif self._idle_since is not None and now - self._idle_since > self._idle_s and self._head_since is None:
                self.out.close()
        patience = self._patience()
        if patience is None:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > patience:
            self.out.abort()

    def excuse(self, seconds: float) -> None:
        """So long this process did not run: what has come meanwhile is not read yet, and nobody was slow."""
        if self._head_since is not None:
            self._head_since += seconds
        if self._idle_since is not None:
            self._idle_since += seconds
        if self._stuck_since is not None:
            self._stuck_since += seconds

    def _patience(self) -> float | None:
        """How long things may stay as they are: a reader that does not read, a body that nobody wants."""
        if self.is_stuck or self.transport.is_closing():
            return self.stalled_s
        return self.linger_s if self._is_in_body and self._answering is None else None


def _parse(url: bytes) -> tuple[str, bytes]:
    """Path and query of a target; raises ValueError on what is none."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return (unquote(path) if "%" in path else path), parsed.query or b""


_split: Final = lru_cache(maxsize=1_024)(_parse)
"""Most callers ask for the same targets all day. Queries are not kept: there may be a credential in one."""
_SHORT_URL: Final = 200


async def sweep_connections(state: ServerState) -> None:
    """Once a second, until cancelled, close the connections that stall; none for a sleep of this very process."""
    loop = asyncio.get_running_loop()
    while True:
        slept_at = loop.time()
        await asyncio.sleep(_SWEEP_S)
        now = loop.time()
        late = now - slept_at - _SWEEP_S
        for connection in list(state.connections):
            if isinstance(connection, EdgeProtocol):
                if late > _SWEEP_S:
                    connection.excuse(late)
                connection.sweep(now)
