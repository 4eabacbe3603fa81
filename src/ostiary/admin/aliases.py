"""Aliases at the admin API: endpoints of the operator, for everybody."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from ostiary.admin.endpoint_shapes import (
    ChangedEndpoint,
    DetailedEndpoint,
    EndpointPatch,
    Endpoints,
    Filter,
    Force,
    GivenEndpoint,
    ShownEndpoint,
    detailed,
    paged,
    shown,
)
from ostiary.admin.shapes import Asking, Id, Shown
from ostiary.vault import aliases, endpoints


class Made(Shown):
    """Those that were made or remade."""

    data: list[ShownEndpoint]


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Endpoints:
    """All aliases; they are everybody's to see."""
    tx = await asking.begin()
    return paged(await aliases.list_(tx, asking.by), asked)


async def create(asking: Asking, asked: GivenEndpoint) -> ChangedEndpoint:
    """Make an alias, which every organization reaches by its name; its targets name keys of the pool only."""
    tx = await asking.begin()
    catalog = asking.office.catalog
    made = await aliases.create(tx, asking.by, asked.wish(), catalog=catalog, at=asking.at)
    return ChangedEndpoint(**shown(made), hints=list(await endpoints.hints(tx, made, catalog)))


async def make(asking: Asking) -> Made:
    """Make `ostiary/fast`, `smart`, `cheap` and `embed` over the pool's providers, where nobody has edited them."""
    tx = await asking.begin()
    made = await aliases.make(tx, asking.by, catalog=asking.office.catalog, at=asking.at)
    return Made(data=[ShownEndpoint(**shown(one)) for one in made])


async def show(asking: Asking, id: Id) -> DetailedEndpoint:
    """One alias, by id or by name, and who of those that the caller may see uses it."""
    tx = await asking.begin()
    return detailed(await aliases.show(tx, asking.by, id, asking.at))


async def change(asking: Asking, id: Id, asked: EndpointPatch, how: Annotated[Force, Query()]) -> ChangedEndpoint:
    """Edit what is named (RFC 7396): absent stays, null clears. Another name is refused while agent keys name it."""
    tx = await asking.begin()
    catalog = asking.office.catalog
    edited = await aliases.change(tx, asking.by, id, asked.edit(), catalog=catalog, at=asking.at, force=how.force)
    return ChangedEndpoint(**shown(edited), hints=list(await endpoints.hints(tx, edited, catalog)))


async def delete(asking: Asking, id: Id, how: Annotated[Force, Query()]) -> Response:
    """Forget an alias; refused with `in_use` and a list while agent keys name it."""
    tx = await asking.begin()
    await aliases.remove(tx, asking.by, id, asking.at, force=how.force)
    return Response(status_code=204)
