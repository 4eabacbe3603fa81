"""Proof of who somebody is by their password: compared alike for everybody, counted when it fails, and written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ostiary.actor import Actor
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.orgs import access_store, passwords, roles, store, throttle
from ostiary.orgs.store import User
from ostiary.orgs.throttle import Charge
from ostiary.secret import Secret


@dataclass(frozen=True, slots=True)
class Known:
    """What there is to an e-mail address: nothing, perhaps."""

    email: str
    user: User | None
    hash: str | None = field(repr=False)
    memberships: Sequence[tuple[str, str]]


async def look(database: Database, email: str) -> Known:
    """As much is asked for somebody who is not there as for somebody who is."""
    async with database.read() as tx:
        user = await store.find_user(tx, email)
        id_ = user.id if user else ""
        return Known(email, user, await access_store.find_hash(tx, id_), await store.list_memberships(tx, id_))


async def prove(
    database: Database, user: User, password: Secret, at: int, *, address: str | None, deed: str
) -> tuple[Known, Charge]:
    """Refuse unless this is the user's password. The charge is to be given back with whatever the proof is for."""
    charge = await throttle.take(database, user.email, address, at)
    known = await look(database, user.email)
    if not await passwords.matches(known.hash, password):
        refusal = Refusal("invalid_field", "The password is not right.", param="password")
        raise await failed(database, known, refusal, at, address=address, deed=deed)
    return known, charge


async def failed(
    database: Database, known: Known, refusal: Refusal, at: int, *, address: str | None, deed: str
) -> Refusal:
    """Write it down, in one log whoever it was, so that it takes alike; the answer is what to raise."""
    target = ("user", known.user.id if known.user else "-", known.email)
    await audit.denied(database, _actor(known, address), refusal, at=at, deed=deed, target=target)
    return refusal


def _actor(known: Known, address: str | None) -> Actor:
    if known.user is None:
        return roles.stranger(known.email, throttle.of_email(known.email), address)
    home, role = known.memberships[0] if known.memberships else ("", None)
    return roles.member_actor(known.user, role, home, "dashboard", address)
