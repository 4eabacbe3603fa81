"""`python -m bench.beside`: what calls notice of somebody who looks at the dashboard of the same process."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx2

from bench import gateway, pages, proc, stand, upstream
from bench.load import Calls, Loader
from bench.target import Target

_GOAL: Final = 1.2
"""The 99th percentile of calls with a reader, against that without."""


def main() -> None:
    """Serve, fill, load in turns; exit 1 when calls wait longer than they may."""
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--keys", type=int, default=2_000)
    parser.add_argument("--provider-keys", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[64, 8])
    parser.add_argument("--pause-s", type=float, default=1.0, help="between two pages of the reader")
    given = parser.parse_args()
    try:
        with _served(given) as (loader, target):
            ratios = [_compare(loader, target, given, calls) for calls in given.concurrency]
    except proc.BenchFailed as error:
        sys.exit(f"bench: {error}")
    if max(ratios) > _GOAL:
        sys.exit(f"the p99 of calls beside a reader is {max(ratios):.2f} times that without; {_GOAL} is allowed")


@contextmanager
def _served(given: argparse.Namespace) -> Iterator[tuple[Loader, Target]]:
    cores = stand.split_cores(1)
    with ExitStack() as stack:
        work = stack.enter_context(stand.workplace())
        direct = stack.enter_context(upstream.serving(200, 5, work=work, cores=cores.loading))
        house = gateway.prepare(direct.ports[0], work=work)
        for words, said in pages.COMMANDS:
            house.run(*words, said=said)
        asyncio.run(pages.fill(Path(house.data_dirs[0]) / "ostiary.db", given))
        target = stack.enter_context(gateway.serving(house, work=work, cores=cores.served))
        yield Loader(work, cores.loading), target


def _compare(loader: Loader, target: Target, given: argparse.Namespace, concurrency: int) -> float:
    loader.calls(target, concurrency=concurrency, seconds=1)
    alone: list[Calls] = []
    beside: list[Calls] = []
    looked = 0
    for number in range(given.rounds * 2):
        is_beside = number % 4 in (1, 2)  # alone, beside, beside, alone: a drift of the machine favours neither
        with _reader(target, given.pause_s) if is_beside else _nobody() as seen:
            found = loader.calls(target, concurrency=concurrency, seconds=given.seconds)
        (beside if is_beside else alone).append(found)
        looked += len(seen)
    print(f"{concurrency} connections, {looked} pages looked at")
    for name, many in (("alone", alone), ("beside", beside)):
        p50, p99 = (statistics.median(getattr(one, what) for one in many) for what in ("p50_ms", "p99_ms"))
        rate = statistics.median(one.done / one.seconds for one in many)
        print(f"  {name:8} {rate:8.0f} calls/s   p50 {p50:7.2f} ms   p99 {p99:7.2f} ms")
    return statistics.median(one.p99_ms for one in beside) / statistics.median(one.p99_ms for one in alone)


@contextmanager
def _nobody() -> Iterator[list[str]]:
    yield []


@contextmanager
def _reader(target: Target, pause_s: float) -> Iterator[list[str]]:
    """Somebody who goes from page to page while the block runs; the pages they saw."""
    seen: list[str] = []
    enough = threading.Event()
    with httpx2.Client(base_url=f"http://127.0.0.1:{target.ports[0]}", timeout=60) as client:
        pages.sign_in(client)
        named = pages.find_named(client)

        def read() -> None:
            for page in itertools.cycle(pages.PAGES):
                if enough.wait(pause_s):
                    return
                client.get(f"/dashboard{page.format_map(named)}").raise_for_status()
                seen.append(page)

        reading = threading.Thread(target=read)
        reading.start()
        try:
            yield seen
        finally:
            enough.set()
            reading.join()


if __name__ == "__main__":
    main()
