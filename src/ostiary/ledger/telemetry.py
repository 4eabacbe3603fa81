"""Sends calls as spans to a collector, out of what the ledger has written: beside the calls, and never in their way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from msgspec.structs import replace

from ostiary.clock import Clock
from ostiary.ledger.collector import Collector, Unsent
from ostiary.ledger.events import Event
from ostiary.ledger.otlp import Batch, Otlp
from ostiary.ledger.spans import Address, spans_of
from ostiary.ledger.whole_calls import WholeCalls
from ostiary.logs import get

MOST: Final = 20_000
"""Spans that wait for the collector; what comes beyond is dropped and counted, rather than memory filled."""
_BATCH: Final = 250
"""Calls in one request."""
_AT_ONCE: Final = 20
"""Calls made into spans before the loop gets its turn: a millisecond or two."""
_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_LONGEST_ASKED_S: Final = 300
_LAST_S: Final = 5.0
"""For what is left at the end."""


class SpanCounts(NamedTuple):
    """What became of spans since the start, and how many are yet to be sent."""

    sent: int
    dropped: int
    waiting: int


class Telemetry:
    """One process's way to the collector. Whatever becomes of it, the ledger has its rows already."""

    def __init__(self, collector: Collector, otlp: Otlp, clock: Clock) -> None:
        self.calls = WholeCalls()
        self.address_of: Callable[[Event], Address | None] = lambda _event: None
        """Where an attempt went, as far as that is known."""
        self._collector = collector
        self._otlp = otlp
        self._clock = clock
        self._queue: deque[list[Event]] = deque()
        self._spans = 0
        self._sent = 0
        self._dropped = 0
        self._dropped_before = 0
        self._pause_s = _PAUSE_S
        self._is_down = False
        self._is_full = False
        self._sending: asyncio.Task[bool] | None = None
        self._log = get("telemetry")

    @property
    def counts(self) -> SpanCounts:
        """As `/metrics` shows them."""
        return SpanCounts(self._sent, self._dropped, self._waiting)

    @property
    def _waiting(self) -> int:
        return self._spans + self.calls.waiting

    def hear(self, events: Iterable[Event], *, are_over: bool = False) -> None:
        """What the ledger has written just now; `are_over`: of a process that is no more, and no call open there."""
        ended = set()
        for event in events:
            if self._waiting >= MOST:
                self._drop(len(self.calls.forget(event.request_id)) + 2, f"{MOST} spans wait already")
            elif are_over:
                self.calls.keep(_bare(event))
                ended.add(event.request_id)
            else:
                self._put(self.calls.add(_bare(event)))
        for request_id in sorted(ended):
            self._put(self.calls.forget(request_id))

    async def run(self) -> None:
        """Until cancelled: once a second send what there is; a collector that is away is asked less and less often."""
        while True:
            await self._clock.sleep(self._pause_s)
            for attempts in self.calls.take_ended():
                self._put(attempts)
            while self._queue and await self._send_whole():
                pass

    async def close(self) -> None:
        """Send what is left, once; what is not taken now is dropped."""
        for attempts in self.calls.take_all():
            self._put(attempts)
        try:
            async with asyncio.timeout(_LAST_S):
                if self._sending is not None:
                    await asyncio.wait({self._sending})
                while self._queue and await self._send_whole():
                    pass
        except TimeoutError:
            if self._sending is not None:
                self._sending.cancel()
                await asyncio.wait({self._sending})
        if self._queue:
            self._log.warning("telemetry.unsent", spans=self._spans)

    def _put(self, attempts: list[Event] | None) -> None:
        if attempts:
            self._queue.append(attempts)
            self._spans += len(attempts) + 1

    async def _send_whole(self) -> bool:
        """Send one batch, and read what is said to it even when nobody waits any more.

        A collector may have taken what was sent before it was cut off, and would get it a second time.
        """
        self._sending = asyncio.create_task(self._send_next())  # noqa: TID251 - awaited below, or by `close`
        return await asyncio.shield(self._sending)

    async def _send_next(self) -> bool:
        """Send one batch; False when it is better to wait before the next one."""
        calls = list(islice(self._queue, _BATCH))
        batch = await self._encode(calls)
        try:
            refused, why = self._otlp.refused(await self._collector.send(batch.pack())) if len(batch) else (0, "")
        except Unsent as error:
            self._say_down(error.text)
            pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
            self._pause_s = max(pause_s, min(error.wait_s or 0, _LONGEST_ASKED_S))
            if error.is_final:
                self._take(calls)
                self._drop(len(batch))
            return False
        self._take(calls)
        self._sent += len(batch) - refused
        self._pause_s = _PAUSE_S
        if refused:
            self._drop(refused, why)
        self._say_up(is_whole=not refused)
        return True

    async def _encode(self, calls: Sequence[list[Event]]) -> Batch:
        batch = self._otlp.batch()
        for number, attempts in enumerate(calls):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            for span in spans_of(attempts, self.address_of):
                batch.add(span)
        return batch

    def _take(self, calls: Sequence[list[Event]]) -> None:
        for attempts in calls:
            self._queue.popleft()
            self._spans -= len(attempts) + 1

    def _drop(self, spans: int, why: str = "") -> None:
        """Count what nobody will see; the first of them is said, until spans are taken again."""
        self._dropped += spans
        if not self._is_full:
            self._is_full = True
            self._log.warning("telemetry.dropping", collector=self._collector.origin, reason=why or "refused")

    def _say_down(self, why: str) -> None:
        if not self._is_down:
            self._is_down = True
            self._log.warning("telemetry.down", collector=self._collector.origin, reason=why)

    def _say_up(self, *, is_whole: bool) -> None:
        if self._is_down:
            self._log.warning("telemetry.up", dropped=self._dropped - self._dropped_before)
        self._is_down = False
        self._is_full = self._is_full and not is_whole
        self._dropped_before = self._dropped


def _bare(event: Event) -> Event:
    """Without what is large and has no place in a span: what was said, and what the key's owner has noted down."""
    return replace(event, content=None, metadata={}) if event.content or event.metadata else event
