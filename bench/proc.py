"""Starts, pins, weighs and always ends the processes of a run; what they cost is read from /proc."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_GRACE_S = 10.0
_POLL_S = 0.005


class BenchFailed(Exception):  # noqa: N818 - reads as what happened
    """The run cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Weight:
    """What a process tree has used so far and holds now."""

    cpu_s: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Running:
    """A process started here, the leader of a session of its own: whatever it starts belongs to it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    began: float

    def weigh(self) -> Weight:
        """CPU seconds and resident megabytes of every process of its session."""
        if self.process.poll() is not None:
            raise BenchFailed(f"{self.name} ended by itself (exit {self.process.returncode}). {self.last_words()}")
        found = [fields for fields in _stats() if int(fields[3]) == self.process.pid]
        ticks = sum(int(fields[n]) for fields in found for n in (11, 12))
        pages = sum(int(fields[21]) for fields in found)
        return Weight(ticks / _TICKS, pages * _PAGE / 1e6)

    def last_words(self) -> str:
        """The end of its log, for a message."""
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "Its log ends with:\n  " + "\n  ".join(lines) if lines else "Its log is empty."

    def stop(self) -> None:
        """SIGTERM to the whole group, SIGKILL to what is left of it."""
        if self.process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_GRACE_S)
        self._signal(signal.SIGKILL)
        self.process.wait(_GRACE_S)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@contextlib.contextmanager
def started(
    name: str,
    command: Sequence[str],
    *,
    work: Path,
    cores: frozenset[int],
    env: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """A process bound to `cores`, ended with its whole group when the block is left."""
    log = work / f"{name}.log"
    with log.open("ab") as out, _bound_to(cores):
        began = time.monotonic()
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, start_new_session=True
        )
    running = Running(name, process, log, began)
    try:
        yield running
    finally:
        running.stop()


def outputs(commands: Sequence[Sequence[str]], *, cores: frozenset[int], timeout_s: float) -> list[str]:
    """What each of several commands, run at the same time, writes to its standard output."""
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        begun = [stack.enter_context(_piped(command, cores)) for command in commands]
        return [_output(process, deadline) for process in begun]


class Talk:
    """A process that says something, a line at a time, while it works."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self, timeout_s: float) -> str | None:
        """Its next line, None when it does not come in time; a process that ends without one ends the bench."""
        out = self._process.stdout
        if out is None or not select.select([out], [], [], timeout_s)[0]:
            return None
        said = out.readline()
        if not said:
            _, complaint = self._process.communicate(timeout=_GRACE_S)
            raise BenchFailed(f"{_line(self._process)} ended too soon: {complaint.strip()[-2000:]}")
        return said


@contextlib.contextmanager
def talking(command: Sequence[str], *, cores: frozenset[int]) -> Iterator[Talk]:
    """A process to listen to, killed if it is still there when the block is left."""
    with _piped(command, cores) as process:
        yield Talk(process)


def wait_until_open(running: Running, port: int, path: str = "/", timeout_s: float = 60.0) -> float:
    """Seconds from its start to its first answer, whatever that is; on `/health` it must be a 200."""
    deadline = running.began + timeout_s
    asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as door:
            door.sendall(asked)
            status = door.recv(12)
            if status.endswith(b" 200") or (status and path == "/"):
                return time.monotonic() - running.began
        if running.process.poll() is not None or time.monotonic() > deadline:
            raise BenchFailed(f"{running.name} did not answer on port {port}. {running.last_words()}")
        time.sleep(_POLL_S)


def metric(port: int, token: str, name: str) -> float:
    """A number without labels of a gateway's `/metrics`."""
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=_GRACE_S)) as door:
        door.request("GET", "/metrics", headers={"authorization": f"Bearer {token}"})
        lines = door.getresponse().read().decode().splitlines()
    found = next((line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")), None)
    if found is None:
        raise BenchFailed(f"The gateway on port {port} does not tell {name} at /metrics.")
    return float(found)


def settled(running: Sequence[Running], timeout_s: float = 3.0) -> Weight:
    """Their weight once what a load left behind (batches, closed connections) is worked off, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    before = total(running)
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = total(running)
        if now.cpu_s - before.cpu_s <= 2 / _TICKS:
            return now
        before = now
    return before


def total(running: Sequence[Running]) -> Weight:
    """The weight of several together."""
    weights = [one.weigh() for one in running]
    return Weight(sum(w.cpu_s for w in weights), sum(w.rss_mb for w in weights))


def allow_files(count: int) -> None:
    """Let what is started from here have so many files open, or as many as the machine lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _output(process: subprocess.Popen[str], deadline: float) -> str:
    try:
        said, complaint = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise BenchFailed(f"{_line(process)} took too long.") from error
    if process.returncode != 0:
        raise BenchFailed(f"{_line(process)} failed (exit {process.returncode}): {complaint.strip()[-2000:]}")
    return said


def _line(process: subprocess.Popen[str]) -> str:
    return " ".join(str(part) for part in process.args) if isinstance(process.args, list) else str(process.args)


@contextlib.contextmanager
def _piped(command: Sequence[str], cores: frozenset[int]) -> Iterator[subprocess.Popen[str]]:
    with _bound_to(cores):
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(_GRACE_S)


@contextlib.contextmanager
def _bound_to(cores: frozenset[int]) -> Iterator[None]:
    # A child inherits the affinity, so that not even its first millisecond runs elsewhere.
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def _stats() -> Iterator[list[str]]:
    """The fields of /proc/PID/stat of every process, counted from the state (the name may hold spaces)."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield (entry / "stat").read_text().rpartition(")")[2].split()
