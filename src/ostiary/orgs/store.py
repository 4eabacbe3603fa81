"""Organizations, users and members in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from sqlalchemy import RowMapping, Select, and_, delete, exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget
from ostiary.limits.store import find_budget, read_budget
from ostiary.names import sought_name

# ---- organizations ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant. Usage and spend are attributed to its `client_id`, which is no secret.

    Its limits count beside those of its keys; `trace_days` and `content_days` of None keep things for ever.
    Where capture is forbidden nothing that is said is kept, whatever a key says; what was kept before stays its days.
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
    capture_is_forbidden: bool = False
    budget: Budget | None = None


SCOPE: Final = "organization"
"""The scope of an organization's budget and accounts."""
_BUDGET: Final = ("kind", "cap_nano", "soft_nano", "thresholds")


def _organizations() -> Select[Any]:
    o, b = schema.organizations.c, schema.budgets.c
    its_budget = and_(b.scope == SCOPE, b.id == o.id)
    budget = (b[name] for name in _BUDGET)
    return select(schema.organizations, *budget).outerjoin(schema.budgets, its_budget).order_by(o.created_at, o.id)


def _organization(row: RowMapping) -> Organization:
    values = dict(row)
    budget = read_budget(*(values.pop(name) for name in _BUDGET))
    return Organization(**values, budget=budget)


async def find_organization(tx: Transaction, sought: str, *, lock: bool = False) -> Organization | None:
    """By id, client id or name, in this order; `lock` keeps others from changing it meanwhile."""
    name = sought_name(sought)
    if name is None:
        return None
    o = schema.organizations.c
    query = _organizations().where(or_(o.id == name, o.client_id == name, o.name == name))
    if lock:
        query = query.with_for_update(of=schema.organizations)
    rows = (await tx.execute(query)).mappings().all()
    best = min(rows, key=lambda row: (row["id"] != name, row["client_id"] != name), default=None)
    if best is None:
        return None
    # Whoever had to wait for the lock has read the budget before the other one changed it.
    return (
        replace(_organization(best), budget=await find_budget(tx, SCOPE, best["id"])) if lock else _organization(best)
    )


async def list_organizations(tx: Transaction) -> list[Organization]:
    """All, oldest first."""
    return [_organization(row) for row in (await tx.execute(_organizations())).mappings()]


async def has_organizations(tx: Transaction) -> bool:
    """Whether there is any."""
    return bool((await tx.execute(select(exists(select(schema.organizations))))).scalar_one())


async def add_organization(tx: Transaction, organization: Organization) -> None:
    """Keep a new one, without its budget; refuses with `conflict` when its name is taken."""
    row = {field.name: getattr(organization, field.name) for field in fields(organization) if field.name != "budget"}
    try:
        await tx.execute(insert(schema.organizations).values(**row))
    except IntegrityError:
        raise _taken(organization.name) from None


async def change_organization(tx: Transaction, id: str, values: Mapping[str, object]) -> None:
    """Write the given fields; refuses with `conflict` when the new name is taken."""
    try:
        await tx.execute(update(schema.organizations).where(schema.organizations.c.id == id).values(**values))
    except IntegrityError:
        raise _taken(str(values.get("name"))) from None


def _taken(name: str) -> Refusal:
    return Refusal("conflict", f"There is an organization named {name!r} already.", param="name")


# ---- users ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class User:
    """A person, known by e-mail address; what they may do is said by their memberships."""

    id: str
    email: str
    name: str
    is_operator: bool
    created_at: int


def _users() -> Select[Any]:
    return select(*(schema.users.c[field.name] for field in fields(User)))


async def find_user(tx: Transaction, email: str) -> User | None:
    """By e-mail address, as `names.checked_email` writes it."""
    row = (await tx.execute(_users().where(schema.users.c.email == email))).first()
    return User(*row) if row else None


async def find_user_by_id(tx: Transaction, id: str, *, lock: bool = False) -> User | None:
    """By the id that keys and memberships name; `lock` keeps others from changing them meanwhile."""
    query = _users().where(schema.users.c.id == id)
    row = (await tx.execute(query.with_for_update() if lock else query)).first()
    return User(*row) if row else None


async def list_users(tx: Transaction) -> list[User]:
    """All of the instance, oldest first."""
    u = schema.users.c
    return [User(*row) for row in await tx.execute(_users().order_by(u.created_at, u.id))]


async def change_user(tx: Transaction, id: str, /, **values: object) -> None:
    """Write the given columns."""
    await tx.execute(update(schema.users).where(schema.users.c.id == id).values(**values))


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


async def find_role(tx: Transaction, organization_id: str, user_id: str, *, lock: bool = False) -> str | None:
    """What a user is in the organization; None when they do not belong to it.

    With `lock` they stay it until this transaction ends.
    """
    m = schema.members.c
    query = select(m.role).where(m.organization_id == organization_id, m.user_id == user_id)
    found: str | None = (await tx.execute(query.with_for_update(read=True) if lock else query)).scalar()
    return found


async def list_memberships(tx: Transaction, user_id: str) -> list[tuple[str, str]]:
    """The organizations a user belongs to, with the role in each, oldest first."""
    m = schema.members.c
    query = select(m.organization_id, m.role).where(m.user_id == user_id).order_by(m.created_at, m.organization_id)
    return [(organization_id, role) for organization_id, role in await tx.execute(query)]


async def list_homes(tx: Transaction, user_id: str) -> Sequence[tuple[str | None, str | None]]:
    """The same, and nothing in the place of it for who belongs nowhere: where what they do is written down."""
    return await list_memberships(tx, user_id) or [(None, None)]


async def remove_member(tx: Transaction, organization_id: str, user_id: str) -> None:
    """Let a user go; they stay known by what they did."""
    m = schema.members.c
    await tx.execute(delete(schema.members).where(m.organization_id == organization_id, m.user_id == user_id))
