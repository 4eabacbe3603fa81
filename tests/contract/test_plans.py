"""What a call's money asks of the database is looked up by a key, however many keys there are beside this one."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.event import listen as listen_event
from sqlalchemy.event import remove as remove_event

from ostiary.clock import month_of
from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.ledger import writer
from ostiary.limits import store
from ostiary.limits.budgets import AccountKey, Budget
from tests.contract.test_budgets_in_sql import Process, _bid
from tests.contract.test_reports import event
from tests.fakes import SetClock

pytestmark = pytest.mark.anyio

_PLANNED = ("SELECT", "INSERT", "UPDATE", "DELETE")
_LARGE = schema.metadata.tables.keys() - {"owners"}
"""All tables but that with a row for each gateway, which may be read through."""


@pytest.fixture
async def database(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """SQLite, whose plans depend on no statistics."""
    database = Database(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'x.db')}")
    yield database
    await database.close()


@contextmanager
def heard(database: Database) -> Iterator[list[str]]:
    """Every statement that SQLite is told meanwhile, with its values: also those that go past SQLAlchemy."""
    said: list[str] = []

    def listen(connection: Any, *_rest: Any) -> None:
        connection.run_async(lambda driver: driver.set_trace_callback(said.append))

    listen_event(database.engine.sync_engine, "checkout", listen)
    yield said
    remove_event(database.engine.sync_engine, "checkout", listen)


async def read_through(database: Database, said: list[str]) -> list[str]:
    """The statements for which SQLite goes through a whole table that grows, and which it is."""
    found = []
    async with database.read() as tx:
        for statement in dict.fromkeys(said):
            if statement.startswith(_PLANNED):
                plan = (await tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")).mappings()
                steps = [str(row["detail"]).split() for row in plan]
                found += [f"{step[1]}: {statement}" for step in steps if step[0] == "SCAN" and step[1] in _LARGE]
    return found


async def test_a_call_s_money_is_looked_up_from_the_lease_to_the_ledger(database: Database) -> None:
    clock = SetClock()
    process = await Process(database, clock).register()
    with heard(database) as said:
        async with database.transaction() as tx:
            budget = Budget("month", 10**9, soft_nano=10**6, thresholds=(50,))
            await store.change_budget(tx, "agent_key", "key_1", budget, clock.now())
        holds = [await process.reserve.take(process.allowance(10**9), _bid(10**6)) for _ in range(3)]
        for number, hold in enumerate(holds):
            await process.written(hold, 10**6, f"req_{number}")
        many = [event(f"req_a{n}", agent_key_id=f"key_{n}", parent_key_id="key_bob") for n in range(40)]
        async with database.transaction() as tx:
            await writer.write_events(tx, process.owner, many)
        await process.purses.give_back(process.purses.get(AccountKey("agent_key", "key_1", month_of(clock.now()))))
        async with database.transaction() as tx:
            await writer.close_leases(tx, process.owner, clock.now(), charge_rest=False)
    assert len([one for one in said if one.startswith(_PLANNED)]) > 30
    assert await read_through(database, said) == []
