"""The periods that people pick on pages, as they stand in addresses (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from ostiary.clock import DAY_MS, day_of, moment
from ostiary.dashboard.forms import Form
from ostiary.errors import Refusal

CUSTOM: Final = "custom"
WORDS: Final[Mapping[str, str]] = {
    "1h": "Last hour",
    "24h": "Last 24 hours",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "90d": "Last 90 days",
    "month": "This month",
    "all": "All time",
    CUSTOM: "From … to …",
}
_HOURS: Final = {"1h": 1, "24h": 24}
_DAYS: Final = {"7d": 7, "30d": 30, "90d": 90}
_HOUR_MS: Final = DAY_MS // 24
_LONGEST_DAYS: Final = 400


@dataclass(frozen=True, slots=True)
class Period:
    """A span of time; `until_at` None goes on. `since` and `until` are the dates that were typed."""

    name: str
    since_at: int
    until_at: int | None = None
    since: str = ""
    until: str = ""

    @property
    def words(self) -> str:
        """As it is spoken of."""
        if self.name != CUSTOM:
            return WORDS[self.name]
        return f"{self.since or 'the beginning'} to {self.until or 'today'}"


def read(query: Form, at: int, usual: str, *, bounded: bool = False) -> Period:
    """What was picked, or the usual one; refuses dates that are none. UTC days are whole: today is one of them.

    `bounded` refuses what is longer than a page can draw.
    """
    since, until = query.text("since"), query.text("until")
    name = query.text("period") or (CUSTOM if since or until else usual)
    if name in _HOURS:
        return Period(name, at - _HOURS[name] * _HOUR_MS)
    if name in _DAYS:
        return Period(name, (day_of(at) - _DAYS[name] + 1) * DAY_MS)
    if name == "month":
        first = moment(at).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return Period(name, int(first.timestamp()) * 1_000)
    if name == CUSTOM:
        return _custom(since, until, at, bounded=bounded)
    return Period("all", 0) if name == "all" and not bounded else read(Form(), at, usual)


def _custom(since: str, until: str, at: int, *, bounded: bool) -> Period:
    first = _date(since, "since")
    last = _date(until, "until")
    if bounded and first is None:
        first = (day_of(at) - 29) * DAY_MS
    end = None if last is None else last + DAY_MS
    if first is not None and end is not None and end <= first:
        raise Refusal("invalid_field", "This is before the first day.", param="until")
    if bounded and (end or at) - (first or 0) > _LONGEST_DAYS * DAY_MS:
        raise Refusal("invalid_field", f"Choose {_LONGEST_DAYS} days at most.", param="since")
    return Period(CUSTOM, first or 0, end, since, until)


def _date(text: str, name: str) -> int | None:
    if not text:
        return None
    try:
        found = date.fromisoformat(text)
        return int(datetime(found.year, found.month, found.day, tzinfo=UTC).timestamp()) * 1_000
    except (ValueError, OverflowError):
        raise Refusal("invalid_field", "Give a date such as 2026-11-20.", param=name) from None
