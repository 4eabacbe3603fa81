"""A gateway that stops gives back all that it leased, also what it was leasing when its last calls were cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from ostiary.app import standing
from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.ground import ground
from ostiary.limits import store
from ostiary.limits.budgets import Bid, Budget
from ostiary.limits.local import Allowance, Holder
from ostiary.settings import Settings

_KEY = "key_1"
_BUDGET = Budget("total", 1_000_000)


async def test_what_a_call_was_leasing_when_it_was_cut_off_is_given_back(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a process that is no more nobody would ever take it back: a total budget would be smaller for good."""
    given = {"OSTIARY_DATABASE_URL": database_url, "OSTIARY_MASTER_KEY": "A" * 43 + "="}
    settings = Settings.load(environment=given, data_dir=tmp_path / "data")
    async with ground(settings) as base:
        async with base.database.transaction() as tx:
            await store.change_budget(tx, "agent_key", _KEY, _BUDGET, base.clock.now())
            await tx.execute(update(schema.organizations).values(rpm=10))
            home = (await tx.execute(select(schema.organizations.c.id))).scalar_one()
        paid = Allowance(_KEY, budgets=(("agent_key", _KEY, _BUDGET),))
        limited = Allowance(_KEY, (Holder("organization", home, rpm=10),))
        goes_on, waiting, usual = asyncio.Event(), 0, base.database.transaction

        @asynccontextmanager
        async def slow() -> AsyncIterator[Transaction]:
            nonlocal waiting
            waiting += 1
            await goes_on.wait()
            async with usual() as tx:
                yield tx

        async with standing(base) as gate:
            monkeypatch.setattr(base.database, "transaction", slow)
            bid = Bid(fixed_nano=1_000, output_tokens=0, output_rate=0, may_shrink=False)
            calls = [asyncio.ensure_future(gate.reserve.take(allowance, bid)) for allowance in (paid, limited)]
            while waiting < len(calls):  # noqa: ASYNC110 - till both are at the database
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            monkeypatch.setattr(base.database, "transaction", usual)
            asyncio.get_running_loop().call_later(0.5, goes_on.set)
        await goes_on.wait()
        await base.database.settle()
        windows = schema.window_leases.c
        async with base.database.read() as tx:
            accounts = await store.list_accounts(tx, "agent_key", _KEY)
            leases = (await tx.execute(select(func.count()).select_from(schema.leases))).scalar_one()
            still = (await tx.execute(select(windows.window).where(windows.until.is_(None)))).scalars().all()
    assert [account.leased_nano for account in accounts if account.period_id == "total"] == [0]
    assert leases == 0
    assert list(still) == []
