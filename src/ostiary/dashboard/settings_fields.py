"""The fields of an organization as its forms show and read them, part by part (pure)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ostiary.clock import DAY_MS, SECOND_MS
from ostiary.dashboard.forms import Form
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget
from ostiary.money import nano_of, show_usd
from ostiary.orgs.organizations import Organization

UNITS: Final = (("days", DAY_MS), ("hours", 3_600 * SECOND_MS), ("minutes", 60 * SECOND_MS), ("seconds", SECOND_MS))
_LIMITS: Final = ("rpm", "rpd", "tpm", "parallel")
_DAYS: Final = ("trace_days", "content_days")

Shown = dict[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """A form of its own. `labels` names its fields as people read them; what is not in a form is not changed."""

    title: str
    labels: Mapping[str, str]
    show: Callable[[Organization], Shown]
    read: Callable[[Form], dict[str, object]]


def changed(part: Part, was: Mapping[str, str], now: Mapping[str, str], typed: Mapping[str, str]) -> list[str]:
    """What somebody else has changed since the form was shown, in sentences with both values."""
    return [
        f"{label}: meanwhile changed from {was[name] or 'none'} to {now[name] or 'none'}; "
        f"you have {typed[name] or 'none'}."
        for name, label in part.labels.items()
        if was[name] != now[name]
    ]


# ---- how each part is shown and read ----------------------------------------------------------------------------


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _keys(one: Organization) -> Shown:
    lifetime, unit = "", "days"
    if one.max_lifetime_ms is not None:
        unit, size = next((name, size) for name, size in UNITS if one.max_lifetime_ms % size == 0 or size == SECOND_MS)
        lifetime = str(one.max_lifetime_ms // size)
    final = "yes" if one.revocation_is_final else "no"
    return {"max_lifetime": lifetime, "max_lifetime_unit": unit, "revocation_is_final": final}


def _read_keys(form: Form) -> dict[str, object]:
    amount = form.number("max_lifetime")
    size = dict(UNITS).get(form.text("max_lifetime_unit"), DAY_MS)
    return {
        "max_lifetime_ms": None if amount is None else amount * size,
        "revocation_is_final": form.text("revocation_is_final") == "yes",
    }


def _budget(one: Organization) -> Shown:
    found = one.budget or Budget("month", None)
    cap, soft = ("" if nano is None else show_usd(nano) for nano in (found.cap_nano, found.soft_nano))
    thresholds = ", ".join(map(str, found.thresholds))
    return {"budget_kind": found.kind, "budget_cap": cap, "budget_soft": soft, "budget_thresholds": thresholds}


def _read_budget(form: Form) -> dict[str, object]:
    cap, soft = _amount(form, "budget_cap"), _amount(form, "budget_soft")
    if cap is None and soft is None:
        return {"budget": None}
    kind: Literal["month", "total"] = "total" if form.text("budget_kind") == "total" else "month"
    return {"budget": Budget(kind, cap, soft, _percents(form))}


def _amount(form: Form, name: str) -> int | None:
    text = form.text(name).removeprefix("$").strip()
    try:
        return nano_of(text) if text else None
    except ValueError:
        raise Refusal("invalid_field", "Give an amount in USD, such as 250 or 12.50.", param=name) from None


def _percents(form: Form) -> tuple[int, ...]:
    found = [one.removesuffix("%").strip() for one in form.lines("budget_thresholds")]
    if not all(one.isascii() and one.isdigit() and 1 <= len(one) <= 3 for one in found):  # noqa: PLR2004 - up to 100
        raise Refusal("invalid_field", "Give whole percents, such as 50, 80, 100.", param="budget_thresholds")
    return tuple(map(int, found))


PARTS: Final[Mapping[str, Part]] = {
    "organization": Part(
        "Organization", {"name": "Name"}, lambda one: {"name": one.name}, lambda form: {"name": form.text("name")}
    ),
    "keys": Part(
        "Keys",
        {"max_lifetime": "Longest lifetime", "max_lifetime_unit": "Unit", "revocation_is_final": "Revoked for good"},
        _keys,
        _read_keys,
    ),
    "recording": Part(
        "Recording",
        {
            "trace_days": "Days traces are kept",
            "content_days": "Days contents are kept",
            "capture_is_forbidden": "Contents never kept",
        },
        lambda one: {
            **{name: _number(getattr(one, name)) for name in _DAYS},
            "capture_is_forbidden": "yes" if one.capture_is_forbidden else "no",
        },
        lambda form: {
            **{name: form.number(name) for name in _DAYS},
            "capture_is_forbidden": form.text("capture_is_forbidden") == "yes",
        },
    ),
    "limits": Part(
        "Limits",
        {
            "rpm": "Requests per minute",
            "rpd": "Requests per day",
            "tpm": "Tokens per minute",
            "parallel": "At once",
            "allow_unpriced": "Models without a price",
        },
        lambda one: {
            **{name: _number(getattr(one, name)) for name in _LIMITS},
            "allow_unpriced": "yes" if one.allow_unpriced else "no",
        },
        lambda form: {
            **{name: form.number(name) for name in _LIMITS},
            "allow_unpriced": form.text("allow_unpriced") == "yes",
        },
    ),
    "budget": Part(
        "Budget",
        {
            "budget_kind": "Period",
            "budget_cap": "Hard limit",
            "budget_soft": "Soft limit",
            "budget_thresholds": "Tell at",
        },
        _budget,
        _read_budget,
    ),
}
"""In the order of the page."""
