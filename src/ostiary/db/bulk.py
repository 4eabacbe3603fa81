"""Many rows in few statements, handed to the driver as they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from ostiary.db.database import Transaction

_SIZES = (500, 50, 5, 1)
"""Few sizes, so that the statements stay prepared; 500 rows have fewer placeholders than SQLite takes."""

Row = tuple[Any, ...]


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
        """Insert rows at once, in their order.

        SQLite works in a thread, which must win the interpreter back after every step it makes; under load that takes
        milliseconds, so hundreds of rows are one step. PostgreSQL's driver sends many rows well by itself.
        """
        if not rows:
            return
        if tx.dialect.name == "postgresql":
            await tx.exec_driver_sql(self._postgresql, list(rows))
            return
        start = 0
        for size in _SIZES:
            while len(rows) - start >= size:
                flat = tuple(chain.from_iterable(rows[start : start + size]))
                await tx.exec_driver_sql(self._sqlite[size], flat)
                start += size

    def _marks(self, mark: str) -> str:
        return ", ".join(mark.format(number) for number in range(1, self._columns + 1))

    def _statement(self, values: str) -> str:
        return f"{self._head}{values} {self._tail}".rstrip()


async def run_each(tx: Transaction, statement: str, rows: Sequence[Row]) -> None:
    """Run a statement, written with `?`, once for each row, as one step of the driver."""
    if not rows:
        return
    if tx.dialect.name == "postgresql":
        first, *rest = statement.split("?")
        statement = first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
    await tx.exec_driver_sql(statement, list(rows))
