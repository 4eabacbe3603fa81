"""Ends the servers of a test run that was itself killed, so that none is left behind on the machine."""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TypeVar

from tests.servers.forks import Process

P = TypeVar("P", bound=Process)

# It holds each process by a pidfd, which never means another process, and acts when its input ends: when we are gone.
_PROGRAM = """
import os, signal, sys
held = []
for line in sys.stdin:
    try:
        held.append(os.pidfd_open(int(line)))
    except OSError:
        pass
for process in held:
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except OSError:
        pass
"""


def watch(process: P) -> P:
    """See to it that this process does not outlive the test run; gives it back."""
    os.write(_line(), f"{process.pid}\n".encode())
    return process


@cache
def _line() -> int:
    """What the reaper reads; started once for each worker, with nothing of ours open in it."""
    theirs, ours = os.pipe()
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", _PROGRAM],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 0), *nowhere],
    )
    os.close(theirs)
    return ours
