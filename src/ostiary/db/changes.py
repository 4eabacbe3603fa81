"""The change feed: a deed appends in its own transaction, every running gateway hears of it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, insert, select, text

from ostiary.db import schema
from ostiary.db.database import Transaction

_FEED_LOCK = 0x0571A57
"""PostgreSQL hands out sequence numbers before it commits; one lock keeps them in the order of the commits."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is no longer as a gateway knows it."""

    seq: int
    noun: str
    organization_id: str | None
    id: str


async def take_turn(tx: Transaction) -> None:
    """Keep every other deed waiting until this transaction ends; on SQLite it is the only one that writes anyway."""
    if tx.dialect.name == "postgresql":
        await tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _FEED_LOCK})


async def append(tx: Transaction, noun: str, organization_id: str | None, id: str, at: int) -> None:
    """Say that `noun` `id` has changed; heard when, and only if, this transaction commits."""
    await take_turn(tx)
    await tx.execute(insert(schema.changes).values(at=at, noun=noun, organization_id=organization_id, id=id))


async def latest(tx: Transaction) -> int:
    """The number of the newest change, 0 when there is none. Read it before what it stands for."""
    newest: int = (await tx.execute(select(func.coalesce(func.max(schema.changes.c.seq), 0)))).scalar_one()
    return newest


async def list_after(tx: Transaction, seq: int, limit: int = 1_000) -> list[Change]:
    """The changes behind `seq`, oldest first."""
    c = schema.changes.c
    rows = await tx.execute(
        select(c.seq, c.noun, c.organization_id, c.id).where(c.seq > seq).order_by(c.seq).limit(limit)
    )
    return [Change(*row) for row in rows]
