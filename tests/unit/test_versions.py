"""Which versions of SQLite are warned of."""

from __future__ import annotations

import pytest

from ostiary.db.database import Database
from ostiary.db.versions import has_wal_bug, sqlite_version, warning


@pytest.mark.parametrize(
    ("version", "is_bad"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 44, 7), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_the_wal_reset_bug(version: tuple[int, ...], *, is_bad: bool) -> None:
    assert has_wal_bug(version) is is_bad


def test_postgresql_is_not_warned_of() -> None:
    database = Database("postgresql://u@h/d")
    assert (sqlite_version(database), warning(database)) == (None, None)
