"""The change feed: heard when, and only if, the deed commits; in the order of the commits."""

from __future__ import annotations

import asyncio

import pytest

from ostiary.db import changes
from ostiary.db.database import Database


class CalledOffError(Exception):
    pass


async def heard(database: Database, after: int = 0) -> list[changes.Change]:
    async with database.read() as tx:
        return await changes.list_after(tx, after)


async def test_what_is_committed_is_heard(database: Database) -> None:
    async with database.transaction() as tx:
        await changes.append(tx, "agent_key", "org_1", "key_1", at=1)
        await changes.append(tx, "price", None, "openai/gpt", at=2)
    first, second = await heard(database)
    assert (first.noun, first.organization_id, first.id) == ("agent_key", "org_1", "key_1")
    assert (second.noun, second.organization_id, second.id) == ("price", None, "openai/gpt")
    assert await heard(database, after=first.seq) == [second]
    async with database.read() as tx:
        assert await changes.latest(tx) == second.seq


async def test_what_is_rolled_back_is_not(database: Database) -> None:
    with pytest.raises(CalledOffError):
        async with database.transaction() as tx:
            await changes.append(tx, "agent_key", "org_1", "key_1", at=1)
            raise CalledOffError
    assert await heard(database) == []
    async with database.read() as tx:
        assert await changes.latest(tx) == 0


async def test_a_reader_that_follows_misses_nothing(database: Database) -> None:
    """Numbers become visible in order: who has read up to n will never find a number below n later."""
    writers, each = 8, 5

    async def write(writer: int) -> None:
        for i in range(each):
            async with database.transaction() as tx:
                await changes.append(tx, "agent_key", "org_1", f"key_{writer}_{i}", at=1)
                await asyncio.sleep(0)

    async def follow() -> list[str]:
        found: list[str] = []
        seq = 0
        while len(found) < writers * each:
            for change in await heard(database, seq):
                seq = change.seq
                found.append(change.id)
        return found

    follower = asyncio.create_task(follow())
    await asyncio.gather(*(write(i) for i in range(writers)))
    found = await asyncio.wait_for(follower, 30)
    assert len(set(found)) == writers * each
