"""`ostiary gateways`: who serves on this database, what they know, and the money they hold."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import Config, DataDir, Json, Name
from ostiary.ledger import gateways
from ostiary.ledger.gateways import Gateway

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)

_HEADINGS: Final = ("name", "state", "version", "heard", "revision", "behind", "leased", "id")


@app.command("list")
def list_(
    *,
    everyone: Annotated[bool, typer.Option("--all", help="Also those that have stopped or were retired.")] = False,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Every gateway that lives, or was lost: its revision of the configuration, its last heartbeat, its leases."""

    async def deed(desk: Desk) -> list[Gateway]:
        async with desk.ground.database.read() as tx:
            return await gateways.list_(tx, desk.by, desk.at, everyone=everyone)

    found = at_desk(Where(data_dir, None, config), deed)
    if json:
        show.print_json([_described(one) for one in found])
    else:
        show.print_table(_HEADINGS, [_row(one) for one in found], "No gateway is running.")


@app.command()
def retire(name: Name, *, data_dir: DataDir = None, config: Config = None, json: Json = False) -> None:
    """Give up on a lost gateway: what it had leased of budgets counts as spent from then on.

    Do this when its spool is gone for good. A spool that turns up all the same is settled from that charge.
    """

    async def deed(desk: Desk) -> list[Gateway]:
        async with desk.ground.database.transaction() as tx:
            return await gateways.retire(tx, desk.by, name, desk.at)

    retired = at_desk(Where(data_dir, None, config), deed)
    if json:
        show.print_json([{"id": one.id, "name": one.name, "charged_usd": show.usd(one.leased_nano)} for one in retired])
        return
    for one in retired:
        show.say(f"{one.name} ({one.id}) is retired; {show.dollars(one.leased_nano)} count as spent.")


def _described(one: Gateway) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "version": one.version,
        "state": one.state,
        "started_at": show.when(one.started_at),
        "heartbeat_at": show.when(one.heartbeat_at),
        "heard_s": one.heard_ms // 1000,
        "revision": one.revision,
        "behind": one.behind,
        "leased_usd": show.usd(one.leased_nano),
    }


def _row(one: Gateway) -> list[object]:
    return [
        one.name,
        one.state,
        one.version,
        f"{one.heard_ms // 1000} s ago",
        one.revision,
        one.behind,
        show.dollars(one.leased_nano),
        one.id,
    ]
