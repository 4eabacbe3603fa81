"""The `ostiary` command: finds what was asked for and loads only that."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from functools import cache
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from ostiary.cli.output import take_output
from ostiary.errors import CannotStart, Refusal

_COMMANDS: Final = {
    "serve": "Run the gateway.",
    "demo": "See one call go through a gateway of its own, from an empty folder; no key needed.",
    "doctor": "Check the settings, the database, the master key and the way to the providers.",
    "vault": "Provider keys: the credentials that go out.",
    "endpoints": "Endpoints: named routes to one or more models.",
    "aliases": "Aliases: endpoints of the operator, for everybody.",
    "keys": "Agent keys: what agents and people present.",
    "credentials": "Client credentials: what an organization's own servers present.",
    "orgs": "Organizations.",
    "members": "Who belongs to an organization, and as what.",
    "users": "People, and how they sign in.",
    "explain": "Say what a call would do: allowed or not, by whom, for how much at most.",
    "prices": "What a model costs, where the built-in prices do not say or should not count.",
    "usage": "Requests, tokens and cost by day, key and model.",
    "traces": "Single calls, the newest first.",
    "audit": "Who did what, and the proof that nobody rewrote it.",
    "notifications": "What somebody was told of, whom, and whether it arrived.",
    "webhooks": "URLs that are told of notifications, signed.",
    "gateways": "Who serves on this database, what they know, and the money they hold.",
    "scan": "Find credentials that lie about in files: ours by checksum, those of providers by shape.",
    "master-key": "The key that everything in the vault is sealed under.",
    "backup": "Write the whole instance to one file, while gateways serve.",
    "restore": "Put a backup in place.",
}


@cache
def command(name: str) -> Any:  # noqa: ANN401 - typer keeps its click private
    """One of them, with all that belongs to it."""
    return get_command(importlib.import_module(f"ostiary.cli.{name.replace('-', '_')}").app)


@cache
def commands() -> Any:  # noqa: ANN401 - as above
    """`ostiary` itself, which knows their names."""
    return get_command(app)


class _Nouns(TyperGroup):
    """Lists every command, and imports the one that is called: a help page need not load a database."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401 - typer keeps its click private
        name, _, rest = super().resolve_command(ctx, args)
        return name, command(str(name)), rest


app: Final = typer.Typer(cls=_Nouns, name="ostiary", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - a flag of the command line
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - not needed by anything else

        typer.echo(f"ostiary {version('ostiary')}")
        raise typer.Exit


@app.callback()
def ostiary(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A self-hosted AI gateway with a key vault: one OpenAI-compatible door in front of every provider.

    Exit codes: 0 done, 1 refused, 2 not understood.
    """


def _placeholder() -> None:
    """Stands in the list of commands; `_Nouns` puts the command itself in its place when it is called."""


for _name, _help in _COMMANDS.items():
    app.command(_name, help=_help)(_placeholder)


def run() -> None:
    """The entry point. What a person can mend is said in one line, without a traceback."""
    take_output()
    os.umask(0o077)  # whatever is written, copies of the database too, is for its owner, in whichever folder
    try:
        commands()(prog_name="ostiary")
    except (CannotStart, Refusal) as refused:
        message = refused.message if isinstance(refused, Refusal) else str(refused)
        _fail(f"ostiary: {message}")
    except Exception:  # noqa: BLE001 - the last to see it: a traceback may quote what was in hand
        _fail(traceback.format_exc())


def _fail(text: str) -> NoReturn:
    from ostiary import logs  # noqa: PLC0415 - a tenth of a second that a help page need not pay

    typer.echo(logs.redact(text), err=True)
    sys.exit(1)
