"""Endpoints and aliases in SQL: named routes with their targets, who uses them, and what leans on a provider key."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Select, Text, and_, cast, delete, exists, func, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from ostiary.db import schema
from ostiary.db.bulk import Insert
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.names import sought_name
from ostiary.vault.store import ProviderKey

Strategy = Literal["first", "split"]

EVERYBODY: Final = ""
"""The organization of an alias."""


@dataclass(frozen=True, slots=True)
class EndpointTarget:
    """Where an endpoint leads. Without a provider key it is any of the provider's that the caller may use."""

    provider: str
    model: str
    provider_key_id: str | None = None
    weight: int = 1
    is_fallback: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A named route; an alias when it belongs to nobody, which is everybody. Its targets are in order.

    `retries` are further attempts; `timeout_ms` is for each attempt, None: as the gateway is set.
    """

    id: str
    organization_id: str
    name: str
    strategy: Strategy
    retries: int
    timeout_ms: int | None
    targets: tuple[EndpointTarget, ...]
    created_at: int
    updated_at: int

    @property
    def is_alias(self) -> bool:
        """Whether the operator made it for everybody."""
        return self.organization_id == EVERYBODY


@dataclass(frozen=True, slots=True)
class Dependent:
    """An endpoint or alias that a provider key serves: `named` in a target, or as `any` of its provider."""

    kind: Literal["endpoint", "alias"]
    id: str
    name: str
    organization_id: str
    how: Literal["named", "any"]


@dataclass(frozen=True, slots=True)
class User:
    """An agent key that has called an endpoint lately, names it in its allowed models, or both."""

    agent_key_id: str
    name: str
    organization_id: str
    owner_id: str | None
    last_used_at: int | None
    is_named: bool


# ---- endpoints --------------------------------------------------------------------------------------------------


async def list_all_endpoints(tx: Transaction) -> list[Endpoint]:
    """Everybody's, and the aliases, oldest first and by name, for a gateway that starts."""
    return await _read(tx)


async def list_endpoints(tx: Transaction, organization_id: str) -> list[Endpoint]:
    """The organization's, oldest first and by name; the aliases for `EVERYBODY`."""
    return await _read(tx, schema.endpoints.c.organization_id == organization_id)


async def find_endpoint_by_id(tx: Transaction, id: str) -> Endpoint | None:
    """Anybody's, for a gateway that heard of a change."""
    return next(iter(await _read(tx, schema.endpoints.c.id == id)), None)


async def find_endpoint(
    tx: Transaction, organization_id: str, id_or_name: str, *, lock: bool = False
) -> Endpoint | None:
    """One of the organization's, by id or by name; `lock` keeps others from changing it meanwhile."""
    sought = sought_name(id_or_name)
    if sought is None:
        return None
    e = schema.endpoints.c
    query = select(e.id).where(e.organization_id == organization_id, or_(e.id == sought, e.name == sought))
    query = query.order_by(e.id != sought).limit(1)
    id = (await tx.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    return None if id is None else await find_endpoint_by_id(tx, id)


async def get_endpoint(tx: Transaction, organization_id: str, id_or_name: str, *, lock: bool = False) -> Endpoint:
    """As `find_endpoint`; refuses with `not_found`."""
    found = await find_endpoint(tx, organization_id, id_or_name, lock=lock)
    if found is None:
        noun, nouns = ("alias", "aliases") if organization_id == EVERYBODY else ("endpoint", "endpoints")
        raise Refusal("not_found", f"There is no such {noun}. 'ostiary {nouns} list' shows all.")
    return found


async def lock_endpoints(tx: Transaction, organization_id: str) -> None:
    """Keep others from changing any of the organization's; in one order for all who do."""
    e = schema.endpoints.c
    await tx.execute(select(e.id).where(e.organization_id == organization_id).order_by(e.id).with_for_update())


async def count_endpoints(tx: Transaction, organization_id: str) -> int:
    """How many the organization has; whoever else wants to know before they make one waits for this transaction.

    Aliases belong to no organization: the operator makes them alone.
    """
    o = schema.organizations.c
    await tx.execute(select(o.id).where(o.id == organization_id).with_for_update())
    counted = select(func.count()).where(schema.endpoints.c.organization_id == organization_id)
    return int((await tx.execute(counted)).scalar_one())


async def add_endpoint(tx: Transaction, one: Endpoint) -> None:
    """Keep a new one with its targets; refuses with `conflict` when its name is taken."""
    row = {column.name: getattr(one, column.name) for column in schema.endpoints.columns}
    try:
        await tx.execute(insert(schema.endpoints).values(**row))
    except IntegrityError:
        raise _taken(one.organization_id, one.name) from None
    await _add_targets(tx, one.id, one.targets)


async def change_endpoint(
    tx: Transaction,
    organization_id: str,
    id: str,
    *,
    targets: Collection[EndpointTarget] | None = None,
    **values: object,
) -> None:
    """Write the given columns, and other targets in the place of all when they are given; refuses a taken name."""
    e, t = schema.endpoints.c, schema.endpoint_targets.c
    this = (e.organization_id == organization_id, e.id == id)
    try:
        if values:
            await tx.execute(update(schema.endpoints).where(*this).values(**values))
    except IntegrityError:
        raise _taken(organization_id, str(values.get("name"))) from None
    if targets is not None:
        await tx.execute(delete(schema.endpoint_targets).where(t.endpoint_id == id))
        await _add_targets(tx, id, targets)


async def remove_endpoint(tx: Transaction, organization_id: str, id: str) -> None:
    """Forget one with its targets, and who used it."""
    e = schema.endpoints.c
    gone = await tx.execute(delete(schema.endpoints).where(e.organization_id == organization_id, e.id == id))
    if gone.rowcount:
        await tx.execute(delete(schema.endpoint_targets).where(schema.endpoint_targets.c.endpoint_id == id))
        await tx.execute(delete(schema.endpoint_uses).where(schema.endpoint_uses.c.endpoint_id == id))


async def _read(tx: Transaction, *which: ColumnElement[bool]) -> list[Endpoint]:
    e, t = schema.endpoints.c, schema.endpoint_targets.c
    rows = (await tx.execute(select(schema.endpoints).where(*which).order_by(e.created_at, e.name, e.id))).all()
    leads: dict[str, list[EndpointTarget]] = {row.id: [] for row in rows}
    wanted = select(e.id).where(*which)
    query = select(schema.endpoint_targets).where(t.endpoint_id.in_(wanted)).order_by(t.endpoint_id, t.position)
    for row in await tx.execute(query):
        # One that was made between the two statements has no endpoint here yet: its change will be heard of.
        leads.setdefault(row.endpoint_id, []).append(_target(row))
    return [Endpoint(**row._asdict(), targets=tuple(leads[row.id])) for row in rows]


def _target(row: Any) -> EndpointTarget:  # noqa: ANN401 - a row of endpoint_targets
    return EndpointTarget(row.provider, row.model, row.provider_key_id, row.weight, row.is_fallback)


async def _add_targets(tx: Transaction, id: str, targets: Iterable[EndpointTarget]) -> None:
    rows = [
        {
            "endpoint_id": id,
            "position": position,
            "provider": one.provider,
            "model": one.model,
            "provider_key_id": one.provider_key_id,
            "weight": one.weight,
            "is_fallback": one.is_fallback,
        }
        for position, one in enumerate(targets)
    ]
    if rows:
        await tx.execute(insert(schema.endpoint_targets), rows)


def _taken(organization_id: str, name: str) -> Refusal:
    noun = "alias" if organization_id == EVERYBODY else "endpoint"
    return Refusal("conflict", f"There is an {noun} named {name!r} already.", param="name")


# ---- who uses them ----------------------------------------------------------------------------------------------

_NEVER: Final = 1 << 62
"""No time is so late."""
_USES: Final = Insert(
    "endpoint_uses",
    ("endpoint_id", "organization_id", "agent_key_id", "last_used_at"),
    "ON CONFLICT (endpoint_id, agent_key_id) DO UPDATE SET last_used_at = excluded.last_used_at"
    " WHERE endpoint_uses.last_used_at < excluded.last_used_at",
)


async def mark_endpoints_used(tx: Transaction, uses: Mapping[tuple[str, str, str], int]) -> None:
    """When each (endpoint, organization, agent key) last was; never earlier than what another gateway has written."""
    e = schema.endpoints.c
    ids = {endpoint_id for endpoint_id, _, _ in uses}
    there = set((await tx.execute(select(e.id).where(e.id.in_(ids)))).scalars())
    # One order for all, so that two gateways never wait for each other.
    await _USES.run(tx, [(*use, at) for use, at in sorted(uses.items()) if use[0] in there])


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which users are asked for. `since_at` None: only those that name it, not who has called it.

    An alias is used by every organization's keys: `organization_id` is the one that is asked about, None all.
    """

    since_at: int | None = None
    organization_id: str | None = None
    owner_id: str | None = None
    limit: int = 200


async def list_users(tx: Transaction, one: Endpoint, wanted: UserFilter) -> list[User]:
    """Agent keys that have called it since then, or that name it in their allowed models, by name."""
    k, u = schema.agent_keys.c, schema.endpoint_uses.c
    home = wanted.organization_id if one.is_alias else one.organization_id
    since = _NEVER if wanted.since_at is None else wanted.since_at
    used = and_(u.agent_key_id == k.id, u.endpoint_id == one.id, u.last_used_at >= since)
    query = (
        select(k.id, k.name, k.organization_id, k.owner_id, k.models_mode, k.models, u.last_used_at)
        .select_from(schema.agent_keys.outerjoin(schema.endpoint_uses, used))
        .where(or_(u.agent_key_id.is_not(None), _may_name(one.name)))
        .order_by(k.name, k.id)
        .limit(wanted.limit)
    )
    if home is not None:
        query = query.where(k.organization_id == home)
    if wanted.owner_id is not None:
        query = query.where(k.owner_id == wanted.owner_id)
    found = [
        User(row.id, row.name, row.organization_id, row.owner_id, row.last_used_at, _names(row, one.name))
        for row in await tx.execute(query)
    ]
    return [user for user in found if user.is_named or user.last_used_at is not None]


def _may_name(name: str) -> ColumnElement[bool]:
    """Whether a key's allowed models hold this name, as far as the text of the list can tell."""
    k = schema.agent_keys.c
    return and_(k.models_mode == "only", cast(k.models, Text).contains(json.dumps(name), autoescape=True))


def _names(row: Any, name: str) -> bool:  # noqa: ANN401 - a row with the allowed models of a key
    return row.models_mode == "only" and name in row.models


# ---- provider keys that targets name -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyName:
    """What of a provider key matters to who names it in a target."""

    id: str
    organization_id: str
    name: str
    provider: str
    shared: bool

    def may_serve(self, organization_id: str) -> bool:
        """Whether targets of that organization may name it; those of an alias only what is in the pool."""
        return self.shared or self.organization_id == organization_id


async def list_keys_called(tx: Transaction, organization_id: str, id_or_name: str) -> list[KeyName]:
    """Keys of that id or name which the organization may use, its own first."""
    sought = sought_name(id_or_name)
    p = schema.provider_keys.c
    is_meant = and_(or_(p.id == sought, p.name == sought), or_(p.organization_id == organization_id, p.shared))
    query = _key_names().where(is_meant)
    rows = await tx.execute(query.order_by(p.organization_id != organization_id, p.id != sought, p.id))
    return [KeyName(*row) for row in rows]


async def list_key_names(tx: Transaction, ids: Collection[str]) -> list[KeyName]:
    """Those of these keys that there are."""
    return [KeyName(*row) for row in await tx.execute(_key_names().where(schema.provider_keys.c.id.in_(ids)))]


async def list_keyed_providers(tx: Transaction, organization_id: str) -> set[str]:
    """The providers of which the organization may use a key; for `EVERYBODY` those that all may use."""
    p = schema.provider_keys.c
    is_theirs = or_(p.organization_id == organization_id, p.shared)
    if organization_id == EVERYBODY and await is_alone(tx):
        is_theirs = true()
    return set((await tx.execute(select(p.provider).where(is_theirs).distinct())).scalars())


async def is_alone(tx: Transaction) -> bool:
    """Whether there is one organization only: then its keys are everybody's, shared or not."""
    count: int = (await tx.execute(select(func.count()).select_from(schema.organizations))).scalar_one()
    return count == 1


def _key_names() -> Select[Any]:
    p = schema.provider_keys.c
    return select(p.id, p.organization_id, p.name, p.provider, p.shared)


# ---- what leans on a provider key -------------------------------------------------------------------------------


async def list_dependents(tx: Transaction, key: ProviderKey) -> list[Dependent]:
    """Endpoints and aliases that this key serves, the organization's own first, each once.

    Those of other organizations are among them when it is shared, or was and is named there still: they are for the
    operator to see, and for whoever shares the key to count.
    """
    e, t = schema.endpoints.c, schema.endpoint_targets.c
    of_this = t.endpoint_id == e.id
    is_named = exists().where(of_this, t.provider_key_id == key.id)
    is_any = exists().where(of_this, t.provider == key.provider, t.provider_key_id.is_(None))
    reached = is_any if key.shared else and_(is_any, e.organization_id.in_((key.organization_id, EVERYBODY)))
    query = select(e.id, e.name, e.organization_id, is_named.label("is_named")).where(or_(is_named, reached))
    rows = await tx.execute(query.order_by(e.organization_id != key.organization_id, e.organization_id, e.name))
    return [
        Dependent(
            "alias" if row.organization_id == EVERYBODY else "endpoint",
            row.id,
            row.name,
            row.organization_id,
            "named" if row.is_named else "any",
        )
        for row in rows
    ]
