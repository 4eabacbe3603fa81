"""A provider that costs next to nothing: one canned answer, one canned stream, on a bare asyncio protocol."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from bench import payload, proc
from bench.target import Target

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAMED = re.compile(rb'"stream": ?true')
_ENDLESS = re.compile(rb'"user": ?"' + payload.ENDLESS.encode() + rb"([0-9.]+) ms")
_FAILING = b"POST " + payload.FAILING.encode()
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Script:
    """What is written to every caller, ready to be sent."""

    answer: bytes
    pieces: tuple[bytes, ...]
    tail: bytes
    tail_with_usage: bytes
    pace_s: float
    """Time between two pieces; 0 writes a whole stream in one burst."""
    refusal: bytes


def script(chunks: int, pace_s: float) -> Script:
    """A stream of `chunks` events, the end marker not counted."""
    pieces = [_framed(payload.event(f" word{n}")) for n in range(chunks - 1)]
    pieces.append(_framed(payload.last_event()))
    done = _framed(payload.DONE) + b"0\r\n\r\n"
    tail_with_usage = _framed(payload.usage_event()) + done
    refusal = _answer(b"403 Forbidden", payload.refusal())
    return Script(_answer(b"200 OK", payload.answer()), tuple(pieces), done, tail_with_usage, pace_s, refusal)


def _answer(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    return head + body


class Upstream(asyncio.Protocol):
    """One connection of a caller who never sends a second request before the first is answered."""

    def __init__(self, said: Script) -> None:
        self._said = said
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write to."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Stop a stream nobody reads."""
        self._transport = None

    def pause_writing(self) -> None:
        """The reader is behind: an endless stream waits for it."""
        self._is_full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._is_full = False

    def data_received(self, data: bytes) -> None:
        """Answer when a request is whole."""
        if self._held:
            data = self._held + data
        head = data.find(b"\r\n\r\n")
        found = _LENGTH.search(data, 0, head + 2) if head >= 0 else None
        if head < 0 or (found is not None and len(data) - head - 4 < int(found[1])):
            self._held = data
            return
        self._held = b""
        if self._transport is None:
            return
        if data.startswith(_FAILING):
            self._transport.write(self._said.refusal)
            return
        if _STREAMED.search(data, head) is None:
            self._transport.write(self._said.answer)
            return
        endless = _ENDLESS.search(data, head)
        if endless is not None:
            self._transport.write(_STREAM_HEAD)
            self._transport.write(self._said.pieces[0])
            due = self._loop.time() + payload.PAUSE_S
            self._loop.call_at(due, self._go_on, float(endless[1]) / 1000, due)
            return
        tail = self._said.tail_with_usage if b'"include_usage"' in data else self._said.tail
        self._stream(tail)

    def _stream(self, tail: bytes) -> None:
        if self._transport is None:
            return
        if self._said.pace_s == 0:
            self._transport.write(_STREAM_HEAD + b"".join(self._said.pieces) + tail)
            return
        self._transport.write(_STREAM_HEAD)
        self._next(iter(self._said.pieces), tail, self._loop.time())

    def _next(self, pieces: Iterator[bytes], tail: bytes, due: float) -> None:
        if self._transport is None:
            return
        piece = next(pieces, None)
        if piece is None:
            self._transport.write(tail)
            return
        self._transport.write(piece)
        due += self._said.pace_s
        self._loop.call_at(due, self._next, pieces, tail, due)

    def _go_on(self, gap_s: float, due: float) -> None:
        if self._transport is None:
            return
        if not self._is_full:
            self._transport.write(self._said.pieces[0])
        due = max(due + gap_s, self._loop.time())  # who is late goes on from there, and does not catch up in a burst
        self._loop.call_at(due, self._go_on, gap_s, due)


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextlib.contextmanager
def serving(chunks: int, pace_ms: float, *, work: Path, cores: frozenset[int]) -> Iterator[Target]:
    """The provider, running; as a target of its own it shows what the load alone takes."""
    port = proc.free_port()
    command = [sys.executable, "-m", "bench.upstream", "--port", str(port)]
    command += ["--chunks", str(chunks), "--pace-ms", str(pace_ms)]
    with proc.started("direct", command, work=work, cores=cores) as running:
        start_s = proc.wait_until_open(running, port)
        yield Target("direct", (running,), (port,), start_s)


async def _serve(port: int, said: Script) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Upstream(said), "127.0.0.1", port, backlog=4096)
    await stop.wait()
    server.close()


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--chunks", type=int, default=200)
    parser.add_argument("--pace-ms", type=float, default=5.0)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(given.port, script(given.chunks, given.pace_ms / 1000)))


if __name__ == "__main__":
    main()
