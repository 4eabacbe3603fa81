"""Copies the whole database to a file while it is in use, and back: SQLite by pages, PostgreSQL by rows."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3  # noqa: TID251 - its backup API, which SQLAlchemy does not have
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import JSON, Column, MetaData, Table, Text, bindparam, cast, func, insert, inspect, select, text
from sqlalchemy.exc import DBAPIError

from ostiary.db import changes, schema
from ostiary.db.backup_file import Progress
from ostiary.db.database import Database, Transaction
from ostiary.db.migrate import migrate
from ostiary.errors import CannotStart, Refusal

_PAGES: Final = 500
_ROWS: Final = 1_000
_WAIT_S: Final = 5
_VERSION_TABLE: Final = "alembic_version"


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a copy: its schema, how many rows each table has, and every data key as it is wrapped."""

    schema: str
    rows: Mapping[str, int]
    wrapped: Sequence[tuple[str, int, str]]


# ---- out --------------------------------------------------------------------------------------------------------


async def copy_out(database: Database, target: Path, progress: Progress) -> dict[str, int]:
    """Copy everything, as of one moment, to a new SQLite file; the answer is how many rows each table had then."""
    if database.path is None:
        return await _copy_rows_out(database, target, progress)
    is_over = threading.Event()
    try:
        return await asyncio.to_thread(_copy_pages, database.path, target, progress, is_over)
    finally:
        is_over.set()  # whoever waited may have been interrupted: the thread must not go on alone


def _copy_pages(source: Path, target: Path, progress: Progress, is_over: threading.Event) -> dict[str, int]:
    def step(_status: int, remaining: int, total: int) -> None:
        if is_over.is_set():
            raise InterruptedError
        progress("copying", total - remaining, total)

    with closing(_open(source)) as old, closing(_open(target)) as new:
        new.execute("PRAGMA synchronous=OFF")  # it is checked and synced as a whole in the end
        old.execute("BEGIN")
        rows = _count(old)  # the first read fixes the moment: without it every write of a gateway would begin it anew
        old.backup(new, pages=_PAGES, progress=step)
        return rows


async def _copy_rows_out(database: Database, target: Path, progress: Progress) -> dict[str, int]:
    copy = file_database(target)
    try:
        await migrate(copy)
        async with database.read() as source:
            await source.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            rows = {table.name: await _count_rows(source, table) for table in schema.metadata.sorted_tables}
            done, total = 0, sum(rows.values())
            for table in schema.metadata.sorted_tables:
                async for part in _parts(source, table):
                    async with copy.transaction() as into:
                        await into.execute(insert(_plain(table)), part)
                    done += len(part)
                    progress("copying", done, total)
            return rows
    finally:
        await copy.close()


# ---- a copy -----------------------------------------------------------------------------------------------------


def file_database(path: Path) -> Database:
    """The SQLite database in a file of ours."""
    if "?" in str(path):
        raise CannotStart(f"{path.parent.parent} has a question mark in its name; choose another folder.")
    return Database(f"sqlite:///{path}")


def examine(path: Path, progress: Progress) -> Found:
    """Check every page of a copy and count what is in it; raises CannotStart when it is not whole."""
    progress("checking", 0, 0)
    try:
        with closing(_open(path)) as db:
            faults = [row[0] for row in db.execute("PRAGMA integrity_check(3)")]
            if faults != ["ok"]:
                raise CannotStart(f"The copy is damaged: {'; '.join(faults)}. Nothing was changed.")
            version = db.execute(f"SELECT version_num FROM {_VERSION_TABLE}").fetchone()  # noqa: S608 - our own name
            wrapped = db.execute("SELECT organization_id, version, wrapped FROM data_keys").fetchall()
            return Found(version[0] if version else "", _count(db), wrapped)
    except sqlite3.Error as error:
        raise CannotStart(f"The copy cannot be read: {error}. Nothing was changed.") from None


def make_single(path: Path) -> None:
    """Bring a copy that nobody has open into one file, without a log beside it, and onto the disk."""
    with closing(_open(path)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
    path.chmod(0o600)
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def said_plainly(what: str) -> Iterator[None]:
    """A disk that is full or not to be written to, in words; whoever leaves so has put nothing in its place."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _unwritten(what, error) from None
    except Refusal as refusal:
        if not isinstance(refusal.__cause__, DBAPIError):
            raise
        cause = refusal.__cause__.orig
        if isinstance(cause, sqlite3.Error):
            raise _unwritten(what, cause) from None
        raise CannotStart(f"{what} could not be written: {cause}. Nothing was changed.") from None


def _unwritten(what: str, error: sqlite3.Error | OSError) -> CannotStart:
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return CannotStart(f"{what} could not be written: {said}. Is the disk full? Nothing was changed.")


# ---- back -------------------------------------------------------------------------------------------------------


async def is_empty(database: Database) -> bool:
    """Whether nothing is there that a restore would replace."""
    if database.path is not None:
        return not database.path.exists() or database.path.stat().st_size == 0
    async with database.read() as tx:
        there = set(await tx.run_sync(lambda connection: inspect(connection).get_table_names()))
        ours = [table for table in schema.metadata.sorted_tables if table.name in there]
        return not any([await _count_rows(tx, table) for table in ours])


def put_in_place(fresh: Path, target: Path, kept: Path) -> None:
    """Let a whole, single file take the place of the SQLite database; the old one stays as `kept`.

    Refuses when anybody has it open. Killed in the middle, either the one or the other is there, and whole.
    """
    if target.exists():
        _close_off(target)
        _link(target, kept)
    for log in _logs_of(target):  # a log of an older database must never meet the new one
        if log.exists():
            log.replace(kept.with_name(kept.name + log.name.removeprefix(target.name)))
    fresh.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _close_off(path: Path) -> None:
    """Write the log into the file and remove it, which only works when nobody else has the database open."""
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as db:
            db.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise Refusal(
                "conflict", f"A gateway or a command has {path} open. Stop it first; nothing was changed."
            ) from None
        if error.sqlite_errorcode not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise  # a damaged one may be why it is restored: it is kept as it is


def _link(path: Path, kept: Path) -> None:
    try:
        os.link(path, kept)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        shutil.copy2(path, kept)


def _logs_of(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal")]


async def load(database: Database, source: Path, at: int, progress: Progress) -> None:
    """Replace every row of a PostgreSQL database by those of a copy of the same schema, all or nothing.

    The numbers of the change feed go on from where they were, and a gateway that slept through it hears of it.
    """
    await migrate(database)
    copy = file_database(source)
    tables = schema.metadata.sorted_tables
    try:
        async with copy.read() as rows, database.transaction() as tx:
            await tx.execute(text(f"SET LOCAL lock_timeout = '{_WAIT_S}s'"))
            await tx.execute(text(f"TRUNCATE {', '.join(table.name for table in tables)}"))
            counts = {table.name: await _count_rows(rows, table) for table in tables}
            done, total = 0, sum(counts.values())
            for table in tables:
                async for part in _parts(rows, table):
                    await tx.execute(_insert_plain(table), part)
                    done += len(part)
                    progress("restoring", done, total)
            for table in tables:
                await _count_on(tx, table)
            await changes.append(tx, "everything", None, "restore", at)
    finally:
        await copy.close()


async def _count_on(tx: Transaction, table: Table) -> None:
    """Have the database number new rows above those that were put in with numbers of their own."""
    column = table.autoincrement_column
    if column is None or column.type.python_type is not int:
        return
    sequence = (await tx.execute(select(func.pg_get_serial_sequence(table.name, column.name)))).scalar_one()
    if sequence is None:
        return
    last = (await tx.execute(text(f"SELECT last_value FROM {sequence}"))).scalar_one()  # noqa: S608 - its own name
    top = (await tx.execute(select(func.coalesce(func.max(column), 1)))).scalar_one()
    await tx.execute(select(func.setval(sequence, max(last, top))))


# ---- rows as they are stored ------------------------------------------------------------------------------------


async def _count_rows(tx: Transaction, table: Table) -> int:
    found: int = (await tx.execute(select(func.count()).select_from(table))).scalar_one()
    return found


async def _parts(tx: Transaction, table: Table) -> Any:  # noqa: ANN401 - an asynchronous iterator of lists of rows
    """The rows of a table, some at a time. JSON is passed on as the text it is: `null` and nothing are not the same."""
    columns = [cast(column, Text).label(column.name) if _is_json(column) else column for column in table.columns]
    found = await tx.stream(select(*columns).execution_options(yield_per=_ROWS))
    async for part in found.mappings().partitions():
        yield [dict(row) for row in part]


def _plain(table: Table) -> Table:
    """The same table as SQLite stores it, where JSON is text."""
    return Table(
        table.name,
        MetaData(),
        *(Column(column.name, Text if _is_json(column) else column.type) for column in table.columns),
    )


def _insert_plain(table: Table) -> Any:  # noqa: ANN401 - an executable
    json = {
        column.name: cast(bindparam(column.name, type_=Text), column.type)
        for column in table.columns
        if _is_json(column)
    }
    return insert(table).values(json) if json else insert(table)


def _is_json(column: Column[Any]) -> bool:
    return isinstance(column.type, JSON)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=_WAIT_S)


def _count(db: sqlite3.Connection) -> dict[str, int]:
    names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'").fetchall()
    counted = sorted(name for (name,) in names if name != _VERSION_TABLE)
    return {name: db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in counted}  # noqa: S608 - own names
