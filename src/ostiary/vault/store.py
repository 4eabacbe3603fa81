"""The vault in SQL: proofs of the master key, wrapped data keys, and provider keys with their sealed credentials."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, Select, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ostiary.db import schema
from ostiary.db.database import Transaction, insert_new
from ostiary.errors import Refusal
from ostiary.names import sought_name

# ---- the instance and its data keys -----------------------------------------------------------------------------


async def is_unsealed(tx: Transaction, proofs: Collection[str]) -> bool:
    """Whether nothing here has ever been sealed, so that any master key may become this database's."""
    traces = (
        select(schema.instance).where(schema.instance.c.name.in_(proofs)),
        select(schema.data_keys),
        select(schema.provider_keys),
    )
    return not (await tx.execute(select(or_(*(exists(trace) for trace in traces))))).scalar_one()


async def find_instance(tx: Transaction, name: str) -> str | None:
    """One of the instance's own sealed values."""
    i = schema.instance.c
    return (await tx.execute(select(i.value).where(i.name == name))).scalar_one_or_none()


async def add_instance(tx: Transaction, name: str, value: str) -> None:
    """Keep a value of the instance, unless another process was first."""
    await tx.execute(insert_new(tx, schema.instance, {"name": name, "value": value}))


async def find_data_key(tx: Transaction, organization_id: str, version: int) -> str | None:
    """A wrapped data key."""
    d = schema.data_keys.c
    found = await tx.execute(select(d.wrapped).where(d.organization_id == organization_id, d.version == version))
    return found.scalar_one_or_none()


async def find_newest_version(tx: Transaction, organization_id: str) -> int | None:
    """The version of the data key that seals now, None before the first."""
    d = schema.data_keys.c
    newest: int | None = (
        await tx.execute(select(func.max(d.version)).where(d.organization_id == organization_id))
    ).scalar_one()
    return newest


async def add_data_key(tx: Transaction, organization_id: str, version: int, wrapped: str, at: int) -> None:
    """Keep a data key, unless another process was first: then its key is the one to be read and used."""
    row = {"organization_id": organization_id, "version": version, "wrapped": wrapped, "created_at": at}
    await tx.execute(insert_new(tx, schema.data_keys, row))


# ---- provider keys ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A credential that goes out, without its secret: `sealed` opens only in the place this row is."""

    id: str
    organization_id: str
    name: str
    provider: str
    base_url: str
    origin: str
    fields: Mapping[str, str]
    sealed: str = field(repr=False)
    sealed_version: int
    preview: str
    shared: bool
    status: str
    created_at: int
    updated_at: int
    last_used_at: int | None


def _record(row: Row[Any]) -> ProviderKey:
    return ProviderKey(**row._asdict())


def _within(organization_id: str) -> Select[Any]:
    return select(schema.provider_keys).where(schema.provider_keys.c.organization_id == organization_id)


async def find_provider_key(
    tx: Transaction, organization_id: str, id_or_name: str, *, lock: bool = False
) -> ProviderKey | None:
    """One of the organization's, by id or by name; `lock` keeps others from changing it meanwhile."""
    sought = sought_name(id_or_name)
    if sought is None:
        return None
    p = schema.provider_keys.c
    query = _within(organization_id).where(or_(p.id == sought, p.name == sought)).order_by(p.id != sought).limit(1)
    row = (await tx.execute(query.with_for_update() if lock else query)).first()
    return _record(row) if row else None


async def get_provider_key(
    tx: Transaction, organization_id: str, id_or_name: str, *, lock: bool = False
) -> ProviderKey:
    """As `find_provider_key`; refuses with `not_found`."""
    key = await find_provider_key(tx, organization_id, id_or_name, lock=lock)
    if key is None:
        raise Refusal("not_found", "There is no such provider key. 'ostiary vault list' shows all.")
    return key


async def find_provider_key_by_id(tx: Transaction, id: str) -> ProviderKey | None:
    """Anybody's, for a gateway that heard of a change."""
    row = (await tx.execute(select(schema.provider_keys).where(schema.provider_keys.c.id == id))).first()
    return _record(row) if row else None


async def list_provider_keys(tx: Transaction, organization_id: str) -> list[ProviderKey]:
    """The organization's, oldest first."""
    p = schema.provider_keys.c
    rows = await tx.execute(_within(organization_id).order_by(p.created_at, p.id))
    return [_record(row) for row in rows]


async def list_all_provider_keys(tx: Transaction) -> list[ProviderKey]:
    """Everybody's, oldest first, for a gateway that starts."""
    p = schema.provider_keys.c
    return [_record(row) for row in await tx.execute(select(schema.provider_keys).order_by(p.created_at, p.id))]


async def add_provider_key(tx: Transaction, key: ProviderKey) -> None:
    """Keep a new key; refuses with `conflict` when its name is taken."""
    row = {column.name: getattr(key, column.name) for column in schema.provider_keys.columns}
    try:
        await tx.execute(insert(schema.provider_keys).values(**row))
    except IntegrityError:
        raise _taken(key.name) from None


async def change_provider_key(tx: Transaction, organization_id: str, id: str, **values: object) -> None:
    """Write the given columns; refuses with `conflict` when the new name is taken."""
    p = schema.provider_keys.c
    this = (p.organization_id == organization_id, p.id == id)
    try:
        await tx.execute(update(schema.provider_keys).where(*this).values(**values))
    except IntegrityError:
        raise _taken(str(values.get("name"))) from None


async def mark_provider_keys_used(tx: Transaction, used_at: Mapping[str, int]) -> None:
    """When each was last used; never earlier than what another gateway has written."""
    k = schema.provider_keys.c
    for id, at in sorted(used_at.items()):  # one order for all, so that two gateways never wait for each other
        is_news = or_(k.last_used_at.is_(None), k.last_used_at < at)
        await tx.execute(update(schema.provider_keys).where(k.id == id, is_news).values(last_used_at=at))


async def remove_provider_key(tx: Transaction, organization_id: str, id: str) -> None:
    """Forget a key and its sealed credential."""
    p = schema.provider_keys.c
    await tx.execute(delete(schema.provider_keys).where(p.organization_id == organization_id, p.id == id))


def _taken(name: str) -> Refusal:
    return Refusal("conflict", f"There is a provider key named {name!r} already.", param="name")
