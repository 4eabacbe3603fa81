"""Past costs put right: shown first, then events, sums, accounts and audit move together, exactly once."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ostiary.actor import Actor
from ostiary.clock import DAY_MS, iso
from ostiary.db import changes, schema
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.ledger import audit_store, recost, writer
from ostiary.ledger.events import Event
from ostiary.ledger.recost import Rates, Tally, Wish
from ostiary.limits import store as money
from ostiary.limits.budgets import Budget
from ostiary.providers import catalog
from ostiary.providers.catalog import Catalog
from ostiary.providers.prices import Override, PriceBook
from tests.books import check_books
from tests.contract.test_reports import DAY, event
from tests.people import CHAIN_KEY, People, settle

pytestmark = pytest.mark.anyio

MTOK = 1_000_000
AT = DAY + 3 * DAY_MS


@pytest.fixture(scope="module", name="known")
def the_catalog() -> Catalog:
    return catalog.load()


@pytest.fixture
async def people(database: Database) -> People:
    return await settle(database)


def rates(known: Catalog, nano: int = 3 * MTOK, version: str = "v2") -> Rates:
    """`llama3` of nvidia at so many nano-dollars for a million tokens of either kind."""
    each = {"input": nano, "output": nano}
    return Rates(known, PriceBook([Override("nvidia", "llama3", each, version)]))


def call(people: People, name: str, **more: Any) -> Event:
    """A call of ten tokens in and five out, which cost 15 by the price of then."""
    values: dict[str, Any] = {
        "organization_id": people.home.id, "provider": "nvidia", "model": "llama3", "price_version": "v1",
        "cost_nano": 15, "held_nano": 100, "input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 0,
        "cache_write_tokens": 0, "reasoning_tokens": 0, "audio_tokens": 0,
    }  # fmt: skip
    return event(name, **{**values, **more})


async def keep(database: Database, *events: Event) -> None:
    async with database.transaction() as tx:
        await writer.write_events(tx, "spool_1", list(events))


async def costs(database: Database) -> dict[str, tuple[int, str | None]]:
    e = schema.usage_events.c
    async with database.read() as tx:
        rows = await tx.execute(select(e.request_id, e.cost_nano, e.price_version))
        return {row[0]: (row[1], row[2]) for row in rows}


async def run(database: Database, people: People, with_: Rates, since_at: int = DAY, **more: Any) -> list[Tally]:
    is_applied = more.pop("is_applied", True)
    organization_id = more.pop("organization_id", None)
    return await recost.recost(
        database,
        people.operator,
        with_,
        Wish(since_at, **more),
        AT,
        organization_id=organization_id,
        is_applied=is_applied,
    )


async def test_a_preview_says_what_would_change_and_changes_nothing(
    database: Database, people: People, known: Catalog
) -> None:
    await keep(database, call(people, "req_1"), call(people, "req_2", cost_nano=45), call(people, "req_3", model="x"))
    before = await costs(database)
    found = await run(database, people, rates(known), is_applied=False)
    assert found == [
        Tally("nvidia", "llama3", events=2, changed=1, before_nano=60, after_nano=90),
        Tally("nvidia", "x", events=1, before_nano=15, after_nano=15),
    ]
    assert await costs(database) == before
    async with database.read() as tx:
        assert not [row for row in await audit_store.list_audit(tx) if row.deed == "prices.recost"]
    await check_books(database)


async def test_applied_it_moves_events_sums_accounts_and_audit_and_a_second_run_nothing(
    database: Database, people: People, known: Catalog
) -> None:
    of_child = {"agent_key_id": "key_child", "parent_key_id": "key_bob"}
    await keep(
        database,
        call(people, "req_1"),
        call(people, "req_2", **of_child, started_at=DAY + DAY_MS),
        call(people, "req_3", cost_nano=99, status="error"),
        call(people, "req_4", agent_key_id=None, agent_key_name=None, credential_id="cred_1"),
        call(people, "req_5", organization_id=people.elsewhere.id),
        call(people, "req_6", started_at=DAY - 1),
        call(people, "req_7", held_at=DAY - 40 * DAY_MS),
    )
    found = await run(database, people, rates(known))
    assert [(one.events, one.changed, one.after_nano - one.before_nano) for one in found] == [(6, 6, 96)]
    assert await costs(database) == {
        **{f"req_{number}": (45, "v2") for number in (1, 2, 3, 4, 5, 7)},
        "req_6": (15, "v1"),
    }
    await check_books(database)
    async with database.read() as tx:
        rows = [row for row in await audit_store.list_audit(tx) if row.deed == "prices.recost"]
    assert {row.organization_id: row.after for row in rows} == {
        people.home.id: {
            "since": iso(DAY), "events": 5, "from": iso(DAY), "to": iso(DAY + DAY_MS), "more_nano": 66,
        },
        people.elsewhere.id: {"since": iso(DAY), "events": 1, "from": iso(DAY), "to": iso(DAY), "more_nano": 30},
    }  # fmt: skip
    assert [one.changed for one in await run(database, people, rates(known, version="v3"))] == [0]
    await check_books(database)


async def test_back_and_forth_ends_where_it_began(database: Database, people: People, known: Catalog) -> None:
    await keep(
        database, *(call(people, f"req_{number}", input_tokens=number, cost_nano=number + 5) for number in range(9))
    )
    before = await costs(database)
    await run(database, people, rates(known, 7 * MTOK + 1))
    assert await costs(database) != before
    await run(database, people, rates(known, MTOK, "v1"))
    assert await costs(database) == before
    await check_books(database)


async def test_unknown_tokens_are_left_alone_unless_it_is_wished(
    database: Database, people: People, known: Catalog
) -> None:
    unknown = {"usage_source": "none", "status": "unknown", "input_tokens": 0, "output_tokens": 0}
    await keep(
        database, call(people, "req_held", **unknown, cost_nano=100), call(people, "req_failed", **unknown, cost_nano=0)
    )
    (tally,) = await run(database, people, rates(known))
    assert (tally.changed, tally.unknown) == (0, 1)
    assert await costs(database) == {"req_held": (100, "v1"), "req_failed": (0, "v1")}
    (tally,) = await run(database, people, rates(known), unknown_too=True)
    assert (tally.changed, tally.after_nano) == (1, 0)
    assert await costs(database) == {"req_held": (0, "v2"), "req_failed": (0, "v1")}
    await check_books(database)


async def test_what_had_no_price_gets_one_and_is_no_longer_pointed_out(
    database: Database, people: People, known: Catalog
) -> None:
    await keep(
        database,
        call(people, "req_1", price_version=None, cost_nano=0, held_nano=0),
        call(people, "req_2", price_version=None, cost_nano=0, held_nano=0, usage_source="estimated"),
        call(people, "req_3", price_version=None, cost_nano=0, held_nano=0, model="no-price"),
    )
    tallies = {one.model: one for one in await run(database, people, rates(known))}
    assert (tallies["llama3"].changed, tallies["no-price"].unpriced) == (2, 1)
    assert (await costs(database))["req_2"] == (45, "v2")
    await check_books(database)
    assert [one.changed for one in await run(database, people, rates(known))] == [0, 0]


async def test_an_estimate_still_never_passes_its_hold_and_the_rest_beyond_it_is_shown(
    database: Database, people: People, known: Catalog
) -> None:
    await keep(database, call(people, "req_1", usage_source="estimated"), call(people, "req_2"))
    await run(database, people, rates(known, 10 * MTOK))
    assert await costs(database) == {"req_1": (100, "v2"), "req_2": (150, "v2")}
    async with database.read() as tx:
        e = schema.usage_events.c
        rows = await tx.execute(select(e.request_id, e.over_hold_nano).order_by(e.request_id))
        assert [tuple(row) for row in rows] == [("req_1", 0), ("req_2", 50)]


async def test_it_can_be_of_one_organization_and_of_one_model(
    database: Database, people: People, known: Catalog
) -> None:
    book = PriceBook(
        [Override("nvidia", model, {"input": 3 * MTOK, "output": 3 * MTOK}, "v2") for model in ("llama3", "other")]
    )
    await keep(
        database,
        call(people, "req_1"),
        call(people, "req_2", model="other"),
        call(people, "req_3", organization_id=people.elsewhere.id),
    )
    with_ = Rates(known, book)
    await run(database, people, with_, organization_id=people.home.id, provider="nvidia", model="llama3")
    assert {name for name, (nano, _) in (await costs(database)).items() if nano == 45} == {"req_1"}
    await run(database, people, with_, provider="nvidia", model="other")
    assert {name for name, (nano, _) in (await costs(database)).items() if nano == 45} == {"req_1", "req_2"}
    await check_books(database)


async def test_how_far_it_is_is_said_of_the_calls_that_are_meant(
    database: Database, people: People, known: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.ledger.recost._BATCH", 2)
    await keep(
        database,
        *(call(people, f"req_{number}", cost_nano=15 + 30 * (number == 2)) for number in range(5)),
        *(call(people, f"req_else_{number}", model="other") for number in range(9)),
        call(people, "req_old", started_at=DAY - 1),
        call(people, "req_there", organization_id=people.elsewhere.id, model="other"),
    )

    async def told(wish: Wish) -> list[tuple[int, int, int]]:
        said: list[tuple[int, int, int]] = []
        await recost.recost(
            database, people.operator, rates(known, version="v1"), wish, AT,
            organization_id=people.home.id, progress=lambda *far: said.append(far),
        )  # fmt: skip
        return said

    assert await told(Wish(DAY, "nvidia", "llama3")) == [(2, 5, 2), (4, 5, 3), (5, 5, 4)]
    assert (await told(Wish(DAY, model="other")))[-1] == (9, 9, 0)
    assert (await told(Wish(DAY, "nvidia")))[-1] == (14, 14, 4)
    assert await told(Wish(DAY, "openai")) == [(0, 0, 0)]


async def test_many_batches_cut_off_and_run_again_move_each_event_once(
    database: Database, people: People, known: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.ledger.recost._BATCH", 7)
    await keep(database, *(call(people, f"req_{number:03}", started_at=DAY + number // 10) for number in range(60)))

    def cut(done: int, _total: int, _changed: int) -> None:
        if done >= 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await recost.recost(
            database, people.operator, rates(known), Wish(DAY), AT, is_applied=True, progress=cut
        )  # fmt: skip
    assert sum(nano == 45 for nano, _ in (await costs(database)).values()) == 21
    await check_books(database)
    (tally,) = await run(database, people, rates(known))
    assert (tally.events, tally.changed) == (60, 39)
    await check_books(database)


async def test_a_gateway_that_stops_waits_for_a_batch_and_not_for_all_that_is_left(
    database: Database, people: People, known: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.ledger.recost._BATCH", 7)
    await keep(database, *(call(people, f"req_{number:03}", cost_nano=15 + 30 * (number % 2)) for number in range(60)))
    pages = database.beside(2, 15)
    stopping: list[asyncio.Task[None]] = []

    def stop(done: int, _total: int, _changed: int) -> None:
        if done == 21:
            stopping.append(asyncio.create_task(pages.close()))

    work = recost.recost(
        pages, people.operator, rates(known, version="v1"), Wish(DAY), AT, is_applied=True, progress=stop
    )
    with pytest.raises(Refusal) as refused:
        await pages.to_the_end(work)
    await stopping[0]
    put_right = sum(nano == 45 for nano, _ in (await costs(database)).values()) - 30
    assert 0 < put_right < 30
    assert refused.value.code == "service_unavailable"
    assert refused.value.message == (
        f"The gateway is being stopped. 28 calls were looked at and {put_right} put right; "
        "starting it again puts right the rest."
    )
    await check_books(database)
    (tally,) = await run(database, people, rates(known, version="v1"))
    assert (tally.events, tally.changed) == (60, 30 - put_right)
    await check_books(database)


async def test_a_gateway_that_stops_begins_none(database: Database, people: People, known: Catalog) -> None:
    await keep(database, call(people, "req_1"))
    pages = database.beside(2, 15)
    await pages.close()
    for is_applied in (False, True):
        with pytest.raises(Refusal, match=r"is being stopped\. Nothing was changed"):
            await recost.recost(pages, people.operator, rates(known), Wish(DAY), AT, is_applied=is_applied)
    assert await costs(database) == {"req_1": (15, "v1")}
    await pages.close()


async def test_a_database_that_is_lost_halfway_keeps_what_was_put_right_and_that_is_said(
    tmp_path: Path, sqlite_template: Path, known: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.ledger.recost._BATCH", 7)
    monkeypatch.setattr("ostiary.db.database._BUSY_MS", 100)
    shutil.copy(sqlite_template, tmp_path / "x.db")
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    database.chain_key = CHAIN_KEY
    people = await settle(database)
    await keep(database, *(call(people, f"req_{number:03}") for number in range(60)))
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:

        def lose(done: int, _total: int, _changed: int) -> None:
            if done == 21:
                other.execute("BEGIN IMMEDIATE")

        for said in (
            "21 calls were looked at and 21 put right; starting it again puts right the rest.",
            "Nothing was changed; try again shortly.",
        ):
            with pytest.raises(Refusal) as refused:
                await recost.recost(
                    database, people.operator, rates(known), Wish(DAY), AT, is_applied=True, progress=lose
                )
            assert refused.value.message == f"The database is not available. {said}"
    assert sum(nano == 45 for nano, _ in (await costs(database)).values()) == 21
    await check_books(database)
    await database.close()


async def test_two_at_once_and_calls_meanwhile_stay_exact(
    database: Database, people: People, known: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.ledger.recost._BATCH", 5)
    await keep(database, *(call(people, f"req_{number:03}") for number in range(40)))

    async def more() -> None:
        for number in range(20):
            await keep(database, call(people, f"req_new_{number:03}", price_version="v2", cost_nano=45))

    await asyncio.gather(run(database, people, rates(known)), run(database, people, rates(known)), more())
    assert {nano for nano, _ in (await costs(database)).values()} == {45}
    await check_books(database)


async def test_gateways_hear_of_budgets_that_moved_and_people_of_passed_marks(
    database: Database, people: People, known: Catalog
) -> None:
    async with database.transaction() as tx:
        await money.change_budget(tx, "organization", people.home.id, Budget("total", 40), AT)
        heard = await changes.latest(tx)
    await keep(database, call(people, "req_1"))
    await run(database, people, rates(known))
    async with database.read() as tx:
        news = {(change.noun, change.id) for change in await changes.list_after(tx, heard)}
        told = (await tx.execute(select(schema.notifications.c.kind))).scalars().all()
    assert ("organization", people.home.id) in news
    assert "budget.exceeded" in told


@pytest.mark.parametrize("name", ["alice", "erin", "bob", "charlie", "dora"])
async def test_only_the_operator_may(database: Database, people: People, known: Catalog, name: str) -> None:
    await keep(database, call(people, "req_1"))
    by: Actor = people[name]
    for is_applied in (False, True):
        with pytest.raises(Refusal):
            await recost.recost(database, by, rates(known), Wish(DAY), AT, is_applied=is_applied)
    assert await costs(database) == {"req_1": (15, "v1")}
