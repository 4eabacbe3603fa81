"""Days as sums of spans: each day wanted counts once, any other not at all, and the spans are few."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ostiary.ledger.rollup_store import SPANS
from ostiary.ledger.series_store import parts_of

DAYS = st.integers(-1_000, 30_000)


@given(first=DAYS, length=st.integers(-10, 800))
def test_parts_are_the_days_asked_for(first: int, length: int) -> None:
    days: Counter[int] = Counter()
    for part in parts_of(first, first + length):
        assert part.length in SPANS
        for day in range(part.first * part.length, part.end * part.length):
            days[day] += part.sign
    assert {day: count for day, count in days.items() if count} == dict.fromkeys(range(first, first + length), 1)


@given(first=DAYS, length=st.integers(0, 800))
def test_they_are_few(first: int, length: int) -> None:
    spans = sum(part.end - part.first for part in parts_of(first, first + length))
    assert spans <= length // 64 + 14, "at both ends two of each that is shorter, and one longest that is cut"
