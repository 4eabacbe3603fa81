"""What the ledger keeps, in SQL: usage events and captured contents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import String, select
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
_TEXTS: Final = tuple(
    (column.name, column.type.length)
    for column in schema.usage_events.c
    if column.name not in _MADE and isinstance(column.type, String) and column.type.length is not None
)
RESPONSE_ID: Final = re.compile(r"(?!\.+\Z)[A-Za-z0-9_.:=-]{1,200}")
"""An id under which a response can be kept and asked for; what a provider gives beside that is not remembered."""
_json = msgspec.json.Encoder().encode
_AT_ONCE: Final = 500
"""Ids in one statement."""

_EVENTS: Final = Insert("usage_events", [*_PLAIN, *_MADE])
_RESPONSES: Final = Insert(
    "responses",
    ("organization_id", "id", "provider_key_id", "provider", "model", "created_at"),
    "ON CONFLICT (organization_id, id) DO NOTHING",
)
_CONTENTS: Final = Insert(
    "contents", ("request_id", "attempt", "organization_id", "agent_key_id", "at", "sealed", "sealed_version")
)


def _row_of(owner: str, event: Event) -> tuple[object, ...]:
    _fit(event)
    return (*_of_event(event), owner, _json(event.timings).decode(), _json(event.metadata).decode())


def _fit(event: Event) -> None:
    """Cut what no database takes: one such row would be tried again for ever, and hold up all that come after it."""
    for name, most in _TEXTS:
        text = getattr(event, name)
        if text is not None and (len(text) > most or "\0" in text):
            setattr(event, name, text.replace("\0", "\ufffd")[:most])
    if event.response_id is not None and RESPONSE_ID.fullmatch(event.response_id) is None:
        event.response_id = None


async def add_events(tx: Transaction, owner: str, events: list[Event]) -> list[Event]:
    """Insert what is not there yet, and say which that was: only those may be charged.

    The usual batch is all new and goes in at once; a batch sent a second time is sorted out. The sums by hour and day
    move with the rows that were really inserted.
    """
    row_of = partial(_row_of, owner)
    try:
        await _EVENTS.run_of(tx, events, row_of)
    except IntegrityError:
        events = await _list_new(tx, events)
        await _EVENTS.run_of(tx, events, row_of)
    await add_to_rollups(tx, events)
    await _RESPONSES.run(tx, [_response_of(event) for event in events if event.response_id is not None])
    await _CONTENTS.run(tx, [_content_of(event) for event in events if event.content is not None])
    return events


async def _list_new(tx: Transaction, events: list[Event]) -> list[Event]:
    """Those that are not there, each of them once."""
    c = schema.usage_events.c
    known: set[tuple[str, int]] = set()
    found = []
    for start in range(0, len(events), _AT_ONCE):
        portion = events[start : start + _AT_ONCE]
        for event in portion:
            _fit(event)
        query = select(c.request_id, c.attempt).where(c.request_id.in_({event.request_id for event in portion}))
        known |= {(row[0], row[1]) for row in await tx.execute(query)}
        for event in portion:
            if (event.request_id, event.attempt) not in known:
                known.add((event.request_id, event.attempt))
                found.append(event)
    return found


# ---- responses --------------------------------------------------------------------------------------------------


def _response_of(event: Event) -> tuple[object, ...]:
    return (
        event.organization_id,
        event.response_id,
        event.provider_key_id,
        event.provider,
        event.model,
        event.started_at,
    )


class KeptResponse(NamedTuple):
    """A response that a provider keeps, and the provider key that can be asked about it."""

    provider_key_id: str
    provider: str
    model: str


async def find_response(tx: Transaction, organization_id: str, response_id: str) -> KeptResponse | None:
    """The response that an organization was given under this id, or None."""
    c = schema.responses.c
    query = select(c.provider_key_id, c.provider, c.model)
    row = (await tx.execute(query.where(c.organization_id == organization_id, c.id == response_id))).first()
    return None if row is None else KeptResponse(*row)


async def remove_response(tx: Transaction, organization_id: str, response_id: str) -> None:
    """The provider does not keep it any more."""
    c = schema.responses.c
    await tx.execute(schema.responses.delete().where(c.organization_id == organization_id, c.id == response_id))


# ---- contents ---------------------------------------------------------------------------------------------------


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
