"""`ostiary members`: who belongs to an organization, and as what."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ostiary.actor import Actor
from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import AgentKey
from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk
from ostiary.cli.options import DataDir, Json, Org, one_of
from ostiary.db.database import Transaction
from ostiary.orgs import members, users
from ostiary.orgs.members import Member

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)

_EmailArgument = Annotated[str | None, typer.Argument(metavar="EMAIL", help="Who.", show_default=False)]
_EmailOption = Annotated[str | None, typer.Option("--email", help="The same as an option.")]
_RoleOption = Annotated[str | None, typer.Option("--role", help="owner, admin or member.")]


@app.command()
def add(
    email: _EmailArgument = None,
    *,
    email_option: _EmailOption = None,
    name: Annotated[str | None, typer.Option("--name", help="Their name; usual: the address up to the @.")] = None,
    role: _RoleOption = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make somebody a member, as 'member' unless --role says more."""
    address = one_of("EMAIL", email, email_option)

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            called = name or address.partition("@")[0]
            return _described(
                await members.add(tx, desk.by, organization.id, address, called, role or "member", desk.at)
            )

    _print(at_desk(Where(data_dir, org), deed), json=json)


@app.command("list")
def list_(*, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """All members of an organization."""

    async def deed(desk: Desk) -> list[dict[str, Any]]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            return [_described(member) for member in await members.list_(tx, desk.by, organization.id)]

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(found)
        return
    columns = ("email", "name", "role", "created_at", "id")
    show.print_table(
        [column.replace("_", " ") for column in columns],
        [[one[column] for column in columns] for one in found],
        "There is no member. 'ostiary members add EMAIL --role owner' makes the first one.",
    )


@app.command()
def role(
    email: _EmailArgument = None,
    role_argument: Annotated[
        str | None, typer.Argument(metavar="ROLE", help="The new role.", show_default=False)
    ] = None,
    *,
    email_option: _EmailOption = None,
    role_option: _RoleOption = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Give a member another role: owner, admin or member. The last owner stays one."""
    address = one_of("EMAIL", email, email_option)
    wanted = one_of("ROLE", role_argument, role_option)

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            return _described(await members.change_role(tx, desk.by, organization.id, address, wanted, desk.at))

    _print(at_desk(Where(data_dir, org), deed), json=json)


@app.command()
def remove(
    email: _EmailArgument = None,
    *,
    email_option: _EmailOption = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Let a member go. Their keys are revoked, because they know the secrets; the last owner stays.

    What should live on is given to another member before: 'ostiary keys edit NAME --owner EMAIL', and rotated.
    """
    address = one_of("EMAIL", email, email_option)

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            revoked: list[AgentKey] = []

            async def let_go(tx: Transaction, by: Actor, organization_id: str, user_id: str, at: int) -> None:
                revoked.extend(await agent_keys.revoke_all_of(tx, by, organization_id, user_id, at))

            gone = await members.remove(tx, desk.by, organization.id, address, desk.at, let_go=let_go)
            keys = [{"id": key.id, "name": key.name} for key in revoked]
            return {**_described(gone), "removed": True, "revoked_keys": keys}

    removed = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(removed)
        return
    show.say(f"{removed['email']} is no member any more. Keys revoked: {len(removed['revoked_keys'])}.")
    for key in removed["revoked_keys"]:
        show.say(f"  {key['name']}")


@app.command()
def operator(
    email: _EmailArgument = None,
    *,
    email_option: _EmailOption = None,
    off: Annotated[bool, typer.Option("--off", help="Not any more.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Let a user run the instance: their keys with scopes of the admin API then reach every organization."""
    address = one_of("EMAIL", email, email_option)

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            user = await users.change_operator(tx, desk.by, address, desk.at, is_operator=not off)
            return {"id": user.id, "email": user.email, "name": user.name, "is_operator": user.is_operator}

    changed = at_desk(Where(data_dir), deed)
    if json:
        show.print_json(changed)
    else:
        show.say(f"{changed['email']} is {'an' if changed['is_operator'] else 'no'} operator.")


def _print(member: dict[str, Any], *, json: bool) -> None:
    if json:
        show.print_json(member)
    else:
        show.say(f"{member['email']} is {member['role']}.")


def _described(member: Member) -> dict[str, Any]:
    return {
        "id": member.user_id,
        "email": member.email,
        "name": member.name,
        "role": member.role,
        "organization_id": member.organization_id,
        "created_at": show.when(member.created_at),
    }
