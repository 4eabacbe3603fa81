"""Agent keys: what callers present; created, edited, rotated, stopped and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from ostiary.actor import Actor
from ostiary.agents import credential, store
from ostiary.agents.fields import USUAL_EXPIRY_MS, checked
from ostiary.agents.policy import ALL, SCOPES, Choice, Status
from ostiary.agents.store import SCOPE, AgentKey, KeySecret
from ostiary.clock import DAY_MS
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import audit
from ostiary.limits.budgets import Budget
from ostiary.limits.store import change_budget, remove_budget
from ostiary.secret import Secret

__all__ = ["AgentKey", "NewAgentKey"]

_LONGEST_OVERLAP_MS: Final = 7 * DAY_MS


@dataclass(frozen=True, slots=True)
class NewAgentKey:
    """What is wished for. The owner is who creates it, unless another member is named; the operator's have none."""

    name: str
    owner_id: str | None = None
    expires_at: int | Literal["usual"] | None = "usual"
    """Milliseconds since the epoch; `usual` is in 30 days, None is never."""
    scopes: frozenset[str] = SCOPES
    rpm: int | None = None
    rpd: int | None = None
    models: Choice = ALL
    providers: Choice = ALL
    free_only: bool = False
    addresses: Choice = ALL
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    budget: Budget | None = None
    tpm: int | None = None
    parallel: int | None = None
    soft_budget_nano: int | None = None


async def create(
    tx: Transaction, by: Actor, organization_id: str, wish: NewAgentKey, *, pepper: Secret, at: int
) -> tuple[AgentKey, Secret]:
    """Make a key and its first secret, which is returned here and nowhere else."""
    owner_id = wish.owner_id or (by.id if by.kind == "user" else None)
    by.require("agent_keys.create", organization_id, owner_id)
    wished = {one.name: getattr(wish, one.name) for one in fields(wish) if one.name != "owner_id"}
    if wish.expires_at == "usual":
        wished["expires_at"] = at + USUAL_EXPIRY_MS
    values: dict[str, Any] = checked(wished, at)
    if owner_id is not None and not await store.is_member(tx, organization_id, owner_id):
        raise Refusal("invalid_field", "The owner must be a member of the organization.", param="owner_id")
    secret = credential.mint("pat")
    key = AgentKey(
        id=new_id("key", at),
        organization_id=organization_id,
        owner_id=owner_id,
        status="active",
        previews=(credential.preview(secret.reveal()),),
        created_at=at,
        updated_at=at,
        last_used_at=None,
        **values,
    )
    await store.add_agent_key(tx, key)
    await _add_secret(tx, key.id, secret, pepper, at)
    if key.budget is not None:
        await change_budget(tx, SCOPE, key.id, key.budget.kind, key.budget.cap_nano, at)
    await _tell(tx, by, "agent_keys.create", key, at, after=_facts(key))
    return key, secret


async def list_(tx: Transaction, by: Actor, organization_id: str) -> list[AgentKey]:
    """Those the actor may see, oldest first: all of the organization's, or a member's own."""
    by.require("agent_keys.list", organization_id, by.id)
    keys = await store.list_agent_keys(tx, organization_id)
    return [key for key in keys if by.may("agent_keys.list", organization_id, key.owner_id)]


async def show(tx: Transaction, by: Actor, organization_id: str, id: str) -> AgentKey:
    """One key, by id or by name; without its secret, which nobody can show again."""
    return await _get(tx, by, "agent_keys.show", organization_id, id, lock=False)


async def change(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    wished: Mapping[str, object],
    at: int,
) -> AgentKey:
    """Edit the fields that are named, by the names of `NewAgentKey`; None is a value, absent is unchanged."""
    key = await _get(tx, by, "agent_keys.edit", organization_id, id)
    values: dict[str, Any] = {name: value for name, value in checked(wished, at).items() if value != getattr(key, name)}
    if not values:
        return key
    edited = replace(key, **values, updated_at=at)
    columns = {name: value for name, value in values.items() if name != "budget"}
    await store.change_agent_key(tx, organization_id, key.id, {**columns, "updated_at": at})
    if "budget" in values:
        kind = (edited.budget or key.budget or Budget("month", 0)).kind
        await change_budget(tx, SCOPE, key.id, kind, edited.budget.cap_nano if edited.budget else None, at)
    before, after = _facts(key), _facts(edited)
    changed = [name for name in after if name in values]
    await _tell(
        tx,
        by,
        "agent_keys.edit",
        edited,
        at,
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed},
    )
    return edited


async def rotate(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    *,
    pepper: Secret,
    at: int,
    overlap_ms: int = 0,
) -> tuple[AgentKey, Secret]:
    """Give the key a new secret; the old ones die at once, or after an overlap of up to seven days.

    Works on a stopped key too: after a leak one revokes, rotates, and then activates.
    """
    key = await _get(tx, by, "agent_keys.rotate", organization_id, id)
    if not 0 <= overlap_ms <= _LONGEST_OVERLAP_MS:
        raise Refusal("invalid_field", "Old and new secret may overlap for 7 days at most.", param="overlap")
    await store.remove_secrets(tx, key.id, expired_at=at if overlap_ms else None)
    await store.change_secrets_expiry(tx, key.id, at + overlap_ms)
    secret = credential.mint("pat")
    await _add_secret(tx, key.id, secret, pepper, at)
    await store.change_agent_key(tx, organization_id, key.id, {"updated_at": at})
    previews = tuple(one.preview for one in await store.list_secrets(tx, key.id))
    rotated = replace(key, previews=previews, updated_at=at)
    await _tell(
        tx,
        by,
        "agent_keys.rotate",
        rotated,
        at,
        before={"previews": key.previews},
        after={"previews": previews, "overlap_ms": overlap_ms},
    )
    return rotated, secret


async def deactivate(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> AgentKey:
    """Stop the key until it is activated again."""
    return await _move(tx, by, "agent_keys.deactivate", organization_id, id, at, ("active",), "inactive")


async def activate(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> AgentKey:
    """Let a stopped key in again, with the secrets it had."""
    return await _move(tx, by, "agent_keys.activate", organization_id, id, at, ("inactive", "revoked"), "active")


async def revoke(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> AgentKey:
    """Stop the key because it should never be used again; only `activate` brings it back."""
    return await _move(tx, by, "agent_keys.revoke", organization_id, id, at, ("active", "inactive"), "revoked")


async def delete(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> None:
    """Forget the key; what it did and spent stays in the ledger under its name."""
    key = await _get(tx, by, "agent_keys.delete", organization_id, id)
    await store.remove_agent_key(tx, organization_id, key.id)
    # The cap stays in the account: a gateway that has not heard yet must not find the key without a limit.
    await remove_budget(tx, SCOPE, key.id)
    await _tell(tx, by, "agent_keys.delete", key, at, before=_facts(key))


async def _get(
    tx: Transaction,
    by: Actor,
    deed: str,
    organization_id: str,
    id: str,
    *,
    lock: bool = True,
) -> AgentKey:
    """The key, if the actor may do that deed to it; nobody else's to change until the transaction ends."""
    by.require(deed, organization_id, by.id)  # first of all: elsewhere, what exists and what does not look alike
    key = await store.get_agent_key(tx, organization_id, id, lock=lock)
    by.require(deed, organization_id, key.owner_id)
    return key


async def _move(
    tx: Transaction,
    by: Actor,
    deed: str,
    organization_id: str,
    id: str,
    at: int,
    sources: tuple[Status, ...],
    target: Status,
) -> AgentKey:
    key = await _get(tx, by, deed, organization_id, id)
    if key.status not in sources:
        raise Refusal("conflict", f"The agent key {key.name!r} is {key.status}.", param="status")
    await store.change_agent_key(tx, organization_id, key.id, {"status": target, "updated_at": at})
    moved = replace(key, status=target, updated_at=at)
    await _tell(tx, by, deed, moved, at, before={"status": key.status}, after={"status": target})
    return moved


async def _add_secret(tx: Transaction, agent_key_id: str, secret: Secret, pepper: Secret, at: int) -> None:
    text = secret.reveal()
    digest = credential.digest(pepper, text)
    await store.add_secret(tx, KeySecret(digest, agent_key_id, credential.preview(text), None), at)


def _facts(key: AgentKey) -> dict[str, object]:
    """What the audit log may know of a key. Of its metadata only the names: people put anything there."""
    facts = {name: getattr(key, name) for name in ("name", "owner_id", "status", "expires_at", "scopes", "rpm", "rpd")}
    for name in ("models", "providers", "addresses"):
        choice: Choice = getattr(key, name)
        facts[name] = {"mode": choice.mode, "items": choice.items}
    budget = key.budget
    return {
        **facts,
        "free_only": key.free_only,
        "metadata": sorted(key.metadata),
        "budget": {"kind": budget.kind, "cap_nano": budget.cap_nano} if budget else None,
    }


async def _tell(
    tx: Transaction,
    by: Actor,
    deed: str,
    key: AgentKey,
    at: int,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    await audit.write(
        tx,
        by,
        deed,
        "agent_key",
        key.id,
        key.name,
        organization_id=key.organization_id,
        before=before,
        after=after,
        at=at,
    )
    await changes.append(tx, "agent_key", key.organization_id, key.id, at)
