"""Costs of events in SQL, for those who put them right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, func, select, tuple_

from ostiary.db import schema
from ostiary.db.bulk import run_each
from ostiary.db.database import Transaction
from ostiary.ledger.rollup_store import HOUR_MS, PAID_FOR, Names, Place, is_unpriced, move_costs
from ostiary.ledger.trace_store import Place as EventPlace

_SET: Final = (
    "UPDATE usage_events SET cost_nano = ?, price_version = ?, over_hold_nano = ? WHERE request_id = ? AND attempt = ?"
)


@dataclass(frozen=True, slots=True)
class Wish:
    """Which events: those that began at `since_at` or later; None is any."""

    since_at: int
    provider: str | None = None
    model: str | None = None
    unknown_too: bool = False
    """Also those whose tokens are not known, which were charged what was held for them."""


class Costed(NamedTuple):
    """What an event cost, and all that its cost counts in. The fields are columns."""

    started_at: int
    request_id: str
    attempt: int
    organization_id: str
    agent_key_id: str | None
    agent_key_name: str | None
    parent_key_id: str | None
    credential_id: str | None
    provider: str
    model: str
    provider_key_id: str
    provider_key_name: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    audio_tokens: int
    images: int
    audio_ms: int
    characters: int
    searches: int
    held_nano: int
    cost_nano: int
    over_hold_nano: int
    price_version: str | None
    usage_source: str
    held_at: int | None


class Recosted(NamedTuple):
    """An event with what it is to cost."""

    event: Costed
    cost_nano: int
    price_version: str


async def list_costed(
    tx: Transaction, organization_id: str, wish: Wish, after: EventPlace | None, limit: int, *, lock: bool
) -> list[Costed]:
    """The next events in the order of time; with `lock` nobody else changes them until this transaction ends."""
    e = schema.usage_events.c
    since_at = after.started_at if after else wish.since_at
    query = select(*(e[name] for name in Costed._fields)).where(*_meant(organization_id, wish, since_at))
    if after is not None:
        query = query.where(tuple_(e.started_at, e.request_id, e.attempt) > tuple_(*after))
    query = query.order_by(e.started_at, e.request_id, e.attempt).limit(limit)
    rows = await tx.execute(query.with_for_update() if lock else query)
    return [Costed(*row) for row in rows]


async def count_costed(tx: Transaction, organization_id: str, wish: Wish) -> int:
    """How many events there are to look at."""
    query = select(func.count()).where(*_meant(organization_id, wish, wish.since_at))
    return int((await tx.execute(query)).scalar_one())


def _meant(organization_id: str, wish: Wish, since_at: int) -> list[ColumnElement[bool]]:
    e = schema.usage_events.c
    named = [e[name] == getattr(wish, name) for name in ("provider", "model") if getattr(wish, name)]
    return [e.organization_id == organization_id, e.started_at >= since_at, *named]


async def list_organization_ids(tx: Transaction) -> list[str]:
    """Of all organizations, in one order."""
    o = schema.organizations.c
    return [row[0] for row in await tx.execute(select(o.id).order_by(o.id))]


async def change_costs(tx: Transaction, changes: Sequence[Recosted]) -> None:
    """Write the new costs to the events and into the sums by hour and day."""
    await run_each(
        tx,
        _SET,
        [
            (cost_nano, version, _over_hold(event, cost_nano), event.request_id, event.attempt)
            for event, cost_nano, version in changes
        ],
    )
    moved: dict[Place, tuple[Names, int, int, int]] = {}
    for event, cost_nano, _ in changes:
        place = _place_of(event)
        names = (event.agent_key_name, event.provider_key_name, event.parent_key_id)
        _, nano, priced, greatest = moved.get(place, (names, 0, 0, 0))
        priced += is_unpriced(event.price_version, *(getattr(event, name) for name in PAID_FOR))
        moved[place] = (names, nano + cost_nano - event.cost_nano, priced, max(greatest, cost_nano))
    await move_costs(tx, moved)


def _over_hold(event: Costed, cost_nano: int) -> int:
    """What is now beyond the hold. An event of an account without a cap has a hold that binds nothing."""
    if not event.over_hold_nano and cost_nano <= max(event.cost_nano, event.held_nano):
        return 0
    return max(cost_nano - event.held_nano, 0)


def _place_of(event: Costed) -> Place:
    return (
        event.organization_id,
        event.started_at // HOUR_MS,
        event.agent_key_id or "",
        event.credential_id or "",
        event.provider,
        event.model,
        event.provider_key_id,
    )
