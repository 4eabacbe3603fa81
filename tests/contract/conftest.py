"""Each test of a store runs on SQLite and on a real PostgreSQL, on a database of its own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy.engine import Dialect, Engine

from ostiary.db.database import Database
from ostiary.db.migrate import migrate
from tests.people import CHAIN_KEY
from tests.servers.postgres import Postgres

_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_CHEAP_NOBODYS = _CHEAP.hash("nobody's")


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


@pytest.fixture
def real_passwords() -> None:
    """For what looks at how dear a password is."""


@pytest.fixture(autouse=True)
def cheap_passwords(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password takes a tenth of a second and 64 MiB, for whoever guesses; nearly every test just comes in."""
    if "real_passwords" not in request.fixturenames:
        monkeypatch.setattr("ostiary.orgs.passwords._HASHER", _CHEAP)
        monkeypatch.setattr("ostiary.orgs.passwords._NOBODYS", _CHEAP_NOBODYS)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a fresh, migrated database, first SQLite, then PostgreSQL."""
    with fresh(request, tmp_path) as url:
        yield url


@contextmanager
def fresh(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The address of a migrated database of the kind that a fixture's parameter says; it is gone with the block."""
    if request.param == "sqlite":
        path = folder / "ostiary.db"
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
    async with opened(database_url) as it:
        yield it


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A database that writes its audit log as an instance does."""
    database = Database(url)
    database.chain_key = CHAIN_KEY
    _share_compiled(database.engine.sync_engine)
    try:
        yield database
    finally:
        await database.close()


_compiled: dict[str, tuple[Dialect, dict[Any, Any]]] = {}


def _share_compiled(engine: Engine) -> None:
    """Compile what is asked once for a worker, not anew for the database of each test: a quarter of all their time.

    What is compiled belongs to a dialect, so they share that too: the first that has met its server.
    """
    dialect, cache = _compiled.get(engine.dialect.name, (engine.dialect, {}))
    if getattr(dialect, "server_version_info", None):
        engine.dialect = dialect
        engine.update_execution_options(compiled_cache=cache)
    else:
        _compiled[engine.dialect.name] = (engine.dialect, cache)
