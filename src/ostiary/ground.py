"""What every door stands on: the database, the vault unsealed, and the data directory that is ours alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ostiary.clock import Clock, SystemClock
from ostiary.db.copying import is_empty
from ostiary.db.database import Database
from ostiary.db.migrate import file_lock, make_folder, migrate, open_lock
from ostiary.errors import CannotStart
from ostiary.ledger import audit, chain
from ostiary.orgs import organizations
from ostiary.providers import catalog
from ostiary.providers.egress import Egress
from ostiary.settings import Settings
from ostiary.vault import master_key
from ostiary.vault.backups import Place
from ostiary.vault.seal import Seal


@dataclass(frozen=True, slots=True)
class Ground:
    """What every door stands on: an open database of the right schema, and the vault unsealed."""

    settings: Settings
    clock: Clock
    database: Database
    seal: Seal
    catalog: catalog.Catalog
    egress: Egress


@asynccontextmanager
async def ground(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Ground]:
    """Open (and on first start make) the database and the vault. Raises CannotStart with what to do."""
    clock = clock or SystemClock()
    make_folder(settings.data_dir)
    database = Database(settings.database_url or settings.sqlite_url())
    try:
        async with file_lock(settings.data_dir / "start.lock"):  # two first starts must not make two master keys
            seal = Seal(master_key.find_or_make(settings, database))
            await migrate(database)
            await seal.open_instance(database, clock.now())
            database.chain_key = chain.key_of(seal.pepper)
            async with database.transaction() as tx:
                await audit.begin(tx, clock.now())
                await organizations.ensure_first(tx, clock.now())
        yield Ground(
            settings, clock, database, seal, catalog.load(more=settings.catalog_file), Egress(settings.egress_allow)
        )
    finally:
        await database.close()


async def has_instance(settings: Settings) -> bool:
    """Whether there is a database that a command would open, rather than make."""
    database = Database(settings.database_url or settings.sqlite_url())
    try:
        return not await is_empty(database)
    finally:
        await database.close()


@asynccontextmanager
async def empty_ground(settings: Settings) -> AsyncIterator[Place]:
    """A place to restore to, with nobody serving there or starting to; nothing is opened or made yet."""
    make_folder(settings.data_dir)
    with only_one(settings.data_dir):
        async with file_lock(settings.data_dir / "start.lock"):
            database = Database(settings.database_url or settings.sqlite_url())
            try:
                yield Place(database, settings.data_dir, master_key.given(settings))
            finally:
                await database.close()


@contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """One `serve` per data directory: its spool and its leases are one process's."""
    with open_lock(data_dir / "serve.lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CannotStart(
                f"Another 'ostiary serve' (process {file.read().strip() or 'unknown'}) runs on {data_dir}. "
                "Stop it, or give this one a --data-dir of its own."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
