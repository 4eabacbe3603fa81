"""The audit log in SQL: its rows, written behind one another, and the head that says where it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    LargeBinary,
    Text,
    bindparam,
    cast,
    func,
    insert,
    or_,
    select,
    update,
)

from ostiary.db import changes, schema
from ostiary.db.database import Transaction, insert_new
from ostiary.ledger import chain
from ostiary.ledger.chain import Head

DENIED: Final = "denied"
"""The result of what was refused for want of permission."""
_HEAD: Final = "audit_head"
_A = schema.audit.c


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One deed, as it is kept."""

    seq: int
    at: int
    organization_id: str | None
    actor_kind: str
    actor_id: str
    actor_name: str
    deed: str
    target_kind: str
    target_id: str
    target_name: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    origin: str
    address: str | None
    result: str
    chain: str | None
    number: int | None
    hash: bytes | None


@dataclass(frozen=True, slots=True)
class Last:
    """The end of one chain."""

    chain: str
    number: int
    seq: int
    hash: bytes


# ---- writing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """The head as it is stored, and the newest row there really is."""

    text: str | None
    last_seq: int

    @property
    def head(self) -> Head | None:
        """None when there is none, or none that can be read."""
        return None if self.text is None else Head.parse(self.text)


async def find_end(tx: Transaction, *, lock: bool = False) -> Found:
    """Where the log ends; with `lock` nobody else writes to it until this transaction is over."""
    if lock:
        await changes.take_turn(tx)  # the feed's lock: deeds write to both, and two locks could be taken crosswise
    i = schema.instance.c
    text = select(i.value).where(i.name == _HEAD).scalar_subquery()
    newest = select(func.coalesce(func.max(_A.seq), 0)).scalar_subquery()
    return Found(*(await tx.execute(select(text, newest))).one())


async def add_head(tx: Transaction, head: Head) -> None:
    """Keep the first head."""
    await tx.execute(insert_new(tx, schema.instance, {"name": _HEAD, "value": head.text()}))


async def change_head(tx: Transaction, head: Head) -> None:
    """Move it on."""
    i = schema.instance.c
    await tx.execute(update(schema.instance).where(i.name == _HEAD).values(value=head.text()))


async def find_last(tx: Transaction, chain_: str) -> Last | None:
    """The newest row of a chain."""
    query = select(_A.chain, _A.number, _A.seq, _A.hash).where(_A.chain == chain_, _A.number.is_not(None))
    row = (await tx.execute(query.order_by(_A.number.desc()).limit(1))).first()
    return Last(row[0], row[1], row[2], row[3] or b"") if row else None


def json_text(value: object) -> str | None:
    """JSON as the database keeps it, letter by letter: what is hashed is what is stored."""
    return None if value is None else json.dumps(value)


async def add_audit(tx: Transaction, row: Mapping[str, object]) -> None:
    """Append one row, complete with its place and its hash."""
    await tx.execute(insert(schema.audit).values({name: value for name, value in row.items() if value is not None}))


async def is_chained(tx: Transaction) -> bool:
    """Whether any row stands in a chain."""
    return (await tx.execute(select(_A.seq).where(_A.number.is_not(None)).limit(1))).first() is not None


async def mark_chained(tx: Transaction, rows: Sequence[Mapping[str, object]]) -> None:
    """Give rows that are older than the chain their place in it: `chain`, `number` and `hash` by `row_seq`."""
    done = update(schema.audit).where(_A.seq == bindparam("row_seq"))
    await tx.execute(done, rows)


# ---- reading, to prove ------------------------------------------------------------------------------------------


async def list_raw(tx: Transaction, after_seq: int | None, limit: int) -> list[dict[str, Any]]:
    """Rows in order behind one, or from the first, each as bytes and with its `hash`.

    Texts are not decoded: somebody may have put there what is no text. `types` says what SQLite made of each value.
    """
    is_sqlite = tx.dialect.name == "sqlite"
    columns: list[ColumnElement[Any]] = [_as_bytes(_A[name], is_sqlite=is_sqlite).label(name) for name in chain.FIELDS]
    if is_sqlite:
        columns.append(_types().label("types"))
    hash_ = (cast(_A.hash, LargeBinary) if is_sqlite else _A.hash).label("hash")
    query = select(_A.seq.label("place"), hash_, *columns).order_by(_A.seq).limit(limit)
    if after_seq is not None:
        query = query.where(_A.seq > after_seq)
    names = ("place", "hash", *chain.FIELDS, *(("types",) if is_sqlite else ()))
    rows = await tx.execute(query)
    return [dict(zip(names, row if is_sqlite else map(_bytes_of, row), strict=True)) for row in rows]


def _as_bytes(column: ColumnElement[Any], *, is_sqlite: bool) -> ColumnElement[Any]:
    return cast(column, LargeBinary) if is_sqlite else cast(column, Text)


def _types() -> ColumnElement[Any]:
    found: ColumnElement[Any] = func.typeof(_A.hash)
    for name in chain.FIELDS:
        found = found.concat(" ").concat(func.typeof(_A[name]))
    return found


def _bytes_of(value: object) -> object:
    return value.encode() if isinstance(value, str) else value


async def list_last(tx: Transaction, after_seq: int) -> list[Last]:
    """The newest row of every chain that has grown behind `after_seq`."""
    newest = select(func.max(_A.seq)).where(_A.seq > after_seq, _A.number.is_not(None)).group_by(_A.chain)
    query = select(_A.chain, _A.number, _A.seq, _A.hash).where(_A.seq.in_(newest)).order_by(_A.seq)
    return [Last(row[0] or "", row[1], row[2], row[3] or b"") for row in await tx.execute(query)]


# ---- reading, to be told ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows are asked for; None asks for any. `actor` is an id, `target` an id or a name, `until_at` excluded."""

    actor: str | None = None
    deed: str | None = None
    target: str | None = None
    result: str | None = None
    since_at: int | None = None
    until_at: int | None = None


async def list_audit(
    tx: Transaction,
    organization_id: str | None = None,
    limit: int = 100,
    wanted: Filter = Filter(),
    after: tuple[int, int] | None = None,
) -> list[AuditRow]:
    """The newest first, behind `after` (the time and `seq` of a row); of one organization, or with None of all."""
    query = select(schema.audit).order_by(_A.at.desc(), _A.seq.desc()).limit(limit)
    if organization_id is not None:
        query = query.where(_A.organization_id == organization_id)
    for condition in await _conditions(tx, organization_id, wanted):
        query = query.where(condition)
    # One bound on each side: SQLite counts every further one as if it left fewer rows, and takes the wrong index.
    newest = [wanted.until_at - 1] if wanted.until_at is not None else []
    if after is not None:
        newest.append(after[0])
        query = query.where(or_(_A.at < after[0], _A.seq < after[1]))
    if newest:
        query = query.where(_A.at <= min(newest))
    if wanted.since_at is not None:
        query = query.where(_A.at >= wanted.since_at)
    return [AuditRow(**row) for row in (await tx.execute(query)).mappings()]


async def find_audit(tx: Transaction, organization_id: str, seq: int) -> AuditRow | None:
    """One row of an organization's."""
    query = select(schema.audit).where(_A.seq == seq, _A.organization_id == organization_id)
    row = (await tx.execute(query)).mappings().first()
    return AuditRow(**row) if row else None


async def _conditions(tx: Transaction, organization_id: str | None, wanted: Filter) -> list[ColumnElement[bool]]:
    """What leaves the fewest rows goes by its index; the rest is hidden from a planner that cannot know."""
    by_target = await _column_of(tx, organization_id, wanted.target) if wanted.target is not None else _A.target_id
    is_rare = wanted.result != "ok"
    steps: tuple[tuple[tuple[Column[Any], str | None], ...], ...] = (
        ((by_target, wanted.target),),
        ((_A.result, wanted.result if is_rare else None),),
        ((_A.actor_id, wanted.actor), (_A.deed, wanted.deed)),
        ((_A.result, None if is_rare else wanted.result),),
    )
    given = [[(column, value) for column, value in step if value is not None] for step in steps]
    first, *others = [step for step in given if step] or [[]]
    plain = [column == value for column, value in first]
    return plain + [func.coalesce(column, "") == value for step in others for column, value in step]


async def _column_of(tx: Transaction, organization_id: str | None, target: str) -> Column[Any]:
    """Whether a target is given by its id or its name."""
    query = select(_A.seq).where(_A.target_id == target).limit(1)
    if organization_id is not None:
        query = query.where(_A.organization_id == organization_id)
    return _A.target_id if (await tx.execute(query)).first() else _A.target_name


async def list_denied(tx: Transaction, organization_id: str | None, since_at: int, limit: int) -> list[str]:
    """Who was denied something since then, by id, once for each time."""
    within = _A.organization_id == organization_id if organization_id else _A.organization_id.is_(None)
    query = select(_A.actor_id).where(within, _A.result == DENIED, _A.at >= since_at)
    return list((await tx.execute(query.order_by(_A.at.desc()).limit(limit))).scalars())
