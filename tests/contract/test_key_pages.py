"""Pages of agent keys on both databases: searched, filtered, sorted, and cut to who asks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.dialects import postgresql, sqlite

from ostiary.agents import agent_keys, ephemeral_keys, pages_store
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.agents.ephemeral_keys import NewEphemeralKey
from ostiary.agents.pages_store import After, Wanted
from ostiary.clock import day_of
from ostiary.db import schema
from ostiary.db.database import Database, Transaction
from ostiary.ledger.rollup_store import SPANS
from ostiary.limits.budgets import TOTAL, Budget
from ostiary.secret import Secret
from tests.people import DAY, HOUR, NOW, OUTSIDE, People, refused, settle

PEPPER = Secret("pepper for tests")
LATER = NOW + 2 * HOUR


async def furnish(database: Database) -> tuple[People, dict[str, str]]:
    """Seven keys of every status and three owners, and their secrets by name."""
    folk = await settle(database)
    secrets: dict[str, str] = {}
    async with database.transaction() as tx:

        async def make(by: str, name: str, **wish: Any) -> AgentKey:
            key, secret = await agent_keys.create(
                tx, folk[by], folk.home.id, NewAgentKey(name, **wish), pepper=PEPPER, at=NOW
            )
            secrets[name] = secret.reveal()
            return key

        ci = await make("alice", "CI main")
        await make("alice", "100%_sure")
        old = await make("bob", "old", expires_at=NOW + HOUR)
        asleep = await make("bob", "asleep")
        dead = await make("erin", "dead")
        for parent in (ci, asleep):
            wish = NewEphemeralKey(f"child of {parent.name}", ttl_s=86_400)
            await ephemeral_keys.create(tx, folk["alice"], folk.home.id, parent.id, wish, pepper=PEPPER, at=NOW)
        await make("operator", "nobody's")
        await agent_keys.deactivate(tx, folk["alice"], folk.home.id, asleep.id, NOW)
        await agent_keys.revoke(tx, folk["alice"], folk.home.id, dead.id, NOW)
        await agent_keys.create(tx, folk["dora"], folk.elsewhere.id, NewAgentKey("hers"), pepper=PEPPER, at=NOW)
        for key, requests, day in ((ci, 5, 0), (ci, 4, 29), (old, 7, 1), (dead, 100, 30)):
            for span in SPANS:
                number = (day_of(LATER) - day) // span
                place = {"kind": "agent_key", "span": span, "number": number, "id": key.id}
                await tx.execute(_added(tx, {"organization_id": folk.home.id, **place}, requests))
    return folk, secrets


def _added(tx: Transaction, place: dict[str, object], requests: int) -> Any:
    """As the ledger sums up: two days of one span are one row."""
    dialect = postgresql if tx.dialect.name == "postgresql" else sqlite
    new = dialect.insert(schema.usage_sums).values(**place, requests=requests)
    return new.on_conflict_do_update(
        index_elements=list(place), set_={"requests": schema.usage_sums.c.requests + new.excluded.requests}
    )


EVERY = {"CI main", "100%_sure", "old", "asleep", "dead", "child of CI main", "child of asleep", "nobody's"}


async def names(database: Database, folk: People, by: str = "alice", **wanted: Any) -> list[str]:
    """All pages together, each of which must be full but the last."""
    found: list[str] = []
    after: After | None = None
    ask = Wanted(**{"limit": 3, **wanted})
    while True:
        async with database.read() as tx:
            page = await agent_keys.list_page(tx, folk[by], folk.home.id, ask, LATER, after)
        found += [key.name for key in page.keys]
        if page.after is None:
            return found
        assert len(page.keys) == ask.limit
        after = page.after


async def test_every_order_gives_everything_once_and_backwards(database: Database) -> None:
    folk, _ = await furnish(database)
    for sort in ("created_at", "name", "owner", "status", "requests"):
        forwards = await names(database, folk, sort=sort)
        assert set(forwards) == EVERY
        assert len(forwards) == len(EVERY)
        for limit in (1, 2, 100):
            assert await names(database, folk, sort=sort, limit=limit) == forwards
            assert await names(database, folk, sort=sort, limit=limit, descending=True) == forwards[::-1]


async def test_they_are_in_the_order_that_was_asked_for(database: Database) -> None:
    folk, _ = await furnish(database)
    async with database.read() as tx:
        by_name = {key.name: key for key in await agent_keys.list_(tx, folk["alice"], folk.home.id)}
    status = [by_name[name].shown_status(LATER) for name in await names(database, folk, sort="status")]
    assert all(one <= other for one, other in pairwise(status))
    most = await names(database, folk, sort="requests", descending=True)
    assert most[:2] == ["CI main", "old"]  # what was 30 days ago does not count any more
    owners = {folk[name].id: f"{name}@example.org" for name in ("alice", "bob", "erin")}
    emails = [owners.get(by_name[name].owner_id or "", "") for name in await names(database, folk, sort="owner")]
    assert emails == sorted(emails)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("active", {"CI main", "100%_sure", "child of CI main", "nobody's"}),
        ("inactive", {"asleep", "child of asleep"}),
        ("expired", {"old"}),
        ("revoked", {"dead"}),
    ],
)
async def test_a_status_is_filtered_as_it_is_shown(database: Database, status: str, expected: set[str]) -> None:
    folk, _ = await furnish(database)
    assert set(await names(database, folk, status=status)) == expected
    async with database.read() as tx:
        keys = await agent_keys.list_(tx, folk["alice"], folk.home.id)
    assert {key.name for key in keys if key.shown_status(LATER) == status} == expected


async def test_a_search_looks_into_names_and_previews(database: Database) -> None:
    folk, secrets = await furnish(database)
    assert set(await names(database, folk, search="ci MAIN")) == {"CI main", "child of CI main"}
    assert await names(database, folk, search="%_") == ["100%_sure"]
    assert await names(database, folk, search="%") == ["100%_sure"]
    assert await names(database, folk, search="hers") == []
    assert set(await names(database, folk, search="")) == EVERY
    secret = secrets["old"]
    assert "old" in await names(database, folk, search=secret[-4:])
    assert await names(database, folk, search=secret[:12]) == ["old"]
    assert await names(database, folk, search=f"{secret[:12]}…{secret[-4:]}") == ["old"]
    assert await names(database, folk, search=secret) == ["old"]
    assert await names(database, folk, search=secret[8:40]) == []
    assert await names(database, folk, search="\0") == await names(database, folk)


async def test_by_owner_and_by_parent(database: Database) -> None:
    folk, _ = await furnish(database)
    assert set(await names(database, folk, owner_id=folk["bob"].id)) == {"old", "asleep", "child of asleep"}
    assert await names(database, folk, owner_id="nobody") == []
    async with database.read() as tx:
        (parent,) = [key for key in await agent_keys.list_(tx, folk["alice"], folk.home.id) if key.name == "CI main"]
    assert await names(database, folk, parent_id=parent.id) == ["child of CI main"]


async def test_a_member_sees_their_own(database: Database) -> None:
    folk, _ = await furnish(database)
    own = {"old", "asleep", "child of asleep"}
    assert set(await names(database, folk, "bob")) == own
    assert set(await names(database, folk, "bob", owner_id=folk["bob"].id)) == own
    assert await names(database, folk, "bob", owner_id=folk["alice"].id) == []
    assert set(await names(database, folk, "erin")) == EVERY
    for name in OUTSIDE:
        with refused("not_found"):
            await names(database, folk, name)


async def test_what_each_has_spent_is_of_its_own_period(database: Database) -> None:
    folk, _ = await furnish(database)
    async with database.transaction() as tx:
        keys = await agent_keys.list_(tx, folk["alice"], folk.home.id)
        for number, key in enumerate(keys, 1):
            for period_id, nano in (("2026-11", number), ("2026-10", 1_000), (TOTAL, number * 100)):
                row = {"scope": "agent_key", "id": key.id, "period_id": period_id, "spent_nano": nano}
                await tx.execute(insert(schema.accounts).values(**row))
        budgets = [None, Budget("month", 5), Budget("total", 5)]
        wanted = [replace(key, budget=budgets[number % 3]) for number, key in enumerate(keys)]
        spent = await pages_store.list_spent(tx, wanted, LATER)
        later = await pages_store.list_spent(tx, wanted, LATER + 30 * DAY)
    for number, key in enumerate(keys, 1):
        is_total = (number - 1) % 3 == 2
        assert spent[key.id] == (number * 100 if is_total else number)
        assert later[key.id] == (number * 100 if is_total else 0)
