"""Endpoints: an organization's named routes to one or more targets; created, shown, edited and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ostiary.actor import Actor
from ostiary.clock import DAY_MS
from ostiary.db.database import Transaction
from ostiary.providers.catalog import Catalog
from ostiary.vault import endpoint_changes, endpoint_fields
from ostiary.vault import endpoint_store as store
from ostiary.vault.endpoint_changes import NewEndpoint
from ostiary.vault.endpoint_store import EVERYBODY, Endpoint, EndpointTarget, User

__all__ = ["Endpoint", "EndpointTarget", "GivenKey", "NewEndpoint", "User", "View"]

RECENT_MS: Final = 30 * DAY_MS
"""For how long whoever called an endpoint counts among its users."""


@dataclass(frozen=True, slots=True)
class GivenKey:
    """A provider key that a target names. Of one that somebody else shares only the operator sees the name."""

    id: str
    name: str | None
    is_usable: bool
    """False when it was deleted since, or taken back from the pool."""


@dataclass(frozen=True, slots=True)
class View:
    """An endpoint or alias with what is around it. `users` is None for who may not see agent keys."""

    endpoint: Endpoint
    keys: tuple[GivenKey, ...]
    users: tuple[User, ...] | None


async def create(
    tx: Transaction, by: Actor, organization_id: str, wish: NewEndpoint, *, catalog: Catalog, at: int
) -> Endpoint:
    """Make an endpoint; callers reach it by its name from the next second on."""
    by.require("endpoints.create", organization_id)
    return await endpoint_changes.add(tx, by, organization_id, wish, catalog=catalog, at=at)


async def list_(tx: Transaction, by: Actor, organization_id: str) -> list[Endpoint]:
    """The organization's, oldest first."""
    by.require("endpoints.list", organization_id)
    return await store.list_endpoints(tx, organization_id)


async def show(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> View:
    """One endpoint, by id or by name, with the agent keys of the last 30 days and those that name it."""
    by.require("endpoints.show", organization_id)
    return await view(tx, by, await store.get_endpoint(tx, organization_id, id), at)


async def change(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    edit: Mapping[str, object],
    *,
    catalog: Catalog,
    at: int,
    force: bool = False,
) -> Endpoint:
    """Edit what is named: `name`, `targets` (all of them), `strategy`, `retries`, `timeout_ms`.

    Refuses with `in_use` to give another name to what agent keys name in their allowed models, unless forced.
    """
    by.require("endpoints.edit", organization_id)
    return await endpoint_changes.change(tx, by, organization_id, id, edit, catalog=catalog, at=at, force=force)


async def remove(
    tx: Transaction, by: Actor, organization_id: str, id: str, at: int, *, force: bool = False
) -> Endpoint:
    """Forget an endpoint. Refuses with `in_use` while agent keys name it in their allowed models, unless forced."""
    by.require("endpoints.delete", organization_id)
    return await endpoint_changes.remove(tx, by, organization_id, id, at, force=force)


# ---- of endpoints and aliases alike -----------------------------------------------------------------------------


async def view(tx: Transaction, by: Actor, one: Endpoint, at: int) -> View:
    """What is around one that the actor may see."""
    users = await endpoint_changes.list_users(tx, by, one, at - RECENT_MS)
    return View(one, await _keys(tx, by, one), None if users is None else tuple(users))


async def hints(tx: Transaction, one: Endpoint, catalog: Catalog) -> tuple[str, ...]:
    """What whoever made or edited one should know, in words: it works, but may not be what they mean."""
    aliases = {alias.name for alias in await store.list_endpoints(tx, EVERYBODY)}
    keyed = await store.list_keyed_providers(tx, one.organization_id)
    return endpoint_fields.hints(one, catalog, aliases, keyed)


async def _keys(tx: Transaction, by: Actor, one: Endpoint) -> tuple[GivenKey, ...]:
    ids = dict.fromkeys(target.provider_key_id for target in one.targets if target.provider_key_id is not None)
    known = {key.id: key for key in await store.list_key_names(tx, ids)}
    found = []
    for id in ids:
        key = known.get(id)
        is_usable = key is not None and key.may_serve(one.organization_id)
        is_seen = key is not None and is_usable and by.organization_id in (None, key.organization_id)
        found.append(GivenKey(id, key.name if key and is_seen else None, is_usable))
    return tuple(found)
