"""Notifications at the admin API: what somebody was told, whom, and whether it arrived."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import Field, JsonValue

from ostiary.admin import pages
from ostiary.admin.pages import Page
from ostiary.admin.shapes import Asking, Shown, ShownMoment, when
from ostiary.clock import iso
from ostiary.db.database import Transaction
from ostiary.ledger import letters, notifications
from ostiary.ledger.notifications import Told
from ostiary.ledger.outbox_store import Delivery, Notification
from ostiary.money import show_usd

_NANO: Final = "_nano"
_AT: Final = "_at"


class Filter(Page):
    """Which notifications."""

    kind: Annotated[str | None, Field(max_length=32, description="Such as `budget.exceeded`.")] = None


class ShownDelivery(Shown):
    """A notification on its way to one address."""

    id: str
    channel: str
    address: str
    state: Literal["arrived", "given up", "on its way"]
    attempts: int
    next_at: ShownMoment | None
    done_at: ShownMoment | None
    error: str | None


class ShownSubject(Shown):
    """What it is about."""

    kind: str
    id: str
    name: str


class ShownNotification(Shown):
    """What somebody was told."""

    id: str
    kind: str
    subject: ShownSubject
    headline: str
    facts: dict[str, JsonValue]
    created_at: ShownMoment
    deliveries: list[ShownDelivery]


class Notifications(Shown):
    """One page of them."""

    data: list[ShownNotification]
    next_cursor: str | None


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Notifications:
    """Notifications, the newest first; to a member those of their own keys."""
    tx = await asking.begin()
    order = f"newest {asked.kind or ''}"
    after = pages.place_of(asked.cursor, order, (int, str))
    found = await notifications.list_(
        tx, asking.by, asking.organization_id, kind=asked.kind, after=after, limit=asked.limit
    )
    cursor = pages.go_on(found, asked.limit, order, lambda told: (told.notification.created_at, told.notification.id))
    return Notifications(data=[_shown(told) for told in found], next_cursor=cursor)


async def test(asking: Asking) -> ShownNotification:
    """Put a test into the outbox, for everybody who is told of anything."""
    tx = await asking.begin()
    told = await notifications.test(tx, asking.by, asking.organization_id, asking.at)
    return await on_its_way(tx, told)


async def on_its_way(tx: Transaction, told: Notification) -> ShownNotification:
    """A notification that was made just now."""
    return _shown(Told(told, tuple(await notifications.deliveries_of(tx, told.id))))


def _shown(told: Told) -> ShownNotification:
    one = told.notification
    return ShownNotification(
        id=one.id,
        kind=one.kind,
        subject=ShownSubject(kind=one.subject_kind, id=one.subject_id, name=one.subject_name),
        headline=letters.headline(one),
        facts=_facts(one),
        created_at=iso(one.created_at),
        deliveries=[_delivery(way) for way in told.deliveries],
    )


def _facts(one: Notification) -> dict[str, Any]:
    """Amounts and times as they are shown everywhere in this API."""
    found: dict[str, Any] = {}
    for name, value in one.facts.items():
        if name.endswith(_NANO):
            found[name.removesuffix(_NANO) + "_usd"] = None if value is None else show_usd(value)
        else:
            found[name] = iso(value) if name.endswith(_AT) and value is not None else value
    return found


def _delivery(way: Delivery) -> ShownDelivery:
    state: Literal["arrived", "given up", "on its way"] = "on its way"
    if way.done_at is not None:
        state = "arrived"
    elif way.next_at is None:
        state = "given up"
    return ShownDelivery(
        id=way.id,
        channel=way.channel,
        address=way.address,
        state=state,
        attempts=way.attempts,
        next_at=when(way.next_at),
        done_at=when(way.done_at),
        error=way.error,
    )
