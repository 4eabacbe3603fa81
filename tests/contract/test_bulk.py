"""Many rows at once: in order, all or none, and on SQLite in so few steps that a busy loop does not hold them up."""

from __future__ import annotations

from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from ostiary.db.bulk import Insert, run_all, run_each
from ostiary.db.database import Database, Transaction
from ostiary.ledger import writer
from tests.contract.test_reports import event

pytestmark = pytest.mark.anyio

_MOST_STEPS = 20
"""Each ends with a turn of the loop; SQLAlchemy's own way takes three for one statement."""


@pytest.fixture
async def table(database: Database) -> Database:
    async with database.transaction() as tx:
        await tx.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY, word VARCHAR(20))"))
    return database


THINGS = Insert("things", ("id", "word"))


async def _ids(tx: Transaction) -> list[int]:
    return list(await tx.scalars(text("SELECT id FROM things ORDER BY id")))


@pytest.mark.parametrize("count", [0, 1, 3, 21, 569, 1_077])
async def test_any_number_of_rows_goes_in(table: Database, count: int) -> None:
    async with table.transaction() as tx:
        await THINGS.run(tx, [(number, f"word {number}") for number in range(count)])
    async with table.read() as tx:
        assert await _ids(tx) == list(range(count))


async def test_where_one_row_is_refused_none_goes_in_and_the_transaction_goes_on(table: Database) -> None:
    async with table.transaction() as tx:
        await THINGS.run(tx, [(7, "there")])
        with pytest.raises(IntegrityError):
            await THINGS.run_of(tx, [*range(100, 700), 7], lambda number: (number, "new"))
        await THINGS.run_of(tx, [8, 9], lambda number: (number, "after"))
    async with table.read() as tx:
        assert await _ids(tx) == [7, 8, 9]


async def test_what_makes_the_rows_may_fail(table: Database) -> None:
    async with table.transaction() as tx:
        with pytest.raises(ZeroDivisionError):
            await THINGS.run_of(tx, [*range(1, 600), 0], lambda number: (number, f"{1 // number}"))
        await THINGS.run(tx, [(5, "after")])
    async with table.read() as tx:
        assert await _ids(tx) == [5]


async def test_several_inserts_and_updates_keep_their_order(table: Database) -> None:
    upsert = Insert("things", ("id", "word"), "ON CONFLICT (id) DO UPDATE SET word = excluded.word")
    async with table.transaction() as tx:
        await run_all(tx, lambda: [(THINGS, [(1, "a"), (2, "b")]), (upsert, []), (upsert, [(2, "c"), (3, "d")])])
        await run_each(tx, "UPDATE things SET word = ? WHERE id = ?", [("x", 3), ("y", 1), ("z", 3)])
    async with table.read() as tx:
        rows = await tx.execute(text("SELECT id, word FROM things ORDER BY id"))
        assert [tuple(row) for row in rows] == [(1, "y"), (2, "c"), (3, "z")]


async def test_a_batch_of_the_ledger_is_few_steps_however_long_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    step: Any = aiosqlite.Connection._execute

    async def counted(self: aiosqlite.Connection, *arguments: Any, **named: Any) -> Any:
        nonlocal steps
        steps += 1
        return await step(self, *arguments, **named)

    async with database.read() as tx:  # connected already, as a gateway is
        await tx.execute(text("SELECT 1"))
    monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
    async with database.transaction() as tx:
        await writer.write_events(tx, "spool_a", [event(f"req_{number}") for number in range(1_500)])
    assert steps <= _MOST_STEPS
    assert (steps > 0) == database.is_sqlite


async def test_of_a_batch_that_is_partly_there_the_rest_goes_in_once(database: Database) -> None:
    events = [event(f"req_{number}", cost_nano=1) for number in range(1_200)]
    for batch in (events[:700], [*events, event("req_1199", cost_nano=1), event("req_5", attempt=2, cost_nano=1)]):
        async with database.transaction() as tx:
            await writer.write_events(tx, "spool_a", batch)
    async with database.read() as tx:
        assert await tx.scalar(text("SELECT count(*) FROM usage_events")) == 1_201
        assert await tx.scalar(text("SELECT sum(attempts) FROM usage_days")) == 1_201
        assert await tx.scalar(text("SELECT max(spent_nano) FROM accounts WHERE scope = 'organization'")) == 1_201
