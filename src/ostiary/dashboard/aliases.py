"""Aliases: the operator's routes for everybody, shown beside endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ostiary.dashboard import endpoint_pages, operator_aliases
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.endpoint_pages import HOME, Kind
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.vault import aliases as room
from ostiary.vault.aliases import Endpoint, NewEndpoint, View
from ostiary.vault.endpoint_store import EVERYBODY

PATH: Final = f"{HOME}/aliases"


async def list_(tx: Transaction, visit: Visit) -> list[Endpoint]:
    """All of them."""
    return await room.list_(tx, visit.by)


async def find(visit: Visit, id: str) -> Endpoint | None:
    """One by id or name, None when there is none."""
    try:
        async with visit.reading() as tx:
            return (await room.show(tx, visit.by, id, visit.at)).endpoint
    except Refusal:
        return None


async def new(visit: Visit) -> Answer:
    """The form of a new one."""
    return await endpoint_pages.new(visit, KIND)


async def create(visit: Visit) -> Answer:
    """Make it."""
    return await endpoint_pages.create(visit, KIND)


async def make(visit: Visit) -> Answer:
    """Make those of the catalogue over the providers with keys in the pool, where nobody has edited them."""
    back = operator_aliases.PATH if visit.form.text("place") == "operator" else HOME
    async with visit.writing() as tx:
        made = await room.make(tx, visit.by, catalog=visit.hall.catalog, at=visit.at)
    if not made:
        said = (
            "There is nothing to make: every alias of the catalogue is here, or its providers have no key in the pool."
        )
        return visit.go(back, said=said, kind="info")
    return visit.go(back, said=f"Made {', '.join(one.name for one in made)}.")


async def show(visit: Visit) -> Answer:
    """One of them."""
    async with visit.reading() as tx:
        view = await _view(visit, tx, visit.names["id"])
    return await endpoint_pages.show(visit, KIND, view)


async def change(visit: Visit) -> Answer:
    """Edit it in place."""
    return await endpoint_pages.change(visit, KIND)


async def delete(visit: Visit) -> Answer:
    """Forget it."""
    return await endpoint_pages.delete(visit, KIND)


async def _view(visit: Visit, tx: Transaction, id: str) -> View:
    return await room.show(tx, visit.by, id, visit.at)


async def _create(visit: Visit, tx: Transaction, wish: NewEndpoint) -> Endpoint:
    return await room.create(tx, visit.by, wish, catalog=visit.hall.catalog, at=visit.at)


async def _change(visit: Visit, tx: Transaction, id: str, edit: Mapping[str, object], force: bool) -> Endpoint:  # noqa: FBT001 - as `Kind` has it
    return await room.change(tx, visit.by, id, edit, catalog=visit.hall.catalog, at=visit.at, force=force)


async def _remove(visit: Visit, tx: Transaction, id: str, force: bool) -> Endpoint:  # noqa: FBT001 - as `Kind` has it
    return await room.remove(tx, visit.by, id, visit.at, force=force)


KIND: Final = Kind("alias", "aliases", PATH, lambda _visit: EVERYBODY, _view, _create, _change, _remove)
