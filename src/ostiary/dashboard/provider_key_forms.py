"""The form of a provider key: what was typed into it, and what that wishes for (pure)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final, cast

from ostiary.dashboard.forms import Form, Wrong, wrong
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget, Kind
from ostiary.money import nano_of, show_usd
from ostiary.providers.catalog import Provider
from ostiary.secret import Secret
from ostiary.vault.key_fields import usual_strategy
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey

COUNTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "rpm": "Requests per minute",
        "rpd": "Requests per day",
        "tpm": "Tokens per minute",
        "parallel": "Calls at once",
    }
)
"""The limits that are whole numbers, and what people call them."""
LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "name": "Name",
        "auth": "Sign-in method",
        "base_url": "Base URL",
        "priority": "Priority",
        "weight": "Weight",
        "strategy": "Strategy",
        "free_tier": "Free tier",
        "account": "Account",
        "tags": "Tags",
        **COUNTS,
        "period": "Spend is counted",
        "cap_usd": "Block at",
        "warn_usd": "Warn at",
        "thresholds": "Tell somebody at",
        "shared": "Sharing",
    }
)
_PLACES: Final = ("name", "secret", *LABELS)
"""Fields of the form beside which something can be said."""
_NAMES: Final = {"budget": "cap_usd"}
_LONGEST_NUMBER: Final = 12
_PERIODS: Final = ("day", "month", "total")


@dataclass(frozen=True, slots=True)
class Typed:
    """Everything that the form holds but the secret, as texts; `fields` are those of the provider."""

    name: str = ""
    auth: str = ""
    base_url: str = ""
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    shared: bool = False
    priority: str = "0"
    weight: str = "1"
    strategy: str = ""
    free_tier: bool = False
    account: str = ""
    tags: str = ""
    rpm: str = ""
    rpd: str = ""
    tpm: str = ""
    parallel: str = ""
    period: str = "month"
    cap_usd: str = ""
    warn_usd: str = ""
    thresholds: str = ""

    def plain(self) -> dict[str, Any]:
        """By names, for a hidden field and for comparing; those of the provider with a dot."""
        known = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "fields"}
        return known | {f"field.{name}": value for name, value in self.fields.items() if value}

    # ---- what it wishes for ---------------------------------------------------------------------------------------

    def to_try(self, provider: Provider, secret: Secret, name: str) -> NewProviderKey:
        """As much as a test of the connection needs, under a name that nothing has."""
        return NewProviderKey(
            name, provider, secret, base_url=self.base_url or None, fields=self._fields(), auth=self.auth or None
        )

    def wish(self, provider: Provider, secret: Secret) -> NewProviderKey:
        """The same for the deed that adds; refuses what is no number, and names the field."""
        return replace(self.to_try(provider, secret, self.name), shared=self.shared, **self._settings(None))

    def edit(self, key: ProviderKey, provider: Provider) -> dict[str, object]:
        """What is other than what is stored, for the deed that edits; sharing is a deed of its own."""
        wished: dict[str, object] = {"name": self.name, **self._settings(key.budget)}
        wished |= {"auth": self.auth or None, "base_url": self.base_url or None, "fields": self._fields()}
        before = {name: getattr(key, name) for name in wished}
        before["fields"] = dict(key.fields)
        if provider.find_auth(self.auth or None) == provider.find_auth(key.auth):
            wished["auth"] = key.auth  # the first method by its name, or by none
        return {name: value for name, value in wished.items() if value != before[name]}

    def _fields(self) -> dict[str, str]:
        return {name: value for name, value in self.fields.items() if value}

    def _settings(self, stored: Budget | None) -> dict[str, Any]:
        return {
            "priority": _whole("priority", self.priority, 0) or 0,
            "weight": _whole("weight", self.weight, 1),
            "strategy": self.strategy or usual_strategy(free_tier=self.free_tier),
            "free_tier": self.free_tier,
            "account": self.account or None,
            "tags": tuple(self.tag_list()),
            **{name: _whole(name, getattr(self, name), None) for name in COUNTS},
            "budget": self._budget(stored),
        }

    def tag_list(self) -> list[str]:
        """The tags, which are typed with commas between them."""
        return [part.strip() for part in self.tags.replace("\n", ",").split(",") if part.strip()]

    def _budget(self, stored: Budget | None) -> Budget | None:
        cap, warn = _nano("cap_usd", self.cap_usd), _nano("warn_usd", self.warn_usd)
        if cap is None and warn is None:
            return None
        if self.period not in _PERIODS:
            raise Refusal("invalid_field", "Pick how long spend is counted.", param="period")
        budget = Budget(cast("Kind", self.period), cap, warn)
        if self.thresholds:
            return replace(budget, thresholds=_percents(self.thresholds))
        return budget if stored is None else replace(budget, thresholds=stored.thresholds)


def typed(form: Form, provider: Provider) -> Typed:
    """What came in. A region that was picked is an address, unless one was typed."""
    texts = {
        one.name: form.text(one.name)
        for one in fields(Typed)
        if one.name not in ("fields", "shared", "free_tier", "base_url")
    }
    return Typed(
        **texts,
        base_url=form.text("base_url") or form.text("region"),
        fields={one.name: form.text(f"field.{one.name}") for one in _all_fields(provider)},
        shared=form.has("shared"),
        free_tier=form.has("free_tier"),
    )


def typed_of(key: ProviderKey) -> Typed:
    """What the form shows of a record before anything is typed."""
    budget = key.budget
    return Typed(
        name=key.name,
        auth=key.auth or "",
        base_url=key.base_url,
        fields=dict(key.fields),
        shared=key.shared,
        priority=str(key.priority),
        weight=str(key.weight),
        strategy=key.strategy,
        free_tier=key.free_tier,
        account=key.account or "",
        tags=", ".join(key.tags),
        **{name: str(getattr(key, name) or "") for name in COUNTS},
        period=budget.kind if budget else "month",
        cap_usd=_usd(budget.cap_nano if budget else None),
        warn_usd=_usd(budget.soft_nano if budget else None),
        thresholds=", ".join(map(str, budget.thresholds)) if budget else "",
    )


def typed_at_first(provider: Provider) -> Typed:
    """The form of a new key: the defaults of its provider."""
    values = {one.name: one.default or "" for one in _all_fields(provider)}
    return Typed(fields=values)


# ---- two who edit the same ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Clash:
    """A field that somebody else has changed meanwhile: what it was, is, and was typed here."""

    label: str
    was: str
    now: str
    typed: str


def clashes(was: str, now: Typed, mine: Typed, provider: Provider) -> list[Clash]:
    """What has changed since the form was made out of `was`, which the browser gave back and nobody trusts."""
    try:
        known = json.loads(was)
    except (ValueError, RecursionError):
        known = {}
    before = known if isinstance(known, dict) else {}
    after, typed_here = now.plain(), mine.plain() | {"shared": now.shared}
    names = dict.fromkeys((*after, *before))
    return [
        Clash(label_of(name, provider), _said(before.get(name)), _said(after.get(name)), _said(typed_here.get(name)))
        for name in names
        if _said(before.get(name)) != _said(after.get(name)) and (name in LABELS or name.startswith("field."))
    ]


def label_of(name: str, provider: Provider) -> str:
    """What a field is called on the page."""
    own = {f"field.{one.name}": one.label for one in _all_fields(provider)}
    return LABELS.get(name) or own.get(name, name)


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value[:200] if isinstance(value, str) else ""


# ---- what is wrong --------------------------------------------------------------------------------------------------


def placed(refusal: Refusal, provider: Provider) -> Wrong:
    """A refusal beside the field it is about; at the top of the form where that is none of them."""
    found = wrong(refusal, _NAMES)
    words = found.message.replace(" by --base-url", " as its base URL")
    place = found.name
    if refusal.param == "fields":
        named = (one.name for one in _all_fields(provider) if repr(one.name) in refusal.message)
        place = next((f"field.{name}" for name in named), "")
    return Wrong(words, place if place in _PLACES or place.startswith("field.") else "")


def _all_fields(provider: Provider) -> list[Any]:
    """Those of the row and of every method, each once."""
    known = {one.name: one for one in provider.fields}
    for method in provider.auth:
        known |= {one.name: one for one in method.fields}
    return list(known.values())


def _whole(name: str, text: str, otherwise: int | None) -> int | None:
    digits = text.removeprefix("-") if name == "priority" else text
    if not text:
        return otherwise
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_NUMBER):
        raise Refusal("invalid_field", "Give a whole number.", param=name)
    return int(text)


def _nano(name: str, text: str) -> int | None:
    amount = text.removeprefix("$").replace(",", "").strip()
    if not amount:
        return None
    try:
        return nano_of(amount)
    except ValueError:
        raise Refusal("invalid_field", "Give an amount in US dollars, such as 25 or 0.50.", param=name) from None


def _percents(text: str) -> tuple[int, ...]:
    parts = [part.strip().removesuffix("%").strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and len(part) <= _LONGEST_NUMBER for part in parts):
        raise Refusal(
            "invalid_field", "Give percents with commas between them, such as 50, 80, 100.", param="thresholds"
        )
    return tuple(int(part) for part in parts)


def _usd(nano: int | None) -> str:
    return "" if nano is None else show_usd(nano)
