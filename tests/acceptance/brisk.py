"""A gateway with little patience, for tests of every wait there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway
from tests.servers.shell import Shell


@contextmanager
def brisk(
    folder: Path, canaries: Canaries, shell: Shell, allow: Sequence[str], furnish: Callable[[Gateway], None]
) -> Iterator[Gateway]:
    """One that may reach `allow`, whose vault `furnish` fills before it starts."""
    env = {"OSTIARY_EGRESS_ALLOW": ",".join(allow)}
    gateway = Gateway(folder, canaries, shell, env, entry="tests.brisk_entry")
    try:
        furnish(gateway)
        gateway.start()
        yield gateway
    finally:
        gateway.close()
