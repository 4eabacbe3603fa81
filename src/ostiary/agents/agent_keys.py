"""Agent keys: what callers present; created, edited, rotated, stopped and deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from ostiary.actor import Actor, Denied
from ostiary.agents import credential, pages_store, store
from ostiary.agents.fields import (
    USUAL_EXPIRY_MS,
    checked,
    require_capture,
    require_known_providers,
    require_lifetime,
)
from ostiary.agents.lineage import require_narrower
from ostiary.agents.pages_store import After, Page, Wanted
from ostiary.agents.policy import ALL, SCOPES, Choice, Status
from ostiary.agents.records import AgentKey, KeySecret, Owner
from ostiary.agents.store import SCOPE
from ostiary.agents.told import facts, tell
from ostiary.clock import DAY_MS
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import alerts
from ostiary.limits.budgets import Budget
from ostiary.limits.store import change_budget, remove_budget
from ostiary.providers.catalog import Catalog
from ostiary.secret import Secret

__all__ = ["AgentKey", "NewAgentKey"]

Grant = Callable[[Actor, str | None, str | None, frozenset[str]], Refusal | None]
"""Why whoever gets the secret may not have these admin scopes on a key of that owner, of that role; None when they may.
The roles know (`orgs.roles.judge_scopes`); a door that hands in nothing hands out no admin scope."""

_LONGEST_OVERLAP_MS: Final = 7 * DAY_MS


def no_admin_scopes(_by: Actor, _owner_id: str | None, _role: str | None, scopes: frozenset[str]) -> Refusal | None:
    """Nothing beyond `gate:*`."""
    if not scopes:
        return None
    return Refusal("invalid_field", f"{', '.join(sorted(scopes))} cannot be handed out here.", param="scopes")


@dataclass(frozen=True, slots=True)
class NewAgentKey:
    """What is wished for. The owner is who creates it, unless another member is named; the operator's have none."""

    name: str
    owner_id: str | None = None
    expires_at: int | Literal["usual"] | None = "usual"
    """Milliseconds since the epoch; `usual` is in 30 days, or as late as the organization lets it; None is never."""
    scopes: frozenset[str] = SCOPES
    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    models: Choice = ALL
    providers: Choice = ALL
    free_only: bool = False
    addresses: Choice = ALL
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    budget: Budget | None = None
    capture: bool = False


async def create(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    wish: NewAgentKey,
    *,
    pepper: Secret,
    at: int,
    grant: Grant = no_admin_scopes,
    catalog: Catalog | None = None,
) -> tuple[AgentKey, Secret]:
    """Make a key and its first secret, which is returned here and nowhere else.

    Providers are looked for in the `catalog`, where one is given: who types them needs to hear of a slip.
    """
    owner_id = wish.owner_id or (by.id if by.kind == "user" else None)
    by.require("agent_keys.create", organization_id, owner_id)
    rules = await store.get_rules(tx, organization_id)
    wished = {one.name: getattr(wish, one.name) for one in fields(wish) if one.name != "owner_id"}
    if wish.expires_at == "usual":
        wished["expires_at"] = at + min(USUAL_EXPIRY_MS, rules.max_lifetime_ms or USUAL_EXPIRY_MS)
    values: dict[str, Any] = checked(wished, at)
    require_known_providers(values, ALL, catalog)
    require_lifetime(values["expires_at"], rules.max_lifetime_ms, at)
    require_capture(values, rules)
    owner = await find_owner(tx, organization_id, owner_id)
    require_grant(grant, by, owner, values["scopes"])
    return await issue(tx, by, "agent_keys.create", organization_id, owner_id, values, pepper=pepper, at=at)


async def issue(
    tx: Transaction,
    by: Actor,
    deed: str,
    organization_id: str,
    owner_id: str | None,
    values: Mapping[str, Any],
    *,
    pepper: Secret,
    at: int,
) -> tuple[AgentKey, Secret]:
    """Keep a key whose fields are checked, with a secret of its own; the last step of every deed that makes one."""
    secret = credential.mint("eph" if values.get("is_ephemeral") else "pat")
    key = AgentKey(
        **{
            "id": new_id("key", at),
            "organization_id": organization_id,
            "owner_id": owner_id,
            "status": "active",
            "previews": (credential.preview(secret.reveal()),),
            "created_at": at,
            "updated_at": at,
            "last_used_at": None,
            **values,
        }
    )
    await store.add_agent_key(tx, key)
    await _add_secret(tx, key.id, secret, pepper, at)
    if key.budget is not None:
        await change_budget(tx, SCOPE, key.id, key.budget, at)
    await tell(tx, by, deed, key, at, after=facts(key))
    return key, secret


async def list_(tx: Transaction, by: Actor, organization_id: str) -> list[AgentKey]:
    """Those the actor may see, oldest first: all of the organization's, or a member's own."""
    by.require("agent_keys.list", organization_id, by.id)
    keys = await store.list_agent_keys(tx, organization_id)
    return [key for key in keys if by.may("agent_keys.list", organization_id, key.owner_id)]


async def list_page(
    tx: Transaction, by: Actor, organization_id: str, wanted: Wanted, at: int, after: After | None = None
) -> Page:
    """A page of those the actor may see."""
    by.require("agent_keys.list", organization_id, by.id)
    if not by.may("agent_keys.list", organization_id):
        if wanted.owner_id not in (None, by.id):
            return Page((), None)
        wanted = replace(wanted, owner_id=by.id)
    return await pages_store.list_page(tx, organization_id, wanted, at, after)


async def show(tx: Transaction, by: Actor, organization_id: str, id: str) -> AgentKey:
    """One key, by id or by name; without its secret, which nobody can show again."""
    return await get(tx, by, "agent_keys.show", organization_id, id, lock=False)


async def change(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    wished: Mapping[str, object],
    at: int,
    *,
    grant: Grant = no_admin_scopes,
    catalog: Catalog | None = None,
) -> AgentKey:
    """Edit the fields that are named, by the names of `NewAgentKey`; None is a value, absent is unchanged."""
    await keep_member(tx, by, organization_id, wished.get("owner_id"))
    key = await get(tx, by, "agent_keys.edit", organization_id, id)
    values: dict[str, Any] = checked({name: value for name, value in wished.items() if name != "owner_id"}, at)
    if "owner_id" in wished:
        values["owner_id"] = await _new_owner(tx, by, key, wished["owner_id"], grant)
    values = {name: value for name, value in values.items() if value != getattr(key, name)}
    if not values:
        return key
    require_known_providers(values, key.providers, catalog)
    rules = await store.get_rules(tx, organization_id)
    require_capture(values, rules)
    if "expires_at" in values:
        require_lifetime(values["expires_at"], rules.max_lifetime_ms, at)
    if "scopes" in values:
        owner = await find_owner(tx, organization_id, values.get("owner_id", key.owner_id), stays=True)
        require_grant(grant, by, owner, values["scopes"] - key.scopes)
    if key.is_ephemeral:
        _require_fit(key, values)
    edited = replace(key, **values, updated_at=at)
    await _keep(tx, key, edited, values, at)
    before, after = facts(key), facts(edited)
    changed = [name for name in after if name in values]
    told = {"before": {name: before[name] for name in changed}, "after": {name: after[name] for name in changed}}
    await tell(tx, by, "agent_keys.edit", edited, at, **told)
    return edited


async def _keep(tx: Transaction, key: AgentKey, edited: AgentKey, values: Mapping[str, Any], at: int) -> None:
    columns = {name: value for name, value in values.items() if name != "budget"}
    await store.change_agent_key(tx, key.organization_id, key.id, {**columns, "updated_at": at})
    if "budget" in values:
        await change_budget(tx, SCOPE, key.id, edited.budget, at)
        await alerts.rearm(tx, SCOPE, key.id, at)
    if edited.owner_id is not None and edited.owner_id != key.owner_id:
        await store.change_children_owner(tx, key.id, edited.owner_id)


async def keep_member(tx: Transaction, by: Actor, organization_id: str, owner_id: object) -> None:
    """Who is to get a key is not let go meanwhile. Before the key is locked: who lets them go has it after them."""
    by.require("agent_keys.edit", organization_id, by.id)
    if isinstance(owner_id, str):
        await store.find_owner(tx, organization_id, owner_id, lock=True)


async def _new_owner(tx: Transaction, by: Actor, key: AgentKey, owner_id: object, grant: Grant) -> str:
    """Another member, to whom the actor may give a key; a child goes with its parent."""
    if not isinstance(owner_id, str) or key.parent_id is not None:
        raise Refusal("invalid_field", "A key is given to a member, and a child with its parent.", param="owner_id")
    by.require("agent_keys.edit", key.organization_id, owner_id)
    owner = await find_owner(tx, key.organization_id, owner_id)
    if owner_id != key.owner_id:
        require_grant(grant, by, owner, key.scopes)
    return owner_id


def _require_fit(key: AgentKey, values: Mapping[str, Any]) -> None:
    """An ephemeral key keeps its hour, stays within its parent, and away from the admin API."""
    if not values.get("scopes", SCOPES) <= SCOPES:
        raise Refusal("invalid_field", "An ephemeral key has no scope of the admin API.", param="scopes")
    if "expires_at" in values:
        raise Refusal(
            "invalid_field",
            "When an ephemeral key expires is settled when it is made. Make another.",
            param="expires_at",
        )
    if key.parent is not None:
        require_narrower(values, key.parent)


async def rotate(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    *,
    pepper: Secret,
    at: int,
    overlap_ms: int = 0,
    grant: Grant = no_admin_scopes,
) -> tuple[AgentKey, Secret]:
    """Give the key a new secret; the old ones die at once, or after an overlap of up to seven days.

    Works on a stopped key too: after a leak one revokes, rotates, and then activates.
    """
    key = await get(tx, by, "agent_keys.rotate", organization_id, id)
    if key.is_ephemeral:
        raise Refusal("conflict", "An ephemeral key is not rotated: make another, and revoke this one.")
    if not 0 <= overlap_ms <= _LONGEST_OVERLAP_MS:
        raise Refusal("invalid_field", "Old and new secret may overlap for 7 days at most.", param="overlap")
    require_grant(grant, by, await find_owner(tx, organization_id, key.owner_id, stays=True), key.scopes)
    await store.remove_secrets(tx, key.id, expired_at=at if overlap_ms else None)
    await store.change_secrets_expiry(tx, key.id, at + overlap_ms)
    secret = credential.mint("pat")
    await _add_secret(tx, key.id, secret, pepper, at)
    await store.change_agent_key(tx, organization_id, key.id, {"updated_at": at})
    previews = tuple(one.preview for one in await store.list_secrets(tx, key.id))
    rotated = replace(key, previews=previews, updated_at=at)
    after = {"previews": previews, "overlap_ms": overlap_ms}
    await tell(tx, by, "agent_keys.rotate", rotated, at, before={"previews": key.previews}, after=after)
    return rotated, secret


# ---- stop, start, delete ----------------------------------------------------------------------------------------


async def deactivate(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> AgentKey:
    """Stop the key, and with it its children, until it is activated again."""
    key = await get(tx, by, "agent_keys.deactivate", organization_id, id)
    return await _move(tx, by, "agent_keys.deactivate", key, at, ("active",), "inactive")


async def activate(
    tx: Transaction, by: Actor, organization_id: str, id: str, at: int, *, grant: Grant = no_admin_scopes
) -> AgentKey:
    """Let a stopped key in again, with the secrets it had; not its children that were revoked with it."""
    key = await get(tx, by, "agent_keys.activate", organization_id, id)
    if key.status == "revoked" and (await store.get_rules(tx, organization_id)).revocation_is_final:
        raise Refusal("conflict", "Revocation is final in this organization. Make another key.", param="status")
    owner = await find_owner(tx, organization_id, key.owner_id, stays=True)
    if owner is None and key.owner_id is not None:
        message = "Its owner has left the organization. Give it to another member first, with 'keys edit --owner'."
        raise Refusal("conflict", message, param="owner_id")
    require_grant(grant, by, owner, key.scopes)
    return await _move(tx, by, "agent_keys.activate", key, at, ("inactive", "revoked"), "active")


async def revoke(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> AgentKey:
    """Stop the key and its children because they should never be used again; only `activate` brings the key back."""
    key = await get(tx, by, "agent_keys.revoke", organization_id, id)
    return await _revoke(tx, by, key, at)


async def revoke_all_of(tx: Transaction, by: Actor, organization_id: str, owner_id: str, at: int) -> list[AgentKey]:
    """Revoke what belongs to somebody who leaves: they know the secrets. A part of the deed `members.remove`."""
    by.require("members.remove", organization_id)
    keys = await store.list_keys_of(tx, organization_id, owner_id)
    return [await _revoke(tx, by, key, at) for key in keys if key.parent_id is None and key.status != "revoked"]


async def delete(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> None:
    """Forget the key and its children; what they did and spent stays in the ledger under their names."""
    key = await get(tx, by, "agent_keys.delete", organization_id, id)
    children = [] if key.is_ephemeral else await store.list_children(tx, key.id, lock=True)
    for one in (*children, key):
        await forget(tx, one)
    gone = {"children": [child.name for child in children]} if children else {}
    await tell(tx, by, "agent_keys.delete", key, at, before={**facts(key), **gone})
    for child in children:
        await changes.append(tx, "agent_key", organization_id, child.id, at)


async def forget(tx: Transaction, key: AgentKey) -> None:
    """Remove the row; events and accounts stay.

    The cap stays in the account: a gateway that has not heard yet must not find the key without a limit.
    """
    await store.remove_agent_key(tx, key.organization_id, key.id)
    await remove_budget(tx, SCOPE, key.id)


async def _revoke(tx: Transaction, by: Actor, key: AgentKey, at: int) -> AgentKey:
    living = [] if key.is_ephemeral else await store.list_living_children(tx, key.id, at)
    await store.mark_children_revoked(tx, key.id, at)
    revoked = await _move(tx, by, "agent_keys.revoke", key, at, ("active", "inactive"), "revoked")
    for id in living:
        await changes.append(tx, "agent_key", key.organization_id, id, at)
    return revoked


async def _move(
    tx: Transaction, by: Actor, deed: str, key: AgentKey, at: int, sources: tuple[Status, ...], target: Status
) -> AgentKey:
    if key.status not in sources:
        raise Refusal("conflict", f"The agent key {key.name!r} is {key.status}.", param="status")
    await store.change_agent_key(tx, key.organization_id, key.id, {"status": target, "updated_at": at})
    moved = replace(key, status=target, updated_at=at)
    await tell(tx, by, deed, moved, at, before={"status": key.status}, after={"status": target})
    return moved


# ---- what every deed begins with --------------------------------------------------------------------------------


async def get(tx: Transaction, by: Actor, deed: str, organization_id: str, id: str, *, lock: bool = True) -> AgentKey:
    """The key, if the actor may do that deed to it; nobody else's to change until the transaction ends.

    To who reaches only their own keys, those of others look like none: their names are their owners' business.
    """
    by.require(deed, organization_id, by.id)  # first of all: elsewhere, what exists and what does not look alike
    key = await store.get_agent_key(tx, organization_id, id, lock=lock)
    if not by.may(deed, organization_id, key.owner_id):
        raise Denied("not_found", store.UNKNOWN, tried=deed, where=organization_id)
    return key


async def find_owner(
    tx: Transaction, organization_id: str, owner_id: str | None, *, stays: bool = False
) -> Owner | None:
    """The owner with their role, None for nobody's key. Who is no member may not become one, but may stay one."""
    owner = None if owner_id is None else await store.find_owner(tx, organization_id, owner_id, lock=not stays)
    if owner is None and owner_id is not None and not stays:
        raise Refusal("invalid_field", "The owner must be a member of the organization.", param="owner_id")
    return owner


def require_grant(grant: Grant, by: Actor, owner: Owner | None, scopes: frozenset[str]) -> None:
    """Refuse to hand a secret with these scopes to somebody who, or whose key's owner, does not reach so far."""
    refusal = grant(by, owner.id if owner else None, owner.role if owner else None, scopes - SCOPES)
    if refusal is not None:
        raise refusal


async def _add_secret(tx: Transaction, agent_key_id: str, secret: Secret, pepper: Secret, at: int) -> None:
    text = secret.reveal()
    digest = credential.digest(pepper, text)
    await store.add_secret(tx, KeySecret(digest, agent_key_id, credential.preview(text), None), at)
