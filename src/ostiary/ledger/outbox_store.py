"""The outbox in SQL: what was alerted, what was told, whom it is on its way to, and what there is to tell of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Table, and_, delete, insert, or_, select, tuple_, update

from ostiary.db import schema
from ostiary.db.database import Transaction, insert_new
from ostiary.limits.budgets import TOTAL, AccountKey, Budget
from ostiary.limits.store import read_budget

T = TypeVar("T")

_TOLD_BY_MAIL: Final = ("owner", "admin")
_AT_ONCE: Final = 500
"""Ids in one statement."""


class Alert(NamedTuple):
    """One row of what somebody was told of already; sorted, so that two writers never wait for each other."""

    scope: str
    id: str
    period_id: str
    threshold: int


class Subject(NamedTuple):
    """Who spends, what expires, what was accepted: its owner is told, too. A key spends the budget of its parent."""

    id: str
    organization_id: str
    name: str
    owner_id: str | None = None
    parent_id: str | None = None


class Expiring(NamedTuple):
    """An agent key that ends soon."""

    id: str
    expires_at: int
    created_at: int


@dataclass(frozen=True, slots=True)
class Notification:
    """What happened, in facts: names ending in `_nano` are nano-dollars, in `_at` milliseconds since the epoch."""

    id: str
    organization_id: str
    kind: str
    subject_kind: str
    subject_id: str
    subject_name: str
    facts: dict[str, Any]
    created_at: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notification on its way to one address: over when `next_at` is None, and then done or given up."""

    id: str
    notification_id: str
    organization_id: str
    channel: str
    address: str
    attempts: int = 0
    next_at: int | None = None
    done_at: int | None = None
    error: str | None = field(default=None)


# ---- what was alerted -------------------------------------------------------------------------------------------


async def list_alerts(tx: Transaction, accounts: Collection[AccountKey]) -> set[Alert]:
    """What was told of these accounts already."""
    a = schema.alerts.c
    found: set[Alert] = set()
    for those in _among(schema.alerts, accounts):
        query = select(a.scope, a.id, a.period_id, a.threshold).where(those)
        found |= {Alert(*row) for row in await tx.execute(query)}
    return {alert for alert in found if AccountKey(*alert[:3]) in accounts}


async def add_alert(tx: Transaction, alert: Alert, at: int) -> bool:
    """Whether this is the first of its kind: then it is the caller who tells."""
    done = await tx.execute(insert_new(tx, schema.alerts, {**alert._asdict(), "at": at}))
    return bool(done.rowcount)


async def remove_alerts(tx: Transaction, alerts: Collection[Alert]) -> None:
    """Let them be told of again."""
    a = schema.alerts.c
    for alert in sorted(alerts):
        this = (getattr(a, name) == value for name, value in alert._asdict().items())
        await tx.execute(delete(schema.alerts).where(*this))


# ---- what there is to tell of -----------------------------------------------------------------------------------


async def list_budgets(tx: Transaction, accounts: Collection[AccountKey]) -> dict[tuple[str, str], Budget]:
    """The budgets of the keys and organizations these accounts are of, by scope and id."""
    b = schema.budgets.c
    query = select(b.scope, b.id, b.kind, b.cap_nano, b.soft_nano, b.thresholds)
    found: dict[tuple[str, str], Budget] = {}
    for those in _among(schema.budgets, accounts):
        for row in await tx.execute(query.where(those)):
            budget = read_budget(*row[2:])
            if budget is not None:
                found[row.scope, row.id] = budget
    return found


async def list_spent(tx: Transaction, accounts: Collection[AccountKey]) -> dict[AccountKey, int]:
    """What stands in these accounts as spent."""
    a = schema.accounts.c
    found: dict[AccountKey, int] = {}
    for those in _among(schema.accounts, accounts):
        query = select(a.scope, a.id, a.period_id, a.spent_nano).where(those)
        found |= {AccountKey(*row[:3]): row[3] for row in await tx.execute(query)}
    return {account: spent for account, spent in found.items() if account in accounts}


async def find_subject(tx: Transaction, scope: str, id: str) -> Subject | None:
    """The agent key, organization or provider key, None when it is gone."""
    k, o, p = schema.agent_keys.c, schema.organizations.c, schema.provider_keys.c
    match scope:
        case "agent_key":
            query = select(k.id, k.organization_id, k.name, k.owner_id, k.parent_id).where(k.id == id)
        case "organization":
            query = select(o.id, o.id.label("organization_id"), o.name).where(o.id == id)
        case "provider_key":
            query = select(p.id, p.organization_id, p.name).where(p.id == id)
        case _:
            return None
    row = (await tx.execute(query)).first()
    return Subject(*row) if row else None


async def list_expiring(tx: Transaction, since_at: int, until_at: int) -> list[Expiring]:
    """Active agent keys that end within that time, the ephemeral left out."""
    k = schema.agent_keys.c
    query = select(k.id, k.expires_at, k.created_at).where(
        k.status == "active", k.is_ephemeral.is_(False), k.expires_at > since_at, k.expires_at <= until_at
    )
    return [Expiring(*row) for row in await tx.execute(query.order_by(k.id))]


# ---- whom it concerns -------------------------------------------------------------------------------------------


async def list_recipients(tx: Transaction, organization_id: str, owner_id: str | None) -> list[str]:
    """The addresses of owners and admins, and of the key's owner while a member."""
    m, u = schema.members.c, schema.users.c
    query = (
        select(u.email)
        .join(schema.members, m.user_id == u.id)
        .where(m.organization_id == organization_id, or_(m.role.in_(_TOLD_BY_MAIL), m.user_id == (owner_id or "")))
        .distinct()
    )
    return sorted((await tx.execute(query)).scalars())


async def add_notification(tx: Transaction, notification: Notification, deliveries: Sequence[Delivery]) -> None:
    """Keep what happened, and whom to tell."""
    await tx.execute(insert(schema.notifications).values(**_fields(notification)))
    if deliveries:
        await tx.execute(insert(schema.deliveries), [_fields(delivery) for delivery in deliveries])


# ---- the way out ------------------------------------------------------------------------------------------------


async def list_due(
    tx: Transaction, at: int, channels: Collection[str], forsaken_at: int, busy: Collection[str], limit: int
) -> list[Delivery]:
    """What is to be tried now by these channels but for busy addresses, and what nobody took since `forsaken_at`."""
    d = schema.deliveries.c
    query = (
        select(schema.deliveries)
        .where(d.next_at <= at, or_(d.channel.in_(channels), d.next_at <= forsaken_at), d.address.not_in(busy))
        .order_by(d.next_at, d.id)
        .limit(limit)
    )
    return [Delivery(**row) for row in (await tx.execute(query)).mappings()]


async def claim_delivery(tx: Transaction, delivery: Delivery, until_at: int) -> bool:
    """Take the next attempt for ourselves until then; False when another gateway was first."""
    d = schema.deliveries.c
    taken = await tx.execute(
        update(schema.deliveries)
        .where(_is_same(delivery), d.next_at == delivery.next_at)
        .values(attempts=d.attempts + 1, next_at=until_at)
    )
    return bool(taken.rowcount)


async def mark_delivery(
    tx: Transaction, delivery: Delivery, *, next_at: int | None, done_at: int | None, error: str | None
) -> None:
    """What came of an attempt, unless it took so long that another has begun."""
    await tx.execute(
        update(schema.deliveries)
        .where(_is_same(delivery), schema.deliveries.c.done_at.is_(None))
        .values(next_at=next_at, done_at=done_at, error=error)
    )


def _is_same(delivery: Delivery) -> ColumnElement[bool]:
    d = schema.deliveries.c
    return and_(d.id == delivery.id, d.attempts == delivery.attempts)


# ---- what people look at ----------------------------------------------------------------------------------------


async def find_notification(tx: Transaction, id: str) -> Notification | None:
    """Anybody's, for who delivers it."""
    row = (await tx.execute(select(schema.notifications).where(schema.notifications.c.id == id))).mappings().first()
    return Notification(**row) if row else None


async def list_notifications(
    tx: Transaction,
    organization_id: str,
    *,
    kind: str | None,
    owner_id: str | None,
    after: tuple[int, str] | None,
    limit: int,
) -> list[Notification]:
    """The newest first, behind `after` (time and id); with an owner, those of their agent keys."""
    n, k = schema.notifications.c, schema.agent_keys.c
    query = select(schema.notifications).where(n.organization_id == organization_id)
    if kind is not None:
        query = query.where(n.kind == kind)
    if owner_id is not None:
        own = select(k.id).where(k.organization_id == organization_id, k.owner_id == owner_id)
        query = query.where(n.subject_kind == "agent_key", n.subject_id.in_(own))
    if after is not None:
        query = query.where(tuple_(n.created_at, n.id) < after)
    query = query.order_by(n.created_at.desc(), n.id.desc()).limit(limit)
    return [Notification(**row) for row in (await tx.execute(query)).mappings()]


async def list_deliveries(tx: Transaction, notification_ids: Collection[str]) -> list[Delivery]:
    """Whom these notifications went to, in the order of their addresses."""
    d = schema.deliveries.c
    found: list[Delivery] = []
    for some in _portions(sorted(notification_ids)):
        query = select(schema.deliveries).where(d.notification_id.in_(some)).order_by(d.channel, d.address, d.id)
        found += [Delivery(**row) for row in (await tx.execute(query)).mappings()]
    return found


async def remove_old(tx: Transaction, before_at: int, limit: int) -> int:
    """Forget so many notifications from before that time, with their deliveries; the answer is how many went."""
    n, d = schema.notifications.c, schema.deliveries.c
    query = select(n.id).where(n.created_at < before_at).order_by(n.created_at).limit(limit)
    ids = list((await tx.execute(query)).scalars())
    await tx.execute(delete(schema.deliveries).where(d.notification_id.in_(ids)))
    await tx.execute(delete(schema.notifications).where(n.id.in_(ids)))
    return len(ids)


async def remove_old_alerts(tx: Transaction, before_at: int) -> None:
    """Forget what was alerted before that time; what belongs to no period stays, lest it be told of again."""
    a = schema.alerts.c
    await tx.execute(delete(schema.alerts).where(a.at < before_at, a.period_id != TOTAL))


def _among(table: Table, accounts: Collection[AccountKey]) -> list[ColumnElement[bool]]:
    """The rows of their scopes and ids, in portions; written so that an index which begins with the scope is used."""
    c = table.c
    clauses: list[ColumnElement[bool]] = []
    for some in _portions(sorted({(account.scope, account.id) for account in accounts})):
        ids: defaultdict[str, list[str]] = defaultdict(list)
        for scope, id in some:
            ids[scope].append(id)
        clauses.append(or_(*(and_(c.scope == scope, c.id.in_(those)) for scope, those in ids.items())))
    return clauses


def _portions(of: list[T]) -> list[list[T]]:
    return [of[start : start + _AT_ONCE] for start in range(0, len(of), _AT_ONCE)]


def _fields(record: Notification | Delivery) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}
