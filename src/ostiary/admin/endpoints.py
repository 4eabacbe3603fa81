"""Endpoints at the admin API."""

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
    detailed,
    paged,
    shown,
)
from ostiary.admin.shapes import Asking, Id
from ostiary.vault import endpoints


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Endpoints:
    """Endpoints of the organization."""
    tx = await asking.begin()
    return paged(await endpoints.list_(tx, asking.by, asking.organization_id), asked)


async def create(asking: Asking, asked: GivenEndpoint) -> ChangedEndpoint:
    """Make an endpoint: callers reach it by its name in `model`."""
    tx = await asking.begin()
    catalog = asking.office.catalog
    made = await endpoints.create(tx, asking.by, asking.organization_id, asked.wish(), catalog=catalog, at=asking.at)
    return ChangedEndpoint(**shown(made), hints=list(await endpoints.hints(tx, made, catalog)))


async def show(asking: Asking, id: Id) -> DetailedEndpoint:
    """One endpoint, by id or by name, and who uses it."""
    tx = await asking.begin()
    return detailed(await endpoints.show(tx, asking.by, asking.organization_id, id, asking.at))


async def change(asking: Asking, id: Id, asked: EndpointPatch, how: Annotated[Force, Query()]) -> ChangedEndpoint:
    """Edit what is named (RFC 7396): absent stays, null clears. Another name is refused while agent keys name it."""
    tx = await asking.begin()
    catalog = asking.office.catalog
    edited = await endpoints.change(
        tx, asking.by, asking.organization_id, id, asked.edit(), catalog=catalog, at=asking.at, force=how.force
    )
    return ChangedEndpoint(**shown(edited), hints=list(await endpoints.hints(tx, edited, catalog)))


async def delete(asking: Asking, id: Id, how: Annotated[Force, Query()]) -> Response:
    """Forget an endpoint; refused with `in_use` and a list while agent keys name it."""
    tx = await asking.begin()
    await endpoints.remove(tx, asking.by, asking.organization_id, id, asking.at, force=how.force)
    return Response(status_code=204)
