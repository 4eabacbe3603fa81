"""What is sealed, in SQL: values of the instance, wrapped data keys, and every row that holds a ciphertext."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Table, delete, func, insert, literal, select, tuple_, update

from ostiary.db import schema
from ostiary.db.bulk import run_each
from ostiary.db.database import Transaction, insert_new

OWN: Final = "-"
"""The organization id under which the instance's own data key stands; no organization is called so."""

USERS: Final = "users"
"""The organization id under which the data key stands for what belongs to users and to no organization."""


class DataKey(NamedTuple):
    """A data key as it is kept: wrapped by a master key."""

    organization_id: str
    version: int
    wrapped: str


# ---- values of the instance -------------------------------------------------------------------------------------


async def find_values(tx: Transaction, prefix: str) -> dict[str, str]:
    """The instance's values whose names begin so, by what follows."""
    i = schema.instance.c
    rows = await tx.execute(select(i.name, i.value).where(i.name.startswith(prefix, autoescape=True)))
    return {name.removeprefix(prefix): value for name, value in rows}


async def find_value(tx: Transaction, name: str) -> str | None:
    """One of the instance's values."""
    i = schema.instance.c
    return (await tx.execute(select(i.value).where(i.name == name))).scalar_one_or_none()


async def set_value(tx: Transaction, name: str, value: str) -> None:
    """Keep a value, in the place of what was there."""
    changed = await tx.execute(update(schema.instance).where(schema.instance.c.name == name).values(value=value))
    if not changed.rowcount:
        await tx.execute(insert_new(tx, schema.instance, {"name": name, "value": value}))


async def remove_value(tx: Transaction, name: str) -> None:
    """Forget a value."""
    await tx.execute(delete(schema.instance).where(schema.instance.c.name == name))


async def remove_values_of_gone(tx: Transaction, prefix: str) -> None:
    """Forget what gateways have said of themselves that have closed or were given up, under names that end in ids."""
    i, o = schema.instance.c, schema.owners.c
    is_open = select(o.id).where(o.closed_at.is_(None), o.retired_at.is_(None))
    whose = func.substr(i.name, len(prefix) + 1)
    await tx.execute(delete(schema.instance).where(i.name.startswith(prefix, autoescape=True), whose.not_in(is_open)))


# ---- data keys --------------------------------------------------------------------------------------------------


async def find_own_key(tx: Transaction) -> DataKey | None:
    """The instance's own data key; None where nothing was ever sealed."""
    return await _newest(tx, OWN, lock=None)


async def lock_own_key(tx: Transaction, *, to_change: bool = False) -> DataKey | None:
    """As `find_own_key`, and until this transaction ends no rotation passes to another master key.

    Whoever rotates asks `to_change`, and waits for those who wrap meanwhile.
    """
    return await _newest(tx, OWN, lock="change" if to_change else "share")


async def lock_newest_version(tx: Transaction, organization_id: str) -> int | None:
    """The version of the data key that seals now; until this transaction ends that key is not removed."""
    found = await _newest(tx, organization_id, lock="keep")
    return found.version if found else None


async def _newest(
    tx: Transaction, organization_id: str, *, lock: Literal["change", "share", "keep"] | None
) -> DataKey | None:
    """SQLite needs no lock: whoever writes there is alone."""
    d = schema.data_keys.c
    query = (
        select(d.organization_id, d.version, d.wrapped)
        .where(d.organization_id == organization_id)
        .order_by(d.version.desc())
        .limit(1)
    )
    while True:
        seen = (await tx.execute(query)).first()
        if seen is None or lock is None:
            return DataKey(*seen) if seen else None
        locking = query.with_for_update(read=lock != "change", key_share=lock == "keep")
        locked = (await tx.execute(locking)).first()
        # PostgreSQL may have waited for a row that was removed, or that is not the newest any more: then look again.
        newest = (await tx.execute(query)).first()
        if locked is not None and newest is not None and locked.version == newest.version:
            return DataKey(*newest)


async def list_data_keys(tx: Transaction, after: tuple[str, int] | None, limit: int) -> list[DataKey]:
    """Of all organizations and the instance, a page in the order of their primary key."""
    d = schema.data_keys.c
    query = select(d.organization_id, d.version, d.wrapped).order_by(d.organization_id, d.version).limit(limit)
    if after is not None:
        query = query.where(tuple_(d.organization_id, d.version) > tuple_(*after))
    return [DataKey(*row) for row in await tx.execute(query)]


async def count_data_keys(tx: Transaction) -> int:
    """How many there are."""
    return int((await tx.execute(select(func.count()).select_from(schema.data_keys))).scalar_one())


async def list_newest_versions(tx: Transaction, organization_id: str | None) -> dict[str, int]:
    """The newest version by organization, of one or of all that have a data key; the instance's own apart."""
    d = schema.data_keys.c
    query = select(d.organization_id, func.max(d.version)).where(d.organization_id != OWN).group_by(d.organization_id)
    if organization_id is not None:
        query = query.where(d.organization_id == organization_id)
    return {row[0]: row[1] for row in await tx.execute(query.order_by(d.organization_id))}


async def list_versions(tx: Transaction, organization_ids: Sequence[str]) -> list[tuple[str, int]]:
    """Every version of every data key of these organizations."""
    d = schema.data_keys.c
    rows = await tx.execute(select(d.organization_id, d.version).order_by(d.organization_id, d.version))
    wanted = set(organization_ids)
    return [(organization_id, version) for organization_id, version in rows if organization_id in wanted]


async def add_data_keys(tx: Transaction, keys: Sequence[DataKey], at: int) -> None:
    """Keep new versions."""
    if keys:
        await tx.execute(insert(schema.data_keys), [key._asdict() | {"created_at": at} for key in keys])


async def change_wrapped(tx: Transaction, changes: Sequence[tuple[DataKey, str]]) -> None:
    """Write other wrappings, wherever the row is still as it was read."""
    statement = "UPDATE data_keys SET wrapped = ? WHERE organization_id = ? AND version = ? AND wrapped = ?"
    await run_each(tx, statement, [(wrapped, *key[:2], key.wrapped) for key, wrapped in changes])


async def remove_data_key(tx: Transaction, organization_id: str, version: int) -> None:
    """Forget a data key: what it has sealed will never be opened again."""
    d = schema.data_keys.c
    await tx.execute(delete(schema.data_keys).where(d.organization_id == organization_id, d.version == version))


# ---- rows that hold a ciphertext --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shelf:
    """A table whose rows hold something sealed in `sealed`, under version `sealed_version` of their organization."""

    table: Table
    field: str
    """What the place of a secret calls it."""
    key: tuple[str, ...]
    has_origin: bool
    limit: int
    """How many rows are worked on at once."""
    owner: str | None = None
    """Whose data key seals all rows; None where each row names its organization."""

    @property
    def whose(self) -> Any:  # noqa: ANN401 - a column, or what stands for one
        """The organization of each row."""
        return self.table.c.organization_id if self.owner is None else literal(self.owner)

    def select(self) -> Any:  # noqa: ANN401 - a Select of columns that are known at run time only
        """The columns of a `SealedRow`, in the order of the primary key."""
        c = self.table.c
        origin = [c.origin] if self.has_origin else []
        return select(self.whose, c.sealed_version, c.sealed, *self._ids(), *origin).order_by(*self._ids())

    def read(self, row: Sequence[Any]) -> SealedRow:
        """What `select` has found."""
        ids = tuple(row[3 : 3 + len(self.key)])
        return SealedRow(self, row[0], row[1], row[2], ids, row[-1] if self.has_origin else "")

    def after(self, query: Any, ids: tuple[Any, ...] | None) -> Any:  # noqa: ANN401 - as above
        """Only what comes behind this row."""
        return query if ids is None else query.where(tuple_(*self._ids()) > tuple_(*ids))

    def _ids(self) -> list[Any]:
        return [self.table.c[name] for name in self.key]


class SealedRow(NamedTuple):
    """One row with its ciphertext, and what its place is made of."""

    shelf: Shelf
    organization_id: str
    version: int
    sealed: str
    ids: tuple[Any, ...]
    origin: str

    @property
    def name(self) -> str:
        """What the place of the secret calls the row."""
        return "#".join(map(str, self.ids))


SHELVES: Final = (
    Shelf(schema.provider_keys, "sealed", ("id",), has_origin=True, limit=200),
    Shelf(schema.webhooks, "sealed", ("id",), has_origin=True, limit=200),
    Shelf(schema.contents, "content", ("request_id", "attempt"), has_origin=False, limit=40),
    Shelf(schema.second_factors, "sealed", ("user_id",), has_origin=False, limit=200, owner=USERS),
)
"""All of them: a test compares with the schema."""


async def list_sealed(
    tx: Transaction, shelf: Shelf, organization_id: str | None, after: tuple[Any, ...] | None
) -> list[SealedRow]:
    """A page of one organization's rows, or of everybody's."""
    query = shelf.after(shelf.select(), after).limit(shelf.limit)
    if organization_id is not None:
        query = query.where(shelf.whose == organization_id)
    return [shelf.read(row) for row in await tx.execute(query)]


async def count_sealed(tx: Transaction, organization_id: str | None) -> int:
    """How many rows hold a ciphertext."""
    total = 0
    for shelf in SHELVES:
        query = select(func.count()).select_from(shelf.table)
        if organization_id is not None:
            query = query.where(shelf.whose == organization_id)
        total += int((await tx.execute(query)).scalar_one())
    return total


async def change_sealed(tx: Transaction, changes: Sequence[tuple[SealedRow, str, int]]) -> None:
    """Write other ciphertexts, with the versions that sealed them, wherever the row is still as it was read."""
    if not changes:
        return
    shelf = changes[0][0].shelf
    ids = " AND ".join(f"{name} = ?" for name in shelf.key)
    statement = f"UPDATE {shelf.table.name} SET sealed = ?, sealed_version = ? WHERE {ids} AND sealed = ?"  # noqa: S608 - our own names
    await run_each(tx, statement, [(token, version, *row.ids, row.sealed) for row, token, version in changes])


async def is_used(tx: Transaction, organization_id: str, version: int) -> bool:
    """Whether any row is still sealed under this version."""
    for shelf in SHELVES:
        c = shelf.table.c
        query = select(c.sealed_version).where(shelf.whose == organization_id, c.sealed_version == version)
        if (await tx.execute(query.limit(1))).first() is not None:
            return True
    return False
