"""Many rows in few statements, handed to the driver as they are, and on SQLite in one step of its thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError

from ostiary.db.database import Transaction

_SIZES = (500, 50, 16, 4, 1)
"""Few sizes, so that the statements stay prepared; 500 rows have fewer placeholders than SQLite takes."""

T = TypeVar("T")
Row = tuple[Any, ...]
Step = tuple[str, Row]


class Insert:
    """An INSERT of any number of rows. SQLAlchemy's own way would cost a tenth of a whole call for each event."""

    def __init__(self, table: str, columns: Sequence[str], tail: str = "") -> None:
        """`tail` is what follows the values, such as ON CONFLICT …; rows come in the order of `columns`."""
        self._head = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608 - our own columns
        self._columns = len(columns)
        self._tail = tail
        self._sqlite = {size: self._statement(", ".join([f"({self._marks('?')})"] * size)) for size in _SIZES}
        self._postgresql = self._statement(f"({self._marks('${}')})")

    async def run(self, tx: Transaction, rows: Sequence[Row]) -> None:
        """Insert rows at once, in their order."""
        if rows and tx.dialect.name == "postgresql":
            await tx.exec_driver_sql(self._postgresql, list(rows))
        elif rows:
            await _in_one_step(tx, self.steps(rows, _itself))

    async def run_of(self, tx: Transaction, things: Sequence[T], row_of: Callable[[T], Row]) -> None:
        """As `run`, of what a row can be made of; where it fails, none is inserted and the transaction goes on.

        On SQLite the rows are made beside the loop, which has calls to serve.
        """
        if tx.dialect.name == "postgresql":
            async with tx.begin_nested():
                await self.run(tx, [row_of(one) for one in things])
        elif things:
            await _in_one_step(tx, self.steps(things, row_of))

    def steps(self, things: Sequence[T], row_of: Callable[[T], Row]) -> Iterator[Step]:
        """What SQLite is told, one statement after another, as it is asked for them."""
        start = 0
        for size in _SIZES:
            while len(things) - start >= size:
                rows = map(row_of, things[start : start + size])
                yield self._sqlite[size], tuple(chain.from_iterable(rows))
                start += size

    def _marks(self, mark: str) -> str:
        return ", ".join(mark.format(number) for number in range(1, self._columns + 1))

    def _statement(self, values: str) -> str:
        return f"{self._head}{values} {self._tail}".rstrip()


async def run_all(tx: Transaction, made: Callable[[], Iterable[tuple[Insert, Sequence[Row]]]]) -> None:
    """Several of them, in the order in which they are made: on SQLite beside the loop."""
    if tx.dialect.name == "postgresql":
        for insert, rows in made():
            await insert.run(tx, rows)
    else:
        await _in_one_step(tx, (step for insert, rows in made() for step in insert.steps(rows, _itself)))


async def run_each(tx: Transaction, statement: str, rows: Sequence[Row]) -> None:
    """Run a statement, written with `?`, once for each row."""
    if not rows:
        return
    if tx.dialect.name != "postgresql":
        await _in_one_step(tx, ((statement, row) for row in rows))
        return
    first, *rest = statement.split("?")
    statement = first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
    await tx.exec_driver_sql(statement, list(rows))


def _itself(row: Row) -> Row:
    return row


async def _in_one_step(tx: Transaction, steps: Iterable[Step]) -> None:
    """SQLite works in a thread, and every step it makes ends with a turn of the loop.

    With many calls open a turn takes tens of milliseconds, and SQLAlchemy makes three steps of a statement: a batch of
    the ledger took a second of waiting for turns, and calls came faster than they could be written.
    """
    if not tx.in_transaction():
        raise RuntimeError("many rows go into a Database.transaction(): alone they would be committed at once")
    raw: Any = (await tx.get_raw_connection()).driver_connection
    try:
        await raw._execute(_all_or_none, raw._conn, steps)  # noqa: SLF001 - aiosqlite says nothing of several at once
    except sqlite3.Error as error:
        raise DBAPIError.instance(None, None, error, sqlite3.Error, hide_parameters=True, dialect=tx.dialect) from error


def _all_or_none(db: sqlite3.Connection, steps: Iterable[Step]) -> None:
    db.execute("SAVEPOINT bulk")
    try:
        for statement, values in steps:
            db.execute(statement, values)
    except BaseException:
        if db.in_transaction:  # a full disk may have ended it already
            db.execute("ROLLBACK TO bulk")
        raise
    finally:
        if db.in_transaction:
            db.execute("RELEASE bulk")
