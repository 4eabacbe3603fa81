"""The answer on its way to the caller, counted as it goes by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from ostiary.gateway.attempt import Failure, failed_in_answer, failed_on_the_way, not_understood
from ostiary.gateway.exchange import Headers
from ostiary.gateway.plan import input_bound
from ostiary.gateway.settle import Book, Outcome
from ostiary.ledger.events import Status, UsageSource
from ostiary.providers.dialect import StreamTooWide
from ostiary.providers.tokens import Tokens
from ostiary.providers.transport import Answer, TransportError
from ostiary.providers.verdict import scrub

_MOST_ANSWER: Final = 64 * 1024 * 1024
"""Embeddings of the longest list in the most dimensions come to 33 MB."""
_OK: Final = 200
_SSE: Final = ((b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no"))
_DRAIN_S: Final = 1.0
_BYTES_PER_TOKEN: Final = 4


async def relay(book: Book, answer: Answer, headers: Headers) -> Failure | None:
    """Pass a whole answer on, settled before its last byte. A Failure means that nothing was sent yet."""
    try:
        body = await answer.read(_MOST_ANSWER)
    except TransportError as error:
        return failed_on_the_way(error, _OK)
    reading = book.gate.dialect.read_answer(body)
    if reading.is_malformed:
        return not_understood("malformed")
    if reading.error is not None:
        return failed_in_answer(reading.error)
    has_output = book.call.ask.output_tokens != 0
    tokens = reading.tokens or _estimate(book, len(body) // _BYTES_PER_TOKEN if has_output else 0)
    source: UsageSource = "provider" if reading.tokens else "estimated"
    await book.close(Outcome("ok", _OK, tokens=tokens, source=source))
    if book.target is not None and book.target.price is not None:
        headers = [*headers, (b"x-ostiary-cost-usd", _usd(book.cost_nano))]
    await book.exchange.reply(_OK, body, headers)
    return None


async def relay_stream(book: Book, answer: Answer, headers: Headers) -> Failure | None:
    """Pass a stream on event by event; the settlement is committed before its end marker goes out.

    Until the first content event nothing is sent, and a Failure says why the next key may be tried. After it a broken
    stream ends with an error event and no end marker.
    """
    if answer.headers.get("content-type", "").startswith("application/json"):
        return await _refuse_whole(book, answer)
    stream = _Stream(book, headers)
    chunks = answer.chunks()
    try:
        broken = await stream.forward(chunks)
    finally:
        book.seen = stream.outcome("cancelled")
    if stream.first_at is None:
        answer.abort()
        return stream.failure(broken)
    error = stream.what_is_wrong(broken)
    await book.close(stream.outcome("ok" if error is None else "error"))
    if error is None:
        await book.exchange.write(book.gate.dialect.end_of_stream(), more=False)
        await _drain(answer, chunks)
    else:
        answer.abort()
        await book.exchange.write(_error_event(error, book.exchange.request_id), more=False)
    return None


class _Stream:
    """One stream going by: what was sent of it, and what is known of its cost."""

    def __init__(self, book: Book, headers: Headers) -> None:
        self.first_at: int | None = None
        self._is_whole = False
        self._book = book
        self._headers = headers
        self._reader = book.gate.dialect.watch(book.call.ask)

    async def forward(self, chunks: AsyncIterator[bytes]) -> TransportError | StreamTooWide | None:
        """Send on what comes until the stream ends, errs or breaks; the answer is how it broke."""
        reader, exchange = self._reader, self._book.exchange
        try:
            async for data in chunks:
                whole = reader.feed(data)
                if self.first_at is None and reader.has_content:
                    self.first_at = self._book.gate.clock.now()
                    await exchange.start(_OK, [*_SSE, *self._headers])
                if whole and self.first_at is not None:
                    await exchange.write(whole)
                if reader.is_ended or reader.error is not None:
                    break
        except (TransportError, StreamTooWide) as error:
            return error
        self._is_whole = reader.close()
        return None

    def failure(self, broken: TransportError | StreamTooWide | None) -> Failure:
        """Why nothing could be sent."""
        if self._reader.error is not None:
            return failed_in_answer(self._reader.error)
        if isinstance(broken, TransportError):
            return failed_on_the_way(broken, _OK)
        return not_understood("empty_stream" if broken is None else "too_large")

    def what_is_wrong(self, broken: TransportError | StreamTooWide | None) -> str | None:
        """What the caller must be told of a stream that began; None when the model had said that it was done."""
        reader = self._reader
        if reader.error is not None:
            message = str(reader.error.get("message") or "The provider reported an error.")
            return scrub(message, self._book.target.key.secrets if self._book.target else ())
        if isinstance(broken, TransportError):
            return f"The provider's stream broke off ({broken.kind})."
        if broken is not None:
            return "The provider sent an event that is too large."
        if reader.is_ended or (reader.is_finished and self._is_whole):
            return None
        return "The provider's stream ended before the answer was complete."

    def outcome(self, status: Status) -> Outcome:
        """The provider's own count where it came, else what went by; nothing went by is nothing known."""
        reader = self._reader
        outcome = Outcome(status, _OK, "provider_error" if status == "error" else None, first_token_at=self.first_at)
        if reader.tokens is not None:
            outcome.tokens, outcome.source = reader.tokens, "provider"
        elif reader.has_content:
            outcome.tokens, outcome.source = _estimate(self._book, reader.estimate()), "estimated"
        return outcome


async def _refuse_whole(book: Book, answer: Answer) -> Failure:
    """What came is not a stream: an error with status 200, or an answer that a caller of streams could not read."""
    try:
        reading = book.gate.dialect.read_answer(await answer.read(_MOST_ANSWER))
    except TransportError as error:
        return failed_on_the_way(error, _OK)
    return not_understood("not_a_stream") if reading.error is None else failed_in_answer(reading.error)


async def _drain(answer: Answer, chunks: AsyncIterator[bytes]) -> None:
    """Read on to the end of the framing, so that the connection can serve again; not for long."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in chunks:
                continue
    except (TimeoutError, TransportError):
        answer.abort()


def _error_event(message: str, request_id: str) -> bytes:
    body = {"message": message, "type": "provider_error", "param": None, "code": "provider_error"}
    return b"data: " + msgspec.json.encode({"error": {**body, "request_id": request_id}}) + b"\n\n"


def _estimate(book: Book, output: int) -> Tokens:
    """Tokens of an answer that did not tell: its input by the length of the body, never more than was held for."""
    target = book.target
    bound = input_bound(book.call, target.provider) if target else book.call.ask.size
    return Tokens(input=min(book.call.ask.size // _BYTES_PER_TOKEN + 1, bound), output=output)


def _usd(nano: int) -> bytes:
    whole, part = divmod(nano, 1_000_000_000)
    return (b"%d.%09d" % (whole, part)).rstrip(b"0").rstrip(b".")
