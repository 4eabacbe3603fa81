"""What somebody should look at, in SQL: keys that end, budgets that fill, provider keys that are ill, who spends."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Numeric,
    Select,
    Table,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    type_coerce,
)

from ostiary.clock import date_of, month_of
from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.limits.budgets import TOTAL, Budget

_KEY: Final = "agent_key"
_PROVIDER_KEY: Final = "provider_key"
_ALL: Final = 100
_FINE: Final = 1_000_000
"""Fullness is told apart to a millionth."""
_HEALTHY: Final = "healthy"
_PASSING: Final = ("cooling", "exhausted")
_USUAL: Final = Budget("month", None).last_threshold
"""Of budgets that say no thresholds."""


class Ending(NamedTuple):
    """An agent key that ends soon."""

    id: str
    name: str
    expires_at: int


class Filling(NamedTuple):
    """A budget that is used up so far; `kind` is agent_key or provider_key. `soft_nano` is beside the cap, if any."""

    kind: str
    id: str
    name: str
    spent_nano: int
    cap_nano: int
    soft_nano: int | None = None


class Ill(NamedTuple):
    """A provider key that cannot be counted on."""

    id: str
    name: str
    state: str
    reason: str
    until: int | None


class Spender(NamedTuple):
    """An agent key and what it has spent this month, its children's spend in it."""

    id: str
    name: str
    spent_nano: int


class Beginning(NamedTuple):
    """How far somebody has come."""

    has_provider_key: bool
    has_agent_key: bool
    has_call: bool


def _of(organization_id: str, owner_id: str | None) -> list[ColumnElement[bool]]:
    k = schema.agent_keys.c
    return [k.organization_id == organization_id, *([k.owner_id == owner_id] if owner_id is not None else [])]


async def list_ending(
    tx: Transaction, organization_id: str, owner_id: str | None, at: int, until_at: int, limit: int
) -> list[Ending]:
    """Keys that let callers in now and will not at `until_at`, the next first; those of an owner, or all.

    Ephemeral keys are left out: to end soon is what they are for.
    """
    k = schema.agent_keys.c
    query = select(k.id, k.name, k.expires_at).where(*_of(organization_id, owner_id))
    query = query.where(k.status == "active", k.is_ephemeral.is_(False), k.expires_at > at, k.expires_at <= until_at)
    return [Ending(*row) for row in await tx.execute(query.order_by(k.expires_at, k.id).limit(limit))]


async def list_filling(
    tx: Transaction, organization_id: str, owner_id: str | None, at: int, limit: int
) -> list[Filling]:
    """Budgets beyond the last of their own thresholds or their soft limit, the fullest first; with an owner, theirs."""
    k, p = schema.agent_keys, schema.provider_keys
    parts = [_filling(tx, _KEY, k, at).where(*_of(organization_id, owner_id), k.c.status == "active")]
    if owner_id is None:
        parts.append(_filling(tx, _PROVIDER_KEY, p, at).where(p.c.organization_id == organization_id))
    found: list[Filling] = []
    for query in parts:
        found += [Filling(*row) for row in await tx.execute(query.limit(limit))]
    return sorted(found, key=lambda one: (-Fraction(one.spent_nano, one.cap_nano), one.id))[:limit]


def _filling(tx: Transaction, kind: str, table: Table, at: int) -> Select[Any]:
    a, b = schema.accounts.c, schema.budgets.c
    period = case((b.kind == "day", date_of(at)), (b.kind == "month", month_of(at)), else_=TOTAL)
    cap = func.coalesce(b.cap_nano, b.soft_nano)
    soft = case((b.cap_nano.is_not(None), b.soft_nano))
    is_its = and_(b.scope == kind, b.id == table.c.id)
    is_running = and_(a.scope == kind, a.id == table.c.id, a.period_id == period)
    joined = table.join(schema.budgets, is_its).join(schema.accounts, is_running)
    query = select(literal(kind), table.c.id, table.c.name, a.spent_nano, cap, soft).select_from(joined)
    is_full = or_(a.spent_nano >= _share(cap, _last_threshold(tx)), a.spent_nano >= soft)
    # PostgreSQL multiplies in `numeric`, and SQLite goes on where its integers end.
    fullest = (type_coerce(cast(a.spent_nano, Numeric) * _FINE, BigInteger) // cap).desc()
    return query.where(cap > 0, a.spent_nano > 0, is_full).order_by(fullest, table.c.id)


def _share(cap: ColumnElement[int], percent: ColumnElement[int]) -> ColumnElement[int]:
    """So many percent of a cap, rounded up. A cap may be near the largest integer there is: it is divided first."""
    return cap // _ALL * percent + (cap % _ALL * percent + _ALL - 1) // _ALL


def _last_threshold(tx: Transaction) -> ColumnElement[int]:
    """`Budget.last_threshold`, said in SQL."""
    b = schema.budgets.c
    percent: ColumnElement[int]
    if tx.dialect.name == "sqlite":
        percent = func.json_each(b.thresholds).table_valued("value").c.value
    else:
        percent = cast(func.json_array_elements_text(b.thresholds).table_valued("value").c.value, Integer)
    last = select(func.max(percent)).where(percent < _ALL).scalar_subquery()
    return case((b.thresholds.is_(None), _USUAL), else_=func.coalesce(last, _ALL))


async def count_health(tx: Transaction, organization_id: str, at: int) -> dict[str, int]:
    """How many provider keys of the organization are in which state."""
    states = _states(organization_id, at).subquery()
    query = select(states.c.state, func.count()).group_by(states.c.state).order_by(states.c.state)
    return {row[0]: int(row[1]) for row in await tx.execute(query)}


async def list_ill(tx: Transaction, organization_id: str, at: int, limit: int) -> list[Ill]:
    """Those that are not healthy and not degraded only, by name."""
    states = _states(organization_id, at).subquery()
    query = select(states).where(states.c.state.not_in((_HEALTHY, "degraded"))).order_by(states.c.name, states.c.id)
    return [Ill(*row) for row in await tx.execute(query.limit(limit))]


def _states(organization_id: str, at: int) -> Select[Any]:
    """A key's own word goes first; what was found out counts until its time is over."""
    p, h = schema.provider_keys.c, schema.provider_key_health.c
    is_over = and_(h.state.in_(_PASSING), h.until.is_not(None), h.until <= at)
    is_its = and_(h.provider_key_id == p.id, h.model == "", ~is_over)
    state = case((p.status != _HEALTHY, p.status), else_=func.coalesce(h.state, _HEALTHY)).label("state")
    joined = schema.provider_keys.outerjoin(schema.provider_key_health, is_its)
    query = select(p.id, p.name, state, func.coalesce(h.reason, "").label("reason"), h.until).select_from(joined)
    return query.where(p.organization_id == organization_id)


async def count_undelivered(tx: Transaction, organization_id: str, since_at: int) -> int:
    """Deliveries of the notifications since then that were given up."""
    n, d = schema.notifications.c, schema.deliveries.c
    joined = schema.notifications.join(schema.deliveries, d.notification_id == n.id)
    query = select(func.count()).select_from(joined).where(n.organization_id == organization_id)
    query = query.where(n.created_at >= since_at, d.done_at.is_(None), d.next_at.is_(None))
    return int((await tx.execute(query)).scalar_one())


async def list_spenders(
    tx: Transaction, organization_id: str, owner_id: str | None, at: int, limit: int
) -> list[Spender]:
    """Agent keys by what they have spent this month, the dearest first; those of an owner, or all."""
    k, a = schema.agent_keys.c, schema.accounts.c
    is_its = and_(a.scope == _KEY, a.id == k.id, a.period_id == month_of(at))
    query = select(k.id, k.name, a.spent_nano).select_from(schema.agent_keys.join(schema.accounts, is_its))
    query = query.where(*_of(organization_id, owner_id), k.parent_id.is_(None), a.spent_nano > 0)
    return [Spender(*row) for row in await tx.execute(query.order_by(a.spent_nano.desc(), k.id).limit(limit))]


async def find_spent(tx: Transaction, organization_id: str, period_id: str) -> int:
    """Nano-dollars that an organization has spent in a period, from the authority over money."""
    a = schema.accounts.c
    query = select(a.spent_nano).where(a.scope == "organization", a.id == organization_id, a.period_id == period_id)
    return int((await tx.execute(query)).scalar() or 0)


async def find_beginning(tx: Transaction, organization_id: str, owner_id: str | None) -> Beginning:
    """Whether there is a provider key to use, an agent key, and a call; with an owner, of theirs."""
    p, k, s, d = schema.provider_keys.c, schema.agent_keys.c, schema.usage_sums.c, schema.usage_days.c
    provider_key = select(p.id).where(or_(p.organization_id == organization_id, p.shared.is_(True)))
    agent_key = select(k.id).where(*_of(organization_id, owner_id))
    calls: list[Select[Any]] = [select(s.id).where(s.organization_id == organization_id, s.kind == "all")]
    if owner_id is not None:  # children are forgotten, and what they called stays their parents'
        own = select(d.agent_key_id).where(d.organization_id + "" == organization_id)
        calls = [own.where(whose.in_(agent_key)) for whose in (d.agent_key_id, d.parent_key_id)]

    async def is_any(*queries: Select[Any]) -> bool:
        return any([(await tx.execute(one.limit(1))).first() is not None for one in queries])

    return Beginning(await is_any(provider_key), await is_any(agent_key), await is_any(*calls))
