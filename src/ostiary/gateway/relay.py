"""The answer on its way to the caller, counted as it goes by."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from msgspec.structs import replace

from ostiary.gateway.attempt import Failure, failed_in_answer, failed_on_the_way, not_understood
from ostiary.gateway.capture import note
from ostiary.gateway.exchange import Exchange, Headers
from ostiary.gateway.settle import Book, Outcome
from ostiary.gateway.stream import Passage, estimate
from ostiary.ledger.events import UsageSource
from ostiary.providers.dialect import Reading
from ostiary.providers.tokens import Tokens
from ostiary.providers.transport import MOST_STREAMED, Answer, TransportError

_MOST_ANSWER: Final = 64 * 1024 * 1024
"""Embeddings of the longest list in the most dimensions come to 33 MB."""
_OK: Final = 200
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
        return failed_in_answer(reading.error, reading.tokens)
    if book.said is not None:
        note(book.said, body)
    tokens, source = _counted(book, reading, len(body) // _BYTES_PER_TOKEN)
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
    stream = Passage(book, headers, answer)
    try:
        broken = await stream.forward()
    finally:
        book.seen = stream.outcome("cancelled")
    if stream.first_at is None:
        answer.abort()
        return stream.failure(broken)
    error = stream.what_is_wrong(broken)
    await book.close(stream.outcome("ok" if error is None else "error"))
    if error is None:
        await book.exchange.write(book.gate.dialect.end_of_stream(), more=False)
        await _drain(answer)
    else:
        answer.abort()
        await book.exchange.write(_error_event(error, book.exchange.request_id), more=False)
    return None


def _counted(book: Book, reading: Reading, likely: int) -> tuple[Tokens, UsageSource]:
    """The provider's own count; what it did not count, or counted as nothing beside words, is estimated."""
    if reading.tokens is None:
        return estimate(book, likely if book.call.ask.output_tokens != 0 else 0), "estimated"
    if reading.is_undercounted:
        return replace(reading.tokens, output=likely), "estimated"
    return reading.tokens, "provider"


async def _refuse_whole(book: Book, answer: Answer) -> Failure:
    """What came is not a stream: an error with status 200, or an answer that a caller of streams could not read."""
    try:
        reading = book.gate.dialect.read_answer(await answer.read(_MOST_ANSWER))
    except TransportError as error:
        return failed_on_the_way(error, _OK)
    if reading.error is None:
        return not_understood("not_a_stream")
    return failed_in_answer(reading.error, reading.tokens)


async def _drain(answer: Answer) -> None:
    """Read on to the end of the framing, so that the connection can serve again; not for long."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            while await answer.piece(MOST_STREAMED):
                continue
    except (TimeoutError, TransportError):
        answer.abort()


async def say_stopped(exchange: Exchange) -> None:
    """End a stream whose key was stopped, so that nobody takes it for whole."""
    await exchange.write(
        _error_event("This API key was stopped while its call was open.", exchange.request_id), more=False
    )


def _error_event(message: str, request_id: str) -> bytes:
    body = {"message": message, "type": "provider_error", "param": None, "code": "provider_error"}
    return b"data: " + msgspec.json.encode({"error": {**body, "request_id": request_id}}) + b"\n\n"


def _usd(nano: int) -> bytes:
    whole, part = divmod(nano, 1_000_000_000)
    return (b"%d.%09d" % (whole, part)).rstrip(b"0").rstrip(b".")
