"""Traces and usage say what the ledger holds, of one organization, key and time, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.clock import DAY_MS
from ostiary.db.database import Database
from ostiary.ledger import reports, store
from ostiary.ledger.events import Event
from ostiary.providers.tokens import Tokens

pytestmark = pytest.mark.anyio

ORG = "orgn_alice"
OTHER = "orgn_dora"
DAY = 20_000 * DAY_MS
"""2024-10-04, midnight UTC."""


def event(request_id: str, **more: Any) -> Event:
    values: dict[str, Any] = {
        "request_id": request_id,
        "attempt": 1,
        "organization_id": ORG,
        "agent_key_id": "key_bob",
        "agent_key_name": "bob",
        "credential_id": None,
        "operation": "chat",
        "provider": "openai",
        "model_asked": "fast",
        "model": "gpt-4o",
        "provider_key_id": "pk_1",
        "provider_key_name": "main",
        "stream": False,
        "started_at": DAY,
        "client_ip": "192.0.2.1",
        "metadata": {"team": "search"},
        "held_nano": 500,
        "leased": (),
        "price_version": "p1",
        "cost_nano": 120,
        "usage_source": "provider",
        "status": "ok",
        "http_status": 200,
        "input_tokens": 10,
        "output_tokens": 5,
        "cache_read_tokens": 4,
        "cache_write_tokens": 3,
        "reasoning_tokens": 2,
        "audio_tokens": 1,
        "latency_ms": 42,
        "first_token_ms": 7,
        "timings": {"admit": 1},
    }
    return Event(**{**values, **more})


async def keep(database: Database, *events: Event) -> None:
    async with database.transaction() as tx:
        await store.add_events(tx, "spool_1", list(events))


async def test_a_trace_says_everything_about_an_attempt(database: Database) -> None:
    await keep(database, event("req_1"))
    async with database.read() as tx:
        (trace,) = await reports.list_traces(tx, ORG)
    assert trace == reports.Trace(
        request_id="req_1",
        attempt=1,
        at=DAY,
        agent_key_id="key_bob",
        agent_key="bob",
        credential_id=None,
        operation="chat",
        provider="openai",
        provider_key="main",
        model_asked="fast",
        model="gpt-4o",
        status="ok",
        http_status=200,
        error_code=None,
        stream=False,
        tokens=Tokens(input=10, output=5, cache_read=4, cache_write=3, reasoning=2, audio=1),
        held_nano=500,
        cost_nano=120,
        over_hold_nano=0,
        price_version="p1",
        usage_source="provider",
        latency_ms=42,
        first_token_ms=7,
        timings={"admit": 1},
        client_ip="192.0.2.1",
        metadata={"team": "search"},
    )


async def test_the_newest_traces_come_first_and_attempts_of_a_call_in_reverse(database: Database) -> None:
    await keep(
        database,
        event("req_b", attempt=1, started_at=DAY + 1),
        event("req_a", started_at=DAY + 2),
        event("req_b", attempt=2, started_at=DAY + 1),
        event("req_c", started_at=DAY),
    )
    async with database.read() as tx:
        found = await reports.list_traces(tx, ORG)
    assert [(trace.request_id, trace.attempt) for trace in found] == [
        ("req_a", 1),
        ("req_b", 2),
        ("req_b", 1),
        ("req_c", 1),
    ]


async def test_the_limit_counts_the_newest_and_zero_is_all(database: Database) -> None:
    await keep(database, *(event(f"req_{number:03}", started_at=DAY + number) for number in range(120)))
    async with database.read() as tx:
        assert len(await reports.list_traces(tx, ORG)) == 100
        assert [trace.request_id for trace in await reports.list_traces(tx, ORG, limit=2)] == ["req_119", "req_118"]
        assert len(await reports.list_traces(tx, ORG, limit=0)) == 120


async def test_traces_are_those_of_the_organization_the_key_and_the_time(database: Database) -> None:
    await keep(
        database,
        event("req_other", organization_id=OTHER),
        event("req_old", started_at=DAY - 1),
        event("req_on_time", started_at=DAY),
        event("req_of_another_key", agent_key_id="key_erin"),
        event("req_of_a_credential", agent_key_id=None, agent_key_name=None, credential_id="cred_1"),
    )
    async with database.read() as tx:
        since = await reports.list_traces(tx, ORG, since_at=DAY)
        of_bob = await reports.list_traces(tx, ORG, agent_key_id="key_bob", since_at=DAY)
        of_nobody = await reports.list_traces(tx, ORG, agent_key_id="key_none")
        of_dora = await reports.list_traces(tx, OTHER)
    assert {trace.request_id for trace in since} == {"req_on_time", "req_of_another_key", "req_of_a_credential"}
    assert [trace.request_id for trace in of_bob] == ["req_on_time"]
    assert of_nobody == []
    assert [trace.request_id for trace in of_dora] == ["req_other"]


async def test_usage_adds_up_by_day_key_and_model(database: Database) -> None:
    await keep(
        database,
        event("req_1", cost_nano=100),
        event("req_2", cost_nano=50, started_at=DAY + DAY_MS - 1),
        event("req_3", cost_nano=1, started_at=DAY + DAY_MS),
        event("req_4", cost_nano=7, model="gpt-4o-mini"),
        event("req_5", organization_id=OTHER, cost_nano=1_000),
        event("req_6", started_at=DAY - 1, cost_nano=1_000),
    )
    async with database.read() as tx:
        rows = await reports.sum_usage(tx, ORG, since_at=DAY)
    assert [(row.day, row.model, row.requests, row.cost_nano) for row in rows] == [
        ("2024-10-05", "gpt-4o", 1, 1),
        ("2024-10-04", "gpt-4o", 2, 150),
        ("2024-10-04", "gpt-4o-mini", 1, 7),
    ]
    assert rows[1].tokens == Tokens(input=20, output=10, cache_read=8, cache_write=6, reasoning=4, audio=2)
    assert (rows[1].agent_key, rows[1].agent_key_id, rows[1].provider) == ("bob", "key_bob", "openai")


async def test_attempts_of_one_call_are_one_request_and_failures_are_counted(database: Database) -> None:
    await keep(
        database,
        event("req_1", attempt=1, status="error", error_code="provider_error", cost_nano=0),
        event("req_1", attempt=2),
        event("req_2", status="cancelled"),
        event("req_3", status="unknown"),
    )
    async with database.read() as tx:
        (row,) = await reports.sum_usage(tx, ORG, since_at=DAY)
    assert (row.requests, row.errors, row.cost_nano) == (3, 2, 360)


async def test_tokens_without_a_price_are_pointed_out(database: Database) -> None:
    await keep(
        database,
        event("req_1", price_version=None, cost_nano=0),
        event("req_2", price_version=None, cost_nano=0, status="error", input_tokens=0, output_tokens=0),
        event("req_3"),
    )
    async with database.read() as tx:
        (row,) = await reports.sum_usage(tx, ORG, since_at=DAY)
    assert row.unpriced == 1


async def test_a_renamed_key_stays_one_key_and_usage_can_be_of_one_caller(database: Database) -> None:
    await keep(
        database,
        event("req_1", agent_key_name="bob"),
        event("req_2", agent_key_name="robert", started_at=DAY + 1),
        event("req_3", agent_key_id="key_erin", agent_key_name="erin"),
        event("req_4", agent_key_id=None, agent_key_name=None, credential_id="cred_1"),
    )
    async with database.read() as tx:
        of_bob = await reports.sum_usage(tx, ORG, agent_key_id="key_bob", since_at=DAY)
        of_credential = await reports.sum_usage(tx, ORG, credential_id="cred_1", since_at=DAY)
        of_all = await reports.sum_usage(tx, ORG, since_at=DAY)
    assert [(row.agent_key, row.requests) for row in of_bob] == [("robert", 2)]
    assert [(row.agent_key, row.credential_id, row.requests) for row in of_credential] == [(None, "cred_1", 1)]
    assert sum(row.requests for row in of_all) == 4


async def test_sums_stay_exact_beyond_what_a_float_holds(database: Database) -> None:
    great = 4_000_000_000_000_000_001
    await keep(database, event("req_1", cost_nano=great), event("req_2", cost_nano=2))
    async with database.read() as tx:
        (row,) = await reports.sum_usage(tx, ORG, since_at=DAY)
    assert row.cost_nano == great + 2


async def test_history_finds_a_deleted_key_by_its_last_bearer(database: Database) -> None:
    await keep(
        database,
        event("req_1", agent_key_id="key_old", agent_key_name="bot"),
        event("req_2", agent_key_id="key_new", agent_key_name="bot", started_at=DAY + 1),
        event("req_3", organization_id=OTHER, agent_key_id="key_dora", agent_key_name="hers"),
    )
    async with database.read() as tx:
        assert await reports.find_agent_key_id(tx, ORG, "bot") == "key_new"
        assert await reports.find_agent_key_id(tx, ORG, "key_old") == "key_old"
        assert await reports.find_agent_key_id(tx, ORG, "hers") is None
        assert await reports.find_agent_key_id(tx, ORG, "key_dora") is None
