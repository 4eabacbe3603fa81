"""What past calls would cost by the prices of today, and writing it: for the operator."""

from __future__ import annotations

from typing import Final

from ostiary.clock import DAY_MS
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.ledger import recost
from ostiary.ledger.recost import Rates, Tally, Wish
from ostiary.orgs import organizations
from ostiary.providers import store
from ostiary.providers.prices import PriceBook

_SINCE: Final = {"1": "the last day", "7": "the last 7 days", "30": "the last 30 days", "90": "the last 90 days"}


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
    return await _recosted(visit, is_applied=False)


async def apply(visit: Visit) -> Answer:
    """Write it: costs, usage and budgets move together, batch by batch. Cut off, it can be done again."""
    return await _recosted(visit, is_applied=True)


async def _recosted(visit: Visit, *, is_applied: bool) -> Answer:
    hall, form = visit.hall, visit.form
    await hall.flush()
    try:
        tallies = await _run(visit, is_applied=is_applied)
    except Refusal as refusal:
        return visit.page("operator/recost_wrong.html", refusal.status, wrong=visit.refused(refusal))
    if is_applied:
        changed = sum(one.changed for one in tallies)
        return visit.go(
            f"{HOME}/operator/prices",
            said="One call was put right." if changed == 1 else f"{changed:,} calls were put right.",
        )
    return visit.page(
        "operator/recost_list.html",
        tallies=tallies,
        before=sum(one.before_nano for one in tallies),
        after=sum(one.after_nano for one in tallies),
        changed=sum(one.changed for one in tallies),
        unpriced=sum(one.unpriced for one in tallies),
        wished={name: form.text(name) for name in ("since", "organization", "provider", "model", "unknown_too")},
        said_since=_SINCE[form.text("since")],
    )


async def _run(visit: Visit, *, is_applied: bool) -> list[Tally]:
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
    return await recost.recost(
        hall.database,
        visit.by,
        rates,
        Wish(since_at, provider or None, model or None, unknown_too=form.has("unknown_too")),
        visit.at,
        organization_id=organization_id,
        is_applied=is_applied,
    )
