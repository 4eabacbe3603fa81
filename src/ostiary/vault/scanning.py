"""Finds credentials in texts: ours by their checksum, those of providers by their shape (pure)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ostiary.providers.catalog import Provider
from ostiary.secret import Secret

_WORD: Final = r"[A-Za-z0-9_-]"
_LETTERS: Final = re.compile(r"[A-Za-z0-9_.~+/=:-]+")
"""What keys are made of: a shape that takes anything would take the quotes behind a key, too."""
_LONGEST_PROBE: Final = 128
_UUID: Final = "00000000-0000-0000-0000-000000000000"
_HEAD: Final = 8_192
_MARKS: Final = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


@dataclass(frozen=True, slots=True)
class Found:
    """A credential in a text: `kind` is what it is, `providers` whose it can be where it is none of ours."""

    line: int
    kind: str
    secret: Secret
    preview: str
    providers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What one of our own credentials is."""

    kind: str
    preview: str


@dataclass(frozen=True, slots=True)
class Ours:
    """How our own credentials are found: what may be one, and what `judge` says of it."""

    pattern: re.Pattern[str]
    judge: Callable[[str], Known | None]


class Scanner:
    """Knows every shape that says something."""

    def __init__(self, ours: Ours, providers: Iterable[Provider]) -> None:
        self._ours = ours
        shapes = {one.id: re.compile(one.key_shape, re.ASCII) for one in providers if one.key_shape}
        self._shapes = {id: shape for id, shape in shapes.items() if is_telling(shape)}
        either = "|".join(f"(?:{shape.pattern})" for shape in self._shapes.values()) or r"(?!)"
        self._theirs = re.compile(f"(?<!{_WORD})(?:{either})(?!{_WORD})", re.ASCII)

    @property
    def providers(self) -> tuple[str, ...]:
        """Whose keys can be found."""
        return tuple(self._shapes)

    def find(self, text: str) -> Iterator[Found]:
        """Every credential, in the order of the text."""
        found = sorted([*self._find_ours(text), *self._find_theirs(text)], key=lambda pair: pair[0])
        line, counted = 1, 0
        for start, known, providers, secret in found:
            line += text.count("\n", counted, start)
            counted = start
            yield Found(line, known.kind, Secret(secret), known.preview, providers)

    def _find_ours(self, text: str) -> Iterator[tuple[int, Known, tuple[str, ...], str]]:
        for match in self._ours.pattern.finditer(text):
            known = self._ours.judge(match[0])
            if known is not None:
                yield match.start(), known, (), match[0]

    def _find_theirs(self, text: str) -> Iterator[tuple[int, Known, tuple[str, ...], str]]:
        for match in self._theirs.finditer(text):
            key = _LETTERS.match(match[0])
            whose = tuple(id for id, shape in self._shapes.items() if key and shape.fullmatch(key[0]))
            if key and whose:
                yield match.start(), Known("provider key", Secret(key[0]).preview()), whose, key[0]


def is_telling(shape: re.Pattern[str]) -> bool:
    """Whether a shape is a key's alone: what any checksum, id or long word fits would be found everywhere."""
    lengths = range(1, _LONGEST_PROBE + 1)
    return not (shape.fullmatch(_UUID) or any(shape.fullmatch(letter * many) for letter in "aA0" for many in lengths))


def text_of(content: bytes) -> str | None:
    """A file as text, None when it is none. Credentials are ASCII, so any encoding that holds ASCII will do."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    return None if b"\0" in content[:_HEAD] else content.decode("latin-1")
