"""Health of provider keys in SQL: one row for each key, or model of a key, that is not well."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select

from ostiary.db import schema
from ostiary.db.database import Transaction


@dataclass(frozen=True, slots=True)
class HealthRow:
    """How a provider key is; `model` is empty where it is about the whole key. `until` None: until somebody acts."""

    provider_key_id: str
    model: str
    state: str
    failures: int
    reason: str
    since: int
    until: int | None


def _record(row: Row[Any]) -> HealthRow:
    return HealthRow(**row._asdict())


async def find_health(tx: Transaction, key_ids: Collection[str]) -> list[HealthRow]:
    """What is known against these keys, the whole key first."""
    h = schema.provider_key_health.c
    query = select(schema.provider_key_health).where(h.provider_key_id.in_(key_ids))
    return [_record(row) for row in await tx.execute(query.order_by(h.provider_key_id, h.model))]


async def list_all_health(tx: Transaction) -> list[HealthRow]:
    """Everything there is, key by key, for a gateway that starts."""
    h = schema.provider_key_health.c
    query = select(schema.provider_key_health).order_by(h.provider_key_id, h.model)
    return [_record(row) for row in await tx.execute(query)]


async def list_shut(tx: Transaction, states: Collection[str]) -> set[str]:
    """The keys that are so as a whole."""
    h = schema.provider_key_health.c
    rows = await tx.execute(select(h.provider_key_id).where(h.model == "", h.state.in_(states)))
    return set(rows.scalars())


async def lock_key(tx: Transaction, key_id: str) -> bool:
    """Let nobody edit or reset the key until this transaction ends; False when it is gone."""
    k = schema.provider_keys.c
    return (await tx.execute(select(k.id).where(k.id == key_id).with_for_update())).first() is not None


async def put_health(tx: Transaction, key_id: str, rows: Collection[HealthRow]) -> None:
    """What is known of a key from now on; nothing at all is healthy."""
    await remove_health(tx, key_id)
    if rows:
        values = [{name: getattr(row, name) for name in HealthRow.__slots__} for row in rows]
        await tx.execute(insert(schema.provider_key_health), values)


async def remove_health(tx: Transaction, key_id: str) -> None:
    """Forget everything against a key."""
    h = schema.provider_key_health.c
    await tx.execute(delete(schema.provider_key_health).where(h.provider_key_id == key_id))
