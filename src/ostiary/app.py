"""Builds the whole from the settings; the only place where concrete parts are chosen."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import uvicorn

from ostiary.clock import Clock, SystemClock
from ostiary.db.changes import Change
from ostiary.db.database import Database
from ostiary.db.migrate import file_lock, make_folder, migrate
from ostiary.errors import CannotStart
from ostiary.gateway.directory import Directory
from ostiary.gateway.edge import EdgeProtocol, sweep_connections
from ostiary.gateway.gate import Gate
from ostiary.gateway.marks import Marks
from ostiary.gateway.routes import Door
from ostiary.ledger.spool import Spool, free_name
from ostiary.ledger.writer import Writer, adopt
from ostiary.limits import store as money
from ostiary.limits.local import LocalCounters
from ostiary.limits.purse import Purses
from ostiary.limits.reserve import Reserve
from ostiary.logs import configure, get
from ostiary.orgs import organizations
from ostiary.providers import catalog
from ostiary.providers.egress import Egress
from ostiary.providers.openai import OpenAI
from ostiary.providers.transport import Transport
from ostiary.settings import Settings
from ostiary.vault.seal import MasterKeys, Seal, make_key_file, read_key_file

Keeper = Callable[[], Coroutine[None, None, None]]
"""Something that runs beside the doors until the end."""

_KEY_FILE: Final = "master.key"
_NEW_OBJECTS: Final = 20_000
_KEEP_ALIVE_S: Final = 75
_LAST_WORDS_S: Final = 5.0


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
            seal = Seal(_master_keys(settings, database))
            await migrate(database)
            await seal.open_instance(database, clock.now())
            async with database.transaction() as tx:
                await organizations.ensure_first(tx, clock.now())
        yield Ground(settings, clock, database, seal, catalog.load(), Egress(settings.egress_allow))
    finally:
        await database.close()


async def serve(
    settings: Settings,
    clock: Clock | None = None,
    on_ready: Callable[[str], Awaitable[None]] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. `on_ready` is awaited with the gateway's URL once it answers.

    When `on_ready` raises, the gateway stops and the exception passes on; so a demonstration can end by itself.
    """
    configure(settings)
    async with AsyncExitStack() as stack:
        make_folder(settings.data_dir)
        stack.enter_context(_only_one(settings.data_dir))
        listener = stack.enter_context(_bind(settings.host, settings.port))
        base = await stack.enter_async_context(ground(settings, clock))
        gate, keepers = await _build(base, stack)
        server = _server(Door(gate), settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, server)
            stack.callback(loop.remove_signal_handler, number)
        async with _alone(), asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(keep()) for keep in keepers]
            running.append(tasks.create_task(sweep_connections(server.server_state)))
            serving = tasks.create_task(server.serve([listener]))
            try:
                await server.ready.wait()
                _settle_memory()
                url = _url_of(listener)
                get("ostiary").info("serving", url=url, version=version("ostiary"), data_dir=str(settings.data_dir))
                if on_ready is not None:
                    await on_ready(url)
                await serving
            finally:
                server.should_exit = True
                await serving
                await _await_last_calls(server)
                for task in running:
                    task.cancel()
    get("ostiary").info("stopped")


async def _build(base: Ground, stack: AsyncExitStack) -> tuple[Gate, list[Keeper]]:
    """The gate, and what must keep running beside it. What is opened here is closed by the stack, last first."""
    clock, database, folder = base.clock, base.database, base.settings.data_dir / "spool"
    await adopt(database, folder, clock)
    spool = Spool(folder, free_name(), base.settings.spool_sync)
    writer = Writer(database, spool, clock)
    stack.push_async_callback(writer.close)
    async with database.transaction() as tx:
        await money.add_owner(tx, spool.owner, base.settings.name, version("ostiary"), clock.now())
    purses = Purses(database, spool.owner, clock)
    counters = LocalCounters(clock)
    directory = Directory(database, base.seal, base.catalog, clock)

    def changed(change: Change) -> None:
        if change.noun in ("agent_key", "organization"):
            purses.mark_changed(change.noun, change.id)

    directory.on_change(counters.seed_day, changed)
    await directory.load()
    await asyncio.to_thread(directory.warm)
    marks = Marks(database, clock)
    stack.push_async_callback(marks.write)
    transport = Transport(base.egress)
    await transport.open()
    stack.push_async_callback(transport.close)
    gate = Gate(
        clock=clock,
        directory=directory,
        dialect=OpenAI(),
        counters=counters,
        reserve=Reserve(clock, counters, purses),
        spool=spool,
        transport=transport,
        writer=writer,
        marks=marks,
        database=database,
        public_catalog=base.settings.public_catalog,
        trusted_proxies=base.settings.trusted_proxies,
    )
    return gate, [directory.listen, writer.run, purses.run, marks.run]


def _settle_memory() -> None:
    """What start-up made stays for good: the collector need not walk it again, nor run at every few calls."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    """What ended one of several tasks, without the group around it: a person reads it."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group.exceptions[0].__cause__


# ---- the server -------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals to us: they begin a drain, and settling comes after it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(door: Door, settings: Settings) -> _Server:
    config = uvicorn.Config(
        door,
        http=EdgeProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_s,
    )
    return _Server(config)


def _stop(server: uvicorn.Server) -> None:
    server.should_exit = True


async def _await_last_calls(server: _Server) -> None:
    """Calls cut off at the end of the drain have been cancelled; give them the moment it takes to settle."""
    if server.server_state.tasks:
        await asyncio.wait(server.server_state.tasks, timeout=_LAST_WORDS_S)


@contextmanager
def _bind(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise CannotStart(
                f"Cannot listen on {host} port {port}: {error.strerror}. Choose another by --port."
            ) from None
        yield listener


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


# ---- the data directory -----------------------------------------------------------------------------------------


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """One `serve` per data directory: its spool and its leases are one process's."""
    with (data_dir / "serve.lock").open("a+") as file:
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


def _master_keys(settings: Settings, database: Database) -> MasterKeys:
    """The operator's keys; only the embedded default makes one of its own, at its first start."""
    if settings.master_key is not None:
        return MasterKeys.parse(settings.master_key)
    if not settings.is_embedded:
        raise CannotStart(
            "OSTIARY_MASTER_KEY or OSTIARY_MASTER_KEY_FILE must be set: with a database of your own the master key "
            "is yours to keep, and every gateway on it needs the same."
        )
    path = settings.data_dir / _KEY_FILE
    if path.exists():
        return MasterKeys.parse(read_key_file(path))
    if database.path is not None and database.path.exists():
        raise CannotStart(
            f"The master key file {path} is missing, and without it nothing in {database.path.name} can be opened. "
            "Put it back from your backup."
        )
    key = make_key_file(path)
    with contextlib.suppress(OSError):
        get("ostiary").warning("master_key.made", file=str(path), advice="Back it up: without it the vault is lost.")
    return MasterKeys.parse(key)
