"""Gateways at the admin API: all that is known for the operator, and for an organization what serves it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from ostiary.admin import pages
from ostiary.admin.pages import Page
from ostiary.admin.shapes import Asking, Id, Shown, ShownMoment, ShownUsd, usd
from ostiary.clock import iso
from ostiary.ledger import gateways
from ostiary.ledger.gateways import Gateway


class Filter(Page):
    """Which gateways."""

    all: bool = False
    """Also those that have stopped or were retired."""


class ShownGateway(Shown):
    """One start of a gateway process."""

    id: str
    name: str
    version: str
    state: Literal["live", "lost", "closed", "retired"]
    started_at: ShownMoment
    heartbeat_at: ShownMoment
    revision: int | None
    behind: int | None
    leased_usd: ShownUsd


class Gateways(Shown):
    """One page of them."""

    data: list[ShownGateway]
    next_cursor: str | None


class ServingGateway(Shown):
    """A gateway, as those see it whom it serves."""

    name: str
    version: str
    state: Literal["live", "lost"]
    started_at: ShownMoment
    heartbeat_at: ShownMoment
    revision: int | None = Field(description="The newest change of the configuration that it holds.")
    behind: int | None = Field(description="How many changes it does not hold yet.")


class Serving(Shown):
    """All of them."""

    data: list[ServingGateway]


class Retired(Shown):
    """Those that were given up on."""

    data: list[ShownGateway]


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Gateways:
    """Gateways that live or are lost, the newest start first."""
    tx = await asking.begin()
    found = await gateways.list_(tx, asking.by, asking.at, everyone=asked.all)
    page, cursor = pages.turn(
        found, asked, f"started_at {asked.all}", lambda one: (one.started_at, one.id), descending=True
    )
    return Gateways(data=[ShownGateway(**_shown(one)) for one in page], next_cursor=cursor)


async def list_serving(asking: Asking) -> Serving:
    """Gateways that serve the organization, the newest start first: whether each is up, and what it holds."""
    tx = await asking.begin()
    found = await gateways.list_serving(tx, asking.by, asking.organization_id, asking.at)
    return Serving(
        data=[
            ServingGateway(
                name=one.name,
                version=one.version,
                state="live" if one.is_live else "lost",
                started_at=iso(one.started_at),
                heartbeat_at=iso(one.heartbeat_at),
                revision=one.revision,
                behind=one.behind,
            )
            for one in found
        ]
    )


async def retire(asking: Asking, id: Id) -> Retired:
    """Give up on lost gateways of that id or name: what they lease counts as spent."""
    tx = await asking.begin()
    found = await gateways.retire(tx, asking.by, id, asking.at)
    return Retired(data=[ShownGateway(**{**_shown(one), "state": "retired"}) for one in found])


def _shown(one: Gateway) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "version": one.version,
        "state": one.state,
        "started_at": iso(one.started_at),
        "heartbeat_at": iso(one.heartbeat_at),
        "revision": one.revision,
        "behind": one.behind,
        "leased_usd": usd(one.leased_nano),
    }
