"""The second factor: begun, confirmed, asked for, spent, taken off; and sealed like everything that is secret."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pyotp
import pytest
from sqlalchemy import select

from ostiary.db import changes, schema
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.orgs import access_store, password_resets, second_factor, throttle
from ostiary.orgs.second_factor import Begun
from ostiary.orgs.sessions import Session
from ostiary.secret import Secret
from ostiary.vault.rekey import rekey
from ostiary.vault.rotation import Vault, rotate
from ostiary.vault.seal import Undecryptable
from ostiary.vault.user_secrets import UserSecrets
from tests.contract.entrants import OTHER, PASSWORD, enter, hash_of_password, logged, tried
from tests.contract.vaults import Stored, furnished
from tests.people import DAY, HOUR, NOW, everything, refused, spoil
from tests.servers.canaries import Canaries

T = TypeVar("T")

STEP = 30_000


@pytest.fixture
async def stored(database: Database, tmp_path: Path, canaries: Canaries) -> Stored:
    """A vault, and Bob and Erin with passwords."""
    made = await furnished(database, tmp_path / "vault", canaries)
    hash_ = await asyncio.to_thread(hash_of_password)
    for name in ("bob", "erin"):
        await spoil(database, "UPDATE users SET password_hash = :h WHERE id = :id", h=hash_, id=made.folk[name].id)
    return made


async def secrets_of(stored: Stored) -> UserSecrets:
    return UserSecrets((await stored.vault()).seal)


def code(secret: Secret, at: int = NOW) -> str:
    """What the app shows."""
    return pyotp.TOTP(secret.reveal()).generate_otp(at // STEP)


async def equip(
    database: Database, seal: UserSecrets, canaries: Canaries, name: str = "bob"
) -> tuple[Session, Begun, list[Secret]]:
    """Give somebody a second factor; confirmed two minutes ago."""
    session = (await enter(database, name)).session
    assert session is not None
    async with database.transaction() as tx:
        begun = await second_factor.begin(tx, session, seal, NOW)
        canaries.watch(begun.secret.reveal())
        codes = await second_factor.confirm(tx, session, code(begun.secret, NOW - 4 * STEP), seal, NOW - 4 * STEP)
    for one in codes:
        canaries.watch(one.reveal())
    return session, begun, codes


async def test_it_is_asked_for_once_it_is_confirmed(stored: Stored, canaries: Canaries) -> None:
    database, seal = stored.database, await secrets_of(stored)
    session = (await enter(database, "bob")).session
    assert session is not None
    async with database.transaction() as tx:
        begun = await second_factor.begin(tx, session, seal, NOW)
        again = await second_factor.begin(tx, session, seal, NOW)
    assert begun.secret != again.secret
    assert again.uri.reveal().startswith("otpauth://totp/Ostiary:bob%40example.org?secret=")
    assert (await enter(database, "bob", seal=seal)).session is not None  # not yet
    async with database.transaction() as tx:
        for wrong in (code(begun.secret), "", "000000", "x", code(again.secret, NOW + HOUR)):
            with refused("invalid_field", "code"):
                await second_factor.confirm(tx, session, wrong, seal, NOW)
        codes = await second_factor.confirm(
            tx, session, f" {code(again.secret)[:3]} {code(again.secret)[3:]}", seal, NOW
        )
        state = await second_factor.show(tx, stored.folk["bob"].id)
        assert (state.is_on, state.confirmed_at, state.recovery_codes) == (True, NOW, 10)
        for deed in (second_factor.begin(tx, session, seal, NOW), second_factor.confirm(tx, session, "1", seal, NOW)):
            with refused("conflict"):
                await deed
    done = await enter(database, "bob", seal=seal)
    assert (done.needs_code, done.session, done.token) == (True, None, None)
    assert len({one.reveal() for one in codes}) == 10
    kept = await everything(database)
    assert not any(one.reveal().replace("-", "") in kept or one.reveal() in kept for one in codes)
    assert canaries.watch(again.secret.reveal()) not in kept
    assert await logged(database, "users.factor") == [(stored.folk.home.id, "bob@example.org", "bob@example.org", "ok")]


async def test_a_code_lets_in_once_and_for_a_minute_around(stored: Stored, canaries: Canaries) -> None:
    database, seal = stored.database, await secrets_of(stored)
    _, begun, _ = await equip(database, seal, canaries)
    for off in (-2, 2, 100):
        with refused("invalid_field", "code"):
            await enter(database, "bob", code=code(begun.secret, NOW + off * STEP), seal=seal, address=None)
    assert (await enter(database, "bob", code=code(begun.secret, NOW - STEP), seal=seal)).session is not None
    assert (await enter(database, "bob", code=code(begun.secret), seal=seal)).session is not None
    for used in (NOW, NOW - STEP):  # it was seen over a shoulder
        with refused("invalid_field", "code"):
            await enter(database, "bob", code=code(begun.secret, used), seal=seal)
    assert (await enter(database, "bob", code=code(begun.secret, NOW + STEP), seal=seal)).session is not None


async def test_of_two_with_one_code_one_comes_in(stored: Stored, canaries: Canaries) -> None:
    database, seal = stored.database, await secrets_of(stored)
    _, begun, codes = await equip(database, seal, canaries)

    async def race(given: str) -> str | None:
        try:
            await enter(database, "bob", code=given, seal=seal, address=None)
        except Refusal as refusal:
            return refusal.param
        return "in"

    for given in (code(begun.secret), codes[0].reveal()):
        assert set(await asyncio.gather(race(given), race(given))) == {"in", "code"}


async def test_a_recovery_code_lets_in_once(stored: Stored, canaries: Canaries) -> None:
    database, seal = stored.database, await secrets_of(stored)
    session, _, codes = await equip(database, seal, canaries)
    assert (await enter(database, "bob", code=f" {codes[3].reveal().upper()} ", seal=seal)).session is not None
    with refused("invalid_field", "code"):
        await enter(database, "bob", code=codes[3].reveal(), seal=seal)
    async with database.transaction() as tx:
        assert (await second_factor.show(tx, session.user_id)).recovery_codes == 9
        fresh = await second_factor.renew_recovery_codes(tx, session, NOW)
    with refused("invalid_field", "code"):
        await enter(database, "bob", code=codes[4].reveal(), seal=seal, at=NOW + DAY)
    assert (await enter(database, "bob", code=canaries.watch(fresh[0].reveal()), seal=seal, at=NOW + DAY)).session


async def test_codes_of_one_user_are_nothing_to_another(stored: Stored, canaries: Canaries) -> None:
    database, seal = stored.database, await secrets_of(stored)
    _, bobs, codes = await equip(database, seal, canaries)
    await equip(database, seal, canaries, "erin")
    for given in (code(bobs.secret), codes[0].reveal()):
        with refused("invalid_field", "code"):
            await enter(database, "erin", code=given, seal=seal)


async def test_guessing_codes_is_throttled_and_asking_for_one_buys_no_guesses(
    stored: Stored, canaries: Canaries
) -> None:
    """Who knows the password gives it without a code between guesses: that neither counts nor begins anew."""
    database, seal = stored.database, await secrets_of(stored)
    _, begun, _ = await equip(database, seal, canaries)
    for number in range(5):
        assert (await enter(database, "bob", seal=seal, address=None)).needs_code
        with refused("invalid_field", "code"):
            await enter(database, "bob", code=f"{number:06}", seal=seal, address=None)
    with refused("rate_limit_exceeded"):
        await enter(database, "bob", code=code(begun.secret), seal=seal, address=None)


async def test_a_wrong_password_is_told_without_a_word_of_codes(stored: Stored, canaries: Canaries) -> None:
    database, seal = stored.database, await secrets_of(stored)
    await equip(database, seal, canaries)
    assert (await tried(database, "bob", OTHER)).param == "password"


async def test_without_a_seal_nobody_comes_in_by_it(stored: Stored, canaries: Canaries) -> None:
    database, seal = stored.database, await secrets_of(stored)
    _, begun, _ = await equip(database, seal, canaries)
    with refused("sealed"):
        await enter(database, "bob", code=code(begun.secret))


async def test_taking_it_off_needs_the_password(stored: Stored, canaries: Canaries) -> None:
    database, seal = stored.database, await secrets_of(stored)
    session, _, codes = await equip(database, seal, canaries)
    with refused("invalid_field", "password"):
        await second_factor.remove(database, session, OTHER, NOW)
    assert (await enter(database, "bob", seal=seal)).needs_code
    await second_factor.remove(database, session, PASSWORD, NOW)
    assert (await enter(database, "bob")).session is not None
    async with database.read() as tx:
        assert (await tx.execute(select(schema.recovery_codes))).all() == []
    assert codes


async def test_a_new_password_does_not_take_it_off_but_the_operator_can(stored: Stored, canaries: Canaries) -> None:
    database, seal, folk = stored.database, await secrets_of(stored), stored.folk
    await equip(database, seal, canaries)
    await password_resets.set_password(database, folk.operator, "bob@example.org", OTHER, NOW)
    assert (await enter(database, "bob", OTHER, seal=seal)).needs_code
    async with database.transaction() as tx:
        for name in ("alice", "bob", "charlie", "dora"):
            with refused("not_found"):
                await second_factor.lift(tx, folk[name], "bob@example.org", NOW)
        with refused("not_found"):
            await second_factor.lift(tx, folk.operator, "nobody@example.org", NOW)
        await second_factor.lift(tx, folk.operator, "bob@example.org", NOW)
    assert (await enter(database, "bob", OTHER)).session is not None


# ---- sealed -----------------------------------------------------------------------------------------------------


async def opens(stored: Stored, begun: Begun) -> bool:
    """With the keys of the file alone, as a process has them that starts now."""
    seal = UserSecrets(await stored.restarted())
    async with stored.database.read() as tx:
        [row] = (await tx.execute(select(schema.second_factors))).all()
        try:
            return await seal.open(tx, row.user_id, row.sealed, row.sealed_version) == begun.secret
        except Undecryptable:
            return False


async def test_another_users_secret_does_not_open(stored: Stored, canaries: Canaries) -> None:
    """Who can write to the database does not give himself a factor that he has."""
    database, seal = stored.database, await secrets_of(stored)
    await equip(database, seal, canaries)
    await spoil(database, "UPDATE second_factors SET user_id = :id", id=stored.folk["erin"].id)
    with pytest.raises(Undecryptable):
        await enter(database, "erin", code="123456", seal=seal)


async def test_rekeying_reaches_it(stored: Stored, canaries: Canaries) -> None:
    vault: Vault = await stored.vault()
    _, begun, _ = await equip(stored.database, UserSecrets(vault.seal), canaries)
    done = await rekey(vault, stored.folk.operator, None, lambda *_: None)
    assert (done.undecryptable, done.resealed) == (0, 11)
    async with stored.database.read() as tx:
        [row] = (await tx.execute(select(schema.second_factors))).all()
        keys = (await tx.execute(select(schema.data_keys).where(schema.data_keys.c.organization_id == "users"))).all()
    assert (row.sealed_version, [key.version for key in keys]) == (2, [2])
    assert await opens(stored, begun)
    await rekey(vault, stored.folk["operator"], stored.folk.home.id, lambda *_: None)  # one organization: not theirs
    assert await opens(stored, begun)


async def test_another_master_key_reaches_it(stored: Stored, canaries: Canaries) -> None:
    vault = await stored.vault()
    _, begun, _ = await equip(stored.database, UserSecrets(vault.seal), canaries)
    before = stored.file.read_text()
    done = await rotate(vault, stored.folk.operator, lambda *_: None)
    assert done.undecryptable == ()
    assert stored.file.read_text() != before
    assert await opens(stored, begun)
    stored.put(9)
    assert (await enter(stored.database, "bob", code=code(begun.secret), seal=UserSecrets(vault.seal))).session


# ---- two at once ------------------------------------------------------------------------------------------------


async def begun_by(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Somebody else's work, as far as it comes while a transaction is open."""
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.3)
    assert not task.done()
    return task


async def test_of_two_who_begin_at_once_the_later_secret_counts(stored: Stored, canaries: Canaries) -> None:
    database, seal = stored.database, await secrets_of(stored)
    session = (await enter(database, "bob")).session
    assert session is not None

    async def begin() -> Begun:
        async with database.transaction() as tx:
            return await second_factor.begin(tx, session, seal, NOW)

    never = await begin()
    async with database.transaction() as tx:
        first = await second_factor.begin(tx, session, seal, NOW)
        other = await begun_by(begin())
    second = await other
    for one in (never, first, second):
        canaries.watch(one.secret.reveal())
    async with database.transaction() as tx:
        with refused("invalid_field", "code"):
            await second_factor.confirm(tx, session, code(first.secret), seal, NOW)
        for recovery in await second_factor.confirm(tx, session, code(second.secret), seal, NOW):
            canaries.watch(recovery.reveal())


async def test_it_is_taken_off_while_somebody_signs_in_by_it(stored: Stored, canaries: Canaries) -> None:
    """Both have the factor before what has failed of late."""
    database, seal = stored.database, await secrets_of(stored)
    session, _, _ = await equip(database, seal, canaries)
    charge = await throttle.take(database, "bob@example.org", None, NOW)
    async with database.transaction() as tx:
        await access_store.find_factor(tx, stored.folk["bob"].id, lock=True)
        other = await begun_by(second_factor.remove(database, session, PASSWORD, NOW))
        await throttle.give_back(tx, charge, NOW, is_success=True)
    await other
    assert (await enter(database, "bob", seal=seal)).session is not None


async def test_recovery_codes_are_renewed_while_somebody_signs_in_by_one(stored: Stored, canaries: Canaries) -> None:
    """Both have the factor before its codes, and these before anything is said of it."""
    database, seal = stored.database, await secrets_of(stored)
    session, _, codes = await equip(database, seal, canaries)

    async def renew() -> list[Secret]:
        async with database.transaction() as tx:
            return await second_factor.renew_recovery_codes(tx, session, NOW)

    async with database.transaction() as tx:
        assert await second_factor.judge(tx, stored.folk["bob"].id, codes[0].reveal(), seal, NOW) == "right"
        other = await begun_by(renew())
        await changes.append(tx, "user", None, stored.folk["bob"].id, NOW)
    for one in await other:
        canaries.watch(one.reveal())
    async with database.read() as tx:
        assert (await second_factor.show(tx, stored.folk["bob"].id)).recovery_codes == 10
