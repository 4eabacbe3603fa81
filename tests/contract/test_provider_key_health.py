"""What two gateways find out of the same provider keys at once, and write down side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ostiary.db.database import Database
from ostiary.gateway.caller import OpenKey
from ostiary.gateway.health import Health
from ostiary.gateway.health_watch import HealthWatch
from ostiary.providers import catalog
from ostiary.providers.egress import Egress
from ostiary.secret import Secret
from ostiary.vault import provider_keys
from ostiary.vault.health import Trouble
from ostiary.vault.health_store import list_all_health
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey
from ostiary.vault.seal import MasterKeys, Seal
from tests.fakes import SetClock
from tests.people import NOW, settle

ROW = catalog.load().get("openai")
REASON = "the provider says that it is not valid"


@pytest.fixture
async def keys(database: Database) -> list[ProviderKey]:
    folk = await settle(database)
    seal = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await seal.open_instance(database, NOW)
    made = []
    for name in ("left", "right"):
        wish = NewProviderKey(name, ROW, Secret(f"sk-test-0123456789-{name}"))
        async with database.transaction() as tx:
            key = await provider_keys.add(tx, folk["alice"], folk.home.id, wish, seal=seal, egress=Egress([]), at=NOW)
        made.append(key)
    return made


class Gateway:
    """One process, which knows all keys and has heard of every change so far."""

    def __init__(self, database: Database, keys: Iterable[ProviderKey]) -> None:
        self.health = Health(SetClock(NOW))
        opened = (
            OpenKey(key.id, key.name, key.organization_id, ROW, key.base_url, (), (), shared=False) for key in keys
        )
        self.health.know({key.id: key for key in opened})
        directory = SimpleNamespace(health=self.health, seq=1_000)
        nothing: Any = None
        self.watch = HealthWatch(cast(Any, directory), database, nothing, nothing, SetClock(NOW))

    def state(self, key: ProviderKey) -> str | None:
        known = self.health.troubles.of(key.id).get("")
        return known.state if known else None


async def states(database: Database) -> dict[str, str]:
    async with database.read() as tx:
        return {row.provider_key_id: row.state for row in await list_all_health(tx)}


async def test_of_two_keys_that_two_gateways_disable_at_once_one_stays_usable(
    database: Database, keys: list[ProviderKey]
) -> None:
    left, right = keys
    east, west = Gateway(database, keys), Gateway(database, keys)
    assert east.health.confirm(left.id, REASON), "west has told nobody of the other one"
    assert west.health.confirm(right.id, REASON), "and east of this"
    await asyncio.gather(east.watch.write(), west.watch.write())
    found = await states(database)
    assert sorted(found.values()) == ["degraded", "disabled"]
    assert (east.state(left), west.state(right)) == (found[left.id], found[right.id])


async def test_a_key_that_another_gateway_has_disabled_too_stays_disabled(
    database: Database, keys: list[ProviderKey]
) -> None:
    left, right = keys
    east, west = Gateway(database, keys), Gateway(database, keys)
    assert east.health.confirm(left.id, REASON)
    assert west.health.confirm(left.id, REASON)
    await east.watch.write()
    await west.watch.write()
    assert await states(database) == {left.id: "disabled"}
    assert east.health.confirm(right.id, REASON) is False


async def test_gateways_that_write_down_the_same_keys_do_not_wait_for_each_other(
    database: Database, keys: list[ProviderKey]
) -> None:
    """Nor for ever: none holds one key and the feed while another one holds the next key and waits for the feed."""
    left, right = keys
    east, west = Gateway(database, keys), Gateway(database, keys)
    for round_ in range(20):
        for gateway, known in ((east, keys), (west, keys[round_ % 2 :])):
            for key in known:
                gateway.health.troubles.add(key.id, "m", Trouble("cooling", 1, "so", NOW, NOW + 60_000 + round_))
        await asyncio.gather(east.watch.write(), west.watch.write())
    assert await states(database) == {left.id: "cooling", right.id: "cooling"}
