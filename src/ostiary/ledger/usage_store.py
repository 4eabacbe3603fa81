"""Usage in SQL, from the longest spans that are summed up: blocks of days, days, and hours where a day is cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import (
    ColumnElement,
    RowMapping,
    Select,
    Subquery,
    Table,
    and_,
    func,
    literal,
    or_,
    select,
    union_all,
)

from ostiary.clock import DAY_MS
from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.ledger.rollup_store import BLOCK_DAYS, HOUR_MS, HOURS, SUMS

Dimension = Literal["day", "agent_key", "credential", "provider", "model", "provider_key"]

COLUMNS: Final[dict[Dimension, str]] = {
    "day": "day",
    "agent_key": "agent_key_id",
    "credential": "credential_id",
    "provider": "provider",
    "model": "model",
    "provider_key": "provider_key_id",
}
_LEVELS: Final = (
    (schema.usage_hours, 1),
    (schema.usage_days, HOURS),
    (schema.usage_blocks, HOURS * BLOCK_DAYS),
)
"""Each with the hours of its spans."""
_FOR_EVER: Final = HOURS * BLOCK_DAYS << 30


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which usage; None is any. A period is counted in whole UTC hours: that of `since_at`, to before `until_at`.

    What the children of an agent key used is its usage too; no key that is named may be the child of another.
    """

    since_at: int = 0
    until_at: int | None = None
    agent_key_ids: Collection[str] | None = None
    credential_id: str | None = None
    provider: str | None = None
    model: str | None = None
    provider_key_id: str | None = None


class _Span(NamedTuple):
    """From this to before that, as the table counts."""

    table: Table
    first: int
    end: int


async def sum_usage(
    tx: Transaction, organization_id: str, wanted: UsageFilter, by: Collection[Dimension], limit: int = 0
) -> list[RowMapping]:
    """Sums by the dimensions named, the newest day first, then the dearest; `limit` 0 gives all."""
    if not (limit and "day" in by):
        return list(await _sum_usage(tx, organization_id, wanted, by, limit))
    found: list[RowMapping] = []
    async for period in _periods(tx, organization_id, wanted):  # a page is often in the newest few days
        found += await _sum_usage(tx, organization_id, period, by, limit - len(found))
        if len(found) == limit:
            break
    return found


async def _sum_usage(
    tx: Transaction, organization_id: str, wanted: UsageFilter, by: Collection[Dimension], limit: int
) -> Sequence[RowMapping]:
    source = _source(organization_id, wanted, by)
    dimensions: list[Dimension] = [one for one in COLUMNS if one in by]  # the order of the primary key
    groups = [source.c[COLUMNS[one]] for one in dimensions]
    sums = [func.sum(source.c[name]).label(name) for name in SUMS]
    if "provider_key" in by:
        sums.append(func.max(source.c.provider_key_name).label("last_name"))
    query = select(*groups, *sums).group_by(*groups)
    newest = [source.c.day.desc()] if "day" in by else []
    rest = [group for one, group in zip(dimensions, groups, strict=True) if one != "day"]
    query = query.order_by(*newest, func.sum(source.c.cost_nano).desc(), *rest)
    grouped = (query.limit(limit) if limit else query).subquery()
    named = [_NAMED[one](grouped, organization_id).label(f"{one}_name") for one in dimensions if one in _NAMED]
    found = (await tx.execute(select(grouped, *named))).mappings().all()
    return found if groups or found[0]["attempts"] is not None else []


async def _periods(tx: Transaction, organization_id: str, wanted: UsageFilter) -> AsyncIterator[UsageFilter]:
    """A period in parts, the newest first, each twice as long as the one before."""
    first, last = await find_days(tx, organization_id)
    first = max(first, wanted.since_at // DAY_MS)
    last = last if wanted.until_at is None else min(last, (wanted.until_at - 1) // DAY_MS)
    days = 1
    while last >= first:
        begin = max(last - days + 1, first)
        until_at = (last + 1) * DAY_MS
        yield replace(
            wanted,
            since_at=max(begin * DAY_MS, wanted.since_at),
            until_at=until_at if wanted.until_at is None else min(until_at, wanted.until_at),
        )
        last, days = begin - 1, days * 2


async def find_days(tx: Transaction, organization_id: str) -> tuple[int, int]:
    """The first and the last day with any usage; the last is before the first when there is none."""
    d = schema.usage_days.c
    query = select(d.day).where(d.organization_id == organization_id).limit(1)
    ends = (query.order_by(d.day).scalar_subquery(), query.order_by(d.day.desc()).scalar_subquery())
    first, last = (await tx.execute(select(*ends))).one()
    return (0, -1) if first is None else (first, last)


def _agent_key_name(grouped: Subquery, _organization_id: str) -> ColumnElement[str]:
    """Its name, of a deleted one the last that the sums know."""
    k, d = schema.agent_keys.c, schema.usage_days.c
    last = select(d.agent_key_name).where(d.agent_key_id == grouped.c.agent_key_id, grouped.c.agent_key_id != "")
    return func.coalesce(
        select(k.name).where(k.id == grouped.c.agent_key_id).scalar_subquery(),
        last.order_by(d.day.desc()).limit(1).scalar_subquery(),
    )


def _provider_key_name(grouped: Subquery, organization_id: str) -> ColumnElement[str]:
    """Its name; of a deleted one, and of one that another organization shares, the one that the sums know."""
    k = schema.provider_keys.c
    own = select(k.name).where(k.id == grouped.c.provider_key_id, k.organization_id == organization_id)
    return func.coalesce(own.scalar_subquery(), grouped.c.last_name)


_NAMED: Final[dict[Dimension, Callable[[Subquery, str], ColumnElement[str]]]] = {
    "agent_key": _agent_key_name,
    "provider_key": _provider_key_name,
}


async def find_key(tx: Transaction, organization_id: str, id_or_name: str) -> str | None:
    """The agent key last seen under this id or name; sums outlive keys and events."""
    d = schema.usage_days.c
    query = (
        select(d.agent_key_id)
        .where(
            d.organization_id == organization_id,
            d.agent_key_id != "",
            or_(d.agent_key_id == id_or_name, d.agent_key_name == id_or_name),
        )
        .order_by(d.day.desc(), d.agent_key_id.desc())
        .limit(1)
    )
    found: str | None = (await tx.execute(query)).scalar()
    return found


def _spans(wanted: UsageFilter, by: Collection[Dimension]) -> list[_Span]:
    """Whole blocks and days from their own tables; finer ones only of what is cut off at the ends."""
    first, end = wanted.since_at // HOUR_MS, _FOR_EVER
    if wanted.until_at is not None:
        end = -(-wanted.until_at // HOUR_MS)
    # Days are wanted for themselves; and those of one key are found by an index.
    levels = _LEVELS[:2] if "day" in by or wanted.agent_key_ids is not None else _LEVELS
    return _cut(first, end, levels) or [_Span(schema.usage_days, 0, 0)]


def _cut(first: int, end: int, levels: Sequence[tuple[Table, int]]) -> list[_Span]:
    if first >= end or not levels:
        return []
    *finer, (table, hours) = levels
    first_span, end_span = -(-first // hours), end // hours
    if first_span >= end_span:
        return _cut(first, end, finer)
    rest = [*_cut(first, first_span * hours, finer), *_cut(end_span * hours, end, finer)]
    return [_Span(table, first_span, end_span), *rest]


def _source(organization_id: str, wanted: UsageFilter, by: Collection[Dimension]) -> Subquery:
    """The rows to sum up, with their day."""
    parts = [part for span in _spans(wanted, by) for part in _parts(span, organization_id, wanted)]
    return parts[0].subquery() if len(parts) == 1 else union_all(*parts).subquery()


def _parts(span: _Span, organization_id: str, wanted: UsageFilter) -> list[Select[Any]]:
    """Keys and their children are looked up one after the other: each way has an index of its own."""
    if wanted.agent_key_ids is None:
        return [_part(span, organization_id, wanted)]
    whose = family_of(span.table, wanted.agent_key_ids)
    return [_part(span, organization_id, wanted).where(one) for one in whose]


def family_of(table: Table, agent_key_ids: Collection[str]) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Which sums are of these agent keys, and which of their children; never both."""
    c, ids = table.c, sorted(agent_key_ids)
    return and_(c.agent_key_id.in_(ids), c.agent_key_id != ""), c.parent_key_id.in_(ids)


async def list_parents(tx: Transaction, organization_id: str, agent_key_ids: Collection[str]) -> list[str]:
    """Those of the keys that have children which were used."""
    d = schema.usage_days.c
    query = select(d.parent_key_id).where(d.parent_key_id.in_(sorted(agent_key_ids)))
    return list(await tx.scalars(query.where(d.organization_id + "" == organization_id).distinct()))


def _part(span: _Span, organization_id: str, wanted: UsageFilter) -> Select[Any]:
    c = span.table.c
    at = next(iter(c))
    day = (at // literal(HOURS)).label("day") if span.table is schema.usage_hours else at.label("day")
    named = [c[name] for name in (*COLUMNS.values(), "provider_key_name", *SUMS) if name != "day"]
    # An expression leaves the index by agent key, or by parent, as the one to use.
    is_found_by_key = wanted.agent_key_ids is not None and span.table is schema.usage_days
    whose = c.organization_id + "" if is_found_by_key else c.organization_id
    query = select(day, *named).where(whose == organization_id, at >= span.first, at < span.end)
    return query.where(*_conditions(span.table, wanted))


def _conditions(table: Table, wanted: UsageFilter) -> list[ColumnElement[bool]]:
    c = table.c
    return [
        c[name] == value
        for name in ("credential_id", "provider", "model", "provider_key_id")
        if (value := getattr(wanted, name)) is not None
    ]
