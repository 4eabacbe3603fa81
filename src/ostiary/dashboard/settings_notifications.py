"""What somebody was told, whom, and whether it arrived; and a test of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.ledger import letters, notifications
from ostiary.ledger.alerts import MAIL
from ostiary.ledger.notifications import Told
from ostiary.ledger.outbox_store import Delivery
from ostiary.vault import webhooks

_PAGE: Final = f"{HOME}/settings/notifications"
_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class Way:
    """A notification on its way to one address, in words."""

    to: str
    state: str
    attempts: int
    next_at: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """A notification with everybody it went to."""

    told: Told
    headline: str
    ways: tuple[Way, ...]


async def show(visit: Visit) -> Answer:
    """The newest first; whoever waits for a test to arrive sees it here, since the list looks again by itself."""
    kind = visit.query.text("kind") or None
    after = _place(visit.query.text("after"))
    async with visit.reading() as tx:
        found = await notifications.list_(
            tx, visit.by, visit.home, kind=kind if kind in letters.KINDS else None, after=after, limit=_ROWS
        )
        names = {one.id: one.name for one in await webhooks.list_(tx, visit.by, visit.home)}
    rows = [
        Row(one, letters.headline(one.notification), tuple(_way(way, names) for way in one.deliveries)) for one in found
    ]
    last = found[-1].notification if len(found) == _ROWS else None
    return visit.page(
        "settings/notification_rows.html" if visit.is_partial else "settings/notifications.html",
        rows=rows,
        kinds=letters.KINDS,
        next_cursor=f"{last.created_at}-{last.id}" if last else "",
        has_mail=visit.hall.mailer is not None,
        tab="notifications",
    )


async def test(visit: Visit) -> Answer:
    """Tell everybody who is told of anything."""
    async with visit.writing() as tx:
        await notifications.test(tx, visit.by, visit.home, visit.at)
    return visit.go(_PAGE, "A test is on its way.")


def _way(one: Delivery, names: dict[str, str]) -> Way:
    to = one.address if one.channel == MAIL else names.get(one.address, "a webhook that is gone")
    if one.done_at is not None:
        return Way(to, "delivered", one.attempts, None, one.error)
    state = "failed" if one.next_at is None else "pending"
    return Way(to, state, one.attempts, one.next_at, one.error)


def _place(text: str) -> tuple[int, str] | None:
    at, _, id_ = text.partition("-")
    if not text:
        return None
    if not (at.isascii() and at.isdigit() and len(at) <= 15 and id_):  # noqa: PLR2004 - digits of a time
        raise Refusal("invalid_field", "There is no such page of the list.", param="after")
    return int(at), id_
