"""Whether the books agree: sums by hour and day, and accounts, counted anew from the events themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from sqlalchemy import select

from ostiary.clock import DAY_MS, date_of, month_of
from ostiary.db import schema
from ostiary.db.database import Database, Transaction

_SPANS = {"usage_hours": ("hour", DAY_MS // 24), "usage_days": ("day", DAY_MS), "usage_blocks": ("block", 32 * DAY_MS)}
_COUNTED = (
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("audio_tokens", "images", "audio_ms", "characters", "searches", "latency_ms", "cost_nano"),
)


async def events(tx: Transaction) -> list[Any]:
    return list((await tx.execute(select(schema.usage_events))).all())


def counted(row: Any) -> Counter[str]:
    found: Counter[str] = Counter({name: getattr(row, name) for name in _COUNTED})
    found["requests"] = row.attempt == 1
    found["attempts"] = 1
    found["errors"] = row.status in ("error", "unknown")
    found["unknown"] = row.status == "unknown"
    found["cancelled"] = row.status == "cancelled"
    units = row.images + row.audio_ms + row.characters + row.searches
    found["unpriced"] = row.price_version is None and row.input_tokens + row.output_tokens + units > 0
    return found


async def check_rollups(database: Database) -> None:
    """Sums by hour and day are those over the events, none missing and none too many."""
    async with database.read() as tx:
        rows = await events(tx)
        for name, (span, span_ms) in _SPANS.items():
            wanted: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
            greatest: defaultdict[tuple[Any, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
            for row in rows:
                place = (
                    *(row.organization_id, row.started_at // span_ms, row.agent_key_id or "", row.credential_id or ""),
                    *(row.provider, row.model, row.provider_key_id),
                )
                wanted[place].update(counted(row))
                latency, cost = greatest[place]
                greatest[place] = (max(latency, row.latency_ms), max(cost, row.cost_nano))
            found = {}
            for sums in (await tx.execute(select(schema.metadata.tables[name]))).mappings():
                place = tuple(
                    sums[column]
                    for column in (
                        *("organization_id", span, "agent_key_id", "credential_id"),
                        *("provider", "model", "provider_key_id"),
                    )
                )
                found[place] = {column: sums[column] for column in wanted[place] or ()}
                assert sums["max_latency_ms"] == greatest[place][0]
                assert sums["max_cost_nano"] >= greatest[place][1], "it bounds where dear ones are looked for"
            assert found == {place: dict(sums) for place, sums in wanted.items()}
    await check_sums(database)


async def check_sums(database: Database) -> None:
    """Sums by one thing at a time are those over the events, by days and by 8 days."""
    counts = ("requests", "attempts", "errors", "cancelled", "unpriced", "input_tokens", "output_tokens")
    names = (*counts, "cache_read_tokens", "latency_ms", "cost_nano")
    async with database.read() as tx:
        wanted: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
        for row in await events(tx):
            things = [("all", ""), ("model", f"{row.provider}/{row.model}"), ("provider_key", row.provider_key_id)]
            things += [("agent_key", row.agent_key_id)] if row.agent_key_id else []
            things += [("credential", row.credential_id)] if row.credential_id else []
            things += [("parent", row.parent_key_id)] if row.parent_key_id else []
            for kind, id_ in things:
                for span in (1, 4, 16, 64):
                    number = row.started_at // (span * DAY_MS)
                    wanted[row.organization_id, kind, span, number, id_].update(counted(row))
        found = {
            tuple(sums[name] for name in ("organization_id", "kind", "span", "number", "id")): {
                name: sums[name] for name in names
            }
            for sums in (await tx.execute(select(schema.usage_sums))).mappings()
        }
        assert found == {place: {name: sums[name] for name in names} for place, sums in wanted.items()}


async def check_accounts(database: Database) -> None:
    """What accounts say was spent is what the events of their key, provider key or organization and period cost."""
    wanted: Counter[tuple[str, str, str]] = Counter()
    async with database.read() as tx:
        for row in await events(tx):
            month = month_of(row.held_at or row.started_at)
            keys = [("agent_key", key) for key in (row.agent_key_id, row.parent_key_id) if key]
            for scope, id_ in (("organization", row.organization_id), *keys):
                wanted.update({(scope, id_, month): row.cost_nano, (scope, id_, "total"): row.cost_nano})
            for period in (date_of(row.held_at or row.started_at), month, "total"):
                wanted.update({("provider_key", row.provider_key_id, period): row.cost_nano})
        a = schema.accounts.c
        accounts = await tx.execute(select(a.scope, a.id, a.period_id, a.spent_nano).where(a.spent_nano != 0))
        assert {tuple(account[:3]): account[3] for account in accounts} == {
            place: nano for place, nano in wanted.items() if nano
        }


async def check_provider_key_accounts(database: Database) -> None:
    """The same of provider keys alone, for a ledger whose other accounts were not written with it."""
    wanted: Counter[tuple[str, str]] = Counter()
    async with database.read() as tx:
        for row in await events(tx):
            at = row.held_at or row.started_at
            for period in (date_of(at), month_of(at), "total"):
                wanted.update({(row.provider_key_id, period): row.cost_nano})
        a = schema.accounts.c
        found = await tx.execute(select(a.id, a.period_id, a.spent_nano).where(a.scope == "provider_key"))
        assert {tuple(row[:2]): row[2] for row in found} == {place: nano for place, nano in wanted.items() if nano}


async def check_books(database: Database) -> None:
    """Both."""
    await check_rollups(database)
    await check_accounts(database)
