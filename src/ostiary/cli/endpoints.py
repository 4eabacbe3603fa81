"""`ostiary endpoints`: an organization's named routes to one or more models."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.endpoint_views import (
    Fallbacks,
    Force,
    HowTo,
    NoFallback,
    Retries,
    Targets,
    Timeout,
    Wish,
    print_changed,
    print_deleted,
    print_list,
    print_view,
)
from ostiary.cli.options import DataDir, Json, Name, NameArgument, NameOption, Org, one_of
from ostiary.vault import endpoints
from ostiary.vault.endpoints import Endpoint, NewEndpoint, View

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)


@app.command()
def create(  # noqa: PLR0913 - one argument an option
    name: NameArgument = None,
    *,
    name_option: NameOption = None,
    target: Targets = None,
    fallback: Fallbacks = None,
    strategy: HowTo = None,
    retries: Retries = None,
    timeout: Timeout = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make an endpoint. Callers name it as their model; each call goes to one of its targets."""
    wish = Wish(target or [], fallback, strategy, retries, timeout, one_of("NAME", name, name_option))

    async def deed(desk: Desk) -> tuple[Endpoint, tuple[str, ...]]:
        catalog = desk.ground.catalog
        async with desk.ground.database.transaction() as tx:
            home = (await desk.organization(tx)).id
            made = await endpoints.create(tx, desk.by, home, NewEndpoint(**wish.edit()), catalog=catalog, at=desk.at)
            return made, await endpoints.hints(tx, made, catalog)

    made, hints = at_desk(Where(data_dir, org), deed)
    print_changed(made, hints, "endpoint", "is made", json=json)


@app.command("list")
def list_(*, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """All endpoints of an organization."""

    async def deed(desk: Desk) -> list[Endpoint]:
        async with desk.ground.database.read() as tx:
            return await endpoints.list_(tx, desk.by, (await desk.organization(tx)).id)

    empty = "There is no endpoint. 'ostiary endpoints create NAME --target PROVIDER/MODEL' makes one."
    print_list(at_desk(Where(data_dir, org), deed), empty, json=json)


@app.command("show")
def show_(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """One endpoint: where it leads, and which agent keys use it."""

    async def deed(desk: Desk) -> View:
        async with desk.ground.database.read() as tx:
            return await endpoints.show(tx, desk.by, (await desk.organization(tx)).id, name, desk.at)

    print_view(at_desk(Where(data_dir, org), deed), json=json)


@app.command()
def edit(  # noqa: PLR0913 - one argument an option
    name: Name,
    *,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    target: Targets = None,
    fallback: Fallbacks = None,
    no_fallback: NoFallback = False,
    strategy: HowTo = None,
    retries: Retries = None,
    timeout: Timeout = None,
    force: Force = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Change what is given; what is not given stays. `--target` replaces all targets, `--fallback` all fallbacks."""
    wish = Wish(target, [] if no_fallback else fallback, strategy, retries, timeout, new_name)
    if wish.is_empty:
        raise typer.BadParameter("Nothing to change was given.")

    async def deed(desk: Desk) -> tuple[Endpoint, tuple[str, ...]]:
        catalog = desk.ground.catalog
        async with desk.ground.database.transaction() as tx:
            home = (await desk.organization(tx)).id
            before = (await endpoints.show(tx, desk.by, home, name, desk.at)).endpoint
            fields = wish.edit(before.targets)
            edited = await endpoints.change(
                tx, desk.by, home, before.id, fields, catalog=catalog, at=desk.at, force=force
            )
            return edited, await endpoints.hints(tx, edited, catalog)

    edited, hints = at_desk(Where(data_dir, org), deed)
    print_changed(edited, hints, "endpoint", "is changed", json=json)


@app.command()
def delete(name: Name, *, force: Force = False, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Forget an endpoint. Refused while agent keys name it in their allowed models, and they are listed."""

    async def deed(desk: Desk) -> Endpoint:
        async with desk.ground.database.transaction() as tx:
            home = (await desk.organization(tx)).id
            return await endpoints.remove(tx, desk.by, home, name, desk.at, force=force)

    print_deleted(at_desk(Where(data_dir, org), deed), "endpoint", json=json)
