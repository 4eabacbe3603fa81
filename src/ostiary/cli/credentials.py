"""`ostiary credentials`: client credentials, what an organization's own servers present."""

from __future__ import annotations

from typing import Any, Final

import typer

from ostiary.agents import client_credentials
from ostiary.agents.store import ClientCredential
from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Name, NameArgument, NameOption, Org, one_of

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)


@app.command()
def create(
    name: NameArgument = None,
    *,
    name_option: NameOption = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a credential client_id:api_key:api_secret. It is printed once, and never again."""
    chosen = one_of("NAME", name, name_option)

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            made, secret = await client_credentials.create(
                tx,
                desk.by,
                organization.id,
                chosen,
                client_id=organization.client_id,
                pepper=desk.ground.seal.pepper,
                at=desk.at,
            )
            described = _described(made)
            return {"id": described.pop("id"), "secret": secret.reveal(), **described}

    made = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(made)
        return
    show.say(f"The client credential {made['name']!r} is created. It is shown this once; keep it now:\n")
    show.say(f"    {made['secret']}\n")


@app.command("list")
def list_(*, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """All client credentials of an organization, revoked ones too."""

    async def deed(desk: Desk) -> list[dict[str, Any]]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            return [_described(one) for one in await client_credentials.list_(tx, desk.by, organization.id)]

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(found)
        return
    columns = ("name", "preview", "status", "created_at", "id")
    show.print_table(
        [column.replace("_", " ") for column in columns],
        [[one[column] for column in columns] for one in found],
        "There is no client credential. 'ostiary credentials create --name NAME' makes one.",
    )


@app.command()
def revoke(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """End a client credential for good."""

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            return _described(await client_credentials.revoke(tx, desk.by, organization.id, name, desk.at))

    revoked = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(revoked)
    else:
        show.say(f"The client credential {revoked['name']!r} is revoked.")


def _described(one: ClientCredential) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "preview": one.preview,
        "status": "active" if one.revoked_at is None else "revoked",
        "created_at": show.when(one.created_at),
        "revoked_at": show.when(one.revoked_at),
    }
