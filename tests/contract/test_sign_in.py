"""Signing in: who comes in, who does not, what both learn, and how long whoever guesses waits."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest
from argon2 import PasswordHasher

from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.orgs import access_store, members, passwords, session_store, sessions, sign_in, throttle
from ostiary.orgs.sign_in import SignedIn
from ostiary.secret import Secret
from tests.contract.entrants import HERE, OTHER, PASSWORD, enter, logged, peopled, tried
from tests.people import DAY, HOUR, NAMES, NOW, People, everything, refused, spoil

MINUTE = 60_000
SECOND = 1_000


def waits(refusal: Refusal) -> int:
    """Seconds it says to wait."""
    assert (refusal.code, refusal.status) == ("rate_limit_exceeded", 429)
    [(name, value)] = refusal.headers
    assert name == b"retry-after"
    assert refusal.details == {"retry_after_s": int(value)}
    assert f" {int(value)} seconds" in refusal.message
    return int(value)


async def fail(database: Database, name: str, times: int, at: int = NOW) -> None:
    """Fail so often, without the comparing: an attempt is a failure until it is found to be none."""
    for _ in range(times):
        await throttle.take(database, f"{name}@example.org", None, at)


# ---- who comes in -----------------------------------------------------------------------------------------------


async def test_everybody_comes_in_where_they_belong(database: Database) -> None:
    folk = await peopled(database)
    homes = {"dora": folk.elsewhere.id, "charlie": None}
    for name in NAMES:
        done = await enter(database, f" {name.title()}@Example.ORG ")
        assert done.session is not None
        assert done.token is not None
        assert done.user.id == done.session.user_id == folk[name].id
        assert done.session.organization_id == homes.get(name, folk.home.id)
        async with database.read() as tx:
            assert await sessions.find(tx, done.token.reveal(), NOW) == done.session
    rows = await logged(database, "sessions.start")
    assert rows == [
        (homes.get(name, folk.home.id), f"{name}@example.org", f"{name}@example.org", "ok") for name in NAMES
    ]


async def test_who_belongs_to_several_is_written_down_in_each(database: Database) -> None:
    folk = await peopled(database, "bob")
    async with database.transaction() as tx:
        await members.add(tx, folk.operator, folk.elsewhere.id, "bob@example.org", "Bob", "member", NOW + 1)
    done = await enter(database, "bob")
    assert done.session is not None
    assert done.session.organization_id == folk.home.id
    assert {row[0] for row in await logged(database, "sessions.start")} == {folk.home.id, folk.elsewhere.id}


async def test_what_is_refused_is_refused_alike(database: Database) -> None:
    """Wrong password, unknown address, and a user who has none: nothing tells them apart."""
    folk = await peopled(database, "alice")
    said = [await tried(database, name, address=None) for name in ("alice", "bob", "nobody")]
    assert {(one.code, one.status, one.message, one.param, str(one.details)) for one in said} == {
        ("invalid_field", 422, "The e-mail address or the password is not right.", "password", "{}")
    }
    rows = await logged(database, "sessions.start")
    assert rows == [
        (folk.home.id, "alice@example.org", "alice@example.org", "denied"),
        (folk.home.id, "bob@example.org", "bob@example.org", "denied"),
        (None, "nobody@example.org", "nobody@example.org", "denied"),
    ]


@pytest.mark.usefixtures("real_passwords")
async def test_what_is_refused_takes_alike(database: Database) -> None:
    """Each is compared with a hash; without that, who is unknown would be told in a hundredth of the time."""
    await peopled(database, "alice")
    took: dict[str, list[float]] = {"alice": [], "bob": [], "nobody": []}
    for _ in range(4):
        for name, times in took.items():
            begun = time.process_time()  # of all threads, however long others keep the machine
            await tried(database, name, address=None)
            times.append(time.process_time() - begun)
    best = {name: min(times) for name, times in took.items()}
    assert max(best.values()) < 3 * min(best.values()), best
    assert statistics.median(took["nobody"]) > 0.02


@pytest.mark.parametrize("password", ["", " ", "x" * 10_000, "\ud800", "\0", "Correct horse battery staple"])
async def test_no_password_is_odd_enough_to_fail_otherwise(database: Database, password: str) -> None:
    await peopled(database, "alice")
    assert (await tried(database, "alice", Secret(password))).param == "password"


@pytest.mark.parametrize("email", ["", "alice", "alice@", "a b@c", "alice@example.org\0", "x" * 400 + "@example.org"])
async def test_what_is_no_address_is_not_looked_for(database: Database, email: str) -> None:
    await peopled(database, "alice")
    with refused("invalid_field", "email"):
        await sign_in.sign_in(database, email, PASSWORD, None, NOW, address=HERE, agent=None)


@pytest.mark.usefixtures("real_passwords")
async def test_an_older_hash_is_made_anew_and_others_stay(database: Database) -> None:
    folk = await peopled(database, "bob")
    weak = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD.reveal())
    async with database.transaction() as tx:
        await access_store.change_hash(tx, folk["alice"].id, weak, NOW)
        bobs = await access_store.find_hash(tx, folk["bob"].id)
    assert passwords.needs_rehash(weak)
    await enter(database, "alice")
    await enter(database, "bob")
    async with database.read() as tx:
        made = await access_store.find_hash(tx, folk["alice"].id)
        assert await access_store.find_hash(tx, folk["bob"].id) == bobs
    assert made is not None
    assert made.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    await enter(database, "alice")


@pytest.mark.usefixtures("real_passwords")
async def test_a_spoilt_hash_lets_nobody_in(database: Database) -> None:
    folk = await peopled(database, "alice")
    for text in ("", "x", "$argon2id$v=19$m=65536,t=3,p=4$", PASSWORD.reveal()):
        await spoil(database, "UPDATE users SET password_hash = :h WHERE id = :id", h=text, id=folk["alice"].id)
        assert (await tried(database, "alice", PASSWORD, address=None)).param == "password"


async def test_nothing_that_was_typed_is_kept(database: Database) -> None:
    await peopled(database, "alice")
    await tried(database, "alice", Secret("typed in haste and wrong"))
    await enter(database, "alice")
    stored = await everything(database)
    assert "typed in haste" not in stored
    assert PASSWORD.reveal() not in stored


# ---- the throttle -----------------------------------------------------------------------------------------------


async def test_the_sixth_attempt_waits_and_so_does_a_right_one(database: Database) -> None:
    await peopled(database, "alice")
    await fail(database, "alice", 5)
    for password in (OTHER, PASSWORD):
        assert waits(await tried(database, "alice", password, address="203.0.113.9")) == 30
    assert waits(await tried(database, "alice", PASSWORD, NOW + 29 * SECOND, address=None)) == 1
    assert (await enter(database, "alice", at=NOW + 30 * SECOND, address=None)).session is not None


async def test_waits_double_and_end_at_fifteen_minutes(database: Database) -> None:
    await peopled(database, "alice")
    await fail(database, "alice", 5)
    at, seen = NOW, []
    for _ in range(8):
        with refused("rate_limit_exceeded") as caught:
            await fail(database, "alice", 1, at)
        seen.append(waits(caught.value))
        at += seen[-1] * SECOND
        await fail(database, "alice", 1, at)
    assert seen == [30, 60, 120, 240, 480, 900, 900, 900]


async def test_asking_during_a_wait_makes_it_no_longer(database: Database) -> None:
    await peopled(database, "alice")
    await fail(database, "alice", 5)
    for later in range(0, 30, 3):
        assert waits(await tried(database, "alice", at=NOW + later * SECOND, address=None)) == 30 - later
    assert (await enter(database, "alice", at=NOW + 30 * SECOND, address=None)).session is not None


async def test_failures_are_forgotten_after_fifteen_minutes_and_after_success(database: Database) -> None:
    await peopled(database, "alice")
    await fail(database, "alice", 4)
    await fail(database, "alice", 4, NOW + 15 * MINUTE + 1)
    await enter(database, "alice", at=NOW + 16 * MINUTE, address=None)
    await fail(database, "alice", 4, NOW + 16 * MINUTE)
    assert (await tried(database, "alice", at=NOW + 16 * MINUTE, address=None)).code == "invalid_field"
    assert waits(await tried(database, "alice", at=NOW + 16 * MINUTE, address=None)) == 30


async def test_one_address_that_guesses_at_many_waits_for_all_of_them(database: Database) -> None:
    await peopled(database)
    for name in ("alice", "erin", "nobody", "somebody", "anybody"):
        await throttle.take(database, f"{name}@example.org", HERE, NOW)
    assert waits(await tried(database, "dora", PASSWORD)) == 30
    assert (await enter(database, "dora", address="203.0.113.9")).session is not None


async def test_who_knows_one_password_does_not_buy_guesses_with_it(database: Database) -> None:
    """A success between failures does not let the network address begin anew."""
    await peopled(database)
    for _ in range(4):
        await throttle.take(database, "alice@example.org", HERE, NOW)
    await enter(database, "bob")
    await throttle.take(database, "erin@example.org", HERE, NOW)
    assert waits(await tried(database, "dora", PASSWORD)) == 30


async def test_a_success_after_a_wait_costs_no_wait(database: Database) -> None:
    await peopled(database)
    for name in ("a", "b", "c", "d", "e"):
        await throttle.take(database, f"{name}@example.org", HERE, NOW)
    await enter(database, "bob", at=NOW + 30 * SECOND)
    await enter(database, "bob", at=NOW + 30 * SECOND)


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("not an address", "not an address", True),
    ],
)
async def test_addresses_of_one_network_count_together(
    database: Database, first: str, second: str, *, is_one: bool
) -> None:
    for number in range(5):
        await throttle.take(database, f"{number}@example.org", first, NOW)
    if is_one:
        with refused("rate_limit_exceeded"):
            await throttle.take(database, "x@example.org", second, NOW)
    else:
        await throttle.take(database, "x@example.org", second, NOW)


async def test_a_hundred_guesses_at_once_are_five(database: Database) -> None:
    """Each counts before it is judged: none slips through while others are still being compared."""
    await peopled(database, "alice")

    async def guess(number: int) -> str:
        return (await tried(database, "alice", Secret(f"guess {number} of many"), address=f"198.51.100.{number}")).code

    codes = await asyncio.gather(*(guess(number) for number in range(20)))
    assert sorted(codes) == ["invalid_field"] * 5 + ["rate_limit_exceeded"] * 15


async def test_who_comes_while_another_of_the_same_address_comes_in_is_counted(database: Database) -> None:
    """Who comes in removes what was counted: another who waits for that must not find nothing."""
    await fail(database, "bob", 1)
    async with database.transaction() as tx:
        await session_store.lock_failures(tx, [throttle.of_email("bob@example.org")], NOW)
        other = asyncio.ensure_future(throttle.take(database, "bob@example.org", None, NOW))
        await asyncio.sleep(0.2)
        assert not other.done()
        await throttle.forgive(tx, "bob@example.org")
    assert [row.failures for row in (await other).after] == [1]


@pytest.mark.parametrize("back", [HOUR, 365 * DAY])
async def test_a_clock_that_is_set_back_locks_nobody_out(database: Database, back: int) -> None:
    await peopled(database, "alice")
    await fail(database, "alice", 5)
    assert (await enter(database, "alice", at=NOW - back, address=None)).session is not None


async def test_a_clock_that_is_set_back_gives_no_guesses_away(database: Database) -> None:
    await peopled(database, "alice")
    await fail(database, "alice", 5)
    assert (await tried(database, "alice", at=NOW - DAY, address=None)).code == "invalid_field"
    assert waits(await tried(database, "alice", at=NOW - DAY, address=None)) == 60


async def test_the_sweep_forgets_failures_of_yesterday_and_no_wait(database: Database) -> None:
    await peopled(database, "alice")
    await fail(database, "alice", 5)
    await sessions.prune(database, NOW)
    waits(await tried(database, "alice", address=None))
    await sessions.prune(database, NOW + DAY)
    assert "sign_in" not in await everything(database)
    async with database.read() as tx:
        assert (await tx.exec_driver_sql("SELECT count(*) FROM sign_in_failures")).scalar_one() == 0


# ---- the password again -----------------------------------------------------------------------------------------


async def signed_in(database: Database, name: str) -> tuple[People, SignedIn]:
    folk = await peopled(database, name)
    return folk, await enter(database, name)


async def test_the_password_again_proves_who_one_is(database: Database) -> None:
    _, done = await signed_in(database, "bob")
    assert done.session is not None
    later = NOW + 20 * MINUTE
    proved = await sign_in.prove(database, done.session, PASSWORD, later)
    assert (proved.proved_at, proved.id) == (later, done.session.id)
    with refused("invalid_field", "password"):
        await sign_in.prove(database, done.session, OTHER, later)


async def test_guessing_in_an_open_session_is_throttled_with_signing_in(database: Database) -> None:
    """Whoever finds a browser open learns no password from it."""
    folk, done = await signed_in(database, "bob")
    assert done.session is not None
    await fail(database, "bob", 3)
    for number in range(2):
        with refused("invalid_field", "password"):
            await sign_in.prove(database, done.session, OTHER, NOW, address=f"198.51.100.{number}")
    with refused("rate_limit_exceeded"):
        await sign_in.prove(database, done.session, PASSWORD, NOW)
    waits(await tried(database, "bob", PASSWORD, address=None))
    denied = [row for row in await logged(database, "sessions.prove") if row[3] == "denied"]
    assert denied == [(folk.home.id, "bob@example.org", "bob@example.org", "denied")] * 2


async def test_who_is_signed_out_proves_nothing(database: Database) -> None:
    folk, done = await signed_in(database, "bob")
    assert done.session is not None
    async with database.transaction() as tx:
        await sessions.end(tx, folk["bob"], done.session.id, NOW)
    with refused("not_found"):
        await sign_in.prove(database, done.session, PASSWORD, NOW)
