"""Gateways, for an organization: which serve it, and whether each holds what was configured; nothing to be done."""

from __future__ import annotations

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.visit import Visit
from ostiary.ledger import gateways


async def show(visit: Visit) -> Answer:
    """Those that live or are lost; a script that asks gets the table alone."""
    async with visit.reading() as tx:
        found = await gateways.list_serving(tx, visit.by, visit.home, visit.at)
    template = "settings/gateway_rows.html" if visit.is_partial else "settings/gateways.html"
    return visit.page(template, gateways=found, tab="gateways")
