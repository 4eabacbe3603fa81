"""What the first page points at is there, and only that, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert

from ostiary.clock import DAY_MS, month_of
from ostiary.db import schema
from ostiary.db.database import Database, Transaction
from ostiary.ledger import overview_store
from ostiary.limits.budgets import Budget
from ostiary.money import MAX_NANO

pytestmark = pytest.mark.anyio

ORG, OTHER = "orgn_alice", "orgn_dora"
NOW = 20_000 * DAY_MS


async def agent_key(tx: Transaction, id: str, **more: Any) -> None:
    values = {
        "id": id,
        "organization_id": ORG,
        "owner_id": "usr_alice",
        "name": id,
        "status": "active",
        "scopes": [],
        "models_mode": "all",
        "models": [],
        "providers_mode": "all",
        "providers": [],
        "free_only": False,
        "addresses_mode": "all",
        "addresses": [],
        "metadata": {},
        "created_at": 0,
        "updated_at": 0,
    }
    await tx.execute(insert(schema.agent_keys).values(**{**values, **more}))


async def provider_key(tx: Transaction, id: str, **more: Any) -> None:
    values = {
        "id": id,
        "organization_id": ORG,
        "name": id,
        "provider": "openai",
        "base_url": "",
        "origin": "",
        "fields": {},
        "sealed": "",
        "sealed_version": 1,
        "preview": "",
        "shared": False,
        "status": "healthy",
        "created_at": 0,
        "updated_at": 0,
    }
    await tx.execute(insert(schema.provider_keys).values(**{**values, **more}))


async def budget(
    tx: Transaction, scope: str, id: str, spent: int, period: str, *, kind: str = "month", **more: Any
) -> None:
    await tx.execute(insert(schema.budgets).values(scope=scope, id=id, kind=kind, **more))
    await tx.execute(insert(schema.accounts).values(scope=scope, id=id, period_id=period, spent_nano=spent))


async def test_keys_that_end_soon(database: Database) -> None:
    async with database.transaction() as tx:
        await agent_key(tx, "soon", expires_at=NOW + 2 * DAY_MS)
        await agent_key(tx, "sooner", expires_at=NOW + DAY_MS, owner_id="usr_bob")
        await agent_key(tx, "later", expires_at=NOW + 8 * DAY_MS)
        await agent_key(tx, "over", expires_at=NOW)
        await agent_key(tx, "never", expires_at=None)
        await agent_key(tx, "stopped", expires_at=NOW + DAY_MS, status="revoked")
        await agent_key(tx, "short", expires_at=NOW + DAY_MS, is_ephemeral=True)
        await agent_key(tx, "hers", expires_at=NOW + DAY_MS, organization_id=OTHER)
    async with database.read() as tx:
        until_at = NOW + 7 * DAY_MS
        everybodys = await overview_store.list_ending(tx, ORG, None, NOW, until_at, 9)
        of_bob = await overview_store.list_ending(tx, ORG, "usr_bob", NOW, until_at, 9)
        first = await overview_store.list_ending(tx, ORG, None, NOW, until_at, 1)
    assert [one.id for one in everybodys] == ["sooner", "soon"]
    assert [one.id for one in of_bob] == ["sooner"]
    assert [one.id for one in first] == ["sooner"]


async def test_budgets_that_fill(database: Database) -> None:
    month = month_of(NOW)
    async with database.transaction() as tx:
        for id_, cap, spent, period, kind in (
            ("half", 100, 50, month, "month"),
            ("nearly", 100, 80, month, "month"),
            ("over", 100, 250, "total", "total"),
            ("last month", 100, 100, "1999-01", "month"),
            ("nothing", 0, 0, month, "month"),
        ):
            await agent_key(tx, id_, owner_id="usr_bob" if id_ == "nearly" else "usr_alice")
            await budget(tx, "agent_key", id_, spent, period, kind=kind, cap_nano=cap)
        await provider_key(tx, "soft")
        await budget(tx, "provider_key", "soft", 9, month, soft_nano=10)
    async with database.read() as tx:
        found = await overview_store.list_filling(tx, ORG, None, NOW, 9)
        fullest = await overview_store.list_filling(tx, ORG, None, NOW, 1)
        of_bob = await overview_store.list_filling(tx, ORG, "usr_bob", NOW, 9)
        elsewhere = await overview_store.list_filling(tx, OTHER, None, NOW, 9)
        spenders = await overview_store.list_spenders(tx, ORG, None, NOW, 9)
    assert [(one.kind, one.id) for one in found] == [
        ("agent_key", "over"), ("provider_key", "soft"), ("agent_key", "nearly"),
    ]  # fmt: skip
    assert fullest == found[:1]
    assert [one.id for one in of_bob] == ["nearly"]
    assert elsewhere == []
    assert [(one.id, one.spent_nano) for one in spenders] == [("nearly", 80), ("half", 50)]


async def test_budgets_that_fill_by_thresholds_of_their_own(database: Database) -> None:
    """As `Budget.last_threshold` says it of each."""
    cases = {
        "early": ([40], 40),
        "not yet": ([40], 39),
        "one of two": ([40, 90], 89),
        "two of two": ([40, 90], 91),
        "told of nothing": ([], 99),
        "full": ([], 100),
        "only when full": ([100], 99),
        "usual": ([50, 80, 100], 80),
        "below the usual": ([50, 80, 100], 79),
    }
    async with database.transaction() as tx:
        for id_, (thresholds, spent) in cases.items():
            await agent_key(tx, id_)
            await budget(tx, "agent_key", id_, spent, month_of(NOW), cap_nano=100, thresholds=thresholds)
        await agent_key(tx, "beyond soft")
        await budget(tx, "agent_key", "beyond soft", 30, month_of(NOW), cap_nano=100, soft_nano=30, thresholds=[90])
        await agent_key(tx, "below soft")
        await budget(tx, "agent_key", "below soft", 29, month_of(NOW), cap_nano=100, soft_nano=30, thresholds=[90])
    async with database.read() as tx:
        found = await overview_store.list_filling(tx, ORG, None, NOW, 20)
    expected = {
        id_ for id_, (thresholds, spent) in cases.items()
        if spent >= Budget("month", 100, None, tuple(thresholds)).last_threshold
    }  # fmt: skip
    assert expected == {"early", "two of two", "full", "usual"}
    assert {one.id: one.soft_nano for one in found} == {**dict.fromkeys(expected), "beyond soft": 30}


async def test_the_largest_budgets_fill_as_others_do(database: Database) -> None:
    """A hundred times as much is no integer of a database any more."""
    threshold = -(-MAX_NANO * 80 // 100)
    spent = {"at the threshold": threshold, "below": threshold - 1, "full": MAX_NANO, "beyond": 2**63 - 1}
    async with database.transaction() as tx:
        for id_, nano in spent.items():
            await agent_key(tx, id_)
            await budget(tx, "agent_key", id_, nano, month_of(NOW), cap_nano=MAX_NANO)
        await agent_key(tx, "small")
        await budget(tx, "agent_key", "small", 9, month_of(NOW), cap_nano=10)
    async with database.read() as tx:
        found = await overview_store.list_filling(tx, ORG, None, NOW, 9)
        fullest = await overview_store.list_filling(tx, ORG, None, NOW, 3)
    assert [one.id for one in found] == ["beyond", "full", "small", "at the threshold"]
    assert fullest == found[:3]


async def test_a_threshold_is_met_to_the_nano_dollar(database: Database) -> None:
    caps = (1, 7, 99, 100, 101, 150, 1_999, 10_000_000_001)
    edges = {
        f"{cap}-{percent}": (cap, percent, -(-cap * percent // 100)) for cap in caps for percent in (1, 33, 80, 99)
    }
    async with database.transaction() as tx:
        for id_, (cap, percent, edge) in edges.items():
            for name, nano in ((f"{id_} on", edge), (f"{id_} under", edge - 1)):
                await agent_key(tx, name)
                await budget(tx, "agent_key", name, nano, month_of(NOW), cap_nano=cap, thresholds=[percent])
    async with database.read() as tx:
        found = await overview_store.list_filling(tx, ORG, None, NOW, 999)
    assert {one.id for one in found} == {f"{id_} on" for id_ in edges}


async def test_provider_keys_that_are_ill(database: Database) -> None:
    async with database.transaction() as tx:
        for id_ in ("well", "limping", "ill", "cooling", "cooled", "of a model"):
            await provider_key(tx, id_)
        await provider_key(tx, "closed", status="undecryptable")
        await provider_key(tx, "hers", organization_id=OTHER, status="undecryptable")
        for id_, model, state, until in (
            ("limping", "", "degraded", None),
            ("ill", "", "unhealthy", NOW + 5),
            ("cooling", "", "cooling", NOW + 5),
            ("cooled", "", "cooling", NOW),
            ("of a model", "gpt-4o", "cooling", NOW + 5),
        ):
            row = {"provider_key_id": id_, "model": model, "state": state, "failures": 1, "reason": "why", "since": 0}
            await tx.execute(insert(schema.provider_key_health).values(**row, until=until))
    async with database.read() as tx:
        counts = await overview_store.count_health(tx, ORG, NOW)
        ill = await overview_store.list_ill(tx, ORG, NOW, 9)
    assert counts == {"healthy": 3, "degraded": 1, "unhealthy": 1, "cooling": 1, "undecryptable": 1}
    assert [(one.id, one.state, one.reason) for one in ill] == [
        ("closed", "undecryptable", ""), ("cooling", "cooling", "why"), ("ill", "unhealthy", "why"),
    ]  # fmt: skip


async def test_what_there_is_to_begin_with(database: Database) -> None:
    async with database.read() as tx:
        assert not any(await overview_store.find_beginning(tx, ORG, None))
    async with database.transaction() as tx:
        await provider_key(tx, "pool", organization_id=OTHER, shared=True)
        await agent_key(tx, "hers")
    async with database.read() as tx:
        assert await overview_store.find_beginning(tx, ORG, None) == (True, True, False)
        assert await overview_store.find_beginning(tx, ORG, "usr_bob") == (True, False, False)
