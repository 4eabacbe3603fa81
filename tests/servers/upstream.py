"""A provider that does exactly what a test tells it, byte for byte, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.servers.waiting import until

_HEAD_LIMIT = 1 << 20


@dataclass(slots=True, eq=False)
class Received:
    """One request as it came off the wire."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int
    """Which connection it came by: equal numbers mean keep-alive."""
    at: float = field(default_factory=time.monotonic)
    answered: threading.Event = field(default_factory=threading.Event)
    """Set when the answer was written to its end."""
    abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when the client hung up before that."""

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def model(self) -> str:
        """The `model` of a JSON body, empty when there is none."""
        try:
            return str(self.json.get("model", ""))
        except (ValueError, AttributeError):
            return ""

    def header(self, name: str) -> str | None:
        """The only header of that name; more than one is a fault of the sender."""
        values = [text for key, text in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def key(self) -> str | None:
        """The bearer credential."""
        return (self.header("authorization") or "").removeprefix("Bearer ") or None


@dataclass(slots=True)
class Exchange:
    """One request being answered: what a behaviour writes to."""

    request: Received
    upstream: Upstream
    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader
    keep: bool = True
    """Whether the connection stays open for the next request."""
    sent: int = 0
    _early: bytes = b""

    async def send(self, *parts: bytes) -> None:
        """Write these bytes as they are; ends the behaviour when the client is gone."""
        for part in parts:
            self.writer.write(part)
            self.sent += len(part)
        await self.writer.drain()

    async def stall(self) -> None:
        """Say nothing more until the client hangs up; raises then."""
        self._early += await self.reader.read(1)
        if not self._early:
            raise ConnectionResetError
        await asyncio.sleep(3600)

    async def pause(self, seconds: float) -> None:
        """Wait; ends the behaviour at once when the client hangs up meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stall()

    async def gate(self) -> None:
        """Wait until the test opens the gate, or the client hangs up."""
        while not self.upstream.gate.is_set():
            await self.pause(0.01)

    def cut(self) -> None:
        """Close after what was written so far: no proper end."""
        self.keep = False

    def reset(self) -> None:
        """Close with a RST: a socket that does not linger is closed so."""
        self.keep = False
        at_once = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


class Upstream:
    """The server. It runs in a thread of its own, so that tests may block or have a loop of their own.

    Which behaviour answers: the first one `push`ed and not yet used; else the one named by the request's `model`;
    else `ok`. Paths do not matter to that, but `GET …/models` lists the models.
    """

    def __init__(self) -> None:
        self.choose: Callable[[Received], Behaviour] = _nothing
        """Picks a behaviour for a request that none was pushed for; `behaviours.serving` sets it."""
        self._script: deque[Behaviour] = deque()
        self._lock = threading.Lock()
        self._connections = count(1)
        self._stop: Callable[[], object] = object
        self._open: set[asyncio.StreamWriter] = set()
        self.ended: set[int] = set()
        """Connections that are closed, by their numbers."""
        self.port = 0
        self.received: list[Received] = []
        self.keys: set[str] | None = None
        """Credentials it takes, None for any. Others get the 401 that quotes them, as OpenAI's does."""
        self.models: list[str] = ["ok"]
        """What `GET /models` lists."""
        self.gate = threading.Event()
        self.faults: list[BaseException] = []
        """What went wrong in a behaviour itself: the fixture fails the test for it."""

    @property
    def origin(self) -> str:
        """Scheme, host and port, as OSTIARY_EGRESS_ALLOW takes it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL of a provider key."""
        return f"{self.origin}/v1"

    def push(self, *behaviours: Behaviour) -> None:
        """Answer the next requests so, one each, in this order."""
        with self._lock:
            self._script.extend(behaviours)

    @property
    def calls(self) -> list[Received]:
        """What was received, without the questions for models."""
        return [request for request in self.received if request.method != "GET"]

    def wait_for(self, calls: int, timeout_s: float = 30) -> Received:
        """Block until so many calls have come; the last of them. From a coroutine: `await asyncio.to_thread(…)`."""
        until(lambda: len(self.calls) >= calls, f"{calls} calls at the upstream", timeout_s)
        return self.calls[calls - 1]

    # ---- the server ---------------------------------------------------------------------------------------------

    async def _serve(self, ready: threading.Event, port: int) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, limit=_HEAD_LIMIT)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        for writer in tuple(self._open):
            writer.transport.abort()

    @contextmanager
    def running(self, port: int = 0) -> Iterator[Upstream]:
        """Serve while the block runs; a second block on the same `port` is the same server come back."""
        ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready, port)), name="upstream", daemon=True)
        thread.start()
        assert ready.wait(30), "the upstream does not start"
        try:
            yield self
        finally:
            self._stop()
            thread.join(30)
            assert not thread.is_alive(), "the upstream does not stop"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._connections)
        self._open.add(writer)
        try:
            while request := await _read(reader, number):
                exchange = Exchange(request, self, writer, reader)
                self.received.append(request)
                if not await self._answer(exchange) or not exchange.keep:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the server stops
        finally:
            self._open.discard(writer)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self.ended.add(number)

    async def _answer(self, exchange: Exchange) -> bool:
        request = exchange.request
        with self._lock:
            scripted = self._script.popleft() if self._script and request.method != "GET" else None
        try:
            await (scripted or self.choose(request))(exchange)
            await exchange.writer.drain()
        except ConnectionError:
            request.abandoned.set()
            return False
        except Exception as error:  # noqa: BLE001 - any fault of a behaviour is shown by the fixture
            self.faults.append(error)
            return False
        request.answered.set()
        return True


def _nothing(_request: Received) -> Behaviour:
    raise LookupError("no behaviour was pushed")


async def _read(reader: asyncio.StreamReader, number: int) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    headers = tuple((name, value.strip()) for name, _, value in pairs)
    found = {name.lower(): value for name, value in headers}
    if "chunked" in found.get("transfer-encoding", ""):
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(found.get("content-length", "0")))
    return Received(method, target, headers, body, number)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body
