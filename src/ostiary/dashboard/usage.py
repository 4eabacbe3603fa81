"""Usage: what was spent and used day by day, by what; as a picture, as a table, and as a file."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from ostiary.clock import DAY_MS, day_of, iso, moment
from ostiary.dashboard import answers, periods, trace_reach
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.periods import Period
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.ledger import series
from ostiary.ledger.series import DRAWN, Days, Face, Line, Picture
from ostiary.money import show_usd

DEED: Final = "usage.show"
PERIODS: Final = ("7d", "30d", "90d", "month", "custom")
USUAL: Final = "30d"
FACES: Final[dict[Face, str]] = {
    "model": "Model",
    "agent_key": "Agent key",
    "provider": "Provider",
    "provider_key": "Provider key",
    "member": "Member",
}
MEASURES: Final = {"cost": "Spend", "tokens": "Tokens", "requests": "Calls"}
_ROWS: Final = 50
_ROWS_OF_A_FILE: Final = 100_000
_LONGEST: Final = 200
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


async def show(visit: Visit) -> Answer:
    """The page; as a part of it when a script asks."""
    period, wrong = _period(visit)
    face = face_of(visit)
    keys, picture = None, None
    if period is not None:
        await visit.hall.flush()
        async with visit.reading() as tx:
            keys = await trace_reach.keys_of(visit, tx, DEED, visit.query.text("agent_key")[: _LONGEST + 1])
            picture = await series.look(tx, visit.home, days_of(period, visit.at), face, keys=keys, most=_ROWS)
    measure = visit.query.text("show") if visit.query.text("show") in MEASURES else "cost"
    known: dict[str, Any] = {
        "picture": picture,
        "period": period,
        "wrong": wrong,
        "face": face,
        "face_word": FACES[face],
        "measure": measure,
        "measure_word": MEASURES[measure],
        "chart": chart_of(picture, measure) if picture else None,
        "is_own": not visit.may(DEED),
    }
    if visit.is_partial:
        return visit.page("usage/part.html", **known)
    choices: dict[str, Any] = {"faces": _faces(visit), "measures": MEASURES, "periods": PERIODS, "usual": USUAL}
    return visit.page("usage/show.html", **known, **choices, period_words=periods.WORDS)


def _faces(visit: Visit) -> dict[Face, str]:
    """A member is shown their own keys only: there is one member."""
    return {face: word for face, word in FACES.items() if face != "member" or visit.may(DEED)}


def face_of(visit: Visit) -> Face:
    """What it is summed by."""
    asked = visit.query.text("by")
    return next((face for face in _faces(visit) if face == asked), "model")


def _period(visit: Visit) -> tuple[Period | None, Wrong]:
    try:
        return periods.read(visit.query, visit.at, USUAL, bounded=True), Wrong()
    except Refusal as refusal:
        return None, visit.refused(refusal)


def days_of(period: Period, at: int) -> Days:
    """Its whole UTC days, today the last."""
    end = day_of(at) + 1 if period.until_at is None else min(day_of(period.until_at), day_of(at) + 1)
    first = day_of(period.since_at)
    return Days(first, max(end, first))


# ---- the picture ------------------------------------------------------------------------------------------------


def chart_of(picture: Picture, measure: str) -> dict[str, Any]:
    """What `charts.ts` draws: a stack for each day, the dearest things and all the rest."""
    days = range(*picture.days)
    shown = [one for one in picture.lines[:DRAWN] if one.id in picture.drawn]
    parts = [(one.name, picture.drawn[one.id]) for one in shown]
    data = [
        {"name": _clipped(name), "data": [_value(by_day.get(day), measure) for day in days]} for name, by_day in parts
    ]
    rest = [
        _value(picture.by_day.get(day), measure) - sum(_value(by_day.get(day), measure) for _, by_day in parts)
        for day in days
    ]
    if any(value > 0 for value in rest) or not data:
        data.append({"name": "other" if data else "all", "data": [max(value, 0) for value in rest]})
    return {
        "labels": [moment(day * DAY_MS).strftime("%b %-d") for day in days],
        "unit": "usd" if measure == "cost" else "count",
        "series": data,
    }


def _value(line: Line | None, measure: str) -> int:
    """Amounts in nano-dollars: the script that draws them writes the dollars."""
    if line is None:
        return 0
    value: int = line.cost_nano if measure == "cost" else getattr(line, measure)
    return value


def _clipped(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"  # noqa: PLR2004 - as wide as a legend is


# ---- the file ---------------------------------------------------------------------------------------------------

_HEAD: Final = (
    *("day", "by", "id", "name", "calls", "attempts", "errors", "input_tokens", "output_tokens"),
    *("cache_read_tokens", "cost_usd"),
)


async def download(visit: Visit) -> Answer:
    """The same by day as CSV, whole."""
    period = periods.read(visit.query, visit.at, USUAL, bounded=True)
    face, days = face_of(visit), days_of(period, visit.at)
    await visit.hall.flush()
    async with visit.reading() as tx:
        keys = await trace_reach.keys_of(visit, tx, DEED, visit.query.text("agent_key")[: _LONGEST + 1])
        rows = await series.list_days(tx, visit.home, days, face, keys=keys, most=_ROWS_OF_A_FILE + 1)
    if len(rows) > _ROWS_OF_A_FILE:
        raise Refusal("invalid_request", f"This has more than {_ROWS_OF_A_FILE:,} rows. Choose a shorter period.")
    name = f"usage-by-{face.replace('_', '-')}-{_date(days.first)}-to-{_date(days.end - 1)}.csv"
    # Beside the loop, which has calls to serve: a hundred thousand rows take seconds.
    text = await asyncio.to_thread(_csv, _HEAD, (_row(day, line) for day, line in rows))
    return answers.file(text, "text/csv; charset=utf-8", name)


def _row(day: int, line: Line) -> Sequence[object]:
    counts = (line.requests, line.attempts, line.errors, line.input_tokens, line.output_tokens, line.cache_read_tokens)
    return (_date(day), line.kind, _cell(line.id), _cell(line.name), *counts, show_usd(line.cost_nano))


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue().encode()


def _cell(text: str) -> str:
    """Names come from people: none of them is to be a formula in whoever's spreadsheet."""
    return f"'{text}" if text.startswith(_FORMULA) else text


@lru_cache(maxsize=512)
def _date(day: int) -> str:
    return iso(day * DAY_MS)[:10]
