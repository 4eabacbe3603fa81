"""What an operator looks at, in SQL: gateways with what they lease, jobs, and what could not be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Select, Text, and_, cast, func, or_, select, update

from ostiary.db import schema
from ostiary.db.database import Transaction


class OwnerRow(NamedTuple):
    """One start of a gateway process, with what it leases and has not used."""

    id: str
    name: str
    version: str
    started_at: int
    heartbeat_at: int
    closed_at: int | None
    retired_at: int | None
    revision: int | None
    leased_nano: int


class JobRow(NamedTuple):
    """How a job last went; `owner` is who is at it now."""

    name: str
    ran_at: int | None
    next_at: int
    owner: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Undelivered:
    """What of the outbox did not arrive: still tried again, or given up."""

    waiting: int
    given_up: int


async def list_owners(tx: Transaction, *, open_only: bool = False) -> list[OwnerRow]:
    """Every start of a gateway, the newest first; or those that have neither closed nor been retired."""
    o = schema.owners.c
    query = _owners()
    if open_only:
        query = query.where(o.closed_at.is_(None), o.retired_at.is_(None))
    return [OwnerRow(*row) for row in await tx.execute(query.order_by(o.started_at.desc(), o.id))]


async def list_open_names(tx: Transaction, heard_after: int) -> list[str]:
    """The names of gateways that live; asks for no column that an older schema lacks."""
    o = schema.owners.c
    rows = await tx.execute(select(o.name).where(o.closed_at.is_(None), o.heartbeat_at > heard_after))
    return sorted({row.name for row in rows})


async def mark_revision(tx: Transaction, owner: str, revision: int) -> None:
    """Up to which change of the feed a gateway knows everything."""
    await tx.execute(update(schema.owners).where(schema.owners.c.id == owner).values(revision=revision))


async def list_jobs(tx: Transaction) -> list[JobRow]:
    """Every job that was ever run."""
    j = schema.jobs.c
    rows = await tx.execute(select(j.name, j.ran_at, j.next_at, j.owner, j.error).order_by(j.name))
    return [JobRow(*row) for row in rows]


async def count_undelivered(tx: Transaction) -> Undelivered:
    """Notifications that were tried and have not arrived."""
    d = schema.deliveries.c
    waits = and_(d.done_at.is_(None), d.next_at.is_not(None), d.attempts > 0)
    given_up = and_(d.done_at.is_(None), d.next_at.is_(None))
    counts = [(await tx.execute(select(func.count()).where(condition))).scalar_one() for condition in (waits, given_up)]
    return Undelivered(*counts)


async def count_watched_budgets(tx: Transaction) -> int:
    """Budgets of which somebody is to be told when they run out: no thresholds said are the usual ones."""
    b = schema.budgets.c
    is_watched = or_(b.thresholds.is_(None), cast(b.thresholds, Text) != "[]")
    return int((await tx.execute(select(func.count()).select_from(schema.budgets).where(is_watched))).scalar_one())


async def has_webhooks(tx: Transaction) -> bool:
    """Whether anybody is told by a webhook."""
    w = schema.webhooks.c
    return (await tx.execute(select(w.id).where(w.is_active.is_(True)).limit(1))).first() is not None


def _owners() -> Select[Any]:
    o, c = schema.owners.c, schema.leases.c
    leased = cast(func.coalesce(func.sum(c.amount_nano - c.used_nano - c.charged_nano), 0), BigInteger)
    return (
        select(*(getattr(o, name) for name in OwnerRow._fields[:-1]), leased)
        .select_from(schema.owners.outerjoin(schema.leases, c.owner == o.id))
        .group_by(o.id)
    )
