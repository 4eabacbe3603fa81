"""Each test of a store runs on SQLite and on a real PostgreSQL, on a database of its own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ostiary.db.database import Database
from ostiary.db.migrate import migrate
from tests.people import CHAIN_KEY
from tests.servers.postgres import Postgres


async def _migrated(url: str) -> None:
    database = Database(url)
    await migrate(database)
    await database.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to copy: migrating anew for each test would cost more than the test."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    asyncio.run(_migrated(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    """The name of a migrated database, to copy."""
    name = postgres.make()
    asyncio.run(_migrated(postgres.url(name)))
    return name


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a hundred transactions wait for their turn says something of the machine, which other tests keep busy.

    What a lost database means is tried where it is lost, with a bound of its own.
    """
    monkeypatch.setattr("ostiary.db.database._BUSY_MS", 60_000)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a fresh, migrated database, first SQLite, then PostgreSQL."""
    if request.param == "sqlite":
        path = tmp_path / "ostiary.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    name = postgres.make(request.getfixturevalue("postgres_template"))
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """That database, open."""
    opened = Database(database_url)
    opened.chain_key = CHAIN_KEY
    yield opened
    await opened.close()
