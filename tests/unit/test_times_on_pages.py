"""Times on pages: what is past is past in full, what is to come is told to the nearest."""

from __future__ import annotations

import pytest

from ostiary.clock import DAY_MS
from ostiary.dashboard.words import relative

NOW = 20_000 * DAY_MS
MINUTE = 60_000
HOUR = 60 * MINUTE


@pytest.mark.parametrize(
    ("away", "said"),
    [
        (30 * DAY_MS, "in 30 d"),
        (30 * DAY_MS - 1_000, "in 30 d"),
        (30 * DAY_MS - 20 * HOUR, "in 29 d"),
        (7 * DAY_MS - 1_000, "in 7 d"),
        (90 * DAY_MS - 1_000, "in 3 mo"),
        (365 * DAY_MS - 1_000, "in 1 y"),
        (DAY_MS - 1_000, "in 1 d"),
        (23 * HOUR - 1, "in 23 h"),
        (HOUR - 1_000, "in 1 h"),
        (59 * MINUTE, "in 59 min"),
        (5 * MINUTE - 1, "in 5 min"),
        (MINUTE, "in 1 min"),
        (50_000, "in 1 min"),
        (44_000, "just now"),
        (-44_000, "just now"),
        (-50_000, "1 min ago"),
        (-(HOUR - 1), "59 min ago"),
        (-(DAY_MS - 1), "23 h ago"),
        (-(30 * DAY_MS - 1), "29 d ago"),
        (-30 * DAY_MS, "1 mo ago"),
    ],
)
def test_a_time_is_told_as_people_would(away: int, said: str) -> None:
    assert relative(NOW + away, NOW) == said
