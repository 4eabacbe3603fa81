"""Starts `ostiary` commands that may be killed in the middle, forked from a process that has imported everything."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.forks import ROOT, speaking
from tests.servers.reaper import watch
from tests.servers.shell import Ran, be


@dataclass(slots=True)
class Nursery:
    """One such process. It has one child at a time."""

    process: subprocess.Popen[str]
    folder: Path
    pid: int = 0

    def start(self, words: tuple[str, ...], env: Mapping[str, str]) -> None:
        """Begin `ostiary …` with exactly this environment; `pid` is its process."""
        self._say({"words": words, "env": dict(env), "folder": str(self.folder)})
        self.pid = int(self._hear())

    def kill(self) -> None:
        """SIGKILL; one that has ended already is not reaped yet, and takes no harm."""
        os.kill(self.pid, signal.SIGKILL)

    @property
    def has_ended(self) -> bool:
        """Whether it has come to its end."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def end(self) -> Ran:
        """Wait for its end; what it did."""
        self._say({})
        code = int(self._hear())
        return Ran(code, (self.folder / "out").read_text(), (self.folder / "err").read_text())

    def _say(self, order: Mapping[str, object]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def _hear(self) -> str:
        assert self.process.stdout
        heard = self.process.stdout.readline()
        assert heard, f"the nursery has ended with {self.process.poll()}"
        return heard


@contextmanager
def running(folder: Path) -> Iterator[Nursery]:
    """Start it; it ends with the block."""
    folder.mkdir()
    with speaking("tests.acceptance.nursery") as process:
        yield Nursery(watch(process), folder)


def _serve() -> None:
    for path in (ROOT / "src" / "ostiary" / "cli").glob("*.py"):
        importlib.import_module(f"ostiary.cli.{path.stem}")
    for line in sys.stdin:
        child = _fork(json.loads(line))
        print(child, flush=True)
        sys.stdin.readline()
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _fork(order: dict[str, Any]) -> int:
    child = os.fork()
    if not child:
        for number, name in ((0, os.devnull), (1, "out"), (2, "err")):
            flags = os.O_RDWR | (os.O_CREAT | os.O_TRUNC if number else 0)
            os.dup2(os.open(Path(order["folder"]) / name, flags, 0o600), number)
        be(order)
    return child


if __name__ == "__main__":
    _serve()
