"""Gateways: who lives, who was lost, and what becomes of the money when the operator gives up on one."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, update

from ostiary.db import changes, schema
from ostiary.db.database import Database
from ostiary.ledger import gateways, operation_store
from ostiary.ledger.gateways import Gateway
from ostiary.limits import store as money
from ostiary.limits.budgets import TOTAL, AccountKey, Budget
from tests.people import HOUR, INSIDE, NOW, ONE, OUTSIDE, People, refused, settle, traces

_KEY = AccountKey("agent_key", "k", TOTAL)


@pytest.fixture
async def people(database: Database) -> People:
    """With three gateways: one lives, two of one name were lost, one with money; another has closed."""
    found = await settle(database)
    async with database.transaction() as tx:
        await money.change_budget(tx, "agent_key", "k", Budget("total", 1_000), NOW)
        for owner, name in (("s1", "east"), ("s2", "west"), ("s3", "west"), ("s4", "south")):
            await money.add_owner(tx, owner, name, "1.0", NOW - HOUR)
        await money.mark_owner(tx, "s1", NOW)
        await money.mark_owner(tx, "s4", NOW - HOUR, closed=True)
        account = await money.lock_account(tx, _KEY)
        assert await money.change_lease(tx, "s2", account, 0, 300)
    return found


async def _list(database: Database, people: People, *, everyone: bool = False) -> dict[str, Gateway]:
    async with database.read() as tx:
        found = await gateways.list_(tx, people.operator, NOW, everyone=everyone)
    return {one.id: one for one in found}


async def test_each_is_shown_with_its_state_and_its_money(database: Database, people: People) -> None:
    found = await _list(database, people)
    assert {id_: (one.state, one.leased_nano) for id_, one in found.items()} == {
        "s1": ("live", 0),
        "s2": ("lost", 300),
        "s3": ("lost", 0),
    }
    assert (found["s1"].heard_ms, found["s2"].heard_ms) == (0, HOUR)
    assert (await _list(database, people, everyone=True))["s4"].state == "closed"


async def test_how_far_one_is_behind(database: Database, people: People) -> None:
    async with database.transaction() as tx:
        latest = await changes.latest(tx)
        await operation_store.mark_revision(tx, "s1", latest)
        await changes.append(tx, "organization", None, "x", NOW)
    found = await _list(database, people)
    assert (found["s1"].revision, found["s1"].behind) == (latest, 1)
    assert (found["s2"].revision, found["s2"].behind) == (None, None)


async def test_retiring_counts_what_was_leased_as_spent_once(database: Database, people: People) -> None:
    before = await traces(database)
    async with database.transaction() as tx:
        retired = await gateways.retire(tx, people.operator, "s2", NOW)
    assert [one.id for one in retired] == ["s2"]
    assert await traces(database) - before == ONE
    assert (await _list(database, people, everyone=True))["s2"].state == "retired"
    async with database.transaction() as tx:
        account = await money.lock_account(tx, _KEY)
        assert (account.spent_nano, account.leased_nano) == (300, 0)
        with refused("conflict"):
            await gateways.retire(tx, people.operator, "s2", NOW)


async def test_a_name_means_all_that_were_lost_of_it(database: Database, people: People) -> None:
    async with database.transaction() as tx:
        await money.add_owner(tx, "s5", "west", "1.0", NOW)
        retired = await gateways.retire(tx, people.operator, "west", NOW)
    assert {one.id for one in retired} == {"s2", "s3"}
    assert (await _list(database, people))["s5"].state == "live"


@pytest.mark.parametrize(("name", "code"), [("east", "conflict"), ("s4", "conflict"), ("north", "not_found")])
async def test_only_a_lost_one_is_retired(database: Database, people: People, name: str, code: str) -> None:
    before = await traces(database)
    async with database.transaction() as tx:
        with refused(code):
            await gateways.retire(tx, people.operator, name, NOW)
    assert await traces(database) == before


async def test_one_that_wakes_is_live_again(database: Database, people: People) -> None:
    async with database.transaction() as tx:
        await gateways.retire(tx, people.operator, "s2", NOW)
        await money.mark_owner(tx, "s2", NOW)
    assert (await _list(database, people))["s2"].state == "live"


@pytest.mark.parametrize("name", INSIDE + OUTSIDE)
async def test_only_the_operator_sees_or_retires_gateways(database: Database, people: People, name: str) -> None:
    async with database.transaction() as tx:
        with refused("not_found"):
            await gateways.list_(tx, people[name], NOW)
        with refused("not_found"):
            await gateways.retire(tx, people[name], "west", NOW)


async def test_who_runs_an_organization_sees_what_serves_it(database: Database, people: People) -> None:
    async with database.transaction() as tx:
        latest = await changes.latest(tx)
        await operation_store.mark_revision(tx, "s1", latest)
        for name in ("operator", "alice", "erin"):
            found = await gateways.list_serving(tx, people[name], people.home.id, NOW)
            assert sorted((one.name, one.is_live, one.revision, one.behind) for one in found) == [
                *[("east", True, latest, 0), ("west", False, None, None), ("west", False, None, None)]
            ]
        for name, code in {"bob": "insufficient_scope", "charlie": "not_found", "dora": "not_found"}.items():
            with refused(code):
                await gateways.list_serving(tx, people[name], people.home.id, NOW)
        assert len(await gateways.list_serving(tx, people["dora"], people.elsewhere.id, NOW)) == 3


async def test_jobs_and_what_was_not_delivered_are_counted(database: Database, people: People) -> None:
    assert people
    async with database.transaction() as tx:
        await tx.execute(insert(schema.jobs).values(name="j", next_at=NOW, ran_at=NOW, error="fell"))
        for number, (attempts, next_at, done_at) in enumerate(
            [(0, NOW, None), (2, NOW, None), (9, None, None), (1, None, NOW)]
        ):
            await tx.execute(
                insert(schema.deliveries).values(
                    id=f"d{number}",
                    notification_id="n",
                    organization_id="o",
                    channel="mail",
                    address="a@example.org",
                    attempts=attempts,
                    next_at=next_at,
                    done_at=done_at,
                )
            )
        assert [job.error for job in await operation_store.list_jobs(tx)] == ["fell"]
        assert await operation_store.count_undelivered(tx) == operation_store.Undelivered(waiting=1, given_up=1)
        assert await operation_store.count_watched_budgets(tx) == 1
        await tx.execute(update(schema.budgets).values(thresholds=[]))
        assert await operation_store.count_watched_budgets(tx) == 0
