"""The bench's own cheap client, in a process of its own: plain calls when wrk is missing, and streams always.

Streams that are held open are counted only while all of them are: it prints a line when that begins, and its report at
the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import cast

import httptools
import uvloop

from bench import payload

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {bearer}\r\n"
    "Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
)
_PATIENCE_S = 20.0
_OPENING_S = 60.0
_WEIGHED_S = 0.5
"""So long everything stays open after it was counted, for who weighs it then."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to send, how often."""

    kind: str
    """`calls`, `streams`, or `open` for streams that are held open."""
    port: int
    path: str
    bearer: str
    body: str
    concurrency: int
    seconds: float
    """How long to begin new ones; what is begun is finished."""
    stagger_s: float = 0.0
    """Spread the first streams over this time, so that their pieces do not come in step."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came back."""

    done: int
    failed: int
    seconds: float
    latency_ms: list[float]
    """Of a call: to its end. Of a stream: to its first event."""
    events: int = 0
    reads: int = 0
    """Pieces of body as the kernel gave them: fewer than events when several came at once."""
    complaint: str = ""
    """What the first failed one answered."""


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_begun = asyncio.Event()
        """Something of the answer's body is here, or there will be none."""
        self.status = 0
        self.events = 0
        self.reads = 0
        self.first_at = 0.0
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write to."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way."""
        self.has_begun.set()
        if not self._ended.done():
            self._ended.set_exception(exc or ConnectionResetError("closed in the middle of an answer"))

    def data_received(self, data: bytes) -> None:
        """Feed the parser and count."""
        before = self.events
        self._parser.feed_data(data)
        self.reads += self.events > before

    def on_body(self, body: bytes) -> None:
        """Count events: an event ends with an empty line, which may lie across two pieces."""
        if not self.first_at:
            self.first_at = perf_counter()
            self.has_begun.set()
        self.events += body.count(b"\n\n") + (self.tail[-1:] == b"\n" == body[:1] and self.tail[-2:] != b"\n\n")
        self.tail = body if len(body) >= len(_END) else (self.tail + body)[-len(_END) :]

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self.status = self._parser.get_status_code()
        if not self._ended.done():
            self._ended.set_result(None)

    @property
    def has_ended(self) -> bool:
        """Whether the answer is over, well or not."""
        return self._ended.done()

    async def ask(self, request: bytes) -> None:
        """Send and wait for the end of the answer."""
        self.begin(request)
        await self._ended

    def begin(self, request: bytes) -> None:
        """Send."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("closed between two requests")
        self._parser = httptools.HttpResponseParser(self)
        self._ended = asyncio.get_running_loop().create_future()
        self.first_at = 0.0
        self.events = self.reads = 0
        self.tail = b""
        self._transport.write(request)

    def close(self) -> None:
        """Hang up."""
        self._ended.cancel()
        if self._transport is not None:
            self._transport.abort()


_END = b"data: [DONE]\n\n"


class Tally:
    """Adds up what all connections saw."""

    def __init__(self) -> None:
        self.done = self.failed = self.events = self.reads = 0
        self.latency: list[float] = []
        self.complaint = ""

    def add_call(self, seen: Connection, began: float) -> None:
        """A plain call: good when it is a 200."""
        if seen.status == 200:
            self.done += 1
            self.latency.append((perf_counter() - began) * 1000)
        else:
            self.refuse(f"status {seen.status}: {seen.tail[:300].decode(errors='replace')}")

    def add_stream(self, seen: Connection, began: float) -> None:
        """A stream: good when it is a 200 that ends with the end marker."""
        if seen.status == 200 and seen.tail.endswith(_END):
            self.done += 1
            self.events += seen.events - 1
            self.reads += seen.reads
            self.latency.append((seen.first_at - began) * 1000)
        else:
            self.refuse(f"status {seen.status}, {seen.events} events: {seen.tail[-300:].decode(errors='replace')}")

    def refuse(self, why: str) -> None:
        """Count a failure and keep the first reason."""
        self.failed += 1
        self.complaint = self.complaint or why


async def run(job: Job) -> Report:
    """All connections of a job at once."""
    request = _request(job)
    tally = Tally()
    began = perf_counter()
    async with asyncio.timeout(job.seconds + _PATIENCE_S), asyncio.TaskGroup() as group:
        for n in range(job.concurrency):
            wait = job.stagger_s * n / job.concurrency
            group.create_task(_caller(job, request, tally, wait))
    return Report(
        tally.done,
        tally.failed,
        perf_counter() - began,
        tally.latency,
        tally.events,
        tally.reads,
        tally.complaint,
    )


async def hold(job: Job) -> None:
    """Open all streams, say so, count for a while what comes of them, say that, and hang up on all."""
    request = _request(job)
    held: list[tuple[Connection, float]] = []
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_OPENING_S):
            for _ in range(job.concurrency):
                _, seen = await loop.create_connection(Connection, "127.0.0.1", job.port)
                held.append((seen, perf_counter()))
                seen.begin(request)
                await asyncio.sleep(job.stagger_s / job.concurrency)
            for one, _ in held:
                await one.has_begun.wait()
        await asyncio.sleep(payload.PAUSE_S + 1)
        print("open", flush=True)
        before, began = _counted(held), perf_counter()
        await asyncio.sleep(job.seconds)
        after, took = _counted(held), perf_counter() - began
        ended = [one for one, _ in held if one.has_ended]
        waited = [(one.first_at - asked) * 1000 for one, asked in held]
        said = ended[0].tail[-300:].decode(errors="replace") if ended else ""
        events, reads = after[0] - before[0], after[1] - before[1]
        report = Report(len(held) - len(ended), len(ended), took, waited, events, reads, said)
        print(json.dumps(asdict(report)), flush=True)
        await asyncio.sleep(_WEIGHED_S)
    finally:
        for one, _ in held:
            one.close()


def _counted(held: Sequence[tuple[Connection, float]]) -> tuple[int, int]:
    """Events and pieces so far."""
    return sum(one.events for one, _ in held), sum(one.reads for one, _ in held)


def _request(job: Job) -> bytes:
    length = len(job.body.encode())
    return (_HEAD.format(path=job.path, port=job.port, bearer=job.bearer, length=length) + job.body).encode()


async def _caller(job: Job, request: bytes, tally: Tally, wait_s: float) -> None:
    await asyncio.sleep(wait_s)
    _, seen = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", job.port)
    add = tally.add_stream if job.kind == "streams" else tally.add_call
    until = perf_counter() + job.seconds
    try:
        while (began := perf_counter()) < until:
            await seen.ask(request)
            add(seen, began)
    except (OSError, httptools.HttpParserError) as error:
        tally.refuse(repr(error))
    finally:
        seen.close()


def main() -> None:
    """The file of one job in, its report to standard output."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if job.kind == "open":
            runner.run(hold(job))
        else:
            json.dump(asdict(runner.run(run(job))), sys.stdout)


if __name__ == "__main__":
    main()
