"""Endpoints: the organization's named routes, and beside them the aliases that everybody has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ostiary.dashboard import aliases, endpoint_pages
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.endpoint_pages import HOME, Kind, key_options
from ostiary.dashboard.endpoint_views import cut, drawn, find_keys, fitting, providers_of
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.vault import endpoints as room
from ostiary.vault.endpoints import Endpoint, NewEndpoint, View


async def list_(visit: Visit) -> Answer:
    """Endpoints and aliases, searched and filtered; a page of endpoints at a time."""
    query = visit.query
    async with visit.reading() as tx:
        own = await room.list_(tx, visit.by, visit.home)
        shared = await aliases.list_(tx, visit)
        found, common = fitting(query, own), fitting(query, shared)
        page, after = cut(found, query.text("after"))
        keys = await find_keys(visit, tx, providers_of([*page, *common]))
    return visit.page(
        "endpoints/rows.html" if visit.is_partial else "endpoints/list.html",
        rows=[(one, drawn(one, keys)) for one in page],
        aliases=[(one, drawn(one, keys)) for one in common],
        after=after,
        count=len(own),
        found=len(found),
        is_filtered=bool(query.text("q") or query.text("provider")),
        providers=sorted(providers_of([*own, *shared])),
        may_create=visit.may("endpoints.create"),
        may_alias=visit.may("aliases.create"),
        sort=query.text("sort", "name"),
    )


async def new(visit: Visit) -> Answer:
    """The form of a new one."""
    return await endpoint_pages.new(visit, KIND)


async def create(visit: Visit) -> Answer:
    """Make it."""
    return await endpoint_pages.create(visit, KIND)


async def show(visit: Visit) -> Answer:
    """One of them; who comes with the id of an alias goes on to its page."""
    try:
        async with visit.reading() as tx:
            view = await _view(visit, tx, visit.names["id"])
    except Refusal as refusal:
        alias = await aliases.find(visit, visit.names["id"]) if refusal.code == "not_found" else None
        if alias is None:
            raise
        return visit.go(f"{aliases.PATH}/{alias.id}")
    return await endpoint_pages.show(visit, KIND, view)


async def change(visit: Visit) -> Answer:
    """Edit it in place."""
    return await endpoint_pages.change(visit, KIND)


async def delete(visit: Visit) -> Answer:
    """Forget it."""
    return await endpoint_pages.delete(visit, KIND)


async def keys(visit: Visit) -> Answer:
    """The provider keys of one provider, as options of a form."""
    provider = visit.query.text("provider")
    wanted = {provider} if visit.hall.catalog.find(provider) else set()
    async with visit.reading() as tx:
        found = await find_keys(visit, tx, wanted)
    kind = aliases.KIND if visit.query.has("alias") else KIND
    return visit.page("endpoints/keys.html", options=key_options(kind, found).get(provider, []), value="")


# ---- what the deeds of this room are called by ------------------------------------------------------------------


async def _view(visit: Visit, tx: Transaction, id: str) -> View:
    return await room.show(tx, visit.by, visit.home, id, visit.at)


async def _create(visit: Visit, tx: Transaction, wish: NewEndpoint) -> Endpoint:
    return await room.create(tx, visit.by, visit.home, wish, catalog=visit.hall.catalog, at=visit.at)


async def _change(visit: Visit, tx: Transaction, id: str, edit: Mapping[str, object], force: bool) -> Endpoint:  # noqa: FBT001 - as `Kind` has it
    return await room.change(tx, visit.by, visit.home, id, edit, catalog=visit.hall.catalog, at=visit.at, force=force)


async def _remove(visit: Visit, tx: Transaction, id: str, force: bool) -> Endpoint:  # noqa: FBT001 - as `Kind` has it
    return await room.remove(tx, visit.by, visit.home, id, visit.at, force=force)


KIND: Final = Kind("endpoint", "endpoints", HOME, lambda visit: visit.home, _view, _create, _change, _remove)
