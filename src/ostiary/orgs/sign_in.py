"""Signing in: a password, where somebody has one a code, and a session; whoever guesses learns nothing and waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.names import checked_email
from ostiary.orgs import access_store, passwords, proof, roles, second_factor, sessions, store, throttle
from ostiary.orgs.second_factor import Sealing
from ostiary.orgs.sessions import Session
from ostiary.orgs.store import User
from ostiary.secret import Secret

_DEED: Final = "sessions.start"
_WRONG: Final = "The e-mail address or the password is not right."
_WRONG_CODE: Final = "The code is not right, or was used already. Wait for the next one."


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who has come in; without session and token when a code is asked for first."""

    user: User
    session: Session | None
    token: Secret | None
    needs_code: bool = False


async def sign_in(
    database: Database,
    email: str,
    password: Secret,
    code: str | None,
    at: int,
    *,
    address: str | None,
    agent: str | None,
    seal: Sealing | None = None,
) -> SignedIn:
    """Begin a session. Unknown address, wrong password and a user without one are refused alike, and take alike.

    Refuses with `rate_limit_exceeded` after too many failures, a right password too. Who has a second factor needs
    `seal`, which opens its secret; a missing `code` is asked for, and is no failure.
    """
    asked = checked_email(email)
    charge = await throttle.take(database, asked, address, at)
    known = await proof.look(database, asked)
    if not await passwords.matches(known.hash, password) or known.user is None or known.hash is None:
        raise await proof.failed(database, known, _wrong(), at, address=address, deed=_DEED)
    fresh = await passwords.rehashed(known.hash, password)
    async with database.transaction() as tx:
        if await access_store.find_hash(tx, known.user.id, lock=True) == known.hash:
            found = await second_factor.judge(tx, known.user.id, code, seal, at)
            if found == "missing":
                await throttle.give_back(tx, charge, at, is_success=False)
                return SignedIn(known.user, None, None, needs_code=True)
            if found == "right":
                if fresh is not None:
                    await access_store.replace_hash(tx, known.user.id, known.hash, fresh)
                await throttle.give_back(tx, charge, at, is_success=True)
                return await let_in(tx, known.user, at, address=address, agent=agent, how="password")
            refusal = Refusal("invalid_field", _WRONG_CODE, param="code")
        else:
            refusal = _wrong()  # it was changed a moment ago
    raise await proof.failed(database, known, refusal, at, address=address, deed=_DEED)


async def prove(
    database: Database, session: Session, password: Secret, at: int, *, address: str | None = None
) -> Session:
    """The password again, for what asks for a recent sign-in; throttled with signing in."""
    async with database.read() as tx:
        user, _ = await sessions.actor_of(tx, session)
    seen = address or session.address
    _, charge = await proof.prove(database, user, password, at, address=seen, deed="sessions.prove")
    async with database.transaction() as tx:
        await throttle.give_back(tx, charge, at, is_success=True)
        return await sessions.prove(tx, session, at)


async def let_in(
    tx: Transaction,
    user: User,
    at: int,
    *,
    address: str | None,
    agent: str | None,
    how: str,
    organization_id: str | None = None,
    proved_at: int | None = None,
) -> SignedIn:
    """Begin a session for somebody who has proved who they are, and write it down wherever they belong.

    They begin in the given organization, else in the one they have belonged to for longest. `proved_at` is when they
    proved it, where that was elsewhere and perhaps long ago.
    """
    homes = await store.list_homes(tx, user.id)
    place = organization_id or homes[0][0]
    session, token = await sessions.start(
        tx, user.id, place, at, address=address, agent=agent, proved_at=at if proved_at is None else proved_at
    )
    for home, role in homes:
        await audit.write(
            tx,
            roles.member_actor(user, role, home or "", "dashboard", session.address),
            _DEED,
            "user",
            user.id,
            user.email,
            organization_id=home,
            after={"session": session.id, "how": how},
            at=at,
        )
    return SignedIn(user, session, token)


def _wrong() -> Refusal:
    return Refusal("invalid_field", _WRONG, param="password")
