"""SQLite or PostgreSQL: `read()` and `transaction()`; nothing else commits."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from sqlalchemy import Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ostiary.errors import CannotStart, Refusal
from ostiary.secret import Secret

Transaction = AsyncConnection
"""An open transaction; whoever is handed one does not commit it."""

T = TypeVar("T")

_BUSY_MS = 5_000
_ASK_MS = 20
"""For so long SQLite waits for its write lock by itself, asking less and less often, before it is asked anew."""
_POOL = 10
_COMMAND_S = 30
_STEPS = 100_000
"""Of SQLite's machine, between two looks at the clock: about a millisecond."""
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_CHAIN_KEY = "ostiary_chain_key"
_WRITES = "ostiary_writes_until"
_PATIENCE = "ostiary_patience_ms"
_GONE = "The database is not available. Nothing was changed; try again shortly."


class Database:
    """One pool of connections to the one authority. Losing it is a 503 to callers, and passes by itself."""

    def __init__(self, url: str, size: int = _POOL, statement_s: float | None = None) -> None:
        """`url` is `sqlite:///path` or `postgresql://…`; nothing is opened before first use.

        With `statement_s`, what reads for longer is ended, as if the database were away.
        """
        self._url = url
        self._statement_s = statement_s
        try:
            parsed = make_url(url)
            driver = _DRIVERS[parsed.get_backend_name()]
        except Exception as error:
            known = "sqlite:///PATH or postgresql://USER@HOST/NAME"
            raise CannotStart(f"OSTIARY_DATABASE_URL is not understood. Give it as {known}.") from error
        self.is_sqlite = driver.startswith("sqlite")
        if self.is_sqlite and not parsed.database:
            raise CannotStart("OSTIARY_DATABASE_URL names no file. Give it as sqlite:///PATH.")
        self.path = Path(parsed.database) if self.is_sqlite and parsed.database else None
        options: dict[str, Any] = {"pool_size": size, "max_overflow": 0, "pool_timeout": _BUSY_MS / 1000}
        options["pool_use_lifo"] = True  # few connections are busy, and each keeps large statements prepared
        options["hide_parameters"] = True  # an error is logged, and what was being stored is not for logs
        if self.is_sqlite:
            options["connect_args"] = {"timeout": _BUSY_MS / 1000}
        else:
            options["pool_pre_ping"] = True
            options["connect_args"] = {"timeout": _BUSY_MS / 1000, "command_timeout": statement_s or _COMMAND_S}
        # asyncpg takes libpq's `host=` (a socket directory) from the query string, so the URL passes through whole.
        self.engine: AsyncEngine = create_async_engine(parsed.set(drivername=driver), **options)
        self._unfinished: set[asyncio.Task[Any]] = set()
        self.is_closing = False
        """Whoever does much in many transactions ends between two of them."""
        self._line = asyncio.Lock()
        self.chain_key: Secret | None = None
        """Proves rows of the audit log; set once the vault is open, and carried by every transaction from then on."""
        if self.is_sqlite:
            _tune_sqlite(self.engine)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """A consistent view for reading; what is written in it is rolled back."""
        with _said_as_refusal():
            async with self.engine.connect() as connection, self._bounded(connection):
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Everything or nothing: commits at the end, rolls back when left by an exception.

        On SQLite it takes the write lock at once: a deferred read-then-write fails busy whatever the timeout.
        """
        with _said_as_refusal():
            async with self._turn() as until:
                options = {_WRITES: until, _CHAIN_KEY: self.chain_key}
                async with self.engine.execution_options(**options).begin() as connection:
                    yield connection

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[float]:
        """Until when SQLite's one write lock is waited for: here in the order of coming, and without a connection.

        Else each of many would ask for it by a connection of its own, who came last most often, and nothing could be
        read meanwhile.
        """
        until = time.monotonic() + _BUSY_MS / 1000
        if not self.is_sqlite:
            yield until
            return
        async with asyncio.timeout(_BUSY_MS / 1000):
            await self._line.acquire()
        try:
            yield until
        finally:
            self._line.release()

    @asynccontextmanager
    async def _bounded(self, connection: AsyncConnection) -> AsyncIterator[None]:
        """End what takes too long. PostgreSQL's driver does so by itself; SQLite is asked as it goes."""
        if self._statement_s is None or not self.is_sqlite:
            yield
            return
        raw: Any = (await connection.get_raw_connection()).driver_connection
        now = asyncio.get_running_loop().time
        until = now() + self._statement_s
        await raw.set_progress_handler(lambda: now() > until, _STEPS)
        try:
            yield
        finally:
            await raw.set_progress_handler(None, 0)

    def beside(self, size: int, statement_s: float) -> Database:
        """The same database by connections of its own, for who must never keep calls waiting for theirs."""
        other = Database(self._url, size, statement_s)
        other.chain_key, other._line = self.chain_key, self._line
        return other

    async def fold_log(self) -> bool:
        """Fold SQLite's log into its file and empty it, so that nothing old stays there; False while others read."""
        if not self.is_sqlite:
            return True
        async with self.engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            connection.info.pop(_PATIENCE, None)
            await raw.execute(f"PRAGMA busy_timeout={_BUSY_MS}")  # type: ignore[union-attr]  # aiosqlite's
            cursor = await raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]  # aiosqlite's
            row = await cursor.fetchone()
            await cursor.close()
            return row is not None and row[0] == 0

    async def to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that must not be cut off in the middle: it goes on when whoever waits for it is cancelled.

        A transaction that is cancelled between two statements can keep SQLite's write lock until the last reference to
        its cursor is gone, and what it was to note in memory afterwards would be lost.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._unfinished.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has seen it; whoever was cancelled does not want it

    async def settle(self) -> None:
        """Return once all that was to go on to its end has ended, whoever has waited for it."""
        self.is_closing = True
        while self._unfinished:
            await asyncio.wait(self._unfinished)

    async def close(self) -> None:
        """Give back every connection, once what is under way has ended."""
        await self.settle()
        await self.engine.dispose()


def chain_key_of(tx: Transaction) -> Secret:
    """The key that a transaction carries. Without it no deed is done: its row could never be proven."""
    carried = tx.sync_connection.get_execution_options().get(_CHAIN_KEY) if tx.sync_connection else None
    if not isinstance(carried, Secret):
        raise RuntimeError("a deed needs an open vault: Database.chain_key is not set, or this is no transaction()")  # noqa: TRY004 - nobody gave a wrong type
    return carried


class _said_as_refusal:  # noqa: N801 - used like a function
    """Turns the loss of the database into a 503; what the caller did wrong in SQL passes as it is."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, IntegrityError | ProgrammingError):
            return
        # Errors while connecting come from the driver as they are; it is not imported where it is not used.
        if isinstance(error, DBAPIError | PoolTimeout | OSError) or type(error).__module__.startswith("asyncpg."):
            raise Refusal("service_unavailable", _GONE) from error


def _tune_sqlite(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: object) -> None:  # noqa: ANN401 - SQLAlchemy's adapted connection
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA secure_delete=ON")  # what is sealed anew leaves nothing of what it was before
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's Connection, synchronous side
        until = connection.get_execution_options().get(_WRITES)
        if until is None:
            _be_patient(connection, _BUSY_MS)
            connection.exec_driver_sql("BEGIN")
        else:
            _be_patient(connection, _ASK_MS)
            _begin_writing(connection, until)


def _be_patient(connection: Any, ms: int) -> None:  # noqa: ANN401 - as above
    """How long SQLite waits by itself for whoever has what it needs."""
    if connection.info.get(_PATIENCE) != ms:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={ms}")
        connection.info[_PATIENCE] = ms


def _begin_writing(connection: Any, until: float) -> None:  # noqa: ANN401 - as above
    """Take the write lock, asking for it every few milliseconds.

    SQLite itself soon asks every 100 ms only: who has just come in is served before who waits, and of several processes
    one that writes again and again leaves the others no moment at which they ask.
    """
    while True:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0)
            if code & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        else:
            return


def copy_sqlite(source: Path, target: Path) -> None:
    """A consistent copy of a database that may be in use."""
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)
    old.close()
    new.close()


class _Insert(Protocol):
    """SQLAlchemy's, of either dialect."""

    def on_conflict_do_nothing(self) -> Any: ...  # noqa: ANN401 - an executable
    def on_conflict_do_update(self, *, index_elements: Sequence[str], set_: Mapping[str, object]) -> Any: ...  # noqa: ANN401 - an executable


def insert_new(tx: Transaction, table: Table, values: Mapping[str, object]) -> Any:  # noqa: ANN401 - an executable
    """An INSERT that leaves an existing row alone; on PostgreSQL somebody may be deleting that row at this moment."""
    return _insert(tx, table, values).on_conflict_do_nothing()


def insert_or_lock(tx: Transaction, table: Table, values: Mapping[str, object], key: str) -> Any:  # noqa: ANN401 - an executable
    """An INSERT that locks an existing row as it is: when it is done there is one, and nobody deletes it meanwhile."""
    return _insert(tx, table, values).on_conflict_do_update(index_elements=[key], set_={key: values[key]})


def insert_or_set(tx: Transaction, table: Table, key: Mapping[str, object], news: Mapping[str, object]) -> Any:  # noqa: ANN401 - an executable
    """An INSERT that writes the news into an existing row."""
    return _insert(tx, table, {**key, **news}).on_conflict_do_update(index_elements=list(key), set_=news)


def _insert(tx: Transaction, table: Table, values: Mapping[str, object]) -> _Insert:
    dialect = postgresql if tx.dialect.name == "postgresql" else sqlite
    return cast("_Insert", dialect.insert(table).values(**values))
