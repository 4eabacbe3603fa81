"""What answers in the OpenAI dialect tell of themselves, whole and streamed: tokens, errors, the end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ostiary.providers.dialect import Reading, StreamTooWide
from ostiary.providers.tokens import Tokens

END: Final = b"data: [DONE]\n\n"
"""The end marker of a stream."""
_MOST_TOKENS: Final = 16_000_000
"""Whatever a provider reports: more than any model takes, and at the dearest price still a sum that can be written."""
_WIDEST_EVENT: Final = 1_048_576
_BYTES_PER_TOKEN: Final = 4
"""For estimates only: what English text comes to with common tokenizers."""
_NULL: Final = msgspec.Raw(b"null")


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Answer(msgspec.Struct):
    usage: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL


class _WholeChoice(msgspec.Struct):
    message: dict[str, msgspec.Raw] | None = None
    text: msgspec.Raw = _NULL


class _Whole(msgspec.Struct):
    choices: list[_WholeChoice] | None = None


_answer: Final = msgspec.json.Decoder(_Answer).decode
_whole: Final = msgspec.json.Decoder(_Whole).decode
_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_usage: Final = msgspec.json.Decoder(_Usage, strict=False).decode


def read_answer(body: bytes) -> Reading:
    """What a whole answer says of itself."""
    try:
        answer = _answer(body)
        tokens = _tokens_of(answer.usage)
        if tokens is not None and not tokens.input and _is_total_alone(answer.usage) and not _has_words(body):
            tokens = Tokens(input=tokens.output)  # of an embedding, say
        has_uncounted = tokens is not None and not tokens.output and _has_words(body)
        return Reading(tokens, error_of(answer.error), is_undercounted=has_uncounted)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Reading(None, is_malformed=True)


def _has_words(body: bytes) -> bool:
    """Whether an answer says or calls anything; embeddings and empty answers do not."""
    return any(
        bytes(choice.text) not in _EMPTY
        or any(name != "role" and bytes(value) not in _EMPTY for name, value in (choice.message or {}).items())
        for choice in _whole(body).choices or ()
    )


def _is_total_alone(raw: msgspec.Raw) -> bool:
    usage = _usage(raw)
    return usage.prompt_tokens is None and usage.completion_tokens is None


def _tokens_of(raw: msgspec.Raw) -> Tokens | None:
    """The provider's count; a report of nothing at all, or one that cannot be read, is no report.

    A total alone is taken for output, which is never cheaper than it was.
    """
    if raw is _NULL:
        return None
    try:
        usage = _usage(raw)
    except msgspec.DecodeError:
        return None
    made, given, total = usage.completion_tokens, usage.prompt_tokens, usage.total_tokens or 0
    if made is None:
        made = 0 if given is not None else total
    if given is None:
        given = max(total - made, 0)
    if min(given, made) < 0 or not (given or made):
        return None
    if usage.prompt_tokens_details is None and usage.completion_tokens_details is None:
        return Tokens(figure(given), figure(made))
    into = usage.prompt_tokens_details or _InputDetails()
    out = usage.completion_tokens_details or _OutputDetails()
    return Tokens(
        input=figure(given),
        output=figure(made),
        cache_read=figure(into.cached_tokens),
        cache_write=figure(into.cache_write_tokens),
        reasoning=figure(out.reasoning_tokens),
        audio=figure(into.audio_tokens) + figure(out.audio_tokens),
    )


def figure(count: int | None) -> int:
    """A count, within what can be."""
    return min(max(count or 0, 0), _MOST_TOKENS)


def error_of(raw: msgspec.Raw) -> Mapping[str, Any] | None:
    """An error object, whatever shape the provider gives it."""
    if raw is _NULL or bytes(raw) in (b"null", b"false", b'""', b"{}"):
        return None
    said = msgspec.json.decode(raw)
    return said if isinstance(said, dict) else {"message": str(said)}


# ---- the stream -------------------------------------------------------------------------------------------------

_TELLING: Final = re.compile(
    rb'"usage"\s*:\s*\{|"error"\s*:\s*[{"]|\[DONE\]|"finish_reason"\s*:\s*"|^event:\s*error', re.MULTILINE
)
"""Whatever is worth decoding an event for. A JSON string cannot hold a bare quote, so content does not match these."""
_EVENT_END: Final = re.compile(rb"\r?\n\r?\n")
_SEAM: Final = 3
"""The longest end of an event, without its last byte: how far back an end may begin that the next piece completes."""
_MOST_HELD: Final = 65_536
_MOST_WRAPPING: Final = 512
"""Bytes of an event that are not content: more than any provider spends on ids, model and choices."""
_EMPTY: Final = frozenset({b"null", b'""', b"[]", b"{}"})
_LAST_LINES: Final = frozenset({b"data: [DONE]", b"data:[DONE]"})


class _FirstChoice(msgspec.Struct):
    delta: dict[str, msgspec.Raw] | None = None
    text: msgspec.Raw = _NULL
    finish_reason: msgspec.Raw = _NULL


class _FirstChunk(msgspec.Struct):
    choices: list[_FirstChoice] | None = None


_first_chunk: Final = msgspec.json.Decoder(_FirstChunk).decode


class Framing:
    """Cuts a stream into whole events."""

    __slots__ = ("_tail", "_widest")

    def __init__(self, widest: int) -> None:
        self._tail = bytearray()
        self._widest = widest

    def take(self, data: bytes) -> bytes:
        """The events that are complete now; the rest waits. Only what is new is searched, however small it comes."""
        if not self._tail and data.endswith(b"\n\n"):
            return data
        tail = self._tail
        seen = max(len(tail) - _SEAM, 0)
        tail += data
        cut = tail.rfind(b"\n\n", seen) + 2
        if cut == 1 or tail.find(b"\r", cut) >= 0:
            cut = max((match.end() for match in _EVENT_END.finditer(tail, seen)), default=0)
        if len(tail) - cut > self._widest:
            raise StreamTooWide
        whole = bytes(tail[:cut])
        del tail[:cut]
        return whole

    def rest(self) -> bytes:
        """What is not complete."""
        return bytes(self._tail)


class Stream:
    """Forwards whole events as they came and decodes only those that may tell something.

    What comes before the first content (the role, filters' findings) is held until that is here, because so long
    another provider may still be asked.
    """

    __slots__ = (
        "_bytes",
        "_events",
        "_framing",
        "_held",
        "_hides_usage",
        "_least",
        "error",
        "has_content",
        "is_ended",
        "is_finished",
        "response_id",
        "tokens",
    )

    def __init__(self, *, hides_usage: bool) -> None:
        self.tokens: Tokens | None = None
        self.error: Mapping[str, Any] | None = None
        self.has_content = False
        self.is_finished = False
        self.is_ended = False
        self.response_id: str | None = None
        self._hides_usage = hides_usage
        self._framing = Framing(_WIDEST_EVENT)
        self._held = b""
        self._events = 0
        self._bytes = 0
        self._least = _MOST_WRAPPING

    def feed(self, data: bytes) -> bytes:
        """What of the stream may be forwarded now: whole events, mostly the very bytes that came."""
        whole = self._framing.take(data)
        if not whole or self.is_ended:
            return b""
        if _may_tell(whole) and _TELLING.search(whole):
            whole = self._sift(whole)
        self._count(whole)
        return whole if self.has_content else self._hold(whole)

    def close(self) -> bool:
        """The provider has hung up: whether it did so at the end of an event. An end marker may lack its blank line."""
        last = self._framing.rest().strip()
        self.is_ended = self.is_ended or last in _LAST_LINES
        return self.is_ended or not last or last.startswith(b":")

    def estimate(self) -> int:
        """Output tokens by what went by: an event is a token at least, and four bytes of content are one.

        What an event is without content is what the shortest ones are.
        """
        content = self._bytes - self._events * self._least
        return max(self._events, content // _BYTES_PER_TOKEN)

    def ending(self) -> bytes:
        """The end marker."""
        return END

    def error_event(self, error: Mapping[str, Any]) -> bytes:
        """An error in place of the end."""
        return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"

    def _count(self, whole: bytes) -> None:
        events = whole.count(b"data:")
        if events:
            self._least = min(self._least, len(whole) // events)
            self._events += events
            self._bytes += len(whole)

    def _hold(self, whole: bytes) -> bytes:
        """Wait for the first content, but not for ever; comments that only keep the line open are not kept."""
        for event in split(whole):
            data = data_of(event)
            if data or self.has_content:
                self._held += event
                self.has_content = self.has_content or _says_something(data) or len(self._held) > _MOST_HELD
        if not self.has_content:
            return b""
        whole, self._held = self._held, b""
        return whole

    def _sift(self, whole: bytes) -> bytes:
        """Read the telling events; drop the end marker and, where it was not asked for, the usage event."""
        kept = []
        for event in split(whole):
            if self._is_forwarded(event):
                kept.append(event)
            if self.is_ended or self.error is not None:
                break
        return b"".join(kept)

    def _is_forwarded(self, event: bytes) -> bool:
        if not _TELLING.search(event):
            return True
        data = data_of(event)
        if data == b"[DONE]":
            self.is_ended = True
            return False
        try:
            chunk = _chunk(data)
            self.error = error_of(chunk.error)
        except msgspec.ValidationError:
            chunk = _Chunk([_Choice()])  # not as agreed, but the caller may know it
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            chunk = _Chunk()
            self.error = {"message": "The provider sent an event that is not valid JSON."}
        self.tokens = _tokens_of(chunk.usage) or self.tokens
        if self.error is None and is_error(event):
            self.error = {"message": data[:500].decode("utf-8", "replace")}
        if self.error is not None:
            return False
        if chunk.choices and any(choice.finish_reason for choice in chunk.choices):
            self.is_finished = True
        return bool(chunk.choices) or bytes(chunk.usage) == b"null" or not self._hides_usage


def _may_tell(whole: bytes) -> bool:
    """Whether the dear search is worth while: a fifth of its cost, and no for nearly every piece of a stream."""
    return (
        whole.count(b'"finish_reason"') != whole.count(b'"finish_reason":null')
        or whole.count(b'"usage"') != whole.count(b'"usage":null')
        or b'"error"' in whole
        or b"[DONE]" in whole
        or b"event:" in whole
    )


def split(whole: bytes) -> list[bytes]:
    """Whole events, one by one."""
    ends = [match.end() for match in _EVENT_END.finditer(whole)]
    return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def data_of(event: bytes) -> bytes:
    """The data of an event, whose lines are joined."""
    return b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))


def is_error(event: bytes) -> bool:
    """Whether an event is called an error."""
    return any(line.startswith(b"event:") and line[6:].strip() == b"error" for line in event.splitlines())


def _says_something(data: bytes) -> bool:
    """Whether an event holds more than a role: words, a tool call, an end. What we cannot read may be anything."""
    try:
        choices = _first_chunk(data).choices or ()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return True
    return any(
        bytes(choice.finish_reason) != b"null"
        or bytes(choice.text) not in _EMPTY
        or any(name != "role" and bytes(value) not in _EMPTY for name, value in (choice.delta or {}).items())
        for choice in choices
    )
