"""`ostiary orgs`: organizations."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ostiary.cli import show, words
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.key_options import (
    AlertAt,
    BudgetPeriod,
    BudgetUsd,
    Money,
    Parallel,
    Rpd,
    Rpm,
    SoftBudgetUsd,
    Tpm,
    limits,
    plain,
)
from ostiary.cli.options import DataDir, Json, NameArgument, NameOption, Org, one_of, reader
from ostiary.db.database import Transaction
from ostiary.limits.budgets import Budget
from ostiary.limits.store import list_accounts
from ostiary.orgs import organizations
from ostiary.orgs.organizations import Organization
from ostiary.orgs.store import SCOPE

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)

_NameOfOne = Annotated[
    str | None, typer.Argument(metavar="NAME", help="Its id, client id or name.", show_default=False)
]
_MaxLifetime = Annotated[
    words.Given[int] | None,
    typer.Option(
        "--max-lifetime",
        parser=reader(words.longest),
        metavar="90d",
        help="Keys made or edited from now on expire so soon at the latest; 'none' lifts it.",
    ),
]
_RevocationIsFinal = Annotated[
    bool | None,
    typer.Option(
        "--revocation-is-final/--revocation-is-not-final",
        help="Whether a revoked key can never be activated again.",
        show_default=False,
    ),
]
_AllowUnpriced = Annotated[
    bool | None,
    typer.Option(
        "--allow-unpriced/--refuse-unpriced",
        help="Whether models without a price may be called under a hard budget.",
        show_default=False,
    ),
]
_TraceDays = Annotated[
    words.Given[int] | None,
    typer.Option(
        "--trace-days", parser=reader(words.days), metavar="N", help="How long traces are kept; 'none' for ever."
    ),
]
_ContentDays = Annotated[
    words.Given[int] | None,
    typer.Option("--content-days", parser=reader(words.days), metavar="N", help="How long captured content is kept."),
]

_ForbidCapture = Annotated[
    bool | None,
    typer.Option(
        "--forbid-capture/--let-capture",
        help="Whether no key may keep what was asked and answered, whatever it says; what was kept stays its days.",
        show_default=False,
    ),
]


@app.command()
def create(
    name: NameArgument = None, *, name_option: NameOption = None, data_dir: DataDir = None, json: Json = False
) -> None:
    """Make an organization, with a client id of its own."""
    chosen = one_of("NAME", name, name_option)

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            return _described(await organizations.create(tx, desk.by, chosen, desk.at))

    made = at_desk(Where(data_dir), deed)
    if json:
        show.print_json(made)
    else:
        show.say(f"The organization {made['name']!r} is created. Its client id is {made['client_id']}.")


@app.command("list")
def list_(*, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """All organizations, or the one that --org names."""

    async def deed(desk: Desk) -> list[dict[str, Any]]:
        async with desk.ground.database.read() as tx:
            found = await organizations.list_(tx, desk.by)
            chosen = None if org is None else await organizations.get(tx, org)
            return [_described(one) for one in found if chosen is None or one.id == chosen.id]

    found = at_desk(Where(data_dir), deed)
    if json:
        show.print_json(found)
        return
    columns = ("name", "client_id", "created_at", "id")
    show.print_table(
        [column.replace("_", " ") for column in columns],
        [[one[column] for column in columns] for one in found],
        "There is no organization.",
    )


@app.command("show")
def show_(name: _NameOfOne = None, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """One organization: its limits, its rules for keys, and what it has spent."""

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.read() as tx:
            known = await desk.organization(tx)
            return await _details(tx, await organizations.show(tx, desk.by, known.id), desk.at)

    found = at_desk(Where(data_dir, _either(name, org)), deed)
    if json:
        show.print_json(found)
    else:
        show.print_fields(found)


@app.command()
def edit(  # noqa: PLR0913 - one argument an option
    name: _NameOfOne = None,
    *,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    budget_usd: BudgetUsd = None,
    budget_period: BudgetPeriod = None,
    soft_budget_usd: SoftBudgetUsd = None,
    alert_at: AlertAt = None,
    rpm: Rpm = None,
    rpd: Rpd = None,
    tpm: Tpm = None,
    parallel: Parallel = None,
    max_lifetime: _MaxLifetime = None,
    revocation_is_final: _RevocationIsFinal = None,
    allow_unpriced: _AllowUnpriced = None,
    trace_days: _TraceDays = None,
    content_days: _ContentDays = None,
    forbid_capture: _ForbidCapture = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Change what is given; what is not given stays. Limits and budget count beside those of each key."""
    wished: dict[str, object] = {
        **limits(rpm=rpm, rpd=rpd, tpm=tpm, parallel=parallel, trace_days=trace_days, content_days=content_days),
        **limits(max_lifetime_ms=max_lifetime),
        **plain(name=new_name, revocation_is_final=revocation_is_final, allow_unpriced=allow_unpriced),
        **plain(capture_is_forbidden=forbid_capture),
    }
    money = Money(budget_usd, soft_budget_usd, budget_period, alert_at)
    if not (wished or money.is_given):
        raise typer.BadParameter("Nothing to change was given.")

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            known = await desk.organization(tx)
            wish = wished | ({"budget": money.budget(known.budget)} if money.is_given else {})
            return await _details(tx, await organizations.change(tx, desk.by, known.id, wish, desk.at), desk.at)

    edited = at_desk(Where(data_dir, _either(name, org)), deed)
    if json:
        show.print_json(edited)
    else:
        show.print_fields(edited)


def _either(name: str | None, org: str | None) -> str | None:
    """Named as every other thing is, or by `--org`; the only one when neither is given."""
    if name is not None and org is not None:
        raise typer.BadParameter("NAME and --org say the same: give one of them.")
    return name or org


async def _details(tx: Transaction, one: Organization, at: int) -> dict[str, Any]:
    budget = one.budget
    period_id = (budget or Budget("month", None)).period_at(at)
    accounts = await list_accounts(tx, SCOPE, one.id)
    spent = sum(account.spent_nano for account in accounts if account.period_id == period_id)
    cap = budget.cap_nano if budget else None
    return {
        **_described(one),
        "budget_usd": show.usd(cap),
        "soft_budget_usd": show.usd(budget.soft_nano if budget else None),
        "budget_period": budget.kind if budget else None,
        "alert_at": list(budget.thresholds) if budget else [],
        "spent_usd": show.usd(spent),
        "remaining_usd": None if cap is None else show.usd(max(cap - spent, 0)),
        "budget_resets_at": show.when(budget.resets_at(at)) if budget else None,
        "rpm": one.rpm,
        "rpd": one.rpd,
        "tpm": one.tpm,
        "parallel": one.parallel,
        "max_lifetime": None if one.max_lifetime_ms is None else words.distance(one.max_lifetime_ms),
        "revocation_is_final": one.revocation_is_final,
        "allow_unpriced": one.allow_unpriced,
        "trace_days": one.trace_days,
        "content_days": one.content_days,
        "capture_is_forbidden": one.capture_is_forbidden,
    }


def _described(one: Organization) -> dict[str, Any]:
    return {"id": one.id, "client_id": one.client_id, "name": one.name, "created_at": show.when(one.created_at)}
