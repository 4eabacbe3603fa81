"""Reads rows of a catalogue file, and refuses those that are not understood."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, get_args

from ostiary.providers.address import places_in
from ostiary.providers.provider import (
    AuthMethod,
    Field,
    FreeKind,
    FreeTier,
    MaxTokensField,
    Operation,
    Probe,
    Provider,
    StreamUsage,
    Style,
)

T = TypeVar("T")

CATEGORIES: Final = ("popular", "llm", "enterprise", "media", "local")
DIALECTS: Final = frozenset({"openai"})
"""Dialects that are built: a row of another one cannot be called."""
_OPERATIONS: Final = frozenset(get_args(Operation))
_ID: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_VALUE: Final = re.compile(r"[ -~]+")
_URL: Final = re.compile(r"https?://[^\s?#]+(?<!/)")
_PATH: Final = re.compile(r"(?:\{origin\})?(?:/|\{path\})[^\s#]*")
_LONGEST: Final = 1_000_000
_TEXTS: Final = frozenset({"signup_url", "docs_url", "key_shape", "prices"})
Row = tuple[Provider, tuple[Mapping[str, Any], ...]]
"""A provider, and the models that stand in its row."""
_LISTS: Final = ("categories", "free_models", "unverified", "env", "env_url")


def read(path: Path, *, is_ours: bool = False) -> list[Row]:
    """Each row of the file. Raises TypeError or ValueError, which say which row and why.

    What `is_ours` was judged when it was built, and every start waits for this: a third of the time is saved.
    """
    text = path.read_text("utf-8")
    if len(text) > _LONGEST:
        raise ValueError("a catalogue has at most a million characters")
    found = [_named(row, is_ours=is_ours) for row in tomllib.loads(text).get("provider", ())]
    if not found:
        raise ValueError("there is no [[provider]] in it")
    ids = [provider.id for provider, _ in found]
    if len(ids) != len(set(ids)):
        raise ValueError("two rows of the catalogue have the same id")
    return found


def _named(row: Any, *, is_ours: bool) -> Row:  # noqa: ANN401 - whatever TOML holds
    name = row.get("id", "a row without an id") if isinstance(row, dict) else "a row"
    try:
        models = tuple(row.pop("models", ()))
        provider = _provider(row)
        if not is_ours:
            _check(provider)
    except AttributeError as error:
        raise TypeError(f"{name}: a table or list is something else ({error})") from None
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    return provider, models


def _provider(row: dict[str, Any]) -> Provider:
    """A row of the file as a record; a key that is no field raises TypeError."""
    for name in _LISTS:
        row[name] = _texts(row.get(name, ()))
    row["operations"] = frozenset(_texts(row.get("operations", ("chat",))))
    row["fields"] = _fields(row)
    row["headers"] = tuple(row.get("headers", {}).items())
    first = {name: row.pop(f"auth_{name}") for name in ("header", "format") if f"auth_{name}" in row}
    if first and "auth" in row:
        raise ValueError("`auth` lists the methods, so `auth_header` and `auth_format` stand in it")
    row["auth"] = tuple(map(_method, row.get("auth", ()))) or (_record(AuthMethod, first),)
    row["test"] = _probe(row.get("test", {}))
    row["styles"] = tuple(
        _record(Style, {**one, "paths": _frozen(one.get("paths", {}))}) for one in row.get("styles", ())
    )
    for name in ("paths", "regions"):
        row[name] = _frozen(row.get(name, {}))
    if "free_tier" in row:
        row["free_tier"] = _record(FreeTier, row["free_tier"])
    row.setdefault("base_url", None)
    return _record(Provider, row)


def _record(kind: Callable[..., T], table: Mapping[str, Any]) -> T:
    """A table as a record, with every name one of its fields."""
    known, needed = _names(kind)
    if unknown := sorted(table.keys() - known):
        raise TypeError(f"there is no `{unknown[0]}` here; there are {', '.join(known)}")
    if missing := sorted(needed - table.keys()):
        raise TypeError(f"`{missing[0]}` is missing")
    return kind(**table)


@cache
def _names(kind: Callable[..., object]) -> tuple[dict[str, None], frozenset[str]]:
    """The fields of a record, in order, and those without a default."""
    known = fields(kind)  # type: ignore[arg-type]
    needed = (one.name for one in known if one.default is MISSING and one.default_factory is MISSING)
    return dict.fromkeys(one.name for one in known), frozenset(needed)


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    found = tuple(values)
    if isinstance(values, str) or not all(isinstance(one, str) for one in found):
        raise TypeError(f"{values!r} is not a list of texts")
    return found


def _frozen(table: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({name: str(value) for name, value in table.items()})


def _fields(of: Mapping[str, Any]) -> tuple[Field, ...]:
    return tuple(_record(Field, {**one, "env": _texts(one.get("env", ()))}) for one in of.get("fields", ()))


def _method(table: Mapping[str, Any]) -> AuthMethod:
    given = {**table, "fields": _fields(table), "headers": tuple(table.get("headers", {}).items())}
    return _record(AuthMethod, given)


def _probe(table: Mapping[str, Any]) -> Probe:
    test = {"path": "/models", **table, "bad_key": tuple(table.get("bad_key", (401,)))}
    if "body" in test:
        test["body"] = json.dumps(test["body"], separators=(",", ":")).encode()
        test.setdefault("method", "POST")
    if "auth" in test:
        test["auth"] = _record(AuthMethod, test["auth"])
    return _record(Probe, test)


# ---- what a row must be -----------------------------------------------------------------------------------------


def _check(row: Provider) -> None:
    """TypeError or ValueError on what would only fail in the middle of somebody's call."""
    _check_types(row)
    _known("stream_usage", (row.stream_usage,), get_args(StreamUsage))
    _known("max_tokens_field", (row.max_tokens_field,), get_args(MaxTokensField))
    _known("kind of free tier", (row.free_tier.kind,) if row.free_tier else (), get_args(FreeKind))
    _require(_ID.fullmatch(row.id), "an id is lower-case words and digits, joined by hyphens")
    _require(row.name.isprintable() and row.name, "it has no name that can be shown")
    _known("category", row.categories, CATEGORIES)
    _require(row.categories, "it has no category")
    _known("operation", row.operations, _OPERATIONS)
    _require(row.callable or row.reason, "a row that is not callable says why, in `reason`")
    _require(not row.callable or row.operations, "it has no operations")
    _require(not row.callable or row.dialect in DIALECTS, f"the dialect {row.dialect!r} is not built")
    for url in filter(None, (row.base_url, *row.regions.values())):
        _require(
            _URL.fullmatch(url), f"{url!r} is no base URL: https://host/path, without a query or a slash at its end"
        )
    styled = [path for style in row.styles for path in (style.test, *style.paths.values())]
    for path in (row.test.path, *row.paths.values(), *styled):
        _require(_PATH.fullmatch(path), f"the address {path!r} begins neither with / nor with {{origin}}")
    known = {field.name for field in row.fields}
    for template in row.templates():
        _known("field", places_in(template), known)
    _known("field", [style.when for style in row.styles], known)
    re.compile(row.key_shape or "")
    for one in (*row.auth, *filter(None, (row.test.auth,))):
        _check_method(one)
    _check_fields(row.fields_of(), row.headers)


def _check_types(row: Provider) -> None:
    """Texts, numbers and switches are of the kind that the record's defaults are."""
    for one in fields(row):
        value, kind = getattr(row, one.name), type(one.default)
        if kind in (bool, int, str) and type(value) is not kind:
            raise TypeError(f"`{one.name}` must be of the kind of {one.default!r}, not {value!r}")
        if one.default is None and one.name in _TEXTS and not isinstance(value, str | None):
            raise TypeError(f"`{one.name}` must be a text, not {value!r}")


def _check_method(method: AuthMethod) -> None:
    _require(method.callable or method.reason, f"the method {method.id!r} is not callable and does not say why")
    _require(_HEADER.fullmatch(method.header), f"{method.header!r} is no name of a header")
    fits = method.format.count("{key}") == 1 and _VALUE.fullmatch(method.format)
    _require(fits or not method.callable, f"{method.format!r} must have {{key}} in it, once")
    _check_fields(method.fields, method.headers)


def _check_fields(fields: Iterable[Field], headers: Iterable[tuple[str, str]]) -> None:
    for field in fields:
        _require(field.label, f"the field {field.name!r} has no label")
        _require(field.header is None or _HEADER.fullmatch(field.header), f"{field.header!r} is no name of a header")
        re.compile(field.pattern or "")
    for name, value in headers:
        _require(_HEADER.fullmatch(name) and _VALUE.fullmatch(value), f"{name!r}: {value!r} is no header")


def _known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    unknown = sorted(set(given) - set(known))
    _require(not unknown, f"no such {what}: {', '.join(unknown)}")


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
