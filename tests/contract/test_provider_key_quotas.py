"""What providers say that keys have left: heard by gateways, kept for people, forgotten with the key."""

from __future__ import annotations

import pytest

from ostiary.clock import DAY_MS
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.gateway.caller import OpenKey
from ostiary.gateway.health import Health
from ostiary.gateway.quota_watch import QuotaWatch
from ostiary.providers import catalog
from ostiary.providers.egress import Egress
from ostiary.secret import Secret
from ostiary.vault import key_uses, provider_keys, quota_store
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey, ProviderKeyEdit
from ostiary.vault.quota_store import QuotaRow
from ostiary.vault.seal import MasterKeys, Seal
from tests.fakes import SetClock
from tests.people import NOW, People, settle

ROW = catalog.load().get("openai")
EGRESS = Egress([])


@pytest.fixture
async def seal(database: Database) -> Seal:
    made = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await made.open_instance(database, NOW)
    return made


@pytest.fixture
async def folk(database: Database) -> People:
    return await settle(database)


@pytest.fixture
async def key(database: Database, seal: Seal, folk: People) -> ProviderKey:
    wish = NewProviderKey("main", ROW, Secret("sk-test-0123456789"))
    async with database.transaction() as tx:
        return await provider_keys.add(tx, folk["alice"], folk.home.id, wish, seal=seal, egress=EGRESS, at=NOW)


class Ear:
    """One gateway, which hears what a provider says of a key."""

    def __init__(self, database: Database, key: ProviderKey, name: str, at: int = NOW) -> None:
        self.clock = SetClock(at)
        self.health = Health(self.clock)
        opened = OpenKey(key.id, key.name, key.organization_id, ROW, key.base_url, (), (), shared=False)
        self.health.know({key.id: opened})
        self.key = key
        self.watch = QuotaWatch(self.health, database, self.clock, name)

    def hear(self, model: str, **said: int) -> None:
        fields = {f"x-ratelimit-{name.replace('_', '-')}".encode(): b"%d" % value for name, value in said.items()}
        self.health.remaining.hear(self.key.id, model, fields)


async def left(database: Database, key: ProviderKey, at: int = NOW) -> list[QuotaRow]:
    async with database.read() as tx:
        return await key_uses.list_left(tx, key, at)


async def test_the_last_word_of_any_gateway_is_kept(database: Database, key: ProviderKey) -> None:
    east, west = Ear(database, key, "east"), Ear(database, key, "west", NOW + 1_000)
    east.hear("m", remaining_requests=60, limit_requests=100, reset_requests=60)
    east.hear("n", remaining_tokens=5)
    east.hear("x" * 201, remaining_tokens=5)
    await east.watch.write()
    of_m = QuotaRow(key.id, "m", "requests", 60, 100, NOW + 60_000, NOW, "east")
    of_n = QuotaRow(key.id, "n", "tokens", 5, None, None, NOW, "east")
    assert await left(database, key) == [of_m, of_n]
    west.hear("m", remaining_requests=61, limit_requests=100, reset_requests=60)
    west.hear("m", remaining_requests=59, limit_requests=100, reset_requests=60)
    await west.watch.write()
    newer = QuotaRow(key.id, "m", "requests", 59, 100, NOW + 61_000, NOW + 1_000, "west")
    assert await left(database, key) == [newer, of_n]
    assert await left(database, key, NOW + 61_000) == [of_n]
    late = Ear(database, key, "east", NOW + DAY_MS + 1_001)
    late.hear("m", remaining_tokens=1)
    await late.watch.write()
    async with database.read() as tx:
        rows = await quota_store.find_quotas(tx, key.id)
    assert [row.what for row in rows] == ["tokens"], "what nobody has heard for a day is gone"


async def test_nothing_new_is_no_write_and_what_cannot_be_written_is_kept(
    database: Database, key: ProviderKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    east = Ear(database, key, "east")

    def away() -> None:
        raise Refusal("service_unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(database, "transaction", away)
        await east.watch.write()
        east.hear("m", remaining_requests=3)
        await east.watch.write()
        east.hear("m", remaining_requests=2)
        east.hear("n", remaining_requests=7)
        await east.watch.write()
    await east.watch.write()
    assert [(row.model, row.remaining) for row in await left(database, key)] == [("m", 2), ("n", 7)]

    def never() -> None:
        raise AssertionError("there is no news")

    monkeypatch.setattr(database, "transaction", never)
    await east.watch.write()


async def test_another_credential_has_another_quota_and_none_when_it_is_gone(
    database: Database, key: ProviderKey, seal: Seal, folk: People
) -> None:
    alice, home = folk["alice"], folk.home.id
    east = Ear(database, key, "east")
    east.hear("m", remaining_requests=3)
    await east.watch.write()
    async with database.transaction() as tx:
        await provider_keys.reset(tx, alice, home, key.id, NOW)
        edit = ProviderKeyEdit(ROW, {"priority": 5})
        await provider_keys.change(tx, alice, home, key.id, edit, seal=seal, egress=EGRESS, at=NOW)
    assert len(await left(database, key)) == 1, "neither has anything to do with it"
    async with database.transaction() as tx:
        edit = ProviderKeyEdit(ROW, {"secret": Secret("sk-test-9876543210")})
        await provider_keys.change(tx, alice, home, key.id, edit, seal=seal, egress=EGRESS, at=NOW)
    assert await left(database, key) == []
    east.hear("m", remaining_requests=3)
    await east.watch.write()
    async with database.transaction() as tx:
        await provider_keys.remove(tx, alice, home, key.id, NOW)
    assert await left(database, key) == []
