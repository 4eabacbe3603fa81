"""Sums by hour and day agree with the events, whatever came twice, came late or came from an older version."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, insert, select

from ostiary.clock import DAY_MS
from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.db.migrate import alembic_config, migrate
from ostiary.ledger import store, writer
from ostiary.ledger.events import Event
from tests.books import check_books, check_provider_key_accounts, check_rollups
from tests.contract.test_reports import DAY, ORG, OTHER, event
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.anyio


def dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - the same every time


def some_events(chance: random.Random, count: int) -> list[Event]:
    """Of few keys and models, so that many meet in one row, and of times around the ends of hours, days and a month."""
    edge = chance.choice((DAY, DAY + DAY_MS // 24, DAY + 28 * DAY_MS))
    found = []
    for number in range(count):
        key = chance.choice(("key_bob", "key_erin", "key_child", None))
        at = edge + chance.randrange(-2_000, 2_000)
        found.append(
            event(
                f"req_{chance.getrandbits(64):x}_{number}",
                attempt=chance.choice((1, 1, 1, 2, 3)),
                organization_id=chance.choice((ORG, ORG, OTHER)),
                agent_key_id=key,
                agent_key_name=key,
                parent_key_id="key_bob" if key == "key_child" else None,
                credential_id=None if key else "cred_1",
                provider=chance.choice(("openai", "groq")),
                model=chance.choice(("gpt-4o", "x")),
                provider_key_id=chance.choice(("pk_1", "pk_2")),
                status=chance.choice(("ok", "ok", "error", "cancelled", "unknown")),
                price_version=chance.choice(("p1", None)),
                started_at=at,
                held_at=at - chance.choice((0, 1, 5_000)),
                latency_ms=chance.randrange(50_000),
                cost_nano=chance.choice((0, 1, 10**18 // 1000)),
                input_tokens=chance.choice((0, 7)),
                output_tokens=chance.choice((0, 9)),
                images=chance.randrange(3),
            )
        )
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_sums_and_accounts_are_those_of_the_events_however_often_they_come(database: Database, seed: int) -> None:
    chance = dice(seed)
    known: list[Event] = []
    for _ in range(6):
        batch = some_events(chance, chance.choice((1, 7, 60)))
        batch += chance.sample(known, min(len(known), chance.choice((0, 3))))
        batch += batch[: chance.choice((0, 1))]
        chance.shuffle(batch)
        async with database.transaction() as tx:
            await writer.write_events(tx, "spool_1", batch)
        known += batch
    await check_books(database)
    async with database.read() as tx:
        kept = (await tx.execute(select(schema.usage_events.c.request_id))).all()
    assert len(kept) == len({(one.request_id, one.attempt) for one in known})


async def test_writers_of_many_processes_at_once_do_not_cross(database: Database) -> None:
    chance = dice(9)
    batches = [some_events(chance, 40) for _ in range(6)]

    async def write(batch: list[Event]) -> None:
        async with database.transaction() as tx:
            await writer.write_events(tx, "spool_1", batch)

    await asyncio.gather(*(write(batch) for batch in batches))
    await check_books(database)


async def test_a_batch_that_fails_leaves_no_sum(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            await writer.write_events(tx, "spool_1", [event("req_1")])
            raise ZeroDivisionError
    await check_books(database)
    async with database.read() as tx:
        assert (await tx.execute(select(schema.usage_days))).first() is None


async def test_requests_count_calls_and_attempts_count_attempts(database: Database) -> None:
    attempts = [event("req_1", attempt=number, started_at=DAY + number) for number in (2, 1, 3)]
    for attempt in attempts:
        async with database.transaction() as tx:
            await writer.write_events(tx, "spool_1", [attempt])
    async with database.read() as tx:
        (row,) = (await tx.execute(select(schema.usage_days))).all()
    assert (row.requests, row.attempts) == (1, 3)


async def test_contents_are_kept_apart_once_and_only_where_there_are_any(database: Database) -> None:
    captured = event("req_1", content="sealed text", content_version=3)
    for _ in range(2):
        async with database.transaction() as tx:
            await writer.write_events(tx, "spool_1", [captured, event("req_2")])
    async with database.read() as tx:
        (row,) = (await tx.execute(select(schema.contents))).all()
        kept = repr((await tx.execute(select(schema.usage_events))).all())
        assert await store.list_contents(tx, ORG, "req_1") == [
            store.Content(1, "key_bob", captured.started_at, "sealed text", 3)
        ]
        assert await store.list_contents(tx, OTHER, "req_1") == []
    assert tuple(row) == ("req_1", 1, ORG, "key_bob", captured.started_at, "sealed text", 3)
    assert "sealed text" not in kept


# ---- what was called before there were sums -----------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def old_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'old.db'}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    name = postgres.make()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
async def old_database(old_url: str) -> AsyncIterator[Database]:
    """A database as the first version left it."""
    opened = Database(old_url)
    async with opened.transaction() as tx:
        await tx.run_sync(_first_revision)
    yield opened
    await opened.close()


def _first_revision(connection: Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")


_NEW = {"parent_key_id", "endpoint", "model_served", "images", "held_at", "audio_ms", "characters", "searches"}


async def test_the_migration_sums_up_what_is_there_as_the_writer_would_have(old_database: Database) -> None:
    chance = dice(4)
    columns = [column.name for column in schema.usage_events.c if column.name not in _NEW]
    async with old_database.transaction() as tx:
        for one in some_events(chance, 200):
            values = {name: getattr(one, name) for name in columns if name != "owner"}
            await tx.execute(insert(schema.usage_events).values(**values, owner="spool_1"))
    await migrate(old_database)
    await check_rollups(old_database)
    await check_provider_key_accounts(old_database)
    async with old_database.transaction() as tx:
        await writer.write_events(tx, "spool_2", some_events(chance, 50))
    await check_rollups(old_database)


async def test_what_children_called_before_is_their_parents_after_the_migration(database: Database) -> None:
    """As the schema before it was: of keys that are forgotten an event says whose children they were."""
    async with database.transaction() as tx:
        await writer.write_events(tx, "spool_1", some_events(dice(5), 200))
        for index in ("ix_usage_events_parent_key", "ix_usage_days_parent_key"):
            await tx.exec_driver_sql(f"DROP INDEX {index}")
        for table in ("usage_hours", "usage_days", "usage_blocks"):
            await tx.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN parent_key_id")
        await tx.exec_driver_sql("DELETE FROM usage_sums WHERE kind = 'parent'")
        await tx.exec_driver_sql("DROP TABLE provider_key_quotas")
        await tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0010'")
    await migrate(database)
    await check_rollups(database)
    async with database.read() as tx:
        for sums in (schema.usage_hours, schema.usage_days, schema.usage_blocks):
            pairs = {tuple(row) for row in await tx.execute(select(sums.c.agent_key_id, sums.c.parent_key_id))}
            assert pairs == {("key_bob", None), ("key_erin", None), ("key_child", "key_bob"), ("", None)}
