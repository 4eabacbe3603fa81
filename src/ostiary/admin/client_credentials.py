"""Client credentials at the admin API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from ostiary.admin import pages
from ostiary.admin.pages import Page
from ostiary.admin.shapes import Asked, Asking, Id, Name, OnceShown, Shown, ShownMoment, when
from ostiary.agents import client_credentials
from ostiary.agents.client_credentials import ClientCredential
from ostiary.orgs import organizations

_ORDER = "created_at"


class Filter(Page):
    """Which credentials."""

    search: Annotated[str | None, Field(max_length=200, description="A part of the name or of the preview.")] = None
    status: Literal["active", "revoked"] | None = None


class NewCredential(Asked):
    """A credential to make."""

    name: Name


class ShownCredential(Shown):
    """A client credential; its secret is not kept by anybody."""

    id: str
    name: str
    preview: str
    status: Literal["active", "revoked"]
    created_at: ShownMoment
    revoked_at: ShownMoment | None


class MadeCredential(ShownCredential):
    """A client credential with its secret: `client_id:api_key:api_secret`."""

    secret: OnceShown = None


class Credentials(Shown):
    """One page of them."""

    data: list[ShownCredential]
    next_cursor: str | None


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Credentials:
    """Client credentials of the organization, oldest first, revoked ones too."""
    tx = await asking.begin()
    found = await client_credentials.list_(tx, asking.by, asking.organization_id)
    sought = (asked.search or "").casefold()
    fitting = [
        one
        for one in found
        if (sought in one.name.casefold() or sought in one.preview.casefold())
        and asked.status in (None, _shown(one)["status"])
    ]
    page, cursor = pages.turn(fitting, asked, _ORDER, lambda one: (one.created_at, one.id))
    return Credentials(data=[ShownCredential(**_shown(one)) for one in page], next_cursor=cursor)


async def create(asking: Asking, asked: NewCredential) -> MadeCredential:
    """Make a credential of the organization. Its secret is in this answer and never again."""
    tx = await asking.begin()
    organization = await organizations.get(tx, asking.organization_id)
    made, secret = await client_credentials.create(
        tx,
        asking.by,
        organization.id,
        asked.name,
        client_id=organization.client_id,
        pepper=asking.office.seal.pepper,
        at=asking.at,
    )
    return MadeCredential(**_shown(made), secret=secret.reveal())


async def revoke(asking: Asking, id: Id) -> ShownCredential:
    """End a credential for good."""
    tx = await asking.begin()
    return ShownCredential(
        **_shown(await client_credentials.revoke(tx, asking.by, asking.organization_id, id, asking.at))
    )


def _shown(one: ClientCredential) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "preview": one.preview,
        "status": "active" if one.revoked_at is None else "revoked",
        "created_at": when(one.created_at),
        "revoked_at": when(one.revoked_at),
    }
