"""`ostiary usage`: requests, tokens and cost by day, key and model."""

from __future__ import annotations

from typing import Any, Final

import typer

from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Key, Limit, Org, Since
from ostiary.clock import DAY_MS
from ostiary.ledger import reports
from ostiary.ledger.reports import UsageRow

app: Final = typer.Typer(rich_markup_mode=None)

_USUAL_MS: Final = 30 * DAY_MS
_COLUMNS: Final = ("day", "agent_key", "provider", "model", "requests", "errors")


@app.command()
def usage(
    *,
    key: Key = None,
    since: Since = None,
    limit: Limit = 100,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Requests, tokens and cost by UTC day, key and model, the newest day first; of 30 days unless --since says."""

    async def deed(desk: Desk) -> list[UsageRow]:
        since_at = desk.at - (_USUAL_MS if since is None else since)
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            desk.by.require("usage.show", organization.id)
            agent_key_id = await desk.key_of_history(tx, organization.id, key)
            rows = await reports.sum_usage(tx, organization.id, agent_key_id=agent_key_id, since_at=since_at)
            return rows[:limit] if limit else rows

    rows = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json([_described(row) for row in rows])
        return
    show.print_table(
        [*(column.replace("_", " ") for column in _COLUMNS), "input", "output", "cost"],
        [
            [*(getattr(row, column) for column in _COLUMNS), row.tokens.input, row.tokens.output, _cost(row)]
            for row in rows
        ],
        "Nothing was called in this time.",
    )
    if rows:
        show.say(f"Cost of all: {show.dollars(sum(row.cost_nano for row in rows))}")


def _cost(row: UsageRow) -> str:
    unpriced = f" + {row.unpriced} unpriced" if row.unpriced else ""
    return show.dollars(row.cost_nano) + unpriced


def _described(row: UsageRow) -> dict[str, Any]:
    return {
        "day": row.day,
        "agent_key": row.agent_key,
        "agent_key_id": row.agent_key_id,
        "credential_id": row.credential_id,
        "provider": row.provider,
        "model": row.model,
        "requests": row.requests,
        "errors": row.errors,
        "unpriced": row.unpriced,
        "tokens": show.tokens(row.tokens),
        "cost_usd": show.usd(row.cost_nano),
    }
