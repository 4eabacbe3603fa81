"""A provider key as it is shown: where it goes, how it is used, how it is, and never its secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ostiary.cli import show
from ostiary.vault.health_store import HealthRow
from ostiary.vault.key_uses import Standing, Uses
from ostiary.vault.key_uses import described as dependent
from ostiary.vault.quota_store import QuotaRow
from ostiary.vault.quota_words import in_words
from ostiary.vault.trial import TestResult

COLUMNS: Final = (
    *("name", "provider", "preview", "status", "shared", "priority", "strategy", "spent_usd", "tags"),
    *("base_url", "last_used_at", "id"),
)


def described(standing: Standing, uses: Uses | None = None, left: Sequence[QuotaRow] = ()) -> dict[str, Any]:
    """Everything, for machines; with what uses it, also what it has left."""
    key, budget = standing.key, standing.key.budget
    shown: dict[str, Any] = {
        **{name: getattr(key, name) for name in ("id", "name", "provider", "preview")},
        "status": standing.status,
        **{name: getattr(key, name) for name in ("shared", "base_url", "auth")},
        "fields": dict(key.fields),
        **{name: getattr(key, name) for name in ("priority", "weight", "strategy", "free_tier", "account")},
        "tags": list(key.tags),
        **{name: getattr(key, name) for name in ("rpm", "rpd", "tpm", "parallel")},
        "spend_cap_usd": show.usd(budget.cap_nano if budget else None),
        "spend_warn_usd": show.usd(budget.soft_nano if budget else None),
        "spend_period": budget.kind if budget else None,
        "spent_usd": show.usd(standing.spent_nano),
        "health": [_health(row) for row in standing.health],
        "added_by": key.added_by,
        **{name: show.when(getattr(key, name)) for name in ("created_at", "updated_at", "last_used_at")},
    }
    if uses is not None:
        shown["quota_left"] = [_left(row) for row in left]
        shown["used_by"] = [dependent(one) for one in uses.named]
        shown["used_elsewhere"] = uses.elsewhere
    return shown


def _health(row: HealthRow) -> dict[str, Any]:
    return {
        "model": row.model or None,
        "state": row.state,
        "reason": row.reason,
        "since": show.when(row.since),
        "until": show.when(row.until),
    }


def _left(row: QuotaRow) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in ("model", "what", "remaining")},
        "limit": row.most,
        "resets_at": show.when(row.resets_at),
        "heard_at": show.when(row.heard_at),
        "gateway": row.gateway,
        "in_words": in_words(row),
    }


def tested(result: TestResult | None) -> dict[str, Any]:
    """What a test has said, None when none was made."""
    return {"test": None if result is None else {"outcome": result.outcome, "message": result.message}}


def print_one(shown: Mapping[str, Any]) -> None:
    """One key for people, a line for each field."""
    lines = dict(shown)
    lines["health"] = [_health_line(one) for one in shown["health"]]
    lines["quota_left"] = [one["in_words"] for one in shown["quota_left"]]
    lines["used_by"] = [f"{one['kind']} {one['name']}" for one in shown["used_by"]]
    show.print_fields(lines)


def _health_line(one: Mapping[str, Any]) -> str:
    until = f" until {one['until']}" if one["until"] else ""
    reason = f" ({one['reason']})" if one["reason"] else ""
    return f"{one['model'] or 'all models'} {one['state']}{until}{reason}"


def print_done(shown: Mapping[str, Any], *, json: bool, done: str) -> None:
    """What became of a key."""
    if json:
        show.print_json(shown)
        return
    test = shown["test"]
    said = "It was not tested." if test is None else test["message"]
    show.say(f"The provider key {shown['name']!r} ({shown['preview'] or 'no secret'}) {done}. {said}")
