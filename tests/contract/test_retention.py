"""What an organization does not want kept is deleted in portions; what is spent and used stays counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from ostiary.clock import DAY_MS
from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.ledger import reports, retention, writer
from ostiary.ledger.events import Event
from ostiary.ledger.reports import UsageFilter
from ostiary.ledger.spool import Spool
from ostiary.ledger.writer import adopt
from ostiary.limits import store as money
from tests.contract.test_reports import DAY, event
from tests.fakes import SetClock
from tests.people import People, settle

pytestmark = pytest.mark.anyio

NOW = DAY + 100 * DAY_MS


@pytest.fixture
async def people(database: Database) -> People:
    return await settle(database)


async def keep_for(database: Database, organization_id: str, **days: int | None) -> None:
    o = schema.organizations
    async with database.transaction() as tx:
        await tx.execute(update(o).where(o.c.id == organization_id).values(**days))


async def keep(database: Database, owner: str, *events: Event) -> None:
    async with database.transaction() as tx:
        await writer.write_events(tx, owner, list(events))


async def left(database: Database) -> tuple[set[str], set[str]]:
    """Traces and contents that are still there."""
    async with database.read() as tx:
        traces = (await tx.execute(select(schema.usage_events.c.request_id))).scalars().all()
        contents = (await tx.execute(select(schema.contents.c.request_id))).scalars().all()
    return set(traces), set(contents)


async def spent(database: Database) -> Any:
    async with database.read() as tx:
        return (await tx.execute(select(func.sum(schema.accounts.c.spent_nano)))).scalar_one()


def of(people: People, name: str, days_ago: int, **more: Any) -> Event:
    started_at = NOW - days_ago * DAY_MS
    values = {"organization_id": people.home.id, "started_at": started_at, "held_at": started_at, "content": "sealed"}
    return event(name, **{**values, **more})


async def test_everything_is_kept_until_somebody_says_otherwise(database: Database, people: People) -> None:
    await keep(database, "gone", of(people, "req_1", 99))
    assert await retention.remove_old(database, NOW) == 0
    assert await left(database) == ({"req_1"}, {"req_1"})


async def test_traces_and_contents_go_by_their_own_days_and_sums_stay(
    database: Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.ledger.retention._PORTION", 2)
    await keep_for(database, people.home.id, trace_days=30, content_days=7)
    elsewhere = of(people, "req_elsewhere", 90, organization_id=people.elsewhere.id)
    await keep(
        database, "gone", *(of(people, f"req_{days}", days) for days in (0, 6, 7, 8, 29, 30, 31, 32, 99)), elsewhere
    )
    async with database.read() as tx:
        before = await reports.sum_usage(tx, people.home.id, UsageFilter())
    sums = await spent(database)
    assert await retention.remove_old(database, NOW) == 3 + 6
    traces = {"req_0", "req_6", "req_7", "req_8", "req_29", "req_30", "req_elsewhere"}
    assert await left(database) == (traces, {"req_0", "req_6", "req_7", "req_elsewhere"})
    async with database.read() as tx:
        assert await reports.sum_usage(tx, people.home.id, UsageFilter()) == before
    assert await spent(database) == sums
    assert await retention.remove_old(database, NOW) == 0


async def test_contents_never_outlive_their_trace(database: Database, people: People) -> None:
    await keep_for(database, people.home.id, trace_days=3)
    await keep(database, "gone", of(people, "req_1", 4), of(people, "req_2", 2))
    await retention.remove_old(database, NOW)
    assert await left(database) == ({"req_2"}, {"req_2"})
    await keep_for(database, people.home.id, trace_days=None, content_days=1)
    await retention.remove_old(database, NOW)
    assert await left(database) == ({"req_2"}, set())


@pytest.mark.parametrize(
    ("state", "is_kept"),
    [
        ({"heartbeat_at": NOW - 40 * DAY_MS}, True),
        ({"heartbeat_at": NOW - 40 * DAY_MS, "closed_at": NOW - 40 * DAY_MS}, False),
        ({"heartbeat_at": NOW - 40 * DAY_MS, "retired_at": NOW - DAY_MS}, False),
        ({"heartbeat_at": NOW}, False),
        (None, False),
    ],
)
async def test_what_a_spool_may_send_once_more_stays_to_be_found(
    database: Database, people: People, state: dict[str, int] | None, *, is_kept: bool
) -> None:
    await keep_for(database, people.home.id, trace_days=30)
    if state is not None:
        async with database.transaction() as tx:
            await money.add_owner(tx, "spool_1", "one", "test", NOW - 50 * DAY_MS)
            await tx.execute(update(schema.owners).where(schema.owners.c.id == "spool_1").values(**state))
    await keep(database, "spool_1", of(people, "req_1", 40))
    await retention.remove_old(database, NOW)
    assert ("req_1" in (await left(database))[0]) == is_kept


async def test_a_spool_that_comes_back_after_its_traces_were_deleted_charges_nothing_twice(
    database: Database, people: People, tmp_path: Path
) -> None:
    """It ran for 40 days, was killed, and is adopted: what it sent long ago is still in its files."""
    await keep_for(database, people.home.id, trace_days=5)
    async with database.transaction() as tx:
        await money.add_owner(tx, "spool_x", "one", "test", NOW - 40 * DAY_MS)
    spool = Spool(tmp_path, "spool_x", "normal")
    events = [of(people, f"req_{days}", days, content=None) for days in (40, 20, 7, 6, 3, 0)]
    for one in events:
        hold, committed = spool.hold(one)
        await committed
        await spool.settle(hold, one)
    await keep(database, "spool_x", *events[:-1])
    async with database.transaction() as tx:
        await money.mark_owner(tx, "spool_x", NOW)
    await spool.close(remove=False)
    sums = await spent(database)
    await retention.remove_old(database, NOW)
    assert (await left(database))[0] == {"req_3"}
    await adopt(database, tmp_path, SetClock(NOW))
    assert (await left(database))[0] == {"req_3", "req_0"}, "the one that was not sent yet is"
    assert await spent(database) - sums == 9 * events[-1].cost_nano, (
        "organization, key, parent and provider key, all that count"
    )


async def test_calls_go_on_meanwhile(database: Database, people: People) -> None:
    await keep_for(database, people.home.id, trace_days=1)
    await keep(database, "gone", *(of(people, f"req_{number}", 3) for number in range(300)))

    async def more() -> None:
        for number in range(10):
            await keep(database, "gone", of(people, f"req_new_{number}", 0))

    await asyncio.gather(retention.remove_old(database, NOW), retention.remove_old(database, NOW), more())
    assert (await left(database))[0] == {f"req_new_{number}" for number in range(10)}
