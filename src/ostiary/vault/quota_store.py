"""What providers say that keys have left, in SQL: one row for each limit of a key and a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from ostiary.db import schema
from ostiary.db.database import Transaction

LONGEST_MODEL = 200
_KEY = ("provider_key_id", "model", "what")
_NEWS = ("remaining", "most", "resets_at", "heard_at", "gateway")


@dataclass(frozen=True, slots=True)
class QuotaRow:
    """How much is left of what is limited (`requests`, `tokens-day` …), and by whom and when that was heard."""

    provider_key_id: str
    model: str
    what: str
    remaining: int
    most: int | None
    resets_at: int | None
    heard_at: int
    gateway: str


async def find_quotas(tx: Transaction, key_id: str) -> list[QuotaRow]:
    """What was heard of one key, by model."""
    q = schema.provider_key_quotas.c
    query = select(schema.provider_key_quotas).where(q.provider_key_id == key_id).order_by(q.model, q.what)
    return [QuotaRow(**row._asdict()) for row in await tx.execute(query)]


async def put_quotas(tx: Transaction, rows: Sequence[QuotaRow]) -> None:
    """What is known from now on, whoever heard it before; in one order, so that no two gateways wait in a circle."""
    if not rows:
        return
    table = schema.provider_key_quotas
    values = [asdict(row) for row in sorted(rows, key=lambda one: (one.provider_key_id, one.model, one.what))]
    if tx.dialect.name == "postgresql":
        pg = postgresql.insert(table)
        news = {name: pg.excluded[name] for name in _NEWS}
        await tx.execute(pg.on_conflict_do_update(index_elements=_KEY, set_=news), values)
    else:
        lite = sqlite.insert(table)
        news = {name: lite.excluded[name] for name in _NEWS}
        await tx.execute(lite.on_conflict_do_update(index_elements=_KEY, set_=news), values)


async def remove_quotas(tx: Transaction, key_id: str) -> None:
    """Forget what was heard of a key."""
    q = schema.provider_key_quotas.c
    await tx.execute(delete(schema.provider_key_quotas).where(q.provider_key_id == key_id))


async def remove_old_quotas(tx: Transaction, before: int) -> None:
    """Forget what was heard before some moment."""
    await tx.execute(delete(schema.provider_key_quotas).where(schema.provider_key_quotas.c.heard_at < before))
