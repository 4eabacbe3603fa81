"""What the ledger keeps, in SQL: usage events and captured contents."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Final

import msgspec
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from ostiary.db import schema
from ostiary.db.bulk import Insert
from ostiary.db.database import Transaction
from ostiary.ledger.events import Event
from ostiary.ledger.rollup_store import add_to_rollups

# ---- events -----------------------------------------------------------------------------------------------------

_MADE: Final = ("owner", "timings", "metadata")
"""Columns that an event does not hold as they are stored."""
_PLAIN: Final = tuple(column.name for column in schema.usage_events.c if column.name not in _MADE)
_of_event = attrgetter(*_PLAIN)
_json = msgspec.json.Encoder().encode

_EVENTS: Final = Insert("usage_events", [*_PLAIN, *_MADE])
_CONTENTS: Final = Insert(
    "contents", ("request_id", "attempt", "organization_id", "agent_key_id", "at", "sealed", "sealed_version")
)


def _row_of(owner: str, event: Event) -> tuple[object, ...]:
    return (*_of_event(event), owner, _json(event.timings).decode(), _json(event.metadata).decode())


async def add_events(tx: Transaction, owner: str, events: list[Event]) -> list[Event]:
    """Insert what is not there yet, and say which that was: only those may be charged.

    The usual batch is all new and goes in at once; a batch sent a second time is sorted out row by row. The sums by
    hour and day move with the rows that were really inserted.
    """
    try:
        async with tx.begin_nested():
            await _EVENTS.run(tx, [_row_of(owner, event) for event in events])
    except IntegrityError:
        events = [event for event in events if await _add_event(tx, owner, event)]
    await add_to_rollups(tx, events)
    await _CONTENTS.run(tx, [_content_of(event) for event in events if event.content is not None])
    return events


async def _add_event(tx: Transaction, owner: str, event: Event) -> bool:
    c = schema.usage_events.c
    known = select(c.attempt).where(c.request_id == event.request_id, c.attempt == event.attempt)
    if (await tx.execute(known)).first() is not None:
        return False
    await _EVENTS.run(tx, [_row_of(owner, event)])
    return True


@dataclass(frozen=True, slots=True)
class Content:
    """What was asked and answered in one attempt, sealed."""

    attempt: int
    agent_key_id: str | None
    at: int
    sealed: str
    sealed_version: int


def _content_of(event: Event) -> tuple[object, ...]:
    return (
        event.request_id,
        event.attempt,
        event.organization_id,
        event.agent_key_id,
        event.started_at,
        event.content,
        event.content_version,
    )


async def list_contents(tx: Transaction, organization_id: str, request_id: str) -> list[Content]:
    """What was captured of a call, attempt by attempt, as it was sealed."""
    c = schema.contents.c
    query = select(c.attempt, c.agent_key_id, c.at, c.sealed, c.sealed_version).where(
        c.organization_id == organization_id, c.request_id == request_id
    )
    return [Content(*row) for row in await tx.execute(query.order_by(c.attempt))]
