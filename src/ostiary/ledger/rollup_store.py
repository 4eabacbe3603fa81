"""Sums of events by span of time, and by one thing at a time, moved in the transaction that writes the events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import add, attrgetter, itemgetter
from typing import Final

from ostiary.clock import DAY_MS
from ostiary.db.bulk import Insert, Row, run_all
from ostiary.db.database import Transaction
from ostiary.ledger.events import Event

HOUR_MS: Final = DAY_MS // 24
HOURS: Final = 24
BLOCK_DAYS: Final = 32
"""Months would be of many lengths, and nobody asks for the sum of a block by itself."""
FAILED: Final = ("error", "unknown")
"""Statuses that count as errors; a caller who hangs up is none."""

Place = tuple[str, int, str, str, str, str, str]
"""The key of a row: organization, span, agent key, credential, provider, model, provider key."""
Names = tuple[str | None, str | None, str | None]
"""What is known of those in the key of a row: agent key, provider key, and the parent of an ephemeral key."""
Sums = tuple[int, ...]

_PLACE: Final = ("organization_id", "{span}", "agent_key_id", "credential_id", "provider", "model", "provider_key_id")
_NAMES: Final = ("agent_key_name", "provider_key_name", "parent_key_id")
COUNTED: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "images",
    "audio_ms",
    "characters",
    "searches",
)
SUMS: Final = (
    "requests",
    "attempts",
    "errors",
    "unknown",
    "cancelled",
    "unpriced",
    *COUNTED,
    "latency_ms",
    "cost_nano",
)
_BOUNDS: Final = ("max_latency_ms", "max_cost_nano")


def _upsert(table: str, span: str) -> Insert:
    place = [name.format(span=span) for name in _PLACE]
    news = [
        *(f"{name} = excluded.{name}" for name in _NAMES),
        *(f"{name} = {table}.{name} + excluded.{name}" for name in SUMS),
        *(
            f"{name} = CASE WHEN excluded.{name} > {table}.{name} THEN excluded.{name} ELSE {table}.{name} END"
            for name in _BOUNDS
        ),
    ]
    tail = f"ON CONFLICT ({', '.join(place)}) DO UPDATE SET {', '.join(news)}"
    return Insert(table, [*place, *_NAMES, *SUMS, *_BOUNDS], tail)


Face = tuple[str, str, int, int, str]
"""The key of a row of `usage_sums`: organization, kind, days of the span, its number, the id of what is summed."""
SPANS: Final = (1, 4, 16, 64)
"""In days, each a part of the next: a month until now, and a quarter of a year, is four or five of them."""
SUMMED: Final = (
    *("requests", "attempts", "errors", "cancelled", "unpriced", "input_tokens", "output_tokens", "cache_read_tokens"),
    *("latency_ms", "cost_nano"),
)
_kept: Final[Callable[[Sums], Sums]] = itemgetter(*(SUMS.index(name) for name in SUMMED))
_FACE: Final = ("organization_id", "kind", "span", "number", "id")
_FACES: Final = Insert(
    "usage_sums",
    [*_FACE, "name", *SUMMED],
    f"ON CONFLICT ({', '.join(_FACE)}) DO UPDATE SET name = excluded.name, "
    + ", ".join(f"{name} = usage_sums.{name} + excluded.{name}" for name in SUMMED),
)
_HOURS: Final = _upsert("usage_hours", "hour")
_DAYS: Final = _upsert("usage_days", "day")
_BLOCKS: Final = _upsert("usage_blocks", "block")


def is_unpriced(price_version: str | None, *counts: int) -> bool:
    """Whether an attempt used something that had no price: tokens, images, audio and the like."""
    return price_version is None and sum(counts) > 0


def place_of(row: Event, hour: int) -> Place:
    """Where an attempt is summed up."""
    return (
        row.organization_id,
        hour,
        row.agent_key_id or "",
        row.credential_id or "",
        row.provider,
        row.model,
        row.provider_key_id,
    )


async def add_to_rollups(tx: Transaction, events: Iterable[Event]) -> None:
    """Add new events, and only new ones, to the sums."""

    def made() -> Iterator[tuple[Insert, Sequence[Row]]]:
        together: defaultdict[Place, list[Event]] = defaultdict(list)
        for event in events:
            together[place_of(event, event.started_at // HOUR_MS)].append(event)
        return _inserts({place: (_names_of(group[-1]), _sums_of(group)) for place, group in together.items()})

    await run_all(tx, made)


async def move_costs(tx: Transaction, moved: dict[Place, tuple[Names, int, int, int]]) -> None:
    """Change sums of hours for costs that were put right: names, nano-dollars more, unpriced attempts fewer, and the
    greatest of the new costs.
    """
    zeros = (0,) * len(COUNTED)
    hours: dict[Place, tuple[Names, Sums]] = {
        place: (names, (0, 0, 0, 0, 0, -priced, *zeros, 0, nano, 0, greatest))
        for place, (names, nano, priced, greatest) in moved.items()
    }
    await run_all(tx, lambda: _inserts(hours))


def _inserts(hours: dict[Place, tuple[Names, Sums]]) -> Iterator[tuple[Insert, Sequence[Row]]]:
    """In one fixed order, so that two transactions never cross."""
    days = _coarser(hours, HOURS)
    yield _HOURS, _rows(hours)
    yield _DAYS, _rows(days)
    yield _BLOCKS, _rows(_coarser(days, BLOCK_DAYS))
    yield _FACES, _faces(days)


def _faces(days: dict[Place, tuple[Names, Sums]]) -> Sequence[tuple[object, ...]]:
    """The same sums by one thing at a time."""
    found: dict[Face, tuple[str | None, Sums]] = {}
    for (organization_id, day, key, credential, provider, model, provider_key), (names, sums) in days.items():
        kept = _kept(sums)
        things = [("all", "", None), ("model", f"{provider}/{model}", None), ("provider_key", provider_key, names[1])]
        things += [("agent_key", key, names[0])] if key else []
        things += [("credential", credential, None)] if credential else []
        things += [("parent", names[2], None)] if names[2] else []
        for kind, id_, name in things:
            for span in SPANS:
                face = (organization_id, kind, span, day // span, id_)
                known = found.get(face)
                found[face] = (name, kept if known is None else tuple(map(add, known[1], kept)))
    return [(*face, name, *sums) for face, (name, sums) in sorted(found.items(), key=itemgetter(0))]


def _coarser(spans: dict[Place, tuple[Names, Sums]], of: int) -> dict[Place, tuple[Names, Sums]]:
    """Sums of spans as sums of longer ones, each of so many."""
    found: dict[Place, tuple[Names, Sums]] = {}
    for (organization_id, span, *rest), (names, sums) in spans.items():
        place: Place = (organization_id, span // of, *rest)  # type: ignore[assignment]
        known = found.get(place)
        found[place] = (names, sums if known is None else _joined(known[1], sums))
    return found


def _rows(spans: dict[Place, tuple[Names, Sums]]) -> Sequence[tuple[object, ...]]:
    return [(*place, *names, *sums) for place, (names, sums) in sorted(spans.items(), key=_place)]


def _place(row: tuple[Place, object]) -> Place:
    return row[0]


def _names_of(event: Event) -> Names:
    return event.agent_key_name, event.provider_key_name, event.parent_key_id


_figures_of = attrgetter(*SUMS[-len(COUNTED) - 2 :])
PAID_FOR: Final = ("input_tokens", "output_tokens", "images", "audio_ms", "characters", "searches")
"""What of the counts is paid for by itself; the others are parts of these."""
_facts_of = attrgetter("attempt", "status", "price_version", *PAID_FOR)


def _sums_of(events: Sequence[Event]) -> Sums:
    """Column by column: under load hundreds of events have the same place."""
    columns = list(zip(*map(_figures_of, events), strict=True))
    attempts, statuses, versions, *counts = zip(*map(_facts_of, events), strict=True)
    return (
        attempts.count(1),
        len(events),
        sum(map(statuses.count, FAILED)),
        statuses.count("unknown"),
        statuses.count("cancelled"),
        sum(map(is_unpriced, versions, *counts)) if None in versions else 0,
        *map(sum, columns),
        *map(max, columns[-2:]),
    )


_HOW: Final[tuple[Callable[[int, int], int], ...]] = (*(add for _ in SUMS), *(max for _ in _BOUNDS))


def _joined(one: Sums, other: Sums) -> Sums:
    return tuple(how(a, b) for how, a, b in zip(_HOW, one, other, strict=True))
