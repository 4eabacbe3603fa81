"""Deletes what an organization does not want kept, a portion at a time; sums and accounts stay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Table, and_, delete, exists, or_, select, tuple_

from ostiary.clock import DAY_MS
from ostiary.db import schema
from ostiary.db.database import Transaction

REPLAYED_MS: Final = 2 * DAY_MS
"""How long before its last sign of life a process may have settled what its spool will send once more."""


Remove = Callable[[Transaction, str, int, int], Awaitable[int]]
"""Takes the organization, the time before which all is old, and the most rows to delete."""


class Days(NamedTuple):
    """How long an organization keeps its traces and contents, in days; None is for ever."""

    organization_id: str
    trace_days: int | None
    content_days: int | None


async def list_days(tx: Transaction) -> list[Days]:
    """Of all organizations that do not keep everything."""
    o = schema.organizations.c
    query = select(o.id, o.trace_days, o.content_days).where(
        or_(o.trace_days.is_not(None), o.content_days.is_not(None))
    )
    return [Days(*row) for row in await tx.execute(query.order_by(o.id))]


async def find_heartbeat(tx: Transaction, owner: str) -> int | None:
    """When a process was last heard of; None when it is not known at all."""
    o = schema.owners.c
    return await tx.scalar(select(o.heartbeat_at).where(o.id == owner))


async def remove_events(tx: Transaction, organization_id: str, before: int, most: int) -> int:
    """Delete the oldest events of before a time; the answer is how many.

    An event that a spool may still send again must be found by it, or it would be charged twice: it stays until its
    process has closed, was retired, or has lived on for long enough (`retention.still_wanted` relies on it).
    """
    e, o = schema.usage_events.c, schema.owners.c
    may_come_again = exists().where(
        o.id == e.owner,
        o.closed_at.is_(None),
        o.retired_at.is_(None),
        o.heartbeat_at < e.started_at + e.latency_ms + REPLAYED_MS,
    )
    old = and_(e.organization_id == organization_id, e.started_at < before, ~may_come_again)
    return await _remove(tx, schema.usage_events, old, e.started_at, most)


async def remove_responses(tx: Transaction, before: int, most: int) -> int:
    """Forget which provider key gave the oldest responses of before a time; the answer is how many."""
    c = schema.responses.c
    key = tuple_(c.organization_id, c.id)
    found = select(c.organization_id, c.id).where(c.created_at < before).order_by(c.created_at).limit(most)
    return (await tx.execute(delete(schema.responses).where(key.in_(found)))).rowcount


async def remove_contents(tx: Transaction, organization_id: str, before: int, most: int) -> int:
    """Delete the oldest contents of before a time; the answer is how many."""
    c = schema.contents.c
    old = and_(c.organization_id == organization_id, c.at < before)
    return await _remove(tx, schema.contents, old, c.at, most)


async def _remove(
    tx: Transaction, table: Table, old: ColumnElement[bool], oldest_first: ColumnElement[int], most: int
) -> int:
    key = tuple_(table.c.request_id, table.c.attempt)
    found = select(table.c.request_id, table.c.attempt).where(old).order_by(oldest_first).limit(most)
    return (await tx.execute(delete(table).where(key.in_(found)))).rowcount
