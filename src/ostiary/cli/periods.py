"""Which calls, on the command line: since so long ago or a date, of a model, of a provider."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from ostiary.cli import words
from ostiary.cli.options import reader
from ostiary.clock import SECOND_MS

_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time that was given: milliseconds since the epoch, or before now."""

    ms: int
    is_ago: bool = False

    def at(self, now: int) -> int:
        """In milliseconds since the epoch."""
        return max(now - self.ms, 0) if self.is_ago else self.ms


def moment(text: str) -> Moment:
    """`24h` ago, a UTC day such as `2026-11-20`, or a time such as `2026-11-20T18:00Z`; without a zone it is UTC."""
    word = text.strip()
    try:
        return Moment(words.duration(word), is_ago=True)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(word)
    except ValueError:
        raise ValueError(f"{text!r} is not a duration such as 24h, nor a date such as 2026-11-20") from None
    found = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    if not datetime.fromtimestamp(0, UTC) <= found < _LATEST:
        raise ValueError(f"{text!r} is out of range")
    return Moment(round(found.timestamp() * SECOND_MS))


_SAYS: Final = "24h|DATE"

Since = Annotated[
    Moment | None,
    typer.Option(
        "--since", parser=reader(moment), metavar=_SAYS, help="Only what began so long ago or at a date, or later."
    ),
]
Until = Annotated[
    Moment | None, typer.Option("--until", parser=reader(moment), metavar=_SAYS, help="Only what began before that.")
]
Model = Annotated[str | None, typer.Option("--model", help="Only this model, by its bare name.")]
Provider = Annotated[str | None, typer.Option("--provider", help="Only this provider.")]
