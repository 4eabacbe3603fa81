"""Agent keys as requests and answers show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, WithJsonSchema

from ostiary.admin.budget_shapes import BudgetPatch, GivenBudget, Rate, ShownBudget, shown_budget
from ostiary.admin.shapes import (
    ABSENT,
    Asked,
    Chosen,
    GivenChoice,
    Item,
    Metadata,
    Moment,
    Name,
    OnceShown,
    Shown,
    ShownMoment,
    ShownUsd,
    choice_of,
    merged,
    usd,
    when,
)
from ostiary.agents.agent_keys import AgentKey
from ostiary.agents.policy import SCOPES
from ostiary.ledger.reports import Traffic
from ostiary.orgs.roles import ADMIN_SCOPES

Scope = Annotated[Item, WithJsonSchema({"type": "string", "enum": sorted({*SCOPES, *ADMIN_SCOPES})})]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=100)]


class NewKey(Asked):
    """A key to make. What is absent is as generous as the organization lets it be."""

    name: Name
    owner_id: Item | None = Field(None, description="The member whose key it is; without, its maker's owner.")
    expires_at: Moment | None = Field(
        default_factory=lambda: None, description="Absent: in 30 days. Null: never. Else 1 hour to 1 year from now."
    )
    scopes: Scopes = Field(default=["gate:chat", "gate:models", "gate:usage"])
    rpm: Rate | None = None
    rpd: Rate | None = None
    tpm: Rate | None = None
    parallel: Rate | None = None
    models: GivenChoice = Field(default=[])
    providers: GivenChoice = Field(default=[])
    free_only: bool = False
    addresses: GivenChoice = Field(default=[])
    metadata: Metadata = Field(default={})
    budget: GivenBudget | None = None
    capture: bool = Field(
        default=False, description="Whether prompts and answers are kept, where the organization does not forbid it."
    )


class KeyPatch(Asked):
    """What is named is changed; null clears where there may be nothing, also one of the `metadata`."""

    name: Name = ABSENT
    owner_id: Item = ABSENT
    expires_at: Moment | None = ABSENT
    scopes: Scopes = ABSENT
    rpm: Rate | None = ABSENT
    rpd: Rate | None = ABSENT
    tpm: Rate | None = ABSENT
    parallel: Rate | None = ABSENT
    models: GivenChoice = ABSENT
    providers: GivenChoice = ABSENT
    free_only: bool = ABSENT
    addresses: GivenChoice = ABSENT
    metadata: Metadata = ABSENT
    budget: BudgetPatch | None = ABSENT
    capture: bool = ABSENT


class NewEphemeral(Asked):
    """A short-lived key. What is absent is as its parent has it; nothing may be wider."""

    name: Name = ABSENT
    ttl_s: Annotated[int, Field(ge=60, le=86_400)] | None = None
    scopes: Scopes = ABSENT
    rpm: Rate | None = ABSENT
    rpd: Rate | None = ABSENT
    tpm: Rate | None = ABSENT
    parallel: Rate | None = ABSENT
    models: GivenChoice = ABSENT
    providers: GivenChoice = ABSENT
    free_only: bool = ABSENT
    addresses: GivenChoice = ABSENT
    metadata: Metadata = ABSENT
    budget: GivenBudget | None = ABSENT
    capture: bool = ABSENT


class NewLoneEphemeral(NewEphemeral):
    """A short-lived key without a parent, with limits of its own."""

    owner_id: Item | None = None


class Rotation(Asked):
    """How long the old secret lives on."""

    overlap_s: Annotated[int, Field(ge=0, le=7 * 86_400)] = 0


class ShownKey(Shown):
    """An agent key; its secret is not kept by anybody."""

    id: str
    name: str
    owner_id: str | None
    status: Literal["active", "inactive", "expired", "revoked"]
    preview: str | None
    previews: list[str]
    expires_at: ShownMoment | None
    expires_soon: bool = Field(description="It works now and will not in 7 days; never of an ephemeral key.")
    scopes: list[str]
    rpm: int | None
    rpd: int | None
    tpm: int | None
    parallel: int | None
    models: Chosen
    providers: Chosen
    free_only: bool
    addresses: Chosen
    metadata: dict[str, JsonValue]
    budget: ShownBudget | None
    spent_usd: ShownUsd = Field(description="In the running period of the budget; without one, this month.")
    capture: bool = Field(description="As it is set. Nothing is kept where the organization forbids it.")
    is_ephemeral: bool
    parent_id: str | None
    created_at: ShownMoment
    updated_at: ShownMoment
    last_used_at: ShownMoment | None


class MadeKey(ShownKey):
    """An agent key with its new secret."""

    secret: OnceShown = None


class ListedKey(ShownKey):
    """An agent key, and how much it is used."""

    requests: int = Field(description="In the last 30 days.")
    share_percent: float = Field(description="Of all requests of the organization in the last 30 days.")


class ModelSpend(Shown):
    """What went to one model."""

    model: str
    requests: int
    cost_usd: ShownUsd


class DetailedKey(ListedKey):
    """An agent key with everything that is known of its use."""

    by_model: list[ModelSpend] = Field(description="In the last 30 days, the dearest first.")
    content_is_captured: bool = Field(
        description="Whether prompts and answers are kept: it or its parent is set to, and the organization lets them."
    )


class Keys(Shown):
    """One page of them."""

    data: list[ListedKey]
    next_cursor: str | None


def wished(asked: Asked) -> dict[str, object]:
    """The fields that were named, as the deeds of agent keys take them."""
    found: dict[str, object] = {name: getattr(asked, name) for name in asked.model_fields_set}
    for name in ("models", "providers", "addresses"):
        if name in found:
            found[name] = choice_of(found[name])  # type: ignore[arg-type]
    if "scopes" in found:
        found["scopes"] = frozenset(found["scopes"])  # type: ignore[call-overload]
    if isinstance(found.get("budget"), GivenBudget):
        found["budget"] = found["budget"].budget()  # type: ignore[attr-defined]
    return found


def patched(asked: KeyPatch, known: AgentKey) -> dict[str, object]:
    """The same of a merge patch: budget and metadata are merged with those of the key as it is."""
    found = wished(asked)
    if asked.budget is not None:
        found["budget"] = asked.budget.over(known.budget)
    if "metadata" in found:
        found["metadata"] = merged(known.metadata, asked.metadata)
    return found


def shares(key_id: str, traffic: Mapping[str, Traffic]) -> dict[str, Any]:
    """How much of the organization's traffic is a key's."""
    its = traffic.get(key_id)
    return {"requests": its.requests if its else 0, "share_percent": its.percent if its else 0.0}


def shown(key: AgentKey, spent: int, at: int) -> dict[str, Any]:
    """The fields of an answer."""
    facts: Mapping[str, Any] = {
        name: getattr(key, name)
        for name in (
            *("id", "name", "owner_id", "rpm", "rpd", "tpm", "parallel"),
            *("free_only", "capture", "is_ephemeral", "parent_id"),
        )
    }
    return {
        **facts,
        "status": key.shown_status(at),
        "preview": key.previews[0] if key.previews else None,
        "previews": list(key.previews),
        "expires_at": when(key.expires_at),
        "expires_soon": key.expires_soon(at),
        "scopes": sorted(key.scopes),
        **{name: Chosen.of(getattr(key, name)) for name in ("models", "providers", "addresses")},
        "metadata": dict(key.metadata),
        "budget": shown_budget(key.budget, spent, at),
        "spent_usd": usd(spent),
        **{name: when(getattr(key, name)) for name in ("created_at", "updated_at", "last_used_at")},
    }
