"""Who may sign in, in SQL: passwords, second factors, recovery codes and identities."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, exists, func, insert, or_, select, update

from ostiary.db import schema
from ostiary.db.database import Transaction, insert_new

# ---- passwords --------------------------------------------------------------------------------------------------


async def find_hash(tx: Transaction, user_id: str, *, lock: bool = False) -> str | None:
    """The hash of a user's password; None where there is none. `lock` keeps others from changing it meanwhile."""
    query = select(schema.users.c.password_hash).where(schema.users.c.id == user_id)
    found: str | None = (await tx.execute(query.with_for_update() if lock else query)).scalar()
    return found


async def change_hash(tx: Transaction, user_id: str, hash: str, at: int) -> None:  # noqa: A002 - what it is
    """Give a user another password."""
    values = {"password_hash": hash, "password_changed_at": at}
    await tx.execute(update(schema.users).where(schema.users.c.id == user_id).values(**values))


async def remove_hash(tx: Transaction, user_id: str) -> bool:
    """Let nobody in by a password any more; False where there was none."""
    u = schema.users.c
    this = (u.id == user_id, u.password_hash.is_not(None))
    values = {"password_hash": None, "password_changed_at": None}
    return bool((await tx.execute(update(schema.users).where(*this).values(**values))).rowcount)


async def mark_verified(tx: Transaction, user_id: str, at: int) -> bool:
    """The address of a user is known to be theirs; False where it was before."""
    u = schema.users.c
    this = (u.id == user_id, u.email_verified_at.is_(None))
    return bool((await tx.execute(update(schema.users).where(*this).values(email_verified_at=at))).rowcount)


async def is_unverified(tx: Transaction, user_id: str) -> bool:
    """Whether somebody signs in by a password whose address was never known to be theirs."""
    u = schema.users.c
    query = select(exists().where(u.id == user_id, u.password_hash.is_not(None), u.email_verified_at.is_(None)))
    return bool(await tx.scalar(query))


async def replace_hash(tx: Transaction, user_id: str, old: str, hash: str) -> None:  # noqa: A002 - what it is
    """The same password with today's parameters, unless it was changed meanwhile."""
    u = schema.users.c
    this = (u.id == user_id, u.password_hash == old)
    await tx.execute(update(schema.users).where(*this).values(password_hash=hash))


async def may_anybody_sign_in(tx: Transaction) -> bool:
    """Whether there is a password or an identity."""
    has_password = exists(select(schema.users.c.id).where(schema.users.c.password_hash.is_not(None)))
    query = select(or_(has_password, exists(select(schema.identities.c.user_id))))
    return bool((await tx.execute(query)).scalar_one())


async def list_ways(tx: Transaction) -> dict[str, tuple[int | None, bool]]:
    """By user: when the password was set (None: there is none), and whether a second factor is asked for."""
    u, f = schema.users.c, schema.second_factors.c
    query = select(u.id, u.password_hash.is_not(None), u.password_changed_at, f.confirmed_at.is_not(None))
    rows = await tx.execute(query.outerjoin(schema.second_factors, f.user_id == u.id))
    return {
        id_: (changed_at if has_password else None, bool(has_factor))
        for id_, has_password, changed_at, has_factor in rows
    }


# ---- second factors ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Factor:
    """A user's TOTP secret as it is stored; asked for once it is confirmed."""

    user_id: str
    sealed: str = field(repr=False)
    sealed_version: int
    created_at: int
    confirmed_at: int | None
    last_step: int | None


async def find_factor(tx: Transaction, user_id: str, *, lock: bool = False) -> Factor | None:
    """Confirmed or not."""
    query = select(schema.second_factors).where(schema.second_factors.c.user_id == user_id)
    row = (await tx.execute(query.with_for_update() if lock else query)).first()
    return Factor(*row) if row else None


async def put_factor(tx: Transaction, factor: Factor) -> bool:
    """Keep a new one in the place of one that was never confirmed; False when there is one that was."""
    f = schema.second_factors.c
    await tx.execute(delete(schema.second_factors).where(f.user_id == factor.user_id, f.confirmed_at.is_(None)))
    values = {name: getattr(factor, name) for name in Factor.__slots__}
    return bool((await tx.execute(insert_new(tx, schema.second_factors, values))).rowcount)


async def mark_confirmed(tx: Transaction, user_id: str, at: int) -> None:
    """From now on it is asked for."""
    where = schema.second_factors.c.user_id == user_id
    await tx.execute(update(schema.second_factors).where(where).values(confirmed_at=at))


async def claim_step(tx: Transaction, user_id: str, step: int) -> bool:
    """Take the code of a step; False when it, or a later one, was taken already: of two at once one wins."""
    f = schema.second_factors.c
    fresh = or_(f.last_step.is_(None), f.last_step < step)
    done = await tx.execute(update(schema.second_factors).where(f.user_id == user_id, fresh).values(last_step=step))
    return bool(done.rowcount)


async def remove_factor(tx: Transaction, user_id: str) -> None:
    """Forget it, and the recovery codes with it."""
    await tx.execute(delete(schema.second_factors).where(schema.second_factors.c.user_id == user_id))
    await tx.execute(delete(schema.recovery_codes).where(schema.recovery_codes.c.user_id == user_id))


async def put_recovery_codes(tx: Transaction, user_id: str, digests: Collection[bytes]) -> None:
    """Keep these in the place of those there were."""
    await tx.execute(delete(schema.recovery_codes).where(schema.recovery_codes.c.user_id == user_id))
    rows: list[dict[str, Any]] = [{"user_id": user_id, "digest": one, "used_at": None} for one in digests]
    await tx.execute(insert(schema.recovery_codes), rows)


async def claim_recovery_code(tx: Transaction, user_id: str, digest: bytes, at: int) -> bool:
    """Take one; False when there is no such code, or it was taken."""
    r = schema.recovery_codes.c
    this = (r.user_id == user_id, r.digest == digest, r.used_at.is_(None))
    return bool((await tx.execute(update(schema.recovery_codes).where(*this).values(used_at=at))).rowcount)


async def count_recovery_codes(tx: Transaction, user_id: str) -> int:
    """How many are left."""
    r = schema.recovery_codes.c
    query = select(func.count()).select_from(schema.recovery_codes).where(r.user_id == user_id, r.used_at.is_(None))
    return int((await tx.execute(query)).scalar_one())


# ---- identities -------------------------------------------------------------------------------------------------


async def find_user_id(tx: Transaction, issuer: str, subject: str) -> str | None:
    """Whose identity this is."""
    i = schema.identities.c
    query = select(i.user_id).where(i.issuer == issuer, i.subject == subject)
    found: str | None = (await tx.execute(query)).scalar()
    return found


async def has_identity(tx: Transaction, user_id: str) -> bool:
    """Whether somebody signs in elsewhere as this user."""
    i = schema.identities.c
    return bool(await tx.scalar(select(exists().where(i.user_id == user_id))))


async def add_identity(tx: Transaction, issuer: str, subject: str, user_id: str, at: int) -> bool:
    """Keep it; False when it is somebody's already."""
    values = {"issuer": issuer, "subject": subject, "user_id": user_id, "created_at": at}
    return bool((await tx.execute(insert_new(tx, schema.identities, values))).rowcount)
