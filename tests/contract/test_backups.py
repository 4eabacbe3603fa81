"""Backups: every row as it is stored comes back, on either database, from either."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from ostiary.clock import iso
from ostiary.db import backup_file, changes, copying, schema
from ostiary.db.backup_file import Manifest
from ostiary.db.database import Database
from ostiary.db.migrate import HEAD
from ostiary.errors import CannotStart
from ostiary.ids import new_id
from ostiary.orgs import roles
from ostiary.secret import Secret
from ostiary.vault import backups, key_names
from ostiary.vault.backups import Place
from ostiary.vault.seal import MasterKeys, Seal
from tests.people import CHAIN_KEY, HOUR, NOW, People, everything, refused, settle
from tests.servers.postgres import Postgres

_ONE = base64.urlsafe_b64encode(b"1" * 32).decode()
_TWO = base64.urlsafe_b64encode(b"2" * 32).decode()
_AUDIT = text(
    "INSERT INTO audit (seq, at, organization_id, actor_kind, actor_id, actor_name, deed, target_kind, target_id,"
    " target_name, before, origin, result) VALUES ((SELECT max(seq) + 1 FROM audit), :at, 'o', 'user', 'u', :name,"
    " 'd', 'k', :target, '', CAST(:before AS JSON), 'test', 'ok')"
)


def _silent(_what: str, _done: int, _total: int) -> None:
    """Progress nobody looks at."""


async def _furnish(database: Database) -> People:
    """People, a sealed instance, and rows that are stored in the least usual ways."""
    await Seal(MasterKeys.parse(Secret(_ONE))).open_instance(database, NOW)
    people = await settle(database)
    async with database.transaction() as tx:
        for number, before in enumerate((None, "null", '[1, 2.50, "x\\u00e9"]', '{"b" : 1, "a" : null}')):
            query = _AUDIT if database.path is None else text(_AUDIT.text.replace("CAST(:before AS JSON)", ":before"))
            await tx.execute(query, {"at": NOW, "target": str(number), "name": "né\u2028", "before": before})
        await tx.execute(
            insert(schema.owners).values(
                id="spool_1", name="gone", version="0", started_at=NOW - HOUR, heartbeat_at=NOW - HOUR
            )
        )
        await tx.execute(
            insert(schema.agent_key_secrets).values(
                digest=bytes(range(32)), agent_key_id="k", preview="p", created_at=2**53 + 1, expires_at=None
            )
        )
    return people


@pytest.fixture
async def furnished(database: Database) -> Database:
    """The test's database with all of that in it."""
    await _furnish(database)
    return database


@pytest.fixture
async def on_postgres(postgres: Postgres, postgres_template: str) -> AsyncIterator[Database]:
    """The same, on PostgreSQL alone."""
    name = await asyncio.to_thread(postgres.make, postgres_template)
    database = Database(postgres.url(name))
    database.chain_key = CHAIN_KEY
    await _furnish(database)
    yield database
    await database.close()
    await asyncio.to_thread(postgres.drop, name)


@asynccontextmanager
async def _copy_of(file: Path, folder: Path) -> AsyncIterator[Database]:
    """The database within a backup."""
    manifest = backup_file.read_manifest(file)
    await asyncio.to_thread(backup_file.extract, file, manifest, folder / "copy.db", _silent)
    database = Database(f"sqlite:///{folder / 'copy.db'}")
    yield database
    await database.close()


def _place(database: Database, folder: Path, master: str = _ONE) -> Place:
    return Place(database, folder, Secret(master))


async def _make(database: Database, folder: Path, name: str = "backup") -> tuple[Path, Manifest]:
    made = await backups.make(_place(database, folder), roles.operator(), folder / name, NOW, _silent)
    return folder / name, made


def _left_in(folder: Path) -> list[str]:
    """What is neither the database nor what a test has taken out of a backup."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(("ostiary.db", "copy.db"))]


async def _raw(database: Database) -> list[str]:
    """Every value as it is stored: what is JSON as its text."""
    found = []
    async with database.read() as tx:
        for table in schema.metadata.sorted_tables:
            columns = [
                text(f"CAST({column.name} AS TEXT)") if copying._is_json(column) else column for column in table.columns
            ]
            rows = await tx.execute(select(*columns).select_from(table).order_by(*table.primary_key.columns))
            found += [f"{table.name} {tuple(row)!r}" for row in rows]
    return found


async def test_every_value_is_copied_as_it_is_stored(furnished: Database, tmp_path: Path) -> None:
    before = await _raw(furnished)
    file, made = await _make(furnished, tmp_path)
    assert made.schema == HEAD
    assert made.rows["audit"] > 4
    async with _copy_of(file, tmp_path) as copy:
        assert await _raw(copy) == before
    assert _left_in(tmp_path) == ["backup"]


async def test_it_comes_back_as_it_was(furnished: Database, tmp_path: Path) -> None:
    file, _ = await _make(furnished, tmp_path)
    before = [row for row in await _raw(furnished) if "backups.make" not in row and "audit_head" not in row]
    async with furnished.transaction() as tx:
        await tx.execute(schema.members.delete())
        for _ in range(5):
            await changes.append(tx, "organization", None, "o", NOW)
    await furnished.close()  # SQLite's file is replaced: nobody may have it open
    restored = await backups.restore(
        _place(furnished, tmp_path), roles.operator(), file, NOW + HOUR, _silent, force=True
    )
    news = ("backups.restore", "audit_head", "'everything'")
    after = [row for row in await _raw(furnished) if not any(word in row for word in news)]
    assert after == before
    assert restored.holding == ()
    if furnished.path is not None:
        assert restored.kept == furnished.path.with_name(
            f"ostiary.db.before-restore-{iso(NOW + HOUR)[:-1].replace('-', '').replace(':', '')}"
        )
        with closing(sqlite3.connect(restored.kept)) as db:
            assert db.execute("SELECT count(*) FROM members").fetchone() == (0,)


async def test_new_rows_are_numbered_after_those_that_came_back(furnished: Database, tmp_path: Path) -> None:
    """Also after those that are gone: a gateway that slept through it would else not hear of them."""
    file, _ = await _make(furnished, tmp_path)
    async with furnished.transaction() as tx:
        for _ in range(5):
            await changes.append(tx, "organization", None, "o", NOW)
    async with furnished.read() as tx:
        known = await changes.latest(tx)
    await furnished.close()
    await backups.restore(_place(furnished, tmp_path), roles.operator(), file, NOW, _silent, force=True)
    async with furnished.transaction() as tx:
        await changes.append(tx, "organization", None, "o", NOW)
    async with furnished.read() as tx:
        if furnished.path is None:
            assert [change.noun for change in await changes.list_after(tx, known)] == ["everything", "organization"]
        seqs = (await tx.execute(select(schema.audit.c.seq))).scalars().all()
        assert len(set(seqs)) == len(seqs)


async def test_a_live_gateway_is_in_the_way(on_postgres: Database, tmp_path: Path) -> None:
    """With SQLite it is the open file that tells."""
    furnished = on_postgres
    file, _ = await _make(furnished, tmp_path)
    async with furnished.transaction() as tx:
        await tx.execute(
            insert(schema.owners).values(id="spool_2", name="busy", version="0", started_at=NOW, heartbeat_at=NOW)
        )
    before = await everything(furnished)
    with refused("conflict") as caught:
        await backups.restore(_place(furnished, tmp_path), roles.operator(), file, NOW, _silent, force=True)
    assert "busy" in caught.value.message
    assert await everything(furnished) == before


async def test_rows_that_the_database_will_not_have_change_nothing(on_postgres: Database, tmp_path: Path) -> None:
    """All or nothing: a late table fails, the first ones are as they were. SQLite takes the file as it is."""
    furnished = on_postgres
    file, made = await _make(furnished, tmp_path)
    longer = tmp_path / "longer"
    longer.write_bytes(file.read_bytes()[: made.size])
    with closing(sqlite3.connect(longer)) as db, db:
        db.execute("UPDATE owners SET version = ?", ("x" * 500,))  # SQLite does not mind the length
    seal = Seal(MasterKeys.parse(Secret(_ONE)))
    await seal.open_instance(furnished, NOW)
    backup_file.finish(longer, made, seal.pepper.reveal(), _silent)
    before = await everything(furnished)
    with pytest.raises(CannotStart, match="too long"):
        await backups.restore(_place(furnished, tmp_path), roles.operator(), longer, NOW, _silent, force=True)
    assert await everything(furnished) == before


@pytest.mark.parametrize("name", ["alice", "erin", "bob", "charlie", "dora"])
async def test_only_the_operator_makes_and_restores(database: Database, tmp_path: Path, name: str) -> None:
    people = await _furnish(database)
    file = tmp_path / "backup"
    for deed in (
        backups.make(_place(database, tmp_path), people[name], file, NOW, _silent),
        backups.restore(_place(database, tmp_path), people[name], file, NOW, _silent, force=True),
    ):
        with refused("not_found"):
            await deed
    assert not file.exists()


async def test_the_wrong_master_key_makes_no_backup(furnished: Database, tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="master key"):
        await backups.make(_place(furnished, tmp_path, _TWO), roles.operator(), tmp_path / "x", NOW, _silent)
    assert _left_in(tmp_path) == []


async def test_master_keys_are_named_by_what_they_open(furnished: Database, tmp_path: Path) -> None:
    """The newest seals, and the oldest still opens: both are needed, and a third one is not."""
    seal = Seal(MasterKeys.parse(Secret(f"{_TWO},{_ONE}")))
    async with furnished.transaction() as tx:
        await seal.newest_version(tx, new_id("orgn", NOW), NOW)
    third = base64.urlsafe_b64encode(b"3" * 32).decode()
    place = _place(furnished, tmp_path, f"{third},{_TWO},{_ONE}")
    made = await backups.make(place, roles.operator(), tmp_path / "x", NOW, _silent)
    assert set(made.master_keys) == set(key_names.names(Secret(f"{_ONE} {_TWO}")))
    with pytest.raises(CannotStart) as caught:
        await backups.restore(_place(furnished, tmp_path), roles.operator(), tmp_path / "x", NOW, _silent, force=True)
    assert key_names.names(Secret(_TWO))[0] in str(caught.value)
    assert _ONE not in str(caught.value)


def test_a_name_tells_nothing_of_its_key() -> None:
    [one], [two] = key_names.names(Secret(_ONE)), key_names.names(Secret(_TWO))
    assert one != two
    assert one[3:] not in _ONE
    assert len(one) == 15
