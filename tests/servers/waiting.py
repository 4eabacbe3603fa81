"""Free ports and patience: how tests wait for what they started, with a bound."""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import cycle
from pathlib import Path
from typing import Final

from tests.servers.forks import Process

_STEP_S = 0.02
_LOWEST = 10_240
_DAY_S = 86_400


def _own_ports() -> Iterator[int]:
    """Those of this worker, each again only after all others: a server that is away for a moment finds its own free."""
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER", "gw0"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    first = int(worker.removeprefix("gw")) + _LOWEST
    own = list(range(first, _first_of_clients(), int(workers)))
    begin = random.randrange(len(own))  # noqa: S311 - any will do
    return cycle(own[begin:] + own[:begin])


def _first_of_clients() -> int:
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
    return int(ports.read_text().split()[0]) if ports.exists() else 49_152


_PORTS: Final = _own_ports()


def free_port() -> int:
    """A port nobody listens on now; a process that is none of ours may be quicker, so who binds it tries again.

    Not one of those that the kernel gives to clients: while a server is away, a client that keeps trying to reach it
    would sooner or later be given that very port, and be connected to itself. Nor one that another worker may choose:
    whoever waits for their own server to answer would take that of the other for it.
    """
    while True:
        with socket.socket() as probe, suppress(OSError):
            port = next(_PORTS)
            probe.bind(("127.0.0.1", port))
            return port


def until(done: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Wait until `done()` is true; says what was waited for when it never is.

    Once the time is over it looks once more: this process may have stood still since it looked.
    """
    end = time.monotonic() + timeout_s
    is_over = False
    while not done():
        if is_over:
            raise TimeoutError(f"waited {timeout_s} s for {what}")
        time.sleep(_STEP_S)
        is_over = time.monotonic() > end


def until_the_day_is_young(least_s: float = 90.0) -> None:
    """Where less than that is left of the day (UTC), wait until it is over: what counts by the day begins anew then."""
    left_s = _DAY_S - time.time() % _DAY_S
    if left_s < least_s:
        today = time.time() // _DAY_S
        until(lambda: time.time() // _DAY_S > today, "midnight", least_s + 1)


def are_prompt(taken: Sequence[float], within_s: float = 1.0, *, callers: int = 1) -> bool:
    """Whether none took longer, but for one of several: a machine that other tests keep busy stands still at times.

    Of several callers at once each has a call under way then.
    """
    return sorted(taken)[-1 - callers] < within_s


def require_prompt(trial: Callable[[int], Sequence[float]], within_s: float = 1.0, *, callers: int = 1) -> None:
    """Each deed of a trial is done in time: in the first, or where the machine stood still, in another, made anew.

    What is slow by itself is slow in all of them. `trial` is told its number, and says how long each deed took.
    """
    taken = list(trial(1))
    for number in (2, 3):
        if not are_prompt(taken, within_s, callers=callers):
            taken = [min(pair) for pair in zip(taken, trial(number), strict=True)]
    assert are_prompt(taken, within_s, callers=callers), taken


def answers(port: int, path: str = "/health", timeout_s: float = 1.0) -> bool:
    """Whether an HTTP server on the loopback answers 200 there."""
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def until_alive(process: Process, done: Callable[[], object], log: Path, timeout_s: float = 60) -> None:
    """Wait for a server that was started; shows the end of its log when it died or never answered."""

    def check() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}:\n{tail(log)}")
        return bool(done())

    try:
        until(check, f"{process.args!r}", timeout_s)
    except TimeoutError as error:
        raise TimeoutError(f"{error}\n{tail(log)}") from error


def tail(log: Path, size: int = 4_000) -> str:
    """The end of a log file."""
    return log.read_text(errors="replace")[-size:] if log.exists() else "(no log)"


def stop(process: Process, timeout_s: float = 30) -> int:
    """Ask a process to end, then make it; its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(timeout_s)
