"""What becomes of leases whose owners are silent: a mark at once, a charge long after their month is over."""

from __future__ import annotations

from ostiary.db.database import Database
from ostiary.limits import store
from ostiary.logs import get


async def tend(database: Database, at: int) -> None:
    """Look once, and do what is due; run by the clock, by one gateway at a time."""
    async with database.transaction() as tx:
        lost = await store.mark_lost(tx, at)
    async with database.transaction() as tx:  # has accounts before leases, as all others
        charged = await store.charge_old_leases(tx, at)
    if lost:
        get("limits").warning("leases.lost", leases=lost)
    if charged:
        get("limits").warning("leases.charged", nano=charged)
