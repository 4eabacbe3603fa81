"""Usage by one thing at a time in SQL: out of sums by days, by 4, 16 and 64 days, so that months are few rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, Subquery, Table, cast, func, select, union_all

from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.ledger.rollup_store import SPANS, SUMMED

_S: Final = schema.usage_sums.c
_DAY: Final = 1
_AT_ONCE: Final = 500
"""Ids, or days, named in one statement; of more, all there are is quicker."""


class Days(NamedTuple):
    """UTC days since the epoch, from the first to before the end."""

    first: int
    end: int


class Sum(NamedTuple):
    """What was used by one thing, or on one day of it."""

    day: int | None
    id: str
    name: str | None
    requests: int
    attempts: int
    errors: int
    cancelled: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    latency_ms: int
    cost_nano: int


async def list_sums(tx: Transaction, organization_id: str, kind: str, days: Days, limit: int = 0) -> list[Sum]:
    """One for each thing of this kind, the dearest first; `limit` 0 gives all."""
    source = await spans(tx, organization_id, kind, days)
    if limit:  # of thousands one sum each is enough to rank them by
        ranked = _dearest(select(source.c.id).group_by(source.c.id), source, source.c.id).limit(limit)
        source = await spans(tx, organization_id, kind, days, list(await tx.scalars(ranked)))
    query = select(source.c.id, func.max(source.c.name), *_summed(source)).group_by(source.c.id)
    query = _dearest(query, source, source.c.id)
    rows = await tx.execute(query.limit(limit) if limit else query)
    return [Sum(None, *row[:2], *map(int, row[2:])) for row in rows]


def _dearest(query: Select[Any], source: Subquery, id: ColumnElement[str]) -> Select[Any]:
    """What was used, the dearest first."""
    return query.having(func.sum(source.c.attempts) > 0).order_by(func.sum(source.c.cost_nano).desc(), id)


async def list_days(
    tx: Transaction, organization_id: str, kind: str, days: Days, ids: Collection[str] | None = None, *, limit: int = 0
) -> list[Sum]:
    """One for each thing and day; of `ids`, or of all there are; `limit` 0 gives all."""
    columns = (_S.number, _S.id, _S.name, *(_S[name] for name in SUMMED))
    query = select(*columns).where(_S.organization_id == organization_id, _S.kind == kind, _S.span == _DAY)
    if ids is None:
        query = query.where(_S.number >= days.first, _S.number < days.end)
    else:  # each day and thing is a look-up: between them lie those of thousands of others
        query = query.where(_S.number.in_(range(days.first, days.end)), _S.id.in_(sorted(ids)))
    query = query.order_by(_S.number, _S.id)
    return [Sum(*row[:3], *map(int, row[3:])) for row in await tx.execute(query.limit(limit) if limit else query)]


async def sum_model(
    tx: Transaction, organization_id: str, days: Days, provider: str | None, model: str | None
) -> tuple[int, int, int, int, int]:
    """Attempts, calls, errors, nano-dollars and milliseconds of a model, of a provider, or of all there are."""
    sums = [0, 0, 0, 0, 0]
    kind = "all" if provider is None and model is None else "model"
    source = await spans(tx, organization_id, kind, days)
    for id_, *row in await tx.execute(select(source.c.id, *_totals(source)).group_by(source.c.id)):
        its_provider, _, its_model = id_.partition("/")
        if provider in (None, its_provider) and model in (None, its_model):
            sums = [one + int(more) for one, more in zip(sums, row, strict=True)]
    return sums[0], sums[1], sums[2], sums[3], sums[4]


async def sum_provider_key(tx: Transaction, organization_id: str, days: Days, id: str) -> Sequence[Any]:
    """As `sum_model`, of a provider key; each is None where it was not used."""
    source = await spans(tx, organization_id, "provider_key", days, [id])
    return (await tx.execute(select(*_totals(source)))).one()


def _totals(source: Subquery) -> Sequence[ColumnElement[Any]]:
    return [func.sum(source.c[name]) for name in ("attempts", "requests", "errors", "cost_nano", "latency_ms")]


async def count_requests(
    tx: Transaction, organization_id: str, days: Days, keys: Collection[str] | None = None
) -> dict[str, int]:
    """Calls by agent key, those of its children with its own: of `keys`, or of all there are."""
    source = await family_spans(tx, organization_id, days, keys)
    rows = await tx.execute(select(source.c.id, func.sum(source.c.requests)).group_by(source.c.id))
    return {id_: int(requests) for id_, requests in rows}


async def family_spans(
    tx: Transaction, organization_id: str, days: Days, keys: Collection[str] | None = None
) -> Subquery:
    """As `spans` of agent keys, where what a child has called is its own and its parent's."""
    parts = [await spans(tx, organization_id, kind, days, keys) for kind in ("agent_key", "parent")]
    return union_all(*(select(part) for part in parts)).subquery()


async def count_all_requests(tx: Transaction, organization_id: str, days: Days) -> int:
    """Everybody's calls."""
    source = await spans(tx, organization_id, "all", days)
    return int(await tx.scalar(select(func.sum(source.c.requests))) or 0)


async def list_owners(tx: Transaction, organization_id: str, days: Days, limit: int) -> list[Sum]:
    """One for each owner of agent keys that are still there, by the id of the user, the dearest first.

    Children count with their parents: of those that are forgotten nothing else says whose they were.
    """
    k, u = schema.agent_keys, schema.users
    source = await family_spans(tx, organization_id, days)
    by_key = select(source.c.id, *_summed(source)).group_by(source.c.id).subquery()
    query = select(k.c.owner_id, *_summed(by_key)).select_from(by_key.join(k, k.c.id == by_key.c.id))
    query = query.where(k.c.owner_id.is_not(None), k.c.parent_id.is_(None)).group_by(k.c.owner_id)
    rows = (await tx.execute(_dearest(query, by_key, k.c.owner_id).limit(limit))).all()
    named = await tx.execute(select(u.c.id, u.c.name).where(u.c.id.in_([row[0] for row in rows])))
    names = {row[0]: row[1] for row in named}
    return [Sum(None, row[0], names.get(row[0]), *map(int, row[1:])) for row in rows]


async def list_keys_of_owners(
    tx: Transaction, organization_id: str, owner_ids: Collection[str], limit: int
) -> dict[str, str]:
    """The owner of agent keys that belong to one of them and are no children, at most so many."""
    k = schema.agent_keys.c
    query = select(k.id, k.owner_id).where(k.organization_id == organization_id, k.owner_id.in_(sorted(owner_ids)))
    query = query.where(k.parent_id.is_(None))
    return {row[0]: row[1] for row in await tx.execute(query.limit(limit))}


async def list_owner_names(tx: Transaction, organization_id: str) -> dict[str, tuple[str, str]]:
    """Id and name of the owner of every agent key that has one and is no child."""
    k, u = schema.agent_keys.c, schema.users.c
    query = select(k.id, k.owner_id, u.name).join(schema.users, u.id == k.owner_id)
    query = query.where(k.organization_id == organization_id, k.parent_id.is_(None))
    return {row[0]: (row[1], row[2]) for row in await tx.execute(query)}


async def list_names(tx: Transaction, organization_id: str, kind: str, ids: Collection[str]) -> dict[str, str]:
    """What things are called now, by id; what is deleted, or another organization's, is not there."""
    table: Table | None = {
        "agent_key": schema.agent_keys,
        "provider_key": schema.provider_keys,
        "credential": schema.client_credentials,
    }.get(kind)
    if table is None or not ids:
        return {}
    query = select(table.c.id, table.c.name).where(table.c.organization_id == organization_id)
    if len(ids) <= _AT_ONCE:
        query = query.where(table.c.id.in_(sorted(ids)))
    return {row[0]: row[1] for row in await tx.execute(query)}


def _summed(source: Subquery) -> Sequence[ColumnElement[Any]]:
    """A sum is a Decimal on PostgreSQL unless it is told otherwise."""
    return [cast(func.sum(source.c[name]), BigInteger).label(name) for name in SUMMED]


async def spans(
    tx: Transaction, organization_id: str, kind: str, days: Days, ids: Collection[str] | None = None
) -> Subquery:
    """The fewest rows that make up these days: sums of them are right, while single ones may be taken away from others.

    A thing that was not used in these days may be among them, with nothing but zeros. Of `ids`, up to some hundreds,
    each is looked up by itself: between them lie those of thousands of others.
    """
    end = days.end
    latest = select(_S.number).where(_S.organization_id == organization_id, _S.kind == "all", _S.span == _DAY)
    if (await tx.scalar(latest.order_by(_S.number.desc()).limit(1)) or 0) < end:
        end = (end // SPANS[-1] + 1) * SPANS[-1]  # nothing lies behind: a span that goes on after the end is as good
    if ids is not None and len(ids) > _AT_ONCE:
        ids = None
    queries = [_part(organization_id, kind, part, ids) for part in parts_of(days.first, end)]
    return queries[0].subquery() if len(queries) == 1 else union_all(*queries).subquery()


class Part(NamedTuple):
    """Spans of one length from a number to before another, to be added or to be taken away."""

    length: int
    first: int
    end: int
    sign: int


def parts_of(first: int, end: int) -> list[Part]:
    """Spans that together are the days from the first to before the end; three days are a longer span less one."""
    whole: Counter[tuple[int, int]] = Counter()
    until, since = _up_to(max(end, first), 1, whole), _up_to(first, -1, whole)
    found = [Part(SPANS[-1], since, until, 1)] if since < until else []
    for (length, number), sign in sorted(whole.items()):
        last = found[-1] if found else None
        if last is not None and sign and (last.length, last.end, last.sign) == (length, number, sign):
            found[-1] = last._replace(end=number + 1)
        elif sign:
            found.append(Part(length, number, number + 1, sign))
    return found or [Part(_DAY, 0, 0, 1)]


def _up_to(day: int, sign: int, whole: Counter[tuple[int, int]]) -> int:
    """Put in what lies between a day and a nearby beginning of a longest span; the number of that."""
    number = day
    for length, longer in pairwise(SPANS):
        ratio = longer // length
        number, over = divmod(number, ratio)
        first = number * ratio
        if over <= ratio // 2:
            whole.update({(length, first + one): sign for one in range(over)})
        else:
            whole.update({(length, first + one): -sign for one in range(over, ratio)})
            number += 1
    return number


def _part(organization_id: str, kind: str, part: Part, ids: Collection[str] | None) -> Select[Any]:
    figures = (_S[name] if part.sign > 0 else (-_S[name]).label(name) for name in SUMMED)
    query = select(_S.id, _S.name, *figures)
    query = query.where(_S.organization_id == organization_id, _S.kind == kind, _S.span == part.length)
    if ids is not None:
        query = query.where(_S.id.in_(sorted(ids)))
        if part.end - part.first <= _AT_ONCE:
            return query.where(_S.number.in_(range(part.first, part.end)))
    return query.where(_S.number >= part.first, _S.number < part.end)
