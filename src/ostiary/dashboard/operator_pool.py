"""The pool, for the operator: every provider key that is shared, over all organizations."""

from __future__ import annotations

from typing import Final

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.visit import Visit
from ostiary.orgs import organizations
from ostiary.vault import pool
from ostiary.vault.key_uses import Standing

_ROWS: Final = 50
_USABLE: Final = ("healthy", "degraded")


async def list_(visit: Visit) -> Answer:
    """Those that fit the filters, oldest first."""
    await visit.hall.flush()
    query = visit.query
    async with visit.reading() as tx:
        found = await pool.list_(tx, visit.by, visit.at)
        names = {one.id: one.name for one in await organizations.list_(tx, visit.by)}
    fitting = [one for one in found if _fits(visit, one, names)]
    begin = 1 + next((i for i, one in enumerate(fitting) if one.key.id == query.text("after")), -1)
    shown = fitting[begin : begin + _ROWS]
    return visit.page(
        "operator/pool_list.html" if visit.is_partial else "operator/pool.html",
        keys=shown,
        names=names,
        providers=sorted({one.key.provider for one in found}),
        total=len(found),
        fitting=len(fitting),
        following=shown[-1].key.id if begin + _ROWS < len(fitting) else None,
    )


def _fits(visit: Visit, one: Standing, names: dict[str, str]) -> bool:
    query, key = visit.query, one.key
    sought = query.text("q").casefold()
    health = query.text("health")
    return (
        (not sought or any(sought in text.casefold() for text in (key.name, names.get(key.organization_id, ""))))
        and query.text("provider") in ("", key.provider)
        and (not health or (one.status in _USABLE) == (health == "usable"))
    )
