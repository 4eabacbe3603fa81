"""Where the gateway's CPU goes: a flame graph and a list by py-spy if it may attach, else a list by cProfile."""

from __future__ import annotations

import contextlib
import pstats
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from bench import gateway
from bench.load import Loader
from bench.target import Target

_SHOWN = 30
_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Watch:
    """Under which load, how long, and where the findings go: `out`.svg and `out`.txt."""

    loader: Loader
    concurrency: int
    seconds: int
    out: Path

    def load(self, target: Target, seconds: int) -> None:
        """Plain calls."""
        self.loader.calls(target, concurrency=self.concurrency, seconds=seconds)


def sampled(target: Target, watch: Watch) -> str | None:
    """By py-spy, on the first process of the running target; None when it is missing or may not attach."""
    spy = _py_spy()
    if spy is None:
        return None
    # Only who holds the interpreter: a thread that waits for work would look as busy as one that does it.
    svg, raw = watch.out.with_suffix(".svg"), watch.out.with_suffix(".raw")
    pid = str(target.running[0].process.pid)
    command = [*spy, "record", "--pid", pid, "--duration", str(watch.seconds), "--rate", "250", "--gil"]
    for form, path in (("flamegraph", svg), ("raw", raw)):
        if not _recorded([*command, "--format", form, "--output", str(path)], target, watch):
            return None
    said = _summary(raw.read_text())
    raw.unlink()
    watch.out.with_suffix(".txt").write_text(said)
    return f"flame graph: {svg}\n{said}"


def traced(upstream: int, watch: Watch, cores: frozenset[int]) -> str:
    """By cProfile, on a gateway of its own: it slows what it watches, so that only the order of the list counts."""
    work = watch.loader.work / "traced"
    work.mkdir()
    house = gateway.prepare(upstream, work=work)
    stats = work / "gateway.prof"
    under = [sys.executable, "-m", "cProfile", "-o", str(stats)]
    with gateway.serving(house, work=work, cores=[cores], under=under) as target:
        watch.load(target, watch.seconds)
    said = StringIO()
    pstats.Stats(str(stats), stream=said).sort_stats("tottime").print_stats(_SHOWN)
    watch.out.with_suffix(".txt").write_text(said.getvalue())
    return said.getvalue()


def _recorded(command: list[str], target: Target, watch: Watch) -> bool:
    # One second more than is looked at: py-spy needs a moment to attach.
    load = threading.Thread(target=watch.load, args=(target, watch.seconds + 1))
    load.start()
    try:
        done = subprocess.run(command, capture_output=True, timeout=watch.seconds + _START_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    finally:
        load.join()
    return done.returncode == 0


def _py_spy() -> list[str] | None:
    """py-spy of this machine, or of the package index by uv; None when neither is there."""
    if found := shutil.which("py-spy"):
        return [found]
    uvx = shutil.which("uvx")
    if uvx is None:
        return None
    command = [uvx, "py-spy"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run([*command, "--version"], capture_output=True, timeout=_START_S, check=False)
        return command if done.returncode == 0 else None
    return None


def _summary(raw: str) -> str:
    """Shares of functions by their own time and with what they call, from py-spy's collapsed stacks."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_function(frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            whole[frame] += int(count)
    samples = max(1, own.total())
    lines = [f"{samples} samples", "", "   own  whole  function"]
    lines += [f"{own[name] / samples:6.1%} {whole[name] / samples:6.1%}  {name}" for name, _ in own.most_common(_SHOWN)]
    lines += ["", "with what they call:", ""]
    lines += [f"{count / samples:6.1%}  {name}" for name, count in whole.most_common(_SHOWN)]
    return "\n".join(lines) + "\n"


def _function(frame: str) -> str:
    """A frame without its line number: `name (file)`."""
    name, _, place = frame.rpartition(" (")
    return f"{name} ({place.rpartition(':')[0] or place.rstrip(')')})"
