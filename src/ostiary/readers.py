"""Reads what a setting may be: a text, a TOML value or a value of code in, ValueError with what is wrong of it out."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ostiary.secret import Secret

Network = IPv4Network | IPv6Network

_SHORTEST_TOKEN: Final = 32
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


def a_text(value: object) -> str:
    """Not an empty one, without the blanks around it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return value.strip()


def a_path(value: object) -> Path:
    """A path, `~` spelled out."""
    return Path(value if isinstance(value, Path) else a_text(value)).expanduser()


def a_secret(value: object) -> Secret:
    """A text that is never shown."""
    return value if isinstance(value, Secret) else Secret(a_text(value))


class UnfitError(ValueError):
    """Why a secret cannot be used, in words that hold no part of it."""


def a_token(value: object) -> Secret:
    """A secret nobody guesses, fit for a header."""
    text = a_secret(value).reveal()
    if len(text) < _SHORTEST_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise UnfitError(f"must be {_SHORTEST_TOKEN} visible ASCII characters or more, without spaces")
    return Secret(text)


def a_whole(low: int, high: int) -> Callable[[object], int]:
    """A reader of whole numbers from `low` to `high`."""

    def read(value: object) -> int:
        digits = isinstance(value, str) and value.strip().isascii() and value.strip().isdigit()
        number = int(value) if digits and isinstance(value, str) else value
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return number

    return read


def a_switch(value: object) -> bool:
    """True or false, in the usual words."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in _TRUE | _FALSE:
        raise ValueError("must be true or false")
    return word in _TRUE


def one_of(*words: str) -> Callable[[object], str]:
    """A reader of one of these words."""

    def read(value: object) -> str:
        if value not in words:
            raise ValueError(f"must be {' or '.join(words)}")
        return str(value)

    return read


def _list(value: object) -> list[object]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return list(value)
    raise ValueError("must be a comma-separated list")


def _address(value: object, *, bare: bool) -> str:
    text = a_text(value)
    parts = urlsplit(text)
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    bounded = parts.port is None or parts.port > 0  # .port itself raises ValueError on nonsense
    shown = text.rpartition("@")[2]  # what stands before an @ may be a password
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain or not bounded:
        raise ValueError(f"{shown!r} is not of the form https://host[:port]")
    if bare and parts.path not in {"", "/"}:
        raise ValueError(f"{shown!r} has a path; an origin is only https://host[:port]")
    return text.rstrip("/")


def origins(value: object) -> tuple[str, ...]:
    """Several of `https://host[:port]`."""
    return tuple(_address(part, bare=True).lower() for part in _list(value))


def a_url(value: object) -> str:
    """An http(s) URL without user and query, and without a slash at its end."""
    return _address(value, bare=False)


def an_issuer(value: object) -> str:
    """The URL by which an OpenID provider names itself."""
    _address(value, bare=False)
    return a_text(value)  # with the slash it may end in: issuers are compared letter by letter


def domains(value: object) -> tuple[str, ...]:
    """Several domains of e-mail addresses, with or without an @."""
    return tuple(a_text(part).lower().removeprefix("@") for part in _list(value))


def networks(value: object) -> tuple[Network, ...]:
    """Several CIDRs."""
    return tuple(
        part if isinstance(part, IPv4Network | IPv6Network) else ip_network(a_text(part)) for part in _list(value)
    )
