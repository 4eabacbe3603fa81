"""What keys of a provider usually look like, in words for a person: a hint, by which nothing is refused (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from ostiary.providers.provider import Provider
from ostiary.secret import Secret

_OPENING: Final = re.compile(r"(?:[A-Za-z0-9_-]|\\[.-])*(?![*+?{])")
"""Letters that stand for themselves, the last of them not counted where it may be missing or come again."""
_GROUP: Final = "(?:"
_MAY_REPEAT: Final = ("*", "+", "?", "{")
_RUN: Final = re.compile(r"\[([^\]]+)\]\{(\d+)\}")
"""So many letters of one kind, and nothing else."""
_KINDS: Final = MappingProxyType(
    {
        "0-9": "digits",
        "a-f0-9": "lower-case hexadecimal digits",
        "0-9a-f": "lower-case hexadecimal digits",
        "a-z0-9": "lower-case letters and digits",
        "a-zA-Z0-9": "letters and digits",
        "A-Za-z0-9": "letters and digits",
        "A-Za-z0-9_-": "letters, digits, underscores and hyphens",
        "a-zA-Z0-9_-": "letters, digits, underscores and hyphens",
    }
)
_LONGEST: Final = 2_000
"""Letters; with some shapes it takes long to find out that a very long text has another."""


def hint(row: Provider) -> str:
    """A sentence on how keys of this provider look; empty where nobody has looked that up, or words do not say it."""
    words = _words(row.key_shape) if row.key_shape else ""
    return f"Keys of {row.name} {words}." if words else ""


def remark(row: Provider, secret: Secret) -> str:
    """A sentence on a key that looks like none of the provider's; empty where it does, or nothing can be said."""
    text = secret.reveal().strip()
    if not row.key_shape or not text or len(text) > _LONGEST or re.fullmatch(row.key_shape, text, re.ASCII):
        return ""
    words = _words(row.key_shape)
    usual = f": they {words}" if words else ""
    return f"It does not look like a key of {row.name}{usual}. Some of its keys may look otherwise."


def openings(shape: str) -> tuple[str, ...]:
    """What everything of this shape begins with, one of them; none where the shape does not say it in plain letters."""
    found = tuple(dict.fromkeys(_opening(branch) for branch in _branches(shape)))
    return found if all(found) else ()


def _words(shape: str) -> str:
    """What they begin with, or are made of; empty where any of them can only be said by the expression itself."""
    begins: dict[str, None] = {}
    wholes: dict[str, None] = {}
    for branch in _branches(shape):
        run = _RUN.fullmatch(branch)
        if opening := _opening(branch):
            begins[repr(opening)] = None
        elif run and run[1] in _KINDS:
            wholes[f"{run[2]} {_KINDS[run[1]]}"] = None
        else:
            return ""
    said = [f"begin with {' or '.join(begins)}"] if begins else []
    said += [f"are {' or '.join(wholes)}"] if wholes else []
    return f"usually {', or '.join(said)}"


def _opening(shape: str) -> str:
    found = _OPENING.match(shape)
    return found[0].replace("\\", "") if found else ""


def _branches(shape: str) -> Iterator[str]:
    """The alternatives that a shape begins with, each with what comes behind."""
    parts, rest = _split(shape)
    if len(parts) > 1 or not shape.startswith(_GROUP) or rest:
        yield from parts
        return
    inner, behind = _split(shape[len(_GROUP) :])
    for part in inner:
        yield shape if behind[1:].startswith(_MAY_REPEAT) else part + behind[1:]


def _split(shape: str) -> tuple[list[str], str]:
    """At each `|` of the outermost level, up to a bracket that closes more than was opened; and the rest."""
    parts, begin, depth, place, in_class = [], 0, 0, 0, False
    while place < len(shape):
        letter = shape[place]
        if letter == "\\":
            place += 1
        elif letter in "[]":
            in_class = letter == "["
        elif not in_class and letter == "|" and not depth:
            parts.append(shape[begin:place])
            begin = place + 1
        elif not in_class and letter in "()":
            depth += 1 if letter == "(" else -1
            if depth < 0:
                break
        place += 1
    return [*parts, shape[begin:place]], shape[place:]
