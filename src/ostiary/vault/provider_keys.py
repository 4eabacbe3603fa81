"""Provider keys: the credentials that go out; added, edited in place, tested, reset and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import alerts, audit
from ostiary.limits.budgets import Budget
from ostiary.limits.store import change_budget, remove_budget
from ostiary.limits.wishes import budget_facts
from ostiary.providers.catalog import Provider
from ostiary.providers.egress import Egress, Target
from ostiary.secret import Secret
from ostiary.vault import health_store, key_fields, key_uses, quota_store, store
from ostiary.vault.fields import (
    checked_auth,
    checked_fields,
    checked_secret,
    checked_target,
    moved_target,
    preview,
    require_own_door,
    wrong,
)
from ostiary.vault.seal import Place, Seal, Undecryptable
from ostiary.vault.store import SCOPE, ProviderKey

__all__ = ["NewProviderKey", "ProviderKey", "ProviderKeyEdit"]

HEALTHY: Final = "healthy"
UNDECRYPTABLE: Final = "undecryptable"
_NEVER_TOLD: Final = frozenset(
    {"id", "organization_id", "origin", "sealed", "sealed_version", "created_at", "updated_at", "last_used_at"}
)
"""What the audit log has no use for, or may not know."""
_ELSEWHERE: Final = frozenset({"budget"})
_OF_THE_CALL: Final = ("base_url", "fields", "auth", "sealed")
"""What was found out about a key was found out with these: with others it is to be found out anew."""


@dataclass(frozen=True, slots=True)
class NewProviderKey:
    """What is wished for. Without a base URL the catalogue's is meant, without a strategy what suits the tier."""

    name: str
    provider: Provider
    secret: Secret
    base_url: str | None = None
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    shared: bool = False
    auth: str | None = None
    priority: int = 0
    weight: int = 1
    strategy: str | None = None
    free_tier: bool = False
    account: str | None = None
    tags: tuple[str, ...] = ()
    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class ProviderKeyEdit:
    """What is to change, by the names of `NewProviderKey`: None is a value, absent is unchanged.

    `provider` is the catalogue's row of the key.
    """

    provider: Provider
    wished: Mapping[str, object]


_BY_THEMSELVES: Final = frozenset({"provider", "secret", "base_url", "fields", "auth"})
"""What cannot be judged without the provider's row; the rest is judged by `key_fields`."""


async def add(
    tx: Transaction, by: Actor, organization_id: str, wish: NewProviderKey, *, seal: Seal, egress: Egress, at: int
) -> ProviderKey:
    """Seal a credential for the origin it is entered for. Test it before: this does not."""
    by.require("provider_keys.add", organization_id)
    provider = wish.provider
    if not provider.callable:
        raise wrong("provider", f"{provider.name} cannot be called yet: {provider.reason}")
    key_fields.require_no_mask(wish.secret, "")
    auth = checked_auth(provider, wish.auth)
    asked = checked_fields(provider, wish.fields, auth, wish.base_url)
    target = checked_target(wish.base_url, provider, egress, asked)
    require_own_door(by, provider, target.origin, shared=wish.shared, egress=egress)
    secret = checked_secret(wish.secret, provider)
    key = ProviderKey(
        **_checked_wish(wish),
        id=new_id("pkey", at),
        organization_id=organization_id,
        provider=provider.id,
        base_url=target.url,
        origin=target.origin,
        fields=asked,
        auth=auth,
        sealed="",
        sealed_version=0,
        preview=preview(secret),
        status=HEALTHY,
        created_at=at,
        updated_at=at,
        last_used_at=None,
        added_by=key_fields.contributor(by.name),
        by_operator=by.role == "operator",
    )
    key = await _sealed(tx, seal, key, secret, at)
    await store.add_provider_key(tx, key)
    if key.budget is not None:
        await change_budget(tx, SCOPE, key.id, key.budget, at)
    await _tell(tx, by, "provider_keys.add", key, at, after=_facts(key))
    return key


def _checked_wish(wish: NewProviderKey) -> dict[str, Any]:
    wished = {one.name: getattr(wish, one.name) for one in fields(wish) if one.name not in _BY_THEMSELVES}
    if wish.strategy is None:
        wished["strategy"] = key_fields.usual_strategy(free_tier=wish.free_tier)
    wished["tags"] = key_fields.tags_at_first(wish.provider, wish.tags)
    return key_fields.checked(wished)


async def list_(tx: Transaction, by: Actor, organization_id: str) -> list[ProviderKey]:
    """The organization's, oldest first; nothing is opened for it."""
    by.require("provider_keys.list", organization_id)
    return await store.list_provider_keys(tx, organization_id)


async def show(tx: Transaction, by: Actor, organization_id: str, id: str, *, seal: Seal) -> ProviderKey:
    """One key, by id or by name, never its secret; its status says `undecryptable` when that does not open."""
    by.require("provider_keys.show", organization_id)
    key = await store.get_provider_key(tx, organization_id, id)
    try:
        await open_secret(tx, seal, key)
    except Undecryptable:
        return replace(key, status=UNDECRYPTABLE)
    return key


# ---- edit in place ----------------------------------------------------------------------------------------------


async def change(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    edit: ProviderKeyEdit,
    *,
    seal: Seal,
    egress: Egress,
    at: int,
) -> ProviderKey:
    """Edit in place: id, sharing and history stay. Another origin or way to sign in needs the secret again."""
    by.require("provider_keys.edit", organization_id)
    key = await store.get_provider_key(tx, organization_id, id, lock=True)
    row, wished = edit.provider, edit.wished
    if row.id != key.provider or "provider" in wished:
        raise wrong("provider", "A provider key stays with its provider. Add another key instead.")
    edited = replace(key, **_checked_edit(key, edit, egress))
    if "secret" in wished or (edited.shared and not key.shared):  # whose word it is from now on
        edited = replace(edited, by_operator=by.role == "operator")
    require_own_door(by, row, edited.origin, shared=edited.shared, egress=egress)
    if "secret" in wished:
        secret = _entered(wished["secret"], row, key)
        edited = await _sealed(tx, seal, replace(edited, preview=preview(secret)), secret, at)
    else:
        _require_same_door(row, key, edited)
    if edited == key:
        return key
    edited = replace(edited, updated_at=at)
    if any(getattr(edited, name) != getattr(key, name) for name in _OF_THE_CALL):
        edited = replace(edited, status=HEALTHY)
        await health_store.remove_health(tx, key.id)
        await quota_store.remove_quotas(tx, key.id)
    await _keep(tx, key, edited, at)
    before, after = _facts(key), _facts(edited)
    changed = [name for name in after if before[name] != after[name]]
    told_before = {name: before[name] for name in changed}
    told_after = {name: after[name] for name in changed} | {"secret_entered": "secret" in wished}
    await _tell(tx, by, "provider_keys.edit", edited, at, before=told_before, after=told_after)
    return edited


async def _keep(tx: Transaction, key: ProviderKey, edited: ProviderKey, at: int) -> None:
    columns = (one.name for one in fields(edited) if one.name not in _ELSEWHERE)
    values = {name: getattr(edited, name) for name in columns if getattr(edited, name) != getattr(key, name)}
    await store.change_provider_key(tx, key.organization_id, key.id, **values)
    if edited.budget != key.budget:
        await change_budget(tx, SCOPE, key.id, edited.budget, at)
        await alerts.rearm(tx, SCOPE, key.id, at)


def _checked_edit(key: ProviderKey, edit: ProviderKeyEdit, egress: Egress) -> dict[str, Any]:
    wished = edit.wished
    values: dict[str, Any] = key_fields.checked(
        {name: value for name, value in wished.items() if name not in _BY_THEMSELVES}
    )
    if not wished.keys() & {"base_url", "fields", "auth"}:
        return values
    return values | _checked_call(key, edit, egress)


def _checked_call(key: ProviderKey, edit: ProviderKeyEdit, egress: Egress) -> dict[str, Any]:
    """Where and how calls go from now on. An address that was made of fields moves with them."""
    row, wished = edit.provider, edit.wished
    auth = checked_auth(row, _text("auth", wished["auth"])) if "auth" in wished else key.auth
    given = _text("base_url", wished["base_url"]) if "base_url" in wished else key.base_url
    fits = {one.name for one in row.fields_of(auth)}
    kept = {name: value for name, value in key.fields.items() if name in fits}
    asked = checked_fields(row, _texts("fields", wished["fields"]) if "fields" in wished else kept, auth, given)
    if "base_url" in wished:
        target: Target | None = checked_target(given, row, egress, asked)
    else:
        target = moved_target(row, key.base_url, key.fields, asked, egress)
    moved = {"base_url": target.url, "origin": target.origin} if target is not None else {}
    return {"auth": auth, "fields": asked, **moved}


def _require_same_door(row: Provider, key: ProviderKey, edited: ProviderKey) -> None:
    """A stored secret goes where it was entered for, and in the way it was."""
    if edited.origin != key.origin:
        where = f"sent to {edited.origin}"
    elif row.find_auth(edited.auth) != row.find_auth(key.auth):
        where = "used to sign in in another way"
    else:
        return
    raise wrong("secret", f"The secret was entered for {key.origin}. Enter it again to have it {where}.")


def _entered(given: object, row: Provider, key: ProviderKey) -> Secret:
    """The secret that was entered; None takes it away from a key that can do without."""
    if given is not None and not isinstance(given, Secret):
        raise wrong("secret", "secret must be text.")
    secret = given or Secret("")
    key_fields.require_no_mask(secret, key.preview)
    return checked_secret(secret, row)


def _text(name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise wrong(name, f"{name} must be text.")
    return value


def _texts(name: str, value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(one, str) for pair in value.items() for one in pair):
        raise wrong(name, f"{name} must be texts by name.")
    return dict(value)


# ---- reset, delete ----------------------------------------------------------------------------------------------


async def reset(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> ProviderKey:
    """Forget everything that was held against a key: the next call may use it, on every gateway. Always works."""
    by.require("provider_keys.reset", organization_id)
    key = await store.get_provider_key(tx, organization_id, id, lock=True)
    known = await health_store.find_health(tx, [key.id])
    await health_store.remove_health(tx, key.id)
    if key.status != HEALTHY:
        await store.change_provider_key(tx, organization_id, key.id, status=HEALTHY)
    before = {"status": key.status, "health": [f"{row.model or 'all models'}: {row.state}" for row in known]}
    healthy = replace(key, status=HEALTHY)
    await _tell(tx, by, "provider_keys.reset", healthy, at, before=before, after={"status": HEALTHY, "health": []})
    return healthy


async def remove(
    tx: Transaction, by: Actor, organization_id: str, id: str, at: int, *, force: bool = False
) -> ProviderKey:
    """Forget a key and its sealed credential; events keep its name.

    Refuses with `in_use`, unless forced, when an endpoint or alias names it, or is served by no other key.
    """
    by.require("provider_keys.delete", organization_id)
    key = await store.get_provider_key(tx, organization_id, id, lock=True)
    leaning = await key_uses.find_leaning(tx, by, key)
    if leaning and not force:
        message = f"{leaning.says} by the provider key {key.name!r}. Lead them elsewhere first, or delete it by force."
        raise Refusal("in_use", message, **leaning.details)
    await health_store.remove_health(tx, key.id)
    await quota_store.remove_quotas(tx, key.id)
    await remove_budget(tx, SCOPE, key.id)
    await store.remove_provider_key(tx, organization_id, key.id)
    forced = {"forced": leaning.count} if leaning else {}
    await _tell(tx, by, "provider_keys.delete", key, at, before=_facts(key) | forced)
    return key


# ---- the credential ---------------------------------------------------------------------------------------------


async def open_for_test(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    *,
    seal: Seal,
) -> tuple[ProviderKey, Secret]:
    """A stored key and its credential, for `test`."""
    by.require("provider_keys.test", organization_id)
    key = await store.get_provider_key(tx, organization_id, id)
    return key, await open_secret(tx, seal, key)


async def open_secret(tx: Transaction, seal: Seal, key: ProviderKey) -> Secret:
    """The credential itself; raises Undecryptable when it does not open in its place."""
    return await seal.open(tx, _place(key), key.sealed)


async def find_twin(
    tx: Transaction, by: Actor, organization_id: str, provider_id: str, secret: Secret, *, seal: Seal
) -> ProviderKey | None:
    """The organization's key for that provider with the very same secret, for who is about to add it once more."""
    by.require("provider_keys.add", organization_id)
    for key in await store.list_provider_keys(tx, organization_id):
        if key.provider == provider_id and await _is_same(tx, seal, key, secret):
            return key
    return None


async def _is_same(tx: Transaction, seal: Seal, key: ProviderKey, secret: Secret) -> bool:
    try:
        return await open_secret(tx, seal, key) == secret
    except Undecryptable:
        return False


def _place(key: ProviderKey) -> Place:
    return Place(key.organization_id, "provider_keys", key.id, "sealed", key.sealed_version, key.origin)


async def _sealed(tx: Transaction, seal: Seal, key: ProviderKey, secret: Secret, at: int) -> ProviderKey:
    placed = replace(key, sealed_version=await seal.newest_version(tx, key.organization_id, at))
    return replace(placed, sealed=await seal.seal(tx, _place(placed), secret))


# ---- telling ----------------------------------------------------------------------------------------------------


def _facts(key: ProviderKey) -> dict[str, object]:
    known = {one.name: getattr(key, one.name) for one in fields(key) if one.name not in _NEVER_TOLD}
    return known | {"budget": budget_facts(key.budget)}


async def _tell(
    tx: Transaction,
    by: Actor,
    deed: str,
    key: ProviderKey,
    at: int,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    await audit.write(
        tx,
        by,
        deed,
        "provider_key",
        key.id,
        key.name,
        organization_id=key.organization_id,
        before=before,
        after=after,
        at=at,
    )
    await changes.append(tx, "provider_key", key.organization_id, key.id, at)
