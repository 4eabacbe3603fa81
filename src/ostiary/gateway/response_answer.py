"""What a provider says of a response that it keeps, on its way to the caller: scrubbed, and never left open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ostiary.errors import TABLE, Refusal
from ostiary.gateway.caller import OpenKey
from ostiary.gateway.exchange import Exchange, Headers
from ostiary.providers.dialect import StreamTooWide
from ostiary.providers.openai_errors import CleanEvents, UnreadableError, clean
from ostiary.providers.transport import MOST_STREAMED, Answer, TransportError
from ostiary.providers.verdict import Verdict, judge, scrub

_MOST_ANSWER: Final = 64 * 1024 * 1024
_MOST_ERROR: Final = 65_536
_OK: Final = 200
_SSE: Final = "text/event-stream"


async def refused(answer: Answer, key: OpenKey) -> Refusal:
    """What the caller is told of an answer that is not the one asked for."""
    try:
        body = await answer.read(_MOST_ERROR)
        said = msgspec.json.decode(body)
    except (TransportError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        said = None
    finally:
        answer.abort()
    if answer.status == 404:  # noqa: PLR2004 - HTTP's own number: it was deleted, or is too old
        return Refusal("not_found", "The provider has no such response any more.", param="response_id")
    told = said if isinstance(said, dict) else None
    return _refusal(judge(answer.status, None, told, key.provider.id), told, key)


def lost(error: TransportError, key: OpenKey) -> Refusal:
    """What the caller is told where no answer came, or not all of it."""
    return _refusal(judge(None, error, None), None, key)


def _refusal(verdict: Verdict, said: Mapping[str, object] | None, key: OpenKey) -> Refusal:
    error = (said or {}).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    words = scrub(message, key.secrets) if isinstance(message, str) else ""
    return Refusal(verdict.code, words or f"{TABLE[verdict.code].message} {verdict.reason}.", status=verdict.status)


async def relay_kept(exchange: Exchange, answer: Answer, key: OpenKey, headers: Headers) -> None:
    """Pass it on. A stream that breaks is cut, so that nobody takes it for whole."""
    try:
        if answer.headers.get("content-type").lower().startswith(_SSE):
            await _relay_events(exchange, answer, key, headers)
            return
        body = await answer.read(_MOST_ANSWER)
        body = clean(body, key.secrets) if body else body
    except (TransportError, StreamTooWide, UnreadableError) as error:
        answer.abort()
        if exchange.is_started:
            exchange.cut()
            return
        if isinstance(error, TransportError):
            raise lost(error, key) from None
        raise _refusal(judge(_OK, None, None), None, key) from None
    await exchange.reply(_OK, body, headers)


async def _relay_events(exchange: Exchange, answer: Answer, key: OpenKey, headers: Headers) -> None:
    events = CleanEvents(key.secrets)
    await exchange.start(_OK, [(b"content-type", _SSE.encode()), *headers])
    async for piece in answer.chunks(MOST_STREAMED):
        whole = events.feed(piece)
        if whole:
            await exchange.write(whole)
    await exchange.write(events.close(), more=False)
