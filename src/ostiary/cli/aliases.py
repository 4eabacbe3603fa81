"""`ostiary aliases`: endpoints of the operator, which every organization reaches by their name."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ostiary.cli import show
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
    described,
    print_changed,
    print_deleted,
    print_list,
    print_view,
)
from ostiary.cli.options import DataDir, Json, Name, NameArgument, NameOption, one_of
from ostiary.vault import aliases, endpoints
from ostiary.vault.aliases import Endpoint, NewEndpoint, View

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
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make an alias, such as ostiary/fast. Its targets may name keys of the pool, and nobody's own."""
    wish = Wish(target or [], fallback, strategy, retries, timeout, one_of("NAME", name, name_option))

    async def deed(desk: Desk) -> tuple[Endpoint, tuple[str, ...]]:
        catalog = desk.ground.catalog
        async with desk.ground.database.transaction() as tx:
            made = await aliases.create(tx, desk.by, NewEndpoint(**wish.edit()), catalog=catalog, at=desk.at)
            return made, await endpoints.hints(tx, made, catalog)

    made, hints = at_desk(Where(data_dir), deed)
    print_changed(made, hints, "alias", "is made", json=json)


@app.command()
def make(*, data_dir: DataDir = None, json: Json = False) -> None:
    """Make ostiary/fast, smart, cheap and embed, over the providers that have keys in the pool.

    Where there is one organization alone, all its keys count, shared or not.

    Those that were made before are extended to new providers, unless somebody has edited them.
    """

    async def deed(desk: Desk) -> list[Endpoint]:
        async with desk.ground.database.transaction() as tx:
            return await aliases.make(tx, desk.by, catalog=desk.ground.catalog, at=desk.at)

    made = at_desk(Where(data_dir), deed)
    if json:
        show.print_json([described(one) for one in made])
    elif made:
        print_list(made, "", json=False)
    else:
        show.say("Nothing to make: every alias is there, or no provider of theirs has a key in the pool.")
        show.say("'ostiary vault add PROVIDER --name NAME --shared' puts one there.")


@app.command("list")
def list_(*, data_dir: DataDir = None, json: Json = False) -> None:
    """All aliases."""

    async def deed(desk: Desk) -> list[Endpoint]:
        async with desk.ground.database.read() as tx:
            return await aliases.list_(tx, desk.by)

    empty = "There is no alias. 'ostiary aliases make' makes some over the providers with keys in the pool."
    print_list(at_desk(Where(data_dir), deed), empty, json=json)


@app.command("show")
def show_(name: Name, *, data_dir: DataDir = None, json: Json = False) -> None:
    """One alias: where it leads, and which agent keys use it."""

    async def deed(desk: Desk) -> View:
        async with desk.ground.database.read() as tx:
            return await aliases.show(tx, desk.by, name, desk.at)

    print_view(at_desk(Where(data_dir), deed), json=json)


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
            before = (await aliases.show(tx, desk.by, name, desk.at)).endpoint
            fields = wish.edit(before.targets)
            edited = await aliases.change(tx, desk.by, before.id, fields, catalog=catalog, at=desk.at, force=force)
            return edited, await endpoints.hints(tx, edited, catalog)

    edited, hints = at_desk(Where(data_dir), deed)
    print_changed(edited, hints, "alias", "is changed", json=json)


@app.command()
def delete(name: Name, *, force: Force = False, data_dir: DataDir = None, json: Json = False) -> None:
    """Forget an alias. Refused while agent keys name it in their allowed models, and they are listed."""

    async def deed(desk: Desk) -> Endpoint:
        async with desk.ground.database.transaction() as tx:
            return await aliases.remove(tx, desk.by, name, desk.at, force=force)

    print_deleted(at_desk(Where(data_dir), deed), "alias", json=json)
