"""The OpenAI dialect: what each operation asks, where it goes, and what is changed of it on the way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from ostiary.errors import Refusal
from ostiary.providers.catalog import Provider
from ostiary.providers.dialect import Ask, Form, Reading, StreamReader
from ostiary.providers.openai_answer import Stream, read_answer
from ostiary.providers.openai_events import STREAMED, Events
from ostiary.providers.openai_fields import (
    MOST_CHOICES,
    MOST_OUTPUT,
    fields_of,
    find_escape,
    outside,
    within,
    wrong_field,
)
from ostiary.providers.openai_media import ask_image_edit, ask_images, ask_sound, ask_speech, ask_transcription
from ostiary.providers.openai_texts import ask_completion, ask_embeddings, ask_moderation, ask_rerank, ask_response
from ostiary.providers.openai_usage import READERS
from ostiary.providers.upload import Body

_PATHS: Final = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "embeddings": "/embeddings",
    "images.generations": "/images/generations",
    "images.edits": "/images/edits",
    "audio.speech": "/audio/speech",
    "audio.transcriptions": "/audio/transcriptions",
    "audio.translations": "/audio/translations",
    "moderations": "/moderations",
    "rerank": "/rerank",
}
_ASK_FOR_USAGE: Final = frozenset({"chat", "completions"})
"""Streams that tell their usage only when they are asked."""
_OTHER_LIMIT: Final = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_LIMITS: Final = {"responses": "max_output_tokens", "completions": "max_tokens"}
"""The field by which other answers than chats are kept short; the rest have none."""
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


_chat: Final = msgspec.json.Decoder(_Chat).decode
_encode: Final = msgspec.json.Encoder().encode


class OpenAI:
    """Speaks OpenAI's wire format, which most providers took over."""

    def read_ask(self, operation: str, body: bytes) -> Ask:
        """Parse what we act on; Refusal(invalid_request) names the field that is wrong."""
        try:
            return _ASKS[operation](body)
        except msgspec.ValidationError as error:
            raise wrong_field(str(error)) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Refusal("invalid_request", f"The body is not valid JSON: {error}.") from None

    def read_form(self, operation: str, form: Form) -> Ask:
        """The same of a form; Refusal(invalid_request) names the field that is wrong."""
        return ask_image_edit(form) if operation == "images.edits" else ask_transcription(operation, form)

    def path_of(self, operation: str) -> str:
        """The path behind the provider's base URL."""
        return _PATHS[operation]

    def write_body(self, ask: Ask, provider: Provider, model: str, max_tokens: int | None) -> Body:
        """The body for the provider: only model, usage option and (when given) `max_tokens` differ.

        `max_tokens` is for each choice; it is put in the field that this provider heeds, in place of the other.
        """
        if ask.form is not None:
            return ask.form.write(model)
        fields = dict(ask.fields)
        fields["model"] = msgspec.Raw(_encode(model))
        if ask.stream and ask.operation in _ASK_FOR_USAGE:
            _ask_for_usage(ask, provider, fields)
        if max_tokens is not None:
            if ask.operation == "chat":
                own = provider.max_tokens_field
                fields.pop(_OTHER_LIMIT[own], None)
                fields[own] = msgspec.Raw(b"%d" % max_tokens)
            elif ask.operation in _LIMITS:
                fields[_LIMITS[ask.operation]] = msgspec.Raw(b"%d" % max_tokens)
        return _encode(fields)

    def read_answer(self, body: bytes, ask: Ask | None = None) -> Reading:
        """What a whole answer says of itself; None is that to a chat."""
        if ask is None or ask.operation not in READERS:
            return read_answer(body)
        return READERS[ask.operation](body, ask)

    def watch(self, ask: Ask) -> StreamReader:
        """A reader for one stream."""
        kind = STREAMED.get(ask.operation)
        return Stream(hides_usage=not ask.wants_usage) if kind is None else Events(kind, ask)


def _ask_for_usage(ask: Ask, provider: Provider, fields: dict[str, msgspec.Raw]) -> None:
    """So that a stream tells what it used, in the way of this provider."""
    if provider.stream_usage == "ask" and not ask.wants_usage:
        options = fields.get("stream_options")
        kept = fields_of(options) if options is not None and bytes(options) != b"null" else {}
        fields["stream_options"] = msgspec.Raw(_encode({**kept, "include_usage": _TRUE}))
    elif provider.stream_usage == "always":
        fields.pop("stream_options", None)  # it tells unasked, and takes the question for a mistake


def _ask_chat(body: bytes) -> Ask:
    chat = _chat(body)
    fields = fields_of(body)
    found = outside(body)
    choices = 1 if chat.n is None else within("n", chat.n, MOST_CHOICES)
    fixed = None
    for name, limit in (("max_tokens", chat.max_tokens), ("max_completion_tokens", chat.max_completion_tokens)):
        if limit is not None:  # which one is heeded is not known
            fixed = max(within(name, limit, MOST_OUTPUT), fixed or 0)
    return Ask(
        model=chat.model,
        stream=bool(chat.stream),
        wants_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        output_tokens=None if fixed is None else fixed * choices,
        choices=choices,
        messages=len(chat.messages) + len(chat.tools or ()),
        media=found.media,
        reaches_out=found.reaches_out,
        escape=find_escape(fields, chat.tools or ()),
        size=len(body),
        fields=fields,
        audio_rates=found.audio_rates,
    )


_ASKS: Final[dict[str, Callable[[bytes], Ask]]] = {
    "chat": _ask_chat,
    "completions": ask_completion,
    "responses": ask_response,
    "embeddings": ask_embeddings,
    "moderations": ask_moderation,
    "rerank": ask_rerank,
    "images.generations": partial(ask_images, "images.generations"),
    "images.edits": partial(ask_images, "images.edits"),
    "audio.speech": ask_speech,
    "audio.transcriptions": partial(ask_sound, "audio.transcriptions"),
    "audio.translations": partial(ask_sound, "audio.translations"),
}
