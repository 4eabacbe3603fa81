"""What a key has left, in words: as its provider said last, and nothing of what is over (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ostiary.clock import SECOND_MS, iso
from ostiary.vault.quota_store import QuotaRow

_SPANS: Final = {"minute": "a minute", "hour": "an hour", "day": "a day"}
_FRESH_MS: Final = 3_600 * SECOND_MS
"""How long it counts where nobody says when there is more."""


def current(rows: Iterable[QuotaRow], at: int) -> list[QuotaRow]:
    """Those that still say something: once a limit is reset, nobody knows until the next answer."""
    return [row for row in rows if at < (row.heard_at + _FRESH_MS if row.resets_at is None else row.resets_at)]


def thing_of(row: QuotaRow) -> str:
    """What is limited: `requests`, `tokens a day`, `input tokens`."""
    thing, _, span = row.what.rpartition("-")
    return f"{thing} {_SPANS[span]}" if thing and span in _SPANS else row.what.replace("-", " ")


def amount_of(row: QuotaRow) -> str:
    """How much of it: `12 of 100 requests`."""
    return f"{row.remaining:,}{'' if row.most is None else f' of {row.most:,}'} {thing_of(row)}"


def in_words(row: QuotaRow) -> str:
    """All of it, as a line."""
    until = "" if row.resets_at is None else f" until {iso(row.resets_at)}"
    return f"{row.model}: {amount_of(row)} left{until}, as {row.gateway} heard at {iso(row.heard_at)}"
