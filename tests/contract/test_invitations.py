"""Invitations: who may invite whom, who comes in by one, and who does not."""

from __future__ import annotations

import asyncio

import pytest

from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.ledger import notifications
from ostiary.orgs import invitations, members, set_up, store, tokens, users
from ostiary.orgs.invitations import VALID_MS, Invitation
from ostiary.orgs.sign_in import SignedIn
from ostiary.secret import Secret
from tests.contract.entrants import HERE, OTHER, PASSWORD, enter, logged, peopled
from tests.people import DAY, NONE, NOW, ONE, OUTSIDE, People, everything, refused, settle, traces
from tests.servers.canaries import Canaries

NEW = "frank@example.org"


async def invite(
    database: Database, folk: People, by: str = "alice", email: str = NEW, role: str = "member", at: int = NOW
) -> tuple[Invitation, str]:
    async with database.transaction() as tx:
        made, token = await invitations.invite(tx, folk[by], folk.home.id, email, role, at)
    return made, token.reveal()


async def accept(
    database: Database, token: str, password: Secret | None = PASSWORD, *, name: str = "Frank", at: int = NOW
) -> SignedIn:
    return await invitations.accept(database, token, name=name, password=password, at=at, address=HERE, agent="Firefox")


async def is_open(database: Database, token: str, at: int = NOW) -> bool:
    async with database.read() as tx:
        return await invitations.find(tx, token, at) is not None


async def roles_at_home(database: Database, folk: People) -> dict[str, str]:
    async with database.read() as tx:
        return {one.email: one.role for one in await members.list_(tx, folk.operator, folk.home.id)}


# ---- who invites ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "role", "code"),
    [
        ("operator", "owner", None),
        ("alice", "owner", None),
        ("alice", "member", None),
        ("erin", "admin", None),
        ("erin", "owner", "insufficient_scope"),
        ("bob", "member", "insufficient_scope"),
        ("charlie", "member", "not_found"),
        ("dora", "member", "not_found"),
        ("alice", "king", "invalid_field"),
        ("alice", "operator", "invalid_field"),
    ],
)
async def test_who_may_invite_whom(database: Database, by: str, role: str, code: str | None) -> None:
    folk = await settle(database)
    before = await traces(database)
    if code is None:
        made, token = await invite(database, folk, by, role=role)
        assert await traces(database) - before == ONE
        assert (made.role, made.email, made.invited_by_name) == (role, NEW, folk[by].name)
        assert await is_open(database, token)
        return
    with refused(code):
        await invite(database, folk, by, role=role)
    assert await traces(database) - before == NONE


async def test_a_member_is_not_invited_and_an_address_must_be_one(database: Database) -> None:
    folk = await settle(database)
    with refused("conflict", "email"):
        await invite(database, folk, email="Bob@Example.org")
    with refused("invalid_field", "email"):
        await invite(database, folk, email="bob")


async def test_another_invitation_takes_the_place_of_the_first(database: Database) -> None:
    folk = await settle(database)
    _, first = await invite(database, folk)
    _, others = await invite(database, folk, email="gina@example.org")
    _, second = await invite(database, folk, role="admin")
    assert [await is_open(database, token) for token in (first, second, others)] == [False, True, True]


async def test_everybody_who_may_sees_and_revokes_them(database: Database) -> None:
    folk = await settle(database)
    member, token = await invite(database, folk)
    owner, _ = await invite(database, folk, email="gina@example.org", role="owner")
    async with database.transaction() as tx:
        for name in ("alice", "erin", "operator"):
            listed = await invitations.list_(tx, folk[name], folk.home.id, NOW)
            assert {one.id for one in listed} == {member.id, owner.id}
        for name in ("bob", *OUTSIDE):
            code = "insufficient_scope" if name == "bob" else "not_found"
            with refused(code):
                await invitations.list_(tx, folk[name], folk.home.id, NOW)
            with refused(code):
                await invitations.revoke(tx, folk[name], folk.home.id, member.id, NOW)
        with refused("insufficient_scope"):
            await invitations.revoke(tx, folk["erin"], folk.home.id, owner.id, NOW)
        with refused("not_found"):
            await invitations.revoke(tx, folk["dora"], folk.elsewhere.id, member.id, NOW)
    before = await traces(database)
    async with database.transaction() as tx:
        for _ in range(2):  # the second time nothing is left to be done
            await invitations.revoke(tx, folk["erin"], folk.home.id, member.id, NOW)
    assert await traces(database) - before == ONE
    assert not await is_open(database, token)
    with refused("not_found"):
        await accept(database, token)


@pytest.mark.parametrize("deed", ["removed", "demoted"])
async def test_what_somebody_handed_out_goes_with_what_they_might(database: Database, deed: str) -> None:
    folk = await settle(database)
    _, erins = await invite(database, folk, "erin")
    _, alices = await invite(database, folk, "alice", "gina@example.org")

    async def let_go(*_: object) -> None:
        return None

    async with database.transaction() as tx:
        if deed == "removed":
            await members.remove(tx, folk["alice"], folk.home.id, "erin@example.org", NOW, let_go=let_go)
        else:
            await members.change_role(tx, folk["alice"], folk.home.id, "erin@example.org", "member", NOW)
    assert not await is_open(database, erins)
    assert await is_open(database, alices)


# ---- who comes in -----------------------------------------------------------------------------------------------


async def test_somebody_new_chooses_name_and_password_and_is_in(database: Database, canaries: Canaries) -> None:
    folk = await settle(database)
    made, token = await invite(database, folk, role="admin")
    canaries.watch(token)
    for _ in range(3):
        assert await is_open(database, token)  # mail scanners open links
    done = await accept(database, token)
    assert done.session is not None
    assert (done.session.organization_id, done.user.name, done.user.is_operator) == (folk.home.id, "Frank", False)
    assert (await roles_at_home(database, folk))[NEW] == "admin"
    assert (await logged(database, "invitations.accept")) == [(folk.home.id, NEW, NEW, "ok")]
    assert (await enter(database, NEW)).session is not None
    assert token not in await everything(database)
    async with database.read() as tx:
        [one] = await invitations.list_(tx, folk["alice"], folk.home.id, NOW)
    assert (one.id, one.accepted_at, one.is_open(NOW)) == (made.id, NOW, False)
    with refused("not_found"):
        await accept(database, token)


async def told_of(database: Database, folk: People) -> list[tuple[str, str, set[tuple[str, str]]]]:
    """What was told of invitations: of whom, as what, and by which ways."""
    async with database.read() as tx:
        found = await notifications.list_(tx, folk["alice"], folk.home.id, kind="invitation.accepted")
    return [
        (
            one.notification.subject_name,
            one.notification.facts["role"],
            {(way.channel, way.address) for way in one.deliveries},
        )
        for one in found
    ]


@pytest.mark.parametrize("role", ["member", "owner"])
async def test_who_invited_and_who_looks_after_the_organization_hear_of_it_once(database: Database, role: str) -> None:
    folk = await settle(database)
    _, token = await invite(database, folk, "alice", role=role)
    for _ in range(3):
        with refused("invalid_field"):
            await accept(database, token, Secret("short"))
    assert await told_of(database, folk) == [], "nothing has happened"
    await asyncio.gather(*(accept(database, token) for _ in range(3)), return_exceptions=True)
    mailed = {("mail", "alice@example.org"), ("mail", "erin@example.org")}
    assert await told_of(database, folk) == [(NEW, role, mailed)], "and nobody is told of their own coming"


async def test_the_operator_who_invited_is_no_member_and_gets_no_mail(database: Database) -> None:
    folk = await settle(database)
    _, token = await invite(database, folk, "operator")
    await accept(database, token)
    [(_, _, ways)] = await told_of(database, folk)
    assert ways == {("mail", "alice@example.org"), ("mail", "erin@example.org")}


async def test_who_has_a_password_must_give_it(database: Database) -> None:
    folk = await peopled(database, "dora")
    _, token = await invite(database, folk, email="dora@example.org")
    for wrong in (OTHER, None):
        with refused("invalid_field", "password"):
            await accept(database, token, wrong)
    assert await is_open(database, token)
    done = await accept(database, token, name="Mallory")
    assert done.session is not None
    assert (done.user.name, done.session.organization_id) == ("Dora", folk.home.id)
    async with database.read() as tx:
        assert len(await store.list_memberships(tx, folk["dora"].id)) == 2
    assert (await enter(database, "dora")).session is not None


async def test_guessing_a_password_at_an_invitation_is_throttled(database: Database) -> None:
    folk = await peopled(database, "dora")
    _, token = await invite(database, folk, email="dora@example.org")
    for _ in range(5):
        with refused("invalid_field"):
            await accept(database, token, OTHER)
    with refused("rate_limit_exceeded"):
        await accept(database, token)


async def test_nobody_takes_over_by_an_invitation_what_belongs_to_others(database: Database) -> None:
    """Whoever invites has the link, too: by it they would choose Dora's password, and be the owner of Elsewhere."""
    folk = await settle(database)
    _, token = await invite(database, folk, email="dora@example.org")
    with refused("conflict", "password"):
        await accept(database, token)
    async with database.transaction() as tx:
        await users.change_operator(tx, folk.operator, "charlie@example.org", NOW, is_operator=True)
    _, token = await invite(database, folk, email="charlie@example.org")
    with refused("conflict", "password"):
        await accept(database, token)


async def test_a_user_who_belongs_nowhere_chooses_a_password(database: Database) -> None:
    folk = await settle(database)
    _, token = await invite(database, folk, email="charlie@example.org")
    assert (await accept(database, token)).user.id == folk["charlie"].id


@pytest.mark.parametrize("kind", ["expired", "other kind", "made up", "malformed", "long ago"])
async def test_what_does_not_work_is_refused_alike(database: Database, kind: str) -> None:
    folk = await settle(database)
    _, token = await invite(database, folk, at=NOW - 400 * DAY if kind == "long ago" else NOW)
    at = NOW
    match kind:
        case "expired":
            assert await is_open(database, token, NOW + VALID_MS - 1)
            at = NOW + VALID_MS
        case "other kind":
            async with database.transaction() as tx:
                made = await set_up.link_token(tx, NOW)
            assert made is not None
            token = made.reveal()
        case "made up":
            token = tokens.mint().reveal()
        case "malformed":
            token = "\0' OR 1=1"
    assert not await is_open(database, token, at)
    before = await roles_at_home(database, folk)
    with refused("not_found") as caught:
        await accept(database, token, at=at)
    assert "for another" in caught.value.message
    assert await roles_at_home(database, folk) == before


@pytest.mark.parametrize("password", ["short", "x" * 201, NEW.upper(), ""])
async def test_a_password_that_will_not_do_spends_nothing(database: Database, password: str) -> None:
    folk = await settle(database)
    _, token = await invite(database, folk)
    with refused("invalid_field", "password"):
        await accept(database, token, Secret(password))
    assert await is_open(database, token)


async def test_of_two_at_once_one_wins(database: Database) -> None:
    folk = await settle(database)
    _, token = await invite(database, folk)

    async def race(password: Secret) -> str:
        try:
            await accept(database, token, password)
        except Refusal as refusal:
            return refusal.code
        return "ok"

    codes = await asyncio.gather(race(PASSWORD), race(OTHER), race(Secret("a third password")))
    assert codes.count("ok") == 1
    assert set(codes) <= {"ok", "not_found", "conflict"}
    assert len(await roles_at_home(database, folk)) == 4
