"""How endpoints and aliases alike are made, changed, forgotten and told of; whether somebody may is asked before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import audit
from ostiary.providers.catalog import Catalog
from ostiary.vault import endpoint_store as store
from ostiary.vault.endpoint_fields import USUAL_RETRIES, checked, require_distinct
from ostiary.vault.endpoint_store import EVERYBODY, Endpoint, EndpointTarget, KeyName, Strategy, User, UserFilter

_MOST: Final = 500
"""Of one organization: every gateway has them all in memory."""
_MOST_SAID: Final = 5
_FACTS: Final = ("name", "strategy", "retries", "timeout_ms")


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """What is wished for. A target's `provider_key_id` may be a name here; it is an id in what is made."""

    name: str
    targets: Sequence[EndpointTarget]
    strategy: Strategy = "first"
    retries: int = USUAL_RETRIES
    timeout_ms: int | None = None


async def add(
    tx: Transaction, by: Actor, organization_id: str, wish: NewEndpoint, *, catalog: Catalog, at: int
) -> Endpoint:
    """Check it and keep it."""
    if await store.count_endpoints(tx, organization_id) >= _MOST:
        raise Refusal("conflict", f"There are {_MOST} {nouns_of(organization_id)} already, which is the most.")
    wished = {name: getattr(wish, name) for name in NewEndpoint.__slots__}
    values = checked(wished, catalog, is_alias=organization_id == EVERYBODY)
    values["targets"] = await _with_keys(tx, by, organization_id, values["targets"])
    one = Endpoint(id=new_id("endp", at), organization_id=organization_id, **values, created_at=at, updated_at=at)
    await store.add_endpoint(tx, one)
    await _tell(tx, by, "create", one, at, after=facts(one))
    return one


async def change(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    edit: Mapping[str, object],
    *,
    catalog: Catalog,
    at: int,
    force: bool,
) -> Endpoint:
    """Write what is named and differs. Another name is refused while agent keys name the old one, unless forced."""
    one = await store.get_endpoint(tx, organization_id, id, lock=True)
    values = checked(edit, catalog, is_alias=one.is_alias)
    if "targets" in values:
        values["targets"] = await _with_keys(tx, by, organization_id, values["targets"])
    edited = replace(one, **values)
    if edited == one:
        return one
    if edited.name != one.name and not force:
        await _require_unnamed(tx, by, one)
    return await rewrite(tx, by, one, replace(edited, updated_at=at), at)


async def rewrite(tx: Transaction, by: Actor, one: Endpoint, edited: Endpoint, at: int) -> Endpoint:
    """Put one in the place of what it was, and say what has become different."""
    columns = (*_FACTS, "targets", "created_at", "updated_at")
    values = {name: getattr(edited, name) for name in columns if getattr(edited, name) != getattr(one, name)}
    await store.change_endpoint(tx, one.organization_id, one.id, **values)
    before, after = facts(one), facts(edited)
    changed = [name for name in after if before[name] != after[name]]
    await _tell(
        tx,
        by,
        "edit",
        edited,
        at,
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed},
    )
    return edited


async def remove(tx: Transaction, by: Actor, organization_id: str, id: str, at: int, *, force: bool) -> Endpoint:
    """Forget one. Refuses with `in_use` while agent keys name it in their allowed models, unless forced."""
    one = await store.get_endpoint(tx, organization_id, id, lock=True)
    if not force:
        await _require_unnamed(tx, by, one)
    await store.remove_endpoint(tx, organization_id, one.id)
    await _tell(tx, by, "delete", one, at, before=facts(one))
    return one


async def list_users(tx: Transaction, by: Actor, one: Endpoint, since_at: int | None) -> list[User] | None:
    """The agent keys that use it, as far as this actor may see agent keys; None when they may see none."""
    reach = by.grants.get("agent_keys.show")
    if reach is None:
        return None
    wanted = UserFilter(since_at, by.organization_id, by.id if reach == "own" else None)
    return await store.list_users(tx, one, wanted)


def facts(one: Endpoint) -> dict[str, object]:
    """What the audit log says of one."""
    targets = [
        {
            "provider": target.provider,
            "model": target.model,
            "provider_key_id": target.provider_key_id,
            "weight": target.weight,
            "is_fallback": target.is_fallback,
        }
        for target in one.targets
    ]
    return {**{name: getattr(one, name) for name in _FACTS}, "targets": targets}


def noun_of(organization_id: str) -> str:
    """What one of them is called."""
    return "alias" if organization_id == EVERYBODY else "endpoint"


def nouns_of(organization_id: str) -> str:
    """What several are called, and what their deeds begin with."""
    return "aliases" if organization_id == EVERYBODY else "endpoints"


# ---- the provider keys that targets name ------------------------------------------------------------------------


async def _with_keys(
    tx: Transaction, by: Actor, organization_id: str, targets: Sequence[EndpointTarget]
) -> tuple[EndpointTarget, ...]:
    """The same, with the id of each key in the place of its id or name."""
    found = []
    for number, one in enumerate(targets):
        if one.provider_key_id is not None:
            key = await _key(tx, by, organization_id, f"targets.{number}.provider_key_id", one)
            found.append(replace(one, provider_key_id=key.id))
        else:
            found.append(one)
    require_distinct(found)
    return tuple(found)


async def _key(tx: Transaction, by: Actor, organization_id: str, place: str, one: EndpointTarget) -> KeyName:
    """The key that is meant. A key of the pool that is somebody else's goes by its id: only the operator sees names."""
    sought = one.provider_key_id or ""
    known = await store.list_keys_called(tx, organization_id, sought)
    exact = [key for key in known if key.id == sought.strip()] or [
        key for key in known if key.organization_id == organization_id
    ]
    fitting = exact or (known if by.organization_id is None else [])
    if not fitting:
        whose = "in the pool" if organization_id == EVERYBODY else "that this organization may use"
        raise _wrong(
            place, f"There is no provider key {sought!r} {whose}. Name one of {one.provider}, or none for any."
        )
    if len(fitting) > 1:
        ids = ", ".join(key.id for key in fitting[:_MOST_SAID])
        raise _wrong(place, f"Several keys of the pool are called {sought!r}. Give an id: {ids}.")
    if fitting[0].provider != one.provider:
        raise _wrong(place, f"The provider key {sought!r} is for {fitting[0].provider}, not for {one.provider}.")
    return fitting[0]


# ---- guarding, telling ------------------------------------------------------------------------------------------


async def _require_unnamed(tx: Transaction, by: Actor, one: Endpoint) -> None:
    naming = await store.list_users(tx, one, UserFilter())
    if not naming:
        return
    reach = by.grants.get("agent_keys.show")
    seen = [user for user in naming if reach == "all" or (reach == "own" and user.owner_id == by.id)]
    names = ", ".join(user.name for user in seen[:_MOST_SAID]) + (" …" if len(seen) > _MOST_SAID else "")
    count = f"{len(naming)} agent key{'' if len(naming) == 1 else 's'}"
    raise Refusal(
        "in_use",
        f"{count} may use the {noun_of(one.organization_id)} {one.name!r} by its name{f': {names}' if names else ''}. "
        "Take it out of their allowed models first, or use force.",
        dependents=[
            {"kind": "agent_key", "id": user.agent_key_id, "name": user.name, "organization_id": user.organization_id}
            for user in seen
        ],
    )


def _wrong(param: str, message: str) -> Refusal:
    return Refusal("invalid_field", message, param=param)


async def _tell(
    tx: Transaction,
    by: Actor,
    verb: str,
    one: Endpoint,
    at: int,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    home = None if one.is_alias else one.organization_id
    deed = f"{nouns_of(one.organization_id)}.{verb}"
    await audit.write(
        tx,
        by,
        deed,
        noun_of(one.organization_id),
        one.id,
        one.name,
        organization_id=home,
        before=before,
        after=after,
        at=at,
    )
    await changes.append(tx, "endpoint", home, one.id, at)
