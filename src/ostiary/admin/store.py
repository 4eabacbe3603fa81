"""Answers by Idempotency-Key in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, select, update

from ostiary.clock import DAY_MS
from ostiary.db import schema
from ostiary.db.database import Database, Transaction, insert_new

KEPT_MS: Final = DAY_MS
"""For how long a repeated write is answered with what was answered first."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a write calls itself: by whom, under which key, and the digest of all that was asked."""

    organization_id: str
    actor_id: str
    key: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was given, without the secrets in it."""

    digest: bytes
    status: int
    answer: Any


async def claim(tx: Transaction, one: Claim, at: int) -> bool:
    """Take the key for this transaction; False when it was used. Two at once: the second waits for the first.

    One that was used is not forgotten before the transaction ends.
    """
    i = schema.idempotency.c
    await tx.execute(delete(schema.idempotency).where(*_this(one), i.at <= at - KEPT_MS))
    row = {"organization_id": one.organization_id, "actor_id": one.actor_id, "key": one.key, "digest": one.digest}
    mine = insert_new(tx, schema.idempotency, {**row, "status": 0, "answer": None, "at": at})
    theirs = select(i.at).where(*_this(one)).with_for_update(read=True)
    while not (await tx.execute(mine)).rowcount:
        if (await tx.execute(theirs)).first() is not None:
            return False
    return True


async def get_answer(tx: Transaction, one: Claim) -> Kept:
    """What was answered under a key that was used."""
    i = schema.idempotency.c
    row = (await tx.execute(select(i.digest, i.status, i.answer).where(*_this(one)))).one()
    return Kept(*row)


async def keep_answer(tx: Transaction, one: Claim, status: int, answer: object) -> None:
    """Write the answer beside the claim, in the transaction of the deed."""
    await tx.execute(update(schema.idempotency).where(*_this(one)).values(status=status, answer=answer))


async def prune(database: Database, at: int) -> None:
    """Forget what is older than a day."""
    async with database.transaction() as tx:
        await tx.execute(delete(schema.idempotency).where(schema.idempotency.c.at <= at - KEPT_MS))


def _this(one: Claim) -> tuple[Any, ...]:
    i = schema.idempotency.c
    return (i.organization_id == one.organization_id, i.actor_id == one.actor_id, i.key == one.key)
