"""The first start: one link, one winner, one owner."""

from __future__ import annotations

import asyncio

import pytest

from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.orgs import access_store, link_store, members, organizations, roles, sessions, set_up, store, tokens
from ostiary.orgs.sign_in import SignedIn
from ostiary.secret import Secret
from tests.contract.entrants import HERE, OTHER, PASSWORD, enter, logged, peopled
from tests.people import DAY, HOUR, NOW, everything, refused, settle
from tests.servers.canaries import Canaries


async def fresh(database: Database) -> None:
    """A new instance, as its first start leaves it."""
    async with database.transaction() as tx:
        await organizations.ensure_first(tx, NOW)


async def token_of(database: Database, at: int = NOW) -> str:
    async with database.transaction() as tx:
        made = await set_up.link_token(tx, at)
    assert made is not None
    return made.reveal()


async def be_first(
    database: Database,
    token: str,
    *,
    email: str = "alice@example.org",
    password: Secret = PASSWORD,
    organization: str = "Acme",
    name: str = "Alice",
    at: int = NOW,
) -> SignedIn:
    return await set_up.set_up(
        database,
        token,
        name=name,
        email=email,
        password=password,
        organization=organization,
        at=at,
        address=HERE,
        agent="Firefox",
    )


async def is_open(database: Database, token: str, at: int = NOW) -> bool:
    async with database.read() as tx:
        return await set_up.is_open(tx, token, at)


async def test_the_link_makes_an_owner_who_runs_the_instance(database: Database, canaries: Canaries) -> None:
    await fresh(database)
    token = canaries.watch(await token_of(database))
    assert await is_open(database, token)
    assert await is_open(database, token)  # looking spends nothing
    done = await be_first(database, token)
    assert done.session is not None
    assert done.token is not None
    async with database.read() as tx:
        [home] = await organizations.list_(tx, roles.operator())
        [member] = await members.list_(tx, roles.operator(), home.id)
        user, by = await sessions.actor_of(tx, done.session)
        assert await sessions.find(tx, done.token.reveal(), NOW) == done.session
    assert (home.name, done.session.organization_id) == ("Acme", home.id)
    assert (member.email, member.role, member.name) == ("alice@example.org", "owner", "Alice")
    assert (user.is_operator, by.role, by.organization_id) == (True, "operator", None)
    for deed in ("users.set_up", "sessions.start"):
        assert await logged(database, deed) == [(home.id, "alice@example.org", "alice@example.org", "ok")]
    assert await logged(database, "organizations.edit") == [(home.id, "alice@example.org", "Acme", "ok")]
    assert not await is_open(database, token)
    assert (await enter(database, "alice")).session is not None
    assert token not in await everything(database)


async def test_nobody_is_set_up_where_somebody_can_sign_in(database: Database) -> None:
    await settle(database)
    token = await token_of(database)
    async with database.transaction() as tx:
        bob = await store.find_user(tx, "bob@example.org")
        assert bob is not None
        await access_store.add_identity(tx, "https://issuer.example", "7", bob.id, NOW)
        assert await set_up.link_token(tx, NOW) is None
    assert not await is_open(database, token)
    with refused("not_found"):
        await be_first(database, token)


async def test_a_password_closes_it_too(database: Database) -> None:
    await peopled(database, "bob")
    async with database.transaction() as tx:
        assert await set_up.link_token(tx, NOW) is None


@pytest.mark.parametrize("kind", ["spent", "replaced", "expired", "other kind", "made up", "malformed"])
async def test_what_does_not_work_is_refused_alike_and_changes_nothing(database: Database, kind: str) -> None:
    await fresh(database)
    token, at = await token_of(database), NOW
    match kind:
        case "replaced":
            await token_of(database, NOW + 1)
        case "spent":
            async with database.transaction() as tx:
                assert await link_store.claim_link(tx, tokens.digest(token) or b"", "set_up", NOW)
        case "expired":
            at = NOW + DAY
        case "other kind":
            made = tokens.mint()
            async with database.transaction() as tx:
                await link_store.add_link(tx, tokens.kept(made), "reset", "usr_1", at=NOW, expires_at=NOW + DAY)
            token = made.reveal()
        case "made up":
            token = tokens.mint().reveal()
        case _:
            token = "'; DROP TABLE users; --\0"
    before = await everything(database)
    assert not await is_open(database, token, at)
    with refused("not_found") as caught:
        await be_first(database, token, at=at)
    assert "'ostiary serve'" in caught.value.message
    assert await everything(database) == before


async def test_the_newest_link_works_and_for_a_day(database: Database) -> None:
    await fresh(database)
    await token_of(database)
    token = await token_of(database, NOW + HOUR)
    assert await is_open(database, token, NOW + HOUR + DAY - 1)
    assert not await is_open(database, token, NOW + HOUR + DAY)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"name": ""}, "name"),
        ({"email": "alice"}, "email"),
        ({"organization": "a\nb"}, "organization"),
        ({"password": Secret("short")}, "password"),
        ({"password": Secret("x" * 201)}, "password"),
        ({"password": Secret("Alice@Example.Org")}, "password"),
        ({"name": "Alice of Wonderland", "password": Secret("alice OF wonderland")}, "password"),
    ],
)
async def test_what_is_mistyped_is_named_and_spends_nothing(
    database: Database, wrong: dict[str, object], param: str
) -> None:
    await fresh(database)
    token = await token_of(database)
    with refused("invalid_field", param):
        await be_first(database, token, **wrong)  # type: ignore[arg-type]  # each of its own type
    assert await is_open(database, token)


async def test_of_two_at_once_one_wins(database: Database) -> None:
    await fresh(database)
    token = await token_of(database)

    async def race(name: str) -> str:
        try:
            await be_first(database, token, email=f"{name}@example.org", organization=name)
        except Refusal as refusal:
            return refusal.code
        return "ok"

    assert sorted(await asyncio.gather(*(race(name) for name in ("alice", "mallory", "trudy")))) == [
        "not_found",
        "not_found",
        "ok",
    ]
    async with database.read() as tx:
        assert len(await organizations.list_(tx, roles.operator())) == 1
        assert len(await store.list_users(tx)) == 1


async def test_an_organization_with_members_keeps_its_name(database: Database) -> None:
    await fresh(database)
    async with database.transaction() as tx:
        await members.add(
            tx, roles.operator(), (await organizations.get(tx, "default")).id, "bob@x.org", "B", "owner", NOW
        )
    done = await be_first(database, await token_of(database), email="bob@x.org")
    async with database.read() as tx:
        [home] = await organizations.list_(tx, roles.operator())
        listed = await members.list_(tx, roles.operator(), home.id)
    assert home.name == "default"
    assert [(one.email, one.role) for one in listed] == [("bob@x.org", "owner")]
    assert done.user.is_operator


async def test_of_several_organizations_the_named_one_is_meant_or_a_new_one(database: Database) -> None:
    folk = await settle(database)
    token = await token_of(database)
    done = await be_first(database, token, organization="Elsewhere", email="owner@example.org")
    assert done.session is not None
    assert done.session.organization_id == folk.elsewhere.id


async def test_a_new_organization_is_made_where_none_of_several_is_named_so(database: Database) -> None:
    await settle(database)
    await be_first(database, await token_of(database), organization="Third", email="owner@example.org", password=OTHER)
    async with database.read() as tx:
        assert len(await organizations.list_(tx, roles.operator())) == 3
