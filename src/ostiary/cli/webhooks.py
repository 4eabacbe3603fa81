"""`ostiary webhooks`: URLs that are told of notifications, signed."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.notifications import deliver, print_deliveries
from ostiary.cli.options import DataDir, Json, Name, NameArgument, NameOption, Org, one_of
from ostiary.ledger.outbox_store import Delivery
from ostiary.ledger.webhook_store import ALL
from ostiary.secret import Secret
from ostiary.vault import webhooks
from ostiary.vault.webhooks import NewWebhook, Webhook, WebhookEdit

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)

_COLUMNS: Final = ("name", "url", "kinds", "is_active", "updated_at", "id")

_Kinds = Annotated[
    str | None,
    typer.Option(
        "--kinds", metavar="KIND,…", help="Of what it is told, such as budget.exceeded; usual: all.", show_default=False
    ),
]


@app.command()
def create(
    name: NameArgument = None,
    *,
    name_option: NameOption = None,
    url: Annotated[str, typer.Option("--url", help="Where to post to; https.", show_default=False)],
    kinds: _Kinds = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a webhook. The secret that signs what it is sent is shown once, here."""
    wish = NewWebhook(one_of("NAME", name, name_option), url, _split(kinds) or (ALL,))

    async def deed(desk: Desk) -> tuple[Webhook, Secret]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            ground = desk.ground
            return await webhooks.create(
                tx, desk.by, organization.id, wish, seal=ground.seal, egress=ground.egress, at=desk.at
            )

    webhook, secret = at_desk(Where(data_dir, org), deed)
    _print(webhook, secret, json=json, done="is made")


@app.command("list")
def list_(*, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """All webhooks of an organization; never their secrets."""

    async def deed(desk: Desk) -> list[Webhook]:
        async with desk.ground.database.read() as tx:
            return await webhooks.list_(tx, desk.by, (await desk.organization(tx)).id)

    found = [_described(one) for one in at_desk(Where(data_dir, org), deed)]
    if json:
        show.print_json(found)
        return
    show.print_table(
        [column.replace("_", " ") for column in _COLUMNS],
        [[one[column] for column in _COLUMNS] for one in found],
        "There is no webhook. 'ostiary webhooks create NAME --url URL' makes one.",
    )


@app.command()
def edit(  # noqa: PLR0913 - one argument an option
    name: Name,
    *,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="Where to post to from now on.")] = None,
    kinds: _Kinds = None,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="Whether it is told of anything.", show_default=False)
    ] = None,
    new_secret: Annotated[bool, typer.Option("--new-secret", help="Replace the secret; the old one ends.")] = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Change what is given; what is not given stays. At another origin it gets a new secret, shown once, here."""
    if not (new_name or url or kinds or new_secret or active is not None):
        raise typer.BadParameter("Nothing to change was given.")
    wish = WebhookEdit(new_name, url, _split(kinds), active, new_secret)

    async def deed(desk: Desk) -> tuple[Webhook, Secret | None]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            ground = desk.ground
            return await webhooks.change(
                tx, desk.by, organization.id, name, wish, seal=ground.seal, egress=ground.egress, at=desk.at
            )

    webhook, secret = at_desk(Where(data_dir, org), deed)
    _print(webhook, secret, json=json, done="is changed")


@app.command()
def delete(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Forget a webhook and its secret. This cannot be undone."""

    async def deed(desk: Desk) -> Webhook:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            webhook = await webhooks.show(tx, desk.by, organization.id, name)
            await webhooks.remove(tx, desk.by, organization.id, webhook.id, desk.at)
            return webhook

    webhook = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json({"id": webhook.id, "name": webhook.name, "deleted": True})
    else:
        show.say(f"The webhook {webhook.name!r} is deleted.")


@app.command("test")
def probe(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Post a test to one webhook. Exit code 1 unless it is taken."""

    async def deed(desk: Desk) -> list[Delivery]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            told = await webhooks.test(tx, desk.by, organization.id, name, desk.at)
        return await deliver(desk, told.id)

    print_deliveries(at_desk(Where(data_dir, org), deed), json=json)


def _split(kinds: str | None) -> tuple[str, ...] | None:
    return None if kinds is None else tuple(kind.strip() for kind in kinds.split(",") if kind.strip())


def _described(webhook: Webhook) -> dict[str, Any]:
    return {
        "id": webhook.id,
        "name": webhook.name,
        "url": webhook.url,
        "kinds": sorted(webhook.kinds),
        "is_active": webhook.is_active,
        "created_at": show.when(webhook.created_at),
        "updated_at": show.when(webhook.updated_at),
    }


def _print(webhook: Webhook, secret: Secret | None, *, json: bool, done: str) -> None:
    if json:
        show.print_json(_described(webhook) | ({} if secret is None else {"secret": secret.reveal()}))
        return
    show.say(f"The webhook {webhook.name!r} {done}.")
    if secret is not None:
        show.say(f"Its secret, shown only now: {secret.reveal()}")
