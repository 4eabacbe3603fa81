"""Webhooks at the admin API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import Field, WithJsonSchema

from ostiary.admin import pages
from ostiary.admin.notifications import ShownNotification, on_its_way
from ostiary.admin.pages import Page
from ostiary.admin.shapes import ABSENT, Asked, Asking, Id, Item, Name, OnceShown, Shown, ShownMoment
from ostiary.clock import iso
from ostiary.ledger import letters
from ostiary.ledger.webhook_store import ALL
from ostiary.vault import webhooks
from ostiary.vault.webhooks import NewWebhook, Webhook, WebhookEdit

Url = Annotated[str, Field(min_length=1, max_length=2_000, examples=["https://hooks.example.org/ostiary"])]
Kind = Annotated[Item, WithJsonSchema({"type": "string", "enum": [ALL, *letters.KINDS]})]
Kinds = Annotated[list[Kind], Field(min_length=1, max_length=50, description="Kinds of notifications, or `all` alone.")]


class GivenWebhook(Asked):
    """A webhook to make."""

    name: Name
    url: Url
    kinds: Kinds = Field(default=["all"])


class WebhookPatch(Asked):
    """What is named is changed. Another origin gets a new secret."""

    name: Name = ABSENT
    url: Url = ABSENT
    kinds: Kinds = ABSENT
    is_active: bool = ABSENT
    new_secret: bool = Field(default=False, description="Put a new secret in the place of the old.")


class ShownWebhook(Shown):
    """A URL that is told of notifications; its secret is sealed."""

    id: str
    name: str
    url: str
    kinds: list[str]
    is_active: bool
    created_at: ShownMoment
    updated_at: ShownMoment


class MadeWebhook(ShownWebhook):
    """A webhook with its new secret, which signs what is posted."""

    secret: OnceShown = None


class Webhooks(Shown):
    """One page of them."""

    data: list[ShownWebhook]
    next_cursor: str | None


async def list_(asking: Asking, asked: Annotated[Page, Query()]) -> Webhooks:
    """Webhooks of the organization, oldest first."""
    tx = await asking.begin()
    found = await webhooks.list_(tx, asking.by, asking.organization_id)
    page, cursor = pages.turn(found, asked, "created_at", lambda one: (one.created_at, one.id))
    return Webhooks(data=[ShownWebhook(**_shown(one)) for one in page], next_cursor=cursor)


async def create(asking: Asking, asked: GivenWebhook) -> MadeWebhook:
    """Make a webhook. Its secret is in this answer and never again."""
    tx = await asking.begin()
    office = asking.office
    made, secret = await webhooks.create(
        tx,
        asking.by,
        asking.organization_id,
        NewWebhook(asked.name, asked.url, asked.kinds),
        seal=office.seal,
        egress=office.egress,
        at=asking.at,
    )
    return MadeWebhook(**_shown(made), secret=secret.reveal())


async def show(asking: Asking, id: Id) -> ShownWebhook:
    """One webhook, by id or by name."""
    tx = await asking.begin()
    return ShownWebhook(**_shown(await webhooks.show(tx, asking.by, asking.organization_id, id)))


async def change(asking: Asking, id: Id, asked: WebhookPatch) -> MadeWebhook:
    """Edit what is named (RFC 7396). A secret is shown only when it is new."""
    tx = await asking.begin()
    named = {name: getattr(asked, name) for name in asked.model_fields_set}
    edited, secret = await webhooks.change(
        tx,
        asking.by,
        asking.organization_id,
        id,
        WebhookEdit(**named),
        seal=asking.office.seal,
        egress=asking.office.egress,
        at=asking.at,
    )
    return MadeWebhook(**_shown(edited), secret=secret.reveal() if secret else None)


async def delete(asking: Asking, id: Id) -> Response:
    """Forget a webhook; what is on its way there is given up."""
    tx = await asking.begin()
    await webhooks.remove(tx, asking.by, asking.organization_id, id, asking.at)
    return Response(status_code=204)


async def test(asking: Asking, id: Id) -> ShownNotification:
    """Put a test for one webhook into the outbox."""
    tx = await asking.begin()
    told = await webhooks.test(tx, asking.by, asking.organization_id, id, asking.at)
    return await on_its_way(tx, told)


def _shown(one: Webhook) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "url": one.url,
        "kinds": sorted(one.kinds),
        "is_active": one.is_active,
        "created_at": iso(one.created_at),
        "updated_at": iso(one.updated_at),
    }
