"""Provider keys as requests and answers show them: a secret goes in and never comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from ostiary.admin.budget_shapes import AmountsPatch, Rate, ShownBudget, Thresholds, shown_budget
from ostiary.admin.shapes import ABSENT, Asked, Item, Name, Shown, ShownMoment, ShownUsd, Usd, usd, when
from ostiary.limits.budgets import Budget
from ostiary.providers.catalog import Provider
from ostiary.secret import Secret
from ostiary.vault.health_store import HealthRow
from ostiary.vault.key_fields import LONGEST_TAG, MOST_PRIORITY, MOST_TAGS, MOST_WEIGHT
from ostiary.vault.key_uses import Standing, Uses, described
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey
from ostiary.vault.quota_store import QuotaRow
from ostiary.vault.quota_words import in_words
from ostiary.vault.trial import TestResult

_LONGEST_SECRET: Final = 65_536
OF_THE_CALL: Final = frozenset({"secret", "base_url", "fields", "auth"})
"""What a test says something new of, when it is changed."""

Strategy = Literal["rotate", "fill"]


def _secret(value: object) -> Secret:
    """Nothing that is said of a wrong one quotes it."""
    if not isinstance(value, str) or len(value) > _LONGEST_SECRET:
        raise ValueError(f"a secret is a text of {_LONGEST_SECRET} characters at most")
    return Secret(value)


GivenSecret = Annotated[
    Any,
    BeforeValidator(_secret),
    WithJsonSchema(
        {
            "type": "string",
            "writeOnly": True,
            "description": "The credential itself; its masked form is refused.",
        }
    ),
]
Url = Annotated[str, Field(min_length=1, max_length=2_000)]
Fields = Annotated[dict[Item, Annotated[str, Field(max_length=2_000)]], Field(max_length=50)]
FieldsPatch = Annotated[dict[Item, Annotated[str, Field(max_length=2_000)] | None], Field(max_length=50)]
Priority = Annotated[
    int, Field(ge=-MOST_PRIORITY, le=MOST_PRIORITY, description="The highest goes first, among one's own keys.")
]
Weight = Annotated[int, Field(ge=1, le=MOST_WEIGHT, description="Its share among keys that take turns.")]
Tags = Annotated[list[Annotated[str, Field(min_length=1, max_length=LONGEST_TAG)]], Field(max_length=MOST_TAGS)]
Tested = Annotated[bool, Field(description="Whether the provider is asked first; what it turns down is not saved.")]


class GivenSpend(Asked):
    """What may be spent with a key: `limit_usd` blocks, `soft_usd` warns; at least one of them."""

    period: Literal["day", "month", "total"] = "month"
    limit_usd: Usd | None = None
    soft_usd: Usd | None = None
    thresholds: Thresholds | None = None

    def budget(self) -> Budget:
        """As the house keeps it."""
        budget = Budget(self.period, self.limit_usd, self.soft_usd)
        return budget if self.thresholds is None else replace(budget, thresholds=tuple(self.thresholds))


class SpendPatch(AmountsPatch):
    """What of it is changed: absent stays, null clears. Where there is none, it begins with what is named."""

    period: Literal["day", "month", "total"] = ABSENT


class NewKey(Asked):
    """A provider key to add. Without a base URL it goes to the catalogue's."""

    name: Name
    provider: Item
    secret: GivenSecret = Field(default_factory=lambda: Secret(""))
    base_url: Url | None = None
    auth: Item | None = Field(None, description="How it signs in; without, the provider's first way.")
    fields: Fields = Field(default={})
    shared: bool = Field(default=False, description="Whether every organization may use it.")
    priority: Priority = 0
    weight: Weight = 1
    strategy: Strategy | None = Field(
        None, description="Take turns, or be used up before the next. Without: `fill` for a free tier."
    )
    free_tier: bool = False
    account: Item | None = Field(None, description="Keys of one account share its quota.")
    tags: Tags = Field(default=[])
    rpm: Rate | None = None
    rpd: Rate | None = None
    tpm: Rate | None = None
    parallel: Rate | None = None
    budget: GivenSpend | None = None
    test: Tested = True

    def wish(self, provider: Provider) -> NewProviderKey:
        """As the deed takes it."""
        beside = {"provider", "budget", "tags", "test"}
        plain: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields if name not in beside}
        budget = self.budget.budget() if self.budget else None
        return NewProviderKey(**plain, provider=provider, tags=tuple(self.tags), budget=budget)


class KeyPatch(Asked):
    """What is named is changed; null clears where there may be nothing, also one of the `fields`."""

    name: Name = ABSENT
    secret: GivenSecret | None = ABSENT
    base_url: Url | None = ABSENT
    auth: Item | None = ABSENT
    fields: FieldsPatch | None = ABSENT
    shared: bool = ABSENT
    priority: Priority = ABSENT
    weight: Weight = ABSENT
    strategy: Strategy = ABSENT
    free_tier: bool = ABSENT
    account: Item | None = ABSENT
    tags: Tags | None = ABSENT
    rpm: Rate | None = ABSENT
    rpd: Rate | None = ABSENT
    tpm: Rate | None = ABSENT
    parallel: Rate | None = ABSENT
    budget: SpendPatch | None = ABSENT
    test: Tested = True

    @property
    def is_of_the_call(self) -> bool:
        """Whether calls will be made in another way."""
        return bool(self.model_fields_set & OF_THE_CALL)

    def wished(self, known: ProviderKey) -> dict[str, object]:
        """What was named, as the deed takes it, merged with the key as it is."""
        found: dict[str, object] = {name: getattr(self, name) for name in self.model_fields_set if name != "test"}
        if self.fields is not None and "fields" in found:
            merged = {**known.fields, **self.fields}
            found["fields"] = {name: value for name, value in merged.items() if value is not None}
        if "tags" in found:
            found["tags"] = tuple(self.tags or ())
        if self.budget is not None:
            found["budget"] = self.budget.over(known.budget)
        return found


class ShownHealth(Shown):
    """What is held against a key, or against one of its models."""

    model: str | None
    state: str
    reason: str
    since: ShownMoment
    until: ShownMoment | None


class ShownKey(Shown):
    """A provider key; its secret is sealed, and nobody is shown it again."""

    id: str
    name: str
    provider: str
    preview: str
    status: str = Field(description="`healthy`, or what keeps the whole key from being used.")
    shared: bool
    base_url: str
    auth: str | None
    fields: dict[str, str]
    priority: int
    weight: int
    strategy: Strategy
    free_tier: bool
    account: str | None
    tags: list[str]
    rpm: int | None
    rpd: int | None
    tpm: int | None
    parallel: int | None
    budget: ShownBudget | None
    spent_usd: ShownUsd = Field(description="In the running period of the budget; without one, this month.")
    health: list[ShownHealth]
    added_by: str | None
    created_at: ShownMoment
    updated_at: ShownMoment
    last_used_at: ShownMoment | None


class ShownDependent(Shown):
    """An endpoint or alias that a key serves: `named` in a target, or as `any` of its provider."""

    kind: Literal["endpoint", "alias"]
    id: str
    name: str
    how: Literal["named", "any"]


class ShownQuota(Shown):
    """How much a key has left of one limit for a model, as its provider said last."""

    model: str
    what: str = Field(description="`requests`, `tokens`, `requests-day`, `input-tokens` …, as the provider counts.")
    remaining: int
    limit: int | None
    resets_at: ShownMoment | None
    heard_at: ShownMoment
    gateway: str = Field(description="The name of the gateway that heard it.")
    in_words: str


class DetailedKey(ShownKey):
    """A provider key with what it has left and what uses it."""

    quota_left: list[ShownQuota] = Field(
        description="What the provider's answers said last, within seconds; nothing where they say nothing."
    )
    used_by: list[ShownDependent]
    used_elsewhere: int = Field(description="How many endpoints of other organizations it serves, by being shared.")


class ShownTest(Shown):
    """What the provider said of a key."""

    outcome: Literal["valid", "invalid_key", "no_model_access", "network", "unknown"]
    message: str


class SavedKey(DetailedKey):
    """A provider key as it was saved, and the test before that."""

    test: ShownTest | None


class Keys(Shown):
    """One page of them."""

    data: list[ShownKey]
    next_cursor: str | None


def shown(standing: Standing, at: int) -> dict[str, Any]:
    """The fields of an answer."""
    key = standing.key
    plain = (
        *("id", "name", "provider", "preview", "shared", "base_url", "auth", "priority", "weight", "strategy"),
        *("free_tier", "account", "rpm", "rpd", "tpm", "parallel", "added_by"),
    )
    return {
        **{name: getattr(key, name) for name in plain},
        "status": standing.status,
        "fields": dict(key.fields),
        "tags": list(key.tags),
        "budget": shown_budget(key.budget, standing.spent_nano, at),
        "spent_usd": usd(standing.spent_nano),
        "health": [_health(row) for row in standing.health],
        **{name: when(getattr(key, name)) for name in ("created_at", "updated_at", "last_used_at")},
    }


def shown_uses(uses: Uses) -> dict[str, Any]:
    """What uses a key, in an answer."""
    return {"used_by": [described(one) for one in uses.named], "used_elsewhere": uses.elsewhere}


def shown_left(rows: Iterable[QuotaRow]) -> dict[str, Any]:
    """What a key has left, in an answer."""
    return {
        "quota_left": [
            {
                **{name: getattr(row, name) for name in ("model", "what", "remaining", "gateway")},
                "limit": row.most,
                "resets_at": when(row.resets_at),
                "heard_at": when(row.heard_at),
                "in_words": in_words(row),
            }
            for row in rows
        ]
    }


def shown_test(result: TestResult) -> ShownTest:
    """What a test said."""
    return ShownTest(outcome=result.outcome, message=result.message)


def _health(row: HealthRow) -> dict[str, Any]:
    return {
        "model": row.model or None,
        "state": row.state,
        "reason": row.reason,
        "since": when(row.since),
        "until": when(row.until),
    }
