"""A gateway that reads everything anew, as after a restored backup, turns nobody away meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import delete, text

from ostiary.agents import agent_keys, client_credentials
from ostiary.agents import store as agents
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.db import changes, schema
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.gateway.directory import Directory
from ostiary.limits import store as money
from ostiary.limits.budgets import AccountKey, Budget
from ostiary.providers.catalog import load
from ostiary.providers.egress import Egress
from ostiary.secret import Secret
from ostiary.vault import contents, provider_keys
from ostiary.vault.provider_keys import NewProviderKey
from ostiary.vault.seal import MasterKeys, Seal
from ostiary.vault.sealers import renew
from tests.fakes import SetClock
from tests.people import NOW, settle
from tests.servers.canaries import Canaries


async def test_who_stays_is_known_at_every_moment_and_who_is_gone_is_forgotten(
    database: Database, canaries: Canaries
) -> None:
    folk = await settle(database)
    seal = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await seal.open_instance(database, NOW)
    place, catalog = folk.home, load()
    async with database.transaction() as tx:
        wish = NewProviderKey("main", catalog.get("openai"), Secret(canaries.plant()))
        await provider_keys.add(tx, folk.operator, place.id, wish, seal=seal, egress=Egress([]), at=NOW)
        _, client = await client_credentials.create(
            tx, folk.operator, place.id, "machine", client_id=place.client_id, pepper=seal.pepper, at=NOW
        )
        (stays, secret), (goes, lost) = [
            await agent_keys.create(tx, folk["alice"], place.id, NewAgentKey(name), pepper=seal.pepper, at=NOW)
            for name in ("stays", "goes")
        ]
    directory = Directory(database, seal, catalog, SetClock())
    await directory.load()
    async with database.transaction() as tx:  # a backup that knows nothing of it
        await agents.remove_agent_key(tx, place.id, goes.id)
        await changes.append(tx, "everything", None, "all", NOW)
    assert directory.find_caller(lost.reveal()) is not None
    reading = asyncio.ensure_future(directory.catch_up())
    turns = 0
    while not reading.done():
        turns += 1
        assert directory.find_caller(secret.reveal()) is not None
        assert directory.find_caller(client.reveal()) is not None
        assert directory.find_holder(stays.id) is not None
        assert directory.keys_for(place.id, "openai")
        assert directory.organizations
        await asyncio.sleep(0)
    await reading
    assert turns > 1, "calls went on meanwhile"
    assert directory.find_caller(secret.reveal()) is not None
    assert directory.find_caller(lost.reveal()) is None
    assert directory.find_holder(goes.id) is None


async def test_what_is_captured_after_a_backup_was_restored_opens_with_its_data_keys(database: Database) -> None:
    folk = await settle(database)
    seal = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await seal.open_instance(database, NOW)
    async with database.transaction() as tx:
        wish = NewAgentKey("captured", capture=True)
        await agent_keys.create(tx, folk["alice"], folk.home.id, wish, pepper=seal.pepper, at=NOW)
    directory = Directory(database, seal, load(), SetClock())
    await directory.load()
    async with database.transaction() as tx:  # of a backup from before there was one
        await tx.execute(delete(schema.data_keys).where(schema.data_keys.c.organization_id == folk.home.id))
        await changes.append(tx, "everything", None, "restore", NOW)
    await directory.catch_up()
    sealer = directory.sealers[folk.home.id]
    sealed = sealer.seal("req_1", 1, b"{}", b"said")
    place = contents.place_of(folk.home.id, "req_1", 1, sealer.version)
    async with database.read() as tx:
        assert "said" in (await seal.open(tx, place, sealed)).reveal()


async def test_what_is_spent_while_the_ledger_is_looked_at_is_not_forgotten_for_what_was_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit makes the gateway look; a batch is charged meanwhile, and who has passed a soft limit is told so."""
    folk = await settle(database)
    seal = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await seal.open_instance(database, NOW)
    directory, list_soft_spent = Directory(database, seal, load(), SetClock()), money.list_soft_spent
    await directory.load()

    async def as_a_batch_is_charged(tx: Transaction, ids: Sequence[str] | None = None) -> list[tuple[AccountKey, int]]:
        found = await list_soft_spent(tx, ids)
        directory.soft.hear({key: (nano, nano + 200) for key, nano in found})
        return found

    async with database.transaction() as tx:
        wish = NewAgentKey("soft", budget=Budget("total", None, 100))
        _, secret = await agent_keys.create(tx, folk["alice"], folk.home.id, wish, pepper=seal.pepper, at=NOW)
    with monkeypatch.context() as patch:
        patch.setattr(money, "list_soft_spent", as_a_batch_is_charged)
        await directory.catch_up()
    caller = directory.find_caller(secret.reveal())
    assert caller is not None
    assert len(directory.soft.warnings(caller)) == 1
    await directory.load()
    assert directory.soft.warnings(caller) == [], "of a look that began later the ledger is right"


async def test_a_sealer_has_no_data_key_that_did_not_come_to_stay(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it seals would never open again."""
    folk = await settle(database)
    seal = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await seal.open_instance(database, NOW)
    usual, sealers = database.transaction, dict[str, contents.Sealer]()

    @asynccontextmanager
    async def lost() -> AsyncIterator[Transaction]:
        async with usual() as tx:
            yield tx
            raise Refusal("service_unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(database, "transaction", lost)
        with pytest.raises(Refusal):
            await renew(database, seal, sealers, [folk.home.id], NOW)
    assert sealers == {}
    await renew(database, seal, sealers, [folk.home.id], NOW)
    assert sealers.keys() == {folk.home.id}


async def test_no_answer_waits_long_for_a_feed_that_cannot_be_read(database: Database) -> None:
    """It may hold a secret that is shown once, and the deed is done."""
    await settle(database)
    seal = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await seal.open_instance(database, NOW)
    directory = Directory(database, seal, load(), SetClock())
    await directory.load()
    if database.engine.dialect.name == "postgresql":
        async with database.transaction() as tx:
            await tx.execute(text("LOCK TABLE changes IN ACCESS EXCLUSIVE MODE"))
            async with asyncio.timeout(20):
                await directory.hear_now()
    async with database.transaction() as tx:
        await tx.execute(text("ALTER TABLE changes RENAME TO gone"))
    async with asyncio.timeout(20):
        await directory.hear_now()
    async with database.transaction() as tx:
        await tx.execute(text("ALTER TABLE gone RENAME TO changes"))
        await changes.append(tx, "agent_key", None, "key_x", NOW)
        newest = await changes.latest(tx)
    await directory.catch_up()
    assert directory.seq == newest, "it is heard when it can be"


@pytest.mark.parametrize("is_restored", [False, True])
async def test_a_captured_key_is_known_only_when_its_organization_can_capture(
    database: Database, *, is_restored: bool
) -> None:
    """Its first call, too: what is said with it lies sealed in the ledger or is not said."""
    folk = await settle(database)
    seal = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await seal.open_instance(database, NOW)
    directory = Directory(database, seal, load(), SetClock())
    await directory.load()
    async with database.transaction() as tx:
        wish = NewAgentKey("captured", capture=True)
        _, secret = await agent_keys.create(tx, folk["alice"], folk.home.id, wish, pepper=seal.pepper, at=NOW)
        if is_restored:  # a backup that knows of it, and of no change that said so
            await tx.execute(delete(schema.changes).where(schema.changes.c.seq > directory.seq))
            await changes.append(tx, "everything", None, "restore", NOW)
    reading = asyncio.ensure_future(directory.catch_up())
    while not reading.done():
        assert directory.find_caller(secret.reveal()) is None or folk.home.id in directory.sealers
        await asyncio.sleep(0)
    await reading
    caller = directory.find_caller(secret.reveal())
    assert caller is not None
    assert caller.is_captured
    assert folk.home.id in directory.sealers
