"""The test stand: upstream, baselines and gateways started on their cores, and everything cleaned up after."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import gateway, hello, nginx, proc, proxy, upstream
from bench.load import Loader
from bench.target import Target

_WORK = Path(__file__).parent / ".work"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be started."""

    chunks: int
    pace_ms: float
    gateways: tuple[gateway.Size, ...]
    starts: int
    """How often a gateway is started to take the time."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where."""

    served: tuple[frozenset[int], ...]
    """Of the servers under test; all but the first only for further processes."""
    loading: frozenset[int]
    """Of the load and of the upstream."""

    @property
    def first(self) -> frozenset[int]:
        """Of whatever runs in one process."""
        return self.served[0]


@dataclass(frozen=True, slots=True)
class Stand:
    """Everything started."""

    loader: Loader
    cores: Cores
    targets: tuple[Target, ...]
    """The upstream itself first."""
    houses: tuple[gateway.House, ...]
    facts: dict[str, dict[str, float]]
    """Of each target by its name, what is measured once."""


@contextmanager
def built(wish: Wish) -> Iterator[Stand]:
    """All targets, answering and idle."""
    nginx.program()
    cores = split_cores(max((1, *(size.processes for size in wish.gateways))))
    with ExitStack() as stack:
        work = stack.enter_context(workplace())
        loader = Loader(work, cores.loading)
        if loader.name != "wrk":
            _tell("wrk is not installed (Debian: apt-get install wrk): the bench's own, slower client makes the calls")
        direct = stack.enter_context(upstream.serving(wish.chunks, wish.pace_ms, work=work, cores=cores.loading))
        port = direct.ports[0]
        targets = [
            direct,
            stack.enter_context(nginx.serving(port, work=work, cores=cores.first)),
            stack.enter_context(hello.serving(work=work, cores=cores.first)),
            stack.enter_context(proxy.serving(port, work=work, cores=cores.first)),
        ]
        facts = {target.name: {"start_s": target.start_s} for target in targets}
        houses = tuple(gateway.prepare(port, work=work, size=size) for size in wish.gateways)
        for house in houses:
            starts = [_start_s(house, work, cores) for _ in range(wish.starts - 1)]
            target = stack.enter_context(gateway.serving(house, work=work, cores=cores.served))
            facts[target.name] = {"start_s": statistics.median([*starts, target.start_s])}
            targets.append(target)
        for target in targets:
            facts[target.name]["idle_mb"] = proc.settled(target.running).rss_mb
        yield Stand(loader, cores, tuple(targets), houses, facts)


def _start_s(house: gateway.House, work: Path, cores: Cores) -> float:
    with gateway.serving(house, work=work, cores=cores.served) as target:
        return target.start_s


def split_cores(processes: int) -> Cores:
    """The last core loads, the others serve; a single one is shared."""
    cores = sorted(os.sched_getaffinity(0))
    serving = cores[:-1] or cores
    if len(serving) < processes or len(cores) == 1:
        _tell(f"{len(cores)} core(s) for {processes} process(es) and the load: read CPU and ratios, not calls/s")
    return Cores(tuple(frozenset({core}) for core in serving), frozenset({cores[-1]}))


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    # On the disk, as data directories are; /tmp may be memory.
    _WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_WORK, ignore_cleanup_errors=True) as name:
        yield Path(name)


def _tell(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)
