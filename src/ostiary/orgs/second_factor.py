"""The second factor: a code of an authenticator app (TOTP), or one of ten recovery codes that each work once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import pyotp

from ostiary.actor import Actor
from ostiary.clock import SECOND_MS
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.names import checked_email
from ostiary.orgs import access_store, proof, sessions, store, throttle
from ostiary.orgs.access_store import Factor
from ostiary.orgs.sessions import Session
from ostiary.orgs.store import User
from ostiary.secret import Secret

_STEP_S: Final = 30
_AROUND: Final = (0, -1, 1)
"""A code counts in its half minute, the one before and the one after: clocks differ, and people type."""
_CODES: Final = 10
_CODE_BYTES: Final = 10
_GROUP: Final = 4
_TOTP: Final = re.compile(r"[0-9]{6}", re.ASCII)
_DEED: Final = "users.factor"

Judged = Literal["right", "wrong", "missing"]


class Sealing(Protocol):
    """Keeps the secrets of users; `vault.user_secrets.UserSecrets` is one."""

    async def seal(self, tx: Transaction, user_id: str, secret: Secret, at: int) -> tuple[str, int]:
        """The secret as it may be stored for this user, and the version of the data key it is sealed under."""
        ...

    async def open(self, tx: Transaction, user_id: str, sealed: str, version: int) -> Secret:
        """What was sealed for this user; refuses anything else."""
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """What an authenticator app is told: as text to type, and as an address to show as a picture."""

    secret: Secret
    uri: Secret


@dataclass(frozen=True, slots=True)
class State:
    """Whether a code is asked for, since when, and how many recovery codes are left."""

    confirmed_at: int | None
    recovery_codes: int

    @property
    def is_on(self) -> bool:
        """Whether a code is asked for."""
        return self.confirmed_at is not None


async def show(tx: Transaction, user_id: str) -> State:
    """What there is of a user."""
    factor = await access_store.find_factor(tx, user_id)
    return State(factor.confirmed_at if factor else None, await access_store.count_recovery_codes(tx, user_id))


async def begin(tx: Transaction, session: Session, seal: Sealing, at: int, *, issuer: str = "Ostiary") -> Begun:
    """Make a secret; nothing is asked for until a code of it has confirmed that the app has it."""
    user, _ = await sessions.actor_of(tx, session)
    await access_store.find_hash(tx, user.id, lock=True)  # of two who begin at once, the later one's secret counts
    secret = Secret(pyotp.random_base32())
    sealed, version = await seal.seal(tx, user.id, secret, at)
    if not await access_store.put_factor(tx, Factor(user.id, sealed, version, at, None, None)):
        raise Refusal("conflict", "There is a second factor already. Remove it first.")
    uri = pyotp.TOTP(secret.reveal()).provisioning_uri(name=user.email, issuer_name=issuer)
    return Begun(secret, Secret(uri))


async def confirm(tx: Transaction, session: Session, code: str, seal: Sealing, at: int) -> list[Secret]:
    """Ask for a code from now on; the recovery codes are returned here and nowhere else."""
    user, by = await sessions.actor_of(tx, session)
    factor = await access_store.find_factor(tx, user.id, lock=True)
    if factor is None:
        raise Refusal("not_found", "No second factor was begun. Begin anew.")
    if factor.confirmed_at is not None:
        raise Refusal("conflict", "There is a second factor already.")
    if not await _is_right(tx, factor, _plain(code), seal, at):
        said = "The code is not right. Check that the clock of the device is, and give the code it shows now."
        raise Refusal("invalid_field", said, param="code")
    await access_store.mark_confirmed(tx, user.id, at)
    await _tell(tx, by, user, at, after={"is_on": True})
    return await _new_codes(tx, user.id)


async def renew_recovery_codes(tx: Transaction, session: Session, at: int) -> list[Secret]:
    """Ten new ones; those there were are worth nothing."""
    user, by = await sessions.actor_of(tx, session)
    factor = await access_store.find_factor(tx, user.id, lock=True)  # before its codes, as whoever signs in by one
    if factor is None or factor.confirmed_at is None:
        raise Refusal("conflict", "There is no second factor. Set one up first.")
    await _tell(tx, by, user, at, after={"new_recovery_codes": True})
    return await _new_codes(tx, user.id)


async def remove(
    database: Database, session: Session, password: Secret, at: int, *, address: str | None = None
) -> None:
    """Ask for no code any more; needs the password again."""
    async with database.read() as tx:
        user, _ = await sessions.actor_of(tx, session)
    seen = address or session.address
    _, charge = await proof.prove(database, user, password, at, address=seen, deed=_DEED)
    async with database.transaction() as tx:
        await access_store.find_factor(tx, user.id, lock=True)  # before what has failed, as whoever signs in
        await throttle.give_back(tx, charge, at, is_success=True)
        user, by = await sessions.actor_of(tx, session, address)
        await _take_off(tx, by, user, at)


async def _take_off(tx: Transaction, by: Actor, user: User, at: int) -> None:
    if await access_store.find_factor(tx, user.id, lock=True) is None:
        return
    await access_store.remove_factor(tx, user.id)
    await _tell(tx, by, user, at, after={"is_on": False})


async def lift(tx: Transaction, by: Actor, email: str, at: int) -> User:
    """The operator takes it from somebody who has lost device and recovery codes; who they are was asked elsewhere."""
    by.require("users.password", None)
    user = await store.find_user(tx, checked_email(email))
    if user is None:
        raise Refusal("not_found", "There is no user with this address. 'ostiary users list' shows all.")
    await _take_off(tx, by, user, at)
    return user


async def judge(tx: Transaction, user_id: str, code: str | None, seal: Sealing | None, at: int) -> Judged:
    """Whether a code lets this user in; who has no second factor needs none. A right one is spent."""
    factor = await access_store.find_factor(tx, user_id, lock=True)
    if factor is None or factor.confirmed_at is None:
        return "right"
    given = _plain(code or "")
    if not given:
        return "missing"
    if _TOTP.fullmatch(given):
        return "right" if await _is_right(tx, factor, given, seal, at) else "wrong"
    is_one = await access_store.claim_recovery_code(tx, user_id, _digest(user_id, given), at)
    return "right" if is_one else "wrong"


async def _is_right(tx: Transaction, factor: Factor, code: str, seal: Sealing | None, at: int) -> bool:
    if seal is None:
        raise Refusal("sealed")
    secret = await seal.open(tx, factor.user_id, factor.sealed, factor.sealed_version)
    totp, now = pyotp.TOTP(secret.reveal()), at // SECOND_MS // _STEP_S
    for step in (now + around for around in _AROUND):
        if step >= 0 and hmac.compare_digest(totp.generate_otp(step).encode(), code.encode("utf-8", "replace")):
            return await access_store.claim_step(tx, factor.user_id, step)
    return False


async def _new_codes(tx: Transaction, user_id: str) -> list[Secret]:
    """Eighty bits each: a stolen database does not tell them."""
    texts = [base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode().lower() for _ in range(_CODES)]
    await access_store.put_recovery_codes(tx, user_id, [_digest(user_id, text) for text in texts])
    return [Secret("-".join(text[i : i + _GROUP] for i in range(0, len(text), _GROUP))) for text in texts]


def _plain(code: str) -> str:
    """As it is compared: people copy spaces and dashes along."""
    return re.sub(r"[\s-]", "", code).lower()


def _digest(user_id: str, code: str) -> bytes:
    return hashlib.sha256(f"{user_id} {code}".encode("utf-8", "replace")).digest()


async def _tell(tx: Transaction, by: Actor, user: User, at: int, *, after: dict[str, object]) -> None:
    await audit.write(
        tx, by, _DEED, "user", user.id, user.email, organization_id=by.organization_id, after=after, at=at
    )
    await changes.append(tx, "user", None, user.id, at)
