"""Traces: every attempt as it comes in, filtered and summed up; and one call from its beginning to its end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from ostiary.actor import Denied
from ostiary.agents.reach import find_owner_id
from ostiary.dashboard import periods, trace_costs, trace_filters, trace_reach
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.trace_filters import Asked
from ostiary.dashboard.trace_picture import drawn
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import reports
from ostiary.ledger import store as ledger
from ostiary.ledger.reports import Filter, Trace
from ostiary.ledger.waterfall import steps_of
from ostiary.providers.store import list_overrides
from ostiary.vault import contents
from ostiary.vault.store import find_provider_key, find_provider_key_by_id

DEED: Final = "traces.show"
_ROWS: Final = 50
_MEASURED: Final = 2_500
"""The newest attempts whose p95 is shown: reading more would take longer than looking at it."""


async def list_(visit: Visit) -> Answer:
    """Attempts, the newest first; as a part of the page when a script looks again."""
    asked, wrong = _read(visit)
    cursor = visit.query.text("cursor")
    page: list[Trace] = []
    is_more = False
    if asked is not None:
        place = trace_filters.trace_place(cursor)
        await visit.hall.flush()
        async with visit.reading() as tx:
            wanted = await _wanted(visit, tx, asked)
            if wanted is not None:
                found = await reports.list_traces(tx, visit.home, wanted, after=place, limit=_ROWS + 1)
                page, is_more = found[:_ROWS], len(found) > _ROWS
    newest = trace_filters.cursor_of(*page[0].place) if page else "none"
    if visit.is_partial and visit.query.text("newest") == newest:
        return Answer(204, b"", [(b"cache-control", b"no-store")])
    following = trace_filters.cursor_of(*page[-1].place) if is_more else ""
    more = trace_filters.address_of(visit.query, cursor=following) if following else ""
    known: dict[str, Any] = {
        "traces": page,
        "more": more,
        "is_first": not cursor,
        "newest": newest,
        "filters": trace_filters.address_of(visit.query),
        "wrong": wrong,
        "is_filtered": any(visit.query.text(name) for name in trace_filters.NAMES if name != "period"),
    }
    if visit.is_partial:
        return visit.page("traces/rows.html", **known)
    return visit.page("traces/list.html", **known, **_choices(visit))


async def summary(visit: Visit) -> Answer:
    """What the list comes to: it may take longer than the list, so it comes by itself."""
    asked, wrong = _read(visit)
    found = None
    if asked is not None:
        await visit.hall.flush()
        async with visit.reading() as tx:
            wanted = await _wanted(visit, tx, asked)
            if wanted is not None:
                found = await reports.sum_traces(tx, visit.home, wanted, most=_MEASURED)
    return visit.page("traces/summary.html", summary=found, wrong=wrong, period=asked.period if asked else None)


def _read(visit: Visit) -> tuple[Asked | None, Wrong]:
    try:
        return trace_filters.read(visit.query, visit.at), Wrong()
    except Refusal as refusal:
        return None, visit.refused(refusal)


def _choices(visit: Visit) -> dict[str, Any]:
    return {
        "periods": trace_filters.PERIODS,
        "period_words": periods.WORDS,
        "usual": trace_filters.USUAL,
        "statuses": trace_filters.STATUSES,
        "providers": sorted(visit.hall.catalog.providers.values(), key=lambda one: one.name.casefold()),
    }


async def _wanted(visit: Visit, tx: Transaction, asked: Asked) -> Filter | None:
    """As the ledger takes it; None where nothing can be found."""
    keys = await trace_reach.keys_of(visit, tx, DEED, asked.agent_key)
    provider_key_id = None
    if asked.provider_key:
        key = await find_provider_key(tx, visit.home, asked.provider_key)
        provider_key_id = key.id if key is not None else asked.provider_key  # a deleted one, or the pool's, by its id
    return None if keys == [] else asked.filter(keys, provider_key_id)


# ---- one call ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """An attempt, what of its cost was for what, and whether its provider key can be looked at."""

    it: Trace
    costs: list[trace_costs.Part]
    has_key: bool


async def show(visit: Visit) -> Answer:
    """One call: where its time went, its attempts, its tokens and what they cost."""
    await visit.hall.flush()
    async with visit.reading() as tx:
        attempts = await _call(visit, tx, DEED)
        prices = trace_costs.Prices(visit.hall.catalog, await list_overrides(tx))
        shown = [Shown(one, prices.split(one), await _has_key(visit, tx, one)) for one in attempts]
        owner_id = await find_owner_id(tx, attempts[0])
        has_content = bool(await ledger.list_contents(tx, visit.home, attempts[0].request_id))
    last = attempts[-1]
    return visit.page(
        "traces/show.html",
        first=attempts[0],
        last=last,
        attempts=shown,
        picture=drawn(steps_of(attempts)),
        cost_nano=sum(one.cost_nano for one in attempts),
        total_ms=last.at + last.latency_ms - attempts[0].at,
        metadata=json.dumps(dict(attempts[0].metadata), indent=2, ensure_ascii=False),
        has_content=has_content,
        may_read=visit.may("traces.content", owner_id),
    )


async def content(visit: Visit) -> Answer:
    """What was asked and answered; that somebody looked is written down, as it is where machines look."""
    await visit.hall.flush()
    async with visit.writing() as tx:
        attempts = await _call(visit, tx, "traces.content")
        owner_id = await find_owner_id(tx, attempts[0])
        try:
            said = await contents.show(
                tx, visit.by, visit.hall.seal, visit.home, attempts[0].request_id, owner_id=owner_id, at=visit.at
            )
        except Denied:
            raise
        except Refusal as refusal:
            return visit.page("traces/content.html", refusal.status, said=(), nothing=refusal.message)
    return visit.page("traces/content.html", said=said, nothing="")


async def _call(visit: Visit, tx: Transaction, deed: str) -> list[Trace]:
    attempts = await reports.get_call(tx, visit.home, visit.names["request_id"])
    visit.by.require(deed, visit.home, await find_owner_id(tx, attempts[0]))
    return attempts


async def _has_key(visit: Visit, tx: Transaction, one: Trace) -> bool:
    key = await find_provider_key_by_id(tx, one.provider_key_id)
    return key is not None and key.organization_id == visit.home and visit.may("provider_keys.show")
