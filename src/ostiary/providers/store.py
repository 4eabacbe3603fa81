"""The SQL of prices that the operator has set."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.providers.prices import Override


async def list_overrides(tx: Transaction) -> list[Override]:
    """Every override, by provider and model."""
    c = schema.price_overrides.c
    rows = await tx.execute(select(c.provider, c.model, c.rates, c.version).order_by(c.provider, c.model))
    return [Override(row.provider, row.model, dict(row.rates), row.version) for row in rows]


async def find_override(tx: Transaction, provider: str, model: str) -> Override | None:
    """The override of a model, or None."""
    c = schema.price_overrides.c
    found = await tx.execute(select(c.rates, c.version).where(c.provider == provider, c.model == model))
    row = found.one_or_none()
    return None if row is None else Override(provider, model, dict(row.rates), row.version)


async def change_override(tx: Transaction, override: Override, at: int) -> None:
    """Set the price of a model, whether or not one was set before."""
    row = {"provider": override.provider, "model": override.model}
    news = {"rates": dict(override.rates), "version": override.version, "updated_at": at}
    key, table = list(row), schema.price_overrides
    if tx.dialect.name == "postgresql":
        await tx.execute(
            postgresql.insert(table).values(**row, **news).on_conflict_do_update(index_elements=key, set_=news)
        )
    else:
        await tx.execute(
            sqlite.insert(table).values(**row, **news).on_conflict_do_update(index_elements=key, set_=news)
        )
