"""Times on the command line are so long ago, or a date in UTC unless it says otherwise."""

from __future__ import annotations

import pytest

from ostiary.cli.periods import Moment, moment
from ostiary.clock import iso

NOW = 1_795_200_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-20", "2026-11-20T00:00:00Z"),
        (" 2026-11-20T18:00 ", "2026-11-20T18:00:00Z"),
        ("2026-11-20T18:00Z", "2026-11-20T18:00:00Z"),
        ("2026-11-20T18:00:30+02:00", "2026-11-20T16:00:30Z"),
        ("20261120", "2026-11-20T00:00:00Z"),
        ("1970-01-01", "1970-01-01T00:00:00Z"),
    ],
)
def test_a_date(text: str, said: str) -> None:
    assert iso(moment(text).at(NOW)) == said


def test_so_long_ago() -> None:
    assert moment("90s").at(NOW) == NOW - 90_000
    assert moment("30d") == Moment(30 * 86_400_000, is_ago=True)
    assert moment("99999y").at(NOW) == 0


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "0d", "-1d", "2026-13-01", "2026-02-30", "20-11-2026", "1969-12-31", "9999-12-31", "1.5h", "now"],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|out of range"):
        moment(text)
