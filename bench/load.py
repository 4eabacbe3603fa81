"""Puts load on a target from a core of its own: plain calls by wrk where it is installed, streams by our own client."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import payload, proc
from bench.client import Job, Report
from bench.target import Target

_SLACK_S = 30.0
_TRIES = 3
_OPENED_A_SECOND = 1_000

_LUA = """
wrk.method = "POST"
wrk.path = "{path}"
wrk.body = [==[{body}]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {bearer}"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{{"done":%d,"seconds":%.6f,"p50_ms":%.4f,"p99_ms":%.4f,"failed":%d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Calls:
    """How plain calls went."""

    done: int
    seconds: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Streams:
    """How streams went."""

    done: int
    events: int
    reads: int
    first_event_ms: float
    """Median."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Streams that are held open at the same time, each with an event every so often, as far as the machine can."""

    count: int
    gap_ms: float
    seconds: int
    """How long they are counted once all are open."""

    @property
    def name(self) -> str:
        """What the names of its measures begin with."""
        return f"open_{self.gap_ms:g}ms"


@dataclass(frozen=True, slots=True)
class Loader:
    """Where the load runs from."""

    work: Path
    cores: frozenset[int]

    @property
    def name(self) -> str:
        """What makes the plain calls."""
        return "wrk" if shutil.which("wrk") else "bench.client"

    def calls(self, target: Target, *, concurrency: int, seconds: int) -> Calls:
        """Closed-loop calls; any answer but a 200 ends the bench."""
        wrk = shutil.which("wrk")
        if wrk is None:
            return _calls_of(self._reports(target, "calls", concurrency, seconds))
        script = self.work / "wrk.lua"
        body = payload.request(model=target.model).decode()
        script.write_text(_LUA.format(path=payload.PATH, body=body, bearer=target.bearer))
        commands = [
            [
                wrk,
                "-t1",
                f"-c{share}",
                f"-d{seconds}s",
                "--timeout",
                "10s",
                "-s",
                str(script),
                f"http://127.0.0.1:{port}",
            ]
            for port, share in _shares(target, concurrency)
        ]
        for _ in range(_TRIES):
            said = proc.outputs(commands, cores=self.cores, timeout_s=seconds + _SLACK_S)
            calls = _calls_of_wrk(target, [json.loads(text.splitlines()[-1]) for text in said])
            if calls.done:
                return calls
            print(f"bench: {target.name} answered nothing for {seconds} s; once more", file=sys.stderr)
        raise proc.BenchFailed(f"{target.name} stands still at {concurrency} connections.\n{_logs(target)}")

    def streams(self, target: Target, *, concurrency: int, seconds: float, stagger_s: float) -> Streams:
        """Whole streams, one after the other on each connection; one that is not whole ends the bench."""
        reports = self._reports(target, "streams", concurrency, seconds, stagger_s)
        return Streams(
            sum(report.done for report in reports),
            sum(report.events for report in reports),
            sum(report.reads for report in reports),
            statistics.median(one for report in reports for one in report.latency_ms),
        )

    @contextlib.contextmanager
    def holding(self, target: Target, crowd: Crowd) -> Iterator[proc.Talk]:
        """Our client, which says a line when all streams of one port are open, and one when it has counted."""
        job = Job(
            kind="open",
            port=target.ports[0],
            path=target.stream_path or payload.PATH,
            bearer=target.bearer,
            body=payload.request(model=target.model, stream=True, gap_ms=crowd.gap_ms).decode(),
            concurrency=crowd.count,
            seconds=crowd.seconds,
            stagger_s=crowd.count / _OPENED_A_SECOND,
        )
        path = self.work / f"job-{target.ports[0]}.json"
        path.write_text(json.dumps(asdict(job)))
        with proc.talking([sys.executable, "-m", "bench.client", str(path)], cores=self.cores) as client:
            yield client

    def check(self, target: Target) -> None:
        """One call and one stream, before anything is measured: wrk only counts, our client says what was answered."""
        self._reports(target, "calls", len(target.ports), 0.001)
        if target.stream_path is not None:
            self._reports(target, "streams", len(target.ports), 0.001)

    def _reports(
        self, target: Target, kind: str, concurrency: int, seconds: float, stagger_s: float = 0.0
    ) -> list[Report]:
        streamed = kind == "streams"
        path = (target.stream_path if streamed else None) or payload.PATH
        body = payload.request(model=target.model, stream=streamed).decode()
        commands = []
        for port, share in _shares(target, concurrency):
            job = self.work / f"job-{port}.json"
            job.write_text(json.dumps(asdict(Job(kind, port, path, target.bearer, body, share, seconds, stagger_s))))
            commands.append([sys.executable, "-m", "bench.client", str(job)])
        said = proc.outputs(commands, cores=self.cores, timeout_s=seconds + _SLACK_S)
        reports = [Report(**json.loads(text)) for text in said]
        for report in reports:
            if report.failed or not report.done:
                raise proc.BenchFailed(
                    f"{target.name}: {report.failed} of the {kind} failed: {report.complaint}\n{_logs(target)}"
                )
        return reports


def _logs(target: Target) -> str:
    return "\n".join(running.last_words() for running in target.running)


def _shares(target: Target, concurrency: int) -> list[tuple[int, int]]:
    """The connections of each port, as even as they go and at least one."""
    each, rest = divmod(concurrency, len(target.ports))
    return [(port, max(1, each + (n < rest))) for n, port in enumerate(target.ports)]


def _calls_of(reports: Sequence[Report]) -> Calls:
    latency = [one for report in reports for one in report.latency_ms]
    cuts = statistics.quantiles(latency, n=100, method="inclusive")
    return Calls(sum(report.done for report in reports), max(report.seconds for report in reports), cuts[49], cuts[98])


def _calls_of_wrk(target: Target, said: Sequence[dict[str, float]]) -> Calls:
    failed = sum(one["failed"] for one in said)
    done = sum(one["done"] for one in said)
    if failed:
        raise proc.BenchFailed(
            f"{target.name}: {failed:.0f} of {done:.0f} calls failed or were not answered by a 200.\n{_logs(target)}"
        )
    # Several processes: the middle of their medians, the worst of their tails.
    return Calls(
        int(done),
        max(one["seconds"] for one in said),
        statistics.median(one["p50_ms"] for one in said),
        max(one["p99_ms"] for one in said),
    )
