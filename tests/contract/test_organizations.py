"""Organizations and their members: every deed, by everybody, on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from ostiary.actor import Actor
from ostiary.db import changes, schema
from ostiary.db.database import Database, Transaction
from ostiary.ledger.audit_store import list_audit
from ostiary.limits.budgets import Budget
from ostiary.limits.store import list_accounts
from ostiary.orgs import members, organizations, roles, store, users
from ostiary.orgs.members import Member
from ostiary.orgs.organizations import Organization
from tests.people import DAY, HOUR, NONE, NOW, ONE, OUTSIDE, People, refused, settle, traces

USD = 1_000_000_000


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


async def edit(database: Database, folk: People, by: str, **wished: object) -> Organization:
    async with database.transaction() as tx:
        return await organizations.change(tx, folk[by], folk.home.id, wished, NOW)


EVERY_FIELD: dict[str, object] = {
    "name": "Casa",
    "rpm": 60,
    "rpd": 1_000,
    "tpm": 50_000,
    "parallel": 8,
    "revocation_is_final": True,
    "max_lifetime_ms": 7 * DAY,
    "allow_unpriced": True,
    "trace_days": 30,
    "content_days": 7,
    "capture_is_forbidden": True,
    "budget": Budget("month", 5 * USD, 4 * USD, (50,)),
}


async def test_every_field_is_set_found_again_and_lifted(database: Database) -> None:
    folk = await settle(database)
    before = await traces(database)
    edited = await edit(database, folk, "alice", **EVERY_FIELD)
    assert await traces(database) - before == ONE
    async with database.read() as tx:
        shown = await organizations.show(tx, folk["alice"], folk.home.id)
        listed = await store.list_organizations(tx)
        caps = {one.period_id: one.cap_nano for one in await list_accounts(tx, store.SCOPE, folk.home.id)}
    assert shown == edited
    assert shown in listed
    assert {name: getattr(shown, name) for name in EVERY_FIELD} == EVERY_FIELD
    assert (shown.id, shown.client_id, shown.created_at) == (folk.home.id, folk.home.client_id, NOW)
    assert caps == {"2026-11": 5 * USD, "total": None}
    switches = {name: False for name, value in EVERY_FIELD.items() if value is True}
    lifted = {name: None for name in EVERY_FIELD if name != "name"} | switches
    again = await edit(database, folk, "alice", **lifted | {"name": "Home"})
    assert again == folk.home
    async with database.read() as tx:
        assert await store.find_organization(tx, folk.home.id) == folk.home
        assert (await store.find_organization(tx, folk.elsewhere.id)) == folk.elsewhere


async def test_an_edit_is_audited_and_told(database: Database) -> None:
    folk = await settle(database)
    async with database.read() as tx:
        seq = await changes.latest(tx)
    await edit(database, folk, "erin", rpm=60, name="Home")
    await edit(database, folk, "alice", budget=Budget("total", USD))
    before = await traces(database)
    await edit(database, folk, "alice", rpm=60, budget=Budget("total", USD))
    assert await traces(database) == before
    async with database.read() as tx:
        budget, rpm, *_ = await list_audit(tx, folk.home.id)
        heard = await changes.list_after(tx, seq)
    assert (rpm.deed, rpm.before, rpm.after) == ("organizations.edit", {"rpm": None}, {"rpm": 60})
    assert (budget.before, (budget.after or {})["budget"]["cap_nano"]) == ({"budget": None}, USD)
    assert {(one.noun, one.id) for one in heard} == {("organization", folk.home.id)}


async def test_who_may_edit_an_organization_and_who_its_budget(database: Database) -> None:
    folk = await settle(database)
    expected: dict[str, tuple[str | None, str | None]] = {
        "operator": (None, None),
        "alice": (None, None),
        "erin": (None, "insufficient_scope"),
        "bob": ("insufficient_scope", "insufficient_scope"),
        "charlie": ("not_found", "not_found"),
        "dora": ("not_found", "not_found"),
    }
    for number, (name, (code, budget_code)) in enumerate(expected.items(), 1):
        for refusal, wished in ((code, {"rpm": number}), (budget_code, {"rpd": number, "budget": None})):
            before = await traces(database)
            if refusal is None:
                await edit(database, folk, name, **wished)
            else:
                with refused(refusal):
                    await edit(database, folk, name, **wished)
            assert await traces(database) - before == (NONE if refusal else ONE), (name, wished)
        async with database.read() as tx:
            if code is None:
                assert (await organizations.show(tx, folk[name], folk.home.id)).rpm == number
            else:
                with refused(code):
                    await organizations.show(tx, folk[name], folk.home.id)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", 5),
        ("name", "a\0b"),
        ("rpm", 0),
        ("rpd", -1),
        ("tpm", True),
        ("parallel", 1.5),
        ("rpm", 2**31),
        ("revocation_is_final", None),
        ("revocation_is_final", 1),
        ("allow_unpriced", "yes"),
        ("max_lifetime_ms", HOUR - 1),
        ("max_lifetime_ms", 367 * DAY),
        ("max_lifetime_ms", True),
        ("max_lifetime_ms", "7d"),
        ("trace_days", 0),
        ("content_days", 3_651),
        ("budget", 5),
        ("budget", Budget("month", -1)),
        ("budget", Budget("total", None)),
        ("id", "orgn_x"),
        ("client_id", "org_x"),
        ("created_at", 5),
        ("nonsense", 5),
    ],
)
async def test_what_an_organization_cannot_be_is_refused_by_name(database: Database, name: str, value: object) -> None:
    folk = await settle(database)
    before = await traces(database)
    with refused("invalid_field", name):
        await edit(database, folk, "alice", **({"rpm": 5} | {name: value}))
    assert await traces(database) == before


async def test_an_organization_takes_no_name_that_is_taken(database: Database) -> None:
    folk = await settle(database)
    with refused("conflict", "name"):
        await edit(database, folk, "alice", name="Elsewhere")


# ---- operators --------------------------------------------------------------------------------------------------


async def test_only_the_operator_makes_operators(database: Database) -> None:
    folk = await settle(database)

    async def change_operator(by: str, *, is_operator: bool) -> bool:
        async with database.transaction() as tx:
            user = await users.change_operator(tx, folk[by], " Alice@example.org", NOW, is_operator=is_operator)
        return user.is_operator

    before = await traces(database)
    for name in ("alice", "erin", "bob", "charlie", "dora"):
        with refused("not_found"):
            await change_operator(name, is_operator=True)
    assert not await change_operator("operator", is_operator=False)
    assert await traces(database) == before
    assert await change_operator("operator", is_operator=True)
    assert await traces(database) - before == ONE
    async with database.read() as tx:
        by = await members.actor_of_key(tx, folk.home.id, folk["alice"].id, ["admin:gateways:read"], "ci")
        newest = (await list_audit(tx))[0]
    assert by.may("gateways.list", None)
    assert (newest.deed, newest.organization_id, newest.after) == ("users.operator", None, {"is_operator": True})
    assert not await change_operator("operator", is_operator=False)
    async with database.transaction() as tx:
        with refused("not_found"):
            await users.change_operator(tx, folk.operator, "nobody@example.org", NOW, is_operator=True)


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


# ---- who leaves -------------------------------------------------------------------------------------------------


async def remove(database: Database, folk: People, by: str, whom: str) -> tuple[Member, list[str]]:
    told: list[str] = []

    async def let_go(_tx: Transaction, actor: Actor, organization_id: str, user_id: str, at: int) -> None:
        assert (actor, organization_id, at) == (folk[by], folk.home.id, NOW)
        told.append(user_id)

    async with database.transaction() as tx:
        return await members.remove(tx, folk[by], folk.home.id, whom, NOW, let_go=let_go), told


async def test_who_may_remove_whom(database: Database) -> None:
    """Nobody takes what they could not give: an admin removes no owner."""
    folk = await settle(database)
    await change(database, folk, "operator", "erin@example.org", "owner")
    await add(database, folk, "operator", "admin@example.org", "admin")
    async with database.transaction() as tx:
        user = await users.ensure(tx, "admin@example.org", "x", NOW)
    folk = replace(folk, actors={**folk.actors, "admin": roles.member_actor(user, "admin", folk.home.id, "test")})
    for name, code in {"bob": "insufficient_scope", "charlie": "not_found", "dora": "not_found"}.items():
        with refused(code):
            await remove(database, folk, name, "admin@example.org")
    with refused("insufficient_scope"):
        await remove(database, folk, "admin", "erin@example.org")
    before = await traces(database)
    gone, told = await remove(database, folk, "admin", "bob@example.org")
    assert (gone.email, told) == ("bob@example.org", [folk["bob"].id])
    assert await traces(database) - before == ONE
    async with database.read() as tx:
        newest = (await list_audit(tx, folk.home.id))[0]
    assert (newest.deed, newest.target_name, newest.before) == (
        "members.remove",
        "bob@example.org",
        {"role": "member"},
    )
    await remove(database, folk, "alice", folk["erin"].id)
    assert set(await members_of(database, folk)) == {"alice@example.org", "admin@example.org"}
    for whom in ("bob@example.org", "dora@example.org", "", "a\0b"):
        with refused("not_found"):
            await remove(database, folk, "alice", whom)
    again = await add(database, folk, "alice", "bob@example.org")
    assert again.user_id == folk["bob"].id


async def test_the_last_owner_is_not_removed(database: Database) -> None:
    folk = await settle(database)
    for name in ("alice", "operator"):
        with refused("conflict"):
            await remove(database, folk, name, "alice@example.org")
    assert len(await members_of(database, folk)) == 3


async def test_two_owners_cannot_remove_each_other_at_once(database: Database) -> None:
    folk = await settle(database)
    await change(database, folk, "alice", "erin@example.org", "owner")
    done = await asyncio.gather(
        remove(database, folk, "operator", "erin@example.org"),
        remove(database, folk, "operator", "alice@example.org"),
        return_exceptions=True,
    )
    assert sorted(getattr(one, "code", "done") for one in done) == ["conflict", "done"]


async def test_nobody_goes_when_what_is_theirs_cannot_be_ended(database: Database) -> None:
    folk = await settle(database)

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            await members.remove(tx, folk["alice"], folk.home.id, "bob@example.org", NOW, let_go=fail)
    assert len(await members_of(database, folk)) == 3
