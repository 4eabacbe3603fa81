"""`ostiary keys`: agent keys, what agents and people present."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from ostiary.actor import Actor
from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.agents.policy import ALL, SCOPES, Choice
from ostiary.agents.store import SCOPE
from ostiary.cli import show, words
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.key_options import (
    BudgetPeriod,
    BudgetUsd,
    Expires,
    FreeOnly,
    Ip,
    Metadata,
    Models,
    NewName,
    Parallel,
    Period,
    Providers,
    Rpd,
    Rpm,
    Scopes,
    SoftBudgetUsd,
    Tpm,
)
from ostiary.cli.options import DataDir, Json, Name, Org, reader
from ostiary.db.database import Transaction
from ostiary.limits.budgets import Budget
from ostiary.limits.store import list_accounts
from ostiary.secret import Secret

app: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)


@app.command()
def create(  # noqa: PLR0913 - one argument an option
    *,
    name: NewName,
    budget_usd: BudgetUsd = None,
    budget_period: BudgetPeriod = None,
    soft_budget_usd: SoftBudgetUsd = None,
    rpm: Rpm = None,
    rpd: Rpd = None,
    tpm: Tpm = None,
    parallel: Parallel = None,
    models: Models = None,
    providers: Providers = None,
    free_only: FreeOnly = None,
    ip: Ip = None,
    metadata: Metadata = None,
    expires: Expires = None,
    scopes: Scopes = None,
    owner: Annotated[str | None, typer.Option("--owner", metavar="EMAIL", help="The member whose key it is.")] = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a key. Its secret is printed once, and never again."""
    wished = NewAgentKey(
        name=name,
        scopes=SCOPES if scopes is None else scopes,
        rpm=_value(rpm),
        rpd=_value(rpd),
        models=models or ALL,
        providers=providers or ALL,
        free_only=bool(free_only),
        addresses=_addresses(ip) or ALL,
        metadata=metadata or {},
        budget=_new_budget(_value(budget_usd), budget_period),
        tpm=_value(tpm),
        parallel=_value(parallel),
        soft_budget_nano=_value(soft_budget_usd),
    )

    made = at_desk(Where(data_dir, org), lambda desk: _create(desk, wished, expires, owner))
    _print_once(made, json=json, done="created")


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
        key, secret = await agent_keys.create(tx, desk.by, organization.id, wish, pepper=pepper, at=at)
        return _with_secret(await _described(tx, key, at), secret)


@app.command("list")
def list_(*, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """All keys of an organization."""

    async def deed(desk: Desk) -> list[dict[str, Any]]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            keys = await agent_keys.list_(tx, desk.by, organization.id)
            return [await _described(tx, key, desk.at) for key in keys]

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(found)
        return
    columns = ("name", "preview", "status", "expires_at", "spent_usd", "budget_usd", "last_used_at", "id")
    show.print_table(
        [column.replace("_", " ") for column in columns],
        [[key[column] for column in columns] for key in found],
        "There is no agent key. 'ostiary keys create --name NAME' makes one.",
    )


@app.command("show")
def show_(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """One key, its limits and what it has spent; without its secret."""

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            return await _described(tx, await agent_keys.show(tx, desk.by, organization.id, name), desk.at)

    _print(at_desk(Where(data_dir, org), deed), json=json)


@app.command()
def edit(  # noqa: PLR0913 - one argument an option
    name: Name,
    *,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    budget_usd: BudgetUsd = None,
    budget_period: BudgetPeriod = None,
    soft_budget_usd: SoftBudgetUsd = None,
    rpm: Rpm = None,
    rpd: Rpd = None,
    tpm: Tpm = None,
    parallel: Parallel = None,
    models: Models = None,
    providers: Providers = None,
    free_only: FreeOnly = None,
    ip: Ip = None,
    metadata: Metadata = None,
    expires: Expires = None,
    scopes: Scopes = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Change what is given; what is not given stays. 'none' and 'all' clear, as said at each option."""
    plain: dict[str, object] = {
        "name": new_name,
        "models": models,
        "providers": providers,
        "free_only": free_only,
        "scopes": scopes,
    }
    plain |= {"addresses": _addresses(ip), "metadata": metadata}
    given = {"rpm": rpm, "rpd": rpd, "tpm": tpm, "parallel": parallel, "soft_budget_nano": soft_budget_usd}
    wished: dict[str, object] = {field: value for field, value in plain.items() if value is not None}
    wished |= {field: word.value for field, word in given.items() if word is not None}

    async def deed(desk: Desk) -> dict[str, Any]:
        at = desk.at
        if expires is not None:
            wished["expires_at"] = _moment(expires, at)
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            key = await agent_keys.show(tx, desk.by, organization.id, name)
            if budget_usd is not None or budget_period is not None:
                wished["budget"] = _changed_budget(key.budget, budget_usd, budget_period)
            key = await agent_keys.change(tx, desk.by, organization.id, key.id, wished, at)
            return await _described(tx, key, at)

    if not wished and expires is None and budget_usd is None and budget_period is None:
        raise typer.BadParameter("Nothing to change was given.")
    _print(at_desk(Where(data_dir, org), deed), json=json)


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
                tx, desk.by, organization.id, name, pepper=desk.ground.seal.pepper, at=at, overlap_ms=overlap or 0
            )
            return _with_secret(await _described(tx, key, at), secret)

    _print_once(at_desk(Where(data_dir, org), deed), json=json, done="rotated")


@app.command()
def deactivate(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Stop a key until it is activated again."""
    _move(Where(data_dir, org), agent_keys.deactivate, name, json=json)


@app.command()
def activate(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Let an inactive or revoked key in again."""
    _move(Where(data_dir, org), agent_keys.activate, name, json=json)


@app.command()
def revoke(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Stop a key for good."""
    _move(Where(data_dir, org), agent_keys.revoke, name, json=json)


@app.command()
def delete(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Forget a key. This cannot be undone; what it did stays in the ledger under its name."""

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
            return await _described(tx, await move(tx, desk.by, organization.id, name, at), at)

    moved = at_desk(where, deed)
    if json:
        show.print_json(moved)
    else:
        show.say(f"The agent key {moved['name']!r} is {moved['status']}.")


def _value(given: words.Given[int] | None) -> int | None:
    return given.value if given else None


def _moment(expires: words.Given[int], at: int) -> int | None:
    return None if expires.value is None else at + expires.value


def _addresses(ip: list[str] | None) -> Choice | None:
    if not ip:
        return None
    try:
        return words.chosen(ip)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--ip") from None


def _new_budget(cap_nano: int | None, period: Period | None) -> Budget | None:
    if cap_nano is None:
        if period is not None:
            raise typer.BadParameter("It needs --budget-usd.", param_hint="--budget-period")
        return None
    return Budget(period or "month", cap_nano)


def _changed_budget(old: Budget | None, usd: words.Given[int] | None, period: Period | None) -> Budget | None:
    """An option that is not given keeps what there is."""
    cap_nano = usd.value if usd else (old.cap_nano if old else None)
    kind = period or (old.kind if old else None)
    return _new_budget(cap_nano, kind if cap_nano is not None else period)


async def _described(tx: Transaction, key: AgentKey, at: int) -> dict[str, Any]:
    spent = await _spent(tx, key, at)
    cap = key.budget.cap_nano if key.budget else None
    return {
        "id": key.id,
        "name": key.name,
        "preview": key.previews[0] if key.previews else None,
        "previews": list(key.previews),
        "status": key.shown_status(at),
        "owner_id": key.owner_id,
        "expires_at": show.when(key.expires_at),
        "scopes": sorted(key.scopes),
        "budget_usd": show.usd(cap),
        "budget_period": key.budget.kind if key.budget else None,
        "spent_usd": show.usd(spent),
        "remaining_usd": None if cap is None else show.usd(max(cap - spent, 0)),
        "rpm": key.rpm,
        "rpd": key.rpd,
        "models": _chosen(key.models),
        "providers": _chosen(key.providers),
        "ip": _chosen(key.addresses),
        "free_only": key.free_only,
        "metadata": dict(key.metadata),
        "created_at": show.when(key.created_at),
        "updated_at": show.when(key.updated_at),
        "last_used_at": show.when(key.last_used_at),
    }


async def _spent(tx: Transaction, key: AgentKey, at: int) -> int:
    """Nano-dollars of the budget's running period, or of the month where there is no budget."""
    period_id = (key.budget or Budget("month", 0)).period_at(at)
    accounts = await list_accounts(tx, SCOPE, key.id)
    return sum(account.spent_nano for account in accounts if account.period_id == period_id)


def _chosen(choice: Choice) -> dict[str, object]:
    return {"mode": choice.mode, "items": sorted(choice.items)}


def _with_secret(described: dict[str, Any], secret: Secret) -> dict[str, Any]:
    return {"id": described.pop("id"), "secret": secret.reveal(), **described}


def _print_once(described: Mapping[str, Any], *, json: bool, done: str) -> None:
    if json:
        show.print_json(described)
        return
    show.say(f"The agent key {described['name']!r} is {done}. Its secret is shown this once; keep it now:\n")
    show.say(f"    {described['secret']}\n")
    _print({name: value for name, value in described.items() if name != "secret"}, json=False)


def _print(described: Mapping[str, Any], *, json: bool) -> None:
    if json:
        show.print_json(described)
        return
    flat = dict(described)
    for name in ("models", "providers", "ip"):
        choice = flat[name]
        flat[name] = choice["items"] if choice["mode"] == "only" else choice["mode"]
    show.print_fields(flat)
