"""Traces and usage say what the ledger holds, of one organization, key and time, on both databases."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import delete

from ostiary.clock import DAY_MS, iso
from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.ledger import reports, store, trace_windows_store
from ostiary.ledger.events import Event
from ostiary.ledger.reports import Dimension, Filter, UsageFilter
from ostiary.providers.tokens import Tokens
from tests.contract.conftest import fresh, opened
from tests.people import refused

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
        "held_at": DAY,
        "parent_key_id": "key_parent",
        "endpoint": "fast",
        "model_served": "gpt-4o-2024-11-20",
        "images": 6,
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
        parent_key_id="key_parent",
        credential_id=None,
        credential=None,
        operation="chat",
        endpoint="fast",
        provider="openai",
        provider_key_id="pk_1",
        provider_key="main",
        model_asked="fast",
        model="gpt-4o",
        model_served="gpt-4o-2024-11-20",
        status="ok",
        http_status=200,
        error_code=None,
        stream=False,
        tokens=Tokens(input=10, output=5, cache_read=4, cache_write=3, reasoning=2, audio=1),
        images=6,
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
        since = await reports.list_traces(tx, ORG, Filter(since_at=DAY))
        of_bob = await reports.list_traces(tx, ORG, Filter(agent_key_ids=("key_bob",), since_at=DAY))
        of_nobody = await reports.list_traces(tx, ORG, Filter(agent_key_ids=("key_none",)))
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
        rows = await reports.sum_usage(tx, ORG, UsageFilter(DAY))
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
        (row,) = await reports.sum_usage(tx, ORG, UsageFilter(DAY))
    assert (row.requests, row.errors, row.cost_nano) == (3, 2, 360)


async def test_tokens_without_a_price_are_pointed_out(database: Database) -> None:
    await keep(
        database,
        event("req_1", price_version=None, cost_nano=0),
        event("req_2", price_version=None, cost_nano=0, status="error", input_tokens=0, output_tokens=0, images=0),
        event("req_3"),
        event("req_4", price_version=None, cost_nano=0, input_tokens=0, output_tokens=0, images=1),
    )
    async with database.read() as tx:
        (row,) = await reports.sum_usage(tx, ORG, UsageFilter(DAY))
    assert row.unpriced == 2, "of tokens, and of an image"


async def test_a_renamed_key_stays_one_key_and_usage_can_be_of_one_caller(database: Database) -> None:
    await keep(
        database,
        event("req_1", agent_key_name="bob"),
        event("req_2", agent_key_name="robert", started_at=DAY + 1),
        event("req_3", agent_key_id="key_erin", agent_key_name="erin"),
        event("req_4", agent_key_id=None, agent_key_name=None, credential_id="cred_1"),
    )
    async with database.read() as tx:
        of_bob = await reports.sum_usage(tx, ORG, UsageFilter(DAY, agent_key_ids=("key_bob",)))
        of_credential = await reports.sum_usage(tx, ORG, UsageFilter(DAY, credential_id="cred_1"))
        of_all = await reports.sum_usage(tx, ORG, UsageFilter(DAY))
    assert [(row.agent_key, row.requests) for row in of_bob] == [("robert", 2)]
    assert [(row.agent_key, row.credential_id, row.requests) for row in of_credential] == [(None, "cred_1", 1)]
    assert sum(row.requests for row in of_all) == 4


async def test_sums_stay_exact_beyond_what_a_float_holds(database: Database) -> None:
    great = 4_000_000_000_000_000_001
    await keep(database, event("req_1", cost_nano=great), event("req_2", cost_nano=2))
    async with database.read() as tx:
        (row,) = await reports.sum_usage(tx, ORG, UsageFilter(DAY))
    assert row.cost_nano == great + 2


async def test_history_finds_a_deleted_key_by_its_last_bearer(database: Database) -> None:
    await keep(
        database,
        event("req_1", agent_key_id="key_old", agent_key_name="bot"),
        event("req_2", agent_key_id="key_new", agent_key_name="bot", started_at=DAY + DAY_MS),
        event("req_3", organization_id=OTHER, agent_key_id="key_dora", agent_key_name="hers"),
    )
    async with database.read() as tx:
        assert await reports.find_agent_key_id(tx, ORG, "bot") == "key_new"
        assert await reports.find_agent_key_id(tx, ORG, "key_old") == "key_old"
        assert await reports.find_agent_key_id(tx, ORG, "hers") is None
        assert await reports.find_agent_key_id(tx, ORG, "key_dora") is None


# ---- filters, pages, sums -----------------------------------------------------------------------------------------


def _fits(one: Event, wanted: Filter) -> bool:
    return all(
        (
            wanted.agent_key_ids is None or one.agent_key_id in wanted.agent_key_ids,
            wanted.status in (None, one.status),
            wanted.since_at is None or one.started_at >= wanted.since_at,
            wanted.until_at is None or one.started_at < wanted.until_at,
            wanted.model in (None, one.model),
            wanted.provider in (None, one.provider),
            wanted.provider_key_id in (None, one.provider_key_id),
            wanted.endpoint in (None, one.endpoint),
            one.latency_ms >= (wanted.min_latency_ms or 0),
            one.cost_nano >= (wanted.min_cost_nano or 0),
        )
    )


def _many() -> list[Event]:
    """Five days of calls in uneven hours, some of them rare in one way or another."""
    found = []
    for number in range(400):
        at = DAY + (number * number * 7_919_000) % (5 * DAY_MS)
        found.append(
            event(
                f"req_{number:03}",
                attempt=number % 3 + 1,
                agent_key_id=("key_bob", "key_erin", None)[number % 3],
                model="rare" if number % 97 == 0 else "gpt-4o",
                provider="groq" if number % 41 == 0 else "openai",
                status=("ok", "ok", "ok", "error", "cancelled")[number % 5] if number != 200 else "unknown",
                started_at=at - at % (1 if number % 4 else 1_000),
                latency_ms=number % 50 * 100 if number != 123 else 60_000,
                cost_nano=number if number != 321 else 10**12,
                provider_key_id=f"pk_{1 + (number % 53 == 0)}",
                endpoint=(None, "fast", "slow")[number % 7 % 3],
            )
        )
    return found


MANY = _many()
WANTED = (
    Filter(),
    Filter(agent_key_ids=("key_bob",)),
    Filter(agent_key_ids=("key_bob", "key_erin", "key_nobody")),
    Filter(agent_key_ids=()),
    *(Filter(status=status) for status in ("ok", "error", "cancelled", "unknown", "no such")),
    Filter(since_at=DAY + 3_000_000, until_at=DAY + 2 * DAY_MS + 1),
    Filter(since_at=DAY + DAY_MS, until_at=DAY + 2 * DAY_MS),
    Filter(since_at=DAY + 2 * DAY_MS, until_at=DAY),
    Filter(model="rare"),
    Filter(model="nothing"),
    Filter(provider="groq", until_at=DAY + 3 * DAY_MS + 7),
    Filter(provider_key_id="pk_2"),
    Filter(provider_key_id="pk_2", status="ok", since_at=DAY + DAY_MS),
    Filter(provider_key_id="pk_1", since_at=DAY + 7_000_000, until_at=DAY + 3 * DAY_MS + 5),
    Filter(provider_key_id="pk_1", status="error"),
    Filter(provider_key_id="pk_1", model="rare"),
    Filter(agent_key_ids=("key_erin",), provider_key_id="pk_1", until_at=DAY + 3 * DAY_MS),
    Filter(agent_key_ids=("key_bob", "key_erin"), status="error", since_at=DAY + DAY_MS),
    Filter(endpoint="fast", status="error"),
    Filter(endpoint="fast", provider_key_id="pk_1", status="cancelled"),
    Filter(endpoint="fast"),
    Filter(endpoint="slow", agent_key_ids=("key_bob",), until_at=DAY + 2 * DAY_MS + 9),
    Filter(endpoint="nothing"),
    Filter(min_latency_ms=4_800),
    Filter(min_latency_ms=60_000),
    Filter(min_latency_ms=60_001),
    Filter(min_cost_nano=10**11),
    Filter(agent_key_ids=("key_erin",), model="gpt-4o", provider="openai", status="error", min_latency_ms=1_000),
    Filter(("key_bob", "key_erin"), "ok", DAY + 5_000_000, DAY + 4 * DAY_MS, "gpt-4o", "openai", 500, 100),
)


@pytest.fixture(
    params=["asked first where they are", "as it costs less", pytest.param("of many keys", marks=pytest.mark.thorough)]
)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few events are read through; here the way to find them among many is gone, too, and that of many agent keys."""
    if request.param == "of many keys":
        monkeypatch.setattr(trace_windows_store, "_MANY_KEYS", 0)
    if request.param != "as it costs less":
        monkeypatch.setattr(trace_windows_store, "_COMMON", 0)
        monkeypatch.setattr(trace_windows_store, "_FEW", -1)
        monkeypatch.setattr(trace_windows_store, "_SUM_TO_ATTEMPT", 0)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def full_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a database that holds `MANY` and a call of somebody else's: for tests that only read."""

    async def filled(url: str) -> None:
        async with opened(url) as database:
            await keep(database, *MANY, event("req_other", organization_id=OTHER, started_at=DAY + 9))

    with fresh(request, tmp_path_factory.mktemp("full")) as url:
        asyncio.run(filled(url))
        yield url


@pytest.fixture
async def full(full_url: str) -> AsyncIterator[Database]:
    """That database, open."""
    async with opened(full_url) as database:
        yield database


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("wanted", WANTED, ids=str)
async def test_every_filter_finds_exactly_what_fits_and_pages_join_up(full: Database, wanted: Filter) -> None:
    fitting = sorted((one.started_at, one.request_id, one.attempt) for one in MANY if _fits(one, wanted))[::-1]
    async with full.read() as tx:
        assert [one.place for one in await reports.list_traces(tx, ORG, wanted, limit=0)] == fitting
        for limit in (1, 7, 200):
            paged: list[Any] = []
            after = None
            while len(paged) < min(len(fitting), 5 * limit):
                page = await reports.list_traces(tx, ORG, wanted, after=after, limit=limit)
                assert 0 < len(page) <= limit
                paged += [one.place for one in page]
                after = page[-1].place
            assert paged == fitting[: len(paged)]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("most", [10_000, 20])
@pytest.mark.parametrize("wanted", WANTED, ids=str)
async def test_a_summary_is_of_all_that_the_filter_finds(full: Database, wanted: Filter, most: int) -> None:
    fitting = sorted((one for one in MANY if _fits(one, wanted)), key=lambda one: one.started_at, reverse=True)
    latencies = sorted(one.latency_ms for one in fitting[:most])
    async with full.read() as tx:
        found = await reports.sum_traces(tx, ORG, wanted, most=most)
    assert found == reports.Summary(
        attempts=len(fitting),
        requests=sum(one.attempt == 1 for one in fitting),
        errors=sum(one.status in ("error", "unknown") for one in fitting),
        cost_nano=sum(one.cost_nano for one in fitting),
        average_ms=sum(one.latency_ms for one in fitting) // len(fitting) if fitting else None,
        p95_ms=latencies[-(-len(latencies) * 95 // 100) - 1] if latencies else None,
        measured=len(latencies),
        p50_ms=latencies[-(-len(latencies) // 2) - 1] if latencies else None,
    )
    assert 0 <= found.error_percent <= 100


async def test_a_summary_leaves_out_what_retention_has_deleted(database: Database) -> None:
    await keep(database, *(event(f"req_{day}", started_at=DAY + day * DAY_MS + 5) for day in range(4)))
    async with database.transaction() as tx:
        await tx.execute(delete(schema.usage_events).where(schema.usage_events.c.started_at < DAY + 2 * DAY_MS))
    async with database.read() as tx:
        assert (await reports.sum_traces(tx, ORG)).attempts == 2
        assert sum(row.attempts for row in await reports.sum_usage(tx, ORG, UsageFilter())) == 4


async def test_one_call_comes_with_all_its_attempts_and_of_its_organization_only(database: Database) -> None:
    await keep(database, event("req_1", attempt=2), event("req_1", attempt=1), event("req_2"))
    async with database.read() as tx:
        assert [one.attempt for one in await reports.get_call(tx, ORG, "req_1")] == [1, 2]
        for organization_id, request_id in ((OTHER, "req_1"), (ORG, "req_3"), (ORG, "' OR 1=1 --")):
            with refused("not_found"):
                await reports.get_call(tx, organization_id, request_id)


@pytest.mark.parametrize(
    "by", [("day",), ("model", "provider"), ("agent_key",), ("provider_key", "day"), ("credential",), ()]
)
@pytest.mark.parametrize(
    "wanted",
    [
        UsageFilter(),
        UsageFilter(DAY + 7_200_000, DAY + 3 * DAY_MS + 3_600_000),
        UsageFilter(DAY + 7_200_000, DAY + 10_800_000),
        UsageFilter(DAY + DAY_MS, DAY + 2 * DAY_MS, ("key_bob", "key_erin"), provider="openai"),
        UsageFilter(DAY, agent_key_ids=(), model="gpt-4o"),
        UsageFilter(DAY + 3, DAY + 5, provider_key_id="pk_1"),
    ],
    ids=str,
)
async def test_usage_by_any_dimension_is_the_sum_over_the_events_of_whole_hours(
    full: Database, wanted: UsageFilter, by: tuple[Dimension, ...]
) -> None:
    hour = DAY_MS // 24
    end = 1 << 60 if wanted.until_at is None else -(-wanted.until_at // hour) * hour
    sums: Counter[tuple[Any, ...]] = Counter()
    for one in MANY:
        if (
            wanted.since_at // hour * hour <= one.started_at < end
            and (wanted.agent_key_ids is None or one.agent_key_id in wanted.agent_key_ids)
            and wanted.provider in (None, one.provider)
            and wanted.model in (None, one.model)
            and wanted.provider_key_id in (None, one.provider_key_id)
        ):
            fields = {
                "day": iso(one.started_at)[:10], "agent_key": one.agent_key_id, "credential": one.credential_id,
                "provider": one.provider, "model": one.model, "provider_key": one.provider_key_id,
            }  # fmt: skip
            sums[tuple(fields[name] for name in by)] += one.cost_nano + 1
    async with full.read() as tx:
        rows = await reports.sum_usage(tx, ORG, wanted, by)
        some = await reports.sum_usage(tx, ORG, wanted, by, limit=2)
    columns = {"agent_key": "agent_key_id", "credential": "credential_id", "provider_key": "provider_key_id"}
    found = {tuple(getattr(row, columns.get(name, name)) for name in by): row.cost_nano + row.attempts for row in rows}
    assert found == dict(sums)
    assert some == rows[:2]
    costs = [row.cost_nano for row in rows]
    assert costs == sorted(costs, reverse=True) or "day" in by


@pytest.mark.parametrize(
    ("first", "end"), [(None, None), (0, 64), (1, 64), (0, 63), (31, 33), (-40, 70), (5, 20), (33, 31), (30.5, 64.25)]
)
async def test_long_periods_are_exact_wherever_they_begin_and_end(
    database: Database, first: float | None, end: float | None
) -> None:
    """One nano-dollar a day, then two, then four: a sum names the days that are in it."""
    await keep(database, *(event(f"req_{day}", cost_nano=1 << day, started_at=DAY + day * DAY_MS) for day in range(62)))
    since_at = 0 if first is None else DAY + int(first * DAY_MS)
    until_at = None if end is None else DAY + int(end * DAY_MS)
    days = [
        day
        for day in range(62)
        if since_at <= DAY + day * DAY_MS and (until_at is None or DAY + day * DAY_MS < until_at)
    ]
    ways: tuple[tuple[Dimension, ...], ...] = ((), ("model",), ("day",))
    for by in ways:
        async with database.read() as tx:
            rows = await reports.sum_usage(tx, ORG, UsageFilter(since_at, until_at), by)
            of_key = await reports.sum_usage(tx, ORG, UsageFilter(since_at, until_at, ("key_bob",)), by)
        assert sum(row.cost_nano for row in rows) == sum(1 << day for day in days)
        assert rows == of_key


async def test_names_in_usage_are_those_of_today_and_of_the_deleted_the_last(database: Database) -> None:
    await keep(
        database,
        event("req_1", agent_key_name="zed", provider_key_name="old"),
        event("req_2", agent_key_name="bob", provider_key_name="new", started_at=DAY + DAY_MS),
    )
    async with database.read() as tx:
        by: tuple[Dimension, ...] = ("agent_key",)
        (of_key,) = await reports.sum_usage(tx, ORG, UsageFilter(), by)
    assert of_key.agent_key == "bob"


async def test_the_share_of_each_key_is_of_all_calls_in_thirty_days(database: Database) -> None:
    now = DAY + 40 * DAY_MS + 5
    await keep(
        database,
        *(event(f"req_{number}", started_at=now - number) for number in range(5)),
        event("req_again", attempt=2, started_at=now),
        *(event(f"req_e{number}", agent_key_id="key_erin", started_at=now - 29 * DAY_MS) for number in range(2)),
        event("req_c", agent_key_id=None, credential_id="cred_1", started_at=now),
        event("req_old", agent_key_id="key_old", started_at=now - 30 * DAY_MS),
        event("req_other", organization_id=OTHER, agent_key_id="key_dora", started_at=now),
    )
    async with database.read() as tx:
        found = await reports.list_traffic(tx, ORG, now)
        of_two = await reports.list_traffic(tx, ORG, now, ["key_erin", "key_unused"])
    assert found == {
        "key_bob": reports.Traffic(5, 62.5),
        "key_erin": reports.Traffic(2, 25.0),
        "key_parent": reports.Traffic(8, 100.0),
    }
    assert of_two == {"key_erin": reports.Traffic(2, 25.0)}


# ---- children ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
async def test_what_children_call_is_their_parents_wherever_it_is_looked_for(database: Database) -> None:
    """Nothing is asked of the keys themselves: children are forgotten a day after their end."""
    now = DAY + 40 * DAY_MS + 5
    child = {"agent_key_name": "child", "parent_key_id": "key_bob"}
    await keep(
        database,
        event("req_own", parent_key_id=None, started_at=now - 1),
        *(event(f"req_a{number}", agent_key_id="key_a", started_at=now - 2 * DAY_MS, **child) for number in range(3)),
        event("req_b", agent_key_id="key_b", started_at=now - 3 * DAY_MS, status="error", cost_nano=5, **child),
        event("req_x", agent_key_id="key_x", parent_key_id="key_erin", started_at=now - 4),
        event("req_dora", organization_id=OTHER, agent_key_id="key_d", parent_key_id="key_bob", started_at=now - 4),
    )
    of_bob = {"req_own", "req_a0", "req_a1", "req_a2", "req_b"}
    async with database.read() as tx:
        for wanted, found in (
            (Filter(("key_bob",)), of_bob),
            (Filter(("key_bob", "key_erin")), {*of_bob, "req_x"}),
            (Filter(("key_bob",), status="error"), {"req_b"}),
            (Filter(("key_bob",), model="gpt-4o", min_latency_ms=1), of_bob),
            (Filter(("key_a",)), {"req_a0", "req_a1", "req_a2"}),
            (Filter(("key_bob",), since_at=now - DAY_MS), {"req_own"}),
        ):
            assert {one.request_id for one in await reports.list_traces(tx, ORG, wanted)} == found, wanted
            assert (await reports.sum_traces(tx, ORG, wanted)).requests == len(found), wanted
        traffic = await reports.list_traffic(tx, ORG, now, ["key_bob", "key_a", "key_erin"])
        assert {key: one.requests for key, one in traffic.items()} == {"key_bob": 5, "key_a": 3, "key_erin": 1}
        for since_at in (DAY, now - 3 * DAY_MS - 1, now - 3 * DAY_MS + 7_200_000):
            (whole,) = await reports.sum_usage(tx, ORG, UsageFilter(since_at, agent_key_ids=("key_bob",)), ())
            expected = 5 if since_at < now - 3 * DAY_MS else 4
            assert whole.requests == expected
        by_key = await reports.sum_usage(tx, ORG, UsageFilter(agent_key_ids=("key_bob",)), ["agent_key"])
        assert {row.agent_key_id: row.requests for row in by_key} == {"key_bob": 1, "key_a": 3, "key_b": 1}
