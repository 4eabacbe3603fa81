"""The OpenAI dialect: chat completions, streaming and not, and embeddings."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from ostiary.errors import Refusal
from ostiary.providers.catalog import Provider
from ostiary.providers.dialect import Ask, Reading
from ostiary.providers.openai_answer import END, Stream, read_answer

_PATHS: Final = {"chat": "/chat/completions", "embeddings": "/embeddings"}
_ESCAPES: Final = (
    "models",
    "fallbacks",
    "route",
    "preset",
    "plugins",
    "provider",
    "web_search_options",
    "search_parameters",
)
"""Fields by which a provider may be told to use another model or a service with a price of its own."""
_ESCAPING: Final = frozenset(_ESCAPES)
_TIERS: Final = frozenset({b"null", b'"auto"', b'"default"', b'"flex"'})
"""Service tiers that do not cost more than the plain price."""
_MEDIA: Final = re.compile(rb'"(?:image_url|input_audio|audio_url|video_url|document_url|file)"')
_BY_NAME: Final = re.compile(rb'"(?:file_id|file_ids|video_url|document_url|input_file)"')
"""Parts of the input that are elsewhere: as long as the model can read, for all we know."""
_SPELLED: Final = re.compile(rb"\\u00([2-7][0-9a-fA-F])")
"""A plain letter in its long spelling, by which `image_url` would be read by the provider but not by us."""
_MOST_OUTPUT: Final = 2**31 - 1
_OTHER_LIMIT: Final = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_MOST_CHOICES: Final = 128
_TRUE: Final = msgspec.Raw(b"true")


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
        """The body for the provider: only model, usage option and (when given) `max_tokens` differ.

        `max_tokens` is for each choice; it is put in the field that this provider heeds, in place of the other.
        """
        fields = dict(ask.fields)
        fields["model"] = msgspec.Raw(_encode(model))
        if ask.stream and not ask.wants_usage and provider.stream_usage == "ask":
            options = fields.get("stream_options")
            kept = _fields(options) if options is not None and bytes(options) != b"null" else {}
            fields["stream_options"] = msgspec.Raw(_encode({**kept, "include_usage": _TRUE}))
        elif ask.stream and provider.stream_usage == "always":
            fields.pop("stream_options", None)  # it tells unasked, and takes the question for a mistake
        if max_tokens is not None:
            own, other = provider.max_tokens_field, _OTHER_LIMIT[provider.max_tokens_field]
            fields.pop(other, None)
            fields[own] = msgspec.Raw(b"%d" % max_tokens)
        return _encode(fields)

    def read_answer(self, body: bytes) -> Reading:
        """What a whole answer says of itself."""
        return read_answer(body)

    def watch(self, ask: Ask) -> Stream:
        """A reader for one stream."""
        return Stream(hides_usage=not ask.wants_usage)

    def end_of_stream(self) -> bytes:
        """The end marker, as we write it once the call is settled."""
        return END


def _ask_chat(body: bytes) -> Ask:
    chat = _chat(body)
    fields = _fields(body)
    plain = _spelled_out(body)
    may_have_media = b'_url"' in plain or b"file" in plain or b'_audio"' in plain  # cheaper than the patterns
    choices = 1 if chat.n is None else _within("n", chat.n, _MOST_CHOICES)
    fixed = None
    for name, limit in (("max_tokens", chat.max_tokens), ("max_completion_tokens", chat.max_completion_tokens)):
        if limit is not None:  # which one is heeded is not known
            fixed = max(_within(name, limit, _MOST_OUTPUT), fixed or 0)
    return Ask(
        model=chat.model,
        stream=bool(chat.stream),
        wants_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        output_tokens=None if fixed is None else fixed * choices,
        choices=choices,
        messages=len(chat.messages) + len(chat.tools or ()),
        media=len(_MEDIA.findall(plain)) if may_have_media else 0,
        reaches_out=may_have_media and _BY_NAME.search(plain) is not None,
        escape=_find_escape(chat, fields),
        size=len(body),
        fields=fields,
    )


def _within(name: str, value: int, most: int) -> int:
    if not 1 <= value <= most:
        raise Refusal("invalid_request", f"`{name}` must be from 1 to {most}.", param=name)
    return value


def _spelled_out(body: bytes) -> bytes:
    """The body as the provider reads it, as far as plain letters go."""
    return _SPELLED.sub(lambda found: bytes((int(found[1], 16),)), body) if b"\\u00" in body else body


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
        reaches_out=False,
        escape=None,
        size=len(body),
        fields=_fields(body),
    )


def _find_escape(chat: _Chat, fields: dict[str, msgspec.Raw]) -> str | None:
    if not _ESCAPING.isdisjoint(fields):
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
