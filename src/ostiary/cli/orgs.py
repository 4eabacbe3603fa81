"""`ostiary orgs`: organizations."""

from __future__ import annotations

from typing import Any, Final

import typer

from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, NameArgument, NameOption, Org, one_of
from ostiary.orgs import organizations
from ostiary.orgs.organizations import Organization

app: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)


@app.command()
def create(
    name: NameArgument = None, *, name_option: NameOption = None, data_dir: DataDir = None, json: Json = False
) -> None:
    """Make an organization, with a client id of its own."""
    chosen = one_of("NAME", name, name_option)

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            return _described(await organizations.create(tx, desk.by, chosen, desk.at))

    made = at_desk(Where(data_dir), deed)
    if json:
        show.print_json(made)
    else:
        show.say(f"The organization {made['name']!r} is created. Its client id is {made['client_id']}.")


@app.command("list")
def list_(*, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """All organizations, or the one that --org names."""

    async def deed(desk: Desk) -> list[dict[str, Any]]:
        async with desk.ground.database.read() as tx:
            found = await organizations.list_(tx, desk.by)
            chosen = None if org is None else await organizations.get(tx, org)
            return [_described(one) for one in found if chosen is None or one.id == chosen.id]

    found = at_desk(Where(data_dir), deed)
    if json:
        show.print_json(found)
        return
    columns = ("name", "client_id", "created_at", "id")
    show.print_table(
        [column.replace("_", " ") for column in columns],
        [[one[column] for column in columns] for one in found],
        "There is no organization.",
    )


def _described(one: Organization) -> dict[str, Any]:
    return {"id": one.id, "client_id": one.client_id, "name": one.name, "created_at": show.when(one.created_at)}
