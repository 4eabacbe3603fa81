"""Single attempts in SQL: found among millions by what the sums by day and hour say of where they can be."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    JSON,
    Boolean,
    RowMapping,
    TextClause,
    func,
    select,
    text,
)

from ostiary.clock import DAY_MS
from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.ledger.rollup_store import FAILED
from ostiary.ledger.series_store import Days, sum_model, sum_provider_key
from ostiary.ledger.trace_windows_store import LATEST, Filter, Window, batched, windows_of
from ostiary.ledger.usage_store import family_of, list_parents

_MOST_PARTS: Final = 64
"""Of one statement."""


class Place(NamedTuple):
    """Where an attempt stands in the order of the list."""

    started_at: int
    request_id: str
    attempt: int


# ---- the list ---------------------------------------------------------------------------------------------------

_NEWEST: Final = "ORDER BY started_at DESC, request_id DESC, attempt DESC"
_TYPES: Final = {"timings": JSON, "metadata": JSON, "stream": Boolean}
"""Columns that are stored otherwise than they are read."""


async def list_attempts(
    tx: Transaction, organization_id: str, wanted: Filter, *, after: Place | None = None, limit: int = 0
) -> list[RowMapping]:
    """Attempts behind `after`, newest first; `limit` 0 gives all."""
    look = await _look(tx, organization_id, wanted)
    if after is not None:
        look.also(
            "(started_at, request_id, attempt) < (:at, :id, :attempt)", at=after[0], id=after[1], attempt=after[2]
        )
    found: list[RowMapping] = []
    newest = after.started_at + 1 if after else LATEST
    async for windows in batched(windows_of(tx, organization_id, wanted, newest)):
        rows: list[RowMapping] = []
        for statement in look.statements("*", windows, _NEWEST, limit - len(found) if limit else 0):
            rows += (await tx.execute(statement.columns(**_TYPES))).mappings()
        found += sorted(rows, key=_place_of, reverse=True)
        if limit and len(found) >= limit:
            return found[:limit]
    return found


def _place_of(row: RowMapping) -> Place:
    return Place(row["started_at"], row["request_id"], row["attempt"])


async def list_attempts_of(tx: Transaction, organization_id: str, request_id: str) -> Sequence[RowMapping]:
    """All attempts of one call, the first first."""
    e = schema.usage_events.c
    query = select(schema.usage_events).where(e.request_id == request_id, e.organization_id == organization_id)
    return (await tx.execute(query.order_by(e.attempt))).mappings().all()


class _Of(NamedTuple):
    """Whose attempts: what a column says, or one of those that `among` gives; neither is everybody's."""

    column: str
    key: str | None = None
    among: str = ""


@dataclass(slots=True)
class _Look:
    """Statements that look for attempts in windows of time. As text: of many parts, SQLAlchemy's own way is slower
    than the database.
    """

    conditions: list[str]
    values: dict[str, object]
    keys: Sequence[_Of] | None

    @classmethod
    def of(cls, organization_id: str, wanted: Filter, keys: Sequence[_Of] | None) -> _Look:
        look = cls([], {"organization_id": organization_id}, keys)
        for name in ("status", "model", "provider", "provider_key_id", "endpoint"):
            if (value := getattr(wanted, name)) is not None:
                look.also(f"{name} = :{name}", **{name: value})
        if wanted.is_failed:
            look.also("status <> 'ok'")  # in these words, so that the index of those is found to hold them all
        if wanted.min_latency_ms is not None:
            look.also("latency_ms >= :min_latency_ms", min_latency_ms=wanted.min_latency_ms)
        if wanted.min_cost_nano is not None:
            look.also("cost_nano >= :min_cost_nano", min_cost_nano=wanted.min_cost_nano)
        return look

    def also(self, condition: str, **bound: object) -> None:
        """One condition more."""
        self.conditions.append(condition)
        self.values |= bound

    def statements(
        self, columns: str, windows: Sequence[Window], order: str = "", limit: int = 0
    ) -> Iterator[TextClause]:
        """Each window and key is a part with an order and a limit of its own, as the index gives them."""
        parts = [(window, of) for window in windows for of in self._keys_in(window)]
        tail = f"{order} LIMIT :most" if limit else order
        for start in range(0, len(parts), _MOST_PARTS):
            bound = self.values | ({"most": limit} if limit else {})
            texts = []
            for number, (window, of) in enumerate(parts[start : start + _MOST_PARTS]):
                span = f"started_at >= :first_{number} AND started_at < :end_{number}"
                conditions = " AND ".join((*self._whose(of, number), span, *self.conditions))
                texts.append(f"SELECT {columns} FROM usage_events WHERE {conditions} {tail}")  # noqa: S608 - our words
                bound |= {f"first_{number}": window.first, f"end_{number}": window.end}
                bound |= {} if of.key is None else {f"key_{number}": of.key}
            yield text(_joined(texts, tail)).bindparams(**bound)

    def _keys_in(self, window: Window) -> Sequence[_Of]:
        """Those to look for one by one: of a window that knows its callers, these, of whom each is wanted."""
        if window.keys is not None:
            return [_Of("agent_key_id", key) for key in window.keys]
        return (_Of("organization_id"),) if self.keys is None else self.keys

    def _whose(self, of: _Of, number: int) -> Iterator[str]:
        if not (of.key or of.among):
            yield "organization_id = :organization_id"
            return
        yield f"{of.column} = :key_{number}" if of.key else f"{of.column} IN ({of.among})"
        # Without statistics SQLite cannot know which index is the better one: an expression leaves no choice.
        yield "organization_id || '' = :organization_id"
        # Of many keys the windows are everybody's: not each of their callers is wanted.
        if of.key and (any_of := [f"{one.column} IN ({one.among})" for one in self.keys or () if one.among]):
            yield f"({' OR '.join(any_of)})"


async def _look(tx: Transaction, organization_id: str, wanted: Filter) -> _Look:
    if wanted.agent_key_ids is None:
        return _Look.of(organization_id, wanted, None)
    parents = await list_parents(tx, organization_id, wanted.agent_key_ids)
    named = {"agent_key_id": sorted(wanted.agent_key_ids), "parent_key_id": sorted(parents)}
    if not wanted.is_of_many:
        return _Look.of(organization_id, wanted, [_Of(column, key) for column, ids in named.items() for key in ids])
    sent = {column: json.dumps(ids) for column, ids in named.items() if ids}
    keys = [_Of(column, among=_AMONG[tx.dialect.name].format(column)) for column in sent]
    look = _Look.of(organization_id, wanted, keys)
    look.values |= sent
    return look


_AMONG: Final = {
    "sqlite": "SELECT value FROM json_each(:{0})",
    "postgresql": "SELECT json_array_elements_text(CAST(:{0} AS json))",
}
"""The ids of a list that is sent as one value, however often a statement names it."""


def _joined(texts: Sequence[str], tail: str) -> str:
    if len(texts) == 1:
        return texts[0]
    parts = [f"SELECT * FROM ({one}) AS part" for one in texts]  # noqa: S608 - our words
    return f"{' UNION ALL '.join(parts)} {tail}"


# ---- summary ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Totals:
    """Sums over attempts."""

    attempts: int = 0
    requests: int = 0
    errors: int = 0
    cost_nano: int = 0
    latency_ms: int = 0

    def add(self, row: Sequence[Any]) -> None:
        """What an aggregate gave, in the order of the fields; sums over nothing are NULL, PostgreSQL's are Decimal."""
        self.attempts += int(row[0] or 0)
        self.requests += int(row[1] or 0)
        self.errors += int(row[2] or 0)
        self.cost_nano += int(row[3] or 0)
        self.latency_ms += int(row[4] or 0)


async def sum_attempts(tx: Transaction, organization_id: str, wanted: Filter) -> Totals:
    """Over all attempts wanted that are still there; whole days from their sums where these can tell."""
    totals = Totals()
    parts = await _parts(tx, organization_id, wanted) if wanted.is_summed else None
    if parts is None:
        await _add_events(tx, organization_id, wanted, totals)
        return totals
    days, edges = parts
    if days is not None:
        for row in await _sum_days(tx, organization_id, wanted, *days):
            totals.add(row)
    for edge in edges:
        await _add_events(tx, organization_id, replace(wanted, since_at=edge.first, until_at=edge.end), totals)
    return totals


async def _sum_days(
    tx: Transaction, organization_id: str, wanted: Filter, first: int, last: int
) -> list[Sequence[Any]]:
    days = Days(first, last + 1)
    if wanted.is_of_provider_key and wanted.provider_key_id is not None:
        return [await sum_provider_key(tx, organization_id, days, wanted.provider_key_id)]
    if wanted.provider_key_id is None and wanted.agent_key_ids is None:
        return [await sum_model(tx, organization_id, days, wanted.provider, wanted.model)]
    d = schema.usage_days.c
    sums = (func.sum(one) for one in (d.attempts, d.requests, d.errors, d.cost_nano, d.latency_ms))
    query = select(*sums).where(d.day.between(first, last))
    names = [name for name in ("model", "provider", "provider_key_id") if getattr(wanted, name)]
    query = query.where(*(d[name] == getattr(wanted, name) for name in names))
    if wanted.agent_key_ids is None:
        return [(await tx.execute(query.where(d.organization_id == organization_id))).one()]
    query = query.where(d.organization_id + "" == organization_id)  # so that the index of whose it is leads there
    whose = family_of(schema.usage_days, wanted.agent_key_ids)
    return [(await tx.execute(query.where(one))).one() for one in whose]


async def _parts(
    tx: Transaction, organization_id: str, wanted: Filter
) -> tuple[tuple[int, int] | None, list[Window]] | None:
    """A period as whole days, first and last, and what is cut off at its ends; None when there is nothing.

    Days before the oldest event and its own are left out: their events were deleted, all or a part, their sums stay.
    """
    e = schema.usage_events.c
    oldest = await tx.scalar(
        select(e.started_at).where(e.organization_id == organization_id).order_by(e.started_at).limit(1)
    )
    first, end = wanted.since_at or 0, LATEST if wanted.until_at is None else wanted.until_at
    if oldest is None:
        return None
    first = max(first, oldest)
    first_day, end_day = -(-first // DAY_MS), end // DAY_MS
    if first_day >= end_day:
        return None, [Window(first, end)]
    edges = [Window(first, first_day * DAY_MS), Window(end_day * DAY_MS, end)]
    return (first_day, end_day - 1), [edge for edge in edges if edge.first < edge.end]


_FAILED: Final = ", ".join(f"'{status}'" for status in FAILED)
_SUMS: Final = (
    "COUNT(*), SUM(CASE WHEN attempt = 1 THEN 1 ELSE 0 END), "
    f"SUM(CASE WHEN status IN ({_FAILED}) THEN 1 ELSE 0 END), SUM(cost_nano), SUM(latency_ms)"
)


async def _add_events(tx: Transaction, organization_id: str, wanted: Filter, totals: Totals) -> None:
    look = await _look(tx, organization_id, wanted)
    async for windows in batched(windows_of(tx, organization_id, wanted)):
        for statement in look.statements(_SUMS, windows):
            for row in await tx.execute(statement):
                totals.add(row)


async def list_latencies(tx: Transaction, organization_id: str, wanted: Filter, most: int) -> list[int]:
    """Milliseconds of the newest attempts wanted, at most so many."""
    return [row[1] for row in await _newest(tx, organization_id, wanted, most)]


async def measure_few(
    tx: Transaction, organization_id: str, wanted: Filter, most: int
) -> tuple[Totals | None, list[int]]:
    """As `list_latencies`; and what all that are wanted come to, None where they are as many or more.

    To find out that there are few takes a look at everything, which is enough to do once.
    """
    rows = await _newest(tx, organization_id, wanted, most, ", attempt, status, cost_nano")
    latencies = [row[1] for row in rows]
    if len(rows) == most:
        return None, latencies
    firsts, errors = sum(row[2] == 1 for row in rows), sum(row[3] in FAILED for row in rows)
    return Totals(len(rows), firsts, errors, sum(row[4] for row in rows), sum(latencies)), latencies


async def _newest(
    tx: Transaction, organization_id: str, wanted: Filter, most: int, more: str = ""
) -> list[Sequence[Any]]:
    look = await _look(tx, organization_id, wanted)
    found: list[Sequence[Any]] = []
    async for windows in batched(windows_of(tx, organization_id, wanted)):
        rows: list[Sequence[Any]] = []
        columns = f"started_at, latency_ms{more}"
        for statement in look.statements(columns, windows, "ORDER BY started_at DESC", most - len(found)):
            rows += await tx.execute(statement)
        found += sorted(rows, key=itemgetter(0, 1), reverse=True)
        if len(found) >= most:
            break
    return found[:most]
