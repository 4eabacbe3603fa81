"""Who may call, out of packed keys: the same as the database says of each, however many there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ostiary.agents import agent_keys, client_credentials, credential, ephemeral_keys, packed_store, store
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.agents.ephemeral_keys import NewEphemeralKey
from ostiary.agents.policy import Choice
from ostiary.agents.records import AgentKey
from ostiary.db.database import Database
from ostiary.gateway import roster as rosters
from ostiary.gateway.roster import Roster
from ostiary.limits.budgets import Budget
from ostiary.orgs import roles
from ostiary.orgs.store import list_organizations
from ostiary.secret import Secret
from tests.people import HOUR, NOW, People, settle

PEPPER = Secret("pepper for tests")
WISHES = (
    NewAgentKey("plain"),
    NewAgentKey("ünder ☂", metadata={"team": "söarch", "n": [1, {"deep": None}]}, expires_at=NOW + HOUR),
    NewAgentKey("limited", rpm=1, rpd=10**9, tpm=3, parallel=4, budget=Budget("month", 10**15, 5, (50, 80))),
    NewAgentKey("soft", budget=Budget("total", None, 7), capture=True),
    NewAgentKey("narrow", models=Choice("only", frozenset({"a", "b"})), providers=Choice("none"), free_only=True),
    NewAgentKey("local", addresses=Choice("only", frozenset({"192.0.2.0/24", "2001:db8::/32"}))),
)


async def _made(database: Database, folk: People) -> list[tuple[AgentKey, bytes]]:
    found = []
    async with database.transaction() as tx:
        for wish in WISHES:
            key, secret = await agent_keys.create(
                tx, folk["alice"], folk.home.id, wish, pepper=PEPPER, at=NOW, grant=roles.judge_scopes
            )
            found.append((key, credential.digest(PEPPER, secret.reveal())))
    return found


async def _get_nothing_ready(_capturing: set[str]) -> None: ...


async def _roster(database: Database) -> tuple[Roster, set[str]]:
    capturing: set[str] = set()

    async def get_ready(found: set[str]) -> None:
        capturing.update(found)

    async with database.read() as tx:
        roster = Roster({one.id: one for one in await list_organizations(tx)})
        await roster.load(tx, get_ready)
    return roster, capturing


@pytest.mark.parametrize("at_once", [1, 4, 2_000])
async def test_a_packed_key_is_the_key(database: Database, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(packed_store, "_AT_ONCE", at_once)
    folk = await settle(database)
    made = await _made(database, folk)
    roster, capturing = await _roster(database)
    assert capturing == {folk.home.id}
    for key, digest in made:
        caller = roster.find(digest)
        assert caller is not None
        assert caller is roster.find_holder(key.id)
        assert (caller.key, caller.policy) == (key, key.policy())
        async with database.read() as tx:
            alone = await packed_store.find_packed(tx, key.id)
            assert alone is not None
            assert packed_store.unpack(alone.packed) == await store.find_agent_key_by_id(tx, key.id)
        assert packed_store.digests_of(alone.packed) == list(alone.ends) == [digest]


async def test_a_child_comes_with_its_parent_as_it_is_now(database: Database) -> None:
    folk = await settle(database)
    parent, _ = (await _made(database, folk))[4]
    async with database.transaction() as tx:
        child, _ = await ephemeral_keys.create(
            tx, folk["alice"], folk.home.id, parent.id, NewEphemeralKey(), pepper=PEPPER, at=NOW
        )
    roster, _ = await _roster(database)
    caller = roster.find_holder(child.id)
    assert caller is not None
    assert caller.key is not None
    assert caller.key.parent == parent
    assert caller.policy.within == parent.policy()
    roster.put_key(parent.id, None)
    roster.make_anew()
    orphan = roster.find_holder(child.id)
    assert orphan is not None
    assert orphan.policy.within is not None
    assert orphan.policy.within.status == "revoked"


async def test_an_old_secret_ends_when_its_rotation_said(database: Database) -> None:
    folk = await settle(database)
    key, old = (await _made(database, folk))[0]
    async with database.transaction() as tx:
        _, secret = await agent_keys.rotate(
            tx, folk["alice"], folk.home.id, key.id, pepper=PEPPER, at=NOW, overlap_ms=HOUR
        )
    new = credential.digest(PEPPER, secret.reveal())
    roster, _ = await _roster(database)
    before, after = roster.find(old), roster.find(new)
    assert before is not None
    assert after is not None
    assert (before.secret_expires_at, after.secret_expires_at) == (NOW + HOUR, None)
    async with database.transaction() as tx:
        await store.remove_secrets(tx, key.id, NOW + HOUR)
        roster.put_key(key.id, await packed_store.find_packed(tx, key.id))
    assert roster.find(old) is None
    left = roster.find(new)
    assert left is not None
    assert left.key is not None
    assert len(left.key.previews) == 1


async def test_who_is_not_ready_any_more_is_made_anew(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rosters, "_MOST_MADE", 2)
    folk = await settle(database)
    made = await _made(database, folk)
    roster, _ = await _roster(database)
    for _ in range(2):
        for key, digest in made:
            caller = roster.find(digest)
            assert caller is not None
            assert caller.key == key
    assert roster.find(b"\0" * 32) is None
    assert roster.find_holder("key_unknown") is None


async def test_an_organizations_limits_are_those_of_all_its_callers_at_once(database: Database) -> None:
    folk = await settle(database)
    made = await _made(database, folk)
    async with database.transaction() as tx:
        client, _ = await client_credentials.create(
            tx, folk.operator, folk.home.id, "machine", client_id=folk.home.client_id, pepper=PEPPER, at=NOW
        )
    async with database.read() as tx:
        organizations = {one.id: one for one in await list_organizations(tx)}
        roster = Roster(organizations)
        await roster.load(tx, _get_nothing_ready)
    ids = [client.id, *(key.id for key, _ in made)]
    assert all(_limits(roster, one) == [] for one in ids)
    organizations[folk.home.id] = replace(organizations[folk.home.id], rpm=5)
    roster.make_anew()
    assert all(_limits(roster, one) == [5] for one in ids)


def _limits(roster: Roster, holder_id: str) -> list[int | None]:
    caller = roster.find_holder(holder_id)
    assert caller is not None
    return [holder.rpm for holder in caller.allowance.holders if holder.scope == "organization"]
