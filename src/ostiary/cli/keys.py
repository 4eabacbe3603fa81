"""`ostiary keys`: agent keys, what agents and people present."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from ostiary.actor import Actor
from ostiary.agents import agent_keys, pages_store
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.agents.pages_store import After, ShownStatus, Sort, Wanted
from ostiary.cli import key_views, show, words
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.ephemeral_keys import ephemeral
from ostiary.cli.key_options import (
    AlertAt,
    BudgetPeriod,
    BudgetUsd,
    Capture,
    Expires,
    FreeOnly,
    Ip,
    Metadata,
    Models,
    Money,
    NewName,
    Owner,
    Parallel,
    Providers,
    Rpd,
    Rpm,
    Scopes,
    SoftBudgetUsd,
    Tpm,
    addresses,
    limits,
    plain,
)
from ostiary.cli.options import DataDir, Json, Name, Org, reader
from ostiary.db.database import Transaction
from ostiary.ledger import reports
from ostiary.orgs import roles

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)
app.command()(ephemeral)

_PAGE: Final = 500


@app.command()
def create(  # noqa: PLR0913 - one argument an option
    *,
    name: NewName,
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
    expires: Expires = None,
    scopes: Scopes = None,
    owner: Owner = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a key. Its secret is printed once, and never again."""
    given: dict[str, Any] = {
        **limits(rpm=rpm, rpd=rpd, tpm=tpm, parallel=parallel),
        **plain(models=models, providers=providers, free_only=free_only, metadata=metadata, capture=capture),
        **plain(scopes=scopes, addresses=addresses(ip)),
    }
    budget = Money(budget_usd, soft_budget_usd, budget_period, alert_at).budget()
    wished = NewAgentKey(name=name, budget=budget, **given)

    made = at_desk(Where(data_dir, org), lambda desk: _create(desk, wished, expires, owner))
    key_views.print_once(made, json=json, done="created")


async def _create(
    desk: Desk, wished: NewAgentKey, expires: words.Given[int] | None, owner: str | None
) -> dict[str, Any]:
    at = desk.at
    async with desk.ground.database.transaction() as tx:
        organization = await desk.organization(tx)
        wish = replace(wished, owner_id=await desk.user_id(tx, organization.id, owner))
        if expires is not None:
            wish = replace(wish, expires_at=_moment(expires, at))
        pepper = desk.ground.seal.pepper
        key, secret = await agent_keys.create(
            tx,
            desk.by,
            organization.id,
            wish,
            pepper=pepper,
            at=at,
            grant=roles.judge_scopes,
            catalog=desk.ground.catalog,
        )
        return key_views.with_secret(await key_views.described(tx, key, at), secret)


@app.command("list")
def list_(
    *,
    search: Annotated[str | None, typer.Option("--search", help="Only what has this in its name or preview.")] = None,
    status: Annotated[ShownStatus | None, typer.Option("--status", help="Only those.")] = None,
    sort: Annotated[Sort, typer.Option("--sort", help="In which order.")] = "created_at",
    descending: Annotated[bool, typer.Option("--desc", help="The other way round.")] = False,
    owner: Owner = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """The keys of an organization, with their share of all requests of the last 30 days."""

    async def deed(desk: Desk) -> list[dict[str, Any]]:
        at = desk.at
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            owner_id = await desk.user_id(tx, organization.id, owner)
            wanted = Wanted(search, status, owner_id, None, sort, descending, _PAGE)
            keys = await _all_pages(tx, desk.by, organization.id, wanted, at)
            spent = await pages_store.list_spent(tx, keys, at)
            traffic = await reports.list_traffic(tx, organization.id, at, [key.id for key in keys])
            none = key_views.NO_TRAFFIC
            return [key_views.summary(key, at, spent[key.id], traffic.get(key.id, none)) for key in keys]

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(found)
        return
    columns = ("name", "preview", "status", "expires_at", "requests", "share_percent", "spent_usd", "budget_usd")
    show.print_table(
        [column.replace("_percent", " %").replace("_", " ") for column in (*columns, "last_used_at", "id")],
        [[_shown(key, column) for column in (*columns, "last_used_at", "id")] for key in found],
        "There is no such agent key." if search or status or owner else _NONE_YET,
    )


def _shown(key: Mapping[str, Any], column: str) -> object:
    """A cell of the list; a key that expires soon is marked."""
    return f"{key[column]} (soon)" if column == "expires_at" and key["expires_soon"] else key[column]


_NONE_YET: Final = "There is no agent key. 'ostiary keys create --name NAME' makes one."


async def _all_pages(tx: Transaction, by: Actor, organization_id: str, wanted: Wanted, at: int) -> list[AgentKey]:
    found: list[AgentKey] = []
    after: After | None = None
    while True:
        page = await agent_keys.list_page(tx, by, organization_id, wanted, at, after)
        found += page.keys
        after = page.after
        if after is None:
            return found


@app.command("show")
def show_(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """What one key may do, what it has used, and what happens next; without its secret."""

    async def deed(desk: Desk) -> key_views.Sight:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            return await key_views.look(tx, await agent_keys.show(tx, desk.by, organization.id, name), desk.at)

    sight = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(key_views.details(sight))
        return
    for line in key_views.tell(sight):
        show.say(line)


@app.command()
def edit(  # noqa: PLR0913 - one argument an option
    name: Name,
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
    models: Models = None,
    providers: Providers = None,
    free_only: FreeOnly = None,
    ip: Ip = None,
    metadata: Metadata = None,
    capture: Capture = None,
    expires: Expires = None,
    scopes: Scopes = None,
    owner: Owner = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Change what is given; what is not given stays. 'none' and 'all' clear, as said at each option."""
    wished: dict[str, object] = {
        **limits(rpm=rpm, rpd=rpd, tpm=tpm, parallel=parallel),
        **plain(name=new_name, models=models, providers=providers, free_only=free_only, metadata=metadata),
        **plain(capture=capture, scopes=scopes, addresses=addresses(ip)),
    }
    money = Money(budget_usd, soft_budget_usd, budget_period, alert_at)
    if not (wished or money.is_given or expires or owner):
        raise typer.BadParameter("Nothing to change was given.")

    edited = at_desk(Where(data_dir, org), lambda desk: _edit(desk, name, wished, money, expires, owner))
    key_views.print_summary(edited, json=json)


async def _edit(
    desk: Desk,
    name: str,
    wished: Mapping[str, object],
    money: Money,
    expires: words.Given[int] | None,
    owner: str | None,
) -> dict[str, Any]:
    at = desk.at
    async with desk.ground.database.transaction() as tx:
        organization = await desk.organization(tx)
        key = await agent_keys.show(tx, desk.by, organization.id, name)
        wish = dict(wished)
        if expires is not None:
            wish["expires_at"] = _moment(expires, at)
        if owner is not None:
            wish["owner_id"] = await desk.user_id(tx, organization.id, owner)
        if money.is_given:
            wish["budget"] = money.budget(key.budget)
        known = desk.ground.catalog
        key = await agent_keys.change(
            tx, desk.by, organization.id, key.id, wish, at, grant=roles.judge_scopes, catalog=known
        )
        return await key_views.described(tx, key, at)


@app.command()
def rotate(
    name: Name,
    *,
    overlap: Annotated[
        int | None,
        typer.Option(
            parser=reader(words.duration),
            metavar="24h",
            help="Let the old secret live on, up to 7d.",
            show_default=False,
        ),
    ] = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Give a key a new secret; the old one dies at once. Name, limits and history stay."""

    async def deed(desk: Desk) -> dict[str, Any]:
        at = desk.at
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            key, secret = await agent_keys.rotate(
                tx,
                desk.by,
                organization.id,
                name,
                pepper=desk.ground.seal.pepper,
                at=at,
                overlap_ms=overlap or 0,
                grant=roles.judge_scopes,
            )
            return key_views.with_secret(await key_views.described(tx, key, at), secret)

    key_views.print_once(at_desk(Where(data_dir, org), deed), json=json, done="rotated")


# ---- stop, start, delete ------------------------------------------------------------------------------------------


@app.command()
def deactivate(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Stop a key, and with it its ephemeral keys, until it is activated again."""
    _move(Where(data_dir, org), agent_keys.deactivate, name, json=json)


@app.command()
def activate(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Let an inactive or revoked key in again, unless revocation is final in its organization."""

    async def move(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> AgentKey:
        return await agent_keys.activate(tx, by, organization_id, id, at, grant=roles.judge_scopes)

    _move(Where(data_dir, org), move, name, json=json)


@app.command()
def revoke(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Stop a key and its ephemeral keys for good."""
    _move(Where(data_dir, org), agent_keys.revoke, name, json=json)


@app.command()
def delete(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Forget a key and its ephemeral keys. This cannot be undone; what they did stays in the ledger by name."""

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            key = await agent_keys.show(tx, desk.by, organization.id, name)
            await agent_keys.delete(tx, desk.by, organization.id, key.id, desk.at)
            return {"id": key.id, "name": key.name, "deleted": True}

    deleted = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(deleted)
    else:
        show.say(f"The agent key {deleted['name']!r} is deleted.")


_Move = Callable[[Transaction, Actor, str, str, int], Awaitable[AgentKey]]


def _move(where: Where, move: _Move, name: str, *, json: bool) -> None:
    async def deed(desk: Desk) -> dict[str, Any]:
        at = desk.at
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            return await key_views.described(tx, await move(tx, desk.by, organization.id, name, at), at)

    moved = at_desk(where, deed)
    if json:
        show.print_json(moved)
    else:
        show.say(f"The agent key {moved['name']!r} is {moved['status']}.")


# ---- what is printed ----------------------------------------------------------------------------------------------


def _moment(expires: words.Given[int], at: int) -> int | None:
    return None if expires.value is None else at + expires.value
