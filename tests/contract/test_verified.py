"""Whoever invites could open the account themselves: nobody else gives it anything until the address has spoken."""

from __future__ import annotations

import asyncio

import pytest

from ostiary.db.database import Database
from ostiary.orgs import invitations, members, oidc, password_resets, users
from ostiary.secret import Secret
from tests.contract.entrants import HERE, OTHER, PASSWORD, enter, tried
from tests.people import NOW, People, refused, settle

FRANK = "frank@example.org"


async def opened(database: Database, by: str = "dora") -> People:
    """Dora has invited Frank to her organization, and has used the link herself."""
    folk = await settle(database)
    async with database.transaction() as tx:
        _, token = await invitations.invite(tx, folk[by], folk.elsewhere.id, FRANK, "member", NOW)
    await invitations.accept(
        database, token.reveal(), name="Frank", password=PASSWORD, at=NOW, address=HERE, agent="Firefox"
    )
    return folk


async def add(database: Database, folk: People) -> None:
    async with database.transaction() as tx:
        await members.add(tx, folk["alice"], folk.home.id, FRANK, "Frank", "member", NOW)


async def test_who_has_not_spoken_is_not_added_elsewhere(database: Database) -> None:
    folk = await opened(database)
    with refused("conflict", "email") as refusal:
        await add(database, folk)
    assert "Invite them instead" in refusal.value.message
    with refused("conflict", "email"):
        async with database.transaction() as tx:
            await users.change_operator(tx, folk.operator, FRANK, NOW, is_operator=True)


async def test_an_invitation_to_elsewhere_needs_link_and_password(database: Database) -> None:
    """Dora knows the password but not the link; Frank has the link, and gets a password by mail."""
    folk = await opened(database)
    async with database.transaction() as tx:
        _, token = await invitations.invite(tx, folk["alice"], folk.home.id, FRANK, "member", NOW)
    with refused("invalid_field", "password"):
        await invitations.accept(
            database, token.reveal(), name="Frank", password=OTHER, at=NOW, address=HERE, agent="Firefox"
        )


async def test_a_link_by_mail_lets_the_address_speak(database: Database) -> None:
    folk = await opened(database)
    async with database.transaction() as tx:
        asked = await password_resets.request(tx, FRANK, NOW)
    assert asked is not None
    await password_resets.reset(database, asked[1].reveal(), OTHER, NOW)
    await add(database, folk)
    assert (await tried(database, "frank", PASSWORD)).code == "invalid_field"
    assert (await enter(database, "frank", OTHER)).session is not None


async def test_while_somebody_is_added_nobody_chooses_their_password(database: Database) -> None:
    """Dora has the link of her invitation, and would come in wherever else the address belongs."""
    folk = await settle(database)
    async with database.transaction() as tx:
        await users.ensure(tx, FRANK, "Frank", NOW)
        _, token = await invitations.invite(tx, folk["dora"], folk.elsewhere.id, FRANK, "member", NOW)
    async with database.transaction() as tx:
        await members.add(tx, folk["alice"], folk.home.id, FRANK, "Frank", "member", NOW)
        accepting = invitations.accept(
            database, token.reveal(), name="Frank", password=PASSWORD, at=NOW, address=HERE, agent="Firefox"
        )
        other = asyncio.ensure_future(accepting)
        await asyncio.sleep(0.3)
        assert not other.done()
    with refused("conflict", "password"):
        await other
    assert (await tried(database, "frank", PASSWORD)).param == "password"


async def test_so_does_the_operator(database: Database) -> None:
    folk = await opened(database)
    await password_resets.set_password(database, folk.operator, FRANK, OTHER, NOW)
    await add(database, folk)


async def come(database: Database) -> None:
    """Frank himself, by way of an OpenID provider."""
    async with database.transaction() as tx:
        await oidc.find_or_link(tx, "https://issuer.example", "7", FRANK, True, "Frank", NOW)


async def test_an_identity_ends_what_another_may_have_left(database: Database) -> None:
    folk = await opened(database)
    await come(database)
    assert (await tried(database, "frank", PASSWORD)).code == "invalid_field"
    await add(database, folk)
    await password_resets.set_password(database, folk.operator, FRANK, OTHER, NOW)
    await come(database)
    assert (await enter(database, "frank", OTHER)).session is not None, "what he has had since is his"


@pytest.mark.parametrize("password", [PASSWORD, None])
async def test_who_cannot_sign_in_yet_is_added(database: Database, password: Secret | None) -> None:
    folk = await settle(database)
    if password is not None:
        await password_resets.set_password(database, folk.operator, "charlie@example.org", password, NOW)
    async with database.transaction() as tx:
        await members.add(tx, folk["alice"], folk.home.id, "charlie@example.org", "Charlie", "member", NOW)
