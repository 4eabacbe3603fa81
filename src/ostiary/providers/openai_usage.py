"""What whole answers tell that are none to a chat: responses, images, audio, moderations, rerank."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, isfinite
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ostiary.providers.dialect import Ask, Reading
from ostiary.providers.openai_answer import error_of, figure
from ostiary.providers.openai_fields import NULL
from ostiary.providers.tokens import Tokens

_MS: Final = 1_000
_LONGEST_AUDIO_S: Final = 10_000_000


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    """By either of the names in use."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens_details: _Details | None = None
    input_token_details: _Details | None = None
    output_tokens_details: _Details | None = None
    seconds: float | None = None


class _Answer(msgspec.Struct):
    id: str | None = None
    usage: msgspec.Raw = NULL
    error: msgspec.Raw = NULL
    output: msgspec.Raw = NULL
    status: str | None = None
    data: list[msgspec.Raw] | None = None
    duration: float | None = None
    meta: msgspec.Raw = NULL


class _Billed(msgspec.Struct):
    search_units: float | None = None
    input_tokens: float | None = None


class _Meta(msgspec.Struct):
    billed_units: _Billed | None = None


_answer: Final = msgspec.json.Decoder(_Answer, strict=False).decode
_usage: Final = msgspec.json.Decoder(_Usage, strict=False).decode
_meta: Final = msgspec.json.Decoder(_Meta, strict=False).decode


def tokens_of(raw: msgspec.Raw) -> Tokens | None:
    """The provider's count of tokens; a report of none at all, or one that cannot be read, is no report."""
    usage = _usage_of(raw)
    if usage is None:
        return None
    given = usage.input_tokens if usage.input_tokens is not None else usage.prompt_tokens
    made = usage.output_tokens if usage.output_tokens is not None else usage.completion_tokens
    if made is None:
        made = max((usage.total_tokens or 0) - given, 0) if given is not None else 0
    if given is None:
        given = max((usage.total_tokens or 0) - made, 0)
    if min(given, made) < 0 or not (given or made):
        return None
    into = usage.input_tokens_details or usage.input_token_details or _Details()
    out = usage.output_tokens_details or _Details()
    return Tokens(
        input=figure(given),
        output=figure(made),
        cache_read=figure(into.cached_tokens),
        cache_write=figure(into.cache_write_tokens),
        reasoning=figure(out.reasoning_tokens),
        audio=figure(into.audio_tokens) + figure(out.audio_tokens),
    )


def heard_ms(raw: msgspec.Raw) -> int | None:
    """Milliseconds of audio that the provider counted."""
    usage = _usage_of(raw)
    return None if usage is None else _ms(usage.seconds)


def _usage_of(raw: msgspec.Raw) -> _Usage | None:
    if bytes(raw) == b"null":
        return None
    try:
        return _usage(raw)
    except msgspec.DecodeError:
        return None


def _ms(seconds: float | None) -> int | None:
    if seconds is None or not 0 < seconds <= _LONGEST_AUDIO_S:
        return None
    return max(int(seconds * _MS), 1)


# ---- one for each operation -------------------------------------------------------------------------------------


def _read_response(answer: _Answer, ask: Ask) -> Reading:
    tokens = tokens_of(answer.usage)
    says = bytes(answer.output) not in (b"null", b"[]")
    return Reading(
        tokens,
        error_of(answer.error),
        is_undercounted=tokens is not None and not tokens.output and says,
        response_id=answer.id if ask.is_stored else None,
    )


def _read_images(answer: _Answer, ask: Ask) -> Reading:
    tokens = tokens_of(answer.usage)
    guess = ask.guess or Tokens()
    if answer.data is not None:
        guess = replace(guess, images=len(answer.data))
    if tokens is not None:
        tokens = replace(tokens, images=guess.images)
    return Reading(tokens, error_of(answer.error), guess=guess, is_guess_exact=True)


def _read_sound(answer: _Answer, ask: Ask) -> Reading:
    tokens = tokens_of(answer.usage)
    told = heard_ms(answer.usage)
    ms = told if told is not None else _ms(answer.duration)
    guess = ask.guess or Tokens()
    if ms is not None:
        guess = replace(guess, audio_ms=ms)
        if tokens is not None:
            tokens = replace(tokens, audio_ms=ms)
    return Reading(tokens, error_of(answer.error), guess=guess, is_guess_exact=ms is not None)


def _read_rerank(answer: _Answer, ask: Ask) -> Reading:
    tokens = tokens_of(answer.usage)
    billed = _billed(answer.meta)
    guess = ask.guess or Tokens()
    searches, given = _whole(billed.search_units), _whole(billed.input_tokens)
    if searches is not None:
        return Reading(
            replace(tokens or Tokens(), searches=searches),
            error_of(answer.error),
            guess=replace(guess, searches=searches),
            is_guess_exact=True,
        )
    if tokens is None and given is not None:
        tokens = Tokens(input=given)
    return Reading(tokens, error_of(answer.error), guess=guess, is_guess_exact=ask.is_guess_exact)


def _read_moderation(answer: _Answer, _ask: Ask) -> Reading:
    return Reading(tokens_of(answer.usage), error_of(answer.error))


def _whole(value: float | None) -> int | None:
    """A count, rounded up; what is none, or not even a number, is nothing."""
    return figure(ceil(value)) if value is not None and isfinite(value) and value > 0 else None


def _billed(raw: msgspec.Raw) -> _Billed:
    if bytes(raw) == b"null":
        return _Billed()
    try:
        return _meta(raw).billed_units or _Billed()
    except msgspec.DecodeError:
        return _Billed()


def _reader(read: Callable[[_Answer, Ask], Reading]) -> Callable[[bytes, Ask], Reading]:
    def whole(body: bytes, ask: Ask) -> Reading:
        if ask.is_text:
            return _read_text(body)
        try:
            return read(_answer(body), ask)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return Reading(None, is_malformed=True)

    return whole


def _read_text(body: bytes) -> Reading:
    """Text is what was asked for; an error comes as JSON all the same."""
    said: Any = None
    if body[:1] == b"{":
        try:
            said = _answer(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            said = None
    return Reading(None, None if said is None else error_of(said.error))


READERS: Final[dict[str, Callable[[bytes, Ask], Reading]]] = {
    "responses": _reader(_read_response),
    "images.generations": _reader(_read_images),
    "images.edits": _reader(_read_images),
    "audio.transcriptions": _reader(_read_sound),
    "audio.translations": _reader(_read_sound),
    "moderations": _reader(_read_moderation),
    "rerank": _reader(_read_rerank),
}
