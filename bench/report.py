"""What a run found, for people (a markdown table, doubts, goals) and the machine it was found on."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench import gateway, goals
from bench.stand import Stand
from bench.table import Column, Round, markdown, median_of, number, ratio_of

_PACKAGES = ("ostiary", "uvicorn", "uvloop", "httptools", "aiohttp", "msgspec")
_SEPARATE = 0.9
"""Below this many reads per chunk, chunks were merged on the way, and CPU per chunk flatters."""


def text(ready: Stand, rounds: Sequence[Round]) -> str:
    """The table and what to think of it."""
    names = [target.name for target in ready.targets]
    lines = [markdown(names, _columns(rounds))]
    lines += ["", f"Median of {len(rounds)} interleaved rounds, ratios taken within a round; `direct` is the upstream."]
    lines += [line for name in names for line in _doubts(rounds, name)]
    for house in ready.houses:
        name = house.name
        lines += ["", f"{name}:", _metered(rounds, house)]
        if house.is_shared:
            lines += [f"- calls/s against one process: {number(ratio_of(rounds, name, 'ostiary', 'calls_s'), 2)}×"]
        lines += [verdict.line() for verdict in goals.judge(rounds, name, _goals_of(house))]
    return "\n".join(lines)


def _goals_of(house: gateway.House) -> Sequence[goals.Goal]:
    if house.is_shared:
        return goals.SHARED
    return goals.CROWDED if house.size.keys > 1 else goals.GOALS


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
