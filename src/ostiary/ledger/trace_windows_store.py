"""Where in time attempts that are wanted can be, as the sums by day and hour tell, so that few others are looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from sqlalchemy import func, select, text

from ostiary.clock import DAY_MS
from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.ledger.rollup_store import HOUR_MS, HOURS
from ostiary.ledger.series_store import Days, sum_model, sum_provider_key
from ostiary.ledger.usage_store import find_days

_MOST_WINDOWS: Final = 32
_FEW_KEYS: Final = 2
_MANY_KEYS: Final = 16
"""More agent keys than so many are looked for together: one by one each would give a page of its own."""
_COMMON: Final = 64
"""Of so many attempts, one or more."""
_FEW: Final = 10_000
"""Attempts that are looked up one by one in the time of a question where they are."""
_SUM_TO_ATTEMPT: Final = 6
"""So many attempts in the index of traces are read in the time of one sum of a day with its hours."""
LATEST: Final = 1 << 52
"""A time after all others."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which attempts; None is any. `since_at` belongs to the period, `until_at` does not.

    Those of the children of an agent key are its own too; no key that is named may be the child of another.
    """

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
    def is_of_many(self) -> bool:
        """Whether so many agent keys are wanted that these are not looked for one by one."""
        return self.agent_key_ids is not None and len(self.agent_key_ids) > _MANY_KEYS

    @property
    def is_summed(self) -> bool:
        """Whether the sums by day know how many those are, but for days that are cut."""
        of_sums = (self.status, self.min_latency_ms, self.min_cost_nano, self.endpoint)
        return all(one is None for one in of_sums)

    @property
    def is_failed(self) -> bool:
        """Whether only attempts are wanted that did not go well."""
        return self.status not in (None, "ok")

    @property
    def is_indexed(self) -> bool:
        """Whether an index leads to it and to little else: that of endpoints, of what failed, of provider keys."""
        is_named = self.model is not None or self.provider is not None or self.provider_key_id is not None
        is_led = self.endpoint is not None or (self.is_failed and not is_named)
        return is_led or (self.is_of_provider_key and self.agent_key_ids is None)

    @property
    def is_rare(self) -> bool:
        """Whether few attempts may be such, so that it pays to ask first where they can be."""
        of_spans = (self.status, self.min_latency_ms, self.min_cost_nano, self.model, self.provider)
        return not self.is_indexed and any(one is not None for one in (*of_spans, self.provider_key_id))

    @property
    def is_of_provider_key(self) -> bool:
        """Whether nothing but a provider key is wanted."""
        others = (self.agent_key_ids, self.provider, self.model)
        return self.is_summed and self.provider_key_id is not None and all(one is None for one in others)


class Window(NamedTuple):
    """From this to before that, in milliseconds since the epoch; `keys` None is not only of some agent keys.

    These are who called, children among them.
    """

    first: int
    end: int
    keys: tuple[str, ...] | None = None


async def windows_of(
    tx: Transaction, organization_id: str, wanted: Filter, newest: int = LATEST
) -> AsyncIterator[Window]:
    """Spans of time that hold every attempt wanted, newest first: of rare ones, only hours that have any."""
    if wanted.is_of_many:
        known = await find_days(tx, organization_id)
        # The sums of so many keys take longer to read than those of everybody, which tell enough.
        async for window in windows_of(tx, organization_id, replace(wanted, agent_key_ids=None), newest):
            for part in _spread(window, *known):
                yield part
        return
    first = wanted.since_at or 0
    end = min(newest, LATEST if wanted.until_at is None else wanted.until_at)
    if not wanted.is_rare:
        yield Window(first, end)
        return
    first_day, day = await find_days(tx, organization_id)
    first_day, day = max(first_day, first // DAY_MS), min(day, (end - 1) // DAY_MS)
    days = 1
    while day >= first_day:  # the longer nothing is found, the further each look goes
        since = max(day - days + 1, first_day)
        if await _is_read_through(tx, organization_id, wanted, Days(since, day + 1)):
            runs = [Window(since * HOURS, (day + 1) * HOURS)]
        else:
            runs = _runs(await _list_hours(tx, organization_id, wanted, since, day))
        for run in runs:
            window = Window(max(run.first * HOUR_MS, first), min(run.end * HOUR_MS, end), run.keys)
            if window.first < window.end:
                yield window
        day, days = day - days, days * 2


def _spread(window: Window, first_day: int, last_day: int) -> Iterator[Window]:
    """An hour, then two, then four and so on: the newest of many keys are found in little time."""
    first, end = max(window.first, first_day * DAY_MS), min(window.end, (last_day + 1) * DAY_MS)
    length = HOUR_MS
    while end > first:
        begin = max(end - length, first)
        yield Window(begin, end, window.keys)
        end, length = begin, length * 2


async def batched(windows: AsyncIterator[Window]) -> AsyncIterator[list[Window]]:
    """One, then two, then four and so on: whoever finds little in the first is likely to need many."""
    batch: list[Window] = []
    size = 1
    async for window in windows:
        batch.append(window)
        if len(batch) == size:
            yield batch
            batch, size = [], min(size * 2, _MOST_WINDOWS)
    if batch:
        yield batch


async def _is_read_through(tx: Transaction, organization_id: str, wanted: Filter, days: Days) -> bool:
    """Whether looking at all attempts of these days costs less than asking first where they are.

    It does where what is wanted is common, and where almost every attempt is by another key: then there are as many
    sums as attempts.
    """
    if wanted.agent_key_ids is not None:
        return False
    if wanted.provider_key_id is not None:
        of_key, *_ = await sum_provider_key(tx, organization_id, days, wanted.provider_key_id)
        return int(of_key or 0) <= _FEW
    among, *_ = await sum_model(tx, organization_id, days, None, None)
    if wanted.is_summed:
        found, *_ = await sum_model(tx, organization_id, days, wanted.provider, wanted.model)
        if found * _COMMON >= among:
            return True
    d = schema.usage_days.c
    newest = select(func.count()).where(d.organization_id == organization_id, d.day == days.end - 1)
    return among <= (await tx.scalar(newest) or 0) * (days.end - days.first) * _SUM_TO_ATTEMPT


async def _list_hours(
    tx: Transaction, organization_id: str, wanted: Filter, first_day: int, last_day: int
) -> list[Window]:
    """Hours in which there is such an attempt, as far as the sums can tell; the newest first.

    Where one or two agent keys made all of them these are named: an hour of a key is smaller than an hour of all.
    """
    there, bound = _has_some(wanted)
    query = text(_HOURS_OF.format(there=there.format("s."), of_hour=there.format("h."))).bindparams(
        **bound, organization_id=organization_id, first_day=first_day, last_day=last_day
    )
    return [
        Window(hour, hour + 1, tuple(sorted({least, greatest})) if count <= _FEW_KEYS and least else None)
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
        named = ", ".join(f":{name}" for name in keys) or "NULL"
        found.append(f"({{0}}agent_key_id IN ({named}) OR {{0}}parent_key_id IN ({named}))")
        bound |= keys
    if wanted.status is not None:
        found.append(f"{{0}}{_COUNTED[wanted.status]} > 0" if wanted.status in _COUNTED else "1 = 0")
    for name in ("latency_ms", "cost_nano"):
        if (least := getattr(wanted, f"min_{name}")) is not None:
            found.append(f"{{0}}max_{name} >= :min_{name}")
            bound[f"min_{name}"] = least
    return " AND ".join(found), bound


def _runs(hours: Sequence[Window]) -> list[Window]:
    """Neighbours joined, but for those that are of some keys only."""
    found: list[Window] = []
    for hour in hours:
        if found and found[-1].first == hour.end and found[-1].keys is None and hour.keys is None:
            found[-1] = Window(hour.first, found[-1].end)
        else:
            found.append(hour)
    return found
