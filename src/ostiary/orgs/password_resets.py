"""New passwords: by a link that works once, by the operator, or by who knows the old one."""

from __future__ import annotations

from typing import Final

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.names import checked_email
from ostiary.orgs import access_store, link_store, passwords, proof, roles, sessions, store, throttle, tokens, verified
from ostiary.orgs.sessions import Session
from ostiary.orgs.store import User
from ostiary.secret import Secret

VALID_MS: Final = 3_600_000
MOST: Final = 3
"""Links that somebody can ask for within the hour."""
_KIND: Final = "reset"
_DEED: Final = "users.password"
_SPENT: Final = "This link does not work any more: it was used, or is older than an hour. Ask for another."
_UNKNOWN: Final = "There is no user with this address. 'ostiary users list' shows all."


async def request(tx: Transaction, email: str, at: int) -> tuple[User, Secret] | None:
    """A token for whoever has this address, to be mailed there and shown nowhere; None where there is nobody.

    None, too, when three were made within the hour: a page answers alike whatever it was.
    """
    user = await store.find_user(tx, checked_email(email))
    if user is None:
        return None
    await access_store.find_hash(tx, user.id, lock=True)  # of many who ask at once, three are heard
    if await link_store.count_links(tx, _KIND, user.id, at - VALID_MS) >= MOST:
        return None
    return user, await _make(tx, user, at)


async def link(tx: Transaction, by: Actor, email: str, at: int) -> tuple[User, Secret]:
    """A token that the operator hands to somebody in person."""
    by.require(_DEED, None)
    user = await _get(tx, email)
    token = await _make(tx, user, at)
    await _tell(tx, by, user, None, at, how="link made")
    return user, token


async def is_open(tx: Transaction, token: str, at: int) -> bool:
    """Whether this token would do; looking spends nothing."""
    digest = tokens.digest(token)
    return digest is not None and (await link_store.has_link(tx, digest, _KIND, at))[0]


async def reset(database: Database, token: str, password: Secret, at: int, *, address: str | None = None) -> None:
    """Set the password of whoever has the token, and end each of their sessions. What fails spends nothing."""
    digest = tokens.digest(token) or b""
    async with database.read() as tx:
        user = await _of_link(tx, digest, at)
    hash_ = await passwords.hashed(password, unlike=(user.name, user.email))
    async with database.transaction() as tx:
        await access_store.find_hash(tx, user.id, lock=True)  # before their links, as whoever spends all of them
        if not await link_store.claim_link(tx, digest, _KIND, at):
            raise Refusal("not_found", _SPENT)
        await _replace(tx, user, hash_, at)
        await verified.mark(tx, user, at, has_new_password=True)
        await _tell_homes(tx, user, at, how="link", address=address)


async def set_password(database: Database, by: Actor, email: str, password: Secret, at: int) -> User:
    """The operator sets it, and ends each of the user's sessions."""
    by.require(_DEED, None)
    async with database.read() as tx:
        user = await _get(tx, email)
    hash_ = await passwords.hashed(password, unlike=(user.name, user.email))
    async with database.transaction() as tx:
        await _replace(tx, user, hash_, at)
        await verified.mark(tx, user, at, has_new_password=True)
        await _tell(tx, by, user, None, at, how="set")
    return user


async def change_password(
    database: Database, session: Session, old: Secret, new: Secret, at: int, *, address: str | None = None
) -> None:
    """Who knows the old one sets another. Every other session of theirs ends; this one goes on, to be renewed."""
    async with database.read() as tx:
        user, _ = await sessions.actor_of(tx, session)
    passwords.check(new, unlike=(user.name, user.email))
    known, charge = await proof.prove(database, user, old, at, address=address or session.address, deed=_DEED)
    hash_ = await passwords.hashed(new, unlike=(user.name, user.email))
    async with database.transaction() as tx:
        if await access_store.find_hash(tx, user.id, lock=True) != known.hash:
            raise Refusal("conflict", "The password was changed a moment ago. Sign in with the new one.")
        await throttle.give_back(tx, charge, at, is_success=True)
        await sessions.prove(tx, session, at)  # before anything is said of it, as whoever ends the session
        await _replace(tx, user, hash_, at, but=session.id)
        await _tell_homes(tx, user, at, how="changed", address=address or session.address)


async def _of_link(tx: Transaction, digest: bytes, at: int) -> User:
    is_there, user_id = await link_store.has_link(tx, digest, _KIND, at)
    user = await store.find_user_by_id(tx, user_id or "") if is_there else None
    if user is None:
        raise Refusal("not_found", _SPENT)
    return user


async def _get(tx: Transaction, email: str) -> User:
    user = await store.find_user(tx, checked_email(email))
    if user is None:
        raise Refusal("not_found", _UNKNOWN)
    return user


async def _make(tx: Transaction, user: User, at: int) -> Secret:
    token = tokens.mint()
    await link_store.add_link(tx, tokens.kept(token), _KIND, user.id, at=at, expires_at=at + VALID_MS)
    return token


async def _replace(tx: Transaction, user: User, hash_: str, at: int, *, but: str | None = None) -> None:
    """The password, and with it whatever somebody who knew the old one may have left behind."""
    await access_store.change_hash(tx, user.id, hash_, at)
    await link_store.spend_links(tx, _KIND, user.id, at)
    await throttle.forgive(tx, user.email)  # before the sessions, as who proves a password in one
    await sessions.end_of(tx, user.id, but=but)
    await changes.append(tx, "user", None, user.id, at)


async def _tell_homes(tx: Transaction, user: User, at: int, *, how: str, address: str | None) -> None:
    for home, role in await store.list_homes(tx, user.id):
        by = roles.member_actor(user, role, home or "", "dashboard", address)
        await _tell(tx, by, user, home, at, how=how)


async def _tell(tx: Transaction, by: Actor, user: User, organization_id: str | None, at: int, *, how: str) -> None:
    await audit.write(
        tx, by, _DEED, "user", user.id, user.email, organization_id=organization_id, after={"how": how}, at=at
    )
