"""A time is written so that everybody reads the same time again, whatever its year."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from ostiary.clock import date_of, iso, month_of
from ostiary.dashboard import words

_FIRST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * 1_000
_LAST = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1_000


@given(st.integers(min_value=_FIRST, max_value=_LAST))
@example(_FIRST)
@example(-34_269_000_000_000)
def test_a_time_is_read_as_it_was_written(at: int) -> None:
    said = iso(at)
    assert len(said) == len("2026-11-20T22:53:17Z")
    assert datetime.fromisoformat(said).timestamp() == at // 1_000
    assert said.startswith(date_of(at))
    assert said.startswith(month_of(at))
    assert words.exact(at) == said.replace("T", " ").replace("Z", " UTC")
    assert words.date(at) == date_of(at)
