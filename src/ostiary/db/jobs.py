"""Whose turn it is to run a job: one row a job, taken by whoever moves its lease from the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, or_, select, update

from ostiary.db import schema
from ostiary.db.database import Transaction, insert_new

_SKEW_MS: Final = 60_000
"""How far the clocks of two gateways may be apart. A time further ahead than that was set by a clock that was wrong."""


@dataclass(frozen=True, slots=True)
class Turn:
    """When a job is due next, and until when somebody is at it."""

    next_at: int
    owner: str | None
    leased_until: int | None
    ran_at: int | None
    error: str | None


async def find_turn(tx: Transaction, name: str) -> Turn | None:
    """The row of a job; None before it ever ran."""
    j = schema.jobs.c
    query = select(j.next_at, j.owner, j.leased_until, j.ran_at, j.error).where(j.name == name)
    row = (await tx.execute(query)).first()
    return Turn(*row) if row else None


async def add_turn(tx: Transaction, name: str, at: int) -> None:
    """Make the row of a new job, due now, unless another gateway was first."""
    await tx.execute(insert_new(tx, schema.jobs, {"name": name, "next_at": at}))


async def claim_turn(tx: Transaction, name: str, owner: str, at: int, *, every_ms: int, lease_ms: int) -> bool:
    """Take the job if it is due and nobody is at it; of several who try, one gets it.

    A clock that was ahead and was set back leaves times in the future: they count as past, or nothing would ever run.
    """
    j = schema.jobs.c
    is_due = _passed(j.next_at, at, every_ms)
    is_free = or_(j.leased_until.is_(None), _passed(j.leased_until, at, lease_ms))
    return await _change(tx, name, is_due, is_free, owner=owner, leased_until=at + lease_ms)


async def extend_turn(tx: Transaction, name: str, owner: str, until: int) -> bool:
    """Stay at it; False when another has taken over."""
    return await _change(tx, name, schema.jobs.c.owner == owner, leased_until=until)


async def end_turn(tx: Transaction, name: str, owner: str, *, ran_at: int, next_at: int, error: str | None) -> bool:
    """Give the job back until its next time; changes nothing when another has taken over."""
    mine = schema.jobs.c.owner == owner
    values = {"owner": None, "leased_until": None, "ran_at": ran_at, "next_at": next_at, "error": error}
    return await _change(tx, name, mine, **values)


def _passed(time: ColumnElement[Any], at: int, longest_ms: int) -> ColumnElement[bool]:
    return or_(time <= at, time > at + longest_ms + _SKEW_MS)


async def _change(tx: Transaction, name: str, *only_if: ColumnElement[bool], **values: object) -> bool:
    done = await tx.execute(update(schema.jobs).where(schema.jobs.c.name == name, *only_if).values(**values))
    return bool(done.rowcount)
