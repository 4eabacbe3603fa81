"""What requests in the OpenAI dialect have in common: how they are parsed, what is counted, what would escape us."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ostiary.errors import Refusal

MOST_OUTPUT: Final = 2**31 - 1
MOST_CHOICES: Final = 128
BYTES_PER_TOKEN: Final = 4
"""For estimates only: what English text comes to with common tokenizers."""
NULL: Final = msgspec.Raw(b"null")

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
_HEARD: Final = re.compile(rb'"(?:input_audio|audio_url)"')
_SPELLED: Final = re.compile(rb"\\u00([2-7][0-9a-fA-F])")
"""A plain letter in its long spelling, by which `image_url` would be read by the provider but not by us."""
_OWN_TOOLS: Final = frozenset({b'"function"', b'"custom"'})
"""Tools that the caller runs."""
_PLACE: Final = re.compile(r" - at `\$\.?(.*)`$")
_MISSING: Final = re.compile(r"missing required field `([^`]+)`")

fields_of: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Outside(msgspec.Struct, frozen=True):
    """What of an input is more than its bytes."""

    media: int
    reaches_out: bool
    audio_rates: tuple[str, ...] = ()


def outside(body: bytes) -> Outside:
    """Look for media, for what is elsewhere, and for sound, which is dearer than text."""
    plain = _spelled_out(body)
    if b'_url"' not in plain and b"file" not in plain and b'audio"' not in plain:  # cheaper than the patterns
        return _NOTHING
    was_said, is_to_say = _spoken(body) if b'"audio"' in plain else (False, False)
    is_heard = was_said or _HEARD.search(plain) is not None
    rates = (("audio_input",) if is_heard else ()) + (("audio_output",) if is_to_say else ())
    return Outside(len(_MEDIA.findall(plain)), was_said or _BY_NAME.search(plain) is not None, rates)


_NOTHING: Final = Outside(0, reaches_out=False)


class _Message(msgspec.Struct):
    audio: msgspec.Raw = NULL


class _Spoken(msgspec.Struct):
    messages: list[_Message] | None = None
    modalities: list[str] | None = None
    audio: msgspec.Raw = NULL


_sounds: Final = msgspec.json.Decoder(_Spoken).decode


def _spoken(body: bytes) -> tuple[bool, bool]:
    """Whether a message is sound that the provider has kept from before, and whether sound is asked for."""
    try:
        told = _sounds(body)
    except msgspec.ValidationError:  # it is not as we know it, so it may be either
        return True, True
    kept = any(bytes(message.audio) != b"null" for message in told.messages or ())
    return kept, "audio" in (told.modalities or ()) or bytes(told.audio) != b"null"


def _spelled_out(body: bytes) -> bytes:
    """The body as the provider reads it, as far as plain letters go."""
    return _SPELLED.sub(lambda found: bytes((int(found[1], 16),)), body) if b"\\u00" in body else body


def within(name: str, value: int, most: int) -> int:
    """The value, if it is from 1 to `most`."""
    if not 1 <= value <= most:
        raise Refusal("invalid_request", f"`{name}` must be from 1 to {most}.", param=name)
    return value


def find_escape(
    fields: Mapping[str, msgspec.Raw],
    tools: Iterable[Mapping[str, msgspec.Raw]] = (),
    own_tools: frozenset[bytes] = _OWN_TOOLS,
) -> str | None:
    """The first field that picks another model, tier or paid service."""
    if not _ESCAPING.isdisjoint(fields):
        for name in _ESCAPES:
            if name in fields and bytes(fields[name]) != b"null":
                return name
    if "service_tier" in fields and bytes(fields["service_tier"]) not in _TIERS:
        return "service_tier"
    for tool in tools:
        if bytes(tool.get("type", b'"function"')) not in own_tools:
            return "tools"
    return None


def wrong_field(said: str) -> Refusal:
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
