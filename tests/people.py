"""Who tries each deed: Alice (owner), Erin (admin), Bob (member), Charlie (no membership), Dora (owner elsewhere)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
from sqlalchemy import Table, func, select, text

from ostiary.actor import Actor
from ostiary.db import schema
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.orgs import members, organizations, roles, users
from ostiary.orgs.organizations import Organization
from ostiary.secret import Secret

NOW: Final = 1_795_000_000_000
"""A moment in November 2026."""
CHAIN_KEY: Final = Secret("7a" * 32)
"""What proves the audit log where no vault is open."""
HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR

NAMES: Final = ("alice", "erin", "bob", "charlie", "dora")
INSIDE: Final = ("alice", "erin", "bob")
OUTSIDE: Final = ("charlie", "dora")
_ROLES: Final = {"alice": "owner", "erin": "admin", "bob": "member"}


@dataclass(frozen=True, slots=True)
class People:
    """The organization all work in, Dora's, the actors by name, and the operator."""

    home: Organization
    elsewhere: Organization
    actors: Mapping[str, Actor]
    operator: Actor

    def __getitem__(self, name: str) -> Actor:
        return self.operator if name == "operator" else self.actors[name]


@dataclass(frozen=True, slots=True)
class _Settled:
    """People, and every row that there is because of them."""

    people: People
    rows: Mapping[Table, list[dict[str, Any]]]


_settled: dict[tuple[str, Secret | None], _Settled] = {}
"""By the kind of database and what proves its audit log: whoever is first in a process does the deeds, which take a
tenth of a second; for the others, where nothing is written yet, the same rows are written again."""


async def settle(database: Database) -> People:
    """Found both organizations and let everybody in, or not."""
    kind = (database.engine.dialect.name, database.chain_key)
    async with database.transaction() as tx:
        if await _rows(tx, schema.audit) or await _rows(tx, schema.organizations):
            return await _settle(tx)
        if kind not in _settled:
            before = await _all_rows(tx)
            people = await _settle(tx)
            after = await _all_rows(tx)
            new = {table: [row for row in rows if row not in before[table]] for table, rows in after.items()}
            _settled[kind] = _Settled(people, {table: rows for table, rows in new.items() if rows})
            return people
        await _put_down(tx, _settled[kind].rows)
        return _settled[kind].people


async def _rows(tx: Transaction, table: Table) -> list[dict[str, Any]]:
    return [dict(row) for row in (await tx.execute(table.select())).mappings()]


async def _all_rows(tx: Transaction) -> dict[Table, list[dict[str, Any]]]:
    return {table: await _rows(tx, table) for table in schema.metadata.sorted_tables}


async def _put_down(tx: Transaction, rows: Mapping[Table, list[dict[str, Any]]]) -> None:
    for table, found in rows.items():
        await tx.execute(table.insert(), found)
        if tx.dialect.name == "postgresql" and "seq" in table.c:  # whose next number goes by what was asked of it
            await tx.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "seq"), len(found))))


async def _settle(tx: Transaction) -> People:
    operator = roles.operator()
    home = await organizations.create(tx, operator, "Home", NOW)
    elsewhere = await organizations.create(tx, operator, "Elsewhere", NOW)
    for name, role in _ROLES.items():
        await members.add(tx, operator, home.id, f"{name}@example.org", name.title(), role, NOW)
    await members.add(tx, operator, elsewhere.id, "dora@example.org", "Dora", "owner", NOW)
    actors = {}
    for name in NAMES:
        user = await users.ensure(tx, f"{name}@example.org", name.title(), NOW)
        place = elsewhere if name == "dora" else home
        role_there = "owner" if name == "dora" else _ROLES.get(name)
        actors[name] = roles.member_actor(user, role_there, place.id, "test", "192.0.2.7")
    return People(home, elsewhere, actors, operator)


@contextmanager
def refused(code: str, param: str | None = None) -> Iterator[pytest.ExceptionInfo[Refusal]]:
    """The deed inside is refused with this code (and, when given, for this field)."""
    with pytest.raises(Refusal) as caught:
        yield caught
    assert caught.value.code == code, caught.value.message
    if param is not None:
        assert caught.value.param == param, caught.value.message


@dataclass(frozen=True, slots=True)
class Traces:
    """How many rows there are of what every deed leaves behind."""

    audit: int
    changes: int

    def __sub__(self, other: Traces) -> Traces:
        return Traces(self.audit - other.audit, self.changes - other.changes)


ONE: Final = Traces(1, 1)
NONE: Final = Traces(0, 0)


async def traces(database: Database) -> Traces:
    """Count them."""
    async with database.read() as tx:
        counts = [
            (await tx.execute(select(func.count()).select_from(table))).scalar_one()
            for table in (schema.audit, schema.changes)
        ]
    return Traces(*counts)


async def everything(database: Database) -> str:
    """All that is stored, as text, to look for what must not be in it."""
    async with database.read() as tx:
        rows = [repr(tuple(row)) for table in schema.metadata.sorted_tables for row in await tx.execute(table.select())]
    return "\n".join(rows)


async def spoil(database: Database, statement: str, **values: object) -> None:
    """What somebody with a shell on the database may do to it."""
    async with database.transaction() as tx:
        done = await tx.execute(text(statement), values)
        assert done.rowcount > 0
