"""The contract of a dialect: how a request is read and rewritten, and how answers and streams are counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from ostiary.providers.catalog import Provider
from ostiary.providers.tokens import Tokens


class Ask(msgspec.Struct):
    """What we act on in a caller's body; `fields` carries the whole of it, undecoded."""

    model: str
    stream: bool
    wants_usage: bool
    output_tokens: int | None
    """The most the caller asked for over all choices, None when not fixed."""
    choices: int
    messages: int
    media: int
    """Parts of the input whose tokens may be more than their bytes: images by link, files, audio."""
    reaches_out: bool
    """Whether some of the input is not in the body at all: files by id, videos by link."""
    escape: str | None
    """The first field that picks another model, tier or paid service behind our back, if there is one."""
    size: int
    fields: dict[str, msgspec.Raw]


class Reading(msgspec.Struct, frozen=True):
    """What an answer says of itself: `tokens` when it reported usage, `error` when it is one."""

    tokens: Tokens | None
    error: Mapping[str, Any] | None = None
    is_malformed: bool = False
    is_undercounted: bool = False
    """There are words, or calls of tools, and none were counted."""


class StreamReader(Protocol):
    """Watches a stream go by; holds back the end marker and what the caller did not ask for."""

    tokens: Tokens | None
    error: Mapping[str, Any] | None
    has_content: bool
    """More than a role has come; until then nothing is given out."""
    is_finished: bool
    """The model said that it is done."""
    is_ended: bool
    """The end marker has come."""

    def feed(self, data: bytes) -> bytes:
        """What of the stream may be forwarded now: whole events, mostly the very bytes that came.

        Raises StreamTooWide when one event passes the bound.
        """
        ...

    def close(self) -> bool:
        """The provider has hung up: whether it did so at the end of an event."""
        ...

    def estimate(self) -> int:
        """Output tokens by what went by, for streams that end without telling."""
        ...


class StreamTooWide(Exception):  # noqa: N818 - a fact about the provider, like TransportError
    """One event of the stream is larger than we are willing to hold."""


class Dialect(Protocol):
    """How one family of providers speaks. All methods are pure."""

    def read_ask(self, operation: str, body: bytes) -> Ask:
        """Parse what we act on; Refusal(invalid_request) names the field that is wrong."""
        ...

    def path_of(self, operation: str) -> str:
        """The path behind the provider's base URL."""
        ...

    def write_body(self, ask: Ask, provider: Provider, model: str, max_tokens: int | None) -> bytes:
        """The body for the provider: only model, usage option and (when given, for each choice) `max_tokens` differ."""
        ...

    def read_answer(self, body: bytes) -> Reading:
        """What a whole answer says of itself."""
        ...

    def watch(self, ask: Ask) -> StreamReader:
        """A reader for one stream."""
        ...

    def end_of_stream(self) -> bytes:
        """The end marker, as we write it once the call is settled."""
        ...
