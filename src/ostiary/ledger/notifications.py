"""Notifications: what somebody was told, whom, and whether it arrived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ostiary.actor import Actor
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import alerts, audit, letters
from ostiary.ledger import outbox_store as store
from ostiary.ledger.alerts import Way
from ostiary.ledger.outbox_store import Delivery, Notification

Cursor = tuple[int, str]
"""Time and id of the last notification that was seen."""

_MOST: Final = 200


@dataclass(frozen=True, slots=True)
class Told:
    """A notification with everybody it went to."""

    notification: Notification
    deliveries: tuple[Delivery, ...]


async def list_(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    *,
    kind: str | None = None,
    after: Cursor | None = None,
    limit: int = 100,
) -> list[Told]:
    """The newest first, behind `after`; to a member those of their own keys, without the addresses of others."""
    by.require("notifications.list", organization_id, by.id)
    if kind is not None and kind not in letters.KINDS:
        raise Refusal("invalid_field", f"A kind is one of {', '.join(letters.KINDS)}.", param="kind")
    if not 1 <= limit <= _MOST:
        raise Refusal("invalid_field", f"limit must be 1 to {_MOST}.", param="limit")
    is_own = not by.may("notifications.list", organization_id)
    found = await store.list_notifications(
        tx, organization_id, kind=kind, owner_id=by.id if is_own else None, after=after, limit=limit
    )
    shown = [one for one in await store.list_deliveries(tx, [told.id for told in found]) if _may_see(by, one, is_own)]
    return [Told(one, tuple(way for way in shown if way.notification_id == one.id)) for one in found]


def _may_see(by: Actor, delivery: Delivery, is_own: bool) -> bool:  # noqa: FBT001 - a filter's two inputs
    return not is_own or delivery.address == by.name


async def test(tx: Transaction, by: Actor, organization_id: str, at: int, *ways: Way) -> Notification:
    """Put a test into the outbox: to everybody who is told of anything, or by these ways only."""
    by.require("notifications.test", organization_id)
    subject = await store.find_subject(tx, "organization", organization_id)
    told = None
    if subject is not None:
        told = await alerts.tell(tx, "test", "organization", subject, {"by": by.name}, at, ways or None)
    if subject is None or told is None:
        raise Refusal("not_found")
    deed, name = "notifications.test", subject.name
    await audit.write(tx, by, deed, "organization", subject.id, name, organization_id=subject.id, at=at)
    return told


async def deliveries_of(tx: Transaction, id: str) -> list[Delivery]:
    """How a notification fares."""
    return await store.list_deliveries(tx, [id])
