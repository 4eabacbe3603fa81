"""What each field of an agent key may hold (pure)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ostiary.agents.policy import SCOPES, Choice, choice_of, parse_networks
from ostiary.agents.records import Rules
from ostiary.clock import DAY_MS
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget
from ostiary.limits.wishes import checked_budget, checked_count, is_whole
from ostiary.names import checked_name
from ostiary.providers.catalog import Catalog

USUAL_EXPIRY_MS: Final = 30 * DAY_MS
_SHORTEST_EXPIRY_MS: Final = DAY_MS // 24
_LONGEST_EXPIRY_MS: Final = 366 * DAY_MS
_SLACK_MS: Final = 60_000
"""A moment passes between the choice of an expiry and the deed."""
_MAX_ITEMS: Final = 500
_MAX_ITEM: Final = 200
_MAX_METADATA: Final = 4_096
"""Bytes of JSON: they are written with every trace."""
_MAX_DEPTH: Final = 8

_ADMIN: Final = re.compile(r"admin:[a-z]+(-[a-z]+)*:(read|write)")


def checked(wished: Mapping[str, object], at: int) -> dict[str, object]:
    """The fields as they are stored; refuses with `invalid_field` and names the field."""
    values: dict[str, object] = {}
    for name, value in wished.items():
        if name not in _CHECKS:
            raise _refusal(name, f"{name!r} is not a field of an agent key that can be set.")
        values[name] = _CHECKS[name](name, value, at)
    return values


def require_lifetime(expires_at: int | None, most_ms: int | None, at: int) -> None:
    """Refuse an expiry that is later than the organization lets its keys live, `never` too."""
    if most_ms is not None and (expires_at is None or expires_at > at + most_ms + _SLACK_MS):
        days, rest = divmod(most_ms, DAY_MS)
        longest = f"{days} days" if days and not rest else f"{most_ms // _SHORTEST_EXPIRY_MS} hours"
        raise _refusal("expires_at", f"Keys of this organization expire after {longest} at the latest.")


def require_capture(values: Mapping[str, object], rules: Rules) -> None:
    """Refuse to have content kept where the organization forbids it; who has it kept already may stay so."""
    if values.get("capture") and rules.capture_is_forbidden:
        raise _refusal("capture", "This organization forbids that prompts and answers are kept.")


def require_known_providers(values: Mapping[str, object], before: Choice, catalog: Catalog | None) -> None:
    """Refuse a provider that there is none of; one that was named `before` stays, though its row is gone since."""
    wanted = values.get("providers")
    if catalog is not None and isinstance(wanted, Choice):
        for id in sorted(wanted.items - before.items):
            catalog.get(id, "providers")


def _name(name: str, value: object, _at: int) -> str:
    if not isinstance(value, str):
        raise _refusal(name, f"{name} must be text.")
    return checked_name(value, name)


def _expires_at(name: str, value: object, at: int) -> int | None:
    if value is None:
        return None
    if not is_whole(value) or not (
        at + _SHORTEST_EXPIRY_MS - _SLACK_MS <= value <= at + _LONGEST_EXPIRY_MS + _SLACK_MS
    ):
        raise _refusal(name, "An agent key expires after 1 hour at the earliest and 1 year at the latest, or never.")
    return value


def _scopes(name: str, value: object, _at: int) -> frozenset[str]:
    """Whether the key's owner reaches an `admin:` scope is not asked here. Who may write may read."""
    scopes = _texts(name, value)
    unknown = sorted(scope for scope in scopes - SCOPES if not _ADMIN.fullmatch(scope))
    known = f"{', '.join(sorted(SCOPES))} and admin:<noun>:read or :write"
    _refuse_unless(not unknown, name, f"There is no scope {', '.join(unknown)}; there are {known}.")
    _refuse_unless(bool(scopes), name, f"A key without a scope opens nothing; there are {known}.")
    return scopes | {scope.removesuffix("write") + "read" for scope in scopes if scope.endswith(":write")}


def _limit(name: str, value: object, _at: int) -> int | None:
    return checked_count(name, value)


def _choice(name: str, value: object, _at: int) -> Choice:
    """A list is the shorthand of forms and APIs, where naming nothing means all; what is stored says its mode."""
    if isinstance(value, list | tuple | set | frozenset):
        value = choice_of(_texts(name, value))
    if not isinstance(value, Choice) or value.mode not in ("all", "only", "none"):
        raise _refusal(name, f"{name} must be all, only these, or none.")
    if value.mode != "only":
        _refuse_unless(not value.items, name, f"{name} names some, but its mode is {value.mode}.")
        return Choice(value.mode)
    items = _texts(name, value.items)
    _refuse_unless(bool(items), name, f"{name} is limited to these, but names none.")
    return Choice("only", items)


def _addresses(name: str, value: object, at: int) -> Choice:
    choice = _choice(name, value, at)
    try:
        networks = parse_networks(sorted(choice.items))
    except ValueError as error:
        raise _refusal(name, f"{error}.") from None
    return Choice(choice.mode, frozenset(str(network) for network in networks))


def _switch(name: str, value: object, _at: int) -> bool:
    if not isinstance(value, bool):
        raise _refusal(name, f"{name} must be true or false.")
    return value


def _metadata(name: str, value: object, _at: int) -> dict[str, object]:
    if not isinstance(value, Mapping):
        raise _refusal(name, f"{name} must be a JSON object.")
    kept = dict(value)
    _refuse_unless(_is_plain(kept, _MAX_DEPTH), name, f"{name} must be plain JSON, at most {_MAX_DEPTH} levels deep.")
    size = len(json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode())
    _refuse_unless(size <= _MAX_METADATA, name, f"{name} must be at most {_MAX_METADATA} bytes of JSON.")
    return kept


def _is_plain(value: object, levels: int) -> bool:
    """Whether every encoder and both databases take it: no NaN, no NUL, no half characters, integers of 64 bits."""
    if isinstance(value, dict):
        texts = all(isinstance(key, str) for key in value)
        return texts and _is_plain([*value, *value.values()], levels)
    if isinstance(value, list):
        return levels > 0 and all(_is_plain(item, levels - 1) for item in value)
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _budget(name: str, value: object, _at: int) -> Budget | None:
    return checked_budget(name, value)


def _texts(name: str, value: object) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _refusal(name, f"{name} must be a list of texts.")
    texts: set[str] = set()
    for text in value:
        if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= _MAX_ITEM:
            raise _refusal(name, f"{name} holds something that is not a name.")
        _refuse_unless(text == text.strip(), name, f"{name} holds {text!r}, a name with blanks around it.")
        texts.add(text)
        _refuse_unless(len(texts) <= _MAX_ITEMS, name, f"{name} must name {_MAX_ITEMS} at most.")
    return frozenset(texts)


def _refuse_unless(holds: bool, name: str, message: str) -> None:  # noqa: FBT001 - it reads as a sentence
    if not holds:
        raise _refusal(name, message)


def _refusal(name: str, message: str) -> Refusal:
    return Refusal("invalid_field", message, param=name)


_CHECKS: Final[Mapping[str, Callable[[str, object, int], object]]] = MappingProxyType(
    {
        "name": _name,
        "expires_at": _expires_at,
        "scopes": _scopes,
        "rpm": _limit,
        "rpd": _limit,
        "models": _choice,
        "providers": _choice,
        "tpm": _limit,
        "parallel": _limit,
        "free_only": _switch,
        "capture": _switch,
        "addresses": _addresses,
        "metadata": _metadata,
        "budget": _budget,
    }
)
