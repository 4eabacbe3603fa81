"""An answer that is a file, passed on as it comes: speech, in whatever format was asked for."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ostiary.gateway.attempt import Failure, failed_in_answer, failed_on_the_way, not_understood
from ostiary.gateway.exchange import Headers, kind_of
from ostiary.gateway.outcome import Outcome
from ostiary.gateway.settle import Book
from ostiary.gateway.used import used
from ostiary.providers.dialect import Reading
from ostiary.providers.transport import MOST_STREAMED, Answer, TransportError

_OK: Final = 200
_MOST_ERROR: Final = 65_536


async def relay_file(book: Book, answer: Answer, headers: Headers) -> Failure | None:
    """Pass it on piece by piece, settled before its last byte. A Failure means that nothing was sent yet.

    A file that breaks off ends the connection: it has no room for words.
    """
    kind = answer.headers.get("content-type")
    if kind.startswith("application/json"):
        return await _not_a_file(book, answer)
    exchange, left = book.exchange, MOST_STREAMED
    ask = book.call.ask
    tokens, source = used(book, Reading(None, guess=ask.guess, is_guess_exact=ask.is_guess_exact), 0)
    known = Outcome("cancelled", _OK, tokens=tokens, source=source)
    try:
        piece = await answer.piece(left)
        if not piece:
            return not_understood("empty")
        book.seen = known = replace(known, first_token_at=book.gate.clock.now())
        await exchange.start(_OK, [(b"content-type", kind_of(kind)), *headers])
        exchange.is_file = True
        last = b""
        while piece:
            left -= len(piece)
            await exchange.write(last + piece[:-1])
            last = piece[-1:]  # the very last byte waits for the settlement, and no other
            piece = await answer.piece(left)
        await book.close(replace(known, status="ok"))
        await exchange.write(last, more=False)
    except TransportError as error:
        if not exchange.is_started:
            return failed_on_the_way(error, _OK)
        await book.close(replace(known, status="error", error_code="provider_error"))
        exchange.cut()
    return None


async def _not_a_file(book: Book, answer: Answer) -> Failure:
    """An error with status 200, or something that nobody asked for."""
    try:
        body = await answer.read(_MOST_ERROR)
    except TransportError as error:
        return failed_on_the_way(error, _OK)
    reading = book.gate.dialect.read_answer(body)
    return (
        not_understood("not_a_file")
        if reading.error is None
        else failed_in_answer(reading.error, reading.tokens, book.target)
    )
