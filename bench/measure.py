"""One round on one target: calls at full load, one by one, with a fallback; streams, and many of them held open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from http.client import HTTPConnection

from bench import payload, proc
from bench.client import Report
from bench.load import Crowd, Loader
from bench.target import FALLING, STEADY, Target

_OPENING_S = 90.0
_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """How hard and how long."""

    seconds: int
    concurrency: int
    streams: int
    pace_s: float
    crowds: Sequence[Crowd] = ()


def measure(target: Target, loader: Loader, plan: Plan) -> dict[str, float]:
    """The figures of a round, named as the columns of the table."""
    found: dict[str, float] = {}
    _full_load(target, loader, plan, found)
    _one_by_one(target, loader, plan, found)
    if target.stream_path is not None:
        _streams(target, loader, plan, found)
    if target.falls_back:
        _fallback(target, loader, plan, found)
    found["load_mb"] = proc.total(target.running).rss_mb
    if target.stream_path is not None and len(target.ports) == 1 and target.holds_many:
        for crowd in plan.crowds:
            _held_open(target, loader, crowd, found)
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


def _fallback(target: Target, loader: Loader, plan: Plan, found: dict[str, float]) -> None:
    """CPU of a call whose first attempt is refused, and of one whose first attempt is answered, by the same gateway.

    The upstream refuses with what says nothing of the key (403, a country it does not serve): so nobody learns to pass
    the target over, and each call makes both attempts, as it would in the first moments of an outage.
    """
    for name, model in (("steady_us", STEADY), ("fallback_us", FALLING)):
        one = replace(target, model=model)
        _require_way(one, falls_back=model == FALLING)
        before = proc.settled(target.running)
        calls = loader.calls(one, concurrency=plan.concurrency, seconds=plan.seconds)
        after = proc.settled(target.running)
        _require_way(one, falls_back=model == FALLING)
        found[name] = (after.cpu_s - before.cpu_s) / calls.done * 1e6
        found["calls"] += calls.done


def _require_way(target: Target, *, falls_back: bool) -> None:
    """One call, whose headers say whether the first target answered it."""
    headers = {"authorization": f"Bearer {target.bearer}", "content-type": "application/json"}
    with closing(HTTPConnection("127.0.0.1", target.ports[0], timeout=10)) as door:
        door.request("POST", payload.PATH, payload.request(model=target.model), headers)
        answer = door.getresponse()
        said = answer.read()
    if answer.status != 200 or (answer.headers.get("x-ostiary-fallback-from") is not None) != falls_back:
        raise proc.BenchFailed(
            f"{target.name} answers {target.model} with {answer.status} in {answer.headers.get('x-ostiary-attempts')} "
            f"attempts, which is not what is to be measured: {said[:500]!r}"
        )


def _held_open(target: Target, loader: Loader, crowd: Crowd, found: dict[str, float]) -> None:
    """Memory while all streams are open, and CPU per event, both only of the time in which they are."""
    proc.settled(target.running)
    with loader.holding(target, crowd) as client:
        if client.line(_OPENING_S) is None:
            raise proc.BenchFailed(f"{target.name} did not open {crowd.count:,} streams in {_OPENING_S:.0f} s.")
        before = proc.total(target.running)
        most_mb, said = before.rss_mb, None
        while said is None:
            said = client.line(_LOOK_S)
            after = proc.total(target.running)
            most_mb = max(most_mb, after.rss_mb)
    report = Report(**json.loads(said))
    if report.failed or not report.events:
        raise proc.BenchFailed(
            f"{target.name}: {report.failed} of {crowd.count:,} open streams ended by themselves: {report.complaint}\n"
            + "\n".join(running.last_words() for running in target.running)
        )
    found[f"{crowd.name}_mb"] = most_mb
    found[f"{crowd.name}_chunk_us"] = (after.cpu_s - before.cpu_s) / report.events * 1e6
    found[f"{crowd.name}_chunks_s"] = report.events / report.seconds
    found[f"{crowd.name}_gap_ms"] = crowd.count * report.seconds / report.events * 1000
    found[f"{crowd.name}_reads"] = report.reads / report.events
    found["calls"] += report.done
