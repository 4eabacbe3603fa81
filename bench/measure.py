"""One round on one target: calls at full load, calls one by one, streams; each with the CPU it took."""

from __future__ import annotations

from dataclasses import dataclass

from bench import proc
from bench.load import Loader
from bench.target import Target


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard and how long."""

    seconds: int
    concurrency: int
    streams: int
    pace_s: float


def measure(target: Target, loader: Loader, plan: Plan) -> dict[str, float]:
    """The figures of a round, named as the columns of the table."""
    found: dict[str, float] = {}
    _full_load(target, loader, plan, found)
    _one_by_one(target, loader, plan, found)
    if target.stream_path is not None:
        _streams(target, loader, plan, found)
    found["load_mb"] = proc.total(target.running).rss_mb
    return found


def _top_ups(target: Target) -> float:
    """How often its processes leased more of a budget, since their start; 0 where nobody may look."""
    if target.token is None:
        return 0
    return sum(proc.metric(port, target.token, "ostiary_purse_top_ups_total") for port in target.ports)


def _full_load(target: Target, loader: Loader, plan: Plan, found: dict[str, float]) -> None:
    if target.token is not None:
        loader.check(target)  # what an idle process gave back is leased again, and not counted as a part of the load
    topped_up = _top_ups(target)
    before = proc.total(target.running)
    calls = loader.calls(target, concurrency=plan.concurrency, seconds=plan.seconds)
    after = proc.settled(target.running)
    found["cpu_us"] = (after.cpu_s - before.cpu_s) / calls.done * 1e6
    found["calls_s"] = calls.done / calls.seconds
    found["p50_ms"] = calls.p50_ms
    found["p99_ms"] = calls.p99_ms
    found["calls"] = calls.done
    if target.token is not None:
        found["top_ups"] = _top_ups(target) - topped_up
        found["top_ups_per_1000"] = found["top_ups"] / calls.done * 1000


def _one_by_one(target: Target, loader: Loader, plan: Plan, found: dict[str, float]) -> None:
    calls = loader.calls(target, concurrency=len(target.ports), seconds=max(1, plan.seconds // 2))
    found["p50_1_ms"] = calls.p50_ms
    found["p99_1_ms"] = calls.p99_ms
    found["calls"] += calls.done


def _streams(target: Target, loader: Loader, plan: Plan, found: dict[str, float]) -> None:
    before = proc.settled(target.running)
    streams = loader.streams(
        target, concurrency=plan.streams, seconds=plan.seconds, stagger_s=max(plan.pace_s, 0.001) * plan.streams
    )
    after = proc.settled(target.running)
    found["chunk_us"] = (after.cpu_s - before.cpu_s) / streams.events * 1e6
    found["first_event_ms"] = streams.first_event_ms
    found["reads_per_chunk"] = streams.reads / streams.events
    found["calls"] += streams.done
