"""Deletes traces and contents whose time is over, by the days that each organization has set; runs by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ostiary.clock import DAY_MS
from ostiary.db.database import Database, Transaction
from ostiary.ledger import retention_store as store
from ostiary.ledger.events import Event
from ostiary.logs import get

RESPONSE_DAYS: Final = 90
"""For how long it is known which provider key gave a response: providers keep them for 30 days."""
_PORTION: Final = 1_000
"""Rows of one transaction: calls must not wait for longer than a moment."""


async def remove_old(database: Database, at: int) -> int:
    """Delete what is too old, in portions; the answer is how many rows. What is spent and used stays counted."""
    async with database.read() as tx:
        wanted = await store.list_days(tx)
    removed = 0
    for organization_id, trace_days, content_days in wanted:
        # Contents are shown with their trace, so they never outlive it.
        days = [one for one in (trace_days, content_days) if one is not None]
        contents = await _remove(database, store.remove_contents, organization_id, at - min(days) * DAY_MS)
        traces = 0
        if trace_days is not None:
            traces = await _remove(database, store.remove_events, organization_id, at - trace_days * DAY_MS)
        if contents or traces:
            get("ledger").info("retention.removed", organization=organization_id, traces=traces, contents=contents)
        removed += contents + traces
    return removed + await _forget_responses(database, at - RESPONSE_DAYS * DAY_MS)


async def _forget_responses(database: Database, before: int) -> int:
    total = 0
    while True:
        async with database.transaction() as tx:
            removed = await store.remove_responses(tx, before, _PORTION)
        total += removed
        if removed < _PORTION:
            return total


async def still_wanted(tx: Transaction, owner: str, settled: Sequence[Event], at: int) -> list[Event]:
    """Of what a spool would send again, all but what was sent long ago and may have been deleted since.

    Without this, events that are no longer found would be charged a second time.
    """
    days = {one.organization_id: one.trace_days for one in await store.list_days(tx) if one.trace_days is not None}
    heartbeat = await store.find_heartbeat(tx, owner) if days else None
    if heartbeat is None:
        return list(settled)
    sent_before = heartbeat - store.REPLAYED_MS // 2  # a process that was heard of has sent all but the newest

    def is_gone(event: Event) -> bool:
        kept = days.get(event.organization_id)
        is_old = kept is not None and event.started_at < at - kept * DAY_MS
        return is_old and event.started_at + event.latency_ms < sent_before

    return [event for event in settled if not is_gone(event)]


async def _remove(database: Database, remove: store.Remove, organization_id: str, before: int) -> int:
    total = 0
    while True:
        async with database.transaction() as tx:
            removed = await remove(tx, organization_id, before, _PORTION)
        total += removed
        if removed < _PORTION:
            return total
