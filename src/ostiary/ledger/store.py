"""What the ledger keeps, in SQL: audit rows, usage events and the sums over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import msgspec
from sqlalchemy import RowMapping, and_, case, distinct, func, insert, or_, select
from sqlalchemy.exc import IntegrityError

from ostiary.clock import DAY_MS
from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.ledger.events import Event

# ---- audit ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One deed, as it is kept."""

    seq: int
    at: int
    organization_id: str | None
    actor_kind: str
    actor_id: str
    actor_name: str
    deed: str
    target_kind: str
    target_id: str
    target_name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    origin: str
    address: str | None
    result: str
    chain: str | None
    number: int | None
    hash: bytes | None


async def add_audit(tx: Transaction, **row: object) -> None:
    """Append one row; its number is the database's to give."""
    kept = {name: value for name, value in row.items() if value is not None}
    await tx.execute(insert(schema.audit).values(**kept))


async def list_audit(tx: Transaction, organization_id: str | None = None, limit: int = 100) -> list[AuditRow]:
    """The newest rows first; of one organization, or with None those of all and of none."""
    query = select(schema.audit).order_by(schema.audit.c.seq.desc()).limit(limit)
    if organization_id is not None:
        query = query.where(schema.audit.c.organization_id == organization_id)
    return [AuditRow(**row) for row in (await tx.execute(query)).mappings()]


# ---- events -----------------------------------------------------------------------------------------------------

_COLUMNS = tuple(column.name for column in schema.usage_events.c)
_OF_EVENT = attrgetter(*(name for name in _COLUMNS if name not in {"owner", "timings", "metadata"}))
_SIZES = (500, 50, 5, 1)
"""Few sizes, so that the statements stay prepared; 500 rows have fewer placeholders than SQLite takes."""
_json = msgspec.json.Encoder().encode
"""Rows go to the driver as they are: SQLAlchemy's own way would cost a tenth of a whole call for each event."""


def _row_of(owner: str, event: Event) -> tuple[object, ...]:
    return (*_OF_EVENT(event), owner, _json(event.timings).decode(), _json(event.metadata).decode())


@cache
def _insert_events(dialect: str, rows: int) -> str:
    """The INSERT of so many rows in the order of `_row_of`, with the placeholders of the driver."""
    names = [
        *(name for name in _COLUMNS if name not in {"owner", "timings", "metadata"}),
        "owner",
        "timings",
        "metadata",
    ]
    marks = [f"${n}" if dialect == "postgresql" else "?" for n in range(1, len(names) + 1)]
    values = ", ".join([f"({', '.join(marks)})"] * rows)
    return f"INSERT INTO usage_events ({', '.join(names)}) VALUES {values}"  # noqa: S608 - our own columns


async def _insert(tx: Transaction, rows: list[tuple[object, ...]]) -> None:
    """Insert rows at once.

    SQLite works in a thread, which must win the interpreter back after every step it makes; under load that takes
    milliseconds, so hundreds of rows are one step. PostgreSQL's driver sends many rows well by itself.
    """
    if tx.dialect.name == "postgresql":
        await tx.exec_driver_sql(_insert_events("postgresql", 1), rows)
        return
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size:
            flat = tuple(chain.from_iterable(rows[start : start + size]))
            await tx.exec_driver_sql(_insert_events("sqlite", size), flat)
            start += size


async def add_events(tx: Transaction, owner: str, events: list[Event]) -> list[Event]:
    """Insert what is not there yet, and say which that was: only those may be charged.

    The usual batch is all new and goes in at once; a batch sent a second time is sorted out row by row.
    """
    try:
        async with tx.begin_nested():
            await _insert(tx, [_row_of(owner, event) for event in events])
    except IntegrityError:
        return [event for event in events if await _add_event(tx, owner, event)]
    return events


async def _add_event(tx: Transaction, owner: str, event: Event) -> bool:
    c = schema.usage_events.c
    known = select(c.attempt).where(c.request_id == event.request_id, c.attempt == event.attempt)
    if (await tx.execute(known)).first() is not None:
        return False
    await _insert(tx, [_row_of(owner, event)])
    return True


async def count_requests_since(tx: Transaction, at: int, agent_key_id: str | None = None) -> dict[str, int]:
    """Calls (not attempts) of every agent key, or of one, since `at`."""
    c = schema.usage_events.c
    query = (
        select(c.agent_key_id, func.count())
        .where(c.started_at >= at, c.attempt == 1, c.agent_key_id.is_not(None))
        .group_by(c.agent_key_id)
    )
    if agent_key_id is not None:
        query = query.where(c.agent_key_id == agent_key_id)
    return {row[0]: row[1] for row in await tx.execute(query)}


# ---- reports ----------------------------------------------------------------------------------------------------

_COUNTED: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "cost_nano",
)


_FAILED: Final = ("error", "unknown")
"""Statuses that count as errors; a caller who hangs up is none."""


async def list_events(
    tx: Transaction, organization_id: str, *, agent_key_id: str | None, since_at: int | None, limit: int
) -> Sequence[RowMapping]:
    """Attempts, newest first; `limit` 0 gives all."""
    e = schema.usage_events.c
    query = select(schema.usage_events).where(e.organization_id == organization_id)
    if agent_key_id is not None:
        query = query.where(e.agent_key_id == agent_key_id)
    if since_at is not None:
        query = query.where(e.started_at >= since_at)
    query = query.order_by(e.started_at.desc(), e.request_id.desc(), e.attempt.desc())
    return (await tx.execute(query.limit(limit) if limit else query)).mappings().all()


async def sum_events(
    tx: Transaction, organization_id: str, *, agent_key_id: str | None, credential_id: str | None, since_at: int
) -> Sequence[RowMapping]:
    """Sums by UTC day (its number since the epoch), caller, provider and model."""
    e = schema.usage_events.c
    day = e.started_at // DAY_MS
    keys = (e.agent_key_id, e.credential_id, e.provider, e.model)
    tokenful = (e.input_tokens + e.output_tokens) > 0
    query = (
        select(
            day.label("day"),
            *keys,
            func.max(e.agent_key_name).label("agent_key_name"),
            func.count(distinct(e.request_id)).label("requests"),
            func.sum(case((e.status.in_(_FAILED), 1), else_=0)).label("errors"),
            func.sum(case((and_(e.price_version.is_(None), tokenful), 1), else_=0)).label("unpriced"),
            *(func.sum(e[name]).label(name) for name in _COUNTED),
        )
        .where(e.organization_id == organization_id, e.started_at >= since_at)
        .group_by(day, *keys)
        .order_by(day.desc(), func.sum(e.cost_nano).desc(), e.provider, e.model)
    )
    if agent_key_id is not None:
        query = query.where(e.agent_key_id == agent_key_id)
    if credential_id is not None:
        query = query.where(e.credential_id == credential_id)
    return (await tx.execute(query)).mappings().all()


async def find_event_key(tx: Transaction, organization_id: str, id_or_name: str) -> str | None:
    """The agent key last seen under this id or name; events outlive keys."""
    e = schema.usage_events.c
    query = (
        select(e.agent_key_id)
        .where(e.organization_id == organization_id, or_(e.agent_key_id == id_or_name, e.agent_key_name == id_or_name))
        .order_by(e.started_at.desc())
        .limit(1)
    )
    found: str | None = (await tx.execute(query)).scalar()
    return found
