"""New data keys, on both databases: every record is sealed anew, cut off or not, and what was lost is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.ids import new_id
from ostiary.secret import Secret
from ostiary.vault import contents, seal_store, sealers
from ostiary.vault.contents import Sealer
from ostiary.vault.rekey import rekey
from ostiary.vault.rotation import rotate
from ostiary.vault.seal import Place, Undecryptable
from tests.contract.vaults import Death, Mortal, Stored, furnished
from tests.fakes import SetClock
from tests.people import NOW, everything, refused, spoil
from tests.servers.canaries import Canaries


@pytest.fixture
async def stored(database: Database, tmp_path: Path, canaries: Canaries) -> Stored:
    return await furnished(database, tmp_path / "keys", canaries)


@pytest.fixture
async def mortal(database_url: str, database: Database) -> AsyncIterator[Mortal]:
    opened = Mortal(database_url)
    opened.chain_key = database.chain_key
    yield opened
    await opened.close()


def silent(_what: str, _done: int, _total: int) -> None:
    return None


class Hasty(SetClock):
    """Waits for nothing: whoever waits sees time go by."""

    async def sleep(self, seconds: float) -> None:
        self.move(seconds)
        await asyncio.sleep(0)


async def versions(database: Database) -> dict[str, set[int]]:
    """Of data keys, by organization."""
    async with database.read() as tx:
        found: dict[str, set[int]] = {}
        for row in await seal_store.list_data_keys(tx, None, 1_000):
            found.setdefault(row.organization_id, set()).add(row.version)
        return found


async def ciphertexts(database: Database) -> set[str]:
    async with database.read() as tx:
        rows = [await seal_store.list_sealed(tx, shelf, None, None) for shelf in seal_store.SHELVES]
    return {row.sealed for page in rows for row in page}


async def serve(database: Database, owner: str, **values: object) -> None:
    """A gateway, as the database sees it."""
    row = {"id": owner, "name": f"name of {owner}", "version": "1", "started_at": NOW, "heartbeat_at": NOW}
    async with database.transaction() as tx:
        await tx.execute(insert(schema.owners).values(**row | values))


async def phases(database: Database) -> list[str]:
    a = schema.audit.c
    async with database.read() as tx:
        rows = await tx.execute(select(a.after).where(a.deed == "vault.rekey").order_by(a.seq))
        return [row.after["phase"] for row in rows]


def test_every_table_that_seals_is_known() -> None:
    sealing = {table for table in schema.metadata.sorted_tables if {"sealed", "sealed_version"} & set(table.c.keys())}
    assert {shelf.table for shelf in seal_store.SHELVES} == sealing
    for shelf in seal_store.SHELVES:
        assert shelf.key == tuple(column.name for column in shelf.table.primary_key)
        assert shelf.has_origin == ("origin" in shelf.table.c)


async def test_everything_is_sealed_anew_and_old_data_keys_are_gone(stored: Stored) -> None:
    database, home, elsewhere = stored.database, stored.folk.home.id, stored.folk.elsewhere.id
    vault = await stored.vault()
    pepper, before = vault.seal.pepper, await ciphertexts(database)
    async with database.read() as tx:
        old = [await vault.seal.data_key(tx, one, 1) for one in (home, elsewhere, "-")]
    done = await rekey(vault, stored.folk.operator, None, silent)
    assert (done.organizations, done.resealed, done.opened, done.removed) == (2, 10, 10, 2)
    assert (done.undecryptable, done.waits_for, done.is_resumed) == (0, (), False)
    assert await versions(database) == {home: {2}, elsewhere: {2}, "-": {2}}
    assert not before & await ciphertexts(database)
    fresh = await stored.restarted()
    assert fresh.pepper == pepper
    await stored.check(fresh)
    async with database.read() as tx:
        assert not {await fresh.data_key(tx, one, 2) for one in (home, elsewhere, "-")} & set(old)
    assert await phases(database) == ["begun", "ended"]
    kept = await everything(database)
    assert not [secret for secret in stored.secrets.values() if secret in kept]


async def test_one_organization_alone(stored: Stored) -> None:
    home, elsewhere = stored.folk.home.id, stored.folk.elsewhere.id
    done = await rekey(await stored.vault(), stored.folk.operator, home, silent)
    assert (done.organizations, done.resealed, done.opened, done.removed) == (1, 5, 5, 1)
    assert await versions(stored.database) == {home: {2}, elsewhere: {1}, "-": {1}}
    await stored.check(await stored.restarted())


async def test_only_the_operator_rekeys(stored: Stored) -> None:
    before = await everything(stored.database)
    for name, code in (("alice", "insufficient_scope"), ("bob", "insufficient_scope"), ("dora", "not_found")):
        with refused(code):
            await rekey(await stored.vault(), stored.folk[name], stored.folk.home.id, silent)
        with refused("not_found"):
            await rekey(await stored.vault(), stored.folk[name], None, silent)
    assert await everything(stored.database) == before


async def test_killed_at_any_step_nothing_is_lost_and_it_goes_on(stored: Stored, mortal: Mortal) -> None:
    lives, rounds = 0, 0
    while True:
        vault = await stored.vault(mortal)
        mortal.left = lives
        try:
            first = await rekey(vault, stored.folk.operator, None, silent)
        except Death:
            mortal.left = 1_000_000
        else:
            break
        await stored.check(await stored.restarted())
        was_begun = len(await phases(stored.database)) % 2 == 1
        done = await rekey(await stored.vault(mortal), stored.folk.operator, None, silent)
        assert done.is_resumed == was_begun
        assert done.opened == 10
        found = await versions(stored.database)
        assert all(len(one) == 1 for one in found.values()), "no old data key is left"
        await stored.check(await stored.restarted())
        lives, rounds = lives + 1, rounds + 1
    assert rounds > 12
    assert not first.is_resumed
    assert await phases(stored.database) == ["begun", "ended"] * (len(await phases(stored.database)) // 2)


async def test_what_is_unfinished_comes_first(stored: Stored, mortal: Mortal) -> None:
    vault = await stored.vault(mortal)
    mortal.left = 3
    with pytest.raises(Death):
        await rekey(vault, stored.folk.operator, None, silent)
    with refused("conflict"):
        await rekey(await stored.vault(), stored.folk.operator, stored.folk.home.id, silent)
    assert (await rekey(await stored.vault(), stored.folk.operator, None, silent)).is_resumed
    done = await rekey(await stored.vault(), stored.folk.operator, stored.folk.home.id, silent)
    assert not done.is_resumed


# ---- others meanwhile -------------------------------------------------------------------------------------------


async def test_what_is_sealed_meanwhile_under_the_old_data_key_is_not_lost(stored: Stored, canaries: Canaries) -> None:
    """A deed that has looked up the newest data key, and commits when there is a newer one."""
    database, home = stored.database, stored.folk.home.id
    seal = (await stored.vault()).seal
    async with database.read() as tx:
        [key, *_] = await seal_store.list_sealed(tx, seal_store.SHELVES[0], home, None)
    secret = canaries.plant()
    async with database.transaction() as tx:
        version = await seal.newest_version(tx, home, NOW)
        place = Place(home, "provider_keys", key.name, "sealed", version, key.origin)
        turning = asyncio.ensure_future(rekey(await stored.vault(), stored.folk.operator, home, silent))
        await asyncio.sleep(0.5)
        assert not turning.done()
        p = schema.provider_keys.c
        values = {"sealed": await seal.seal(tx, place, Secret(secret)), "sealed_version": version}
        await tx.execute(update(schema.provider_keys).where(p.id == key.name).values(**values))
    done = await turning
    stored.secrets[key.name] = secret
    await stored.check(await stored.restarted())
    again = await rekey(await stored.vault(), stored.folk.operator, home, silent)
    assert done.removed + again.removed >= 1
    await stored.check(await stored.restarted())


async def test_while_a_lost_gateway_may_bring_what_it_has_sealed_old_data_keys_stay(stored: Stored) -> None:
    database, home = stored.database, stored.folk.home.id
    async with database.transaction() as tx:
        old = await contents.sealer_for(tx, (await stored.vault()).seal, home, NOW)
    await serve(database, "spool_lost", heartbeat_at=NOW - 60_000, revision=1)
    done = await rekey(await stored.vault(), stored.folk.operator, home, silent)
    assert (done.waits_for, done.removed, done.resealed) == (("name of spool_lost",), 0, 5)
    assert (await versions(database))[home] == {1, 2}
    async with database.transaction() as tx:  # its spool is adopted
        await stored.add_content(tx, home, old)
    await spoil(database, "UPDATE owners SET closed_at = 1")
    again = await rekey(await stored.vault(), stored.folk.operator, home, silent)
    assert (again.is_resumed, again.resealed, again.removed, again.waits_for) == (True, 1, 1, ())
    assert (await versions(database))[home] == {2}
    await stored.check(await stored.restarted())


async def test_a_live_gateway_is_waited_for_until_it_has_written_what_it_sealed(stored: Stored) -> None:
    """It hears of the new data key, seals the last call under the old one, and writes it before its next heartbeat."""
    database, home = stored.database, stored.folk.home.id
    async with database.transaction() as tx:
        old = await contents.sealer_for(tx, (await stored.vault()).seal, home, NOW)
    await serve(database, "spool_live", revision=0)

    class Beating(SetClock):
        beats = 0

        async def sleep(self, seconds: float) -> None:
            """Each look is a heartbeat later."""
            self.move(seconds)
            self.beats += 1
            async with database.transaction() as tx:
                if self.beats == 3:
                    await stored.add_content(tx, home, old)
                revision = 0 if self.beats == 1 else 1_000_000
                await tx.execute(update(schema.owners).values(heartbeat_at=self.now(), revision=revision))

    clock = Beating(NOW)
    stored.clock = clock
    done = await rekey(await stored.vault(), stored.folk.operator, home, silent)
    assert clock.beats == 3
    assert (done.resealed, done.opened, done.removed, done.waits_for) == (6, 6, 1, ())
    await stored.check(await stored.restarted())


async def test_a_gateway_that_does_not_hear_is_waited_for_in_vain(stored: Stored) -> None:
    await serve(stored.database, "spool_deaf", revision=0, heartbeat_at=NOW + 10_000)
    stored.clock = Hasty(NOW)
    done = await rekey(await stored.vault(), stored.folk.operator, None, silent)
    assert (done.waits_for, done.removed) == (("name of spool_deaf",), 0)
    await stored.check(await stored.restarted())


async def test_sealers_pass_to_the_new_data_key(stored: Stored) -> None:
    database, home = stored.database, stored.folk.home.id
    seal = (await stored.vault()).seal
    held: dict[str, Sealer] = {}
    await sealers.renew(database, seal, held, [home, stored.folk.elsewhere.id], NOW)
    await rekey(await stored.vault(), stored.folk.operator, home, silent)
    await sealers.renew(database, seal, held, held, NOW)
    assert {one: sealer.version for one, sealer in held.items()} == {home: 2, stored.folk.elsewhere.id: 1}
    async with database.transaction() as tx:
        await stored.add_content(tx, home, held[home])
    await stored.check(seal)
    await spoil(database, "UPDATE data_keys SET wrapped = '' WHERE organization_id = :id", id=home)
    await sealers.renew(database, seal, held, held, NOW)
    assert [*held] == [stored.folk.elsewhere.id], "who cannot seal captures nothing, and nobody else is touched"


async def test_the_master_key_is_rotated_and_data_keys_renewed_in_turn(stored: Stored, canaries: Canaries) -> None:
    for _ in range(3):
        await rotate(await stored.vault(), stored.folk.operator, silent)
        await rekey(await stored.vault(), stored.folk.operator, None, silent)
        await stored.add_provider_key((await stored.vault()).seal, stored.folk.home.id, canaries.plant())
    assert (await versions(stored.database))["-"] == {4}
    await stored.check(await stored.restarted())


async def test_one_that_starts_while_the_instance_gets_a_new_data_key_starts(stored: Stored) -> None:
    """On PostgreSQL it may see the rows of before and after in one look."""
    vault = await stored.vault()
    starts = renewed = 0

    async def renew() -> None:
        nonlocal renewed
        while min(starts, renewed) < 10:
            async with stored.database.transaction() as tx:
                await vault.seal.renew_instance(tx, renewed + 2, NOW)
            renewed += 1

    renewing = asyncio.ensure_future(renew())
    while not renewing.done():
        assert (await stored.restarted()).pepper == vault.seal.pepper
        starts += 1
    await renewing


# ---- damage -----------------------------------------------------------------------------------------------------


async def test_a_record_that_does_not_open_is_named_and_kept_with_its_data_key(stored: Stored) -> None:
    database, home = stored.database, stored.folk.home.id
    async with database.read() as tx:
        [key, *_] = await seal_store.list_sealed(tx, seal_store.SHELVES[0], home, None)
    await spoil(database, "UPDATE provider_keys SET origin = 'https://evil.example.org' WHERE id = :id", id=key.name)
    done = await rekey(await stored.vault(), stored.folk.operator, None, silent)
    assert (done.undecryptable, done.named, done.opened) == (1, [f"provider_keys {key.name}"], 9)
    assert (await versions(database))[home] == {1, 2}
    assert (await phases(database)) == ["begun", "ended"]
    await spoil(database, "UPDATE provider_keys SET origin = :origin WHERE id = :id", origin=key.origin, id=key.name)
    await stored.check(await stored.restarted())
    again = await rekey(await stored.vault(), stored.folk.operator, None, silent)
    assert (again.is_resumed, again.undecryptable, again.opened) == (False, 0, 10)
    assert (await versions(database))[home] == {3}
    await stored.check(await stored.restarted())


async def test_an_organization_whose_data_key_is_lost_does_not_keep_the_others(stored: Stored) -> None:
    database, home = stored.database, stored.folk.home.id
    await spoil(database, "UPDATE data_keys SET wrapped = 'gAAAAA' WHERE organization_id = :id", id=home)
    done = await rekey(await stored.vault(), stored.folk.operator, None, silent)
    assert (done.undecryptable, done.opened, done.resealed) == (5, 5, 5)
    assert len(done.named) == 5
    seal = await stored.restarted()
    place = Place(home, "provider_keys", new_id("pkey", NOW), "sealed", 2, "")
    async with database.transaction() as tx:
        assert await seal.newest_version(tx, home, NOW) == 2, "what is entered again has a data key"
        token = await seal.seal(tx, place, Secret("again"))
        assert (await seal.open(tx, place, token)).reveal() == "again"
        with pytest.raises(Undecryptable):
            await seal.data_key(tx, home, 1)
