"""Streams whose events have types: responses, images, speech and transcriptions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ostiary.providers.dialect import Ask, StreamTooWide
from ostiary.providers.openai_answer import END, Framing, data_of, error_of, is_error, split
from ostiary.providers.openai_fields import BYTES_PER_TOKEN, NULL
from ostiary.providers.openai_usage import heard_ms, tokens_of
from ostiary.providers.tokens import Tokens

_MOST_HELD: Final = 4 * 1024 * 1024
"""Bytes held before the first content: a response tells twice what it was asked, with all instructions and tools."""
_MOST_WRAPPING: Final = 1_024


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of stream: what comes before content, what ends it, what ends it badly, and how wide an event may be."""

    before: frozenset[str]
    last: frozenset[str]
    failed: frozenset[str]
    widest: int
    is_one: bool = True
    """Whether the first of the last is really the last; of images there is one each."""

    @property
    def telling(self) -> re.Pattern[bytes]:
        """Whatever is worth decoding an event for."""
        names = b"|".join(re.escape(name).encode() for name in sorted(self.last | self.failed | {"response.created"}))
        return re.compile(rb'"type"\s*:\s*"(?:%b)"|"error"\s*:\s*[{"]|\[DONE\]|^event:\s*error' % names, re.MULTILINE)


_RESPONSES: Final = Kind(
    before=frozenset(
        {
            "response.created",
            "response.queued",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_summary_part.added",
            "keepalive",
        }
    ),
    last=frozenset({"response.completed", "response.incomplete"}),
    failed=frozenset({"response.failed"}),
    widest=32 * 1024 * 1024,
)
_IMAGES: Final = Kind(
    before=frozenset(),
    last=frozenset({"image_generation.completed", "image_edit.completed"}),
    failed=frozenset({"image_generation.failed", "image_edit.failed"}),
    widest=32 * 1024 * 1024,
    is_one=False,
)
_SPEECH: Final = Kind(frozenset(), frozenset({"speech.audio.done"}), frozenset(), 4 * 1024 * 1024)
_TRANSCRIPT: Final = Kind(frozenset(), frozenset({"transcript.text.done"}), frozenset(), 4 * 1024 * 1024)
STREAMED: Final[Mapping[str, Kind]] = {
    "responses": _RESPONSES,
    "images.generations": _IMAGES,
    "images.edits": _IMAGES,
    "audio.speech": _SPEECH,
    "audio.transcriptions": _TRANSCRIPT,
    "audio.translations": _TRANSCRIPT,
}
_PATTERNS: Final = {id(kind): kind.telling for kind in STREAMED.values()}


class _Response(msgspec.Struct):
    id: str | None = None
    usage: msgspec.Raw = NULL
    error: msgspec.Raw = NULL


class _Event(msgspec.Struct):
    type: str | None = None
    response: _Response | None = None
    usage: msgspec.Raw = NULL
    error: msgspec.Raw = NULL
    message: str | None = None
    code: str | int | None = None
    sequence_number: int | None = None


_event: Final = msgspec.json.Decoder(_Event).decode
_type: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Events:
    """Forwards whole events as they came, but for the last, which waits for the settlement."""

    __slots__ = (
        "_ask",
        "_bytes",
        "_deltas",
        "_ends_with_marker",
        "_failed",
        "_framing",
        "_held",
        "_kind",
        "_last",
        "_lasts",
        "_least",
        "_number",
        "_telling",
        "error",
        "has_content",
        "is_ended",
        "is_finished",
        "response_id",
        "tokens",
    )

    def __init__(self, kind: Kind, ask: Ask) -> None:
        self.tokens: Tokens | None = None
        self.error: Mapping[str, Any] | None = None
        self.has_content = False
        self.is_finished = False
        self.is_ended = False
        self.response_id: str | None = None
        self._kind = kind
        self._ask = ask
        self._telling = _PATTERNS[id(kind)]
        self._framing = Framing(kind.widest)
        self._held = bytearray()
        self._last = b""
        self._lasts = 0
        self._failed = b""
        self._ends_with_marker = False
        self._number = 0
        self._bytes = self._deltas = 0
        self._least = _MOST_WRAPPING

    def feed(self, data: bytes) -> bytes:
        """What of the stream may be forwarded now: whole events, the very bytes that came."""
        whole = self._framing.take(data)
        if not whole or self.is_ended:
            return b""
        self._count(whole)
        if self._telling.search(whole):
            whole = self._sift(whole)
        if not self.has_content:
            self._hold(whole)
        elif not self._held:
            return whole
        else:
            self._held += whole
        if not self.has_content:
            return b""
        whole, self._held = bytes(self._held), bytearray()
        return whole

    def close(self) -> bool:
        """The provider has hung up: whether it did so at the end of an event. An end without its blank line counts."""
        rest = self._framing.rest().strip()
        if rest and self._telling.search(rest):
            self._sift(rest + b"\n\n")
            rest = b""
        return self.is_ended or not rest or rest.startswith(b":")

    def estimate(self) -> int:
        """Output tokens by what went by: a delta is a token at least, and four bytes of content are one."""
        return max(self._deltas, (self._bytes - self._deltas * self._least) // BYTES_PER_TOKEN)

    def ending(self) -> bytes:
        """The last event, and the end marker where the provider sent one."""
        return self._last + (END if self._ends_with_marker else b"")

    def error_event(self, error: Mapping[str, Any]) -> bytes:
        """The provider's own account of its failure, in words that are fit for the caller; else an event of ours."""
        if self._failed:
            told = msgspec.json.decode(data_of(self._failed))
            told["response"]["error"] = {"code": _word(told["response"]), "message": error["message"]}
            return b"event: response.failed\ndata: " + msgspec.json.encode(told) + b"\n\n"
        told = {"type": "error", "sequence_number": self._number + 1, **error, "error": dict(error)}
        return b"event: error\ndata: " + msgspec.json.encode(told) + b"\n\n"

    def _count(self, whole: bytes) -> None:
        deltas = whole.count(b'.delta"')
        if deltas:
            self._deltas += deltas
            if deltas == whole.count(b"data:"):
                self._least = min(self._least, len(whole) // deltas)
                self._bytes += len(whole)

    def _hold(self, whole: bytes) -> None:
        for event in split(whole):
            data = data_of(event)
            if data or self.has_content:
                self._held += event
                self.has_content = self.has_content or self._is_content(data) or len(self._held) > _MOST_HELD

    def _is_content(self, data: bytes) -> bool:
        """What we cannot read may be anything."""
        try:
            name = _type(data).get("type", NULL)
            return msgspec.json.decode(name) not in self._kind.before
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, TypeError):
            return True

    def _sift(self, whole: bytes) -> bytes:
        kept = []
        for event in split(whole):
            kept.append(self._look_at(event) if self._telling.search(event) else event)
            if self.is_ended or self.error is not None:
                break
        return b"".join(kept)

    def _look_at(self, event: bytes) -> bytes:
        """What of a telling event is forwarded now."""
        data = data_of(event)
        if data == b"[DONE]":
            self._ends_with_marker = self.is_ended = True
            return b""
        try:
            told = _event(data)
        except msgspec.ValidationError:
            return event  # not as agreed, but the caller may know it
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.error = {"message": "The provider sent an event that is not valid JSON."}
            return b""
        self._number = told.sequence_number or self._number
        self._note(told)
        if told.type in self._kind.failed or told.type == "error" or is_error(event) or error_of(told.error):
            self._fail(told, event)
            return b""
        if told.type not in self._kind.last:
            return event
        return self._keep_last(event)

    def _note(self, told: _Event) -> None:
        response = told.response
        if response is not None:
            if response.id is not None and self._ask.is_stored:
                self.response_id = response.id
            self.tokens = tokens_of(response.usage) or self.tokens
        found = tokens_of(told.usage)
        heard = heard_ms(told.usage)
        if found is not None or heard is not None:
            guess = self._ask.guess or Tokens()
            found = found or Tokens()
            before = self.tokens if not self._kind.is_one and self.tokens is not None else Tokens()
            self.tokens = replace(
                found,
                input=found.input + before.input,
                output=found.output + before.output,
                images=self._lasts + 1 if guess.images else 0,
                characters=guess.characters,
                audio_ms=heard or 0,
            )

    def _fail(self, told: _Event, event: bytes) -> None:
        said = error_of(told.error)
        if told.response is not None:
            said = error_of(told.response.error) or said
            self._failed = event
        if told.type == "error" and said is None:
            said = {"message": told.message or "", "code": told.code}
        self.error = said or {"message": told.message or "The provider reported an error."}

    def _keep_last(self, event: bytes) -> bytes:
        before, self._last = self._last, event
        self._lasts += 1
        self.is_finished = self.has_content = True
        wanted = self._ask.units.images if self._ask.units is not None and not self._kind.is_one else 1
        self.is_ended = self._lasts >= wanted
        return before


def _word(response: Mapping[str, Any]) -> str:
    error = response.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and code.isidentifier() else "server_error"


__all__ = ["STREAMED", "Events", "Kind", "StreamTooWide"]
