"""The contract of a dialect: how a request is read and rewritten, and how answers and streams are counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from ostiary.providers.catalog import Provider
from ostiary.providers.tokens import Tokens
from ostiary.providers.upload import Body, UploadedBody


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
    """Whether some of the input is not in the body at all: files by id, videos by link, what was said before by id."""
    escape: str | None
    """The first field that picks another model, tier or paid service behind our back, if there is one."""
    size: int
    fields: dict[str, msgspec.Raw]
    operation: str = "chat"
    units: Tokens | None = None
    """The most it can use beside the tokens of its text and answer: images, audio, characters, searches."""
    guess: Tokens | None = None
    """What it used, for all we know, where the provider does not say; None: judged by what went by."""
    is_guess_exact: bool = False
    """Whether the units of the guess (not its tokens) are known and not guessed."""
    is_bytes: bool = False
    """Whether the answer is a file, passed on as it comes."""
    is_text: bool = False
    """Whether the answer is text and not JSON."""
    is_stored: bool = False
    """Whether the provider keeps the answer to be asked for by its id."""
    is_deferred: bool = False
    """Whether the answer is made behind our back: what it used is not known when this call ends."""
    previous_response_id: str | None = None
    is_unbounded: str | None = None
    """Why nothing bounds what it may cost, if nothing does: words for a caller whose calls must be bounded."""
    audio_rates: tuple[str, ...] = ()
    """The rates that a price by tokens must have for it beside those of text: it sends or asks for sound."""
    form: Form | None = None
    """Where the body is a form: its text fields are in `fields` too."""


class Part(msgspec.Struct, frozen=True):
    """A file in a form."""

    name: str
    size: int
    file_name: str
    bytes_of_a_second: int | None = None
    """The fewest in which a second of it may come, where it is sound of a kind that has a least."""


class Form(msgspec.Struct):
    """A form with files, as it was read; the model stands in none of the fields."""

    fields: dict[str, list[str]]
    """The values of short text fields, by name."""
    files: tuple[Part, ...]
    model: str
    size: int
    """Bytes of everything that is not a file."""
    write: FormWriter


class FormWriter(Protocol):
    """Writes a form out again."""

    def __call__(self, model: str, /) -> UploadedBody:
        """The same form, with this model."""
        ...


class Reading(msgspec.Struct, frozen=True):
    """What an answer says of itself: `tokens` when it reported usage, `error` when it is one."""

    tokens: Tokens | None
    error: Mapping[str, Any] | None = None
    is_malformed: bool = False
    is_undercounted: bool = False
    """There are words, or calls of tools, and none were counted."""
    response_id: str | None = None
    """What the provider keeps the answer under."""
    guess: Tokens | None = None
    """What it used, for all we know, where it does not say; else that of the Ask."""
    is_guess_exact: bool = False


class StreamReader(Protocol):
    """Watches a stream go by; holds back its end and what the caller did not ask for."""

    tokens: Tokens | None
    error: Mapping[str, Any] | None
    has_content: bool
    """More than a role has come; until then nothing is given out."""
    is_finished: bool
    """The model said that it is done."""
    is_ended: bool
    """The end marker has come."""
    response_id: str | None
    """What the provider keeps the answer under."""

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

    def ending(self) -> bytes:
        """How the stream ends, written once the call is settled."""
        ...

    def error_event(self, error: Mapping[str, Any]) -> bytes:
        """How the stream ends where it went wrong: an event with our error, fit for the caller."""
        ...


class StreamTooWide(Exception):  # noqa: N818 - a fact about the provider, like TransportError
    """One event of the stream is larger than we are willing to hold."""


class Dialect(Protocol):
    """How one family of providers speaks. All methods are pure."""

    def read_ask(self, operation: str, body: bytes) -> Ask:
        """Parse what we act on; Refusal(invalid_request) names the field that is wrong."""
        ...

    def read_form(self, operation: str, form: Form) -> Ask:
        """The same of a form; Refusal(invalid_request) names the field that is wrong."""
        ...

    def path_of(self, operation: str) -> str:
        """The path behind the provider's base URL."""
        ...

    def write_body(self, ask: Ask, provider: Provider, model: str, max_tokens: int | None) -> Body:
        """The body for the provider: only model, usage option and (when given, for each choice) `max_tokens` differ."""
        ...

    def read_answer(self, body: bytes, ask: Ask | None = None) -> Reading:
        """What a whole answer says of itself; None is that to a chat."""
        ...

    def watch(self, ask: Ask) -> StreamReader:
        """A reader for one stream."""
        ...
