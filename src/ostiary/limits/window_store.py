"""How much of each window every owner may take, in SQL: the authority over rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Table, and_, case, delete, func, insert, or_, select, update

from ostiary.clock import DAY_MS, SECOND_MS
from ostiary.db import schema
from ostiary.db.database import Transaction, insert_or_set

NOBODY: Final = ""
"""Owner of what was taken while nobody counted, as the ledger knows it."""

_HOLDERS: Final[Mapping[str, Table]] = {
    "agent_key": schema.agent_keys,
    "organization": schema.organizations,
    "provider_key": schema.provider_keys,
}
_MINUTE_MS: Final = 60 * SECOND_MS
_MANY: Final = 500
_DAY: Final = "day-"


class WindowKey(NamedTuple):
    """One window of one holder: minute, tokens, parallel, or `day-N` of the UTC day's number."""

    scope: str
    id: str
    window: str


class WindowLease(NamedTuple):
    """What one owner may take; with `until` it has ended, and what it had taken counts for so long."""

    owner: str
    window: str
    amount: int
    until: int | None


class Written(NamedTuple):
    """One attempt that the ledger has: when it began, whether it counts as a request, and what it used."""

    started_at: int
    is_request: bool
    tokens: int


def name_of(window: str, day: int) -> str:
    """A window as it is kept: each day is one of its own."""
    return f"{_DAY}{day}" if window == "day" else window


async def lock_limits(tx: Transaction, scope: str, id: str) -> dict[str, int | None] | None:
    """The holder's limits by window, None when it is gone; nobody else leases of it until this transaction ends."""
    c = _HOLDERS[scope].c
    query = select(c.rpm, c.rpd, c.tpm, c.parallel).where(c.id == id).with_for_update()
    row = (await tx.execute(query)).first()
    return dict(zip(("minute", "day", "tokens", "parallel"), row, strict=True)) if row else None


async def list_leases(tx: Transaction, scope: str, id: str, at: int) -> list[WindowLease]:
    """Everybody's leases of a holder's windows; those that are over are forgotten."""
    c = schema.window_leases.c
    its = and_(c.scope == scope, c.id == id)
    rows = [WindowLease(*row) for row in await tx.execute(select(c.owner, c.window, c.amount, c.until).where(its))]
    if any(row.until is not None and row.until <= at for row in rows):
        await tx.execute(delete(schema.window_leases).where(its, c.until <= at))
    return [row for row in rows if row.until is None or row.until > at]


def _is(owner: str, key: WindowKey) -> ColumnElement[bool]:
    c = schema.window_leases.c
    return and_(c.owner == owner, c.scope == key.scope, c.id == key.id, c.window == key.window)


async def put_lease(tx: Transaction, owner: str, key: WindowKey, amount: int, until: int | None = None) -> None:
    """Let an owner take so much; nothing at all is no row.

    Of a holder that is gone nobody has a lock: two processes may well write down at once what nobody counted.
    """
    if amount > 0:
        place, news = {"owner": owner, **key._asdict()}, {"amount": amount, "until": until}
        await tx.execute(insert_or_set(tx, schema.window_leases, place, news))
    else:
        await tx.execute(delete(schema.window_leases).where(_is(owner, key)))


async def lower_lease(tx: Transaction, owner: str, key: WindowKey, amount: int) -> None:
    """Give back all but `amount`; a lease that is lower already, or gone, stays as it is."""
    c = schema.window_leases.c
    if amount > 0:
        lowered = update(schema.window_leases).where(_is(owner, key), c.amount > amount, c.until.is_(None))
        await tx.execute(lowered.values(amount=amount))
    else:
        await tx.execute(delete(schema.window_leases).where(_is(owner, key), c.until.is_(None)))


async def count_requests(tx: Transaction, scope: str, id: str, day: int) -> int:
    """The requests of a UTC day that the ledger knows of; what a child calls its parent calls too."""
    d, k = schema.usage_days.c, schema.agent_keys.c
    whose = {"organization": d.organization_id == id, "provider_key": d.provider_key_id == id}.get(scope)
    if whose is None:  # children that were gone before the day began have no part in it
        children = select(k.id).where(k.parent_id == id, k.expires_at >= day * DAY_MS)
        whose = or_(d.agent_key_id == id, d.agent_key_id.in_(children))
    counted = d.attempts if scope == "provider_key" else d.requests  # each attempt is a request to the provider
    found = (await tx.execute(select(func.sum(counted)).where(whose, d.day == day))).scalar()
    return int(found or 0)


async def list_written(tx: Transaction, scope: str, id: str, since_at: int) -> list[Written]:
    """What the ledger has of a holder's calls since then, the oldest first; what a child calls its parent calls too."""
    e = schema.usage_events.c
    whose = {"organization": e.organization_id == id, "provider_key": e.provider_key_id == id}.get(
        scope, or_(e.agent_key_id == id, e.parent_key_id == id)
    )
    query = select(e.started_at, e.attempt, e.input_tokens + e.output_tokens).where(whose, e.started_at > since_at)
    is_each = scope == "provider_key"  # each attempt is a request to the provider
    rows = await tx.execute(query.order_by(e.started_at))
    return [Written(started_at, is_each or attempt == 1, tokens) for started_at, attempt, tokens in rows]


# ---- the end of an owner ----------------------------------------------------------------------------------------


async def drop_leases(tx: Transaction, owner: str, at: int) -> None:
    """Take from a silent owner what it leased: it asks again before it takes anything.

    What it took of a day stays counted, as far as the ledger knows of it.
    """
    for key, amount in (await _list_counted(tx, owner, at)).items():
        await lower_lease(tx, owner, key, amount if key.window.startswith(_DAY) else 0)


async def end_leases(tx: Transaction, owner: str, left: Mapping[WindowKey, int], at: int) -> None:
    """The owner takes no more, and had taken so much: that counts until it slides out, or until its day is over.

    Of days that are not among `left` all that is leased counts: they are those of which the owner itself forgot.
    """
    c = schema.window_leases.c
    its = and_(c.owner == owner, c.until.is_(None))
    days = await tx.execute(select(c.scope, c.id, c.window, c.amount).where(its, c.window.startswith(_DAY)))
    ended = {WindowKey(*key): amount for *key, amount in days} | dict(left)
    await tx.execute(delete(schema.window_leases).where(its))
    rows = [
        {"owner": owner, **key._asdict(), "amount": amount, "until": until_of(key, at)}
        for key, amount in ended.items()
        if amount > 0 and key.window != "parallel" and until_of(key, at) > at
    ]
    if rows:
        await tx.execute(insert(schema.window_leases), rows)


def until_of(key: WindowKey, at: int) -> int:
    """How long what was taken until `at` counts: a minute, or the whole day."""
    if key.window.startswith(_DAY):
        return (int(key.window.removeprefix(_DAY)) + 1) * DAY_MS
    return at + _MINUTE_MS


async def close_leases(tx: Transaction, owner: str, at: int) -> None:
    """The same for an owner that can't say what it had taken: the ledger has all its calls, and says it."""
    counted = await _list_counted(tx, owner, at)
    if counted:
        await end_leases(tx, owner, counted, at)


async def _list_counted(tx: Transaction, owner: str, at: int) -> dict[WindowKey, int]:
    """Every window of which an owner has a part, and how much it has taken of it according to the ledger."""
    c = schema.window_leases.c
    rows = await tx.execute(select(c.scope, c.id, c.window, c.amount).where(c.owner == owner, c.until.is_(None)))
    leased = {WindowKey(*key): amount for *key, amount in rows}
    counted: dict[WindowKey, int] = {}
    for scope in sorted({key.scope for key in leased}):
        ids = sorted({key.id for key in leased if key.scope == scope})
        lately = await _count_calls(tx, owner, scope, ids, at - _MINUTE_MS)
        today = await _count_calls(tx, owner, scope, ids, at // DAY_MS * DAY_MS)
        for key in (key for key in leased if key.scope == scope):
            requests, tokens = (today if key.window.startswith(_DAY) else lately).get(key.id, (0, 0))
            counted[key] = min(tokens if key.window == "tokens" else requests, leased[key])
    return counted


async def _count_calls(
    tx: Transaction, owner: str, scope: str, ids: Sequence[str], since_at: int
) -> dict[str, tuple[int, int]]:
    """Requests and tokens of an owner's calls by holder; what a child calls its parent calls too."""
    e, k = schema.usage_events.c, schema.agent_keys.c
    columns: list[Any] = {"organization": [e.organization_id], "provider_key": [e.provider_key_id]}.get(
        scope, [e.agent_key_id, k.parent_id]
    )
    requests = func.count() if scope == "provider_key" else func.sum(case((e.attempt == 1, 1), else_=0))
    found: dict[str, tuple[int, int]] = {}
    for column in columns:
        for start in range(0, len(ids), _MANY):
            query: Any = select(column, requests, func.sum(e.input_tokens + e.output_tokens))
            if column is k.parent_id:
                query = query.join(schema.agent_keys, k.id == e.agent_key_id)
            query = query.where(column.in_(ids[start : start + _MANY]), e.started_at >= since_at, e.owner == owner)
            for id_, calls, tokens in await tx.execute(query.group_by(column)):
                before = found.get(id_, (0, 0))
                found[id_] = (before[0] + int(calls), before[1] + int(tokens))
    return found


# ---- who shares -------------------------------------------------------------------------------------------------


async def list_beats(tx: Transaction) -> dict[str, int]:
    """The last heartbeat of every owner that has not closed."""
    o = schema.owners.c
    rows = await tx.execute(select(o.id, o.heartbeat_at).where(o.closed_at.is_(None)))
    return {row.id: row.heartbeat_at for row in rows}


async def drop_silent(tx: Transaction, owner: str, beat_at: int, at: int) -> bool:
    """Take their leases from an owner that was not heard of since `beat_at`; False when it was."""
    o = schema.owners.c
    query = select(o.heartbeat_at, o.closed_at).where(o.id == owner).with_for_update()
    row = (await tx.execute(query)).first()
    if row is None or row.heartbeat_at != beat_at or row.closed_at is not None:
        return False
    await drop_leases(tx, owner, at)
    return True


async def prune_leases(tx: Transaction, at: int) -> None:
    """Forget what no longer counts: what ended owners had taken, and days that are over everywhere."""
    c = schema.window_leases.c
    old = and_(c.window >= _DAY, c.window < name_of("day", at // DAY_MS - 1))
    await tx.execute(delete(schema.window_leases).where(or_(c.until <= at, old)))
