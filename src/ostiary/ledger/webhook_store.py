"""Webhooks in SQL: where an organization wants to be told, and of what."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import IntegrityError

from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.names import sought_name

ALL: Final = "all"
"""In the place of kinds: every kind, also those that are yet to come."""
_TEST: Final = "test"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A URL that is posted to, without its secret: `sealed` opens only in the place this row is."""

    id: str
    organization_id: str
    name: str
    url: str = field(repr=False)
    origin: str
    kinds: frozenset[str]
    sealed: str = field(repr=False)
    sealed_version: int
    is_active: bool
    created_at: int
    updated_at: int

    def wants(self, kind: str) -> bool:
        """Whether it is to be told of this kind."""
        return self.is_active and (kind == _TEST or not self.kinds.isdisjoint({ALL, kind}))


async def list_listeners(tx: Transaction, organization_id: str, kind: str) -> list[str]:
    """The ids of webhooks that are to be told of this kind."""
    return [webhook.id for webhook in await list_webhooks(tx, organization_id) if webhook.wants(kind)]


async def list_webhooks(tx: Transaction, organization_id: str) -> list[Webhook]:
    """The organization's, oldest first."""
    w = schema.webhooks.c
    query = select(schema.webhooks).where(w.organization_id == organization_id).order_by(w.created_at, w.id)
    return [_record(row) for row in (await tx.execute(query)).mappings()]


async def count_webhooks(tx: Transaction, organization_id: str) -> int:
    """How many an organization has; whoever else wants to know before they make one waits for this transaction."""
    o = schema.organizations.c
    await tx.execute(select(o.id).where(o.id == organization_id).with_for_update())
    query = select(func.count()).where(schema.webhooks.c.organization_id == organization_id)
    return int((await tx.execute(query)).scalar_one())


async def get_webhook(tx: Transaction, organization_id: str, id_or_name: str, *, lock: bool = False) -> Webhook:
    """One of the organization's, by id or by name, or a refusal; `lock` keeps others from changing it meanwhile."""
    sought = sought_name(id_or_name)
    w = schema.webhooks.c
    query = select(schema.webhooks).where(w.organization_id == organization_id, or_(w.id == sought, w.name == sought))
    query = query.order_by(w.id != sought).limit(1)
    row = (await tx.execute(query.with_for_update() if lock else query)).mappings().first() if sought else None
    if row is None:
        raise Refusal("not_found", "There is no such webhook. 'ostiary webhooks list' shows all.")
    return _record(row)


async def find_webhook_by_id(tx: Transaction, id: str) -> Webhook | None:
    """Anybody's, for who delivers to it."""
    row = (await tx.execute(select(schema.webhooks).where(schema.webhooks.c.id == id))).mappings().first()
    return _record(row) if row else None


async def add_webhook(tx: Transaction, webhook: Webhook) -> None:
    """Keep a new one; refuses with `conflict` when its name is taken."""
    try:
        await tx.execute(insert(schema.webhooks).values(**_columns(webhook)))
    except IntegrityError:
        raise _taken(webhook.name) from None


async def change_webhook(tx: Transaction, webhook: Webhook) -> None:
    """Write all of its fields; refuses with `conflict` when the new name is taken."""
    w = schema.webhooks.c
    this = (w.organization_id == webhook.organization_id, w.id == webhook.id)
    try:
        await tx.execute(update(schema.webhooks).where(*this).values(**_columns(webhook)))
    except IntegrityError:
        raise _taken(webhook.name) from None


async def remove_webhook(tx: Transaction, organization_id: str, id: str) -> None:
    """Forget one and its sealed secret."""
    w = schema.webhooks.c
    await tx.execute(delete(schema.webhooks).where(w.organization_id == organization_id, w.id == id))


def _record(row: RowMapping) -> Webhook:
    return Webhook(**{**row, "kinds": frozenset(row["kinds"])})


def _columns(webhook: Webhook) -> dict[str, Any]:
    values = {one.name: getattr(webhook, one.name) for one in fields(webhook)}
    return values | {"kinds": sorted(webhook.kinds)}


def _taken(name: str) -> Refusal:
    return Refusal("conflict", f"There is a webhook named {name!r} already.", param="name")
