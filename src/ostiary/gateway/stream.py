"""One stream going by: what was sent of it, and what is known of its cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ostiary.gateway.attempt import Failure, failed_in_answer, failed_on_the_way, not_understood
from ostiary.gateway.capture import note
from ostiary.gateway.exchange import Headers
from ostiary.gateway.known_responses import Bound
from ostiary.gateway.outcome import Outcome
from ostiary.gateway.settle import Book
from ostiary.gateway.used import Used, used
from ostiary.ledger.events import Status
from ostiary.ledger.store import RESPONSE_ID
from ostiary.providers.dialect import Reading, StreamTooWide
from ostiary.providers.transport import MOST_STREAMED, Answer, TransportError
from ostiary.providers.verdict import scrub

_OK: Final = 200
_SSE: Final = ((b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no"))


class Passage:
    """One stream going by: what was sent of it, and what is known of its cost."""

    def __init__(self, book: Book, headers: Headers, answer: Answer) -> None:
        self.first_at: int | None = None
        self._is_whole = False
        self._book = book
        self._headers = headers
        self._answer = answer
        self._exchange = book.exchange
        self._reader = book.gate.dialect.watch(book.call.ask)
        self._left = MOST_STREAMED
        self._broken: StreamTooWide | None = None

    async def forward(self) -> TransportError | StreamTooWide | None:
        """Send on what comes until the stream ends, errs or breaks; the answer is how it broke.

        Once it has begun, pieces go from socket to socket by `_pass_on`; this task looks on for what has to wait.
        """
        reader, exchange = self._reader, self._exchange
        try:
            while True:
                data = await self._answer.piece(self._left)
                if self._broken is not None:
                    return self._broken
                if not data:
                    break
                whole = self._read(data)
                if self.first_at is None and reader.has_content:
                    self.first_at = self._book.gate.clock.now()
                    self._answer.begun()
                    await exchange.start(_OK, [*_SSE, *self._headers])
                if whole and self.first_at is not None:
                    await exchange.write(whole)
                if reader.is_ended or reader.error is not None:
                    break
                if self.first_at is not None:
                    self._answer.tap(self._pass_on)
        except (TransportError, StreamTooWide) as error:
            return error
        self._is_whole = reader.close()
        return None

    def _read(self, data: bytes) -> bytes:
        self._left -= len(data)
        whole = self._reader.feed(data)
        if self._book.said is not None:
            note(self._book.said, whole)
        return whole

    def _pass_on(self, data: bytes) -> bool:
        """One piece on its way, without a task being woken; False where the caller is slow, or it is too much."""
        exchange, reader = self._exchange, self._reader
        if exchange.is_stuck or len(data) > self._left:
            return False
        try:
            whole = self._read(data)
        except StreamTooWide as error:
            self._broken = error
            self._answer.nudge()
            return True
        if whole:
            exchange.write_now(whole)
        if reader.is_ended or reader.error is not None:
            self._answer.nudge()
        return True

    def failure(self, broken: TransportError | StreamTooWide | None) -> Failure:
        """Why nothing could be sent."""
        if self._reader.error is not None:
            return failed_in_answer(self._reader.error, self._reader.tokens, self._book.target)
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
        code = "provider_error" if status == "error" else None
        known: Used = None, "none"
        if reader.tokens is not None or reader.has_content:
            likely = reader.estimate()
            said_nothing = reader.tokens is not None and not reader.tokens.output and reader.has_content
            exact = self._book.call.ask.is_guess_exact and reader.is_finished
            reading = Reading(reader.tokens, is_undercounted=said_nothing and likely > 0, is_guess_exact=exact)
            known = used(self._book, reading, likely)
        if reader.response_id is not None and self.first_at is not None:  # else nobody was told of it
            note_response(self._book, reader.response_id)
        return Outcome(status, _OK, code, *known, first_token_at=self.first_at)

    def ending(self) -> bytes:
        """How the stream ends, held back until the call is settled."""
        return self._reader.ending()

    def error_event(self, error: Mapping[str, Any]) -> bytes:
        """How it ends where it went wrong."""
        return self._reader.error_event(error)


def note_response(book: Book, response_id: str) -> None:
    """Who goes on from a response must come to the provider key that gave it: to be known at once, and for long."""
    if RESPONSE_ID.fullmatch(response_id) is None:
        return
    book.response_id = response_id
    target = book.target
    if target is not None:
        bound = Bound(target.key.id, target.provider.id, target.model)
        book.gate.responses.note(book.caller.organization_id, response_id, bound)
