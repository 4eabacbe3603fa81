"""What past calls would cost by the prices of today, and writing it: for the operator."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from ostiary.clock import DAY_MS
from ostiary.dashboard import forms
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.recosts import Recost, recosts_of
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.ledger import recost
from ostiary.ledger.recost import Rates, Wish
from ostiary.logs import get
from ostiary.orgs import organizations
from ostiary.providers import store
from ostiary.providers.prices import PriceBook

_SINCE: Final = {"1": "the last day", "7": "the last 7 days", "30": "the last 30 days", "90": "the last 90 days"}
_WISHED: Final = ("since", "organization", "provider", "model", "unknown_too")
_FAILED: Final = "The gateway failed at this; it is in the log."
_WAIT_S: Final = 2
"""What takes longer goes on by itself, and the page shows how far it is."""


async def show(visit: Visit) -> Answer:
    """Which calls are meant."""
    async with visit.reading() as tx:
        known = [(one.id, one.name) for one in await organizations.list_(tx, visit.by)]
    return visit.page(
        "operator/recost.html",
        since=tuple(_SINCE.items()),
        organizations=[("", "All organizations"), *known],
        wished={name: visit.query.text(name) for name in ("provider", "model")},
    )


async def preview(visit: Visit) -> Answer:
    """What would change; nothing is written."""
    return await _begin(visit, is_applied=False)


async def apply(visit: Visit) -> Answer:
    """Write it: costs, usage and budgets move together, batch by batch. Cut off, it can be done again."""
    return await _begin(visit, is_applied=True)


async def progress(visit: Visit) -> Answer:
    """How far one is that this visitor has begun, asked every second; then what came of it.

    It is in this process only: where another gateway answers, or this one was started anew, the page stays as it is.
    """
    found = recosts_of(visit.hall.database).find(visit.names["id"], visit.by.id)
    return Answer(204, b"", [(b"cache-control", b"no-store")]) if found is None else _shown(visit, found)


async def _begin(visit: Visit, *, is_applied: bool) -> Answer:
    hall, form = visit.hall, visit.form
    await hall.flush()
    try:
        rates, wish, organization_id = await _wanted(visit)
    except Refusal as refusal:
        return visit.page("operator/recost_wrong.html", refusal.status, wrong=visit.refused(refusal))
    wished, known = {name: form.text(name) for name in _WISHED}, recosts_of(hall.database)
    running = known.find_running(visit.by.id, wished, rates.book, is_applied=is_applied)
    if running is not None:
        return _shown(visit, running)
    it = known.begin(visit.by.id, wished, rates.book, visit.at, is_applied=is_applied)
    with suppress(TimeoutError):
        await asyncio.wait_for(hall.database.to_the_end(_run(visit, it, rates, wish, organization_id)), _WAIT_S)
    return _shown(visit, it)


async def _run(visit: Visit, it: Recost, rates: Rates, wish: Wish, organization_id: str | None) -> None:
    """To its end, with what came of it noted: whoever began it may wait no more."""
    try:
        it.tallies = await recost.recost(
            visit.hall.database,
            visit.by,
            rates,
            wish,
            visit.at,
            organization_id=organization_id,
            is_applied=it.is_applied,
            progress=it.note,
        )
    except Refusal as refusal:
        it.refusal = refusal
    except Exception:  # noqa: BLE001 - logged with its trace, and said where they look
        get("dashboard").exception("recost.failed")
        is_begun = it.is_applied and it.done > 0
        it.refusal = (
            recost.cut_off(_FAILED, it.done, it.changed) if is_begun else Refusal("service_unavailable", _FAILED)
        )


def _shown(visit: Visit, it: Recost) -> Answer:
    """As it is at this moment."""
    if it.refusal is not None:
        return visit.page("operator/recost_wrong.html", it.refusal.status, wrong=forms.wrong(it.refusal))
    if it.tallies is None:
        return visit.page("operator/recost_progress.html", it=it)
    changed = sum(one.changed for one in it.tallies)
    if it.is_applied:
        return visit.go(
            f"{HOME}/operator/prices",
            said="One call was put right." if changed == 1 else f"{changed:,} calls were put right.",
        )
    return visit.page(
        "operator/recost_list.html",
        tallies=it.tallies,
        before=sum(one.before_nano for one in it.tallies),
        after=sum(one.after_nano for one in it.tallies),
        changed=changed,
        unpriced=sum(one.unpriced for one in it.tallies),
        wished=it.wished,
        said_since=_SINCE[it.wished["since"]],
    )


async def _wanted(visit: Visit) -> tuple[Rates, Wish, str | None]:
    """Prices, which calls, and of which organization; refuses what names nothing."""
    hall, form = visit.hall, visit.form
    if form.text("since") not in _SINCE:
        raise Refusal("invalid_field", "Choose how far back.", param="since")
    since_at = visit.at - int(form.text("since")) * DAY_MS
    wanted, provider, model = form.text("organization"), form.text("provider"), form.text("model")
    if provider and hall.catalog.find(provider) is None:
        raise Refusal("invalid_field", "There is no such provider in the catalogue.", param="provider")
    async with visit.reading() as tx:
        organization_id = (await organizations.get(tx, wanted)).id if wanted else None
        rates = Rates(hall.catalog, PriceBook(await store.list_overrides(tx), hall.clock))
    return rates, Wish(since_at, provider or None, model or None, unknown_too=form.has("unknown_too")), organization_id
