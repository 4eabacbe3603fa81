"""Pages of agent keys in SQL: searched, filtered and sorted among however many there are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, FromClause, Select, and_, case, func, literal, or_, select

from ostiary.agents import credential, store
from ostiary.agents.records import AgentKey
from ostiary.clock import day_of
from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.ledger.series_store import Days, family_spans
from ostiary.limits.budgets import Budget

Sort = Literal["created_at", "name", "owner", "status", "requests"]
ShownStatus = Literal["active", "inactive", "expired", "revoked"]
After = tuple[str | int, str]
"""Behind which row a page begins: what it is sorted by, and its id."""

RECENT_DAYS: Final = 30
"""Requests are counted over so many days, today among them."""
_MONTHLY: Final = Budget("month", None)
"""What a key without a budget is counted by."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which keys, in which order. `search` looks into names and previews; a whole secret finds its key by preview."""

    search: str | None = None
    status: ShownStatus | None = None
    owner_id: str | None = None
    parent_id: str | None = None
    sort: Sort = "created_at"
    descending: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Keys in order; `after` is where the next page begins, None behind the last."""

    keys: tuple[AgentKey, ...]
    after: After | None


async def list_page(tx: Transaction, organization_id: str, wanted: Wanted, at: int, after: After | None = None) -> Page:
    """One page of the organization's keys."""
    k = schema.agent_keys.c
    parent = schema.agent_keys.alias("parent")
    status = _status(parent, at)
    source, value = await _sorted_by(tx, wanted.sort, organization_id, status, at)
    query = select(k.id, value.label("value")).select_from(source.outerjoin(parent, parent.c.id == k.parent_id))
    query = query.where(k.organization_id == organization_id, *_filters(wanted, status))
    if after is not None:
        query = query.where(_behind(value, k.id, after, descending=wanted.descending))
    rows = (await tx.execute(_ordered(query, value, wanted).limit(wanted.limit + 1))).all()
    shown = rows[: wanted.limit]
    keys = {key.id: key for key in await store.list_agent_keys_by_id(tx, [row.id for row in shown])}
    last = (shown[-1].value, shown[-1].id) if len(rows) > len(shown) else None
    return Page(tuple(keys[row.id] for row in shown), last)


async def list_spent(tx: Transaction, keys: Collection[AgentKey], at: int) -> dict[str, int]:
    """Nano-dollars by key id: of the budget's running period, or of the month where there is no budget."""
    a = schema.accounts.c
    periods = {key.id: (key.budget or _MONTHLY).period_at(at) for key in keys}
    query = select(a.id, a.period_id, a.spent_nano).where(a.scope == store.SCOPE, a.id.in_(periods))
    rows = await tx.execute(query.where(a.period_id.in_(set(periods.values()))))
    return dict.fromkeys(periods, 0) | {row.id: row.spent_nano for row in rows if row.period_id == periods[row.id]}


async def count_since(tx: Transaction, ids: Collection[str], since_at: int) -> tuple[int, int]:
    """Requests and tokens of these keys that the ledger has seen begin since then."""
    return await _count(tx, schema.usage_events.c.agent_key_id.in_(ids), since_at)


async def count_all_since(tx: Transaction, organization_id: str, since_at: int) -> tuple[int, int]:
    """The same of everybody in an organization."""
    return await _count(tx, schema.usage_events.c.organization_id == organization_id, since_at)


async def _count(tx: Transaction, whose: ColumnElement[bool], since_at: int) -> tuple[int, int]:
    e = schema.usage_events.c
    requests = func.coalesce(func.sum(case((e.attempt == 1, 1), else_=0)), 0)
    tokens = func.coalesce(func.sum(e.input_tokens + e.output_tokens), 0)
    row = (await tx.execute(select(requests, tokens).where(whose, e.started_at > since_at))).one()
    return int(row[0]), int(row[1])


def _status(parent: FromClause, at: int) -> ColumnElement[str]:
    """`AgentKey.shown_status`, said in SQL."""
    k, p = schema.agent_keys.c, parent.c
    return case(
        (k.status != "active", k.status),
        (k.expires_at <= at, "expired"),
        (k.parent_id.is_(None), "active"),
        (p.id.is_(None), "revoked"),
        (p.status != "active", p.status),
        (p.expires_at <= at, "expired"),
        else_="active",
    )


async def _sorted_by(
    tx: Transaction, sort: Sort, organization_id: str, status: ColumnElement[str], at: int
) -> tuple[FromClause, ColumnElement[Any]]:
    k = schema.agent_keys.c
    if sort == "owner":
        u = schema.users.c
        return schema.agent_keys.outerjoin(schema.users, u.id == k.owner_id), func.coalesce(u.email, "")
    if sort == "requests":
        sums = await _requests(tx, organization_id, at)
        source = schema.agent_keys.outerjoin(sums, sums.c.agent_key_id == k.id)
        return source, func.coalesce(sums.c.requests, 0)
    return schema.agent_keys, status if sort == "status" else k[sort]


async def _requests(tx: Transaction, organization_id: str, at: int) -> FromClause:
    today = day_of(at)
    source = await family_spans(tx, organization_id, Days(today - RECENT_DAYS + 1, today + 1))
    # A sum is a Decimal on PostgreSQL, which no cursor could carry.
    total = func.sum(source.c.requests).cast(schema.usage_sums.c.requests.type).label("requests")
    return select(source.c.id.label("agent_key_id"), total).group_by(source.c.id).subquery("sums")


def _filters(wanted: Wanted, status: ColumnElement[str]) -> list[ColumnElement[bool]]:
    k = schema.agent_keys.c
    found: list[ColumnElement[bool]] = []
    if wanted.search:
        found.append(_matches(wanted.search))
    if wanted.status is not None:
        found.append(status == wanted.status)
    if wanted.owner_id is not None:
        found.append(k.owner_id == wanted.owner_id)
    if wanted.parent_id is not None:
        found.append(k.parent_id == wanted.parent_id)
    return found


def _matches(search: str) -> ColumnElement[bool]:
    k, s = schema.agent_keys.c, schema.agent_key_secrets.c
    text = search.strip().replace("\0", "")
    preview = credential.preview(text) if credential.parse(text) else text
    # Found once for all rows: to look for each key's secrets anew would take seconds among 100,000.
    of_secrets = select(s.agent_key_id).where(s.preview.icontains(preview, autoescape=True))
    return or_(k.name.icontains(text, autoescape=True), k.id.in_(of_secrets))


def _behind(
    value: ColumnElement[Any], id: ColumnElement[str], after: After, *, descending: bool
) -> ColumnElement[bool]:
    at, last = literal(after[0]), after[1]
    if descending:
        return or_(value < at, and_(value == at, id < last))
    return or_(value > at, and_(value == at, id > last))


def _ordered(query: Select[Any], value: ColumnElement[Any], wanted: Wanted) -> Select[Any]:
    k = schema.agent_keys.c
    if wanted.descending:
        return query.order_by(value.desc(), k.id.desc())
    return query.order_by(value, k.id)
