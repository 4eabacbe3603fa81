"""`ostiary explain`: what a call would do, by the same steps as the call itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ostiary.agents import agent_keys
from ostiary.app import judging
from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Org
from ostiary.errors import Refusal
from ostiary.gateway.explain import explain_call
from ostiary.gateway.request import MAX_BODY
from ostiary.gateway.unheard import unheard

app: Final = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def explain(
    body: Annotated[Path, typer.Argument(metavar="BODY", help="A file with the JSON body of the call; - reads it.")],
    *,
    key: Annotated[str, typer.Option("--key", metavar="NAME", help="The agent key that would call.")],
    address: Annotated[
        str, typer.Option("--address", metavar="IP", help="The address it would call from.")
    ] = "127.0.0.1",
    operation: Annotated[
        str | None,
        typer.Option("--operation", help="Such as responses or audio.speech, where the body does not say it."),
    ] = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Say whether a call would be made, by whom and for how much at most, or why not; nothing is spent.

    Rates are judged by the calls that the ledger has: those that are open are for the gateway that serves them to know.
    """
    text = _read(body)

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            found = await agent_keys.show(tx, desk.by, organization.id, key)
        async with judging(desk.ground) as gate:
            caller = gate.directory.find_holder(found.id)
            if caller is None:
                raise Refusal("conflict", f"The agent key {found.name!r} has no secret that opens it. Rotate it.")
            return await explain_call(gate, caller, unheard(text, address, operation))

    told = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(told)
    else:
        show.say(told["in_words"])
        if told.get("content_is_captured"):
            show.say("What is asked and answered would be kept, redacted.")
        show.print_table(
            ["", "provider", "model", "provider key", "price"],
            [
                [number, one["provider"], one["model"], one["provider_key"] or "shared", one["price_version"]]
                for number, one in enumerate(told.get("targets", ()), 1)
            ],
            "",
        )
    if not told["allowed"]:
        raise typer.Exit(1)


def _read(path: Path) -> bytes:
    """At most as much as a call may be, and one byte more, so that what is too much is seen to be."""
    if str(path) == "-":
        return sys.stdin.buffer.read(MAX_BODY + 1)
    try:
        with path.open("rb") as file:
            return file.read(MAX_BODY + 1)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}.", param_hint="BODY") from None
