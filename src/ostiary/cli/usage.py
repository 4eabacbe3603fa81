"""`ostiary usage`: requests, tokens and cost by day, key, model and provider."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Key, Limit, Org, reader
from ostiary.cli.periods import Model, Moment, Provider, Since, Until
from ostiary.clock import DAY_MS
from ostiary.ledger import reports
from ostiary.ledger.reports import Dimension, UsageFilter, UsageRow
from ostiary.providers.tokens import UNITS, Tokens

app: Final = typer.Typer(add_completion=False, rich_markup_mode=None)

_USUAL: Final = Moment(30 * DAY_MS, is_ago=True)
_WORDS: Final[dict[str, Dimension]] = {
    "day": "day",
    "key": "agent_key",
    "credential": "credential",
    "provider": "provider",
    "model": "model",
    "provider-key": "provider_key",
}
_FIELDS: Final[dict[Dimension, tuple[str, ...]]] = {
    "day": ("day",),
    "agent_key": ("agent_key", "agent_key_id"),
    "credential": ("credential_id",),
    "provider": ("provider",),
    "model": ("model",),
    "provider_key": ("provider_key", "provider_key_id"),
}
_COUNTS: Final = ("requests", "attempts", "errors", "cancelled", "unpriced", *UNITS, "latency_ms")
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class _By:
    """What to sum up by."""

    dimensions: tuple[Dimension, ...]


def _by(text: str) -> _By:
    found = [_WORDS.get(word.strip()) for word in text.split(",")]
    if None in found:
        raise ValueError(f"{text!r} is not a list of {', '.join(_WORDS)}")
    return _By(tuple(one for one in found if one is not None))


By = Annotated[
    _By | None,
    typer.Option("--by", parser=reader(_by), metavar="LIST", help=f"What to sum up by, of {', '.join(_WORDS)}."),
]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV for spreadsheets, all of it.")]


@app.command()
def usage(  # noqa: PLR0913 - one argument an option
    *,
    by: By = None,
    key: Key = None,
    model: Model = None,
    provider: Provider = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    as_csv: Csv = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Requests, tokens and cost by UTC day, key and model, the newest day first; of 30 days unless --since says.

    Periods are counted in whole UTC hours.
    """
    dimensions = by.dimensions if by else reports.USUAL

    async def deed(desk: Desk) -> list[UsageRow]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            desk.by.require("usage.show", organization.id)
            key_id = await desk.key_of_history(tx, organization.id, key)
            wanted = UsageFilter(
                since_at=(since or _USUAL).at(desk.at),
                until_at=until.at(desk.at) if until else None,
                agent_key_ids=None if key_id is None else (key_id,),
                provider=provider,
                model=model,
            )
            return await reports.sum_usage(tx, organization.id, wanted, dimensions, 0 if as_csv else limit)

    rows = at_desk(Where(data_dir, org), deed)
    if as_csv:
        _print_csv(rows, dimensions)
    elif json:
        show.print_json([described(row, dimensions) for row in rows])
    else:
        _print_table(rows, dimensions)


def described(row: UsageRow, by: Sequence[Dimension]) -> dict[str, Any]:
    """A row as JSON: what it is summed up by, then the sums."""
    return {
        **{field: getattr(row, field) for one in by for field in _FIELDS[one]},
        **{count: getattr(row, count) for count in _COUNTS},
        "tokens": show.tokens(row.tokens),
        "cost_usd": show.usd(row.cost_nano),
    }


def _print_table(rows: Sequence[UsageRow], by: Sequence[Dimension]) -> None:
    fields = [_FIELDS[one][0] for one in by]
    if not any(row.credential_id for row in rows):
        fields = [field for field in fields if field != "credential_id"]
    show.print_table(
        [*(field.replace("_", " ") for field in fields), "requests", "errors", "input", "output", "cost"],
        [
            [
                *(getattr(row, field) for field in fields),
                *(row.requests, row.errors, row.tokens.input, row.tokens.output, _cost(row)),
            ]
            for row in rows
        ],
        "Nothing was called in this time.",
    )
    if rows:
        show.say(f"Cost of all: {show.dollars(sum(row.cost_nano for row in rows))}")


def _cost(row: UsageRow) -> str:
    unpriced = f" + {row.unpriced} unpriced" if row.unpriced else ""
    return show.dollars(row.cost_nano) + unpriced


def _print_csv(rows: Sequence[UsageRow], by: Sequence[Dimension]) -> None:
    """One column a field; money is exact. A name that a spreadsheet would take for a formula is quoted."""
    fields = [field for one in by for field in _FIELDS[one]]
    kinds = list(show.tokens(Tokens()))
    with show.output() as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*fields, *_COUNTS, *(f"{kind}_tokens" for kind in kinds), "cost_usd"])
        for row in rows:
            counted = show.tokens(row.tokens)
            writer.writerow(
                [
                    *(_harmless(getattr(row, field)) for field in fields),
                    *(getattr(row, count) for count in _COUNTS),
                    *(counted[kind] for kind in kinds),
                    f"{show.usd(row.cost_nano):f}",
                ]
            )


def _harmless(text: str | None) -> str:
    plain = show.plain(text or "")
    return f"'{plain}" if plain.startswith(_FORMULAS) else plain
