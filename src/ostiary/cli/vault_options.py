"""The options that say how a provider key is used, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

import typer

from ostiary.cli import words
from ostiary.cli.options import reader
from ostiary.limits.budgets import Budget, Kind
from ostiary.money import nano_of

Strategy = Literal["rotate", "fill"]

_NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Spend:
    """So much in each period."""

    nano: int
    kind: Kind


def spend(text: str) -> words.Given[Spend]:
    """`10/day`, `100/month` or `500/total`; `none` lifts it."""
    amount, slash, period = text.strip().removeprefix("$").partition("/")
    if amount == _NONE and not slash:
        return words.Given(None)
    for kind in get_args(Kind):
        if period == kind:
            return words.Given(Spend(nano_of(amount), kind))
    raise ValueError(f"{text!r} is not an amount in USD and a period, such as 10/day, 100/month or 500/total")


BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="Where its API is; needed where there is no usual one.")
]
Auth = Annotated[
    str | None, typer.Option("--auth", metavar="METHOD", help="How it signs in, where the provider knows several ways.")
]
Field = Annotated[
    list[words.Pair] | None,
    typer.Option(
        "--field", parser=reader(words.pair), metavar="K=V", help="A field of the provider; given again for more."
    ),
]
NoTest = Annotated[bool, typer.Option("--no-test", help="Save without testing the connection.")]
Priority = Annotated[
    int | None, typer.Option("--priority", metavar="N", help="-1000 to 1000, the highest goes first. Usual: 0.")
]
Weight = Annotated[
    int | None, typer.Option("--weight", metavar="N", help="1 to 1000: its share among keys that take turns. Usual: 1.")
]
HowUsed = Annotated[
    Strategy | None,
    typer.Option(
        "--strategy",
        help="Take turns with others of its priority, or be used up before the next. Usual: fill for a free tier.",
    ),
]
FreeTier = Annotated[
    bool | None,
    typer.Option("--free-tier/--paid", help="Whether its account is on the provider's free tier.", show_default=False),
]
Account = Annotated[
    str | None,
    typer.Option("--account", metavar="NAME", help="Keys of one account share its quota; 'none' takes it out."),
]
Tag = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="TAG", help="A tag, given again for more; an edit replaces all, 'none' clears."),
]
SpendCap = Annotated[
    words.Given[Spend] | None,
    typer.Option(
        "--spend-cap",
        parser=reader(spend),
        metavar="USD/day",
        help="So much may be spent with it a day, a month or in total; 'none' lifts it.",
    ),
]
SpendWarn = Annotated[
    words.Given[Spend] | None,
    typer.Option(
        "--spend-warn",
        parser=reader(spend),
        metavar="USD/day",
        help="Tells somebody when so much was spent, and blocks nothing; 'none' lifts it.",
    ),
]


def budget(cap: words.Given[Spend] | None, warn: words.Given[Spend] | None, old: Budget | None = None) -> Budget | None:
    """What the two options come to; one that is not given keeps what there is."""
    kinds = {given.value.kind for given in (cap, warn) if given is not None and given.value is not None}
    if len(kinds) > 1:
        raise typer.BadParameter("Cap and warning count over the same period.", param_hint="--spend-warn")
    cap_nano = _nano(cap, old.cap_nano if old else None)
    soft_nano = _nano(warn, old.soft_nano if old else None)
    if cap_nano is None and soft_nano is None:
        return None
    kind = kinds.pop() if kinds else old.kind if old else "month"
    if old is not None and kind != old.kind and None in (cap, warn) and None not in (cap_nano, soft_nano):
        message = f"The other one counts per {old.kind}: give both, or lift it by 'none'."
        raise typer.BadParameter(message, param_hint="--spend-cap")
    return Budget(kind, cap_nano, soft_nano, old.thresholds) if old else Budget(kind, cap_nano, soft_nano)


def _nano(given: words.Given[Spend] | None, kept: int | None) -> int | None:
    if given is None:
        return kept
    return None if given.value is None else given.value.nano


def settings(
    *, account: str | None, tags: list[str] | None, limits: Mapping[str, int | None], **given: object
) -> dict[str, object]:
    """What was given of them, by the names of `NewProviderKey`; the word `none` is a value."""
    found = {name: value for name, value in given.items() if value is not None}
    if account is not None:
        found["account"] = None if account == _NONE else account
    if tags:
        found["tags"] = () if tags == [_NONE] else tuple(tags)
    return {**found, **limits}


def mapping(pairs: list[words.Pair] | None) -> dict[str, str]:
    """Fields as they were given."""
    return {pair.name: pair.value for pair in pairs or ()}
