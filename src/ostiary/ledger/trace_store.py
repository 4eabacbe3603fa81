"""Single attempts in SQL: found among millions by what the sums by day and hour say of where they can be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
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
from ostiary.ledger.rollup_store import FAILED, HOUR_MS, HOURS
from ostiary.ledger.series_store import Days, sum_model
from ostiary.ledger.usage_store import find_days

_MOST_WINDOWS: Final = 32
_FEW_KEYS: Final = 2
_MOST_PARTS: Final = 64
"""Of one statement."""
_LATEST: Final = 1 << 52
"""A time after all others."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which attempts; None is any. `since_at` belongs to the period, `until_at` does not."""

    agent_key_ids: Collection[str] | None = None
    status: str | None = None
    since_at: int | None = None
    until_at: int | None = None
    model: str | None = None
    provider: str | None = None
    min_latency_ms: int | None = None
    min_cost_nano: int | None = None
    provider_key_id: str | None = None
    endpoint: str | None = None

    @property
    def is_summed(self) -> bool:
        """Whether the sums by day know how many those are, but for days that are cut."""
        of_sums = (self.status, self.min_latency_ms, self.min_cost_nano, self.endpoint)
        return all(one is None for one in of_sums)

    @property
    def is_rare(self) -> bool:
        """Whether few attempts may be such, so that it pays to ask first where they can be.

        Those of an endpoint have an index of their own.
        """
        of_spans = (self.status, self.min_latency_ms, self.min_cost_nano, self.model, self.provider)
        return self.endpoint is None and any(one is not None for one in (*of_spans, self.provider_key_id))


class Place(NamedTuple):
    """Where an attempt stands in the order of the list."""

    started_at: int
    request_id: str
    attempt: int


class _Window(NamedTuple):
    """From this to before that, in milliseconds since the epoch; `keys` None is not only of some agent keys."""

    first: int
    end: int
    keys: tuple[str, ...] | None = None


# ---- the list ---------------------------------------------------------------------------------------------------

_NEWEST: Final = "ORDER BY started_at DESC, request_id DESC, attempt DESC"
_TYPES: Final = {"timings": JSON, "metadata": JSON, "stream": Boolean}
"""Columns that are stored otherwise than they are read."""


async def list_attempts(
    tx: Transaction, organization_id: str, wanted: Filter, *, after: Place | None = None, limit: int = 0
) -> list[RowMapping]:
    """Attempts behind `after`, newest first; `limit` 0 gives all."""
    look = _Look.of(organization_id, wanted)
    if after is not None:
        look.also(
            "(started_at, request_id, attempt) < (:at, :id, :attempt)", at=after[0], id=after[1], attempt=after[2]
        )
    found: list[RowMapping] = []
    newest = after.started_at + 1 if after else _LATEST
    async for windows in _batched(_windows(tx, organization_id, wanted, newest)):
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


@dataclass(slots=True)
class _Look:
    """Statements that look for attempts in windows of time. As text: of many parts, SQLAlchemy's own way is slower
    than the database.
    """

    conditions: list[str]
    values: dict[str, object]
    keys: tuple[str, ...] | None

    @classmethod
    def of(cls, organization_id: str, wanted: Filter) -> _Look:
        keys = None if wanted.agent_key_ids is None else tuple(sorted(wanted.agent_key_ids))
        look = cls([], {"organization_id": organization_id}, keys)
        for name in ("status", "model", "provider", "provider_key_id", "endpoint"):
            if (value := getattr(wanted, name)) is not None:
                look.also(f"{name} = :{name}", **{name: value})
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
        self, columns: str, windows: Sequence[_Window], order: str = "", limit: int = 0
    ) -> Iterator[TextClause]:
        """Each window and key is a part with an order and a limit of its own, as the index gives them."""
        parts = [(window, key) for window in windows for key in self._keys_in(window)]
        tail = f"{order} LIMIT :most" if limit else order
        for start in range(0, len(parts), _MOST_PARTS):
            bound = self.values | ({"most": limit} if limit else {})
            texts = []
            for number, (window, key) in enumerate(parts[start : start + _MOST_PARTS]):
                # Without statistics SQLite cannot know which index is the better one: an expression leaves no choice.
                whose = "organization_id" if key is None else f"agent_key_id = :key_{number} AND organization_id || ''"
                span = f"started_at >= :first_{number} AND started_at < :end_{number}"
                conditions = " AND ".join((f"{whose} = :organization_id", span, *self.conditions))
                texts.append(f"SELECT {columns} FROM usage_events WHERE {conditions} {tail}")  # noqa: S608 - our words
                bound |= {f"first_{number}": window.first, f"end_{number}": window.end}
                bound |= {} if key is None else {f"key_{number}": key}
            yield text(_joined(texts, tail)).bindparams(**bound)

    def _keys_in(self, window: _Window) -> Sequence[str | None]:
        """Those to look for one by one, else None for all of them at once."""
        keys = self.keys if self.keys is not None else window.keys
        if self.keys is not None and window.keys is not None:
            keys = tuple(key for key in window.keys if key in self.keys)
        return (None,) if keys is None else keys


def _joined(texts: Sequence[str], tail: str) -> str:
    if len(texts) == 1:
        return texts[0]
    parts = [f"SELECT * FROM ({one}) AS part" for one in texts]  # noqa: S608 - our words
    return f"{' UNION ALL '.join(parts)} {tail}"


# ---- where to look ----------------------------------------------------------------------------------------------


async def _windows(
    tx: Transaction, organization_id: str, wanted: Filter, newest: int = _LATEST
) -> AsyncIterator[_Window]:
    """Spans of time that hold every attempt wanted, newest first: of rare ones, only hours that have any."""
    first = wanted.since_at or 0
    end = min(newest, _LATEST if wanted.until_at is None else wanted.until_at)
    if not wanted.is_rare:
        yield _Window(first, end)
        return
    first_day, day = await find_days(tx, organization_id)
    first_day, day = max(first_day, first // DAY_MS), min(day, (end - 1) // DAY_MS)
    days = 1
    while day >= first_day:  # the longer nothing is found, the further each look goes
        for run in _runs(await _list_hours(tx, organization_id, wanted, max(day - days + 1, first_day), day)):
            window = _Window(max(run.first * HOUR_MS, first), min(run.end * HOUR_MS, end), run.keys)
            if window.first < window.end:
                yield window
        day, days = day - days, days * 2


async def _batched(windows: AsyncIterator[_Window]) -> AsyncIterator[list[_Window]]:
    """One, then two, then four and so on: whoever finds little in the first is likely to need many."""
    batch: list[_Window] = []
    size = 1
    async for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch, size = [], min(size * 2, _MOST_WINDOWS)
    if batch:
        yield batch


async def _list_hours(
    tx: Transaction, organization_id: str, wanted: Filter, first_day: int, last_day: int
) -> list[_Window]:
    """Hours in which there is such an attempt, as far as the sums can tell; the newest first.

    Where one or two agent keys made all of them these are named: an hour of a key is smaller than an hour of all.
    """
    there, bound = _has_some(wanted)
    query = text(_HOURS_OF.format(there=there.format("s."), of_hour=there.format("h."))).bindparams(
        **bound, organization_id=organization_id, first_day=first_day, last_day=last_day
    )
    return [
        _Window(hour, hour + 1, tuple(sorted({least, greatest})) if count <= _FEW_KEYS and least else None)
        for hour, count, least, greatest in await tx.execute(query)
    ]


_HOURS_OF: Final = (
    "SELECT h.hour, COUNT(DISTINCT h.agent_key_id), MIN(h.agent_key_id), MAX(h.agent_key_id) "  # noqa: S608 - our words
    "FROM (SELECT DISTINCT day, agent_key_id FROM usage_days AS s WHERE organization_id = :organization_id "
    "AND day BETWEEN :first_day AND :last_day AND {there}) AS d "
    f"CROSS JOIN ({' UNION ALL '.join(f'SELECT {hour} AS hour' for hour in range(HOURS))}) AS n "
    "CROSS JOIN usage_hours AS h "
    f"WHERE h.organization_id = :organization_id AND h.hour = d.day * {HOURS} + n.hour "
    "AND h.agent_key_id = d.agent_key_id AND {of_hour} "
    "GROUP BY h.hour ORDER BY h.hour DESC"
)
"""CROSS JOIN is SQLite's word for this order, days first; left to itself it would begin with all hours there are."""
_COUNTED: Final = {
    "ok": "attempts - {0}errors - {0}cancelled",
    "error": "errors - {0}unknown",
    "unknown": "unknown",
    "cancelled": "cancelled",
}


def _has_some(wanted: Filter) -> tuple[str, dict[str, object]]:
    """Whether the row of a span has such an attempt, or may have one where several things are wanted of it.

    A condition on a row named `{0}`, and the values in it.
    """
    found = ["1 = 1"]
    bound: dict[str, object] = {}
    for name in ("model", "provider", "provider_key_id"):
        if (value := getattr(wanted, name)) is not None:
            found.append(f"{{0}}{name} = :{name}")
            bound[name] = value
    if wanted.agent_key_ids is not None:
        keys = {f"key_{number}": key for number, key in enumerate(sorted(wanted.agent_key_ids))}
        found.append(f"{{0}}agent_key_id IN ({', '.join(f':{name}' for name in keys) or 'NULL'})")
        bound |= keys
    if wanted.status is not None:
        found.append(f"{{0}}{_COUNTED[wanted.status]} > 0" if wanted.status in _COUNTED else "1 = 0")
    for name in ("latency_ms", "cost_nano"):
        if (least := getattr(wanted, f"min_{name}")) is not None:
            found.append(f"{{0}}max_{name} >= :min_{name}")
            bound[f"min_{name}"] = least
    return " AND ".join(found), bound


def _runs(hours: Sequence[_Window]) -> list[_Window]:
    """Neighbours joined, but for those that are of some keys only."""
    found: list[_Window] = []
    for hour in hours:
        if found and found[-1].first == hour.end and found[-1].keys is None and hour.keys is None:
            found[-1] = _Window(hour.first, found[-1].end)
        else:
            found.append(hour)
    return found


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
    if days is not None and wanted.provider_key_id is None and wanted.agent_key_ids is None:
        whole = Days(days[0], days[1] + 1)
        totals.add(await sum_model(tx, organization_id, whole, wanted.provider, wanted.model))
    elif days is not None:
        d = schema.usage_days.c
        sums = (func.sum(one) for one in (d.attempts, d.requests, d.errors, d.cost_nano, d.latency_ms))
        query = select(*sums).where(d.organization_id == organization_id, d.day.between(*days))
        names = [name for name in ("model", "provider", "provider_key_id") if getattr(wanted, name)]
        query = query.where(*(d[name] == getattr(wanted, name) for name in names))
        if wanted.agent_key_ids is not None:
            query = query.where(d.agent_key_id.in_(sorted(wanted.agent_key_ids)))
        totals.add((await tx.execute(query)).one())
    for edge in edges:
        await _add_events(tx, organization_id, replace(wanted, since_at=edge.first, until_at=edge.end), totals)
    return totals


async def _parts(
    tx: Transaction, organization_id: str, wanted: Filter
) -> tuple[tuple[int, int] | None, list[_Window]] | None:
    """A period as whole days, first and last, and what is cut off at its ends; None when there is nothing.

    Days before the oldest event and its own are left out: their events were deleted, all or a part, their sums stay.
    """
    e = schema.usage_events.c
    oldest = await tx.scalar(
        select(e.started_at).where(e.organization_id == organization_id).order_by(e.started_at).limit(1)
    )
    first, end = wanted.since_at or 0, _LATEST if wanted.until_at is None else wanted.until_at
    if oldest is None:
        return None
    first = max(first, oldest)
    first_day, end_day = -(-first // DAY_MS), end // DAY_MS
    if first_day >= end_day:
        return None, [_Window(first, end)]
    edges = [_Window(first, first_day * DAY_MS), _Window(end_day * DAY_MS, end)]
    return (first_day, end_day - 1), [edge for edge in edges if edge.first < edge.end]


_FAILED: Final = ", ".join(f"'{status}'" for status in FAILED)
_SUMS: Final = (
    "COUNT(*), SUM(CASE WHEN attempt = 1 THEN 1 ELSE 0 END), "
    f"SUM(CASE WHEN status IN ({_FAILED}) THEN 1 ELSE 0 END), SUM(cost_nano), SUM(latency_ms)"
)


async def _add_events(tx: Transaction, organization_id: str, wanted: Filter, totals: Totals) -> None:
    look = _Look.of(organization_id, wanted)
    async for windows in _batched(_windows(tx, organization_id, wanted)):
        for statement in look.statements(_SUMS, windows):
            for row in await tx.execute(statement):
                totals.add(row)


async def list_latencies(tx: Transaction, organization_id: str, wanted: Filter, most: int) -> list[int]:
    """Milliseconds of the newest attempts wanted, at most so many."""
    look = _Look.of(organization_id, wanted)
    found: list[tuple[int, int]] = []
    async for windows in _batched(_windows(tx, organization_id, wanted)):
        rows: list[tuple[int, int]] = []
        for statement in look.statements(
            "started_at, latency_ms", windows, "ORDER BY started_at DESC", most - len(found)
        ):
            rows += [(row[0], row[1]) for row in await tx.execute(statement)]
        found += sorted(rows, reverse=True)
        if len(found) >= most:
            break
    return [latency for _, latency in found[:most]]
