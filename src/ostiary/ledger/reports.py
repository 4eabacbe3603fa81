"""What was called and what it cost, as people ask for it: single traces, and sums by day, key and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from ostiary.clock import DAY_MS, iso
from ostiary.db.database import Transaction
from ostiary.ledger import store
from ostiary.providers.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Trace:
    """One attempt of one call, as the ledger has it. `agent_key` is the name at the time of the call."""

    request_id: str
    attempt: int
    at: int
    agent_key_id: str | None
    agent_key: str | None
    credential_id: str | None
    operation: str
    provider: str
    provider_key: str
    model_asked: str
    model: str
    status: str
    http_status: int
    error_code: str | None
    stream: bool
    tokens: Tokens
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


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one key used of one model on one UTC day. `unpriced` counts attempts whose tokens had no price."""

    day: str
    agent_key_id: str | None
    agent_key: str | None
    credential_id: str | None
    provider: str
    model: str
    requests: int
    errors: int
    unpriced: int
    tokens: Tokens
    cost_nano: int


async def list_traces(
    tx: Transaction,
    organization_id: str,
    *,
    agent_key_id: str | None = None,
    since_at: int | None = None,
    limit: int = 100,
) -> list[Trace]:
    """The newest attempts first; `limit` 0 gives all."""
    rows = await store.list_events(tx, organization_id, agent_key_id=agent_key_id, since_at=since_at, limit=limit)
    return [_trace(row) for row in rows]


async def sum_usage(
    tx: Transaction,
    organization_id: str,
    *,
    agent_key_id: str | None = None,
    credential_id: str | None = None,
    since_at: int,
) -> list[UsageRow]:
    """Sums by UTC day, key, provider and model, the newest day first."""
    rows = await store.sum_events(
        tx, organization_id, agent_key_id=agent_key_id, credential_id=credential_id, since_at=since_at
    )
    return [_usage(row) for row in rows]


async def find_agent_key_id(tx: Transaction, organization_id: str, id_or_name: str) -> str | None:
    """The key that the history knows under this id or name, last used first: it remembers deleted keys."""
    return await store.find_event_key(tx, organization_id, id_or_name)


def _trace(row: RowMapping) -> Trace:
    return Trace(
        request_id=row["request_id"],
        attempt=row["attempt"],
        at=row["started_at"],
        agent_key_id=row["agent_key_id"],
        agent_key=row["agent_key_name"],
        credential_id=row["credential_id"],
        operation=row["operation"],
        provider=row["provider"],
        provider_key=row["provider_key_name"],
        model_asked=row["model_asked"],
        model=row["model"],
        status=row["status"],
        http_status=row["http_status"],
        error_code=row["error_code"],
        stream=row["stream"],
        tokens=_tokens(row),
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
    return UsageRow(
        day=iso(row["day"] * DAY_MS)[:10],
        agent_key_id=row["agent_key_id"],
        agent_key=row["agent_key_name"],
        credential_id=row["credential_id"],
        provider=row["provider"],
        model=row["model"],
        requests=row["requests"],
        errors=int(row["errors"]),
        unpriced=int(row["unpriced"]),
        tokens=_tokens(row),
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
