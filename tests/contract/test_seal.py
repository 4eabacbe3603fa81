"""The seal on real databases: the right key opens, another changes nothing, and what was moved stays shut."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace

import pytest
from sqlalchemy import text

from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.errors import CannotStart
from ostiary.secret import Secret
from ostiary.vault import seal_store, store
from ostiary.vault.seal import MasterKeys, Place, Seal, Undecryptable
from tests.people import NOW, everything, spoil
from tests.servers.canaries import Canaries

PLACE = Place("orgn_1", "provider_keys", "pkey_1", "sealed", 1, "https://api.example.org")


def master(*numbers: int) -> MasterKeys:
    keys = [base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in numbers]
    return MasterKeys.parse(Secret(",".join(keys)))


async def opened(database: Database, *numbers: int) -> Seal:
    seal = Seal(master(*(numbers or (1,))))
    await seal.open_instance(database, NOW)
    return seal


async def sealed(database: Database, seal: Seal, place: Place, secret: str) -> str:
    async with database.transaction() as tx:
        version = await seal.newest_version(tx, place.organization_id, NOW)
        assert version == place.version
        return await seal.seal(tx, place, Secret(secret))


async def opens(database: Database, seal: Seal, place: Place, token: str) -> str:
    async with database.read() as tx:
        return (await seal.open(tx, place, token)).reveal()


async def test_the_first_start_makes_the_database_ours(database: Database, canaries: Canaries) -> None:
    seal = await opened(database)
    pepper = canaries.watch(seal.pepper.reveal())
    assert len(base64.urlsafe_b64decode(pepper)) == 32
    assert (await opened(database)).pepper == seal.pepper
    assert pepper not in await everything(database)


async def test_another_database_has_another_pepper(database: Database) -> None:
    first = await opened(database)
    async with database.transaction() as tx:
        for table in (schema.instance, schema.data_keys):
            await tx.execute(table.delete())
    assert (await opened(database)).pepper != first.pepper


async def test_the_wrong_master_key_starts_nothing_and_changes_nothing(database: Database) -> None:
    await opened(database, 1)
    before = await everything(database)
    seal = Seal(master(2))
    with pytest.raises(CannotStart, match="does not open this database"):
        await seal.open_instance(database, NOW + 1)
    with pytest.raises(RuntimeError):
        _ = seal.pepper
    assert await everything(database) == before


async def test_of_several_master_keys_the_first_seals_and_each_opens(database: Database) -> None:
    old = await opened(database, 1)
    token = await sealed(database, old, PLACE, "from before")
    both = await opened(database, 2, 1)
    assert both.pepper == old.pepper
    assert await opens(database, both, PLACE, token) == "from before"
    other = replace(PLACE, organization_id="orgn_2")
    newer = await sealed(database, both, other, "from after")
    with pytest.raises(Undecryptable):  # the data key of the second organization is wrapped by the new key
        await opens(database, old, other, newer)
    await opened(database, 1, 2)
    with pytest.raises(CannotStart):
        await opened(database, 2)


async def test_processes_that_start_at_once_agree(database: Database) -> None:
    seals = await asyncio.gather(*(opened(database, 1) for _ in range(5)))
    assert len({seal.pepper for seal in seals}) == 1


async def test_of_processes_with_different_keys_one_wins(database: Database) -> None:
    done = await asyncio.gather(*(opened(database, number) for number in (1, 2, 3)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in done) == ["CannotStart", "CannotStart", "Seal"]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM instance",
        "DELETE FROM instance WHERE name = 'canary'",
        "DELETE FROM instance WHERE name = 'pepper'",
        "DELETE FROM data_keys",
        "UPDATE instance SET value = 'gAAAAA'",
        "UPDATE instance SET value = (SELECT value FROM instance WHERE name = 'canary') WHERE name = 'pepper'",
        "UPDATE data_keys SET wrapped = ''",
        "UPDATE data_keys SET version = 2",
        "UPDATE data_keys SET organization_id = 'orgn_9'",
    ],
)
async def test_a_spoilt_proof_starts_nothing_and_changes_nothing(database: Database, damage: str) -> None:
    await opened(database)
    await spoil(database, damage)
    before = await everything(database)
    with pytest.raises(CannotStart):
        await opened(database)
    assert await everything(database) == before


async def test_a_provider_key_without_any_data_key_is_not_a_new_database(database: Database) -> None:
    """Restored tables in part: a new pepper would kill every agent key, so nothing is begun."""
    await opened(database)
    async with database.transaction() as tx:
        columns = {column.name: "x" if column.type.python_type is str else 0 for column in schema.provider_keys.c}
        await tx.execute(schema.provider_keys.insert().values({**columns, "fields": {}, "shared": False}))
        for table in (schema.instance, schema.data_keys):
            await tx.execute(table.delete())
    with pytest.raises(CannotStart, match="missing"):
        await opened(database)


async def test_what_is_sealed_opens_in_its_place_only(database: Database, canaries: Canaries) -> None:
    seal = await opened(database)
    secret = canaries.plant()
    token = await sealed(database, seal, PLACE, secret)
    async with database.transaction() as tx:
        await seal.newest_version(tx, "orgn_2", NOW)
    assert secret not in token
    assert await opens(database, seal, PLACE, token) == secret
    for other in (
        replace(PLACE, organization_id="orgn_2"),
        replace(PLACE, table="other"),
        replace(PLACE, row="pkey_2"),
        replace(PLACE, field="other"),
        replace(PLACE, version=2),
        replace(PLACE, origin="https://evil.example.org"),
        replace(PLACE, origin=""),
    ):
        with pytest.raises(Undecryptable):
            await opens(database, seal, other, token)


@pytest.mark.parametrize(
    "token", ["", "x", "gAAAAA", "é", "gAAAAABrANRxVihOj2KyazrcuED-UKdVYxSymBNTCHuek2pLniCqDQwJ9A"]
)
async def test_what_was_never_sealed_does_not_open(database: Database, token: str) -> None:
    seal = await opened(database)
    await sealed(database, seal, PLACE, "x")
    with pytest.raises(Undecryptable):
        await opens(database, seal, PLACE, token)


async def test_a_missing_data_key_shuts_its_organization_only(database: Database) -> None:
    seal = await opened(database)
    other = replace(PLACE, organization_id="orgn_2")
    token, others = await sealed(database, seal, PLACE, "one"), await sealed(database, seal, other, "two")
    await spoil(database, "DELETE FROM data_keys WHERE organization_id = 'orgn_1'")
    with pytest.raises(Undecryptable):
        await opens(database, seal, PLACE, token)
    async with database.transaction() as tx:
        with pytest.raises(Undecryptable):
            await seal.seal(tx, PLACE, Secret("x"))
    assert await opens(database, seal, other, others) == "two"
    # A new data key takes its place, and does not open what the lost one sealed.
    again = await sealed(database, seal, PLACE, "three")
    assert await opens(database, seal, PLACE, again) == "three"
    with pytest.raises(Undecryptable):
        await opens(database, seal, PLACE, token)


async def test_a_data_key_put_in_anothers_place_opens_nothing(database: Database) -> None:
    seal = await opened(database)
    other = replace(PLACE, organization_id="orgn_2")
    tokens = [await sealed(database, seal, place, "x") for place in (PLACE, other)]
    await spoil(
        database,
        "UPDATE data_keys SET wrapped = (SELECT wrapped FROM data_keys WHERE organization_id = 'orgn_2')"
        " WHERE organization_id = 'orgn_1'",
    )
    with pytest.raises(Undecryptable):
        await opens(database, seal, PLACE, tokens[0])
    assert await opens(database, seal, other, tokens[1]) == "x"


async def test_a_data_key_that_was_rolled_back_seals_nothing(database: Database) -> None:
    """Had it been remembered, what it sealed would be lost at the next start."""
    seal = await opened(database)
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            await seal.newest_version(tx, "orgn_1", NOW)
            await seal.seal(tx, PLACE, Secret("x"))
            raise ZeroDivisionError
    token = await sealed(database, seal, PLACE, "kept")
    assert await opens(database, await opened(database), PLACE, token) == "kept"


async def test_two_that_seal_first_at_once_use_one_data_key(database: Database) -> None:
    seals = [await opened(database), await opened(database)]
    places = [replace(PLACE, row=f"pkey_{number}") for number in range(6)]
    tokens = await asyncio.gather(
        *(sealed(database, seals[number % 2], place, str(number)) for number, place in enumerate(places))
    )
    fresh = await opened(database)
    for number, (place, token) in enumerate(zip(places, tokens, strict=True)):
        assert await opens(database, fresh, place, token) == str(number)
    async with database.read() as tx:
        assert await store.find_newest_version(tx, "orgn_1") == 1
        count = await tx.execute(text("SELECT count(*) FROM data_keys WHERE organization_id = 'orgn_1'"))
        assert count.scalar_one() == 1


async def test_a_data_key_that_another_has_just_made_is_not_removed_while_it_seals(database: Database) -> None:
    """Whoever finds it made has it as whoever finds it there: else a rekeying could forget what they sealed under."""
    seal = await opened(database)
    has_it, goes_on = asyncio.Event(), asyncio.Event()

    async def seal_something() -> str:
        async with database.transaction() as tx:
            await seal.newest_version(tx, "orgn_1", NOW)
            has_it.set()
            await goes_on.wait()
            return await seal.seal(tx, PLACE, Secret("x"))

    async def remove() -> None:
        async with database.transaction() as tx:
            await seal_store.remove_data_key(tx, "orgn_1", 1)

    async with database.transaction() as tx:
        await seal.newest_version(tx, "orgn_1", NOW)
        sealing = asyncio.ensure_future(seal_something())
        await asyncio.sleep(0.2)
        assert not has_it.is_set()
    await has_it.wait()
    removing = asyncio.ensure_future(remove())
    await asyncio.sleep(0.2)
    is_removed = removing.done()
    goes_on.set()
    await asyncio.wait([sealing, removing])
    assert not is_removed
    assert await sealing
