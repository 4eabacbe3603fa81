"""Client credentials: every deed, by everybody, on both databases."""

from __future__ import annotations

from ostiary.agents import client_credentials, credential, store
from ostiary.agents.client_credentials import ClientCredential
from ostiary.db.database import Database
from ostiary.ledger.audit_store import list_audit
from ostiary.secret import Secret
from tests import people
from tests.people import NONE, NOW, ONE, People, refused, settle, traces
from tests.servers.canaries import Canaries

PEPPER = Secret("pepper for tests")


async def made(database: Database, folk: People, by: str = "alice", name: str = "crm") -> tuple[ClientCredential, str]:
    async with database.transaction() as tx:
        one, secret = await client_credentials.create(
            tx, folk[by], folk.home.id, name, client_id=folk.home.client_id, pepper=PEPPER, at=NOW
        )
    return one, secret.reveal()


async def test_a_triple_authenticates_as_the_organization(database: Database, canaries: Canaries) -> None:
    folk = await settle(database)
    one, triple = await made(database, folk)
    canaries.watch(triple)
    assert credential.parse(triple) == ("client", triple)
    assert triple.split(":")[0] == folk.home.client_id
    async with database.read() as tx:
        known = {each.digest: each for each in await store.list_all_client_credentials(tx)}
        assert await store.find_client_credential_by_id(tx, one.id) == one
    assert known == {credential.digest(PEPPER, triple): one}
    assert one.organization_id == folk.home.id
    assert one.policy().status == "active"


async def test_nothing_stored_holds_the_secret(database: Database) -> None:
    folk = await settle(database)
    _, triple = await made(database, folk)
    stored = await people.everything(database)
    for part in triple.split(":")[1:]:
        assert part[7:50] not in stored


async def test_each_deed_by_everybody(database: Database) -> None:
    folk = await settle(database)
    expected = {
        "operator": None,
        "alice": None,
        "erin": None,
        "bob": "insufficient_scope",
        "charlie": "not_found",
        "dora": "not_found",
    }
    for name, code in expected.items():
        one, _ = await made(database, folk, "operator", f"for {name}")
        before = await traces(database)
        if code is None:
            await made(database, folk, name, f"by {name}")
            async with database.transaction() as tx:
                revoked = await client_credentials.revoke(tx, folk[name], folk.home.id, one.name, NOW)
                listed = await client_credentials.list_(tx, folk[name], folk.home.id)
            assert revoked in listed
            assert revoked.policy().status == "revoked"
            done = await traces(database) - before
            assert (done.audit, done.changes) == (2, 2)
            continue
        with refused(code):
            await made(database, folk, name, f"by {name}")
        async with database.transaction() as tx:
            with refused(code):
                await client_credentials.revoke(tx, folk[name], folk.home.id, one.id, NOW)
            with refused(code):
                await client_credentials.list_(tx, folk[name], folk.home.id)
        assert await traces(database) - before == NONE


async def test_elsewhere_what_exists_and_what_does_not_look_alike(database: Database) -> None:
    folk = await settle(database)
    one, _ = await made(database, folk)
    for name in people.OUTSIDE:
        bodies = []
        for id_or_name in (one.id, "crm", "none"):
            async with database.transaction() as tx:
                with refused("not_found") as caught:
                    await client_credentials.revoke(tx, folk[name], folk.home.id, id_or_name, NOW)
            bodies.append(caught.value.body())
        assert bodies[0] == bodies[1] == bodies[2]
    async with database.transaction() as tx:
        with refused("not_found"):
            await client_credentials.revoke(tx, folk["dora"], folk.elsewhere.id, one.id, NOW)


async def test_several_live_side_by_side_until_revoked(database: Database) -> None:
    folk = await settle(database)
    first, _ = await made(database, folk, name="first")
    second, _ = await made(database, folk, name="second")
    before = await traces(database)
    async with database.transaction() as tx:
        await client_credentials.revoke(tx, folk["alice"], folk.home.id, "first", NOW + 5)
    assert await traces(database) - before == ONE
    async with database.read() as tx:
        listed = await store.list_client_credentials(tx, folk.home.id)
        assert await store.list_client_credentials(tx, folk.elsewhere.id) == []
        newest = (await list_audit(tx, folk.home.id))[0]
    assert {one.id: one.revoked_at for one in listed} == {first.id: NOW + 5, second.id: None}
    assert (newest.deed, newest.target_id, newest.target_name) == ("client_credentials.revoke", first.id, "first")


async def test_revoked_is_for_good(database: Database) -> None:
    folk = await settle(database)
    one, _ = await made(database, folk)
    async with database.transaction() as tx:
        await client_credentials.revoke(tx, folk["alice"], folk.home.id, one.id, NOW)
    async with database.transaction() as tx:
        with refused("conflict"):
            await client_credentials.revoke(tx, folk["alice"], folk.home.id, one.id, NOW)
    with refused("conflict", "name"):
        await made(database, folk)


async def test_a_name_must_be_one_and_be_free(database: Database) -> None:
    folk = await settle(database)
    await made(database, folk)
    for name, code in (("crm", "conflict"), ("", "invalid_field"), ("a\0b", "invalid_field")):
        with refused(code, "name"):
            await made(database, folk, name=name)
    async with database.transaction() as tx:
        for name in ("none", "", "a\0b"):
            with refused("not_found"):
                await client_credentials.revoke(tx, folk["alice"], folk.home.id, name, NOW)
