"""`ostiary audit`: who did what, and the proof that nobody rewrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from ostiary.cli import progress, show, words
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Limit, Since, reader
from ostiary.db.database import Transaction
from ostiary.errors import CannotStart
from ostiary.ledger import anchors, audit
from ostiary.ledger.audit import AuditRow, Filter
from ostiary.ledger.verify import Report
from ostiary.ledger.verify import verify as prove

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)

HEADINGS: Final = ("at", "who", "deed", "what", "before", "after", "from", "result")


@app.command("list")
def list_(  # noqa: PLR0913 - one argument an option
    *,
    actor: Annotated[
        str | None,
        typer.Option("--actor", help="Only of this one: an id, or with --org the e-mail address of a member."),
    ] = None,
    deed: Annotated[str | None, typer.Option("--deed", help="Only this, such as agent_keys.rotate.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Only what was done to this id or name.")] = None,
    result: Annotated[str | None, typer.Option("--result", help="ok or denied.")] = None,
    since: Since = None,
    until: Annotated[
        int | None,
        typer.Option("--until", parser=reader(words.duration), metavar="24h", help="Only what is older than that."),
    ] = None,
    limit: Limit = 100,
    org: Annotated[
        str | None, typer.Option("--org", help="Only of this organization: its id, client id or name. Default: all.")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Who did what to what, from where, and with which result; the newest first."""

    async def look(desk: Desk) -> list[AuditRow]:
        async with desk.ground.database.read() as tx:
            organization_id = None if org is None else (await desk.organization(tx)).id
            wanted = Filter(
                actor=await _actor(desk, tx, organization_id, actor),
                deed=deed,
                target=target,
                result=result,
                since_at=None if since is None else desk.at - since,
                until_at=None if until is None else desk.at - until,
            )
            return await _pages(tx, desk, organization_id, wanted, limit)

    found = at_desk(Where(data_dir, org), look)
    if json:
        show.print_json([described(row) for row in found])
    else:
        show.print_table(HEADINGS, [line(row) for row in found], "Nothing of this kind was done.")


@app.command()
def verify(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--anchors",
            exists=True,
            dir_okay=False,
            help="Another gateway's audit-anchors.jsonl, or a copy of one that you keep elsewhere. May be repeated.",
        ),
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Prove that no row of the audit log was changed, put in, taken out or moved; exit code 1 when one was.

    Reads the whole log, while gateways go on serving.
    """

    async def look(desk: Desk) -> Report:
        desk.by.require("audit.verify", None)
        database, own = desk.ground.database, desk.ground.settings.data_dir / anchors.FILE
        if database.chain_key is None:
            raise CannotStart("The vault is not open.")
        known = [*([own] if own.exists() else []), *(files or [])]
        with progress.bar(hidden=json) as tell:
            return await prove(database, database.chain_key, known, tell)

    report = at_desk(Where(data_dir), look)
    if json:
        show.print_json(_as_json(report))
    else:
        _say(report)
    if not report.is_whole:
        raise typer.Exit(1)


async def _actor(desk: Desk, tx: Transaction, organization_id: str | None, actor: str | None) -> str | None:
    """The id of whoever is meant."""
    if actor is None or organization_id is None or "@" not in actor:
        return actor
    return await desk.user_id(tx, organization_id, actor)


async def _pages(
    tx: Transaction, desk: Desk, organization_id: str | None, wanted: Filter, limit: int
) -> list[AuditRow]:
    """As many rows as were asked for, page by page; 0 asks for all."""
    found: list[AuditRow] = []
    after = None
    while not limit or len(found) < limit:
        size = min(audit.MOST_ROWS, limit - len(found)) if limit else audit.MOST_ROWS
        page = await audit.list_(tx, desk.by, organization_id, wanted, after=after, limit=size)
        found += page
        if len(page) < size:
            break
        after = (page[-1].at, page[-1].seq)
    return found


def described(row: AuditRow) -> dict[str, Any]:
    """A row as JSON."""
    return {
        "seq": row.seq,
        "at": show.when(row.at),
        "organization_id": row.organization_id,
        "actor": {"kind": row.actor_kind, "id": row.actor_id, "name": row.actor_name},
        "deed": row.deed,
        "target": {"kind": row.target_kind, "id": row.target_id, "name": row.target_name},
        "before": row.before,
        "after": row.after,
        "origin": row.origin,
        "address": row.address,
        "result": row.result,
        "number": row.number,
    }


def line(row: AuditRow) -> list[object]:
    """A row as a line of a table: of what was changed, only that."""
    before, after = row.before or {}, row.after or {}
    same = {name for name in before if name in after and before[name] == after[name]}
    return [
        show.when(row.at),
        row.actor_name,
        row.deed,
        row.target_name or row.target_id,
        {name: value for name, value in before.items() if name not in same},
        {name: value for name, value in after.items() if name not in same},
        row.address or row.origin,
        row.result,
    ]


def _as_json(report: Report) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(report)
    times = {name: show.when(told[name]) for name in ("begun_at", "anchored_at")}
    return {"ok": report.is_whole, **told, **times}


def _say(report: Report) -> None:
    if report.is_whole:
        show.say(f"{report.rows:,} rows in {report.chains:,} chains are as they were written.")
    for fault in report.faults:
        place = f"Row {fault.seq}" if fault.seq is not None else "The log"
        within = f" (number {fault.number} of {fault.chain})" if fault.chain is not None else ""
        show.say(f"{place}{within}: {fault.what}.")
    if report.more:
        show.say(f"And {report.more:,} more.")
    if report.older_rows:
        show.say(
            f"{report.older_rows:,} rows are older than the chain: proven only since {show.when(report.begun_at)}."
        )
    if report.anchors:
        compared = "One anchor was" if report.anchors == 1 else f"{report.anchors:,} anchors were"
        show.say(f"{compared} compared, the newest of {show.when(report.anchored_at)}.")
    else:
        show.say("There is no anchor outside the database to compare with: 'ostiary serve' makes one every hour.")
