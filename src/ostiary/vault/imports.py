"""Provider keys in a file of environment variables: which lines hold one, by the names of the variables (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ostiary.errors import Refusal
from ostiary.providers.catalog import Provider
from ostiary.secret import Secret

LARGEST: Final = 1_048_576
"""Bytes; a file of variables has a few thousand."""

_ASSIGNED: Final = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*(.*)", re.DOTALL)
_NUMBERED: Final = re.compile(r"(.+?)_([0-9]{1,3})")
_REFERENCE: Final = re.compile(r"\$(?:\{|\(|[A-Za-z_])|`")
_BEHIND: Final = re.compile(r"[ \t]#")
_QUOTED: Final = re.compile(r"""(?:"((?:[^"\\]|\\.)*)"|'([^']*)')[ \t]*(?:#.*)?""", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)")
_MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
_REFERS: Final = "refers to another variable or command"
_STRANGE: Final = "no provider's key is called so"


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A line with a key, and what other lines of the file say of its provider."""

    number: int
    variable: str
    provider: Provider
    secret: Secret
    base_url: str | None = None
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class OtherLine:
    """A line that is left alone, and why. Of one that assigns nothing no name is known: it may be a secret."""

    number: int
    variable: str
    note: str


@dataclass(frozen=True, slots=True)
class EnvFile:
    """What a file says; lines that only go with a key are in neither list."""

    keys: tuple[KeyLine, ...]
    others: tuple[OtherLine, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    variable: str
    value: Secret
    note: str = ""


def text_of(content: bytes) -> str:
    """The text of a file, however it was saved; refuses what is no text."""
    if len(content) > LARGEST:
        raise _unreadable(f"is larger than {LARGEST // 1024 // 1024} MB")
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _decoded(content[len(mark) :], encoding)
    if b"\0" in content:
        raise _unreadable("is no text")
    return _decoded(content, "utf-8")


def read(text: str, providers: Iterable[Provider]) -> EnvFile:
    """The lines of a file, blank ones and comments left out. Of a variable that stands twice the last counts."""
    lines = list(_lines(text))
    last = {line.variable: line for line in lines if line.variable}
    values = {line.variable: line.value.reveal() for line in last.values() if not line.note}
    known = _variables(providers)
    found = {line.number: _key(line, known, values) for line in last.values() if not line.note}
    keys = tuple(key for key in found.values() if key is not None)
    beside = {name for key in keys for name in _beside(key.provider)}
    others = (_other(line, last, known, beside) for line in lines if found.get(line.number) is None)
    return EnvFile(tuple(sorted(keys, key=lambda key: key.number)), tuple(other for other in others if other))


def _lines(text: str) -> Iterator[_Line]:
    for number, raw in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        stripped = raw.strip()
        if stripped and not stripped.startswith("#"):
            yield _line(number, stripped)


def _line(number: int, text: str) -> _Line:
    found = _ASSIGNED.fullmatch(text)
    if found is None:
        return _Line(number, "", Secret(""), "not of the form NAME=VALUE")
    value, note = _value(found[2])
    return _Line(number, found[1], Secret(value), note or ("" if value else "empty"))


def _value(text: str) -> tuple[str, str]:
    """What is assigned, or why it is not taken: a reference means something only where it is expanded."""
    if text[:1] not in ("'", '"'):
        value = "" if text.startswith("#") else _BEHIND.split(text, maxsplit=1)[0].strip()
        return ("", _REFERS) if _REFERENCE.search(value) else (value, "")
    quoted = _QUOTED.fullmatch(text)
    if quoted is None:
        return "", "its quotes do not end on this line"
    if quoted[2] is not None:
        return quoted[2].strip(), ""
    return ("", _REFERS) if _REFERENCE.search(quoted[1]) else (_ESCAPED.sub(r"\1", quoted[1]).strip(), "")


def _variables(providers: Iterable[Provider]) -> dict[str, Provider]:
    """What the keys of providers are called; where two claim a name, the first of the catalogue has it."""
    known: dict[str, Provider] = {}
    for provider in providers:
        for variable in provider.env:
            known.setdefault(variable, provider)
    return known


def _provider(variable: str, known: Mapping[str, Provider]) -> Provider | None:
    """By the very name, or by it with a number behind: OPENAI_API_KEY_2."""
    numbered = _NUMBERED.fullmatch(variable)
    return known.get(variable) or (known.get(numbered[1]) if numbered else None)


def _key(line: _Line, known: Mapping[str, Provider], values: Mapping[str, str]) -> KeyLine | None:
    provider = _provider(line.variable, known)
    if provider is None:
        return None
    base_url = next((values[name] for name in provider.env_url if name in values), None)
    fields = {
        one.name: next(values[name] for name in one.env if name in values)
        for one in provider.fields_of()
        if any(name in values for name in one.env)
    }
    return KeyLine(line.number, line.variable, provider, line.value, base_url, fields)


def _beside(provider: Provider) -> Iterator[str]:
    """The variables that go with a key of this provider."""
    yield from provider.env_url
    for one in provider.fields_of():
        yield from one.env


def _other(line: _Line, last: Mapping[str, _Line], known: Mapping[str, Provider], beside: set[str]) -> OtherLine | None:
    counts = last.get(line.variable, line)
    if counts is not line:
        return OtherLine(line.number, line.variable, f"stands again on line {counts.number}, which counts")
    if line.variable in beside and not line.note:
        return None
    is_known = line.variable in beside or _provider(line.variable, known) is not None
    note = line.note if is_known or not line.variable else _STRANGE
    return OtherLine(line.number, line.variable, note)


def _decoded(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise _unreadable("is not UTF-8") from None


def _unreadable(why: str) -> Refusal:
    return Refusal("invalid_field", f"The file {why}. Save it as a text of lines NAME=VALUE in UTF-8.", param="file")
