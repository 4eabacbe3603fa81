"""Another master key, on both databases: cut off anywhere nothing is lost, and the old key opens nothing after."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.errors import CannotStart
from ostiary.ids import new_id
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault import rotation, seal_store
from ostiary.vault.master_key import Keeper
from ostiary.vault.rotation import Vault, rotate
from ostiary.vault.seal import MasterKeys, Place, Seal, name_of
from tests.contract.vaults import OLD, Death, Mortal, Stored, furnished, key
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


async def audited(database: Database) -> list[tuple[str, str, str]]:
    """Deed, phase and name of the key."""
    a = schema.audit.c
    async with database.read() as tx:
        rows = await tx.execute(
            select(a.deed, a.after, a.target_id).where(a.deed == "master_key.rotate").order_by(a.seq)
        )
        return [(row.deed, row.after["phase"], row.target_id) for row in rows]


async def serve(database: Database, owner: str, seal: Seal | None, at: int = NOW) -> None:
    """A gateway, as the database sees it; without a seal it says nothing of its keys."""
    async with database.transaction() as tx:
        row = {"id": owner, "name": f"name of {owner}", "version": "1", "started_at": at, "heartbeat_at": at}
        await tx.execute(insert(schema.owners).values(**row))
        if seal is not None:
            await seal.announce(tx, owner)


async def wraps(database: Database, seal: Seal) -> str:
    """The name of the key by which a new organization's data key is wrapped."""
    organization_id = new_id("orgn", NOW)
    async with database.transaction() as tx:
        await seal.newest_version(tx, organization_id, NOW)
    async with database.read() as tx:
        d = schema.data_keys.c
        wrapped = (await tx.execute(select(d.wrapped).where(d.organization_id == organization_id))).scalar_one()
    return next(name for name in seal.master.names if seal.master.only(name).rewrap(wrapped, name) is not None)


# ---- a rotation -------------------------------------------------------------------------------------------------


async def test_after_it_the_new_key_opens_everything_and_the_old_one_nothing(stored: Stored) -> None:
    database = stored.database
    done = await rotate(await stored.vault(), stored.folk.operator, silent)
    assert stored.keys().names == (done.key,)
    assert (done.retired, done.is_resumed, done.is_dropped, done.undecryptable) == ((OLD,), False, True, ())
    assert done.rewrapped == 2, "both organizations; the instance's own had passed before"
    assert done.opened == 3
    await stored.check(await stored.restarted())
    before = await everything(database)
    with pytest.raises(CannotStart, match="does not open this database"):
        await stored.opened(1)
    assert await everything(database) == before
    old = MasterKeys.parse(Secret(key(1)))
    async with database.read() as tx:
        rows = await seal_store.list_data_keys(tx, None, 100)
    assert [old.rewrap(row.wrapped, OLD) for row in rows] == [None] * 3
    assert await audited(database) == [
        ("master_key.rotate", "begun", done.key),
        ("master_key.rotate", "ended", done.key),
    ]
    kept = await everything(database)
    assert not [line for line in stored.file.read_text().split() if line in kept]


async def test_a_process_that_runs_meanwhile_reads_the_keys_again(stored: Stored, canaries: Canaries) -> None:
    running = (await stored.vault()).seal
    await rotate(await stored.vault(), stored.folk.operator, silent)
    assert running.master.names == (OLD,), "nobody has told it"
    await stored.check(running)
    await stored.add_provider_key(running, stored.folk.home.id, canaries.plant())
    await rotate(await stored.vault(), stored.folk.operator, silent)
    await stored.check(running)
    await running.learn(stored.database)
    assert running.master.names == stored.keys().names


async def test_each_rotation_goes_to_a_new_key(stored: Stored) -> None:
    names = {OLD}
    for count in range(1, 4):
        done = await rotate(await stored.vault(), stored.folk.operator, silent)
        assert done.key not in names
        assert set(done.retired) == names
        names.add(done.key)
        assert len(await audited(stored.database)) == 2 * count
    await stored.check(await stored.restarted())


async def test_only_the_operator_rotates(stored: Stored) -> None:
    before = await everything(stored.database)
    for name in ("alice", "erin", "bob", "charlie", "dora"):
        with refused("not_found"):
            await rotate(await stored.vault(), stored.folk[name], silent)
    assert await everything(stored.database) == before
    assert stored.keys().names == (OLD,)


async def test_two_do_not_rotate_at_once(stored: Stored) -> None:
    vault = await stored.vault()
    with vault.keeper.alone(), refused("conflict"):
        await rotate(vault, stored.folk.operator, silent)
    assert stored.keys().names == (OLD,)


# ---- cut off ----------------------------------------------------------------------------------------------------


async def test_killed_at_any_step_nothing_is_lost_and_it_goes_on(stored: Stored, mortal: Mortal) -> None:
    """A little later each time, until it was done first; each time what is kept opens everything, and it goes on."""
    lives = 0
    names = {OLD}
    while True:
        vault = await stored.vault(mortal)
        mortal.left = lives
        try:
            first = await rotate(vault, stored.folk.operator, silent)
        except Death:
            mortal.left = 1_000_000
        else:
            break
        await stored.check(await stored.restarted())
        in_file = stored.keys().names
        done = await rotate(await stored.vault(mortal), stored.folk.operator, silent)
        assert len(in_file) == 1 or done.key == in_file[0], "what was prepared is used"
        assert stored.keys().names == (done.key,)
        names.add(done.key)
        await stored.check(await stored.restarted())
        lives += 1
    assert lives > 8
    assert not first.is_resumed
    begun = [name for _, phase, name in await audited(stored.database) if phase == "begun"]
    ended = [name for _, phase, name in await audited(stored.database) if phase == "ended"]
    assert begun == ended, "each was begun once and ended once, however often it was cut off"


async def test_killed_between_the_new_file_and_the_last_word_it_only_ends(stored: Stored, mortal: Mortal) -> None:
    vault = await stored.vault(mortal)

    def die(what: str, _done: int, _total: int) -> None:
        if what == "dropping the old key":
            mortal.left = 0  # the file is changed; then it would be written down

    with pytest.raises(Death):
        await rotate(vault, stored.folk.operator, die)
    mortal.left = 1_000_000
    [name] = stored.keys().names
    done = await rotate(await stored.vault(mortal), stored.folk.operator, silent)
    assert (done.key, done.is_resumed) == (name, True)
    assert stored.keys().names == (name,)


# ---- others meanwhile -------------------------------------------------------------------------------------------


async def test_what_is_wrapped_meanwhile_is_not_lost(stored: Stored, canaries: Canaries) -> None:
    """A deed that has wrapped by the old key, and commits when the rotation is under way."""
    seal = await stored.opened(1)
    place = Place(new_id("orgn", NOW), "provider_keys", "pkey_1", "sealed", 1, "")
    secret = canaries.plant()
    async with stored.database.transaction() as tx:
        await seal.newest_version(tx, place.organization_id, NOW)
        token = await seal.seal(tx, place, Secret(secret))
        turning = asyncio.ensure_future(rotate(await stored.vault(), stored.folk.operator, silent))
        await asyncio.sleep(0.5)
        assert not turning.done(), "it waits for who wraps"
    done = await turning
    assert done.opened == 4
    fresh = await stored.restarted()
    async with stored.database.read() as tx:
        assert (await fresh.open(tx, place, token)).reveal() == secret


async def test_who_has_the_old_key_only_wraps_nothing_any_more(stored: Stored) -> None:
    late = await stored.opened(1)
    done = await rotate(await stored.vault(), stored.folk.operator, silent)
    with refused("sealed"):
        await wraps(stored.database, late)
    with refused("sealed"):
        await stored.check(late)
    both = Seal(MasterKeys.parse(Secret(f"{key(1)},{stored.file.read_text()}")))
    await both.open_instance(stored.database, NOW)
    assert await wraps(stored.database, both) == done.key, "though the old one stands first"


async def test_a_new_key_wraps_when_every_live_gateway_has_it(stored: Stored) -> None:
    database = stored.database
    early, late = await stored.opened(2, 1), await stored.opened(1)
    await serve(database, "spool_early", early)
    await serve(database, "spool_late", late)
    assert await wraps(database, early) == OLD
    async with database.transaction() as tx:
        await (await stored.opened(2, 1)).announce(tx, "spool_late")
    assert await wraps(database, early) == name_of(key(2))


async def test_gateways_that_lack_the_new_key_are_named_and_nothing_passes(stored: Stored) -> None:
    database, clock = stored.database, Hasty(NOW)
    await serve(database, "spool_deaf", await stored.opened(1))
    await serve(database, "spool_mute", None)
    await serve(database, "spool_lost", await stored.opened(1), NOW - 60_000)
    stored.clock = clock
    with refused("conflict") as caught:
        await rotate(await stored.vault(), stored.folk.operator, silent)
    assert "name of spool_deaf, name of spool_mute." in caught.value.message.replace(" yet", "") + "."
    assert "spool_lost" not in caught.value.message
    assert key(1) not in caught.value.message
    await stored.check(await stored.opened(1))
    await spoil(database, "UPDATE owners SET closed_at = 1")
    done = await rotate(await stored.vault(), stored.folk.operator, silent)
    assert done.is_resumed
    await stored.check(await stored.restarted())
    async with database.read() as tx:
        assert await seal_store.find_values(tx, "keys:") == {}, "nobody is left who has said something"


async def test_a_gateway_hears_of_the_new_key_while_it_is_waited_for(stored: Stored) -> None:
    """By a clock that stands still it lives, and is waited for, however long the machine stands still, too."""
    running = (await stored.vault()).seal
    await serve(stored.database, "spool_live", running)
    turning = asyncio.ensure_future(rotate(await stored.vault(), stored.folk.operator, silent))
    async with asyncio.timeout(30):
        while await audited(stored.database) == []:  # noqa: ASYNC110 - it waits from then on, as gateways are told
            await asyncio.sleep(0.01)
    assert not turning.done()
    await running.learn(stored.database)
    done = await turning
    assert running.master.names == (done.key, OLD)
    await stored.check(running)


async def test_a_gateway_that_a_rotation_has_passed_by_does_not_start(stored: Stored) -> None:
    late = await stored.opened(1)
    await rotate(await stored.vault(), stored.folk.operator, silent)
    with pytest.raises(CannotStart, match="does not open this database"):
        await serve(stored.database, "spool_late", late)


async def test_other_keys_that_do_not_open_the_database_are_not_taken(stored: Stored) -> None:
    running = (await stored.vault()).seal
    for damage in (key(7), "short", ""):
        stored.file.write_text(damage)
        await running.learn(stored.database)
        assert running.master.names == (OLD,)
        await stored.check(running)
    stored.file.unlink()
    await running.learn(stored.database)
    await stored.check(running)


# ---- keys from a setting ----------------------------------------------------------------------------------------


async def from_setting(stored: Stored, *numbers: int) -> Vault:
    seal = await stored.opened(*numbers)
    settings = Settings(data_dir=stored.folder, master_key=Secret(",".join(map(key, numbers))))
    keys = MasterKeys.parse(settings.master_key or Secret(""))
    assert seal.master.names == keys.names
    return Vault(stored.database, seal, Keeper(settings), stored.clock)


async def test_a_setting_is_the_operators_to_change(stored: Stored) -> None:
    before = await everything(stored.database)
    with refused("conflict") as caught:
        await rotate(await from_setting(stored, 1), stored.folk.operator, silent)
    assert OLD in caught.value.message
    assert "OSTIARY_MASTER_KEY_FILE" in caught.value.message
    assert await everything(stored.database) == before
    done = await rotate(await from_setting(stored, 2, 1), stored.folk.operator, silent)
    assert (done.key, done.retired, done.is_dropped) == (name_of(key(2)), (OLD,), False)
    await stored.check(await stored.opened(2))
    with pytest.raises(CannotStart):
        await stored.opened(1)
    assert stored.keys().names == (OLD,), "a file that is not in use is not touched"


async def test_run_again_it_finds_nothing_left_to_do(stored: Stored) -> None:
    await rotate(await from_setting(stored, 2, 1), stored.folk.operator, silent)
    again = await rotate(await from_setting(stored, 2, 1), stored.folk.operator, silent)
    assert (again.rewrapped, again.opened, again.is_resumed) == (0, 3, False)


async def test_back_to_a_key_that_was_rotated_away(stored: Stored) -> None:
    await rotate(await from_setting(stored, 2, 1), stored.folk.operator, silent)
    done = await rotate(await from_setting(stored, 1, 2), stored.folk.operator, silent)
    assert (done.key, done.retired) == (OLD, (name_of(key(2)),))
    assert await wraps(stored.database, await stored.opened(1)) == OLD


# ---- damage -----------------------------------------------------------------------------------------------------


async def test_a_data_key_that_does_not_open_is_named_and_the_others_pass(stored: Stored, canaries: Canaries) -> None:
    home, elsewhere = stored.folk.home.id, stored.folk.elsewhere.id
    await spoil(stored.database, "UPDATE data_keys SET wrapped = 'gAAAAA' WHERE organization_id = :id", id=home)
    done = await rotate(await stored.vault(), stored.folk.operator, silent)
    assert done.undecryptable == (f"{home} version 1",)
    assert done.opened == 2
    assert stored.keys().names == (done.key,)
    await stored.add_provider_key(await stored.restarted(), elsewhere, canaries.plant())
    a = schema.audit.c
    async with stored.database.read() as tx:
        newest = select(a.after).where(a.deed == "master_key.rotate").order_by(a.seq.desc()).limit(1)
        assert (await tx.execute(newest)).scalar_one() == {"phase": "ended", "data_keys": 2, "undecryptable": 1}


async def test_a_data_key_in_anothers_place_passes_and_opens_when_it_is_put_back(stored: Stored) -> None:
    """Had it stayed under the old key, nothing could mend it once that is gone."""
    home, elsewhere = stored.folk.home.id, stored.folk.elsewhere.id
    swap = "UPDATE data_keys SET organization_id = :new WHERE organization_id = :old"

    async def exchange() -> None:
        for old, new in ((home, "x"), (elsewhere, home), ("x", elsewhere)):
            await spoil(stored.database, swap, old=old, new=new)

    await exchange()
    done = await rotate(await stored.vault(), stored.folk.operator, silent)
    assert sorted(done.undecryptable) == sorted([f"{home} version 1", f"{elsewhere} version 1"])
    await exchange()
    await stored.check(await stored.restarted())


async def test_many_data_keys_pass_page_by_page(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "_BATCH", 2)
    seal = (await stored.vault()).seal
    for _ in range(5):
        await wraps(stored.database, seal)
    told: list[tuple[str, int, int]] = []
    done = await rotate(await stored.vault(), stored.folk.operator, lambda *one: told.append(one))
    assert (done.rewrapped, done.opened) == (7, 8)
    assert [one[1:] for one in told if one[0] == "checking"] == [(2, 8), (4, 8), (6, 8), (8, 8), (8, 8)]
    async with stored.database.read() as tx:
        retired = await tx.execute(text("SELECT value FROM instance WHERE name = 'retired_master_keys'"))
        assert json.loads(retired.scalar_one()) == [OLD]
