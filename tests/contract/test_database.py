"""What the database promises to the rooms above, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, select, text

from ostiary.db import changes, schema
from ostiary.db.database import _POOL, Database
from ostiary.db.migrate import _LOCK, HEAD, migrate
from ostiary.errors import CannotStart, Refusal
from ostiary.orgs import users
from tests.people import NOW, settle
from tests.servers.canaries import Canaries
from tests.servers.postgres import running

pytestmark = pytest.mark.anyio


async def test_a_transaction_left_by_an_error_changes_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as tx:
            await tx.execute(insert(schema.instance).values(name="x", value="1"))
            raise RuntimeError
    async with database.read() as tx:
        assert (await tx.execute(select(schema.instance.c.name))).all() == []


async def test_what_is_written_while_reading_is_rolled_back(database: Database) -> None:
    async with database.read() as tx:
        await tx.execute(insert(schema.instance).values(name="x", value="1"))
    async with database.read() as tx:
        assert (await tx.execute(select(schema.instance.c.name))).all() == []


async def test_many_read_then_write_transactions_at_once_all_pass(database: Database) -> None:
    async def deed(number: int) -> None:
        async with database.transaction() as tx:
            await changes.latest(tx)
            await asyncio.sleep(0.002)
            await changes.append(tx, "agent_key", None, f"k{number}", 1)

    await asyncio.gather(*(deed(number) for number in range(25)))
    async with database.read() as tx:
        heard = await changes.list_after(tx, 0)
    assert sorted(change.seq for change in heard) == [change.seq for change in heard]
    assert {change.id for change in heard} == {f"k{number}" for number in range(25)}


async def test_migrating_twice_and_at_once_is_harmless(database: Database, database_url: str) -> None:
    others = [Database(database_url) for _ in range(3)]
    await asyncio.gather(*(migrate(other) for other in others))
    for other in others:
        await other.close()
    await migrate(database)


async def test_who_waits_for_another_to_migrate_waits_as_long_as_it_takes(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Database(postgres_url)
    monkeypatch.setattr("ostiary.db.database._COMMAND_S", 0.2)
    impatient = Database(postgres_url)
    async with other.read() as holder:
        await holder.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
        waiting = asyncio.get_running_loop().create_task(migrate(impatient))
        done, _ = await asyncio.wait({waiting}, timeout=1)  # longer than a statement of a call may take
        assert not done
        await holder.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
    await waiting
    async with other.read() as tx:
        assert (await tx.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == HEAD
    for one in (impatient, other):
        await one.close()


async def test_a_fresh_database_is_made_once_by_many(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'fresh.db'}"
    others = [Database(url) for _ in range(3)]
    await asyncio.gather(*(migrate(other) for other in others))
    for other in others:
        await other.close()
    with sqlite3.connect(tmp_path / "fresh.db") as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
    db.close()


async def test_an_older_database_is_copied_before_it_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE alembic_version (version_num TEXT)")
        db.execute("INSERT INTO alembic_version VALUES ('0000')")
    db.close()
    database = Database(f"sqlite:///{path}")
    with pytest.raises(Exception, match="0000"):  # there is no such revision to come from, but the copy is first
        await migrate(database)
    await database.close()
    assert (tmp_path / f"old.db.before-{HEAD}").exists()


async def test_an_upgrade_finds_the_operators_keys_by_who_added_them(database: Database) -> None:
    """Also those they added by a key of their own; a name is matched letter by letter."""
    added_by = {
        "shell": "operator",
        "page": "o_p@example.org",
        "api": "o_p@example.org by key ci",
        "alike": "oxp@example.org by key ci",
        "capital": "O_P@example.org by key ci",
        "longer": "o_p@example.org.example by key ci",
        "owner": "alice@example.org by key ci",
        "nobody": None,
    }
    folk = await settle(database)
    async with database.transaction() as tx:
        user = await users.ensure(tx, "o_p@example.org", "Olive", NOW)
        await users.change_operator(tx, folk.operator, user.email, NOW, is_operator=True)
        for id_, name in added_by.items():
            row = {"id": id_, "organization_id": folk.home.id, "name": id_, "provider": "openai", "base_url": ""}
            more = {"origin": "", "fields": {}, "sealed": "", "sealed_version": 1, "preview": "", "shared": False}
            values = {**row, **more, "status": "healthy", "created_at": 0, "updated_at": 0, "added_by": name}
            await tx.execute(insert(schema.provider_keys).values(**values))
        await tx.exec_driver_sql("DROP TABLE provider_key_quotas")
        for index in ("ix_usage_events_parent_key", "ix_usage_days_parent_key"):
            await tx.exec_driver_sql(f"DROP INDEX {index}")
        for table in ("usage_hours", "usage_days", "usage_blocks"):
            await tx.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN parent_key_id")
        await tx.exec_driver_sql("ALTER TABLE provider_keys DROP COLUMN by_operator")
        await tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0009'")
    await migrate(database)
    async with database.read() as tx:
        p = schema.provider_keys.c
        found = {row[0] for row in await tx.execute(select(p.id).where(p.by_operator))}
    assert found == {"shell", "page", "api"}


@pytest.mark.parametrize("url", ["", "mysql://x/y", "not a url", "sqlite3:///x"])
def test_an_address_that_is_not_understood_is_said_without_showing_it(url: str) -> None:
    with pytest.raises(CannotStart, match="OSTIARY_DATABASE_URL"):
        Database(url)


async def test_a_postgresql_that_went_away_is_a_refusal(canaries: Canaries) -> None:
    """With a pool of connections that were good a moment ago, and then with none to be had."""
    context = running(canaries)
    server = await asyncio.to_thread(context.__enter__)
    database = Database(server.url(await asyncio.to_thread(server.make)))
    await migrate(database)
    await asyncio.to_thread(context.__exit__, None, None, None)
    for _ in range(3):
        with pytest.raises(Refusal) as refused:
            async with database.transaction() as tx:
                await changes.append(tx, "agent_key", None, "k", 1)
        assert refused.value.code == "service_unavailable"
    await database.close()


async def test_a_locked_sqlite_is_a_refusal_that_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.db.database._BUSY_MS", 100)
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    await migrate(database)
    with sqlite3.connect(tmp_path / "x.db", isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(Refusal) as refused:
            async with database.transaction():
                pass
        assert refused.value.code == "service_unavailable"
        db.execute("ROLLBACK")
    db.close()
    async with database.transaction() as tx:
        await changes.append(tx, "agent_key", None, "k", 1)
    await database.close()


async def test_who_waits_to_write_keeps_nobody_from_reading_and_comes_in_order(tmp_path: Path) -> None:
    """More of them than there are connections, while somebody else has SQLite's write lock."""
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    await migrate(database)
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writers = [asyncio.create_task(_write(database, f"k{number}")) for number in range(_POOL + 2)]
        try:
            async with asyncio.timeout(20), database.read() as tx:
                assert await changes.list_after(tx, 0) == []
        finally:
            other.execute("ROLLBACK")
            await asyncio.gather(*writers)
    async with database.read() as tx:
        heard = [change.id for change in await changes.list_after(tx, 0)]
    assert heard == [f"k{number}" for number in range(_POOL + 2)]
    await database.close()


async def _write(database: Database, name: str) -> None:
    async with database.transaction() as tx:
        await changes.append(tx, "agent_key", None, name, 1)


async def test_who_waits_to_write_goes_on_asking(tmp_path: Path) -> None:
    """And not less and less often, so that a process that writes again and again leaves it no moment."""
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    await migrate(database)
    asked = asyncio.Queue[None]()

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def heard(*given: Any) -> None:
        if given[2] == "BEGIN IMMEDIATE":
            asked.put_nowait(None)

    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer = asyncio.create_task(_write(database, "k"))
        try:
            async with asyncio.timeout(20):
                for _ in range(10):
                    await asked.get()
        finally:
            other.execute("ROLLBACK")
            await writer
    await database.close()


async def test_what_reads_for_too_long_is_ended_and_the_connection_goes_on(database: Database) -> None:
    """Pages have a bound of their own; nothing of it stays with the connection, nor with those of calls."""
    pages = database.beside(1, 1.5)  # long for what a connection is asked afterwards
    forever = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    try:
        for _ in range(2):
            with pytest.raises(Refusal) as refused:
                async with pages.read() as tx:
                    await tx.execute(text(forever if pages.is_sqlite else "SELECT pg_sleep(20)"))
            assert refused.value.code == "service_unavailable"
            await _can_read(pages)
    finally:
        await pages.close()


async def _can_read(pages: Database) -> None:
    """A machine that stands still may take longer for the least of all statements, but not each time."""
    for left in reversed(range(5)):
        try:
            async with pages.read() as tx:
                assert (await tx.execute(text("SELECT 1"))).scalar() == 1
        except Refusal as refused:
            if refused.code != "service_unavailable" or not left:
                raise
        else:
            return
