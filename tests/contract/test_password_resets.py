"""New passwords: by a link, by the operator, by who knows the old one; and what ends with the old."""

from __future__ import annotations

import asyncio

import pytest

from ostiary.db import changes
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.orgs import (
    access_store,
    link_store,
    password_resets,
    passwords,
    session_store,
    sessions,
    set_up,
    throttle,
    tokens,
)
from ostiary.orgs.sessions import Session
from ostiary.secret import Secret
from tests.contract.entrants import OTHER, PASSWORD, enter, logged, peopled, tried
from tests.people import DAY, HOUR, NAMES, NOW, everything, refused, settle
from tests.servers.canaries import Canaries


async def link(database: Database, name: str = "bob", at: int = NOW) -> str | None:
    async with database.transaction() as tx:
        made = await password_resets.request(tx, f"{name}@example.org", at)
    return made[1].reveal() if made else None


async def sure_link(database: Database, name: str = "bob", at: int = NOW) -> str:
    made = await link(database, name, at)
    assert made is not None
    return made


async def session_of(database: Database, name: str) -> Session:
    folk_email = f"{name}@example.org"
    from_store = await enter(database, folk_email)
    assert from_store.session is not None
    return from_store.session


async def alive(database: Database, session: Session) -> bool:
    async with database.transaction() as tx:
        try:
            await sessions.prove(tx, session, NOW)
        except Refusal:
            return False
        return True


# ---- by a link --------------------------------------------------------------------------------------------------


async def test_a_link_sets_a_password_and_ends_every_session(database: Database, canaries: Canaries) -> None:
    folk = await peopled(database, "bob", "erin")
    bobs, erins = await session_of(database, "bob"), await session_of(database, "erin")
    token = canaries.watch(await sure_link(database))
    async with database.read() as tx:
        assert await password_resets.is_open(tx, token, NOW)
    assert token not in await everything(database)
    await password_resets.reset(database, token, OTHER, NOW)
    assert (await alive(database, bobs), await alive(database, erins)) == (False, True)
    assert (await tried(database, "bob", PASSWORD, address=None)).param == "password"
    assert (await enter(database, "bob", OTHER)).session is not None
    assert await logged(database, "users.password") == [(folk.home.id, "bob@example.org", "bob@example.org", "ok")]
    with refused("not_found"):
        await password_resets.reset(database, token, PASSWORD, NOW)


async def test_who_had_no_password_gets_one(database: Database) -> None:
    await settle(database)
    await password_resets.reset(database, await sure_link(database, "charlie"), PASSWORD, NOW)
    assert (await enter(database, "charlie")).session is not None


async def test_a_new_password_ends_the_wait_and_every_other_link(database: Database) -> None:
    await peopled(database, "bob")
    first, second = await sure_link(database), await sure_link(database)
    for _ in range(5):
        await throttle.take(database, "bob@example.org", None, NOW)
    await password_resets.reset(database, second, OTHER, NOW)
    assert (await enter(database, "bob", OTHER)).session is not None
    with refused("not_found"):
        await password_resets.reset(database, first, PASSWORD, NOW)


async def test_nobody_gets_no_link_and_somebody_three_an_hour(database: Database) -> None:
    await peopled(database, "bob")
    assert await link(database, "nobody") is None
    assert [bool(await link(database, at=NOW + later)) for later in (0, 1, 2, 3, HOUR - 1)] == [True] * 3 + [False] * 2
    assert await link(database, "erin") is not None
    assert await link(database, at=NOW + HOUR) is not None


async def test_of_many_requests_at_once_three_are_heard(database: Database) -> None:
    await peopled(database, "bob")
    made = await asyncio.gather(*(link(database) for _ in range(8)))
    assert sum(one is not None for one in made) == 3


@pytest.mark.parametrize("kind", ["expired", "other kind", "made up", "malformed"])
async def test_what_does_not_work_is_refused_alike(database: Database, kind: str) -> None:
    await settle(database)
    token, at = await sure_link(database), NOW
    match kind:
        case "expired":
            at = NOW + HOUR
        case "other kind":
            async with database.transaction() as tx:
                made = await set_up.link_token(tx, NOW)
            assert made is not None
            token = made.reveal()
        case "made up":
            token = tokens.mint().reveal()
        case _:
            token = "\0"
    with refused("not_found") as caught:
        await password_resets.reset(database, token, PASSWORD, at)
    assert "Ask for another" in caught.value.message
    async with database.read() as tx:
        assert not await password_resets.is_open(tx, token, at)
        assert not await access_store.may_anybody_sign_in(tx)


async def test_of_two_at_once_one_wins(database: Database) -> None:
    await peopled(database, "bob")
    token = await sure_link(database)

    async def race(password: Secret) -> str:
        try:
            await password_resets.reset(database, token, password, NOW)
        except Refusal as refusal:
            return refusal.code
        return "ok"

    codes = await asyncio.gather(race(OTHER), race(Secret("a third password")))
    assert sorted(codes) == ["not_found", "ok"]


@pytest.mark.parametrize("password", ["eleven char", "x" * 201, "bob@example.org", "\ud800" * 20])
async def test_a_password_that_will_not_do_spends_nothing(database: Database, password: str) -> None:
    await peopled(database, "bob")
    token = await sure_link(database)
    with refused("invalid_field", "password"):
        await password_resets.reset(database, token, Secret(password), NOW)
    async with database.read() as tx:
        assert await password_resets.is_open(tx, token, NOW)


# ---- by the operator --------------------------------------------------------------------------------------------


async def test_only_the_operator_sets_passwords_and_hands_out_links(database: Database) -> None:
    folk = await peopled(database, "bob")
    session = await session_of(database, "bob")
    for name in NAMES:
        async with database.transaction() as tx:
            with refused("not_found"):
                await password_resets.link(tx, folk[name], "bob@example.org", NOW)
        with refused("not_found"):
            await password_resets.set_password(database, folk[name], "bob@example.org", OTHER, NOW)
    assert await alive(database, session)
    await password_resets.set_password(database, folk.operator, "Bob@example.org", OTHER, NOW)
    assert not await alive(database, session)
    assert (await enter(database, "bob", OTHER)).session is not None
    async with database.transaction() as tx:
        with refused("not_found"):
            await password_resets.link(tx, folk.operator, "nobody@example.org", NOW)
        user, token = await password_resets.link(tx, folk.operator, "bob@example.org", NOW)
    assert user.email == "bob@example.org"
    await password_resets.reset(database, token.reveal(), PASSWORD, NOW)
    assert (await logged(database, "users.password"))[:2] == [(None, "operator", "bob@example.org", "ok")] * 2


# ---- by who knows the old one -----------------------------------------------------------------------------------


async def test_who_knows_the_old_one_changes_it_and_keeps_this_browser(database: Database) -> None:
    folk = await peopled(database, "bob")
    mine, other = await session_of(database, "bob"), await session_of(database, "bob")
    link_before = await sure_link(database)
    await password_resets.change_password(database, mine, PASSWORD, OTHER, NOW)
    assert (await alive(database, mine), await alive(database, other)) == (True, False)
    assert (await enter(database, "bob", OTHER)).session is not None
    assert await logged(database, "users.password") == [(folk.home.id, "bob@example.org", "bob@example.org", "ok")]
    with refused("not_found"):
        await password_resets.reset(database, link_before, PASSWORD, NOW)


async def test_who_does_not_know_it_changes_nothing_and_waits(database: Database) -> None:
    await peopled(database, "bob")
    mine = await session_of(database, "bob")
    with refused("invalid_field", "password"):
        await password_resets.change_password(database, mine, OTHER, Secret("a third password"), NOW)
    for _ in range(4):
        await throttle.take(database, "bob@example.org", None, NOW)
    with refused("rate_limit_exceeded"):
        await password_resets.change_password(database, mine, PASSWORD, OTHER, NOW)
    assert (await enter(database, "bob", at=NOW + DAY)).session is not None


# ---- what a password is -----------------------------------------------------------------------------------------


async def test_composed_and_trimmed_alike_and_otherwise_exact() -> None:
    hash_ = await passwords.hashed(Secret("  gr\u00fcne W\u00e4lder  "))
    assert await passwords.matches(hash_, Secret("gru\u0308ne Wa\u0308lder"))
    assert not await passwords.matches(hash_, Secret("gr\u00fcne w\u00e4lder"))
    assert not await passwords.matches(None, Secret("gr\u00fcne W\u00e4lder"))
    assert not passwords.needs_rehash(hash_)
    assert await passwords.hashed(Secret("gr\u00fcne W\u00e4lder")) != hash_


@pytest.mark.usefixtures("real_passwords")
async def test_a_flood_of_sign_ins_is_turned_away_and_passes() -> None:
    """Two at a time, thirty wait, and who comes then is told to come again: the machine is not exhausted."""
    done = await asyncio.gather(*(passwords.matches(None, PASSWORD) for _ in range(40)), return_exceptions=True)
    turned_away = [one for one in done if isinstance(one, Refusal)]
    assert {one.code for one in turned_away} == {"service_unavailable"}
    assert len(turned_away) == 8
    assert not await passwords.matches(None, PASSWORD)


# ---- two at once ------------------------------------------------------------------------------------------------


async def test_a_link_is_used_while_the_password_is_set_otherwise(database: Database) -> None:
    """Both have the user before the links, and the later one finds that the link is spent."""
    folk = await peopled(database, "bob")
    token = await sure_link(database)
    async with database.transaction() as tx:
        await access_store.find_hash(tx, folk["bob"].id, lock=True)
        other = asyncio.ensure_future(password_resets.reset(database, token, OTHER, NOW))
        await asyncio.sleep(0.3)
        assert not other.done()
        await link_store.spend_links(tx, "reset", folk["bob"].id, NOW)
    with refused("not_found"):
        await other


async def test_a_password_is_changed_in_a_session_that_is_being_ended(database: Database) -> None:
    """Both have the session before anything is said of it."""
    folk = await peopled(database, "bob")
    session = await session_of(database, "bob")
    async with database.transaction() as tx:
        await session_store.remove_sessions(tx, [session.id])
        other = asyncio.ensure_future(password_resets.change_password(database, session, PASSWORD, OTHER, NOW))
        await asyncio.sleep(0.3)
        assert not other.done()
        await changes.append(tx, "session", folk.home.id, folk["bob"].id, NOW)
    with refused("not_found"):
        await other
    assert (await tried(database, "bob", OTHER, address=None)).param == "password"
