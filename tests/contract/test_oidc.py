"""Who somebody is that signs in elsewhere: known by issuer and subject, linked by a verified address."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.orgs import oidc, store
from ostiary.orgs.store import User
from tests.contract.entrants import logged
from tests.people import NOW, refused, settle

ISSUER = "https://issuer.example"


async def come(database: Database, subject: str = "7", email: str | None = "bob@example.org", **more: Any) -> User:
    given = {"email_verified": True, "name": "Bob B.", "issuer": ISSUER, "domains": (), **more}
    async with database.transaction() as tx:
        return await oidc.find_or_link(
            tx, given["issuer"], subject, email, given["email_verified"], given["name"], NOW, domains=given["domains"]
        )


async def test_a_member_is_linked_by_a_verified_address_and_known_ever_after(database: Database) -> None:
    folk = await settle(database)
    bob = await come(database, email="Bob@Example.org")
    assert (bob.id, bob.name) == (folk["bob"].id, "Bob")
    assert await logged(database, "users.identity") == [(folk.home.id, "bob@example.org", "bob@example.org", "ok")]
    for email, is_verified in (("bob@example.org", False), ("new@elsewhere.example", True), (None, False)):
        assert await come(database, email=email, email_verified=is_verified) == bob
    assert len(await logged(database, "users.identity")) == 1


@pytest.mark.parametrize("verified", [False, None, "true", 1])
async def test_an_address_that_is_not_verified_links_nobody(database: Database, verified: object) -> None:
    await settle(database)
    with refused("not_found"):
        await come(database, email_verified=verified)


async def test_a_recycled_address_does_not_move_an_identity(database: Database) -> None:
    """The provider gives Bob's subject Erin's address: it is still Bob."""
    folk = await settle(database)
    await come(database)
    assert (await come(database, email="erin@example.org")).id == folk["bob"].id
    assert (await come(database, subject="8", email="erin@example.org")).id == folk["erin"].id
    assert (await come(database, subject="7", email="erin@example.org", issuer="https://other.example")).id == (
        folk["erin"].id
    )


@pytest.mark.parametrize(
    ("email", "domains", "comes"),
    [
        ("new@example.org", ["example.org"], True),
        ("new@example.org", ["@Example.ORG "], True),
        ("charlie@example.org", ["example.org"], True),
        ("charlie@example.org", [], False),
        ("new@example.org", [], False),
        ("new@sub.example.org", ["example.org"], False),
        ("new@notexample.org", ["example.org"], False),
        ("new@example.org@evil.example", ["example.org"], False),
        ("example.org@evil.example", ["example.org"], False),
        ("new@example.org", [""], False),
    ],
)
async def test_somebody_new_comes_from_an_accepted_domain_only(
    database: Database, email: str, domains: list[str], *, comes: bool
) -> None:
    await settle(database)
    if not comes:
        with refused("not_found"):
            await come(database, email=email, domains=domains)
        return
    user = await come(database, email=email, domains=domains, name="a\nb")
    assert (user.email, user.is_operator) == (email, False)
    async with database.read() as tx:
        assert await store.list_memberships(tx, user.id) == []


@pytest.mark.parametrize(("issuer", "subject"), [("", "7"), (ISSUER, ""), (ISSUER, "x" * 256), ("x" * 301, "7")])
async def test_nobody_is_nobody(database: Database, issuer: str, subject: str) -> None:
    await settle(database)
    with refused("invalid_field", "subject"):
        await come(database, subject, issuer=issuer)


async def test_two_first_times_at_once_make_one_identity(database: Database) -> None:
    folk = await settle(database)

    async def race() -> str:
        try:
            return (await come(database)).id
        except Refusal as refusal:
            return refusal.code

    found = await asyncio.gather(*(race() for _ in range(4)))
    assert folk["bob"].id in found
    assert set(found) <= {folk["bob"].id, "conflict"}
    assert (await come(database)).id == folk["bob"].id
