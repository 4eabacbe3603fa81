"""What a limit may be set to: one rule for keys and organizations (pure)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeGuard

from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget, Kind
from ostiary.money import MAX_NANO

_MAX_COUNT: Final = 1_000_000_000
_MOST_THRESHOLDS: Final = 10
_WHOLE_PERCENT: Final = 100
_USUAL_KINDS: Final = 2
_PERIODS: Final = ("per month or in total", "per day, per month or in total")


def checked_count(name: str, value: object, most: int = _MAX_COUNT) -> int | None:
    """A whole number from 1, or None for no limit; refuses with `invalid_field` and names the field."""
    if value is None:
        return None
    if not is_whole(value) or not 1 <= value <= most:
        raise Refusal("invalid_field", f"{name} must be a whole number from 1 to {most}, or none.", param=name)
    return value


def checked_budget(name: str, value: object, kinds: Collection[Kind] = ("month", "total")) -> Budget | None:
    """A budget whose amounts can be counted and whose thresholds rise; refuses with `invalid_field`."""
    if value is None:
        return None
    if not isinstance(value, Budget) or value.kind not in kinds:
        raise _unfit(name, f"must be an amount in USD, {_PERIODS[len(kinds) > _USUAL_KINDS]}")
    for amount in (value.cap_nano, value.soft_nano):
        if amount is not None and not (is_whole(amount) and 0 <= amount <= MAX_NANO):
            raise _unfit(name, f"must be between 0 and {MAX_NANO} nano-dollars")
    if value.cap_nano is None and value.soft_nano is None:
        raise _unfit(name, "needs a hard or a soft limit")
    if value.cap_nano is not None and value.soft_nano is not None and value.soft_nano > value.cap_nano:
        raise _unfit(name, "warns after it has blocked: the soft limit must not be above the hard one")
    if not _are_thresholds(value.thresholds):
        raise _unfit(name, f"must have at most {_MOST_THRESHOLDS} thresholds, whole percents from 1 to 100, rising")
    return value


def budget_facts(budget: Budget | None) -> dict[str, object] | None:
    """A budget as the audit log has it."""
    if budget is None:
        return None
    return {
        "kind": budget.kind,
        "cap_nano": budget.cap_nano,
        "soft_nano": budget.soft_nano,
        "thresholds": budget.thresholds,
    }


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is an integer; `True` is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _are_thresholds(value: object) -> bool:
    if not isinstance(value, tuple) or len(value) > _MOST_THRESHOLDS:
        return False
    if not all(is_whole(one) and 1 <= one <= _WHOLE_PERCENT for one in value):
        return False
    return list(value) == sorted(set(value))


def _unfit(name: str, why: str) -> Refusal:
    return Refusal("invalid_field", f"{name} {why}.", param=name)
