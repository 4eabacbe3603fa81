"""A gateway whose vault is filled before it starts: one with little patience for tests of waits, else a usual one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway
from tests.servers.shell import Shell


@contextmanager
def brisk(
    folder: Path,
    canaries: Canaries,
    shell: Shell,
    allow: Sequence[str],
    furnish: Callable[[Gateway], None],
    *,
    patient: bool = False,
    **more: str,
) -> Iterator[Gateway]:
    """One that may reach `allow`, whose vault `furnish` fills before it starts.

    It is `patient` where nothing is meant to be late: on a machine that other tests keep busy it would be at times.
    More of its environment is `more`.
    """
    env = {"OSTIARY_EGRESS_ALLOW": ",".join(allow), **more}
    gateway = Gateway(folder, canaries, shell, env, entry="" if patient else "tests.brisk_entry")
    try:
        furnish(gateway)
        gateway.start()
        yield gateway
    finally:
        gateway.close()
