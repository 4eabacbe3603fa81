"""`ostiary notifications`: what somebody was told of, whom, and whether it arrived."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ostiary.app import senders
from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Org
from ostiary.ledger import letters, notifications
from ostiary.ledger.notifications import Told
from ostiary.ledger.outbox import Outbox
from ostiary.ledger.outbox_store import Delivery
from ostiary.providers.transport import Transport

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)

_HEADINGS: Final = ("at", "what", "arrived", "not arrived", "id")
_LOOK_S: Final = 0.2
_LOOKS: Final = 150


@app.command("list")
def list_(
    *,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind, such as budget.exceeded.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="How many, the newest first.")] = 50,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Notifications, the newest first: what happened, and how far each of their deliveries is."""

    async def deed(desk: Desk) -> list[Told]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            return await notifications.list_(tx, desk.by, organization.id, kind=kind, limit=limit)

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json([described(one) for one in found])
    else:
        show.print_table(_HEADINGS, [_row(one) for one in found], "Nobody was told of anything yet.")


@app.command("test")
def probe(*, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Send a test to everybody who is told of anything: owners, admins, webhooks. Exit code 1 unless all arrive."""

    async def deed(desk: Desk) -> list[Delivery]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            told = await notifications.test(tx, desk.by, organization.id, desk.at)
        return await deliver(desk, told.id)

    print_deliveries(at_desk(Where(data_dir, org), deed), json=json)


async def deliver(desk: Desk, id: str) -> list[Delivery]:
    """See a notification through its first attempts: by this command's own hand, unless a gateway is quicker."""
    transport = Transport(desk.ground.egress)
    await transport.open()
    try:
        outbox = Outbox(desk.ground.database, desk.ground.clock, senders(desk.ground, transport))
        for _ in range(_LOOKS):
            await outbox.run(desk.at)
            async with desk.ground.database.read() as tx:
                found = await notifications.deliveries_of(tx, id)
            if all(one.done_at or one.error for one in found):
                break
            await desk.ground.clock.sleep(_LOOK_S)
    finally:
        await transport.close()
    return found


def print_deliveries(found: list[Delivery], *, json: bool) -> None:
    """How each of them went; ends the command with 1 unless all have arrived."""
    if json:
        show.print_json([_shown(one) for one in found])
    else:
        rows = [[one.channel, one.address, _state(one), one.error] for one in found]
        show.print_table(("by", "to", "state", "why"), rows, "There is nobody to tell: no owner, no admin, no webhook.")
    if not found or not all(one.done_at for one in found):
        raise typer.Exit(1)


def described(told: Told) -> dict[str, Any]:
    """A notification as JSON."""
    return letters.presented(told.notification) | {"deliveries": [_shown(one) for one in told.deliveries]}


def _shown(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "channel": delivery.channel,
        "address": delivery.address,
        "state": _state(delivery),
        "attempts": delivery.attempts,
        "next_at": show.when(delivery.next_at),
        "done_at": show.when(delivery.done_at),
        "error": delivery.error,
    }


def _state(delivery: Delivery) -> str:
    if delivery.done_at is not None:
        return "arrived"
    return "given up" if delivery.next_at is None else "on its way"


def _row(told: Told) -> list[object]:
    arrived = [one.address for one in told.deliveries if one.done_at is not None]
    others = [f"{one.address} ({one.error or 'on its way'})" for one in told.deliveries if one.done_at is None]
    notification = told.notification
    return [show.when(notification.created_at), letters.headline(notification), arrived, others, notification.id]
