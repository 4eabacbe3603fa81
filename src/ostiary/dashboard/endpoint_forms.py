"""The form of an endpoint or alias: what was typed into it, and what that wishes for (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from ostiary.clock import SECOND_MS
from ostiary.dashboard.forms import Form
from ostiary.errors import Refusal
from ostiary.vault.endpoint_fields import USUAL_RETRIES
from ostiary.vault.endpoint_store import Endpoint, EndpointTarget, Strategy
from ostiary.vault.endpoints import NewEndpoint

_COLUMNS: Final = ("provider", "model", "key", "weight", "role")
_LONGEST_NUMBER: Final = 12
_SECONDS: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?")
NAMES: Final = {"timeout_ms": "timeout_s"}
"""Which field of the form stands for which of the deed's: people think in seconds."""
FALLBACK: Final = "fallback"


@dataclass(frozen=True, slots=True)
class TypedTarget:
    """A row of the form, as it was typed. An empty `key` is any key of the provider."""

    provider: str = ""
    model: str = ""
    key: str = ""
    weight: str = "1"
    role: str = ""

    @property
    def is_fallback(self) -> bool:
        """Whether it is only tried after all that are not."""
        return self.role == FALLBACK


@dataclass(frozen=True, slots=True)
class Typed:
    """Everything that the form holds; `seen_at` is when the record was last edited, as the form was made from it."""

    name: str = ""
    strategy: str = "first"
    retries: str = str(USUAL_RETRIES)
    timeout_s: str = ""
    targets: tuple[TypedTarget, ...] = (TypedTarget(),)
    seen_at: str = ""

    def wish(self) -> NewEndpoint:
        """The same for the deed; refuses what is no number, and names the field."""
        targets = [_target(number, one) for number, one in enumerate(self.targets)]
        retries = _whole("retries", self.retries, "Give a whole number of further attempts; 0 is none.")
        return NewEndpoint(self.name, targets, cast("Strategy", self.strategy), retries, _ms(self.timeout_s))

    def edit(self) -> dict[str, Any]:
        """The same for the deed that edits."""
        wish = self.wish()
        return {name: getattr(wish, name) for name in NewEndpoint.__slots__}


def typed(form: Form) -> Typed:
    """What came in; refuses rows that are not whole, which no browser sends."""
    columns = [[text.strip() for text in form.values.get(name, ())] for name in _COLUMNS]
    if len({len(column) for column in columns}) != 1:
        raise Refusal("invalid_request", "The targets of this form cannot be read. Load the page again.")
    rows = tuple(TypedTarget(*row) for row in zip(*columns, strict=True))
    return Typed(
        name=form.text("name"),
        strategy=form.text("strategy"),
        retries=form.text("retries"),
        timeout_s=form.text("timeout_s"),
        targets=rows,
        seen_at=form.text("seen_at"),
    )


def typed_of(one: Endpoint) -> Typed:
    """What the form shows of a record before anything is typed."""
    return Typed(
        name=one.name,
        strategy=one.strategy,
        retries=str(one.retries),
        timeout_s=_seconds(one.timeout_ms),
        targets=tuple(
            TypedTarget(
                target.provider,
                target.model,
                target.provider_key_id or "",
                str(target.weight),
                FALLBACK if target.is_fallback else "",
            )
            for target in one.targets
        ),
        seen_at=str(one.updated_at),
    )


def differences(one: Endpoint, meant: Typed) -> list[tuple[str, str, str]]:
    """Where a record that somebody else has edited meanwhile is not what was typed: field, the one, the other."""
    now = typed_of(one)
    return [(label, was or "–", is_ or "–") for label, was, is_ in _pairs(now, meant) if was != is_]


def _pairs(now: Typed, meant: Typed) -> Iterator[tuple[str, str, str]]:
    yield "Name", now.name, meant.name
    yield "Strategy", now.strategy, meant.strategy
    yield "Retries", now.retries, meant.retries
    yield "Time-out", now.timeout_s, meant.timeout_s
    yield "Targets", _said(now), _said(meant)


def _said(one: Typed) -> str:
    return ", ".join(
        f"{target.provider}/{target.model}"
        + (f" by {target.key}" if target.key else "")
        + (f" × {target.weight}" if target.weight != "1" else "")
        + (" (fallback)" if target.is_fallback else "")
        for target in one.targets
    )


def _target(number: int, one: TypedTarget) -> EndpointTarget:
    place = f"targets.{number}"
    if not one.provider:
        raise Refusal("invalid_field", "Choose a provider.", param=f"{place}.provider")
    if not one.model:
        raise Refusal("invalid_field", "Name a model of the provider.", param=f"{place}.model")
    weight = _whole(f"{place}.weight", one.weight, "Give a whole number.")
    return EndpointTarget(one.provider, one.model, one.key or None, weight, one.is_fallback)


def _whole(param: str, text: str, says: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        raise Refusal("invalid_field", says, param=param)
    return int(text)


def _ms(text: str) -> int | None:
    """Seconds as they are typed, in milliseconds; None where nothing was."""
    if not text:
        return None
    found = _SECONDS.fullmatch(text)
    if found is None:
        raise Refusal("invalid_field", "Give seconds, such as 30 or 0.5, or nothing.", param="timeout_ms")
    return int(found[1]) * SECOND_MS + int((found[2] or "").ljust(3, "0"))


def _seconds(ms: int | None) -> str:
    if ms is None:
        return ""
    whole, rest = divmod(ms, SECOND_MS)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".")
