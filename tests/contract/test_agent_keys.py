"""Agent keys: every deed, by everybody, on both databases; and what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from ostiary.actor import Actor, Denied
from ostiary.agents import agent_keys, credential, store
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.agents.policy import ALL, SCOPES, Choice
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.ledger.audit_store import list_audit
from ostiary.limits.budgets import Budget
from ostiary.limits.store import list_accounts
from ostiary.orgs import members, organizations, roles
from ostiary.secret import Secret
from tests import people
from tests.people import DAY, HOUR, INSIDE, NONE, NOW, ONE, OUTSIDE, People, refused, settle, traces
from tests.servers.canaries import Canaries

PEPPER = Secret("pepper for tests")
USD = 1_000_000_000


async def made(
    database: Database, folk: People, by: str = "alice", name: str = "ci", **wish: Any
) -> tuple[AgentKey, str]:
    async with database.transaction() as tx:
        key, secret = await agent_keys.create(
            tx,
            folk[by],
            folk.home.id,
            NewAgentKey(name, **wish),
            pepper=PEPPER,
            at=NOW,
        )
    return key, secret.reveal()


async def found(database: Database, folk: People, name: str = "ci") -> AgentKey:
    async with database.read() as tx:
        return await store.get_agent_key(tx, folk.home.id, name)


async def opens(database: Database, text: str) -> str | None:
    """The id of the key that a secret opens, as a gateway looks it up."""
    digest = credential.digest(PEPPER, text)
    async with database.read() as tx:
        return {secret.digest: secret.agent_key_id for secret in await store.list_all_secrets(tx)}.get(digest)


Deed = Callable[[Transaction, Actor, str, str], Awaitable[object]]

DEEDS: dict[str, Deed] = {
    "show": agent_keys.show,
    "edit": lambda tx, by, org, id: agent_keys.change(tx, by, org, id, {"rpm": 7}, NOW + 1),
    "rotate": lambda tx, by, org, id: agent_keys.rotate(tx, by, org, id, pepper=PEPPER, at=NOW + 1),
    "deactivate": lambda tx, by, org, id: agent_keys.deactivate(tx, by, org, id, NOW + 1),
    "activate": lambda tx, by, org, id: agent_keys.activate(tx, by, org, id, NOW + 1),
    "revoke": lambda tx, by, org, id: agent_keys.revoke(tx, by, org, id, NOW + 1),
    "delete": lambda tx, by, org, id: agent_keys.delete(tx, by, org, id, NOW + 1),
}


# ---- by everybody -----------------------------------------------------------------------------------------------


async def test_each_deed_to_a_colleagues_key(database: Database) -> None:
    """Alice and Erin may do everything to anybody's key; Bob only to his own; to the others there is nothing."""
    folk = await settle(database)
    for owner in ("alice", "bob"):
        for verb, deed in DEEDS.items():
            for name in (*INSIDE, *OUTSIDE, "operator"):
                key, _ = await made(database, folk, owner, f"{owner}'s for {verb} by {name}")
                if verb == "activate":
                    async with database.transaction() as tx:
                        await agent_keys.deactivate(tx, folk.operator, folk.home.id, key.id, NOW)
                before = await traces(database)
                expected: str | None = None
                if name in OUTSIDE or (name == "bob" and owner != "bob"):
                    expected = "not_found"
                async with database.transaction() as tx:
                    if expected:
                        with refused(expected):
                            await deed(tx, folk[name], folk.home.id, key.id)
                    else:
                        await deed(tx, folk[name], folk.home.id, key.id)
                quiet = expected is not None or verb == "show"
                assert await traces(database) - before == (NONE if quiet else ONE), (verb, owner, name)


async def test_everybody_inside_may_make_a_key_and_owns_it(database: Database) -> None:
    folk = await settle(database)
    for name in INSIDE:
        before = await traces(database)
        key, _ = await made(database, folk, name, f"{name}'s")
        assert key.owner_id == folk[name].id
        assert await traces(database) - before == ONE
    key, _ = await made(database, folk, "operator", "nobody's")
    assert key.owner_id is None
    for name in OUTSIDE:
        with refused("not_found"):
            await made(database, folk, name, "x")


async def test_everybody_sees_what_they_may(database: Database) -> None:
    folk = await settle(database)
    for name in (*INSIDE, "operator"):
        await made(database, folk, name, f"{name}'s")
    seen = {}
    for name in (*INSIDE, "operator"):
        async with database.read() as tx:
            seen[name] = [key.name for key in await agent_keys.list_(tx, folk[name], folk.home.id)]
    every = ["alice's", "erin's", "bob's", "operator's"]
    assert {name: sorted(names) for name, names in seen.items()} == {
        "alice": sorted(every),
        "erin": sorted(every),
        "bob": ["bob's"],
        "operator": sorted(every),
    }
    for name in OUTSIDE:
        async with database.read() as tx:
            with refused("not_found"):
                await agent_keys.list_(tx, folk[name], folk.home.id)


async def test_elsewhere_what_exists_and_what_does_not_look_alike(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk)
    asked = (
        (folk.home.id, key.id),
        (folk.home.id, "ci"),
        (folk.home.id, "no such key"),
        ("no such organization", key.id),
    )
    for name in OUTSIDE:
        for deed in DEEDS.values():
            bodies = []
            for organization_id, id_or_name in asked:
                async with database.transaction() as tx:
                    with refused("not_found") as caught:
                        await deed(tx, folk[name], organization_id, id_or_name)
                bodies.append(caught.value.body())
            assert all(body == bodies[0] for body in bodies)
    for deed in DEEDS.values():  # in her own organization, Dora does not reach it by its id either
        async with database.transaction() as tx:
            with refused("not_found"):
                await deed(tx, folk["dora"], folk.elsewhere.id, key.id)


async def test_a_colleagues_key_looks_like_none_and_the_attempt_is_noted(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk)
    for deed in DEEDS.values():
        told = []
        for sought in (key.id, "ci", "no such key"):
            async with database.transaction() as tx:
                with refused("not_found") as caught:
                    await deed(tx, folk["bob"], folk.home.id, sought)
            told.append((caught.value.body(), caught.value.headers))
            assert isinstance(caught.value, Denied) == (sought != "no such key")
        assert all(one == told[0] for one in told)


async def test_an_admin_may_make_a_key_for_a_member_who_then_owns_it(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk, "erin", owner_id=folk["bob"].id)
    assert key.owner_id == folk["bob"].id
    async with database.transaction() as tx:
        await agent_keys.deactivate(tx, folk["bob"], folk.home.id, key.id, NOW)


async def test_a_key_belongs_to_a_member_or_to_nobody(database: Database) -> None:
    folk = await settle(database)
    for owner in (folk["dora"].id, folk["charlie"].id, "nobody"):
        with refused("invalid_field", "owner_id"):
            await made(database, folk, "operator", owner_id=owner)
    with refused("insufficient_scope"):
        await made(database, folk, "bob", owner_id=folk["alice"].id)


# ---- what is kept -----------------------------------------------------------------------------------------------


async def test_a_new_key_has_the_usual_powers_for_thirty_days(database: Database, canaries: Canaries) -> None:
    folk = await settle(database)
    key, secret = await made(database, folk)
    canaries.watch(secret)
    assert await found(database, folk) == key
    assert (key.status, key.expires_at, key.scopes) == ("active", NOW + 30 * DAY, SCOPES)
    assert (key.models, key.providers, key.addresses, key.budget) == (ALL, ALL, ALL, None)
    assert key.previews == (credential.preview(secret),)
    assert await opens(database, secret) == key.id
    assert await opens(database, credential.mint("pat").reveal()) is None


async def test_everything_that_was_wished_is_kept(database: Database) -> None:
    folk = await settle(database)
    wish: dict[str, Any] = {
        "expires_at": None,
        "scopes": frozenset({"gate:chat"}),
        "rpm": 60,
        "rpd": 1_000,
        "tpm": 50_000,
        "parallel": 4,
        "capture": True,
        "models": Choice("only", frozenset({"openai/gpt-9", "ostiary/fast"})),
        "providers": Choice("none"),
        "free_only": True,
        "addresses": Choice("only", frozenset({"192.0.2.0/24", "2001:db8::1"})),
        "metadata": {"team": "search", "tags": ["a", 1, None, {"b": 1.5}], "größe": "✓"},
        "budget": Budget("total", 5 * USD, 4 * USD, (10, 99)),
    }
    key, _ = await made(database, folk, **wish)
    kept = await found(database, folk)
    assert kept == key
    assert kept.addresses == Choice("only", frozenset({"192.0.2.0/24", "2001:db8::1/128"}))
    for name in wish.keys() - {"addresses"}:
        assert getattr(kept, name) == wish[name]
    async with database.read() as tx:
        caps = {one.period_id: one.cap_nano for one in await list_accounts(tx, "agent_key", key.id)}
    assert caps["total"] == 5 * USD


async def test_nothing_stored_holds_the_secret(database: Database) -> None:
    folk = await settle(database)
    key, first = await made(database, folk)
    async with database.transaction() as tx:
        _, second = await agent_keys.rotate(tx, folk["alice"], folk.home.id, key.id, pepper=PEPPER, at=NOW)
    stored = await people.everything(database)
    assert key.id in stored
    for secret in (first, second.reveal()):
        assert secret not in stored
        assert secret[8:51] not in stored


async def test_a_name_is_taken_once_in_an_organization(database: Database) -> None:
    folk = await settle(database)
    await made(database, folk)
    before = await traces(database)
    with refused("conflict", "name"):
        await made(database, folk, "bob", " ci ")
    other, _ = await made(database, folk, name="other")
    with refused("conflict", "name"):
        async with database.transaction() as tx:
            await agent_keys.change(tx, folk["alice"], folk.home.id, other.id, {"name": "ci"}, NOW)
    assert await traces(database) - before == ONE
    async with database.transaction() as tx:
        await agent_keys.create(tx, folk["dora"], folk.elsewhere.id, NewAgentKey("ci"), pepper=PEPPER, at=NOW)


async def test_two_at_once_do_not_both_get_the_name(database: Database) -> None:
    folk = await settle(database)
    done = await asyncio.gather(*(made(database, folk, name) for name in INSIDE), return_exceptions=True)
    assert sorted(getattr(one, "code", "made") for one in done) == ["conflict", "conflict", "made"]


async def test_a_key_is_found_by_id_before_by_name(database: Database) -> None:
    folk = await settle(database)
    first, _ = await made(database, folk, name="first")
    second, _ = await made(database, folk, "bob", first.id)
    assert (await found(database, folk, first.id)).id == first.id
    assert (await found(database, folk, second.id)).name == first.id


async def test_what_cannot_be_a_name_is_refused_and_not_found(database: Database) -> None:
    folk = await settle(database)
    for name in ("", "a\0b", "\ud800", "x" * 201):
        with refused("invalid_field", "name"):
            await made(database, folk, name=name)
        with refused("not_found"):
            await found(database, folk, name)


async def test_a_name_spelled_in_two_ways_is_one_name(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk, name="café")
    assert (await found(database, folk, "cafe\u0301")).id == key.id
    with refused("conflict"):
        await made(database, folk, name="cafe\u0301")


async def test_what_is_rolled_back_never_was(database: Database) -> None:
    folk = await settle(database)
    before = await traces(database)
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as tx:
            await agent_keys.create(tx, folk["alice"], folk.home.id, NewAgentKey("ci"), pepper=PEPPER, at=NOW)
            raise ZeroDivisionError
    with refused("not_found"):
        await found(database, folk)
    assert await traces(database) == before


# ---- edit -------------------------------------------------------------------------------------------------------


async def test_absent_stays_and_none_clears(database: Database) -> None:
    folk = await settle(database)
    await made(database, folk, rpm=60, rpd=1_000, budget=Budget("month", USD))
    async with database.transaction() as tx:
        edited = await agent_keys.change(
            tx, folk["alice"], folk.home.id, "ci", {"rpm": None, "free_only": True, "name": "renamed"}, NOW + 5
        )
    kept = await found(database, folk, "renamed")
    assert kept == edited
    assert (kept.rpm, kept.rpd, kept.free_only, kept.updated_at) == (None, 1_000, True, NOW + 5)
    assert kept.budget == Budget("month", USD)


async def test_a_budget_is_changed_and_lifted(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk, budget=Budget("month", USD))

    async def caps(budget: Budget | None) -> dict[str, int | None]:
        async with database.transaction() as tx:
            await agent_keys.change(tx, folk["alice"], folk.home.id, key.id, {"budget": budget}, NOW)
        assert (await found(database, folk)).budget == budget
        async with database.read() as tx:
            return {one.period_id: one.cap_nano for one in await list_accounts(tx, "agent_key", key.id)}

    assert await caps(Budget("month", 2 * USD)) == {"2026-11": 2 * USD, "total": None}
    assert await caps(Budget("total", 3 * USD)) == {"2026-11": None, "total": 3 * USD}
    assert await caps(None) == {"2026-11": None, "total": None}


async def test_an_edit_that_changes_nothing_leaves_no_trace(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk, rpm=60)
    before = await traces(database)
    async with database.transaction() as tx:
        assert await agent_keys.change(tx, folk["alice"], folk.home.id, key.id, {"rpm": 60, "name": "ci"}, NOW) == key
        assert await agent_keys.change(tx, folk["alice"], folk.home.id, key.id, {}, NOW) == key
    assert await traces(database) == before


async def test_what_is_not_to_be_edited_is_not(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk)
    for name in ("id", "status", "organization_id", "previews", "digest", "parent_id", "is_ephemeral", "nonsense", ""):
        async with database.transaction() as tx:
            with refused("invalid_field", name):
                await agent_keys.change(tx, folk["alice"], folk.home.id, key.id, {"rpm": 5, name: "x"}, NOW)
    assert await found(database, folk) == key


async def test_a_limit_is_edited_and_lifted(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk)
    for value in (5, None):
        wish: dict[str, Any] = {"tpm": value, "parallel": value, "capture": value is not None}
        async with database.transaction() as tx:
            await agent_keys.change(tx, folk["alice"], folk.home.id, key.id, wish, NOW)
        kept = await found(database, folk)
        assert (kept.tpm, kept.parallel, kept.capture) == (value, value, value is not None)


# ---- the owner --------------------------------------------------------------------------------------------------


async def give(database: Database, folk: People, by: str, key: AgentKey, to: object) -> AgentKey:
    async with database.transaction() as tx:
        return await agent_keys.change(
            tx, folk[by], folk.home.id, key.id, {"owner_id": to}, NOW + 1, grant=roles.judge_scopes
        )


async def test_a_key_is_given_to_another_member(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk, "erin")
    before = await traces(database)
    assert (await give(database, folk, "erin", key, folk["bob"].id)).owner_id == folk["bob"].id
    assert await traces(database) - before == ONE
    async with database.read() as tx:
        newest = (await list_audit(tx, folk.home.id))[0]
    assert (newest.deed, newest.before, newest.after) == (
        "agent_keys.edit",
        {"owner_id": folk["erin"].id},
        {"owner_id": folk["bob"].id},
    )
    with refused("insufficient_scope"):
        await give(database, folk, "bob", key, folk["alice"].id)
    for owner in (folk["dora"].id, folk["charlie"].id, "nobody", None, 5):
        with refused("invalid_field", "owner_id"):
            await give(database, folk, "alice", key, owner)


# ---- scopes of the admin API ------------------------------------------------------------------------------------

ADMIN = frozenset({"gate:chat", "admin:members:read", "admin:members:write"})


async def with_scopes(database: Database, folk: People, by: str, owner: str, scopes: frozenset[str]) -> AgentKey:
    async with database.transaction() as tx:
        wish = NewAgentKey("admin", folk[owner].id, scopes=scopes)
        key, _ = await agent_keys.create(
            tx, folk[by], folk.home.id, wish, pepper=PEPPER, at=NOW, grant=roles.judge_scopes
        )
    return key


async def test_a_door_that_says_nothing_hands_out_no_admin_scope(database: Database) -> None:
    folk = await settle(database)
    with refused("invalid_field", "scopes"):
        await made(database, folk, scopes=ADMIN)
    key = await with_scopes(database, folk, "alice", "alice", ADMIN)
    for deed in ("rotate", "activate"):
        async with database.transaction() as tx:
            if deed == "activate":
                await agent_keys.deactivate(tx, folk["alice"], folk.home.id, key.id, NOW)
            with refused("invalid_field", "scopes"):
                await DEEDS[deed](tx, folk["alice"], folk.home.id, key.id)


async def test_scopes_are_cut_to_the_owners_role_when_they_are_given(database: Database) -> None:
    folk = await settle(database)
    with refused("invalid_field", "scopes"):
        await with_scopes(database, folk, "erin", "bob", ADMIN)
    with refused("insufficient_scope"):
        await with_scopes(database, folk, "erin", "alice", ADMIN)
    key = await with_scopes(database, folk, "erin", "erin", ADMIN)
    assert key.scopes == ADMIN
    with refused("invalid_field", "scopes"):
        await give(database, folk, "erin", key, folk["bob"].id)
    with refused("insufficient_scope"):
        await give(database, folk, "erin", key, folk["alice"].id)


async def test_nobody_comes_to_the_secret_of_a_key_that_reaches_further_than_they_do(database: Database) -> None:
    """An admin who could rotate the owner's key would be the owner."""
    folk = await settle(database)
    key = await with_scopes(database, folk, "alice", "alice", ADMIN)
    before = await traces(database)
    for name, code in (("erin", "insufficient_scope"), ("bob", "not_found")):
        async with database.transaction() as tx:
            with refused(code):
                await agent_keys.rotate(
                    tx, folk[name], folk.home.id, key.id, pepper=PEPPER, at=NOW, grant=roles.judge_scopes
                )
    assert await traces(database) == before
    async with database.transaction() as tx:
        await agent_keys.rotate(
            tx, folk["alice"], folk.home.id, key.id, pepper=PEPPER, at=NOW, grant=roles.judge_scopes
        )
        await agent_keys.change(tx, folk["erin"], folk.home.id, key.id, {"rpm": 5}, NOW)
        await agent_keys.change(tx, folk["erin"], folk.home.id, key.id, {"scopes": ["gate:chat"]}, NOW)
        with refused("insufficient_scope"):
            await agent_keys.change(
                tx, folk["erin"], folk.home.id, key.id, {"scopes": ADMIN}, NOW, grant=roles.judge_scopes
            )


async def test_at_the_admin_door_a_key_is_what_its_owner_is_now(database: Database) -> None:
    folk = await settle(database)
    key = await with_scopes(database, folk, "erin", "erin", ADMIN)

    async def actor() -> Actor:
        async with database.read() as tx:
            now = await store.get_agent_key(tx, folk.home.id, key.id)
            return await members.actor_of_key(
                tx, folk.home.id, now.owner_id, now.policy().powers, now.name, "192.0.2.7"
            )

    assert set((await actor()).grants) == {"members.list", "members.add", "members.remove"}
    async with database.transaction() as tx:
        await members.change_role(tx, folk["alice"], folk.home.id, "erin@example.org", "owner", NOW)
    assert "members.role" in (await actor()).grants
    async with database.transaction() as tx:
        await members.change_role(tx, folk["alice"], folk.home.id, "erin@example.org", "member", NOW)
    assert dict((await actor()).grants) == {}
    async with database.transaction() as tx:
        await members.remove(tx, folk["alice"], folk.home.id, "erin@example.org", NOW, let_go=agent_keys.revoke_all_of)
    with refused("not_found"):
        (await actor()).require("members.list", folk.home.id)


# ---- the organization's rules -----------------------------------------------------------------------------------


async def rule(database: Database, folk: People, **wished: object) -> None:
    async with database.transaction() as tx:
        await organizations.change(tx, folk["alice"], folk.home.id, wished, NOW)


async def test_the_longest_lifetime_holds_for_new_keys_edits_and_never(database: Database) -> None:
    folk = await settle(database)
    old, _ = await made(database, folk, name="old", expires_at=None)
    await rule(database, folk, max_lifetime_ms=7 * DAY)
    usual, _ = await made(database, folk)
    assert usual.expires_at == NOW + 7 * DAY
    for expires_at in (None, NOW + 8 * DAY):
        with refused("invalid_field", "expires_at"):
            await made(database, folk, name="x", expires_at=expires_at)
        async with database.transaction() as tx:
            with refused("invalid_field", "expires_at"):
                await agent_keys.change(tx, folk["alice"], folk.home.id, "ci", {"expires_at": expires_at}, NOW)
    async with database.transaction() as tx:
        await agent_keys.change(tx, folk["alice"], folk.home.id, old.id, {"rpm": 5}, NOW)  # it is not asked for that
        await agent_keys.change(tx, folk["alice"], folk.home.id, old.id, {"expires_at": NOW + 7 * DAY}, NOW)
    await rule(database, folk, max_lifetime_ms=None)
    await made(database, folk, name="x", expires_at=None)


async def test_revocation_is_final_where_the_organization_says_so(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk)
    await rule(database, folk, revocation_is_final=True)
    async with database.transaction() as tx:
        await agent_keys.deactivate(tx, folk["alice"], folk.home.id, key.id, NOW)
        await agent_keys.activate(tx, folk["alice"], folk.home.id, key.id, NOW)
        await agent_keys.revoke(tx, folk["alice"], folk.home.id, key.id, NOW)
        for name in ("alice", "operator"):
            with refused("conflict"):
                await agent_keys.activate(tx, folk[name], folk.home.id, key.id, NOW)
    await rule(database, folk, revocation_is_final=False)
    async with database.transaction() as tx:
        await agent_keys.activate(tx, folk["alice"], folk.home.id, key.id, NOW)


# ---- who leaves -------------------------------------------------------------------------------------------------


async def test_the_keys_of_who_leaves_are_revoked(database: Database) -> None:
    folk = await settle(database)
    bobs, _ = await made(database, folk, "bob", "bobs")
    kept, _ = await made(database, folk, "bob", "given away")
    alices, _ = await made(database, folk, "alice", "alices")
    await give(database, folk, "alice", kept, folk["alice"].id)
    async with database.transaction() as tx:
        gone = await members.remove(
            tx, folk["erin"], folk.home.id, "bob@example.org", NOW, let_go=agent_keys.revoke_all_of
        )
    assert gone.email == "bob@example.org"
    now = {key.name: (await found(database, folk, key.id)).status for key in (bobs, kept, alices)}
    assert now == {"bobs": "revoked", "given away": "active", "alices": "active"}
    async with database.transaction() as tx:
        with refused("conflict", "owner_id"):
            await agent_keys.activate(tx, folk["alice"], folk.home.id, bobs.id, NOW)
    await give(database, folk, "alice", bobs, folk["alice"].id)
    async with database.transaction() as tx:
        await agent_keys.activate(tx, folk["alice"], folk.home.id, bobs.id, NOW)


# ---- rotate -----------------------------------------------------------------------------------------------------


async def test_rotation_kills_the_old_secret_and_keeps_the_key(database: Database) -> None:
    folk = await settle(database)
    key, old = await made(database, folk, rpm=60, budget=Budget("month", USD))
    async with database.transaction() as tx:
        rotated, new = await agent_keys.rotate(tx, folk["alice"], folk.home.id, key.id, pepper=PEPPER, at=NOW + 9)
    assert await opens(database, old) is None
    assert await opens(database, new.reveal()) == key.id
    kept = await found(database, folk)
    assert kept == rotated == replace(key, previews=(credential.preview(new.reveal()),), updated_at=NOW + 9)


async def test_an_overlap_lets_the_old_secret_live_on_for_a_while(database: Database) -> None:
    folk = await settle(database)
    key, first = await made(database, folk)

    async def rotate(at: int, overlap_ms: int) -> tuple[AgentKey, dict[bytes, int | None]]:
        async with database.transaction() as tx:
            rotated, _ = await agent_keys.rotate(
                tx, folk["alice"], folk.home.id, key.id, pepper=PEPPER, at=at, overlap_ms=overlap_ms
            )
            secrets = await store.list_secrets(tx, key.id)
        assert rotated.previews == tuple(secret.preview for secret in secrets)
        return rotated, {secret.digest: secret.expires_at for secret in secrets}

    _, after_one = await rotate(NOW, DAY)
    assert after_one[credential.digest(PEPPER, first)] == NOW + DAY
    assert sorted(after_one.values(), key=str) == [NOW + DAY, None]
    _, after_two = await rotate(NOW + HOUR, 7 * DAY)
    assert after_two[credential.digest(PEPPER, first)] == NOW + DAY  # a second overlap does not lengthen the first
    assert len(after_two) == 3
    _, after_three = await rotate(NOW + 2 * DAY, HOUR)
    assert credential.digest(PEPPER, first) not in after_three  # what has expired is forgotten
    assert len(after_three) == 3
    rotated, after_four = await rotate(NOW + 2 * DAY, 0)
    assert list(after_four.values()) == [None]
    assert await found(database, folk) == rotated


async def test_an_overlap_is_seven_days_at_most(database: Database) -> None:
    folk = await settle(database)
    key, secret = await made(database, folk)
    for overlap_ms in (-1, 7 * DAY + 1):
        async with database.transaction() as tx:
            with refused("invalid_field", "overlap"):
                await agent_keys.rotate(
                    tx, folk["alice"], folk.home.id, key.id, pepper=PEPPER, at=NOW, overlap_ms=overlap_ms
                )
    assert await opens(database, secret) == key.id


async def test_rotations_at_the_same_time_leave_one_secret(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk)

    async def rotate() -> None:
        async with database.transaction() as tx:
            await agent_keys.rotate(tx, folk["alice"], folk.home.id, key.id, pepper=PEPPER, at=NOW)

    await asyncio.gather(*(rotate() for _ in range(5)))
    async with database.read() as tx:
        assert len(await store.list_secrets(tx, key.id)) == 1


async def test_a_leaked_key_is_revoked_rotated_and_activated(database: Database) -> None:
    folk = await settle(database)
    key, leaked = await made(database, folk)
    async with database.transaction() as tx:
        await agent_keys.revoke(tx, folk["alice"], folk.home.id, key.id, NOW)
        await agent_keys.rotate(tx, folk["alice"], folk.home.id, key.id, pepper=PEPPER, at=NOW)
        await agent_keys.activate(tx, folk["alice"], folk.home.id, key.id, NOW)
    assert await opens(database, leaked) is None
    assert (await found(database, folk)).status == "active"


# ---- stop and delete --------------------------------------------------------------------------------------------


async def test_the_ways_between_active_inactive_and_revoked(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk)
    ways = {
        "active": {"deactivate": "inactive", "revoke": "revoked"},
        "inactive": {"activate": "active", "revoke": "revoked"},
        "revoked": {"activate": "active"},
    }
    for status, leads in ways.items():
        for verb in ("deactivate", "activate", "revoke"):
            async with database.transaction() as tx:
                await store.change_agent_key(tx, folk.home.id, key.id, {"status": status})
            before = await traces(database)
            async with database.transaction() as tx:
                if verb in leads:
                    await DEEDS[verb](tx, folk["alice"], folk.home.id, key.id)
                else:
                    with refused("conflict"):
                        await DEEDS[verb](tx, folk["alice"], folk.home.id, key.id)
            assert await traces(database) - before == (ONE if verb in leads else NONE)
            kept = await found(database, folk)
            assert kept.policy().status == kept.status == leads.get(verb, status)


async def test_an_expired_key_is_shown_as_such(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk, expires_at=NOW + HOUR)
    assert key.shown_status(NOW + HOUR - 1) == "active"
    assert key.shown_status(NOW + HOUR) == "expired"
    assert replace(key, status="revoked").shown_status(NOW + HOUR) == "revoked"


async def test_a_deleted_key_is_gone_with_its_secrets_but_not_its_history(database: Database) -> None:
    folk = await settle(database)
    key, secret = await made(database, folk, budget=Budget("month", USD))
    async with database.transaction() as tx:
        await agent_keys.delete(tx, folk["alice"], folk.home.id, "ci", NOW)
    assert await opens(database, secret) is None
    with refused("not_found"):
        await found(database, folk)
    async with database.read() as tx:
        assert await store.find_agent_key_by_id(tx, key.id) is None
        assert await store.list_secrets(tx, key.id) == []
        accounts = await list_accounts(tx, "agent_key", key.id)
        newest = (await list_audit(tx, folk.home.id))[0]
    assert {one.cap_nano for one in accounts if one.period_id == "2026-11"} == {USD}  # until all gateways have heard
    assert (newest.deed, newest.target_id, newest.target_name) == ("agent_keys.delete", key.id, "ci")
    again, _ = await made(database, folk)
    assert again.id != key.id
    assert again.budget is None


# ---- what is told -----------------------------------------------------------------------------------------------


async def test_each_deed_is_audited_with_who_what_and_whence(database: Database) -> None:
    folk = await settle(database)
    key, secret = await made(database, folk, "bob", metadata={"password": "do not audit this"}, rpm=60)
    async with database.transaction() as tx:
        await agent_keys.change(tx, folk["erin"], folk.home.id, key.id, {"rpm": 7, "metadata": {"a": 1}}, NOW + 1)
        await agent_keys.rotate(tx, folk["bob"], folk.home.id, key.id, pepper=PEPPER, at=NOW + 2)
    async with database.read() as tx:
        rotated, edited, created, *_ = await list_audit(tx, folk.home.id)
        assert await list_audit(tx, folk.elsewhere.id, limit=1) != [rotated]
    assert [row.deed for row in (created, edited, rotated)] == [
        "agent_keys.create",
        "agent_keys.edit",
        "agent_keys.rotate",
    ]
    assert (created.actor_id, created.actor_name, created.actor_kind) == (folk["bob"].id, "bob@example.org", "user")
    assert (edited.actor_id, edited.origin, edited.address) == (folk["erin"].id, "test", "192.0.2.7")
    assert (edited.at, edited.target_kind, edited.target_id, edited.target_name, edited.result) == (
        NOW + 1,
        "agent_key",
        key.id,
        "ci",
        "ok",
    )
    assert edited.before == {"rpm": 60, "metadata": ["password"]}
    assert edited.after == {"rpm": 7, "metadata": ["a"]}
    assert created.after is not None
    assert created.after["models"] == {"mode": "all", "items": []}
    for row in (created, edited, rotated):
        assert "do not audit this" not in repr(row)
        assert secret[8:51] not in repr(row)


async def test_the_feed_names_the_key(database: Database) -> None:
    folk = await settle(database)
    key, _ = await made(database, folk)
    async with database.read() as tx:
        seq = await changes.latest(tx)
    async with database.transaction() as tx:
        await agent_keys.revoke(tx, folk["alice"], folk.home.id, key.id, NOW)
    async with database.read() as tx:
        heard = await changes.list_after(tx, seq)
        assert [(one.noun, one.organization_id, one.id) for one in heard] == [("agent_key", folk.home.id, key.id)]
        told = await store.find_agent_key_by_id(tx, key.id)
    assert told is not None
    assert told.status == "revoked"
