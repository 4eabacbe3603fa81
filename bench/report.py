"""What a run found, for people (a markdown table, doubts, goals) and the machine it was found on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import gateway, goals
from bench.load import Crowd
from bench.stand import Stand
from bench.table import Column, Round, markdown, median_of, number, ratio_of, ratio_within

_PACKAGES = ("ostiary", "uvicorn", "uvloop", "httptools", "aiohttp", "msgspec")
_SEPARATE = 0.9
"""Below this many reads per chunk, chunks were merged on the way, and CPU per chunk flatters."""


def text(ready: Stand, rounds: Sequence[Round], crowds: Sequence[Crowd] = ()) -> str:
    """The tables and what to think of them."""
    names = [target.name for target in ready.targets]
    lines = [markdown(names, _columns(rounds))]
    lines += ["", f"Median of {len(rounds)} interleaved rounds, ratios taken within a round; `direct` is the upstream."]
    lines += [line for name in names for line in _doubts(rounds, name)]
    for crowd in crowds:
        lines += ["", *_open(names, rounds, crowd)]
    for house in ready.houses:
        name = house.name
        lines += ["", f"{name}:", _metered(rounds, house)]
        if house.is_shared:
            lines += [f"- calls/s against one process: {number(ratio_of(rounds, name, 'ostiary', 'calls_s'), 2)}×"]
        if house.size == gateway.Size():
            lines += [_fallback(rounds, name)]
        lines += [verdict.line() for verdict in goals.judge(rounds, name, _goals_of(house, crowds))]
    return "\n".join(lines)


def _goals_of(house: gateway.House, crowds: Sequence[Crowd]) -> Sequence[goals.Goal]:
    if house.is_shared:
        return goals.SHARED
    if house.size.width is not None:
        return goals.WIDE
    if house.size.keys > 1:
        return goals.CROWDED
    return (*goals.GOALS, *(goal for crowd in crowds for goal in goals.goals_of(crowd)))


def _fallback(rounds: Sequence[Round], name: str) -> str:
    steady, falling = (number(median_of(rounds, name, measure), 0) for measure in ("steady_us", "fallback_us"))
    times = number(ratio_within(rounds, name, "fallback_us", "steady_us"), 2)
    return f"- a call to an endpoint costs {steady} µs of CPU, one whose first target refuses it {falling}: {times}×"


def _open(names: Sequence[str], rounds: Sequence[Round], crowd: Crowd) -> list[str]:
    def plain(heading: str, measure: str, digits: int = 1) -> Column:
        return Column(heading, lambda target: median_of(rounds, target, f"{crowd.name}_{measure}"), digits)

    columns = [
        plain("CPU µs/event", "chunk_us"),
        Column("× nginx", lambda target: ratio_of(rounds, target, "nginx", f"{crowd.name}_chunk_us"), 2),
        plain("events/s", "chunks_s", 0),
        plain("gap ms", "gap_ms", 0),
        plain("reads per event", "reads", 2),
        plain("RSS MB", "mb", 0),
    ]
    measured = [name for name in names if median_of(rounds, name, f"{crowd.name}_mb") is not None]
    return [
        f"{crowd.count:,} streams open at once, an event every {crowd.gap_ms:g} ms each, as far as this machine can:",
        "",
        markdown(measured, columns),
        "",
        *_too_slow(measured, rounds, crowd),
    ]


def _too_slow(names: Sequence[str], rounds: Sequence[Round], crowd: Crowd) -> list[str]:
    """What was not as fast as asked for, or was merged on the way: then CPU per event says less."""
    lines = []
    for name in names:
        gap, reads = (median_of(rounds, name, f"{crowd.name}_{measure}") or 0 for measure in ("gap_ms", "reads"))
        if gap > crowd.gap_ms / _SEPARATE:
            lines.append(f"{name}: an event every {gap:.0f} ms was all there was: something was at its limit.")
        if reads < _SEPARATE:
            lines.append(f"{name}: only {reads:.2f} reads per event – events were merged on the way.")
    return lines


def machine(ready: Stand) -> dict[str, object]:
    """Where and with what it was measured."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "serving": [sorted(cores) for cores in ready.cores.served],
        "loading": sorted(ready.cores.loading),
        "load": ready.loader.name,
        "busy": os.getloadavg()[1],
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _columns(rounds: Sequence[Round]) -> list[Column]:
    def plain(heading: str, measure: str, digits: int = 1) -> Column:
        return Column(heading, lambda target: median_of(rounds, target, measure), digits)

    def against(measure: str) -> Column:
        return Column("× nginx", lambda target: ratio_of(rounds, target, "nginx", measure), 1)

    return [
        plain("CPU µs/call", "cpu_us"),
        against("cpu_us"),
        plain("calls/s", "calls_s", 0),
        plain("p50 ms, c=1", "p50_1_ms", 2),
        plain("p99 ms, c=1", "p99_1_ms", 2),
        plain("p50 ms, full", "p50_ms", 2),
        plain("p99 ms, full", "p99_ms", 2),
        plain("CPU µs/chunk", "chunk_us"),
        against("chunk_us"),
        plain("first event ms", "first_event_ms", 2),
        plain("RSS MB idle", "idle_mb", 0),
        plain("RSS MB after", "load_mb", 0),
        plain("start s", "start_s", 2),
    ]


def _doubts(rounds: Sequence[Round], name: str) -> list[str]:
    reads = median_of(rounds, name, "reads_per_chunk")
    if reads is None or reads >= _SEPARATE:
        return []
    return [f"{name}: only {reads:.2f} reads per chunk – chunks were merged; its CPU per chunk is no fair figure."]


def _metered(rounds: Sequence[Round], house: gateway.House) -> str:
    """Whether the ledger has every call that was answered. Cut-off and warm-up calls are in it too."""
    answered, metered = int(sum(one[house.name]["calls"] for one in rounds)), house.metered()
    verdict = "none is missing" if metered >= answered else f"{answered - metered:,} ARE MISSING"
    return f"- {answered:,} calls answered in the rounds, {metered:,} in the ledger – {verdict}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
