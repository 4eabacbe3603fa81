"""Which versions of SQLite can lose writes when several processes share a file."""

from __future__ import annotations

from typing import Final

from ostiary.db.database import Database

_BUGGY: Final = ((3, 7, 0), (3, 51, 2))
_MENDED: Final = frozenset({(3, 44, 6), (3, 50, 7)})

Version = tuple[int, ...]


def sqlite_version(database: Database) -> Version | None:
    """The version that is loaded; None for another database."""
    if not database.is_sqlite:
        return None
    return tuple(getattr(database.engine.dialect.loaded_dbapi, "sqlite_version_info", ()))


def has_wal_bug(version: Version) -> bool:
    """Whether two connections that write at the same moment can damage a file in WAL mode: the WAL-reset bug."""
    low, high = _BUGGY
    return low <= version <= high and version not in _MENDED


def warning(database: Database) -> str | None:
    """What a person should know of the version that is loaded."""
    version = sqlite_version(database)
    if version is None or not has_wal_bug(version):
        return None
    return (
        f"SQLite {'.'.join(map(str, version))} has the WAL-reset bug, mended in 3.51.3: rarely, two processes that "
        "write at the same moment damage the file. Keep backups, use a newer Python, or PostgreSQL."
    )
