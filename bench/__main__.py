"""`uv run poe bench`: nginx, the floors and the gateway, interleaved on pinned cores; a table, ratios, a JSON file."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench import flame, proc, report, stand, wide
from bench.gateway import Size
from bench.load import Crowd
from bench.measure import Plan, measure
from bench.stand import Stand
from bench.table import Round

_RESULTS = Path(__file__).parent / "results"
_PROFILED = 4
"""A profile looks this many times as long as one load."""
_CROWDED = 3
"""In so many rounds many streams are held open, which takes longer than all the rest."""
_FILES = 16_384
"""A stream is two connections of the gateway."""


def main() -> None:
    """Run, print, write; exit 1 with a message when something needed is missing or an answer is wrong."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    try:
        _run(given)
    except proc.BenchFailed as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=9, help="interleaved rounds; the median counts")
    add("--seconds", type=int, default=2, help="of each load")
    add("--concurrency", type=int, default=64, help="connections of the full load")
    add("--streams", type=int, default=32, help="open streams")
    add("--chunks", type=int, default=200, help="events of a stream")
    add("--pace-ms", type=float, default=5.0, help="between two events; 0 sends a stream in one burst")
    add("--starts", type=int, default=3, help="how often the gateway is started to take the time")
    add("--processes", type=int, default=1, help="also run this many gateways on one database")
    add("--keys", type=int, default=1, help="also run a gateway with this many agent keys in its database")
    add("--providers", type=int, default=1, help="also run a gateway with this many providers of 20 keys each")
    add("--open", type=int, default=2_000, help="streams held open at once; 0: none")
    add("--gap-ms", type=float, nargs="+", default=[10.0, 200.0], help="between two events of those")
    add("--quick", action="store_true", help="2 rounds of 1 second: to see that it works")
    add("--without-gateway", action="store_true", help="only nginx and the floors")
    add("--profile", action="store_true", help="afterwards, where the CPU of the gateway goes")
    add("--json", type=Path, metavar="PATH", help="write the result here too")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds, given.starts = min(given.rounds, 2), 1, 1
        given.open = min(given.open, 200)
    positive = ("rounds", "seconds", "concurrency", "streams", "starts", "processes", "keys", "providers")
    if min(vars(given)[name] for name in positive) < 1:
        parser.error(f"{', '.join(positive)} are at least 1")
    if given.chunks < 2 or given.pace_ms < 0:
        parser.error("a stream has at least 2 chunks, and its pace is not negative")
    if given.open < 0 or min(given.gap_ms) <= 0:
        parser.error("streams held open are none or more, and the gap between their events is more than nothing")
    if 1 < given.providers < wide.LEAST:
        parser.error(f"providers are 1, or {wide.LEAST} and more")
    if given.profile and given.without_gateway:
        parser.error("--profile needs the gateway")
    return given


def _run(given: argparse.Namespace) -> None:
    crowds = [Crowd(given.open, gap_ms, max(2, given.seconds)) for gap_ms in given.gap_ms if given.open]
    if crowds:
        proc.allow_files(_FILES)
    plan = Plan(given.seconds, given.concurrency, given.streams, given.pace_ms / 1000, crowds)
    began = datetime.now(UTC)
    out = _RESULTS / began.strftime("%Y-%m-%dT%H-%M-%SZ")
    _RESULTS.mkdir(exist_ok=True)
    wish = stand.Wish(
        chunks=given.chunks,
        pace_ms=given.pace_ms,
        gateways=() if given.without_gateway else _sizes(given.processes, given.keys, given.providers),
        starts=given.starts,
    )
    with stand.built(wish) as ready:
        rounds = _rounds(ready, plan, given.rounds)
        said = report.text(ready, rounds, crowds)
        print(said)
        arguments = {name: str(value) for name, value in vars(given).items()}
        result = {
            "at": began.isoformat(),
            "arguments": arguments,
            "machine": report.machine(ready),
            "rounds": rounds,
            "text": said,
        }
        for path in filter(None, (out.with_suffix(".json"), given.json)):
            path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten: {out.with_suffix('.json')}")
        if given.profile:
            print(_profile(ready, plan, out))


def _sizes(processes: int, keys: int, providers: int) -> tuple[Size, ...]:
    """One process with one key, and what else was asked for, each beside that one."""
    return tuple(dict.fromkeys((Size(), Size(keys=keys), Size(providers=providers), Size(processes))))


def _rounds(ready: Stand, plan: Plan, count: int) -> Sequence[Round]:
    for target in ready.targets:
        ready.loader.check(target)
        ready.loader.calls(target, concurrency=plan.concurrency, seconds=1)
    rounds = []
    for n in range(count):
        print(f"round {n + 1} of {count}", file=sys.stderr)
        # Every other round runs backwards, so that a drift of the machine favours nobody.
        order = ready.targets if n % 2 == 0 else ready.targets[::-1]
        now = plan if n < _CROWDED else replace(plan, crowds=())
        rounds.append({target.name: measure(target, ready.loader, now) | ready.facts[target.name] for target in order})
    return rounds


def _profile(ready: Stand, plan: Plan, out: Path) -> str:
    watch = flame.Watch(ready.loader, plan.concurrency, plan.seconds * _PROFILED, out)
    target = next(one for one in ready.targets if one.name == "ostiary")
    found = flame.sampled(target, watch)
    return found or flame.traced(ready.targets[0].ports[0], watch, ready.cores.first)


if __name__ == "__main__":
    main()
