"""Tokens that work once, in SQL: links to set up and to reset a password, and invitations."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, exists, func, insert, select, update

from ostiary.db import schema
from ostiary.db.database import Transaction, insert_new

# ---- links ------------------------------------------------------------------------------------------------------


async def add_link(tx: Transaction, digest: bytes, kind: str, user_id: str | None, *, at: int, expires_at: int) -> None:
    """Keep a new one."""
    values = {"digest": digest, "kind": kind, "user_id": user_id, "created_at": at, "expires_at": expires_at}
    await tx.execute(insert(schema.links).values(**values))


async def spend_new(tx: Transaction, digest: bytes, kind: str, *, at: int, expires_at: int) -> bool:
    """Spend one that was never kept, and keep it as spent; False when it was spent before."""
    values = {"digest": digest, "kind": kind, "user_id": None, "created_at": at, "used_at": at}
    return bool((await tx.execute(insert_new(tx, schema.links, values | {"expires_at": expires_at}))).rowcount)


async def was_spent(tx: Transaction, digest: bytes, kind: str) -> bool:
    """Whether it was."""
    k = schema.links.c
    query = select(exists().where(k.digest == digest, k.kind == kind, k.used_at.is_not(None)))
    return bool(await tx.scalar(query))


async def has_link(tx: Transaction, digest: bytes, kind: str, at: int) -> tuple[bool, str | None]:
    """Whether such a link still works, and whose it is."""
    k = schema.links.c
    query = select(k.user_id).where(*_works(digest, kind, at))
    row = (await tx.execute(query)).first()
    return (row is not None, row[0] if row else None)


async def claim_link(tx: Transaction, digest: bytes, kind: str, at: int) -> bool:
    """Spend it: of two who try at once, one does."""
    done = await tx.execute(update(schema.links).where(*_works(digest, kind, at)).values(used_at=at))
    return bool(done.rowcount)


def _works(digest: bytes, kind: str, at: int) -> tuple[Any, ...]:
    k = schema.links.c
    return (k.digest == digest, k.kind == kind, k.used_at.is_(None), k.expires_at > at)


async def count_links(tx: Transaction, kind: str, user_id: str, since: int) -> int:
    """How many were made for a user since then."""
    k = schema.links.c
    this = (k.kind == kind, k.user_id == user_id, k.created_at > since)
    return int((await tx.execute(select(func.count()).select_from(schema.links).where(*this))).scalar_one())


async def spend_links(tx: Transaction, kind: str, user_id: str, at: int) -> None:
    """Let no link of this kind of a user work any more. They stay, to be counted."""
    k = schema.links.c
    this = (k.kind == kind, k.user_id == user_id, k.used_at.is_(None))
    await tx.execute(update(schema.links).where(*this).values(used_at=at))


async def remove_links(tx: Transaction, kind: str) -> None:
    """Forget every link of this kind."""
    await tx.execute(delete(schema.links).where(schema.links.c.kind == kind))


async def remove_old_links(tx: Transaction, before: int) -> None:
    """Forget what has not worked since then."""
    await tx.execute(delete(schema.links).where(schema.links.c.expires_at < before))


# ---- invitations ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Invitation:
    """Somebody who may become a member, once, until it expires, is revoked, or they do."""

    id: str
    organization_id: str
    email: str
    role: str
    invited_by: str
    invited_by_name: str
    created_at: int
    expires_at: int
    accepted_at: int | None = None
    revoked_at: int | None = None

    def is_open(self, at: int) -> bool:
        """Whether it can be accepted now."""
        return self.accepted_at is None and self.revoked_at is None and self.expires_at > at


def _invitations() -> Select[Any]:
    return select(*(schema.invitations.c[name] for name in Invitation.__slots__))


async def add_invitation(tx: Transaction, one: Invitation, digest: bytes) -> None:
    """Keep a new one."""
    values = {name: getattr(one, name) for name in Invitation.__slots__}
    await tx.execute(insert(schema.invitations).values(**values, digest=digest))


async def find_invitation(tx: Transaction, digest: bytes) -> Invitation | None:
    """By the digest of its token, whether or not it is open."""
    row = (await tx.execute(_invitations().where(schema.invitations.c.digest == digest))).first()
    return Invitation(*row) if row else None


async def find_invitation_by_id(tx: Transaction, organization_id: str, id: str) -> Invitation | None:
    """One of the organization's."""
    v = schema.invitations.c
    row = (await tx.execute(_invitations().where(v.organization_id == organization_id, v.id == id))).first()
    return Invitation(*row) if row else None


async def list_invitations(tx: Transaction, organization_id: str, since: int) -> list[Invitation]:
    """The organization's that were made since then, the newest first."""
    v = schema.invitations.c
    query = _invitations().where(v.organization_id == organization_id, v.created_at > since)
    return [Invitation(*row) for row in await tx.execute(query.order_by(v.created_at.desc(), v.id))]


async def claim_invitation(tx: Transaction, id: str, at: int) -> bool:
    """Accept it: of two who try at once, one does."""
    v = schema.invitations.c
    this = (v.id == id, v.accepted_at.is_(None), v.revoked_at.is_(None), v.expires_at > at)
    return bool((await tx.execute(update(schema.invitations).where(*this).values(accepted_at=at))).rowcount)


async def mark_revoked(tx: Transaction, ids: Collection[str], at: int) -> int:
    """Let these open no more; the answer is how many still did."""
    v = schema.invitations.c
    this = (v.id.in_(ids), v.accepted_at.is_(None), v.revoked_at.is_(None))
    return int((await tx.execute(update(schema.invitations).where(*this).values(revoked_at=at))).rowcount)


async def remove_old_invitations(tx: Transaction, before: int) -> None:
    """Forget what has expired before then."""
    await tx.execute(delete(schema.invitations).where(schema.invitations.c.expires_at < before))
