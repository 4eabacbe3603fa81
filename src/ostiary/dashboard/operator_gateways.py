"""Gateways, for the operator: which live, what each knows, the money it holds; and giving up on one that was lost."""

from __future__ import annotations

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.ledger import gateways
from ostiary.ledger.gateways import Gateway


async def list_(visit: Visit) -> Answer:
    """Those that live or are lost; on wish also what has stopped."""
    async with visit.reading() as tx:
        found = await gateways.list_(tx, visit.by, visit.at, everyone=visit.query.has("all"))
    return visit.page(
        "operator/gateways_list.html" if visit.is_partial else "operator/gateways.html",
        gateways=found,
        is_everyone=visit.query.has("all"),
    )


async def show(visit: Visit) -> Answer:
    """One start of a gateway process."""
    return visit.page("operator/gateway.html", gateway=await _find(visit), behind_name=visit.hall.settings.name)


async def retire(visit: Visit) -> Answer:
    """Give up on it: what it leases counts as spent."""
    gateway = await _find(visit)
    try:
        async with visit.writing() as tx:
            await gateways.retire(tx, visit.by, gateway.id, visit.at)
    except Refusal as refusal:
        return visit.go(f"{HOME}/operator/gateways/{gateway.id}", said=visit.refused(refusal).message, kind="error")
    return visit.go(
        f"{HOME}/operator/gateways?all=on", said=f"{gateway.name} is retired. What it held counts as spent."
    )


async def _find(visit: Visit) -> Gateway:
    async with visit.reading() as tx:
        found = await gateways.list_(tx, visit.by, visit.at, everyone=True)
    gateway = next((one for one in found if one.id == visit.names["id"]), None)
    if gateway is None:
        raise Refusal("not_found")
    return gateway
