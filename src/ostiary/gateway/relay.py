"""The answer on its way to the caller, counted as it goes by."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ostiary.gateway.attempt import Failure, failed_in_answer, failed_on_the_way, not_understood
from ostiary.gateway.capture import note
from ostiary.gateway.exchange import Exchange, Headers, kind_of
from ostiary.gateway.file_answer import relay_file
from ostiary.gateway.outcome import Outcome
from ostiary.gateway.settle import Book
from ostiary.gateway.stream import Passage, note_response
from ostiary.gateway.used import used
from ostiary.providers.dialect import Ask, Reading
from ostiary.providers.transport import MOST_STREAMED, Answer, TransportError

_MOST_ANSWER: Final = 64 * 1024 * 1024
"""Embeddings of the longest list in the most dimensions come to 33 MB."""
_OK: Final = 200
_DRAIN_S: Final = 1.0
_BYTES_PER_TOKEN: Final = 4
_JSON: Final = "application/json"
_TEXTS: Final = frozenset({"text/plain", "text/vtt", "text/srt", "application/x-subrip"})
_PAGES: Final = (b"<!doctype", b"<html")
_GIVES: Final = {
    "chat": "choices",
    "completions": "choices",
    "responses": "output",
    "images.generations": "data",
    "images.edits": "data",
    "audio.transcriptions": "text",
    "audio.translations": "text",
}
"""The field without which a whole answer is none to what was asked for as a stream."""
_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def relay(book: Book, answer: Answer, headers: Headers) -> Failure | None:
    """Pass a whole answer on, settled before its last byte. A Failure means that nothing was sent yet."""
    ask = book.call.ask
    if ask.is_bytes:
        return await relay_file(book, answer, headers)
    try:
        body = await answer.read(_MOST_ANSWER)
    except TransportError as error:
        return failed_on_the_way(error, _OK)
    reading = book.gate.dialect.read_answer(body, ask)
    if reading.is_malformed:
        return not_understood("malformed")
    if reading.error is not None:
        return failed_in_answer(reading.error, reading.tokens, book.target)
    await _give(book, body, reading, headers, answer.headers.get("content-type") if ask.is_text else None)
    return None


async def _give(book: Book, body: bytes, reading: Reading, headers: Headers, kind: str | None) -> None:
    """Settle a whole answer and send it; `kind` is the provider's content type where it is not JSON."""
    if book.said is not None:
        note(book.said, body)
    if reading.response_id is not None:
        note_response(book, reading.response_id)
    tokens, source = used(book, reading, len(body) // _BYTES_PER_TOKEN)
    await book.close(Outcome("ok", _OK, tokens=tokens, source=source))
    if book.target is not None and book.target.price is not None:
        book.exchange.told += b"x-ostiary-cost-usd: %b\r\n" % _usd(book.cost_nano)
    if kind is not None:
        await book.exchange.reply_as(kind_of(kind), body, headers)
    else:
        await book.exchange.reply(_OK, body, headers)


async def relay_stream(book: Book, answer: Answer, headers: Headers) -> Failure | None:
    """Pass a stream on event by event; the settlement is committed before its end marker goes out.

    Until the first content event nothing is sent, and a Failure says why the next key may be tried. After it a broken
    stream ends with an error event and no end marker.
    """
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _JSON or (book.call.ask.is_text and kind in _TEXTS):
        return await _relay_unstreamed(book, answer, headers, is_text=kind != _JSON)
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
        await book.exchange.write(stream.ending(), more=False)
        await _drain(answer)
    else:
        answer.abort()
        await book.exchange.write(stream.error_event(_error(error, book.exchange.request_id)), more=False)
    return None


async def _relay_unstreamed(book: Book, answer: Answer, headers: Headers, *, is_text: bool) -> Failure | None:
    """Not a stream: an error with status 200, or the whole answer of a model that does not stream, which goes on."""
    try:
        body = await answer.read(_MOST_ANSWER)
    except TransportError as error:
        return failed_on_the_way(error, _OK)
    ask = replace(book.call.ask, is_text=is_text)
    reading = book.gate.dialect.read_answer(body, ask)
    if reading.error is not None:
        return failed_in_answer(reading.error, reading.tokens, book.target)
    if reading.is_malformed or not (_is_text(body) if is_text else _is_answer(body, ask)):
        return not_understood("not_a_stream")
    await _give(book, body, reading, headers, answer.headers.get("content-type") if is_text else None)
    return None


def _is_answer(body: bytes, ask: Ask) -> bool:
    """Whether JSON is an answer to this operation, and not just any object."""
    try:
        return bytes(_object(body).get(_GIVES.get(ask.operation, ""), b"null")) != b"null"
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False


def _is_text(body: bytes) -> bool:
    """Whether it is words, and not a page that a proxy gives for them."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return bool(body) and not body.lstrip()[:9].lower().startswith(_PAGES)


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
    if exchange.is_file:
        exchange.cut()
        return
    told = {"error": _error("This API key was stopped while its call was open.", exchange.request_id)}
    await exchange.write(b"data: " + msgspec.json.encode(told) + b"\n\n", more=False)


def _error(message: str, request_id: str) -> dict[str, Any]:
    body = {"message": message, "type": "provider_error", "param": None, "code": "provider_error"}
    return {**body, "request_id": request_id}


def _usd(nano: int) -> bytes:
    whole, part = divmod(nano, 1_000_000_000)
    return (b"%d.%09d" % (whole, part)).rstrip(b"0").rstrip(b".")
