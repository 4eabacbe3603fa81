"""What people are called: changed by themselves, for every organization at once, and told to each of them."""

from __future__ import annotations

import asyncio

import pytest

from ostiary.actor import Actor
from ostiary.db.database import Database
from ostiary.ledger.audit_store import AuditRow, list_audit
from ostiary.orgs import members, organizations, users
from ostiary.orgs.store import User
from tests.people import NONE, NOW, ONE, People, Traces, refused, settle, traces

HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}"
DEED = "users.name"


async def rename(database: Database, by: Actor, name: str, whom: str | None = None) -> User:
    async with database.transaction() as tx:
        return await users.rename(tx, by, whom or by.id, name, NOW)


async def names_in(database: Database, folk: People, organization_id: str) -> dict[str, str]:
    async with database.read() as tx:
        return {one.user_id: one.name for one in await members.list_(tx, folk.operator, organization_id)}


async def told(database: Database) -> list[AuditRow]:
    async with database.read() as tx:
        return [row for row in await list_audit(tx) if row.deed == DEED]


async def test_a_new_name_is_everywhere_and_every_organization_is_told(database: Database) -> None:
    folk = await settle(database)
    bob = folk["bob"]
    async with database.transaction() as tx:
        await members.add(tx, folk.operator, folk.elsewhere.id, "bob@example.org", "ignored", "member", NOW)
    before = await traces(database)
    made = await rename(database, bob, f"  {HOSTILE} ")
    assert (made.id, made.email, made.name) == (bob.id, "bob@example.org", HOSTILE)
    assert await traces(database) - before == Traces(2, 1)
    for place in (folk.home.id, folk.elsewhere.id):
        assert (await names_in(database, folk, place))[bob.id] == HOSTILE
    rows = await told(database)
    assert {row.organization_id for row in rows} == {folk.home.id, folk.elsewhere.id}
    for row in rows:
        assert (row.actor_id, row.actor_name, row.target_name) == (bob.id, "bob@example.org", "bob@example.org")
        assert (row.before, row.after, row.address) == ({"name": "Bob"}, {"name": HOSTILE}, "192.0.2.7")


async def test_nobody_but_the_operator_renames_others(database: Database) -> None:
    folk = await settle(database)
    bob = folk["bob"].id
    before = await traces(database)
    for name in ("alice", "erin", "charlie", "dora"):  # his name is not his organization's: others know him by it, too
        with refused("insufficient_scope"):
            await rename(database, folk[name], "Robert", bob)
    with refused("not_found"):
        await rename(database, folk.operator, "Robert", "usr_unknown")
    assert await traces(database) == before
    assert (await rename(database, folk.operator, "Robert", bob)).name == "Robert"
    assert await traces(database) - before == ONE
    assert (await told(database))[0].organization_id == folk.home.id


async def test_who_belongs_nowhere_has_a_name_too(database: Database) -> None:
    folk = await settle(database)
    assert (await rename(database, folk["charlie"], "Charles")).name == "Charles"
    [row] = await told(database)
    assert (row.organization_id, row.target_id) == (None, folk["charlie"].id)


@pytest.mark.parametrize("name", ["", " \t ", "x" * 201, "x" * 10_000, "a\0b", "a\nb", "a\u202eb", "\ud800"])
async def test_what_is_no_name_is_refused_and_changes_nothing(database: Database, name: str) -> None:
    folk = await settle(database)
    before = await traces(database)
    with refused("invalid_field", "name"):
        await rename(database, folk["bob"], name)
    assert await traces(database) == before
    assert (await names_in(database, folk, folk.home.id))[folk["bob"].id] == "Bob"


async def test_the_same_name_again_is_nothing_to_tell(database: Database) -> None:
    folk = await settle(database)
    await rename(database, folk["bob"], "J\u00fcrgen")
    before = await traces(database)
    await rename(database, folk["bob"], "Ju\u0308rgen ")
    assert await traces(database) - before == NONE
    assert (await rename(database, folk["bob"], "x" * 200)).name == "x" * 200


async def test_of_two_at_once_each_says_what_it_replaced(database: Database) -> None:
    folk = await settle(database)
    wanted = [f"Bob {number}" for number in range(6)]
    await asyncio.gather(*(rename(database, folk["bob"], name) for name in wanted))
    rows = sorted(await told(database), key=lambda row: row.seq)
    replaced = [(row.before or {})["name"] for row in rows]
    given = [(row.after or {})["name"] for row in rows]
    assert sorted(given) == wanted
    assert replaced == ["Bob", *given[:-1]]
    assert (await names_in(database, folk, folk.home.id))[folk["bob"].id] == given[-1]


async def test_a_known_person_keeps_the_name_they_chose(database: Database) -> None:
    folk = await settle(database)
    await rename(database, folk["bob"], "Robert")
    async with database.transaction() as tx:
        third = await organizations.create(tx, folk.operator, "Third", NOW)
        await members.add(tx, folk.operator, third.id, "bob@example.org", "Bobby", "member", NOW)
    assert await names_in(database, folk, third.id) == {folk["bob"].id: "Robert"}
