"""Organizations, users and members in SQL."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Select, exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.names import sought_name

# ---- organizations ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant. Usage and spend are attributed to its `client_id`, which is no secret.

    Its limits count beside those of its keys; `trace_days` and `content_days` of None keep things for ever.
    """

    id: str
    client_id: str
    name: str
    created_at: int
    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    revocation_is_final: bool = False
    max_lifetime_ms: int | None = None
    allow_unpriced: bool = False
    trace_days: int | None = None
    content_days: int | None = None


async def find_organization(tx: Transaction, sought: str) -> Organization | None:
    """By id, client id or name, in this order."""
    name = sought_name(sought)
    if name is None:
        return None
    o = schema.organizations.c
    query = select(schema.organizations).where(or_(o.id == name, o.client_id == name, o.name == name))
    row = (await tx.execute(query.order_by(o.id != name, o.client_id != name).limit(1))).first()
    return Organization(*row) if row else None


async def list_organizations(tx: Transaction) -> list[Organization]:
    """All, oldest first."""
    o = schema.organizations.c
    rows = await tx.execute(select(schema.organizations).order_by(o.created_at, o.id))
    return [Organization(*row) for row in rows]


async def has_organizations(tx: Transaction) -> bool:
    """Whether there is any."""
    return bool((await tx.execute(select(exists(select(schema.organizations))))).scalar_one())


async def add_organization(tx: Transaction, organization: Organization) -> None:
    """Keep a new one; refuses with `conflict` when its name is taken."""
    row = {field.name: getattr(organization, field.name) for field in fields(organization)}
    try:
        await tx.execute(insert(schema.organizations).values(**row))
    except IntegrityError:
        message = f"There is an organization named {organization.name!r} already."
        raise Refusal("conflict", message, param="name") from None


# ---- users ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class User:
    """A person, known by e-mail address; what they may do is said by their memberships."""

    id: str
    email: str
    name: str
    is_operator: bool
    created_at: int


async def find_user(tx: Transaction, email: str) -> User | None:
    """By e-mail address, as `names.checked_email` writes it."""
    row = (await tx.execute(select(schema.users).where(schema.users.c.email == email))).first()
    return User(*row) if row else None


async def add_user(tx: Transaction, user: User) -> None:
    """Keep a new one; refuses with `conflict` when the address is known."""
    row = {field.name: getattr(user, field.name) for field in fields(user)}
    try:
        await tx.execute(insert(schema.users).values(**row))
    except IntegrityError:
        raise Refusal("conflict", f"There is a user with the address {user.email} already.", param="email") from None


# ---- members ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """A user in an organization."""

    organization_id: str
    user_id: str
    email: str
    name: str
    role: str
    created_at: int


def _members(organization_id: str) -> Select[Any]:
    m, u = schema.members.c, schema.users.c
    return (
        select(m.organization_id, m.user_id, u.email, u.name, m.role, m.created_at)
        .join(schema.users, u.id == m.user_id)
        .where(m.organization_id == organization_id)
        .order_by(m.created_at, m.user_id)
    )


async def list_members(tx: Transaction, organization_id: str, *, lock: bool = False) -> list[Member]:
    """All of the organization, oldest first; `lock` keeps others from changing them meanwhile."""
    query = _members(organization_id)
    rows = await tx.execute(query.with_for_update(of=schema.members) if lock else query)
    return [Member(*row) for row in rows]


async def add_member(tx: Transaction, member: Member) -> None:
    """Keep a new one; refuses with `conflict` when the user is one already."""
    values = {
        "organization_id": member.organization_id,
        "user_id": member.user_id,
        "role": member.role,
        "created_at": member.created_at,
    }
    try:
        await tx.execute(insert(schema.members).values(**values))
    except IntegrityError:
        raise Refusal("conflict", f"{member.email} is a member already.", param="email") from None


async def change_member(tx: Transaction, organization_id: str, user_id: str, role: str) -> None:
    """Give a member another role."""
    m = schema.members.c
    this = (m.organization_id == organization_id, m.user_id == user_id)
    await tx.execute(update(schema.members).where(*this).values(role=role))
