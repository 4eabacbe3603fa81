"""`ostiary traces`: single calls, the newest first."""

from __future__ import annotations

from typing import Any, Final

import typer

from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Key, Limit, Org, Since
from ostiary.ledger import reports
from ostiary.ledger.reports import Trace

app: Final = typer.Typer(rich_markup_mode=None)

HEADINGS: Final = ("at", "key", "provider", "model", "status", "input", "output", "cost", "ms", "request id")


@app.command()
def traces(
    *,
    key: Key = None,
    since: Since = None,
    limit: Limit = 100,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Every attempt of every call, the newest first: who, which model, how it ended, what it cost."""

    async def deed(desk: Desk) -> list[Trace]:
        since_at = None if since is None else desk.at - since
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            desk.by.require("traces.show", organization.id)
            agent_key_id = await desk.key_of_history(tx, organization.id, key)
            return await reports.list_traces(
                tx, organization.id, agent_key_id=agent_key_id, since_at=since_at, limit=limit
            )

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json([described(trace) for trace in found])
    else:
        show.print_table(HEADINGS, [row(trace) for trace in found], "There is no call in this time.")


def described(trace: Trace) -> dict[str, Any]:
    """A trace as JSON. Where tokens had no price, `cost_usd` is 0 and `price_version` null."""
    return {
        "request_id": trace.request_id,
        "attempt": trace.attempt,
        "at": show.when(trace.at),
        "agent_key": trace.agent_key,
        "agent_key_id": trace.agent_key_id,
        "credential_id": trace.credential_id,
        "operation": trace.operation,
        "provider": trace.provider,
        "provider_key": trace.provider_key,
        "model_asked": trace.model_asked,
        "model": trace.model,
        "status": trace.status,
        "http_status": trace.http_status,
        "error_code": trace.error_code,
        "stream": trace.stream,
        "tokens": show.tokens(trace.tokens),
        "cost_usd": show.usd(trace.cost_nano),
        "held_usd": show.usd(trace.held_nano),
        "over_hold_usd": show.usd(trace.over_hold_nano),
        "price_version": trace.price_version,
        "usage_source": trace.usage_source,
        "latency_ms": trace.latency_ms,
        "first_token_ms": trace.first_token_ms,
        "timings": dict(trace.timings),
        "client_ip": trace.client_ip,
        "metadata": dict(trace.metadata),
    }


def row(trace: Trace) -> list[object]:
    """A trace as a line of a table."""
    is_unpriced = trace.price_version is None and trace.tokens.input + trace.tokens.output > 0
    return [
        show.when(trace.at),
        trace.agent_key or trace.credential_id,
        trace.provider,
        trace.model,
        trace.error_code or trace.status,
        trace.tokens.input,
        trace.tokens.output,
        "unpriced" if is_unpriced else show.dollars(trace.cost_nano),
        trace.latency_ms,
        trace.request_id,
    ]
