"""The options that say what an agent key may do, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from ostiary.agents.policy import SCOPES, Choice
from ostiary.cli import words
from ostiary.cli.options import reader
from ostiary.limits.budgets import Budget

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
    typer.Option(
        "--soft-budget-usd",
        parser=reader(words.usd),
        metavar="USD",
        help="Warns when so much is spent, and blocks nothing; 'none' lifts it.",
    ),
]
AlertAt = Annotated[
    words.Given[tuple[int, ...]] | None,
    typer.Option(
        "--alert-at",
        parser=reader(words.percents),
        metavar="50,80,100",
        help="Percents of the budget at which somebody is told; or 'none'.",
    ),
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
    typer.Option("--tpm", parser=reader(words.count), metavar="N", help="Tokens a minute; 'none' lifts it."),
]
Parallel = Annotated[
    words.Given[int] | None,
    typer.Option(
        "--parallel", parser=reader(words.count), metavar="N", help="Requests at the same time; 'none' lifts it."
    ),
]
Models = Annotated[
    Choice | None,
    typer.Option(
        "--models",
        parser=reader(words.choice),
        metavar="a,b",
        help="Only these models, aliases or endpoints; or 'all', 'none'.",
    ),
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
Capture = Annotated[
    bool | None,
    typer.Option("--capture/--no-capture", help="Keep prompts and answers, redacted.", show_default=False),
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
        help=f"What it is for. Usual: {','.join(sorted(SCOPES))}. For the admin API: admin:<noun>:read or :write.",
    ),
]
NewName = Annotated[str, typer.Option("--name", help="Its name, unique in the organization.", show_default=False)]
Owner = Annotated[str | None, typer.Option("--owner", metavar="EMAIL", help="The member whose key it is.")]
Ttl = Annotated[
    int | None,
    typer.Option(
        "--ttl", parser=reader(words.duration), metavar="15m", help="How long it lives, 60s to 24h. Usual: 1h."
    ),
]


@dataclass(frozen=True, slots=True)
class Money:
    """The options of a budget, as they were given."""

    cap: words.Given[int] | None
    soft: words.Given[int] | None
    period: Period | None
    alert_at: words.Given[tuple[int, ...]] | None

    @property
    def is_given(self) -> bool:
        """Whether the budget is to be set or changed."""
        return (self.cap, self.soft, self.period, self.alert_at) != (None, None, None, None)

    def budget(self, old: Budget | None = None) -> Budget | None:
        """What they come to; an option that is not given keeps what there is."""
        cap = self.cap.value if self.cap else (old.cap_nano if old else None)
        soft = self.soft.value if self.soft else (old.soft_nano if old else None)
        if cap is None and soft is None:
            if self.period or self.alert_at:
                raise typer.BadParameter("It needs --budget-usd or --soft-budget-usd.", param_hint="--budget-period")
            return None
        budget = Budget(self.period or (old.kind if old else "month"), cap, soft)
        if self.alert_at is not None:
            return Budget(budget.kind, cap, soft, self.alert_at.value or ())
        return Budget(budget.kind, cap, soft, old.thresholds) if old else budget


def limits(**given: words.Given[int] | None) -> dict[str, int | None]:
    """Numbers that were given, by the names of their fields."""
    return {name: word.value for name, word in given.items() if word is not None}


def plain(**given: object) -> dict[str, object]:
    """What was given of the rest."""
    return {name: value for name, value in given.items() if value is not None}


def addresses(ip: list[str] | None) -> Choice | None:
    """What `--ip` comes to, None when it was not given."""
    if not ip:
        return None
    try:
        return words.chosen(ip)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--ip") from None
