"""The options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from ostiary.cli import words

T = TypeVar("T")

TOP_PORT: Final = 65_535


def reader(read: Callable[[str], T]) -> Callable[[str], T]:
    """A parser for an option: what it cannot read is a mistake in usage (exit 2), said in its own words."""

    def parse(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The data folder. Default: OSTIARY_DATA_DIR, else the user's data folder."),
]
Config = Annotated[Path | None, typer.Option("--config", help="A TOML file of settings. Default: OSTIARY_CONFIG.")]
Org = Annotated[
    str | None, typer.Option("--org", help="An organization's id, client id or name. Default: the only one.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Name = Annotated[str, typer.Argument(help="An id or a name.", show_default=False)]
NameArgument = Annotated[str | None, typer.Argument(metavar="NAME", help="Its name.", show_default=False)]
NameOption = Annotated[str | None, typer.Option("--name", help="The same as an option.")]
SecretStdin = Annotated[
    bool, typer.Option("--secret-stdin", help="Read the secret from standard input instead of asking for it.")
]
Key = Annotated[str | None, typer.Option("--key", help="Only this agent key, by id or name.")]
Since = Annotated[
    int | None,
    typer.Option("--since", parser=reader(words.duration), metavar="24h", help="Only what began so long ago or later."),
]
Limit = Annotated[int, typer.Option("--limit", min=0, help="How many, the newest first; 0 for all.")]


def one_of(called: str, *given: str | None) -> str:
    """The one way in which something was given; a mistake in usage when it was not, or twice."""
    found = [text for text in given if text is not None]
    if len(found) != 1:
        raise typer.BadParameter(f"{called} is {'missing' if not found else 'given twice'}.")
    return found[0]
