"""What each field of an organization may hold (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from ostiary.clock import DAY_MS
from ostiary.errors import Refusal
from ostiary.limits.wishes import checked_budget, checked_count, is_whole
from ostiary.names import checked_name

_SHORTEST_MS: Final = DAY_MS // 24
_LONGEST_MS: Final = 366 * DAY_MS
_MOST_DAYS: Final = 3_650


def checked(wished: Mapping[str, object]) -> dict[str, object]:
    """The fields as they are stored; refuses with `invalid_field` and names the field."""
    values: dict[str, object] = {}
    for name, value in wished.items():
        if name not in _CHECKS:
            raise Refusal("invalid_field", f"{name!r} is not a field of an organization that can be set.", param=name)
        values[name] = _CHECKS[name](name, value)
    return values


def _name(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise Refusal("invalid_field", f"{name} must be text.", param=name)
    return checked_name(value, name)


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise Refusal("invalid_field", f"{name} must be true or false.", param=name)
    return value


def _days(name: str, value: object) -> int | None:
    return checked_count(name, value, _MOST_DAYS)


def _lifetime(name: str, value: object) -> int | None:
    if value is None or (is_whole(value) and _SHORTEST_MS <= value <= _LONGEST_MS):
        return value
    raise Refusal("invalid_field", f"{name} must be between 1 hour and 1 year, or none.", param=name)


_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = MappingProxyType(
    {
        "name": _name,
        "rpm": checked_count,
        "rpd": checked_count,
        "tpm": checked_count,
        "parallel": checked_count,
        "budget": checked_budget,
        "revocation_is_final": _switch,
        "max_lifetime_ms": _lifetime,
        "allow_unpriced": _switch,
        "trace_days": _days,
        "content_days": _days,
        "capture_is_forbidden": _switch,
    }
)
