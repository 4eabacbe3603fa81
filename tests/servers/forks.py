"""Gateways forked from a process that has imported everything already, as `shell` does for commands.

Each is a process of its own that runs the same code from its entry point on, with exactly the environment it is given;
what it saves is importing, which takes longer than all else of a start. Tests that look at starting itself, or at
what a process alone holds, have `forked=False`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
CLI = "ostiary.cli.main:run"
"""What `ostiary` runs."""
_LATE = (
    *(
        "typer._adapters",
        "rich.console",
        "rich.table",
        "aiosqlite",
        "asyncpg",
        "sqlalchemy.dialects.postgresql.asyncpg",
    ),
    *("alembic.command", "genai_prices.data", "uvicorn.lifespan.off", "encodings.idna"),
)
"""What a process imports when it comes to it, as nearly every one of ours does: half of what a command costs."""
_NOTHING_YET = 60
"""Seconds after which a process that is gone must have been seen to be."""


@dataclass(frozen=True, slots=True)
class _Order:
    entry: str
    words: tuple[str, ...]
    env: dict[str, str]
    folder: str
    log: str
    umask: int


class Forked:
    """Such a process, with what tests use of `subprocess.Popen`."""

    def __init__(self, forks: Forks, pid: int, args: Sequence[str]) -> None:
        self.pid = pid
        self.args = args
        self.returncode: int | None = None
        self._forks = forks
        self._pidfd = os.pidfd_open(pid)  # a zombie until it is reaped: the number can't be another's yet

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.returncode is None and self._has_ended(0):
            self.returncode = self._forks.reap(self.pid)
            os.close(self._pidfd)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has one."""
        if self.returncode is None and not self._has_ended(timeout):
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """To the process, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _has_ended(self, timeout: float | None) -> bool:
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(None if timeout is None else timeout * 1000))


Process = subprocess.Popen[Any] | Forked
"""What a server of the tests is."""


@dataclass(slots=True)
class Forks:
    """The process that has imported everything."""

    process: subprocess.Popen[str]
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def fork(self, entry: str, words: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> Forked:
        """Run `entry`, `module:function`, as a program: `words` are its arguments, what it says goes to `log`."""
        umask = os.umask(0)
        os.umask(umask)
        pid = self._ask(asdict(_Order(entry, tuple(words), dict(env), str(folder), str(log), umask)))
        return Forked(self, pid, (entry, *words))

    def reap(self, pid: int) -> int:
        """The exit code of one that has ended."""
        return self._ask({"reap": pid})

    def _ask(self, order: dict[str, Any]) -> int:
        assert self.process.stdin
        assert self.process.stdout
        with self._one_at_a_time:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        assert answer, f"the forking process has ended with {self.process.poll()}"
        return int(answer)


@contextmanager
def running() -> Iterator[Forks]:
    """Start it; it ends with the block."""
    with speaking("tests.servers.forks") as process:
        yield Forks(process)


@contextmanager
def speaking(module: str) -> Iterator[subprocess.Popen[str]]:
    """A module of the tests as a process that reads orders and answers them, a line each; it ends with the block."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OSTIARY_")}
    with subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=env | {"PYTHONDONTWRITEBYTECODE": ""},
    ) as process:
        yield process


# ---- the process itself -----------------------------------------------------------------------------------------


def prepare(*modules: str) -> None:
    """Import what those forked from here would import, and make what is the same in all of them."""
    from ostiary.cli import main
    from ostiary.providers import catalog, pool

    for name in (*modules, *_LATE):
        importlib.import_module(name)
    main.commands()
    for name in main._COMMANDS:
        main.command(name)
    catalog.load()
    pool._system_trust()
    gc.freeze()  # so that their collector leaves alone, and shared, what it could never free


def _serve() -> None:
    prepare("ostiary.cli.main", "ostiary.cli.serve", "tests.clock_entry", "tests.jumpy_entry")
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(f"{_reaped(order['reap']) if 'reap' in order else _forked(order)}\n")
        sys.stdout.flush()


def _reaped(pid: int) -> int:
    signal.alarm(_NOTHING_YET)
    _, status = os.waitpid(pid, 0)
    signal.alarm(0)
    return os.waitstatus_to_exitcode(status)


def _forked(order: dict[str, Any]) -> int:
    child = os.fork()
    if not child:
        _be(order)
    return child


def _be(order: dict[str, Any]) -> NoReturn:
    nowhere = os.open(os.devnull, os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for number, file in enumerate((nowhere, log, log)):
        os.dup2(file, number)
    os.closerange(3, 16)
    os.umask(order["umask"])
    become(order["entry"], order)


def become(entry: str, order: dict[str, Any]) -> NoReturn:
    """Run `module:function` with the words, environment and folder of an order, and end with its exit code."""
    code = 70
    try:
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["env"])
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - lives as long as the process
        sys.argv = ["ostiary", *order["words"]]
        module, _, function = entry.partition(":")
        getattr(importlib.import_module(module), function)()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - what Python itself does at the top
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
