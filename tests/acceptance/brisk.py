"""A gateway with little patience, for tests of every wait there is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway
from tests.servers.shell import ROOT, Shell
from tests.servers.waiting import free_port


@dataclass(slots=True)
class BriskGateway(Gateway):
    """`tests.brisk_entry` in place of `ostiary serve`."""

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it and wait for nothing."""
        self.port = self.port or free_port()
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.brisk_entry", "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment() | {"PYTHONPATH": str(ROOT)},
                cwd=self.folder,
            )
        return self.process


@contextmanager
def brisk(
    folder: Path, canaries: Canaries, shell: Shell, allow: Sequence[str], furnish: Callable[[Gateway], None]
) -> Iterator[Gateway]:
    """One that may reach `allow`, whose vault `furnish` fills before it starts."""
    gateway = BriskGateway(folder, canaries, shell, {"OSTIARY_EGRESS_ALLOW": ",".join(allow)})
    try:
        furnish(gateway)
        gateway.start()
        yield gateway
    finally:
        gateway.close()
