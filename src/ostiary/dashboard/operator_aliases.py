"""Aliases, for the operator: where each leads, whether the pool can serve it now, and whether it keeps up by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.endpoint_views import Keys, KeyState, TargetView, cut, drawn, fitting, providers_of
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.vault import aliases, pool
from ostiary.vault.aliases import Endpoint, Origin
from ostiary.vault.key_uses import Standing

PATH: Final = f"{HOME}/operator/aliases"


@dataclass(frozen=True, slots=True)
class Row:
    """An alias in the list, judged by the keys of the pool: those that every organization can count on."""

    alias: Endpoint
    targets: tuple[TargetView, ...]
    origin: Origin

    @property
    def usable(self) -> int:
        """How many of its targets would be tried now."""
        return sum(view.is_usable for view in self.targets)

    @property
    def reason(self) -> str:
        """Why nothing can be called by it; empty where something can."""
        if self.usable:
            return ""
        ill = [f"{view.target.provider}: {view.says}" for view in self.targets if view.keys]
        return "; ".join(dict.fromkeys(ill)) or "no key of its providers in the pool"


async def list_(visit: Visit) -> Answer:
    """Those that fit the filters, a page at a time."""
    await visit.hall.flush()
    query = visit.query
    async with visit.reading() as tx:
        known = await aliases.list_(tx, visit.by)
        usable = await pool.list_for_all(tx, visit.by, visit.at)
    found = fitting(query, known)
    page, after = cut(found, query.text("after"))
    keys = _pooled(usable)
    return visit.page(
        "operator/aliases_list.html" if visit.is_partial else "operator/aliases.html",
        rows=[Row(one, drawn(one, keys), aliases.origin(one)) for one in page],
        total=len(known),
        fitting=len(found),
        following=after,
        pooled=len(usable),
        providers=sorted(providers_of(known)),
        sort=query.text("sort", "name"),
    )


def _pooled(usable: list[Standing]) -> Keys:
    keys: Keys = {}
    for one in usable:
        state = KeyState(one.key.id, one.key.name, one.key.provider, one.status, one.health, is_shared=True)
        keys.setdefault(state.provider, []).append(state)
    return keys
