"""When keys were last used: noted at every call, in the database for whoever looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ostiary.agents import agent_keys, store
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.db.database import Database, Transaction
from ostiary.gateway.marks import Marks
from ostiary.secret import Secret
from tests.fakes import SetClock
from tests.people import NOW, settle


async def test_who_looks_while_marks_are_written_waits_for_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no news any more, and not there yet: a key that was called would stand as never used."""
    folk = await settle(database)
    async with database.transaction() as tx:
        wish = NewAgentKey("used")
        key, _ = await agent_keys.create(tx, folk["alice"], folk.home.id, wish, pepper=Secret("p"), at=NOW)
    marks, usual = Marks(database, SetClock()), database.transaction
    writing, goes_on = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def slow() -> AsyncIterator[Transaction]:
        writing.set()
        await goes_on.wait()
        async with usual() as tx:
            yield tx

    monkeypatch.setattr(database, "transaction", slow)
    marks.note(key.id, None, NOW + 1)
    written = asyncio.ensure_future(marks.write())
    await writing.wait()
    looking = asyncio.ensure_future(marks.write_few())
    asyncio.get_running_loop().call_later(0.2, goes_on.set)
    await looking
    async with database.read() as tx:
        known = await store.get_agent_key(tx, folk.home.id, key.id)
    assert known.last_used_at == NOW + 1
    await written
