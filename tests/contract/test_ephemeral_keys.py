"""Ephemeral keys on both databases: what they may be made with, whose they are, and when they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select

from ostiary.agents import agent_keys, credential, ephemeral_keys, store
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.agents.ephemeral_keys import NewEphemeralKey
from ostiary.agents.policy import ALL, SCOPES, Choice, judge_caller
from ostiary.db import changes, schema
from ostiary.db.database import Database
from ostiary.ledger.audit_store import list_audit
from ostiary.limits.budgets import Budget
from ostiary.limits.store import list_accounts
from ostiary.orgs import organizations, roles
from ostiary.secret import Secret
from tests import people
from tests.people import DAY, HOUR, INSIDE, NONE, NOW, ONE, OUTSIDE, People, refused, settle, traces

PEPPER = Secret("pepper for tests")
USD = 1_000_000_000
MINUTE = 60_000


async def made(database: Database, folk: People, by: str = "alice", name: str = "ci", **wish: Any) -> AgentKey:
    async with database.transaction() as tx:
        key, _ = await agent_keys.create(
            tx, folk[by], folk.home.id, NewAgentKey(name, **wish), pepper=PEPPER, at=NOW, grant=roles.judge_scopes
        )
    return key


async def child_of(
    database: Database, folk: People, parent: AgentKey | None, by: str = "alice", at: int = NOW, **wish: Any
) -> tuple[AgentKey, str]:
    known = {name: wish.pop(name) for name in ("name", "ttl_s", "owner_id") if name in wish}
    async with database.transaction() as tx:
        key, secret = await ephemeral_keys.create(
            tx,
            folk[by],
            folk.home.id,
            parent.id if parent else None,
            NewEphemeralKey(**known, fields=wish),
            pepper=PEPPER,
            at=at,
        )
    return key, secret.reveal()


async def found(database: Database, folk: People, key: AgentKey) -> AgentKey:
    async with database.read() as tx:
        return await store.get_agent_key(tx, folk.home.id, key.id)


def lets_in(key: AgentKey, at: int = NOW) -> bool:
    return judge_caller(key.policy(), now=at, scope="gate:chat", address="192.0.2.7") is None


# ---- mint -------------------------------------------------------------------------------------------------------


async def test_a_child_is_as_its_parent_where_nothing_is_said(database: Database) -> None:
    folk = await settle(database)
    parent = await made(
        database,
        folk,
        "bob",
        rpm=60,
        tpm=1_000,
        parallel=2,
        models=Choice("only", frozenset({"a", "b"})),
        free_only=True,
        capture=True,
        metadata={"team": "search"},
        addresses=Choice("only", frozenset({"192.0.2.0/24"})),
        budget=Budget("month", USD),
        scopes=SCOPES | {"admin:agent-keys:write"},
    )
    before = await traces(database)
    child, secret = await child_of(database, folk, parent, "bob")
    assert await traces(database) - before == ONE
    kept = await found(database, folk, child)
    assert kept == child
    assert credential.parse(secret) == ("eph", secret)
    assert secret not in await people.everything(database)
    assert (kept.is_ephemeral, kept.parent_id, kept.parent, kept.owner_id) == (True, parent.id, parent, folk["bob"].id)
    assert kept.name.startswith("ci-")
    assert kept.expires_at == NOW + HOUR
    assert kept.scopes == SCOPES  # a short life cannot make itself a long one through the admin API
    assert kept.budget is None
    for name in ("rpm", "rpd", "tpm", "parallel", "models", "free_only", "addresses", "capture", "metadata"):
        assert getattr(kept, name) == getattr(parent, name), name
    async with database.read() as tx:
        newest = (await list_audit(tx, folk.home.id))[0]
    assert (newest.deed, newest.target_id, (newest.after or {})["parent_id"]) == (
        "agent_keys.ephemeral",
        child.id,
        parent.id,
    )


async def test_a_child_may_have_less(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk, rpm=60, budget=Budget("month", 5 * USD))
    wish: dict[str, Any] = {
        "rpm": 5,
        "rpd": 100,
        "scopes": ["gate:chat"],
        "models": ["a"],
        "providers": Choice("none"),
        "addresses": ["192.0.2.7"],
        "metadata": {"job": 7},
        "budget": Budget("total", USD),
        "capture": True,
    }
    child, _ = await child_of(database, folk, parent, name="job 7", ttl_s=60, **wish)
    kept = await found(database, folk, child)
    assert (kept.name, kept.expires_at, kept.rpm, kept.rpd) == ("job 7", NOW + MINUTE, 5, 100)
    assert kept.models == Choice("only", frozenset({"a"}))
    assert (kept.budget, kept.metadata, kept.capture) == (Budget("total", USD), {"job": 7}, True)
    async with database.read() as tx:
        caps = {one.period_id: one.cap_nano for one in await list_accounts(tx, "agent_key", child.id)}
    assert caps["total"] == USD


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rpm", 61),
        ("rpm", None),
        ("rpd", 1_001),
        ("tpm", None),
        ("parallel", 3),
        ("models", ALL),
        ("models", []),
        ("models", ["a", "c"]),
        ("models", ["A"]),
        ("providers", ["openai"]),
        ("free_only", False),
        ("addresses", ALL),
        ("addresses", ["192.0.2.0/23"]),
        ("addresses", ["::ffff:192.0.3.0/120"]),
        ("addresses", ["::/0"]),
        ("capture", False),
        ("budget", Budget("total", 2 * USD)),
        ("scopes", ["gate:chat", "gate:usage"]),
        ("scopes", ["admin:usage:read"]),
        ("scopes", []),
        ("expires_at", NOW + 2 * HOUR),
        ("expires_at", None),
        ("status", "active"),
        ("parent_id", None),
        ("rpm", 0),
        ("models", Choice("only")),
    ],
)
async def test_widening_is_refused_by_name_and_leaves_nothing(database: Database, name: str, value: object) -> None:
    folk = await settle(database)
    parent = await made(
        database,
        folk,
        rpm=60,
        rpd=1_000,
        tpm=1_000,
        parallel=2,
        models=Choice("only", frozenset({"a", "b"})),
        providers=Choice("none"),
        free_only=True,
        addresses=Choice("only", frozenset({"192.0.2.0/24"})),
        capture=True,
        budget=Budget("month", USD),
        scopes=frozenset({"gate:chat", "admin:usage:read"}),
        owner_id=folk["alice"].id,
    )
    before = await traces(database)
    wish: dict[str, Any] = {name: value}
    with refused("invalid_field", name):
        await child_of(database, folk, parent, **wish)
    assert await traces(database) == before


@pytest.mark.parametrize("ttl_s", [59, 0, -1, 86_401, 10**12, True, 60.0, "60"])
async def test_a_life_is_a_minute_to_a_day(database: Database, ttl_s: object) -> None:
    folk = await settle(database)
    parent = await made(database, folk)
    for one in (parent, None):
        with refused("invalid_field", "ttl_s"):
            await child_of(database, folk, one, ttl_s=ttl_s)


async def test_no_child_outlives_its_parent(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk, expires_at=NOW + HOUR)
    with refused("invalid_field", "ttl_s"):
        await child_of(database, folk, parent, ttl_s=3_601)
    child, _ = await child_of(database, folk, parent, at=NOW + HOUR // 2)
    assert child.expires_at == NOW + HOUR


async def test_children_have_no_children(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk)
    child, _ = await child_of(database, folk, parent)
    alone, _ = await child_of(database, folk, None)
    for one in (child, alone):
        with refused("invalid_field", "parent_id"):
            await child_of(database, folk, one)


async def test_a_dead_key_has_no_new_children(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk, expires_at=NOW + HOUR)
    with refused("conflict"):
        await child_of(database, folk, parent, at=NOW + HOUR)
    for stop in (agent_keys.deactivate, agent_keys.revoke):
        async with database.transaction() as tx:
            await stop(tx, folk["alice"], folk.home.id, parent.id, NOW)
        with refused("conflict"):
            await child_of(database, folk, parent)


async def test_who_may_make_children_of_whose_key(database: Database) -> None:
    folk = await settle(database)
    keys = {owner: await made(database, folk, owner, f"{owner}'s") for owner in ("alice", "bob")}
    for owner, parent in keys.items():
        for name in (*INSIDE, *OUTSIDE, "operator"):
            before = await traces(database)
            if name in OUTSIDE or (name == "bob" and owner != "bob"):
                with refused("not_found"):
                    await child_of(database, folk, parent, name)
            else:
                child, _ = await child_of(database, folk, parent, name)
                assert child.owner_id == parent.owner_id
                assert await traces(database) - before == ONE
                continue
            assert await traces(database) - before == NONE
    with refused("invalid_field", "owner_id"):
        await child_of(database, folk, keys["alice"], owner_id=folk["bob"].id)


async def test_one_without_a_parent_has_limits_of_its_own(database: Database) -> None:
    folk = await settle(database)
    alone, _ = await child_of(database, folk, None, "bob", ttl_s=60, rpm=5, budget=Budget("total", USD), models=["a"])
    kept = await found(database, folk, alone)
    assert (kept.is_ephemeral, kept.parent_id, kept.owner_id, kept.rpm) == (True, None, folk["bob"].id, 5)
    assert (kept.scopes, kept.expires_at, kept.budget) == (SCOPES, NOW + MINUTE, Budget("total", USD))
    assert lets_in(kept)
    assert not lets_in(kept, NOW + MINUTE)
    with refused("insufficient_scope"):
        await child_of(database, folk, None, "bob", owner_id=folk["alice"].id)
    with refused("invalid_field", "owner_id"):
        await child_of(database, folk, None, "alice", owner_id=folk["dora"].id)
    with refused("invalid_field", "scopes"):
        await child_of(database, folk, None, "alice", scopes=["gate:chat", "admin:usage:read"])


async def test_the_organizations_longest_lifetime_holds_for_them_too(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await organizations.change(tx, folk["alice"], folk.home.id, {"max_lifetime_ms": 2 * HOUR}, NOW)
    await child_of(database, folk, None, ttl_s=7_200)
    with refused("invalid_field", "expires_at"):
        await child_of(database, folk, None, ttl_s=10_800)


async def test_nobody_mints_without_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    folk = await settle(database)
    parent = await made(database, folk)
    monkeypatch.setattr(ephemeral_keys, "_MOST_CHILDREN", 3)
    done = await asyncio.gather(*(child_of(database, folk, parent) for _ in range(6)), return_exceptions=True)
    assert [getattr(one, "code", "made") for one in done].count("made") == 3
    child, _ = await child_of(database, folk, parent, at=NOW + HOUR)  # those before have expired
    assert lets_in(child, NOW + HOUR)


# ---- their parent -----------------------------------------------------------------------------------------------


async def test_what_stops_the_parent_stops_the_child(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk)
    child, _ = await child_of(database, folk, parent)
    by, home = folk["alice"], folk.home.id

    async def status() -> tuple[bool, str]:
        kept = await found(database, folk, child)
        return lets_in(kept), kept.shown_status(NOW)

    assert await status() == (True, "active")
    async with database.transaction() as tx:
        await agent_keys.deactivate(tx, by, home, parent.id, NOW)
    assert await status() == (False, "inactive")
    async with database.transaction() as tx:
        await agent_keys.activate(tx, by, home, parent.id, NOW)
    assert await status() == (True, "active")
    async with database.transaction() as tx:
        await agent_keys.revoke(tx, by, home, parent.id, NOW)
    assert await status() == (False, "revoked")
    async with database.transaction() as tx:
        await agent_keys.activate(tx, by, home, parent.id, NOW)
    assert await status() == (False, "revoked")  # what was revoked with it does not come back with it
    later = await found(database, folk, parent)
    assert later.status == "active"


async def test_a_parent_that_is_narrowed_narrows_its_children(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk)
    child, _ = await child_of(database, folk, parent)
    async with database.transaction() as tx:
        wish: dict[str, object] = {"addresses": ["203.0.113.0/24"], "scopes": ["gate:models"], "expires_at": NOW + HOUR}
        await agent_keys.change(tx, folk["alice"], folk.home.id, parent.id, wish, NOW)
    kept = await found(database, folk, child)
    assert kept.addresses == ALL
    assert not lets_in(kept)
    assert kept.policy().powers == {"gate:models"}
    assert kept.shown_status(NOW + HOUR) == "expired"


async def test_a_child_whose_parent_is_gone_opens_nothing(database: Database) -> None:
    """Nobody deletes the one without the other; but who loses rows by hand must not open a door."""
    folk = await settle(database)
    parent = await made(database, folk)
    child, _ = await child_of(database, folk, parent)
    await people.spoil(database, "DELETE FROM agent_keys WHERE id = :id", id=parent.id)
    kept = await found(database, folk, child)
    assert kept.parent is None
    assert not lets_in(kept)
    assert kept.shown_status(NOW) == "revoked"


async def test_every_gateway_hears_of_the_children_too(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk)
    child, _ = await child_of(database, folk, parent)
    expired, _ = await child_of(database, folk, parent, ttl_s=60)
    at = NOW + 2 * MINUTE
    by, home = folk["alice"], folk.home.id

    async def heard(deed: Any) -> set[str]:
        async with database.read() as tx:
            seq = await changes.latest(tx)
        async with database.transaction() as tx:
            await deed(tx)
        async with database.read() as tx:
            return {one.id for one in await changes.list_after(tx, seq) if one.noun == "agent_key"}

    family = {parent.id, child.id}
    assert await heard(lambda tx: agent_keys.change(tx, by, home, parent.id, {"rpm": 5}, at)) == family
    assert await heard(lambda tx: agent_keys.deactivate(tx, by, home, parent.id, at)) == family
    assert await heard(lambda tx: agent_keys.activate(tx, by, home, parent.id, at)) == family
    assert await heard(lambda tx: agent_keys.change(tx, by, home, child.id, {"rpm": 4}, at)) == {child.id}
    assert await heard(lambda tx: agent_keys.revoke(tx, by, home, parent.id, at)) == family
    assert await heard(lambda tx: agent_keys.delete(tx, by, home, parent.id, at)) == {*family, expired.id}


async def test_a_deleted_key_takes_its_children_with_it(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk)
    other = await made(database, folk, name="other")
    child, _ = await child_of(database, folk, parent, budget=Budget("total", USD))
    kept, _ = await child_of(database, folk, other)
    async with database.transaction() as tx:
        await agent_keys.delete(tx, folk["alice"], folk.home.id, parent.id, NOW)
    async with database.read() as tx:
        assert {key.id for key in await store.list_agent_keys(tx, folk.home.id)} == {other.id, kept.id}
        assert {one.agent_key_id for one in await store.list_all_secrets(tx)} == {other.id, kept.id}
        assert (await tx.execute(select(func.count()).select_from(schema.budgets))).scalar_one() == 0
        assert await list_accounts(tx, "agent_key", child.id)  # history
        newest = (await list_audit(tx, folk.home.id))[0]
    assert (newest.deed, (newest.before or {})["children"]) == ("agent_keys.delete", [child.name])


async def test_children_go_with_their_parent_to_another_member(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk)
    child, _ = await child_of(database, folk, parent)
    async with database.transaction() as tx:
        by, home, bob = folk["alice"], folk.home.id, folk["bob"].id
        with refused("invalid_field", "owner_id"):
            await agent_keys.change(tx, by, home, child.id, {"owner_id": bob}, NOW)
        await agent_keys.change(tx, by, home, parent.id, {"owner_id": bob}, NOW)
    assert (await found(database, folk, child)).owner_id == bob


# ---- their own life ---------------------------------------------------------------------------------------------


async def test_they_are_stopped_edited_down_and_deleted_but_not_rotated(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk, rpm=60)
    child, _ = await child_of(database, folk, parent)
    by, home = folk["alice"], folk.home.id
    async with database.transaction() as tx:
        with refused("conflict"):
            await agent_keys.rotate(tx, by, home, child.id, pepper=PEPPER, at=NOW)
        for name, value in (("rpm", 61), ("rpm", None), ("scopes", ["admin:usage:read"]), ("expires_at", NOW + DAY)):
            with refused("invalid_field", name):
                await agent_keys.change(tx, by, home, child.id, {name: value}, NOW, grant=roles.judge_scopes)
        await agent_keys.change(tx, by, home, child.id, {"rpm": 59, "name": "job"}, NOW)
        await agent_keys.deactivate(tx, by, home, "job", NOW)
        await agent_keys.activate(tx, by, home, "job", NOW)
        await agent_keys.revoke(tx, by, home, "job", NOW)
    assert (await found(database, folk, parent)).status == "active"
    async with database.transaction() as tx:
        await agent_keys.delete(tx, by, home, "job", NOW)
    assert (await found(database, folk, parent)).status == "active"


async def test_the_expired_are_cleaned_up_a_day_later(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk, expires_at=NOW + HOUR)
    children = [await child_of(database, folk, parent, ttl_s=60, budget=Budget("total", USD)) for _ in range(3)]
    alone, _ = await child_of(database, folk, None, ttl_s=86_400)
    before = await traces(database)

    async def clean(at: int, limit: int = 500) -> int:
        async with database.transaction() as tx:
            return await ephemeral_keys.remove_expired(tx, at, limit)

    assert await clean(NOW + DAY) == 0
    over = NOW + MINUTE + DAY + 1
    assert [await clean(over, 2), await clean(over, 2), await clean(over, 2)] == [2, 1, 0]
    left = await traces(database) - before
    assert (left.audit, left.changes) == (0, 3)
    async with database.read() as tx:
        kept = {key.id for key in await store.list_agent_keys(tx, folk.home.id)}
        assert await list_accounts(tx, "agent_key", children[0][0].id)
        secrets = {one.agent_key_id for one in await store.list_all_secrets(tx)}
    assert kept == secrets == {parent.id, alone.id}  # an ordinary key that expired stays until somebody deletes it
    await ephemeral_keys.prune(database, NOW + 2 * DAY + 1)
    async with database.read() as tx:
        assert [key.id for key in await store.list_agent_keys(tx, folk.home.id)] == [parent.id]


async def test_those_of_who_leaves_end_with_their_keys(database: Database) -> None:
    folk = await settle(database)
    parent = await made(database, folk, "bob")
    child, _ = await child_of(database, folk, parent, "bob")
    alone, _ = await child_of(database, folk, None, "bob")
    async with database.transaction() as tx:
        revoked = await agent_keys.revoke_all_of(tx, folk["alice"], folk.home.id, folk["bob"].id, NOW)
    assert {key.id for key in revoked} == {parent.id, alone.id}
    assert [(await found(database, folk, key)).status for key in (parent, child, alone)] == ["revoked"] * 3
