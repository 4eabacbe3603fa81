"""The options that say what an agent key may do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from ostiary.agents.policy import SCOPES, Choice
from ostiary.cli import words
from ostiary.cli.options import reader

Period = Literal["month", "total"]

BudgetUsd = Annotated[
    words.Given[int] | None,
    typer.Option("--budget-usd", parser=reader(words.usd), metavar="USD", help="Hard budget; 'none' lifts it."),
]
BudgetPeriod = Annotated[
    Period | None, typer.Option("--budget-period", help="The budget counts per UTC month (usual) or in total.")
]
SoftBudgetUsd = Annotated[
    words.Given[int] | None,
    typer.Option("--soft-budget-usd", parser=reader(words.usd), metavar="USD", help="Not enforced yet: refused."),
]
Rpm = Annotated[
    words.Given[int] | None,
    typer.Option("--rpm", parser=reader(words.count), metavar="N", help="Requests a minute; 'none' lifts it."),
]
Rpd = Annotated[
    words.Given[int] | None,
    typer.Option("--rpd", parser=reader(words.count), metavar="N", help="Requests a UTC day; 'none' lifts it."),
]
Tpm = Annotated[
    words.Given[int] | None,
    typer.Option("--tpm", parser=reader(words.count), metavar="N", help="Tokens a minute. Not enforced yet: refused."),
]
Parallel = Annotated[
    words.Given[int] | None,
    typer.Option("--parallel", parser=reader(words.count), metavar="N", help="Not enforced yet: refused."),
]
Models = Annotated[
    Choice | None,
    typer.Option("--models", parser=reader(words.choice), metavar="a,b", help="Only these models; or 'all', 'none'."),
]
Providers = Annotated[
    Choice | None,
    typer.Option(
        "--providers", parser=reader(words.choice), metavar="a,b", help="Only these providers; or 'all', 'none'."
    ),
]
FreeOnly = Annotated[
    bool | None, typer.Option("--free-only/--no-free-only", help="Only models that cost nothing.", show_default=False)
]
Ip = Annotated[
    list[str] | None,
    typer.Option("--ip", metavar="CIDR", help="Only from this address or range, given again for more; or 'all'."),
]
Metadata = Annotated[
    dict[str, Any] | None,
    typer.Option(
        "--metadata", parser=reader(words.metadata), metavar="JSON", help="An object written to each trace; or 'none'."
    ),
]
Expires = Annotated[
    words.Given[int] | None,
    typer.Option("--expires", parser=reader(words.lifetime), metavar="30d|12h|never", help="1h to 1y from now."),
]
Scopes = Annotated[
    frozenset[str] | None,
    typer.Option(
        "--scopes",
        parser=reader(words.names),
        metavar="a,b",
        help=f"What it is for. Usual: {','.join(sorted(SCOPES))}.",
    ),
]
NewName = Annotated[str, typer.Option("--name", help="Its name, unique in the organization.", show_default=False)]
