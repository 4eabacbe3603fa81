"""Runs `ostiary` commands in processes of their own, forked from one that has imported everything already.

A command is the same code from its entry point on, but starts in a twentieth of the time: importing takes a second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tests.servers import forks
from tests.servers.forks import CLI, ROOT, Forks, become, prepare

_LONGEST_S = 60


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command of the CLI did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The output of `--json`."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class _Order:
    words: tuple[str, ...]
    env: dict[str, str]
    folder: str
    stdin: str


@dataclass(slots=True)
class Shell:
    """One such process. Commands run one after another."""

    process: subprocess.Popen[str]
    _ends: ExitStack
    _forks: Forks | None = None
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    @property
    def forks(self) -> Forks:
        """What servers are forked from, which go on while commands run."""
        self._forks = self._forks or self._ends.enter_context(forks.running())
        return self._forks

    def run(self, words: tuple[str, ...], env: Mapping[str, str], folder: Path, stdin: str = "") -> Ran:
        """Run `ostiary …` with exactly this environment."""
        assert self.process.stdin
        assert self.process.stdout
        with self._one_at_a_time:
            order = _Order(words, dict(env), str(folder), stdin)
            self.process.stdin.write(json.dumps(asdict(order)) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        assert answer, f"the shell has ended with {self.process.poll()}"
        return Ran(**json.loads(answer))


@contextmanager
def running() -> Iterator[Shell]:
    """Start it; it ends with the block."""
    with ExitStack() as ends, forks.speaking("tests.servers.shell") as process:
        yield Shell(process, ends)


# ---- the process itself -----------------------------------------------------------------------------------------


def _serve() -> None:
    prepare(*(f"ostiary.cli.{path.stem}" for path in (ROOT / "src" / "ostiary" / "cli").glob("*.py")))
    for line in sys.stdin:
        order = json.loads(line)
        sys.stdout.write(json.dumps(asdict(_fork(order))) + "\n")
        sys.stdout.flush()


def _fork(order: dict[str, Any]) -> Ran:
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(order["stdin"].encode())
        given.seek(0)
        child = os.fork()
        if not child:
            for number, file in enumerate((given, out, err)):
                os.dup2(file.fileno(), number)
            be(order)
        _, status = os.waitpid(child, 0)
        for file in (out, err):
            file.seek(0)
        return Ran(os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode())


def be(order: dict[str, Any]) -> NoReturn:
    """Become the command, for a minute at most."""
    signal.alarm(_LONGEST_S)
    become(CLI, order)


if __name__ == "__main__":
    _serve()
