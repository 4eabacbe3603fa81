"""People with passwords, and what it takes to come in as one of them."""

from __future__ import annotations

import asyncio
from functools import cache

from argon2 import PasswordHasher
from sqlalchemy import select

from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.orgs import access_store, passwords, sign_in
from ostiary.orgs.second_factor import Sealing
from ostiary.orgs.sign_in import SignedIn
from ostiary.secret import Secret
from tests.people import NAMES, NOW, People, settle

PASSWORD = Secret("correct horse battery staple")
OTHER = Secret("another horse, another staple")
HERE = "192.0.2.7"


def hash_of_password() -> str:
    """Made once by each hasher: one of the real one takes a tenth of a second."""
    return _hash_by(passwords._HASHER)


@cache
def _hash_by(hasher: PasswordHasher) -> str:
    return hasher.hash(PASSWORD.reveal())


async def peopled(database: Database, *names: str) -> People:
    """Everybody, with the same password (or those that are named)."""
    folk = await settle(database)
    made = await asyncio.to_thread(hash_of_password)
    async with database.transaction() as tx:
        for name in names or NAMES:
            await access_store.change_hash(tx, folk[name].id, made, NOW)
            await access_store.mark_verified(tx, folk[name].id, NOW)
    return folk


async def enter(
    database: Database,
    name: str,
    password: Secret = PASSWORD,
    at: int = NOW,
    *,
    code: str | None = None,
    address: str | None = HERE,
    seal: Sealing | None = None,
) -> SignedIn:
    """Sign in."""
    email = name if "@" in name else f"{name}@example.org"
    return await sign_in.sign_in(database, email, password, code, at, address=address, agent="Firefox", seal=seal)


async def tried(
    database: Database, name: str, password: Secret = OTHER, at: int = NOW, *, address: str | None = HERE
) -> Refusal:
    """Sign in, and be refused."""
    try:
        await enter(database, name, password, at, address=address)
    except Refusal as refusal:
        return refusal
    raise AssertionError("came in")


async def logged(database: Database, deed: str) -> list[tuple[str | None, str, str, str]]:
    """Of the audit log: where, by whom, about whom, and the result; the oldest first."""
    a = schema.audit.c
    async with database.read() as tx:
        query = select(a.organization_id, a.actor_name, a.target_name, a.result).where(a.deed == deed).order_by(a.seq)
        return [tuple(row) for row in await tx.execute(query)]
