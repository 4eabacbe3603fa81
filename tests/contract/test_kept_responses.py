"""Which provider key gave a response is written with its event, found by its organization alone, forgotten in time."""

from __future__ import annotations

import pytest
from sqlalchemy import String, func, select

from ostiary.clock import DAY_MS
from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.ledger import retention, store
from ostiary.ledger.events import Event, pack, unpack

pytestmark = pytest.mark.anyio

AT = 1_795_000_000_000


def event(request_id: str, response_id: str | None, organization_id: str = "org_a", at: int = AT) -> Event:
    return Event(
        request_id=request_id,
        attempt=1,
        organization_id=organization_id,
        agent_key_id="key_1",
        agent_key_name="a",
        credential_id=None,
        operation="responses",
        provider="openai",
        model_asked="m",
        model="m",
        provider_key_id="pk_1",
        provider_key_name="k",
        stream=False,
        started_at=at,
        client_ip=None,
        metadata={},
        held_nano=0,
        leased=(),
        price_version=None,
        cost_nano=0,
        usage_source="provider",
        status="ok",
        images=1,
        audio_ms=2,
        characters=3,
        searches=4,
        response_id=response_id,
    )


async def keep(database: Database, *events: Event) -> None:
    async with database.transaction() as tx:
        await store.add_events(tx, "spool_1", [unpack(pack(one)) for one in events])


async def test_it_is_found_by_its_organization_alone(database: Database) -> None:
    await keep(database, event("req_1", "resp_1"), event("req_2", None))
    async with database.read() as tx:
        assert await store.find_response(tx, "org_a", "resp_1") == ("pk_1", "openai", "m")
        assert await store.find_response(tx, "org_b", "resp_1") is None
        assert await store.find_response(tx, "org_a", "resp_2") is None


async def test_written_twice_it_is_there_once_and_the_first_counts(database: Database) -> None:
    await keep(database, event("req_1", "resp_1"))
    await keep(database, event("req_1", "resp_1"), event("req_2", "resp_1"), event("req_3", "resp_1", "org_b"))
    async with database.read() as tx:
        assert await tx.scalar(select(func.count()).select_from(schema.responses)) == 2


HOSTILE = ["x" * 201, "a\0b", "", "..", "a/b", "a b", "é", "a\n", "a?b", "x" * 1_000_000]


@pytest.mark.parametrize("response_id", HOSTILE)
async def test_an_id_that_cannot_be_one_is_not_kept(database: Database, response_id: str) -> None:
    await keep(database, event("req_1", response_id), event("req_2", "resp_=:.-_"), event("req_3", "x" * 200))
    async with database.read() as tx:
        assert await tx.scalar(select(func.count()).select_from(schema.usage_events)) == 3
        kept = (await tx.scalars(select(schema.responses.c.id).order_by("id"))).all()
    assert kept == ["resp_=:.-_", "x" * 200]


@pytest.mark.parametrize("text", ["\0", "a\0b" * 400, "é" * 1_000, "\U0001f6aa" * 1_000])
async def test_no_text_of_an_event_stops_the_ledger(database: Database, text: str) -> None:
    hostile = event("req_1", text)
    texts = [
        c.name for c in schema.usage_events.c if isinstance(c.type, String) and c.name not in ("request_id", "owner")
    ]
    for name in texts:
        setattr(hostile, name, text)
    async with database.transaction() as tx:
        await store.add_events(tx, "spool_1", [hostile, event("req_2", None)])
    await keep(database, event("req_3", None))
    c = schema.usage_events.c
    async with database.read() as tx:
        assert (await tx.scalars(select(c.request_id).order_by(c.request_id))).all() == ["req_1", "req_2", "req_3"]
        row = (await tx.execute(select(schema.usage_events).where(c.request_id == "req_1"))).mappings().one()
    assert "model_served" in texts
    assert "error_code" in texts
    assert all(row[name] and "\0" not in row[name] and len(row[name]) <= 255 for name in texts)


async def test_it_is_removed(database: Database) -> None:
    await keep(database, event("req_1", "resp_1"), event("req_2", "resp_1", "org_b"))
    async with database.transaction() as tx:
        await store.remove_response(tx, "org_a", "resp_1")
        assert await store.find_response(tx, "org_a", "resp_1") is None
        assert await store.find_response(tx, "org_b", "resp_1") is not None


async def test_old_ones_are_forgotten(database: Database) -> None:
    await keep(database, event("req_1", "resp_1"), event("req_2", "resp_2", at=AT + DAY_MS))
    assert await retention.remove_old(database, AT + retention.RESPONSE_DAYS * DAY_MS + 1) == 1
    async with database.read() as tx:
        assert await store.find_response(tx, "org_a", "resp_1") is None
        assert await store.find_response(tx, "org_a", "resp_2") is not None


async def test_what_is_not_counted_in_tokens_is_summed_up(database: Database) -> None:
    await keep(database, event("req_1", None), event("req_2", None))
    names = ("images", "audio_ms", "characters", "searches", "unpriced")
    async with database.read() as tx:
        for table in (schema.usage_hours, schema.usage_days, schema.usage_blocks):
            row = (await tx.execute(select(*(table.c[name] for name in names)))).one()
            assert tuple(row) == (2, 4, 6, 8, 2), table.name
