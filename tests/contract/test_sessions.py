"""Sessions: begun, found, run out, renewed and ended, by everybody, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from ostiary.db import schema
from ostiary.db.database import Database, Transaction
from ostiary.ledger.audit_store import list_audit
from ostiary.orgs import members, roles, sessions, store, users
from ostiary.orgs.sessions import ABSOLUTE_MS, IDLE_MS, Session
from ostiary.secret import Secret
from tests.people import DAY, HOUR, INSIDE, NONE, NOW, People, everything, refused, settle, spoil, traces
from tests.servers.canaries import Canaries

MINUTE = 60_000


async def let_go(_tx: Transaction, *_: object) -> None:
    return None


async def start(
    database: Database, folk: People, name: str, at: int = NOW, where: str | None = "home"
) -> tuple[Session, Secret]:
    place = {"home": folk.home.id, "elsewhere": folk.elsewhere.id, None: None}[where]
    async with database.transaction() as tx:
        return await sessions.start(tx, folk[name].id, place, at, address="192.0.2.7", agent="Firefox")


async def found(database: Database, token: Secret, at: int = NOW) -> Session | None:
    async with database.read() as tx:
        return await sessions.find(tx, token.reveal(), at)


async def count(database: Database) -> int:
    async with database.read() as tx:
        return int((await tx.execute(select(func.count()).select_from(schema.sessions))).scalar_one())


# ---- begun and found --------------------------------------------------------------------------------------------


async def test_a_session_is_found_by_its_token_alone(database: Database, canaries: Canaries) -> None:
    folk = await settle(database)
    session, token = await start(database, folk, "bob")
    canaries.watch(token.reveal())
    assert await found(database, token) == session
    assert (session.user_id, session.organization_id) == (folk["bob"].id, folk.home.id)
    assert (session.created_at, session.seen_at, session.proved_at) == (NOW, NOW, NOW)
    for other in ("", session.id, "x" * 43, token.reveal()[:-1], token.reveal() + "A", "\0", "é" * 43, session.csrf):
        async with database.read() as tx:
            assert await sessions.find(tx, other, NOW) is None
    stored = await everything(database)
    assert token.reveal() not in stored
    assert session.csrf not in stored


async def test_tokens_and_what_forms_carry_are_of_one_session(database: Database) -> None:
    folk = await settle(database)
    made = [await start(database, folk, "bob") for _ in range(3)]
    assert len({token.reveal() for _, token in made}) == 3
    assert len({session.csrf for session, _ in made}) == 3
    assert all(session.csrf and session.csrf not in token.reveal() for session, token in made)


@pytest.mark.parametrize(
    ("later", "is_alive"),
    [
        (0, True),
        (IDLE_MS, True),
        (IDLE_MS + 1, False),
        (ABSOLUTE_MS + 1, False),
        (365 * DAY, False),
        (-4 * MINUTE, True),
        (-6 * MINUTE, False),
        (-365 * DAY, False),
    ],
)
async def test_a_session_that_is_not_used_runs_out_whichever_way_the_clock_goes(
    database: Database, later: int, *, is_alive: bool
) -> None:
    folk = await settle(database)
    _, token = await start(database, folk, "bob")
    assert (await found(database, token, NOW + later) is not None) == is_alive


async def test_a_session_in_use_lives_for_twelve_hours(database: Database) -> None:
    folk = await settle(database)
    session, token = await start(database, folk, "bob")
    for at in range(NOW, NOW + ABSOLUTE_MS + 1, 20 * MINUTE):
        async with database.transaction() as tx:
            session = await sessions.touch(tx, session, at)
        assert await found(database, token, at) == session
    async with database.transaction() as tx:
        await sessions.touch(tx, session, NOW + ABSOLUTE_MS + 2 * MINUTE)
    assert await found(database, token, NOW + ABSOLUTE_MS + 2 * MINUTE) is None


async def test_use_is_written_once_a_minute(database: Database) -> None:
    folk = await settle(database)
    session, token = await start(database, folk, "bob")
    for later, seen in ((1, NOW), (MINUTE - 1, NOW), (MINUTE, NOW + MINUTE), (MINUTE + 1, NOW + MINUTE)):
        async with database.transaction() as tx:
            session = await sessions.touch(tx, session, NOW + later)
        kept = await found(database, token, NOW + later)
        assert kept is not None
        assert kept.seen_at == session.seen_at == seen


async def test_proof_lasts_ten_minutes(database: Database) -> None:
    folk = await settle(database)
    session, token = await start(database, folk, "bob")
    assert sessions.is_proved(session, NOW + 10 * MINUTE)
    assert not sessions.is_proved(session, NOW + 10 * MINUTE + 1)
    assert not sessions.is_proved(session, NOW - DAY)
    async with database.transaction() as tx:
        proved = await sessions.prove(tx, session, NOW + 20 * MINUTE)
    assert sessions.is_proved(proved, NOW + 30 * MINUTE)
    assert await found(database, token, NOW + 20 * MINUTE) == proved


async def test_a_renewed_session_has_another_name_and_token_and_no_longer_life(database: Database) -> None:
    folk = await settle(database)
    session, token = await start(database, folk, "bob")
    async with database.transaction() as tx:
        renewed, fresh = await sessions.renew(tx, session, NOW + MINUTE)
    assert renewed.id != session.id
    assert renewed.csrf != session.csrf
    assert await found(database, token, NOW + MINUTE) is None
    assert await found(database, fresh, NOW + MINUTE) == renewed
    assert renewed.created_at == NOW
    assert await count(database) == 1
    for deed in (sessions.renew, sessions.prove):
        async with database.transaction() as tx:
            with refused("not_found"):
                await deed(tx, session, NOW + MINUTE)


async def test_what_a_browser_says_of_itself_is_cut_and_cleaned(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        made, token = await sessions.start(
            tx, folk["bob"].id, None, NOW, address="a\0b\n" + "c" * 500, agent="\x1b[31m\0" + "A" * 10_000
        )
    assert made == await found(database, token)
    assert made.address == "ab" + "c" * 62
    assert made.agent is not None
    assert len(made.agent) == 300
    assert made.agent.startswith("[31mA")


# ---- organizations ----------------------------------------------------------------------------------------------


async def test_one_enters_organizations_one_belongs_to_and_no_other(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await members.add(tx, folk.operator, folk.elsewhere.id, "bob@example.org", "Bob", "admin", NOW)
    session, token = await start(database, folk, "bob")
    async with database.transaction() as tx:
        entered = await sessions.enter(tx, session, folk.elsewhere.id)
        _, by = await sessions.actor_of(tx, entered)
    assert (by.organization_id, by.role, by.origin) == (folk.elsewhere.id, "admin", "dashboard")
    assert await found(database, token) == entered
    charlies, _ = await start(database, folk, "charlie", where=None)
    for one, place in ((charlies, folk.home.id), (session, "orgn_none"), (session, ""), (session, folk.home.name)):
        async with database.transaction() as tx:
            with refused("not_found"):
                await sessions.enter(tx, one, place)


async def test_an_operator_enters_every_organization_that_there_is(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await users.change_operator(tx, folk.operator, "charlie@example.org", NOW, is_operator=True)
    session, _ = await start(database, folk, "charlie", where=None)
    async with database.transaction() as tx:
        entered = await sessions.enter(tx, session, folk.elsewhere.id)
        assert (await sessions.actor_of(tx, entered))[1].organization_id is None
        for sought in ("Elsewhere", "orgn_none", ""):
            with refused("not_found"):
                await sessions.enter(tx, entered, sought)


async def test_the_role_is_the_one_of_this_moment(database: Database) -> None:
    folk = await settle(database)
    session, _ = await start(database, folk, "bob")
    await spoil(database, "UPDATE members SET role = 'admin' WHERE user_id = :id", id=folk["bob"].id)
    async with database.read() as tx:
        assert (await sessions.actor_of(tx, session))[1].role == "admin"
    await spoil(database, "DELETE FROM members WHERE user_id = :id", id=folk["bob"].id)
    async with database.read() as tx:
        by = (await sessions.actor_of(tx, session))[1]
        assert (by.role, by.may("agent_keys.list", folk.home.id, by.id)) == ("none", False)
        with refused("not_found"):
            await members.list_(tx, by, folk.home.id)


# ---- listed and ended -------------------------------------------------------------------------------------------


async def test_everybody_sees_and_ends_their_own(database: Database) -> None:
    folk = await settle(database)
    for name in (*INSIDE, "charlie", "dora"):
        first, _ = await start(database, folk, name, NOW, where="home" if name in INSIDE else None)
        second, token = await start(database, folk, name, NOW + 1, where=None)
        async with database.transaction() as tx:
            listed = await sessions.list_(tx, folk[name], folk[name].id, NOW + 1)
            assert [one.id for one in listed] == [second.id, first.id]
            assert all(one.csrf == "" for one in listed)
            await sessions.end(tx, folk[name], second.id, NOW + 1)
        assert await found(database, token, NOW + 1) is None
        async with database.transaction() as tx:
            with refused("not_found"):
                await sessions.end(tx, folk[name], second.id, NOW + 1)
            assert await sessions.end_all(tx, folk[name], folk[name].id, NOW + 1, None) == 1
    assert await count(database) == 0


async def test_who_has_run_out_is_not_listed(database: Database) -> None:
    folk = await settle(database)
    await start(database, folk, "bob")
    async with database.read() as tx:
        assert await sessions.list_(tx, folk["bob"], folk["bob"].id, NOW + IDLE_MS + 1) == []


@pytest.mark.parametrize(
    ("who", "whose", "where", "code"),
    [
        ("bob", "erin", "home", "insufficient_scope"),
        ("bob", "alice", "home", "insufficient_scope"),
        ("charlie", "bob", "home", "not_found"),
        ("dora", "bob", "home", "not_found"),
        ("alice", "dora", "elsewhere", "not_found"),
        ("alice", "charlie", None, "not_found"),
        ("alice", "bob", "home", None),
        ("erin", "alice", "home", None),
        ("operator", "charlie", None, None),
    ],
)
async def test_who_may_end_whose(database: Database, who: str, whose: str, where: str | None, code: str | None) -> None:
    folk = await settle(database)
    session, token = await start(database, folk, whose, where=where)
    before = await traces(database)
    async with database.transaction() as tx:
        if code is None:
            await sessions.end(tx, folk[who], session.id, NOW)
        else:
            with refused(code):
                await sessions.end(tx, folk[who], session.id, NOW)
    assert (await found(database, token) is None) == (code is None)
    if code is not None:
        assert await traces(database) - before == NONE
        return
    async with database.read() as tx:
        [row, *_] = await list_audit(tx, session.organization_id)
    assert (row.deed, row.target_id, row.before) == ("sessions.end", folk[whose].id, {"sessions": [session.id]})


async def test_a_foreign_session_looks_like_one_that_does_not_exist(database: Database) -> None:
    folk = await settle(database)
    session, _ = await start(database, folk, "bob")
    said = []
    for id_ in (session.id, "ses_none"):
        async with database.transaction() as tx:
            with refused("not_found") as caught:
                await sessions.end(tx, folk["dora"], id_, NOW)
        said.append(caught.value.status)
    assert said == [404, 404]


async def test_an_owner_sees_of_others_what_is_at_work_at_home(database: Database) -> None:
    folk = await settle(database)
    inside, _ = await start(database, folk, "bob")
    outside, _ = await start(database, folk, "bob", where="elsewhere")
    async with database.transaction() as tx:
        bob = folk["bob"].id
        assert [one.id for one in await sessions.list_(tx, folk["alice"], bob, NOW)] == [inside.id]
        assert await sessions.list_(tx, folk["dora"], bob, NOW) != [inside]
        with refused("insufficient_scope"):
            await sessions.list_(tx, folk["bob"], folk["alice"].id, NOW)
        assert await sessions.end_all(tx, folk["alice"], bob, NOW, None) == 1
        assert [one.id for one in await sessions.list_(tx, folk["bob"], bob, NOW)] == [outside.id]


async def test_all_others_are_ended_but_the_one_at_hand(database: Database) -> None:
    folk = await settle(database)
    mine, token = await start(database, folk, "bob")
    others = [await start(database, folk, "bob") for _ in range(3)]
    async with database.transaction() as tx:
        assert await sessions.end_all(tx, folk["bob"], folk["bob"].id, NOW, mine.id) == 3
    assert await found(database, token) == mine
    assert [await found(database, one) for _, one in others] == [None] * 3


# ---- ended by other deeds ---------------------------------------------------------------------------------------


async def test_who_is_removed_is_signed_out_there_at_once(database: Database) -> None:
    folk = await settle(database)
    _, inside = await start(database, folk, "bob")
    _, outside = await start(database, folk, "bob", where="elsewhere")
    _, anothers = await start(database, folk, "erin")
    async with database.transaction() as tx:
        await members.remove(tx, folk["alice"], folk.home.id, "bob@example.org", NOW, let_go=let_go)
    assert await found(database, inside) is None
    assert await found(database, outside) is not None
    assert await found(database, anothers) is not None


async def test_a_removal_that_fails_signs_nobody_out(database: Database) -> None:
    folk = await settle(database)
    _, token = await start(database, folk, "alice")
    with refused("conflict"):
        async with database.transaction() as tx:
            await members.remove(tx, folk["alice"], folk.home.id, "alice@example.org", NOW, let_go=let_go)
    assert await found(database, token) is not None


async def test_another_role_is_another_session(database: Database) -> None:
    folk = await settle(database)
    _, bobs = await start(database, folk, "bob")
    mine, token = await start(database, folk, "alice")
    async with database.transaction() as tx:
        await members.change_role(tx, folk["alice"], folk.home.id, "bob@example.org", "owner", NOW)
    assert await found(database, bobs) is None
    async with database.transaction() as tx:
        await members.change_role(tx, folk["alice"], folk.home.id, "bob@example.org", "owner", NOW)  # the same role
        await members.change_role(tx, folk["alice"], folk.home.id, "alice@example.org", "admin", NOW, but=mine.id)
    assert await found(database, token) == mine


@pytest.mark.parametrize("is_operator", [True, False])
async def test_who_runs_the_instance_or_does_no_more_signs_in_again(database: Database, *, is_operator: bool) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await users.change_operator(tx, folk.operator, "bob@example.org", NOW, is_operator=not is_operator)
    _, token = await start(database, folk, "bob")
    async with database.transaction() as tx:
        await users.change_operator(tx, folk.operator, "bob@example.org", NOW, is_operator=is_operator)
    assert await found(database, token) is None


# ---- swept ------------------------------------------------------------------------------------------------------


async def test_what_has_run_out_is_forgotten(database: Database) -> None:
    folk = await settle(database)
    await start(database, folk, "bob", NOW - IDLE_MS - 1)
    _, token = await start(database, folk, "bob", NOW - IDLE_MS + 1)
    async with database.transaction() as tx:
        used, old = await sessions.start(tx, folk["erin"].id, None, NOW - 13 * HOUR, address=None, agent=None)
        await sessions.touch(tx, used, NOW)
    await sessions.prune(database, NOW)
    assert await count(database) == 1
    assert await found(database, token) is not None
    assert await found(database, old) is None


async def test_users_are_told_apart_from_what_is_stored_of_their_passwords(database: Database) -> None:
    """Columns that were added to users are none of a `User`, which goes to pages and logs."""
    folk = await settle(database)
    await spoil(database, "UPDATE users SET password_hash = 'h' WHERE id = :id", id=folk["bob"].id)
    async with database.read() as tx:
        bob = await store.find_user_by_id(tx, folk["bob"].id)
        assert bob is not None
        assert bob in await store.list_users(tx)
    assert "h'" not in repr(bob)
    assert roles.page_actor(bob, None, None).organization_id == "-"
