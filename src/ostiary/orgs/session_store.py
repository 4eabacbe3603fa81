"""Sessions and failures to sign in, in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, insert, or_, select, update

from ostiary.db import schema
from ostiary.db.database import Transaction, insert_or_lock

# ---- sessions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session without its token, of which only the digest is kept."""

    id: str
    user_id: str
    organization_id: str | None
    created_at: int
    seen_at: int
    proved_at: int
    address: str | None
    agent: str | None


def _sessions() -> Select[Any]:
    return select(*(schema.sessions.c[name] for name in SessionRow.__slots__))


async def add_session(tx: Transaction, row: SessionRow, digest: bytes) -> None:
    """Keep a new one."""
    values = {name: getattr(row, name) for name in SessionRow.__slots__}
    await tx.execute(insert(schema.sessions).values(**values, digest=digest))


async def find_session(tx: Transaction, digest: bytes) -> SessionRow | None:
    """By the digest of its token."""
    row = (await tx.execute(_sessions().where(schema.sessions.c.digest == digest))).first()
    return SessionRow(*row) if row else None


async def find_session_by_id(tx: Transaction, id: str) -> SessionRow | None:
    """By what it is called in lists."""
    row = (await tx.execute(_sessions().where(schema.sessions.c.id == id))).first()
    return SessionRow(*row) if row else None


async def list_sessions(tx: Transaction, user_id: str) -> list[SessionRow]:
    """Of a user, the last seen first."""
    s = schema.sessions.c
    rows = await tx.execute(_sessions().where(s.user_id == user_id).order_by(s.seen_at.desc(), s.id))
    return [SessionRow(*row) for row in rows]


async def change_session(tx: Transaction, id: str, /, **values: object) -> bool:
    """Write the given columns; False when it has ended."""
    done = await tx.execute(update(schema.sessions).where(schema.sessions.c.id == id).values(**values))
    return bool(done.rowcount)


async def remove_sessions(tx: Transaction, ids: Sequence[str]) -> int:
    """End these; the answer is how many there still were."""
    done = await tx.execute(delete(schema.sessions).where(schema.sessions.c.id.in_(ids)))
    return int(done.rowcount)


async def remove_expired(tx: Transaction, *, seen_before: int, made_before: int, limit: int) -> int:
    """Forget what has run out, so many at once."""
    s = schema.sessions.c
    old = select(s.id).where(or_(s.seen_at < seen_before, s.created_at < made_before)).limit(limit)
    return int((await tx.execute(delete(schema.sessions).where(s.id.in_(old)))).rowcount)


# ---- failures ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failures:
    """How often signing in as somebody, or from somewhere, has failed of late; until when it is not tried at all."""

    subject: str
    failures: int
    last_at: int
    until: int


async def lock_failures(tx: Transaction, subjects: Sequence[str], at: int) -> list[Failures]:
    """The rows of these, made where there is none, in one order, so that no two transactions wait for each other."""
    f = schema.sign_in_failures.c
    for subject in sorted(subjects):
        values = {"subject": subject, "failures": 0, "last_at": at, "until": 0}
        # Whoever comes in removes their row: one that was merely left alone may be gone when it is read.
        await tx.execute(insert_or_lock(tx, schema.sign_in_failures, values, "subject"))
    query = select(schema.sign_in_failures).where(f.subject.in_(subjects)).order_by(f.subject).with_for_update()
    return [Failures(*row) for row in await tx.execute(query)]


async def change_failures(tx: Transaction, row: Failures) -> None:
    """Write what is known now of a row that is locked."""
    f = schema.sign_in_failures.c
    values = {"failures": row.failures, "last_at": row.last_at, "until": row.until}
    await tx.execute(update(schema.sign_in_failures).where(f.subject == row.subject).values(**values))


async def remove_failures(tx: Transaction, subject: str) -> None:
    """Begin anew."""
    await tx.execute(delete(schema.sign_in_failures).where(schema.sign_in_failures.c.subject == subject))


async def remove_old_failures(tx: Transaction, before: int, limit: int) -> int:
    """Forget what was last tried before then, so many at once."""
    f = schema.sign_in_failures.c
    old = select(f.subject).where(f.last_at < before, f.until < before).limit(limit)
    return int((await tx.execute(delete(schema.sign_in_failures).where(f.subject.in_(old)))).rowcount)
