"""What commands print: JSON for machines, tables for people, and never a terminal code of somebody else's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final, TextIO

import msgspec

from ostiary import logs
from ostiary.cli.output import Unwritten
from ostiary.clock import iso
from ostiary.errors import CannotStart
from ostiary.money import show_usd, usd_of
from ostiary.providers.tokens import Tokens

_WIDE: Final = 200
"""Columns of a table that goes to a file or a pipe."""
_NOTHING: Final = "–"

encode = msgspec.json.Encoder(decimal_format="number").encode


@contextmanager
def output() -> Iterator[TextIO]:
    """Standard output, flushed. Raises CannotStart when it takes nothing: by then the deed is done, and it says so."""
    try:
        yield sys.stdout
        sys.stdout.flush()
    except Unwritten as lost:
        raise CannotStart(f"{lost} The command is done all the same; a secret it made is lost.") from None


def print_json(value: object) -> None:
    """Money is a decimal number, exact in its digits; and JSON is UTF-8, whatever the terminal speaks."""
    with output() as out:
        out.flush()
        out.buffer.write(msgspec.json.format(encode(value), indent=2) + b"\n")


def say(text: str = "") -> None:
    """A line for people."""
    write(text + "\n")


def write(text: str) -> None:
    """A part of a line for people, shown at once."""
    with output() as out:
        out.write(plain(text))


def warn(text: str) -> None:
    """A line beside the output, so that it never mixes with what a machine reads."""
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()


def plain(text: str) -> str:
    """A text whose control characters are spelled out: names and messages come from others."""
    return logs.plain(text)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Rows under headings, or a sentence when there are none; numbers to the right."""
    from rich.table import Table  # noqa: PLC0415 - a twentieth of a second that JSON need not pay
    from rich.text import Text  # noqa: PLC0415 - as above

    kept = [list(row) for row in rows]
    if not kept:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        numbers = all(isinstance(row[index], int | Decimal) or row[index] is None for row in kept)
        table.add_column(heading, justify="right" if numbers else "left", overflow="fold")
    for row in kept:
        table.add_row(*(Text(cell(value)) for value in row))
    _print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """One thing, a line for each of its fields."""
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(Text(name.replace("_", " ")), Text(cell(value)))
    _print(table)


def cell(value: object) -> str:
    """A value as people read it."""
    if value is None or (isinstance(value, str | list | dict) and not value):
        return _NOTHING
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(cell(one) for one in value)
        case dict():
            return ", ".join(f"{plain(str(name))}={cell(one)}" for name, one in value.items())
        case _:
            text = f"{value:f}" if isinstance(value, Decimal) else str(value)
            return plain(text).replace("\n", " ")


def usd(nano: int | None) -> Decimal | None:
    """USD as a number of JSON; `Decimal` is how its digits stay exact."""
    return None if nano is None else usd_of(nano)


def dollars(nano: int | None) -> str:
    """USD for people."""
    return _NOTHING if nano is None else f"${show_usd(nano)}"


def when(at: int | None) -> str | None:
    """A time as ISO 8601 in UTC."""
    return None if at is None else iso(at)


def tokens(counted: Tokens) -> dict[str, int]:
    """Tokens by kind: `input` includes the cached, `output` the reasoning ones."""
    return counted.counts


def _print(table: Any) -> None:  # noqa: ANN401 - rich is loaded only where it prints
    from rich.console import Console  # noqa: PLC0415 - as above

    with output() as out:
        width = None if out.isatty() else _WIDE
        Console(file=out, highlight=False, markup=False, emoji=False, width=width).print(table)
