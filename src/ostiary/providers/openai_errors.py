"""What a kept response says went wrong, fit for the caller: whole, and in the events it is streamed in again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ostiary.providers.openai_answer import Framing, data_of, is_error, split
from ostiary.providers.openai_fields import NULL
from ostiary.providers.verdict import scrub

_WIDEST: Final = 32 * 1024 * 1024
_TOLD: Final = ("type", "code", "message", "param")
"""What of an error is passed on."""
_FAULTS: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)

Fields = dict[str, msgspec.Raw]
_fields: Final = msgspec.json.Decoder(Fields).decode
_encode: Final = msgspec.json.Encoder().encode


class UnreadableError(Exception):
    """The provider said something that nobody can look through."""


def clean(body: bytes, secrets: tuple[str, ...]) -> bytes:
    """A whole answer whose error is scrubbed; the very bytes that came where it has none."""
    try:
        told = _fields(body)
        return _encode(told) if _mend_error(told, secrets) else body
    except _FAULTS:
        raise UnreadableError from None


class CleanEvents:
    """Forwards whole events as they came, but for those that tell of an error: there it is scrubbed.

    Nothing is held back. A stream of this kind costs nothing, and only one provider key can be asked for it.
    """

    __slots__ = ("_framing", "_secrets")

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._framing = Framing(_WIDEST)
        self._secrets = secrets

    def feed(self, data: bytes) -> bytes:
        """What may be forwarded now; raises UnreadableError, and StreamTooWide."""
        return b"".join([self._clean(event) for event in split(self._framing.take(data))])

    def close(self) -> bytes:
        """The last event, where it came without its blank line."""
        rest = self._framing.rest().strip()
        return self._clean(rest + b"\n\n") if rest else b""

    def _clean(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data or data == b"[DONE]":
            return event
        try:
            told = _fields(data)
            is_mended = _mend_error(told, self._secrets)
            if is_error(event) or msgspec.json.decode(told.get("type", NULL)) == "error":
                told.update(_fit(told, self._secrets))
                is_mended = True
            response = _object(told.get("response", NULL))
            if response is not None and _mend_error(response, self._secrets):
                told["response"] = msgspec.Raw(_encode(response))
                is_mended = True
        except _FAULTS:
            raise UnreadableError from None
        if not is_mended:
            return event
        lines = [line for line in event.splitlines() if line and not line.startswith(b"data:")]
        return b"\n".join([*lines, b"data: " + _encode(told), b"", b""])


def _mend_error(told: Fields, secrets: tuple[str, ...]) -> bool:
    """Put an error that is fit for the caller where there is one; whether there was."""
    raw = told.get("error", NULL)
    if bytes(raw) == b"null":
        return False
    error = _object(raw)
    if error is not None:
        told["error"] = msgspec.Raw(_encode(_fit(error, secrets)))
    else:
        told["error"] = _scrubbed(raw, secrets)
    return True


def _object(raw: msgspec.Raw) -> Fields | None:
    return _fields(raw) if bytes(raw)[:1] == b"{" else None


def _fit(error: Mapping[str, msgspec.Raw], secrets: tuple[str, ...]) -> Fields:
    return {name: _scrubbed(error[name], secrets) for name in _TOLD if name in error}


def _scrubbed(raw: msgspec.Raw, secrets: tuple[str, ...]) -> msgspec.Raw:
    """A text without what is nobody's business; a number is none; anything else is not passed on."""
    said = msgspec.json.decode(raw)
    if isinstance(said, str):
        said = scrub(said, secrets)
    elif not isinstance(said, int | float):
        said = None
    return msgspec.Raw(_encode(said))
