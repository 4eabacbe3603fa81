"""What was called and what it cost, as people ask for it: single traces, and sums by day, key and model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import RowMapping

from ostiary.clock import DAY_MS, day_of, iso
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import series_store, trace_store, usage_store
from ostiary.ledger.series_store import Days
from ostiary.ledger.trace_store import Place
from ostiary.ledger.trace_windows_store import Filter
from ostiary.ledger.usage_store import Dimension, UsageFilter
from ostiary.providers.tokens import Tokens

__all__ = ["Dimension", "Filter", "Place", "UsageFilter"]

USUAL: Final[tuple[Dimension, ...]] = ("day", "agent_key", "credential", "provider", "model")
_SHARE_DAYS: Final = 30
_MOST_MEASURED: Final = 100_000
_ALL: Final = 100


@dataclass(frozen=True, slots=True)
class Trace:
    """One attempt of one call, as the ledger has it.

    Names are those at the time of the call, but that of a client credential, which is today's.
    """

    request_id: str
    attempt: int
    at: int
    agent_key_id: str | None
    agent_key: str | None
    parent_key_id: str | None
    credential_id: str | None
    credential: str | None
    operation: str
    endpoint: str | None
    provider: str
    provider_key_id: str
    provider_key: str
    model_asked: str
    model: str
    model_served: str | None
    status: str
    http_status: int
    error_code: str | None
    stream: bool
    tokens: Tokens
    images: int
    held_nano: int
    cost_nano: int
    over_hold_nano: int
    price_version: str | None
    usage_source: str
    latency_ms: int
    first_token_ms: int | None
    timings: Mapping[str, Any]
    client_ip: str | None
    metadata: Mapping[str, Any]
    audio_ms: int = 0
    characters: int = 0
    searches: int = 0

    @property
    def caller(self) -> str | None:
        """What to call whoever asked."""
        return self.agent_key or self.credential or self.credential_id

    @property
    def place(self) -> Place:
        """Where it stands in the list: the next page begins after it."""
        return Place(self.at, self.request_id, self.attempt)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was used. A dimension that was not asked for is None; of the callers one is None always.

    `requests` counts calls where their first attempt went, `unpriced` attempts whose tokens had no price, and
    `latency_ms` is that of all attempts together.
    """

    day: str | None
    agent_key_id: str | None
    agent_key: str | None
    credential_id: str | None
    provider: str | None
    model: str | None
    provider_key_id: str | None
    provider_key: str | None
    requests: int
    attempts: int
    errors: int
    cancelled: int
    unpriced: int
    tokens: Tokens
    images: int
    latency_ms: int
    cost_nano: int
    audio_ms: int = 0
    characters: int = 0
    searches: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list of traces comes to. Of more attempts than `measured`, p50 and p95 are those of the newest."""

    attempts: int
    requests: int
    errors: int
    cost_nano: int
    average_ms: int | None
    p95_ms: int | None
    measured: int
    p50_ms: int | None = None

    @property
    def error_percent(self) -> float:
        """Failed attempts in percent of all."""
        return round(self.errors * _ALL / self.attempts, 2) if self.attempts else 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls of one agent key and its children, and how much of all calls of its organization they are."""

    requests: int
    percent: float


# ---- traces -----------------------------------------------------------------------------------------------------


async def list_traces(
    tx: Transaction,
    organization_id: str,
    wanted: Filter = Filter(),  # noqa: B008 - frozen
    *,
    after: Place | None = None,
    limit: int = 100,
) -> list[Trace]:
    """Attempts, the newest first, behind the place of the last one seen; `limit` 0 gives all."""
    rows = await trace_store.list_attempts(tx, organization_id, wanted, after=after, limit=limit)
    return await _traces(tx, organization_id, rows)


async def get_call(tx: Transaction, organization_id: str, request_id: str) -> list[Trace]:
    """Every attempt of one call, the first first; refuses with `not_found` when there is none."""
    rows = await trace_store.list_attempts_of(tx, organization_id, request_id)
    if not rows:
        raise Refusal("not_found", "There is no such call, or its trace was deleted.", param="request_id")
    return await _traces(tx, organization_id, rows)


async def sum_traces(
    tx: Transaction,
    organization_id: str,
    wanted: Filter = Filter(),  # noqa: B008 - frozen
    *,
    most: int = _MOST_MEASURED,
) -> Summary:
    """What the list of these traces comes to; how long the newest `most` of them took."""
    if wanted.is_summed:
        latencies = await trace_store.list_latencies(tx, organization_id, wanted, most)
        found = None
    else:
        found, latencies = await trace_store.measure_few(tx, organization_id, wanted, most)
    totals = found or await trace_store.sum_attempts(tx, organization_id, wanted)
    latencies.sort()
    return Summary(
        attempts=totals.attempts,
        requests=totals.requests,
        errors=totals.errors,
        cost_nano=totals.cost_nano,
        average_ms=totals.latency_ms // totals.attempts if totals.attempts else None,
        p95_ms=_percentile(latencies, 95),
        measured=len(latencies),
        p50_ms=_percentile(latencies, 50),
    )


async def measure(
    tx: Transaction, organization_id: str, wanted: Filter, most: int
) -> tuple[int | None, int | None, int]:
    """The p50 and p95 of the newest attempts in milliseconds, and of how many."""
    latencies = sorted(await trace_store.list_latencies(tx, organization_id, wanted, most))
    return _percentile(latencies, 50), _percentile(latencies, 95), len(latencies)


def _percentile(in_order: Sequence[int], percent: int) -> int | None:
    return in_order[-(-len(in_order) * percent // _ALL) - 1] if in_order else None


# ---- usage ------------------------------------------------------------------------------------------------------


async def sum_usage(
    tx: Transaction,
    organization_id: str,
    wanted: UsageFilter,
    by: Collection[Dimension] = USUAL,
    limit: int = 0,
) -> list[UsageRow]:
    """Sums by the dimensions named, the newest day first, then the dearest; `limit` 0 gives all."""
    rows = await usage_store.sum_usage(tx, organization_id, wanted, by, limit)
    return [_usage(row) for row in rows]


async def list_traffic(
    tx: Transaction, organization_id: str, at: int, keys: Collection[str] | None = None
) -> dict[str, Traffic]:
    """The share of agent keys (of `keys`, or of all that called) in all calls of the last 30 UTC days, with today."""
    today = day_of(at)
    days = Days(today - _SHARE_DAYS + 1, today + 1)
    total = await series_store.count_all_requests(tx, organization_id, days)
    requests = await series_store.count_requests(tx, organization_id, days, keys)
    wanted = requests if keys is None else keys
    counts = ((key_id, requests.get(key_id, 0)) for key_id in wanted)
    return {key_id: Traffic(count, round(count * _ALL / total, 1)) for key_id, count in counts if count}


async def find_agent_key_id(tx: Transaction, organization_id: str, id_or_name: str) -> str | None:
    """The key that the history knows under this id or name, last used first: it remembers deleted keys."""
    return await usage_store.find_key(tx, organization_id, id_or_name)


# ---- rows -------------------------------------------------------------------------------------------------------


async def _traces(tx: Transaction, organization_id: str, rows: Sequence[RowMapping]) -> list[Trace]:
    clients = {row["credential_id"] for row in rows if row["credential_id"]}
    names = await series_store.list_names(tx, organization_id, "credential", clients)
    return [_trace(row, names.get(row["credential_id"])) for row in rows]


def _trace(row: RowMapping, credential: str | None) -> Trace:
    return Trace(
        request_id=row["request_id"],
        attempt=row["attempt"],
        at=row["started_at"],
        agent_key_id=row["agent_key_id"],
        agent_key=row["agent_key_name"],
        parent_key_id=row["parent_key_id"],
        credential_id=row["credential_id"],
        credential=credential,
        operation=row["operation"],
        endpoint=row["endpoint"],
        provider=row["provider"],
        provider_key_id=row["provider_key_id"],
        provider_key=row["provider_key_name"],
        model_asked=row["model_asked"],
        model=row["model"],
        model_served=row["model_served"],
        status=row["status"],
        http_status=row["http_status"],
        error_code=row["error_code"],
        stream=row["stream"],
        tokens=_tokens(row),
        images=row["images"],
        audio_ms=row["audio_ms"],
        characters=row["characters"],
        searches=row["searches"],
        held_nano=row["held_nano"],
        cost_nano=row["cost_nano"],
        over_hold_nano=row["over_hold_nano"],
        price_version=row["price_version"],
        usage_source=row["usage_source"],
        latency_ms=row["latency_ms"],
        first_token_ms=row["first_token_ms"],
        timings=row["timings"],
        client_ip=row["client_ip"],
        metadata=row["metadata"],
    )


def _usage(row: RowMapping) -> UsageRow:
    """An id is empty in the sums where there is none."""
    day = row.get("day")
    return UsageRow(
        day=None if day is None else iso(day * DAY_MS)[:10],
        agent_key_id=row.get("agent_key_id") or None,
        agent_key=row.get("agent_key_name") or None,
        credential_id=row.get("credential_id") or None,
        provider=row.get("provider"),
        model=row.get("model"),
        provider_key_id=row.get("provider_key_id"),
        provider_key=row.get("provider_key_name") or None,
        requests=int(row["requests"]),
        attempts=int(row["attempts"]),
        errors=int(row["errors"]),
        cancelled=int(row["cancelled"]),
        unpriced=int(row["unpriced"]),
        tokens=_tokens(row),
        images=int(row["images"]),
        audio_ms=int(row["audio_ms"]),
        characters=int(row["characters"]),
        searches=int(row["searches"]),
        latency_ms=int(row["latency_ms"]),
        cost_nano=int(row["cost_nano"]),
    )


def _tokens(row: RowMapping) -> Tokens:
    """A sum is a Decimal on PostgreSQL and an int on SQLite."""
    return Tokens(
        input=int(row["input_tokens"]),
        output=int(row["output_tokens"]),
        cache_read=int(row["cache_read_tokens"]),
        cache_write=int(row["cache_write_tokens"]),
        reasoning=int(row["reasoning_tokens"]),
        audio=int(row["audio_tokens"]),
    )
