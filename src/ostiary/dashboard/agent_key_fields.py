"""The form of an agent key: what it shows of one, and what was typed as the deeds take it (pure)."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Final

from ostiary.agents.fields import checked
from ostiary.agents.policy import ALL, SCOPES, Choice, choice_of
from ostiary.agents.records import AgentKey
from ostiary.clock import DAY_MS, SECOND_MS, moment
from ostiary.dashboard.forms import Form
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget
from ostiary.money import nano_of, show_usd

EXPIRIES: Final[Mapping[str, tuple[str, int | None]]] = {
    "1h": ("1 hour", DAY_MS // 24),
    "1d": ("1 day", DAY_MS),
    "7d": ("7 days", 7 * DAY_MS),
    "30d": ("30 days", 30 * DAY_MS),
    "60d": ("60 days", 60 * DAY_MS),
    "90d": ("90 days", 90 * DAY_MS),
    "180d": ("180 days", 180 * DAY_MS),
    "1y": ("1 year", 365 * DAY_MS),
    "never": ("Never", None),
}
"""How long a key may live, by the value of the choice; None is for ever."""
CUSTOM: Final = "custom"
KEEP: Final = "keep"
"""When an existing key expires is left as it is."""
ADVANCED: Final = frozenset({"models", "addresses", "metadata", "scopes", "parallel", "free_only", "capture"})
"""Fields that are not on the first tab."""
_USUAL: Final = "50, 80, 100"
_MOST_THRESHOLDS: Final = 10
_HUNDRED: Final = 100
_SAID: Final[Mapping[str, str]] = {
    "name": "Key Name",
    "owner_id": "Owner",
    "expires": "Expiration",
    "expires_at": "Expiration",
    "rpm": "Requests/min",
    "rpd": "Requests/day",
    "tpm": "Tokens/min",
    "parallel": "Parallel requests",
    "budget": "Budget",
    "budget_kind": "Budget period",
    "soft": "Soft limit",
    "thresholds": "Alert thresholds",
    "providers": "Allowed providers",
    "models": "Allowed models",
    "addresses": "IP allowlist",
    "metadata": "Metadata",
    "scopes": "Scopes",
    "free_only": "Free models only",
    "capture": "Keep prompts and answers",
}


@dataclass(frozen=True, slots=True)
class Values:
    """Every field of the form as its text. `providers` of None is every one, now and later."""

    name: str = ""
    owner_id: str = ""
    expires: str = "30d"
    expires_at: str = ""
    """To the minute, in UTC; counts where `expires` is custom."""
    rpm: str = ""
    rpd: str = ""
    tpm: str = ""
    parallel: str = ""
    budget: str = ""
    budget_kind: str = "month"
    soft: str = ""
    thresholds: str = _USUAL
    is_ephemeral: bool = False
    ttl_s: str = "3600"
    providers: tuple[str, ...] | None = None
    models: str = ""
    no_models: bool = False
    """Not even one: what no list can say, and the form must not lose."""
    addresses: str = ""
    no_addresses: bool = False
    metadata: str = ""
    scopes: tuple[str, ...] = tuple(sorted(SCOPES))
    free_only: bool = False
    capture: bool = False

    def text(self) -> str:
        """What the form carries, so that it is known later what it showed."""
        return json.dumps(asdict(self))

    def allows(self, provider_id: str) -> bool:
        """Whether a provider's box is ticked."""
        return self.providers is None or provider_id in self.providers


def values_of(key: AgentKey) -> Values:
    """An existing key as its form shows it."""
    budget = key.budget
    return Values(
        name=key.name,
        owner_id=key.owner_id or "",
        expires=KEEP,
        expires_at=moment(key.expires_at).replace(tzinfo=None).isoformat(timespec="minutes")
        if key.expires_at is not None
        else "",
        rpm=_count(key.rpm),
        rpd=_count(key.rpd),
        tpm=_count(key.tpm),
        parallel=_count(key.parallel),
        budget=show_usd(budget.cap_nano) if budget and budget.cap_nano is not None else "",
        budget_kind=budget.kind if budget else "month",
        soft=show_usd(budget.soft_nano) if budget and budget.soft_nano is not None else "",
        thresholds=", ".join(map(str, budget.thresholds)) if budget else _USUAL,
        is_ephemeral=key.is_ephemeral,
        providers=None if key.providers.mode == "all" else tuple(sorted(key.providers.items)),
        models=", ".join(sorted(key.models.items)),
        no_models=key.models.mode == "none",
        addresses=", ".join(sorted(key.addresses.items)),
        no_addresses=key.addresses.mode == "none",
        metadata=json.dumps(dict(key.metadata), indent=2, ensure_ascii=False) if key.metadata else "",
        scopes=tuple(sorted(key.scopes)),
        free_only=key.free_only,
        capture=key.capture,
    )


def sent(form: Form) -> Values:
    """What was typed. Providers that had no box of their own when it was shown stay as they are."""
    shown, on = set(form.all("provider_shown")), form.all("providers")
    hidden = [one for one in form.all("provider_kept") if one not in shown]
    return Values(
        **{one: form.text(one) for one in ("name", "owner_id", "expires_at", "rpm", "rpd", "tpm", "parallel")},
        **{one: form.text(one) for one in ("budget", "soft", "thresholds", "ttl_s", "models", "addresses", "metadata")},
        expires=form.text("expires", "30d"),
        budget_kind=form.text("budget_kind", "month"),
        is_ephemeral=form.has("is_ephemeral"),
        providers=None if shown <= set(on) else tuple(sorted({*on, *hidden})),
        no_models=form.has("no_models"),
        no_addresses=form.has("no_addresses"),
        scopes=tuple(sorted(form.all("scopes"))),
        free_only=form.has("free_only"),
        capture=form.has("capture"),
    )


def recall(text: str) -> Values | None:
    """What a form showed once, from what it carried; None when that is nothing of ours."""
    try:
        found = json.loads(text)
        if not isinstance(found, dict) or set(found) != {one.name for one in fields(Values)}:
            return None
        lists = {one: None if found[one] is None else tuple(map(str, found[one])) for one in ("providers", "scopes")}
    except (ValueError, TypeError, RecursionError):
        return None
    return Values(**{**found, **lists})


def differences(before: Values, now: Values, typed: Values) -> list[str]:
    """What somebody else has changed since the form was shown, field by field, and what was typed there."""
    found = []
    for one in fields(Values):
        was, is_now, wish = (_shown(getattr(each, one.name)) for each in (before, now, typed))
        if was != is_now:
            wished = f" You typed {wish}." if wish not in (was, is_now) else ""
            found.append(f"{_SAID.get(one.name, one.name)} was {was} and is now {is_now}.{wished}")
    return found


def wished(values: Values, at: int, before: Values | None = None) -> tuple[dict[str, object], dict[str, str]]:
    """The fields of the deed that were filled in or changed, and what is wrong with each, by the form's names."""
    found: dict[str, object] = {}
    wrong: dict[str, str] = {}
    for name, (typed, read) in _READERS.items():
        if before is not None and all(getattr(values, one) == getattr(before, one) for one in typed):
            continue
        try:
            found |= checked({name: read(values, at)}, at)
        except Refusal as refusal:
            wrong[_beside(name, refusal)] = refusal.message
    return found, wrong


def parse_metadata(text: str) -> dict[str, object]:
    """A JSON object; refuses with where it goes wrong."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"Line {error.lineno}, column {error.colno}"
        raise _refusal("metadata", f"This is not JSON. {where}: {error.msg}.") from None
    except (ValueError, RecursionError):
        raise _refusal("metadata", "This is not JSON that can be kept.") from None
    if not isinstance(found, dict):
        raise _refusal("metadata", 'Write a JSON object, such as {"team": "backend"}.')
    return found


def listed(text: str) -> list[str]:
    """What a field names, by comma or line."""
    return [part.strip() for part in text.replace("\n", ",").split(",") if part.strip()]


def count(name: str, text: str) -> int | None:
    """A whole number, None where nothing was typed."""
    plain = text.replace(",", "").replace(" ", "")
    if not plain:
        return None
    if not (plain.isascii() and plain.isdigit() and len(plain) <= 15):  # noqa: PLR2004 - digits
        raise _refusal(name, "Give a whole number, or leave it empty for no limit.")
    return int(plain)


def budget(values: Values) -> Budget | None:
    """What may be spent, None where neither bound was typed."""
    cap, soft = _amount("budget", values.budget), _amount("soft", values.soft)
    if cap is None and soft is None:
        return None
    if values.budget_kind not in ("month", "total"):
        raise _refusal("budget_kind", "A budget counts per month or in total.")
    kind: Callable[..., Budget] = Budget
    return kind(values.budget_kind, cap, soft, _thresholds(values.thresholds))


def _thresholds(text: str) -> tuple[int, ...]:
    found = listed(text.replace("%", ""))
    numbers = [int(one) for one in found if one.isascii() and one.isdigit() and len(one) <= 3]  # noqa: PLR2004 - digits
    is_fine = len(numbers) == len(found) <= _MOST_THRESHOLDS and all(0 < one <= _HUNDRED for one in numbers)
    if not is_fine:
        raise _refusal("thresholds", "Write whole percents from 1 to 100, at most 10 of them, such as 50,80,100.")
    return tuple(sorted(set(numbers)))


def _amount(name: str, text: str) -> int | None:
    plain = text.removeprefix("$").replace(",", "").strip()
    if not plain:
        return None
    try:
        return nano_of(plain)
    except ValueError:
        raise _refusal(name, "Write an amount in US dollars, such as 25 or 0.50.") from None


def _expires_at(values: Values, at: int) -> int | None:
    if values.expires == CUSTOM:
        try:
            then = datetime.fromisoformat(values.expires_at)
        except ValueError:
            raise _refusal("expires_at", "Say when: a date and a time, in UTC.") from None
        return int((then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()) * SECOND_MS
    if values.expires not in EXPIRIES:
        raise _refusal("expires_at", "Choose when the key expires.")
    lasts = EXPIRIES[values.expires][1]
    return None if lasts is None else at + lasts


def _providers(values: Values, _at: int) -> Choice:
    if values.providers is None:
        return ALL
    return Choice("only", frozenset(values.providers)) if values.providers else Choice("none")


def _models(values: Values, _at: int) -> Choice:
    return Choice("none") if values.no_models else choice_of(listed(values.models))


def _addresses(values: Values, _at: int) -> Choice:
    return Choice("none") if values.no_addresses else choice_of(listed(values.addresses))


def _counter(name: str) -> tuple[Collection[str], Callable[[Values, int], object]]:
    return (name,), lambda values, _at: count(name, getattr(values, name))


def _as_it_is(name: str) -> tuple[Collection[str], Callable[[Values, int], object]]:
    return (name,), lambda values, _at: getattr(values, name)


_READERS: Final[Mapping[str, tuple[Collection[str], Callable[[Values, int], object]]]] = {
    "name": _as_it_is("name"),
    "expires_at": (("expires",), _expires_at),
    "rpm": _counter("rpm"),
    "rpd": _counter("rpd"),
    "tpm": _counter("tpm"),
    "parallel": _counter("parallel"),
    "budget": (("budget", "budget_kind", "soft", "thresholds"), lambda values, _at: budget(values)),
    "providers": (("providers",), _providers),
    "models": (("models", "no_models"), _models),
    "addresses": (("addresses", "no_addresses"), _addresses),
    "metadata": (("metadata",), lambda values, _at: parse_metadata(values.metadata)),
    "scopes": (("scopes",), lambda values, _at: frozenset(values.scopes)),
    "free_only": _as_it_is("free_only"),
    "capture": _as_it_is("capture"),
}
"""Each field of the deed: the fields of the form that say it, and how they are read."""


def beside(refusal: Refusal) -> dict[str, str]:
    """What a deed refused, by the field of the form that stands for it."""
    return {_beside(refusal.param, refusal): refusal.message} if refusal.param else {}


def _beside(name: str, refusal: Refusal) -> str:
    param = refusal.param or name
    if param == "expires_at":
        return "expires_at" if refusal.message.startswith("Say when") else "expires"
    return "soft" if param == "budget" and "soft limit must not" in refusal.message else param


def _shown(value: object) -> str:
    if value is None:
        return "all"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"“{value}”" if value else "empty"


def _count(value: int | None) -> str:
    return "" if value is None else str(value)


def _refusal(name: str, message: str) -> Refusal:
    return Refusal("invalid_field", message, param=name)
