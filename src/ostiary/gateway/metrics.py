"""`/metrics`: how this process is, as Prometheus reads it; made anew at every scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

from ostiary.gateway.details import VERSION, Instance, look
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.money import usd_of

if TYPE_CHECKING:
    from prometheus_client.core import Metric

Number = int | float | Decimal
_Labels = TypeVar("_Labels", bound=tuple[str, ...])

_TYPE: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_FRESH: Final = (b"cache-control", b"no-store")
_SAFE: Final = (b"x-content-type-options", b"nosniff")


class _Numbers(NamedTuple):
    """One metric: its values by their labels. Prometheus adds `_total` to what only grows."""

    kind: Literal["counter", "gauge"]
    name: str
    says: str
    labels: tuple[str, ...]
    values: tuple[tuple[tuple[str, ...], Number], ...]


async def metrics(gate: Gate, exchange: Exchange) -> None:
    """Every number there is. What only the database knows is left out while it is away."""
    of_process = (*_of_calls(gate), *_of_money(gate), *_of_backlog(gate), *_of_spans(gate))
    body = _render([*of_process, *_of_all(await look(gate))])
    request_id = (b"x-request-id", exchange.request_id.encode())
    await exchange.answer(200, body, (_TYPE, request_id, _FRESH, _SAFE))


def _render(found: list[_Numbers]) -> bytes:
    """In a registry of this scrape alone: nothing is kept, and nothing is global."""
    import prometheus_client as prometheus  # noqa: PLC0415 - eight megabytes that nobody needs who does not scrape

    registry = prometheus.CollectorRegistry()
    registry.register(_Collector(found))
    prometheus.ProcessCollector(namespace="ostiary", registry=registry)
    return prometheus.generate_latest(registry)


class _Collector:
    """What prometheus_client asks for its metrics."""

    def __init__(self, found: list[_Numbers]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - as above

        for one in self._found:
            family = (CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily)(
                one.name, one.says, labels=one.labels
            )
            for labels, number in one.values:
                family.add_metric(labels, float(number))
            yield family


def _of_calls(gate: Gate) -> Iterator[_Numbers]:
    watch = gate.watch
    yield _gauge("info", "Name and version, as labels; always 1.", {(watch.name, VERSION): 1}, "name", "version")
    ended = "Calls that have ended, by operation and class of the answer."
    yield _counter("calls", ended, watch.calls, "operation", "status")
    refusals = {(code,): count for code, count in watch.refusals.items()}
    yield _counter("refusals", "Calls that were refused, by code.", refusals, "code")
    tried = "Attempts at providers, by how they ended."
    yield _counter("attempts", tried, watch.attempts, "operation", "provider", "status")
    tokens = {(kind,): count for kind, count in watch.tokens.items()}
    yield _counter("tokens", "LLM tokens that attempts have used, by kind.", tokens, "kind")
    yield _gauge("open_calls", "Calls under way.", {(): watch.open_calls})


def _of_money(gate: Gate) -> Iterator[_Numbers]:
    watch = gate.watch
    yield _counter("cost_usd", "What attempts have cost.", {(): usd_of(watch.cost_nano)})
    yield _counter("over_hold_usd", "What they cost beyond what was held.", {(): usd_of(watch.over_hold_nano)})
    purses = dict(zip((("free",), ("held",), ("leased",)), map(usd_of, watch.purses()), strict=True))
    yield _gauge("purse_usd", "Budget this process has: free, held by open calls, leased in all.", purses, "state")
    yield _counter("purse_top_ups", "How often more of a budget was leased.", {(): watch.top_ups()})


def _of_backlog(gate: Gate) -> Iterator[_Numbers]:
    spool, directory = gate.spool, gate.directory
    yield _gauge("spool_unsent", "Settlements the database does not have yet.", {(): len(spool.unsent)})
    yield _gauge("spool_late", "Settlements the disk has not taken yet.", {(): spool.late})
    yield _gauge("spool_size_bytes", "Size of the spool on the disk.", {(): spool.size})
    yield _gauge("ledger_behind", "Settled attempts on their way to the ledger.", {(): gate.writer.behind})
    yield _gauge("feed_revision", "The newest change this process knows of.", {(): directory.seq})
    yield _gauge("feed_age_seconds", "Since the change feed was last heard out.", {(): directory.silence_s})
    yield _gauge("event_loop_lag_seconds", "Worst lag of the last minute.", {(): gate.watch.lag_s})


def _of_spans(gate: Gate) -> Iterator[_Numbers]:
    counts = gate.watch.spans()
    if counts is not None:
        yield _counter("spans_sent", "Spans that the collector has taken.", {(): counts.sent})
        yield _counter("spans_dropped", "Spans that nobody will see.", {(): counts.dropped})
        yield _gauge("spans_waiting", "Spans that are yet to be sent.", {(): counts.waiting})


def _of_all(instance: Instance | None) -> Iterator[_Numbers]:
    yield _gauge("database_up", "Whether the database answered.", {(): int(instance is not None)})
    if instance is None:
        return
    waiting, given_up = instance.undelivered.waiting, instance.undelivered.given_up
    failing = {(job.name,): int(bool(job.error)) for job in instance.jobs}
    lost = usd_of(instance.lost_nano)
    yield _gauge("database_latency_seconds", "How long a look into it took.", {(): instance.latency_s})
    yield _gauge("gateways_live", "Processes that share limits and budgets.", {(): instance.live})
    yield _gauge("gateways_lost_usd", "Budget held by gateways that are lost.", {(): lost})
    yield _gauge("limit_share_ratio", "This process's part of each limit.", {(): 1 / max(instance.live, 1)})
    yield _gauge("job_failing", "1 where the last run of a job failed.", failing, "job")
    yield _gauge("notifications_waiting", "Deliveries that failed and are tried again.", {(): waiting})
    yield _gauge("notifications_given_up", "Deliveries that nobody tries any more.", {(): given_up})


def _counter(name: str, says: str, values: Mapping[_Labels, Number], *labels: str) -> _Numbers:
    return _Numbers("counter", f"ostiary_{name}", says, labels, tuple(values.items()))


def _gauge(name: str, says: str, values: Mapping[_Labels, Number], *labels: str) -> _Numbers:
    return _Numbers("gauge", f"ostiary_{name}", says, labels, tuple(values.items()))
