"""How durations, amounts, lists and pairs are written on the command line (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from ostiary.agents.policy import ALL, Choice
from ostiary.clock import DAY_MS
from ostiary.money import nano_of

T = TypeVar("T")

_DURATION: Final = re.compile(r"([0-9]{1,6})([smhdwy])")
_UNIT_MS: Final = {
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": DAY_MS,
    "w": 7 * DAY_MS,
    "y": 365 * DAY_MS,
}
_NONE: Final = "none"
_NEVER: Final = "never"
_MAX_COUNT: Final = 2_000_000_000
_LONGEST_PERCENT: Final = 3


@dataclass(frozen=True, slots=True)
class Given(Generic[T]):
    """An option that was given; None in it is the word that clears. An option that was not given is None itself."""

    value: T | None


@dataclass(frozen=True, slots=True)
class Pair:
    """One `NAME=VALUE`."""

    name: str
    value: str


def duration(text: str) -> int:
    """Milliseconds of `90s`, `15m`, `12h`, `30d`, `4w` or `1y`."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise ValueError(f"{text!r} is not a duration such as 12h or 30d")
    return int(found[1]) * _UNIT_MS[found[2]]


def lifetime(text: str) -> Given[int]:
    """A duration in milliseconds, or `never`."""
    return Given(None) if text.strip() == _NEVER else Given(duration(text))


def longest(text: str) -> Given[int]:
    """A duration in milliseconds, or `none`."""
    return Given(None) if text.strip() == _NONE else Given(duration(text))


def usd(text: str) -> Given[int]:
    """An amount in USD as nano-dollars, or `none`."""
    return Given(None) if text.strip() == _NONE else Given(nano_of(text.strip().removeprefix("$")))


def count(text: str) -> Given[int]:
    """A whole number from 1, or `none`."""
    word = text.strip()
    if word == _NONE:
        return Given(None)
    if not (word.isascii() and word.isdigit()) or not 1 <= int(word) <= _MAX_COUNT:
        raise ValueError(f"{text!r} is not a whole number from 1, or 'none'")
    return Given(int(word))


def percents(text: str) -> Given[tuple[int, ...]]:
    """Whole numbers separated by commas, or `none`."""
    if text.strip() == _NONE:
        return Given(None)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= _LONGEST_PERCENT for part in parts):
        raise ValueError(f"{text!r} is not a list of percents such as 50,80,100")
    return Given(tuple(int(part) for part in parts))


def days(text: str) -> Given[int]:
    """Whole days as a number or like `90d` and `1y`, or `none`."""
    word = text.strip()
    if word == _NONE or word.isdigit():
        return count(text)
    whole, rest = divmod(duration(word), DAY_MS)
    if rest:
        raise ValueError(f"{text!r} is not a number of whole days such as 90d")
    return Given(whole)


def distance(ms: int) -> str:
    """A span of time as people say it: `6 days`, `1 hour`, `less than a minute`."""
    for name, unit in (("day", DAY_MS), ("hour", _UNIT_MS["h"]), ("minute", _UNIT_MS["m"])):
        found = abs(ms) // unit
        if found:
            return f"{found:,} {name}{'' if found == 1 else 's'}"
    return "less than a minute"


def away(at: int, now: int) -> str:
    """When that is, from now: `in 6 days`, `2 hours ago`."""
    return f"in {distance(at - now)}" if at >= now else f"{distance(now - at)} ago"


def names(text: str) -> frozenset[str]:
    """Names separated by commas."""
    found = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise ValueError("names at least one")
    return found


def choice(text: str) -> Choice:
    """`all`, `none`, or names separated by commas."""
    return chosen(sorted(names(text)))


def chosen(parts: list[str]) -> Choice:
    """`all` or `none` alone, or names."""
    match parts:
        case ["all"]:
            return ALL
        case ["none"]:
            return Choice("none")
        case _ if {"all", "none"} & set(parts):
            raise ValueError("'all' and 'none' stand alone")
        case _:
            return Choice("only", frozenset(parts))


def metadata(text: str) -> dict[str, Any]:
    """A JSON object, or `none` for an empty one."""
    if text.strip() == _NONE:
        return {}
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError('is not a JSON object such as {"team": "search"}')  # noqa: TRY004 - typer reads ValueError
    return found


def pair(text: str) -> Pair:
    """`NAME=VALUE`; the value may hold further equals signs."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{text!r} is not of the form NAME=VALUE")
    return Pair(name.strip(), value)
