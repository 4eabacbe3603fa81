"""What the operator is told of the master keys, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.vault import custody, pool
from ostiary.vault.custody import Custody
from ostiary.vault.rotation import rotate
from ostiary.vault.seal import Seal, name_of
from tests.contract.vaults import OLD, Death, Mortal, Stored, furnished, key
from tests.people import NAMES, NOW, refused
from tests.servers.canaries import Canaries

NEW = name_of(key(2))


@pytest.fixture
async def stored(database: Database, tmp_path: Path, canaries: Canaries) -> Stored:
    return await furnished(database, tmp_path / "keys", canaries)


@pytest.fixture
async def mortal(database_url: str, database: Database) -> AsyncIterator[Mortal]:
    opened = Mortal(database_url)
    opened.chain_key = database.chain_key
    yield opened
    await opened.close()


async def seen(stored: Stored, seal: Seal) -> Custody:
    async with stored.database.read() as tx:
        return await custody.look(tx, stored.folk.operator, seal, NOW)


async def test_everything_is_under_the_only_key_and_who_serves_has_it(stored: Stored) -> None:
    seal = (await stored.vault()).seal
    async with stored.database.transaction() as tx:
        for owner, heard_at in (("own_live", NOW), ("own_lost", NOW - 60_000)):
            row = {"id": owner, "name": owner, "version": "1", "started_at": NOW, "heartbeat_at": heard_at}
            await tx.execute(insert(schema.owners).values(**row))
            await seal.announce(tx, owner)
    found = await seen(stored, seal)
    [only] = found.keys
    assert (only.name, only.is_first, only.is_held, only.is_retired) == (OLD, True, True, False)
    assert only.data_keys == 3, "both organizations' and the instance's own"
    assert only.records == 4, "a provider key and a webhook in each"
    assert only.gateways == ("own_live",)
    assert (found.target, found.data_keys) == (None, 3)


async def test_after_a_rotation_the_old_key_is_retired_and_has_nothing(stored: Stored) -> None:
    vault = await stored.vault()
    done = await rotate(vault, stored.folk.operator, lambda *_: None)
    new, old = (await seen(stored, await stored.restarted())).keys
    assert (new.name, new.data_keys, new.records, new.is_retired) == (done.key, 3, 4, False)
    assert (old.name, old.data_keys, old.records, old.is_retired, old.is_held) == (OLD, 0, 0, True, False)


async def test_one_that_was_cut_off_is_seen_with_how_far_it_came(stored: Stored, mortal: Mortal) -> None:
    stored.put(2, 1)
    targets = set()
    for steps in range(1, 60):
        mortal.left = steps
        try:
            await rotate(await stored.vault(mortal), stored.folk.operator, lambda *_: None)
        except Death:
            mortal.left = 1_000_000
            found = await seen(stored, (await stored.vault()).seal)
            targets.add((found.target, found.moved))
            continue
        break
    assert targets >= {(None, 0), (NEW, 0), (NEW, 1), (NEW, 3)}
    assert (await seen(stored, await stored.restarted())).target is None


async def test_what_no_key_opens_is_counted_apart(stored: Stored) -> None:
    seal = (await stored.vault()).seal
    d = schema.data_keys.c
    async with stored.database.transaction() as tx:
        spoilt = update(schema.data_keys).where(d.organization_id == stored.folk.home.id).values(wrapped="spoilt")
        await tx.execute(spoilt)
    known, lost = (await seen(stored, seal)).keys
    assert (known.name, known.data_keys, known.records) == (OLD, 2, 2)
    assert (lost.name, lost.data_keys, lost.records) == (None, 1, 2)


async def test_the_pool_is_what_is_shared_over_all_organizations(stored: Stored) -> None:
    shared = next(id_ for id_ in stored.secrets if id_.startswith("pk"))
    async with stored.database.transaction() as tx:
        p = schema.provider_keys.c
        await tx.execute(update(schema.provider_keys).where(p.id == shared).values(shared=True))
        assert [one.key.id for one in await pool.list_(tx, stored.folk.operator, NOW)] == [shared]


@pytest.mark.parametrize("name", NAMES)
async def test_nobody_but_the_operator_is_told(stored: Stored, name: str) -> None:
    seal = (await stored.vault()).seal
    async with stored.database.read() as tx:
        with refused("not_found" if stored.folk[name].organization_id else "insufficient_scope"):
            await custody.look(tx, stored.folk[name], seal, NOW)
        with refused("not_found"):
            await pool.list_(tx, stored.folk[name], NOW)
