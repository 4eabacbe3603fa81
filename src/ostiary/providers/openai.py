"""The OpenAI dialect: chat completions, streaming and not, and embeddings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ostiary.errors import Refusal
from ostiary.providers.catalog import Provider
from ostiary.providers.dialect import Ask, Reading, StreamTooWide
from ostiary.providers.tokens import Tokens

_PATHS: Final = {"chat": "/chat/completions", "embeddings": "/embeddings"}
_WIDEST_EVENT: Final = 1_048_576
_BYTES_PER_TOKEN: Final = 4
"""For estimates only: what English text comes to with common tokenizers."""
_ESCAPES: Final = ("models", "route", "plugins", "provider", "web_search_options")
"""Fields by which a provider may be told to use another model or a service with a price of its own."""
_TIERS: Final = frozenset({b"null", b'"auto"', b'"default"', b'"flex"'})
"""Service tiers that do not cost more than the plain price."""
_MEDIA: Final = (b'"image_url"', b'"input_audio"', b'"file"')
_DONE: Final = b"data: [DONE]\n\n"
_TRUE: Final = msgspec.Raw(b"true")


# ---- the request ------------------------------------------------------------------------------------------------


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Chat(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    tools: list[dict[str, msgspec.Raw]] | None = None


class _Embeddings(msgspec.Struct):
    model: str
    input: str | list[msgspec.Raw]


_chat: Final = msgspec.json.Decoder(_Chat).decode
_embeddings: Final = msgspec.json.Decoder(_Embeddings).decode
_fields: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode: Final = msgspec.json.Encoder().encode
_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")
_MISSING: Final = re.compile(r"missing required field `([^`]+)`")


class OpenAI:
    """Speaks OpenAI's wire format, which most providers took over."""

    def read_ask(self, operation: str, body: bytes) -> Ask:
        """Parse what we act on; Refusal(invalid_request) names the field that is wrong."""
        try:
            if operation == "embeddings":
                return _ask_embeddings(body)
            return _ask_chat(body)
        except msgspec.ValidationError as error:
            raise _wrong_field(str(error)) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Refusal("invalid_request", f"The body is not valid JSON: {error}.") from None

    def path_of(self, operation: str) -> str:
        """The path behind the provider's base URL."""
        return _PATHS[operation]

    def write_body(self, ask: Ask, provider: Provider, model: str, max_tokens: int | None) -> bytes:
        """The body for the provider: only model, usage option and (when given) the lowered `max_tokens` differ."""
        fields = dict(ask.fields)
        fields["model"] = msgspec.Raw(_encode(model))
        if ask.stream and not ask.wants_usage and provider.stream_usage == "ask":
            options = fields.get("stream_options")
            kept = _fields(options) if options is not None and bytes(options) != b"null" else {}
            fields["stream_options"] = msgspec.Raw(_encode({**kept, "include_usage": _TRUE}))
        if max_tokens is not None:
            fields.pop("max_completion_tokens", None)
            fields.pop("max_tokens", None)
            fields[provider.max_tokens_field] = msgspec.Raw(b"%d" % max_tokens)
        return _encode(fields)

    def read_answer(self, body: bytes) -> Reading:
        """What a whole answer says of itself."""
        try:
            answer = _answer(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return Reading(None, is_malformed=True)
        return Reading(_tokens_of(answer.usage), _error_of(answer.error))

    def watch(self, ask: Ask) -> Stream:
        """A reader for one stream."""
        return Stream(hides_usage=not ask.wants_usage)

    def end_of_stream(self) -> bytes:
        """The end marker, as we write it once the call is settled."""
        return _DONE


def _ask_chat(body: bytes) -> Ask:
    chat = _chat(body)
    fields = _fields(body)
    fixed = chat.max_completion_tokens if chat.max_completion_tokens is not None else chat.max_tokens
    choices = 1 if chat.n is None else chat.n
    for name, value in (("n", choices), ("max_tokens", fixed)):
        if value is not None and value < 1:
            raise Refusal("invalid_request", f"`{name}` must be at least 1.", param=name)
    return Ask(
        model=chat.model,
        stream=bool(chat.stream),
        wants_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        output_tokens=None if fixed is None else fixed * choices,
        choices=choices,
        messages=len(chat.messages) + len(chat.tools or ()),
        media=sum(body.count(mark) for mark in _MEDIA),
        escape=_find_escape(chat, fields),
        size=len(body),
        fields=fields,
    )


def _ask_embeddings(body: bytes) -> Ask:
    asked = _embeddings(body)
    many = len(asked.input) if isinstance(asked.input, list) else 1
    return Ask(
        model=asked.model,
        stream=False,
        wants_usage=True,
        output_tokens=0,
        choices=1,
        messages=many,
        media=0,
        escape=None,
        size=len(body),
        fields=_fields(body),
    )


def _find_escape(chat: _Chat, fields: dict[str, msgspec.Raw]) -> str | None:
    for name in _ESCAPES:
        if name in fields and bytes(fields[name]) != b"null":
            return name
    if "service_tier" in fields and bytes(fields["service_tier"]) not in _TIERS:
        return "service_tier"
    for tool in chat.tools or ():
        if bytes(tool.get("type", b'"function"')) not in (b'"function"', b'"custom"'):
            return "tools"
    return None


def _wrong_field(said: str) -> Refusal:
    """Msgspec's `Expected `str`, got `int` - at `$.model`` as a refusal that names the field."""
    missing = _MISSING.search(said)
    place = _PLACE.search(said)
    inside = place[1] if place else ""
    if missing:
        name = f"{inside}.{missing[1]}" if inside else missing[1]
        return Refusal("invalid_request", f"`{name}` is missing.", param=name)
    what = _PLACE.sub("", said).replace("`", "")
    if not inside:
        return Refusal("invalid_request", f"The body must be a JSON object: {what}.")
    return Refusal("invalid_request", f"`{inside}` has the wrong type: {what}.", param=inside)


# ---- the answer -------------------------------------------------------------------------------------------------


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
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


_answer: Final = msgspec.json.Decoder(_Answer).decode
_chunk: Final = msgspec.json.Decoder(_Chunk).decode


def _tokens_of(usage: _Usage | None) -> Tokens | None:
    """The provider's count; a report of nothing at all is no report."""
    if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
        return None
    into = usage.prompt_tokens_details or _InputDetails()
    out = usage.completion_tokens_details or _OutputDetails()
    return Tokens(
        input=max(usage.prompt_tokens or 0, 0),
        output=max(usage.completion_tokens or 0, 0),
        cache_read=max(into.cached_tokens or 0, 0),
        cache_write=max(into.cache_write_tokens or 0, 0),
        reasoning=max(out.reasoning_tokens or 0, 0),
        audio=max((into.audio_tokens or 0) + (out.audio_tokens or 0), 0),
    )


def _error_of(raw: msgspec.Raw | None) -> Mapping[str, Any] | None:
    """An error object, whatever shape the provider gives it."""
    if raw is None or bytes(raw) in (b"null", b"false", b'""', b"{}"):
        return None
    said = msgspec.json.decode(raw)
    return said if isinstance(said, dict) else {"message": str(said)}


# ---- the stream -------------------------------------------------------------------------------------------------

_TELLING: Final = re.compile(
    rb'"usage"\s*:\s*\{|"error"\s*:\s*[{"]|\[DONE\]|"finish_reason"\s*:\s*"|^event:\s*error', re.MULTILINE
)
"""Whatever is worth decoding an event for. A JSON string cannot hold a bare quote, so content does not match these."""
_EVENT_END: Final = re.compile(rb"\r?\n\r?\n")


class Stream:
    """Forwards whole events as they came and decodes only those that may tell something."""

    __slots__ = (
        "_bytes",
        "_events",
        "_first",
        "_hides_usage",
        "_tail",
        "error",
        "has_content",
        "is_ended",
        "is_finished",
        "tokens",
    )

    def __init__(self, *, hides_usage: bool) -> None:
        self.tokens: Tokens | None = None
        self.error: Mapping[str, Any] | None = None
        self.has_content = False
        self.is_finished = False
        self.is_ended = False
        self._hides_usage = hides_usage
        self._tail = b""
        self._events = 0
        self._bytes = 0
        self._first = 0

    def feed(self, data: bytes) -> bytes:
        """What of the stream may be forwarded now: whole events, mostly the very bytes that came."""
        if self._tail:
            data = self._tail + data
        cut = data.rfind(b"\n\n") + 2
        if cut == 1 or b"\r" in data[cut:]:
            ends = [match.end() for match in _EVENT_END.finditer(data)]
            cut = ends[-1] if ends else 0
        self._tail = data[cut:]
        if len(self._tail) > _WIDEST_EVENT:
            raise StreamTooWide
        whole = data[:cut] if self._tail else data
        if not whole or self.is_ended:
            return b""
        if _TELLING.search(whole):
            whole = self._sift(whole)
        self._count(whole)
        return whole

    def is_cut(self) -> bool:
        """Whether the stream stopped in the middle of an event."""
        return bool(self._tail.strip())

    def estimate(self) -> int:
        """Output tokens by what went by: an event is a token at least, and four bytes of content are one."""
        if not self._events:
            return 0
        content = self._bytes - self._events * self._first
        return max(self._events, content // _BYTES_PER_TOKEN)

    def _count(self, whole: bytes) -> None:
        events = whole.count(b"data:")
        if events and not self._events:
            self._first = len(whole) // events
            self.has_content = True
        self._events += events
        self._bytes += len(whole)

    def _sift(self, whole: bytes) -> bytes:
        """Read the telling events; drop the end marker and, where it was not asked for, the usage event."""
        kept = []
        start = 0
        for end in [match.end() for match in _EVENT_END.finditer(whole)]:
            event = whole[start:end]
            start = end
            if self._is_forwarded(event):
                kept.append(event)
            if self.is_ended or self.error is not None:
                break
        return b"".join(kept)

    def _is_forwarded(self, event: bytes) -> bool:
        if not _TELLING.search(event):
            return True
        data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
        if data == b"[DONE]":
            self.is_ended = True
            return False
        try:
            chunk = _chunk(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.error = {"message": "The provider sent an event that is not valid JSON."}
            return False
        self.error = _error_of(chunk.error) or self.error
        if self.error is None and event.startswith(b"event:") and b"error" in event.split(b"\n", 1)[0]:
            self.error = {"message": data[:500].decode("utf-8", "replace")}
        if self.error is not None:
            return False
        self.tokens = _tokens_of(chunk.usage) or self.tokens
        if chunk.choices and any(choice.finish_reason for choice in chunk.choices):
            self.is_finished = True
        return bool(chunk.choices) or chunk.usage is None or not self._hides_usage
