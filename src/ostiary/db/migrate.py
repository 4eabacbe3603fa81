"""Brings the database to this version's schema, under a lock, with a copy first."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sqlalchemy import Connection, inspect, text

from ostiary.db import schema
from ostiary.db.database import Database, copy_sqlite
from ostiary.errors import CannotStart, Refusal

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0012"
"""The newest revision. Stated, so that a start at head need not load Alembic; a test compares."""
_LOCK = 0x0571A58
_GUARD_AND_WORK = 2
_LONGEST_S = 86_400
"""For one step on PostgreSQL, or for another gateway's: a table of years takes longer than any statement of a call."""


async def migrate(database: Database) -> None:
    """Apply what is missing. Refuses a schema that is newer, foreign or half made, and says what to do."""
    if database.path is not None:
        make_folder(database.path.parent)
        async with file_lock(database.path.with_name(database.path.name + ".migrate.lock")):
            await _apply(database)
        return
    patient = database.beside(_GUARD_AND_WORK, _LONGEST_S)
    try:
        async with patient.read() as guard:
            await guard.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            try:
                await _apply(patient)
            finally:
                await guard.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
    finally:
        await patient.close()


async def _apply(database: Database) -> None:
    async with database.read() as tx:
        found = await tx.run_sync(_revision)
    if found == HEAD:
        return
    copy = database.path.with_name(f"{database.path.name}.before-{HEAD}") if found and database.path else None
    if copy is not None and database.path is not None:
        await asyncio.to_thread(copy_sqlite, database.path, copy)
    try:
        async with database.transaction() as tx:
            await tx.run_sync(_upgrade)
    except Refusal as refusal:
        where = f" A copy from before lies at {copy}." if copy else ""
        raise CannotStart(
            f"The schema could not be brought from {found or 'nothing'} to {HEAD}; nothing was changed.{where} "
            f"The database said: {refusal.__cause__ or refusal}"
        ) from None


def make_folder(folder: Path) -> None:
    """Make a folder that is about to hold a database; what is in the way is said to a person."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CannotStart(f"The folder {folder} cannot be made: {error.strerror}.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CannotStart(f"The folder {folder} cannot be written to.")


def _revision(connection: Connection) -> str | None:
    """The revision the database is at, None for an empty one."""
    tables = set(inspect(connection).get_table_names())
    ours = tables & set(schema.metadata.tables)
    if "alembic_version" not in tables:
        if ours:
            raise CannotStart(
                f"The database holds {', '.join(sorted(ours)[:3])} … but no schema version: "
                "it is half made or not Ostiary's. Restore a backup, or give an empty database "
                "by OSTIARY_DATABASE_URL or --data-dir."
            )
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found is None and ours:
        raise CannotStart("The database's schema version is empty: a migration was cut off. Restore a backup.")
    if found is not None and found > HEAD:
        raise CannotStart(
            f"The database was made by a newer Ostiary (schema {found}, this one knows {HEAD}). Upgrade Ostiary."
        )
    missing = set(schema.metadata.tables) - tables
    if found == HEAD and missing:
        raise CannotStart(f"The database says schema {HEAD} but lacks {', '.join(sorted(missing))}. Restore a backup.")
    return found


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - a tenth of a second that a start at head need not pay

    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def alembic_config() -> Config:
    """Alembic's configuration; there is no ini file."""
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


def open_lock(path: Path) -> TextIO:
    """The file of a lock, which may hold a word of who has it. Raises CannotStart when it cannot be opened."""
    try:
        return path.open("a+")
    except OSError as error:
        raise CannotStart(
            f"The file {path} cannot be written to: {error.strerror}. Run commands as the user who serves, and give "
            "that user what lies in this folder."
        ) from None


@asynccontextmanager
async def file_lock(path: Path) -> AsyncIterator[None]:
    """One at a time on this machine; waits beside the loop, not on it."""
    with open_lock(path) as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield
