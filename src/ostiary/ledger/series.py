"""Usage over time as pages draw it: a total, the dearest things, and what each of these came to day by day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from typing import Final, Literal

from ostiary.clock import DAY_MS
from ostiary.db.database import Transaction
from ostiary.ledger import reports, series_store
from ostiary.ledger.reports import Dimension, UsageFilter, UsageRow
from ostiary.ledger.series_store import Days, Sum

__all__ = ["Days", "Face", "Line", "Picture"]

Face = Literal["model", "provider", "agent_key", "provider_key", "member"]
FACES: Final[tuple[Face, ...]] = ("model", "agent_key", "provider", "provider_key", "member")
DRAWN: Final = 5
"""Things that have a colour of their own; the rest is drawn together."""
_MOST_DRAWN_KEYS: Final = 500
"""Agent keys of members that are looked up day by day."""
_WHOLE: Final = "all"
_FAMILY: Final = ("agent_key", "parent")
"""What keys used themselves, and what their children did."""
_EPOCH: Final = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Line:
    """What one thing used."""

    id: str
    name: str
    kind: str = ""
    requests: int = 0
    attempts: int = 0
    errors: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    latency_ms: int = 0
    cost_nano: int = 0

    @property
    def tokens(self) -> int:
        """In and out."""
        return self.input_tokens + self.output_tokens

    @property
    def error_share(self) -> float:
        """Failed attempts of all, as a part of 1."""
        return self.errors / self.attempts if self.attempts else 0.0

    @property
    def average_ms(self) -> int | None:
        """Of an attempt."""
        return self.latency_ms // self.attempts if self.attempts else None


_COUNTS: Final = tuple(one.name for one in fields(Line) if one.name not in ("id", "name", "kind"))


@dataclass(frozen=True, slots=True)
class Picture:
    """A period: all of it, its days, the dearest things with their days, and what is left when those are taken out."""

    days: Days
    total: Line
    by_day: Mapping[int, Line]
    lines: Sequence[Line]
    rest: Line
    drawn: Mapping[str, Mapping[int, Line]] = field(default_factory=dict)
    """By the id of a line and the day."""


async def look(
    tx: Transaction, organization_id: str, days: Days, face: Face, *, keys: Collection[str] | None = None, most: int
) -> Picture:
    """What was used in these days, by everybody or by some agent keys."""
    if keys is not None:
        return await _of_keys(tx, organization_id, days, face, keys, most)
    by_day = {one.day or 0: _line(one) for one in await series_store.list_days(tx, organization_id, _WHOLE, days)}
    total = together(by_day.values())
    lines = await _lines(tx, organization_id, days, face, most)
    drawn = await _drawn(tx, organization_id, days, face, lines[:DRAWN])
    return Picture(days, total, by_day, lines, _less(total, lines), drawn)


async def total(tx: Transaction, organization_id: str, days: Days, keys: Collection[str] | None = None) -> Line:
    """All of it, of everybody or of some agent keys."""
    if keys is not None:
        rows = await reports.sum_usage(tx, organization_id, _filter(days, keys), ())
        return together(_row_line(row, "model") for row in rows)
    return together(map(_line, await series_store.list_days(tx, organization_id, _WHOLE, days)))


def together(lines: Iterable[Line], id: str = "", name: str = "", kind: str = "") -> Line:
    """Their sum."""
    sums = dict.fromkeys(_COUNTS, 0)
    for one in lines:
        for count in _COUNTS:
            sums[count] += getattr(one, count)
    return Line(id, name, kind, **sums)


def _less(whole: Line, parts: Iterable[Line]) -> Line:
    """What of the whole is none of the parts: what is not shown, and what is deleted."""
    known = together(parts)
    return Line("", "Everything else", "", **{one: getattr(whole, one) - getattr(known, one) for one in _COUNTS})


def _line(one: Sum, name: str = "", kind: str = "") -> Line:
    return Line(one.id, name or one.name or one.id, kind, **{count: getattr(one, count) for count in _COUNTS})


# ---- of everybody -----------------------------------------------------------------------------------------------


async def _lines(tx: Transaction, organization_id: str, days: Days, face: Face, most: int) -> list[Line]:
    if face == "member":
        return [_line(one, kind=face) for one in await series_store.list_owners(tx, organization_id, days, most)]
    if face == "provider":
        models = await series_store.list_sums(tx, organization_id, "model", days)
        return _by_provider(models)[:most]
    kinds = ("agent_key", "credential") if face == "agent_key" else (face,)
    found: list[Line] = []
    for kind in kinds:
        sums = await series_store.list_sums(tx, organization_id, kind, days, most)
        names = await series_store.list_names(tx, organization_id, kind, [one.id for one in sums])
        found += [_line(one, names.get(one.id, ""), kind) for one in sums]
    return sorted(found, key=lambda one: (-one.cost_nano, one.id))[:most]


def _by_provider(models: Iterable[Sum]) -> list[Line]:
    of: defaultdict[str, list[Line]] = defaultdict(list)
    for one in models:
        of[one.id.partition("/")[0]].append(_line(one))
    lines = [together(some, provider, provider, "provider") for provider, some in of.items()]
    return sorted(lines, key=lambda one: (-one.cost_nano, one.id))


async def _drawn(
    tx: Transaction, organization_id: str, days: Days, face: Face, lines: Sequence[Line]
) -> dict[str, dict[int, Line]]:
    """The days of these lines."""
    wanted = {one.id for one in lines}
    found: defaultdict[tuple[str, int], list[Line]] = defaultdict(list)
    if face == "provider":
        for one in await series_store.list_days(tx, organization_id, "model", days):
            found[one.id.partition("/")[0], one.day or 0].append(_line(one))
    elif face == "member":
        owners = await series_store.list_keys_of_owners(tx, organization_id, wanted, _MOST_DRAWN_KEYS + 1)
        if len(owners) <= _MOST_DRAWN_KEYS:
            for kind in _FAMILY:
                for one in await series_store.list_days(tx, organization_id, kind, days, owners):
                    found[owners[one.id], one.day or 0].append(_line(one))
    else:
        for kind in {one.kind for one in lines}:
            for one in await series_store.list_days(tx, organization_id, kind, days, wanted):
                found[one.id, one.day or 0].append(_line(one))
    return _drawn_of(found, wanted)


def _drawn_of(found: Mapping[tuple[str, int], Sequence[Line]], wanted: Collection[str]) -> dict[str, dict[int, Line]]:
    drawn: defaultdict[str, dict[int, Line]] = defaultdict(dict)
    for (id_, day), lines in found.items():
        if id_ in wanted:
            drawn[id_][day] = together(lines)
    return dict(drawn)


# ---- of some agent keys -----------------------------------------------------------------------------------------

_BY: Final[Mapping[Face, tuple[Dimension, ...]]] = {
    "model": ("provider", "model"),
    "provider": ("provider",),
    "agent_key": ("agent_key",),
    "provider_key": ("provider_key",),
    "member": ("agent_key",),
}


async def _of_keys(
    tx: Transaction, organization_id: str, days: Days, face: Face, keys: Collection[str], most: int
) -> Picture:
    """Few keys are found by themselves among the sums of everybody; whose they are is known: members are not asked."""
    rows = await reports.sum_usage(tx, organization_id, _filter(days, keys), ("day", *_BY[face]))
    by_day: defaultdict[int, list[Line]] = defaultdict(list)
    by_thing: defaultdict[str, list[Line]] = defaultdict(list)
    by_both: defaultdict[tuple[str, int], list[Line]] = defaultdict(list)
    for row in rows:
        line, day = _row_line(row, face), _day_of(row)
        by_day[day].append(line)
        by_thing[line.id].append(line)
        by_both[line.id, day].append(line)
    lines = [together(some, id_, some[0].name, some[0].kind) for id_, some in by_thing.items()]
    lines = sorted(lines, key=lambda one: (-one.cost_nano, one.id))[:most]
    sums = {day: together(some) for day, some in by_day.items()}
    whole = together(sums.values())
    drawn = _drawn_of(by_both, {one.id for one in lines[:DRAWN]})
    return Picture(days, whole, sums, lines, _less(whole, lines), drawn)


def _filter(days: Days, keys: Collection[str]) -> UsageFilter:
    return UsageFilter(days.first * DAY_MS, days.end * DAY_MS, agent_key_ids=keys)


def _row_line(row: UsageRow, face: Face) -> Line:
    id_, name = {
        "model": (f"{row.provider}/{row.model}",) * 2,
        "provider": (row.provider or "",) * 2,
        "agent_key": (row.agent_key_id or "", row.agent_key or ""),
        "member": (row.agent_key_id or "", row.agent_key or ""),
        "provider_key": (row.provider_key_id or "", row.provider_key or ""),
    }[face]
    counts = {one: getattr(row, one) for one in ("requests", "attempts", "errors", "unpriced", "latency_ms")}
    tokens = {
        "input_tokens": row.tokens.input,
        "output_tokens": row.tokens.output,
        "cache_read_tokens": row.tokens.cache_read,
    }
    return Line(id_, name or id_, face, **counts, **tokens, cost_nano=row.cost_nano)


def _day_of(row: UsageRow) -> int:
    """`2026-11-20` as the number of a day."""
    return date.fromisoformat(row.day or "").toordinal() - _EPOCH


# ---- every day of everything ------------------------------------------------------------------------------------


async def list_days(
    tx: Transaction, organization_id: str, days: Days, face: Face, *, keys: Collection[str] | None = None, most: int
) -> list[tuple[int, Line]]:
    """Each thing on each day, the first day first; at most so many."""
    if keys is not None:
        rows = await reports.sum_usage(tx, organization_id, _filter(days, keys), ("day", *_BY[face]), most)
        found = [(_day_of(row), _row_line(row, face)) for row in rows]
        return sorted(found, key=lambda one: (one[0], one[1].id))
    if face in ("provider", "member"):
        return await _list_grouped_days(tx, organization_id, days, face, most)
    lines: list[tuple[int, Line]] = []
    for kind in ("agent_key", "credential") if face == "agent_key" else (face,):
        sums = await series_store.list_days(tx, organization_id, kind, days, limit=most)
        names = await series_store.list_names(tx, organization_id, kind, {one.id for one in sums})
        lines += [(one.day or 0, _line(one, names.get(one.id, ""), kind)) for one in sums]
    return sorted(lines, key=lambda one: (one[0], one[1].id))[:most]


async def _list_grouped_days(
    tx: Transaction, organization_id: str, days: Days, face: Face, most: int
) -> list[tuple[int, Line]]:
    """Day by day, since the rows of a group are many and only groups are counted."""
    owners = await series_store.list_owner_names(tx, organization_id) if face == "member" else {}
    found: list[tuple[int, Line]] = []
    for day in range(days.first, days.end):
        if face == "member":
            whose, lines = owners, await _of_families(tx, organization_id, day, owners)
        else:
            lines = [
                _line(one) for one in await series_store.list_days(tx, organization_id, "model", Days(day, day + 1))
            ]
            whose = {one.id: (one.id.partition("/")[0],) * 2 for one in lines}
        found += sorted(_grouped([(day, one) for one in lines], whose, face), key=lambda one: one[1].id)
        if len(found) >= most:
            return found[:most]
    return found


async def _of_families(
    tx: Transaction, organization_id: str, day: int, owners: Mapping[str, tuple[str, str]]
) -> list[Line]:
    """What keys used on a day, children with those parents who have an owner: they are taken from who has none."""
    own, of_children = [
        [_line(one) for one in await series_store.list_days(tx, organization_id, kind, Days(day, day + 1))]
        for kind in _FAMILY
    ]
    told = [one for one in of_children if one.id in owners]
    return [*own, *told, *([_less(Line("", ""), told)] if told else [])]


def _grouped(
    lines: Iterable[tuple[int, Line]], whose: Mapping[str, tuple[str, str]], face: Face
) -> list[tuple[int, Line]]:
    together_: defaultdict[tuple[int, str, str], list[Line]] = defaultdict(list)
    for day, line in lines:
        id_, name = whose.get(line.id, ("", "Nobody's"))
        together_[day, id_, name].append(line)
    found = [(day, together(some, id_, name, face)) for (day, id_, name), some in together_.items()]
    return [one for one in found if one[1].attempts]
