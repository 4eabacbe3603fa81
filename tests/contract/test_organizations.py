"""Organizations and their members: every deed, by everybody, on both databases."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.ledger.store import list_audit
from ostiary.orgs import members, organizations, roles, store
from ostiary.orgs.members import Member
from tests.people import NONE, NOW, ONE, OUTSIDE, People, refused, settle, traces


async def members_of(database: Database, folk: People) -> dict[str, str]:
    async with database.read() as tx:
        return {one.email: one.role for one in await members.list_(tx, folk.operator, folk.home.id)}


async def add(database: Database, folk: People, by: str, email: str, role: str = "member") -> Member:
    async with database.transaction() as tx:
        return await members.add(tx, folk[by], folk.home.id, email, "Somebody", role, NOW)


async def change(database: Database, folk: People, by: str, whom: str, role: str) -> Member:
    async with database.transaction() as tx:
        return await members.change_role(tx, folk[by], folk.home.id, whom, role, NOW)


# ---- organizations ----------------------------------------------------------------------------------------------


async def test_an_organization_is_found_by_id_client_id_and_name(database: Database) -> None:
    folk = await settle(database)
    async with database.read() as tx:
        for sought in (folk.home.id, folk.home.client_id, "Home", " Home "):
            assert await organizations.get(tx, sought) == folk.home
        for sought in ("home", "", "x", "a\0b", "\ud800", "x" * 300):
            with refused("not_found"):
                await organizations.get(tx, sought)


async def test_a_client_id_is_what_credentials_begin_with(database: Database) -> None:
    folk = await settle(database)
    assert folk.home.client_id.startswith("org_")
    assert len(folk.home.client_id) == 26
    assert folk.home.client_id[4:].isalnum()
    assert folk.home.client_id != folk.elsewhere.client_id


async def test_only_the_operator_makes_and_lists_organizations(database: Database) -> None:
    folk = await settle(database)
    before = await traces(database)
    for name in ("alice", "erin", "bob", "charlie", "dora"):
        async with database.transaction() as tx:
            with refused("not_found"):
                await organizations.create(tx, folk[name], "Mine", NOW)
            with refused("not_found"):
                await organizations.list_(tx, folk[name])
    assert await traces(database) - before == NONE
    async with database.transaction() as tx:
        third = await organizations.create(tx, folk.operator, "Third", NOW)
    assert await traces(database) - before == ONE
    async with database.read() as tx:
        listed = await organizations.list_(tx, folk.operator)
        assert sorted(one.name for one in listed) == ["Elsewhere", "Home", "Third"]
        newest = (await list_audit(tx, third.id))[0]
    assert (newest.deed, newest.target_name, newest.actor_kind) == ("organizations.create", "Third", "operator")


async def test_an_organizations_name_must_be_one_and_be_free(database: Database) -> None:
    folk = await settle(database)
    for name, code in (("Home", "conflict"), ("", "invalid_field"), ("a\nb", "invalid_field")):
        with refused(code, "name"):
            async with database.transaction() as tx:
                await organizations.create(tx, folk.operator, name, NOW)


async def test_a_new_instance_gets_one_organization_once(database: Database) -> None:
    for _ in range(2):
        async with database.transaction() as tx:
            await organizations.ensure_first(tx, NOW)
    async with database.read() as tx:
        assert [one.name for one in await organizations.list_(tx, roles.operator())] == ["default"]
    assert await traces(database) == ONE


async def test_two_processes_that_start_at_once_make_one(database: Database) -> None:
    async def start() -> None:
        async with database.transaction() as tx:
            await organizations.ensure_first(tx, NOW)

    await asyncio.gather(*(start() for _ in range(5)))
    assert await traces(database) == ONE


async def test_an_instance_with_organizations_gets_no_other(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await organizations.ensure_first(tx, NOW)
        assert len(await organizations.list_(tx, folk.operator)) == 2


# ---- members ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["owner", "admin", "member"])
async def test_who_may_add_whom(database: Database, role: str) -> None:
    """Nobody gives what they could not take: an admin adds no owner."""
    folk = await settle(database)
    expected = {
        "operator": None,
        "alice": None,
        "erin": "insufficient_scope" if role == "owner" else None,
        "bob": "insufficient_scope",
        "charlie": "not_found",
        "dora": "not_found",
    }
    for name, code in expected.items():
        before = await traces(database)
        email = f"by-{name}@example.org"
        if code is None:
            added = await add(database, folk, name, email, role)
            assert (added.role, added.email, added.organization_id) == (role, email, folk.home.id)
            assert await traces(database) - before == ONE
        else:
            with refused(code):
                await add(database, folk, name, email, role)
            assert await traces(database) - before == NONE
            async with database.read() as tx:
                assert await store.find_user(tx, email) is None


async def test_who_may_see_the_members(database: Database) -> None:
    folk = await settle(database)
    expected = {"alice": None, "erin": None, "bob": "insufficient_scope", "charlie": "not_found", "dora": "not_found"}
    for name, code in expected.items():
        async with database.read() as tx:
            if code is None:
                listed = await members.list_(tx, folk[name], folk.home.id)
                assert sorted(one.name for one in listed) == ["Alice", "Bob", "Erin"]
            else:
                with refused(code):
                    await members.list_(tx, folk[name], folk.home.id)


async def test_who_may_change_roles(database: Database) -> None:
    folk = await settle(database)
    expected = {"erin": "insufficient_scope", "bob": "insufficient_scope", "charlie": "not_found", "dora": "not_found"}
    before = await traces(database)
    for name, code in expected.items():
        with refused(code):
            await change(database, folk, name, "bob@example.org", "admin")
    assert await traces(database) == before
    assert (await change(database, folk, "alice", "bob@example.org", "admin")).role == "admin"
    assert await traces(database) - before == ONE
    assert (await change(database, folk, "operator", folk["bob"].id, "owner")).role == "owner"
    async with database.read() as tx:
        newest = (await list_audit(tx, folk.home.id))[0]
    assert (newest.deed, newest.before, newest.after) == ("members.role", {"role": "admin"}, {"role": "owner"})


async def test_the_same_role_again_leaves_no_trace(database: Database) -> None:
    folk = await settle(database)
    before = await traces(database)
    assert (await change(database, folk, "alice", "BOB@example.org ", "member")).role == "member"
    assert await traces(database) == before


async def test_the_last_owner_stays(database: Database) -> None:
    folk = await settle(database)
    for role in ("admin", "member"):
        with refused("conflict", "role"):
            await change(database, folk, "alice", "alice@example.org", role)
    await change(database, folk, "alice", "erin@example.org", "owner")
    await change(database, folk, "alice", "alice@example.org", "member")
    with refused("conflict", "role"):
        await change(database, folk, "operator", "erin@example.org", "admin")
    assert await members_of(database, folk) == {
        "alice@example.org": "member",
        "erin@example.org": "owner",
        "bob@example.org": "member",
    }


async def test_two_owners_cannot_demote_each_other_at_once(database: Database) -> None:
    folk = await settle(database)
    await change(database, folk, "alice", "erin@example.org", "owner")
    done = await asyncio.gather(
        change(database, folk, "operator", "erin@example.org", "member"),
        change(database, folk, "operator", "alice@example.org", "member"),
        return_exceptions=True,
    )
    assert sorted(getattr(one, "code", "done") for one in done) == ["conflict", "done"]
    assert list((await members_of(database, folk)).values()).count("owner") == 1


async def test_who_is_no_member_has_no_role(database: Database) -> None:
    folk = await settle(database)
    for whom in ("dora@example.org", "charlie@example.org", "nobody@example.org", "", "a\0b"):
        with refused("not_found"):
            await change(database, folk, "alice", whom, "admin")


async def test_there_are_three_roles(database: Database) -> None:
    folk = await settle(database)
    for role in ("", "Owner", "operator", "root", "system"):
        with refused("invalid_field", "role"):
            await add(database, folk, "operator", "new@example.org", role)
        with refused("invalid_field", "role"):
            await change(database, folk, "operator", "bob@example.org", role)


async def test_what_is_no_address_is_refused(database: Database) -> None:
    folk = await settle(database)
    before = await traces(database)
    for email in ("", "x", "a\0@b.c"):
        with refused("invalid_field", "email"):
            await add(database, folk, "alice", email)
    assert await traces(database) == before


async def test_a_user_is_one_in_all_organizations(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        added = await members.add(tx, folk["dora"], folk.elsewhere.id, "Bob@Example.org", "Not Bob", "admin", NOW)
    assert (added.user_id, added.name, added.role) == (folk["bob"].id, "Bob", "admin")
    assert (await members_of(database, folk))["bob@example.org"] == "member"
    async with database.read() as tx:
        found = await tx.execute(select(schema.users.c.name).where(schema.users.c.email == "bob@example.org"))
        assert found.scalars().all() == ["Bob"]


async def test_nobody_is_a_member_twice(database: Database) -> None:
    folk = await settle(database)
    with refused("conflict", "email"):
        await add(database, folk, "alice", "bob@example.org", "admin")
    done = await asyncio.gather(
        *(add(database, folk, "alice", "new@example.org") for _ in range(3)), return_exceptions=True
    )
    assert sorted(getattr(one, "code", "done") for one in done) == ["conflict", "conflict", "done"]


async def test_outside_nothing_tells_whether_the_organization_exists(database: Database) -> None:
    folk = await settle(database)
    for name in OUTSIDE:
        bodies = []
        for organization_id in (folk.home.id, "none"):
            async with database.read() as tx:
                with refused("not_found") as caught:
                    await members.list_(tx, folk[name], organization_id)
            bodies.append(caught.value.body())
        assert bodies[0] == bodies[1]
