"""`ostiary keys ephemeral`: short-lived keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from ostiary.agents import ephemeral_keys
from ostiary.agents.ephemeral_keys import NewEphemeralKey
from ostiary.cli import key_views, words
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.key_options import (
    AlertAt,
    BudgetPeriod,
    BudgetUsd,
    Capture,
    FreeOnly,
    Ip,
    Metadata,
    Models,
    Money,
    Owner,
    Parallel,
    Period,
    Providers,
    Rpd,
    Rpm,
    Scopes,
    SoftBudgetUsd,
    Tpm,
    Ttl,
    addresses,
    limits,
    plain,
)
from ostiary.cli.options import DataDir, Json, Org
from ostiary.clock import SECOND_MS


def ephemeral(  # noqa: PLR0913 - one argument an option
    parent: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Whose child it is: an id or a name.", show_default=False)
    ] = None,
    *,
    alone: Annotated[bool, typer.Option("--alone", help="One without a parent, with limits of its own.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="Its name. Usual: the parent's, with a suffix.")] = None,
    ttl: Ttl = None,
    budget_usd: BudgetUsd = None,
    budget_period: BudgetPeriod = None,
    soft_budget_usd: SoftBudgetUsd = None,
    alert_at: AlertAt = None,
    rpm: Rpm = None,
    rpd: Rpd = None,
    tpm: Tpm = None,
    parallel: Parallel = None,
    models: Models = None,
    providers: Providers = None,
    free_only: FreeOnly = None,
    ip: Ip = None,
    metadata: Metadata = None,
    capture: Capture = None,
    scopes: Scopes = None,
    owner: Owner = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a short-lived child of a key, with no power that its parent has not; it ends with its parent.

    It spends the parent's budget; a budget given here is a slice of it, in total unless said otherwise.
    """
    if alone == (parent is not None):
        raise typer.BadParameter("Give the NAME of its parent, or --alone.")
    fields: dict[str, object] = {
        **limits(rpm=rpm, rpd=rpd, tpm=tpm, parallel=parallel),
        **plain(models=models, providers=providers, free_only=free_only, metadata=metadata, capture=capture),
        **plain(scopes=scopes, addresses=addresses(ip)),
    }
    fields["budget"] = Money(budget_usd, soft_budget_usd, budget_period or _usual_period(budget_usd), alert_at).budget()

    seconds = None if ttl is None else ttl // SECOND_MS
    wish = NewEphemeralKey(name, seconds, fields=fields)
    made = at_desk(Where(data_dir, org), lambda desk: _create(desk, parent, wish, owner))
    key_views.print_once(made, json=json, done="created")


async def _create(desk: Desk, parent: str | None, wished: NewEphemeralKey, owner: str | None) -> dict[str, Any]:
    at = desk.at
    async with desk.ground.database.transaction() as tx:
        organization = await desk.organization(tx)
        wish = replace(wished, owner_id=await desk.user_id(tx, organization.id, owner))
        pepper = desk.ground.seal.pepper
        known = desk.ground.catalog
        key, secret = await ephemeral_keys.create(
            tx, desk.by, organization.id, parent, wish, pepper=pepper, at=at, catalog=known
        )
        return key_views.with_secret(await key_views.described(tx, key, at), secret)


def _usual_period(budget_usd: words.Given[int] | None) -> Period | None:
    """A slice is spent once, whatever month it is."""
    return "total" if budget_usd is not None and budget_usd.value is not None else None
