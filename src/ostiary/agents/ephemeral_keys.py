"""Ephemeral keys: short-lived children of an agent key, or short-lived by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from ostiary.actor import Actor
from ostiary.agents import agent_keys, store
from ostiary.agents.fields import checked, require_capture, require_known_providers, require_lifetime
from ostiary.agents.lineage import POWERS, require_narrower
from ostiary.agents.policy import ALL, SCOPES
from ostiary.agents.records import AgentKey
from ostiary.clock import DAY_MS, SECOND_MS
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.providers.catalog import Catalog
from ostiary.secret import Secret

USUAL_TTL_S: Final = 3_600
SHORTEST_TTL_S: Final = 60
LONGEST_TTL_S: Final = 86_400
_MOST_CHILDREN: Final = 1_000
"""At a time: a parent that mints without end would fill the memory of every gateway."""
_BATCH: Final = 500
_STEM: Final = 180
_SUFFIX: Final = 6
_KEPT_MS: Final = DAY_MS
"""How long an expired one is still shown to people."""
_ALONE: Final[Mapping[str, object]] = MappingProxyType(
    {
        "scopes": SCOPES,
        "rpm": None,
        "rpd": None,
        "tpm": None,
        "parallel": None,
        "models": ALL,
        "providers": ALL,
        "free_only": False,
        "addresses": ALL,
        "metadata": {},
        "capture": False,
    }
)


@dataclass(frozen=True, slots=True)
class NewEphemeralKey:
    """What is wished for. `fields` are those of `NewAgentKey`, by name; what is absent is as the parent has it.

    Only `gate:*` scopes are handed on: with those of the admin API a short life could make itself a long one. A budget
    is a slice: the child's own, and spent from the parent's as well. `ttl_s` of None is an hour, or what is left of the
    parent.
    """

    name: str | None = None
    ttl_s: int | None = None
    owner_id: str | None = None
    """Of one without a parent; who creates it, unless another member is named."""
    fields: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


async def create(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    parent_id: str | None,
    wish: NewEphemeralKey,
    *,
    pepper: Secret,
    at: int,
    catalog: Catalog | None = None,
) -> tuple[AgentKey, Secret]:
    """Make an ephemeral key and its secret, which is returned here and nowhere else.

    A child has no power that its parent, by id or name, has not; a wish for more is refused and names the field.
    """
    parent, owner_id = await _parent(tx, by, organization_id, parent_id, wish, at)
    values: dict[str, Any] = {**_usual(parent, at), **checked(_wished(wish), at)}
    require_known_providers(values, parent.providers if parent else ALL, catalog)
    values["expires_at"] = _expires_at(wish.ttl_s, parent, at)
    if not values["scopes"] or not values["scopes"] <= SCOPES:
        known = ", ".join(sorted(SCOPES))
        raise Refusal("invalid_field", f"An ephemeral key has one or more of {known}.", param="scopes")
    if parent is not None:
        require_narrower(values, parent)
    rules = await store.get_rules(tx, organization_id)
    require_lifetime(values["expires_at"], rules.max_lifetime_ms, at)
    if parent is None or not parent.capture:  # what a parent must let be seen, its child has to say as well
        require_capture(values, rules)
    if parent is None:
        await agent_keys.find_owner(tx, organization_id, owner_id)
    values |= {"is_ephemeral": True, "parent_id": parent.id if parent else None, "parent": parent}
    return await agent_keys.issue(
        tx, by, "agent_keys.ephemeral", organization_id, owner_id, values, pepper=pepper, at=at
    )


async def remove_expired(tx: Transaction, at: int, limit: int = _BATCH) -> int:
    """Forget ephemeral keys that expired a day ago, and say how many; what they did stays in the ledger.

    Nobody's deed, so nothing is audited: that they end by themselves was written down when they were made.
    """
    expired = await store.list_expired_ephemeral_keys(tx, at - _KEPT_MS, limit)
    for key in expired:
        await agent_keys.forget(tx, key)
        await changes.append(tx, "agent_key", key.organization_id, key.id, at)
    return len(expired)


async def prune(database: Database, at: int) -> None:
    """All of them, in transactions short enough to let calls and deeds through."""
    removed = _BATCH
    while removed == _BATCH:
        async with database.transaction() as tx:
            removed = await remove_expired(tx, at, _BATCH)


async def _parent(
    tx: Transaction, by: Actor, organization_id: str, parent_id: str | None, wish: NewEphemeralKey, at: int
) -> tuple[AgentKey | None, str | None]:
    """The parent, if it is one to have children, and whose the child will be."""
    if parent_id is None:
        owner_id = wish.owner_id or (by.id if by.kind == "user" else None)
        by.require("agent_keys.ephemeral", organization_id, owner_id)
        return None, owner_id
    parent = await agent_keys.get(tx, by, "agent_keys.ephemeral", organization_id, parent_id)
    if wish.owner_id is not None and wish.owner_id != parent.owner_id:
        raise Refusal("invalid_field", "A child belongs to whom its parent belongs to.", param="owner_id")
    if parent.is_ephemeral:
        raise Refusal("invalid_field", "An ephemeral key has no children of its own.", param="parent_id")
    status = parent.shown_status(at)
    if status != "active":
        raise Refusal("conflict", f"The agent key {parent.name!r} is {status}; its child would open nothing.")
    if len(await store.list_living_children(tx, parent.id, at)) >= _MOST_CHILDREN:
        message = f"{parent.name!r} has {_MOST_CHILDREN:,} living children. Wait until some expire, or revoke some."
        raise Refusal("conflict", message)
    return parent, parent.owner_id


def _usual(parent: AgentKey | None, at: int) -> dict[str, object]:
    """What the child has where nothing is wished for."""
    suffix = new_id("", at)[-_SUFFIX:]
    if parent is None:
        return {**_ALONE, "name": f"ephemeral-{suffix}", "budget": None}
    handed_on = {name: getattr(parent, name) for name in POWERS}
    handed_on["scopes"] = parent.scopes & SCOPES
    return {**handed_on, "name": f"{parent.name[:_STEM]}-{suffix}", "budget": None}


def _wished(wish: NewEphemeralKey) -> dict[str, object]:
    """The fields that were named."""
    if "expires_at" in wish.fields:
        raise Refusal("invalid_field", "Say how long an ephemeral key lives with ttl_s.", param="expires_at")
    return {**wish.fields, **({} if wish.name is None else {"name": wish.name})}


def _expires_at(ttl_s: int | None, parent: AgentKey | None, at: int) -> int:
    ends_at = parent.expires_at if parent else None
    if ttl_s is None:
        usual = at + USUAL_TTL_S * SECOND_MS
        return usual if ends_at is None else min(usual, ends_at)
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int) or not SHORTEST_TTL_S <= ttl_s <= LONGEST_TTL_S:
        message = f"An ephemeral key lives for {SHORTEST_TTL_S} to {LONGEST_TTL_S} seconds."
        raise Refusal("invalid_field", message, param="ttl_s")
    expires_at = at + ttl_s * SECOND_MS
    if ends_at is not None and expires_at > ends_at:
        raise Refusal("invalid_field", "An ephemeral key cannot outlive its parent.", param="ttl_s")
    return expires_at
