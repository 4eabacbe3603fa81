"""`ostiary users`: people, and how they sign in."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ostiary.cli import show
from ostiary.cli.desk import Desk, Where, at_desk, read_secret
from ostiary.cli.options import DataDir, Json, SecretStdin, one_of
from ostiary.orgs import password_resets, second_factor, users
from ostiary.orgs.store import User

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)

PAGE: Final = "/dashboard/reset-password"
"""Where a link to a new password leads; the token stands behind `#`, which no server and no log is told."""

_EmailArgument = Annotated[str | None, typer.Argument(metavar="EMAIL", help="Who.", show_default=False)]
_EmailOption = Annotated[str | None, typer.Option("--email", help="The same as an option.")]


@app.command("list")
def list_(*, data_dir: DataDir = None, json: Json = False) -> None:
    """All users of the instance, and how they can sign in."""

    async def deed(desk: Desk) -> list[dict[str, Any]]:
        async with desk.ground.database.read() as tx:
            return [_described(one) for one in await users.list_(tx, desk.by)]

    found = at_desk(Where(data_dir), deed)
    if json:
        show.print_json(found)
        return
    columns = ("email", "name", "operator", "password_changed_at", "second_factor", "created_at", "id")
    show.print_table(
        [column.replace("_", " ") for column in columns],
        [[one[column] for column in columns] for one in found],
        "There is no user. The link that 'ostiary serve' prints at its first start makes the first one.",
    )


@app.command("set-password")
def set_password(
    email: _EmailArgument = None,
    *,
    email_option: _EmailOption = None,
    secret_stdin: SecretStdin = False,
    drop_second_factor: Annotated[
        bool, typer.Option("--drop-second-factor", help="Ask for no code any more, where the device is lost.")
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Give a user a password, and sign them out wherever they are signed in."""
    address = one_of("EMAIL", email, email_option)
    password = read_secret("New password", from_stdin=secret_stdin)

    async def deed(desk: Desk) -> User:
        user = await password_resets.set_password(desk.ground.database, desk.by, address, password, desk.at)
        if drop_second_factor:
            async with desk.ground.database.transaction() as tx:
                await second_factor.lift(tx, desk.by, address, desk.at)
        return user

    user = at_desk(Where(data_dir), deed)
    if json:
        show.print_json({"id": user.id, "email": user.email, "password_set": True})
        return
    show.say(f"{user.email} has a new password, and is signed out everywhere.")
    if drop_second_factor:
        show.say("No second factor is asked for any more.")


@app.command("reset-link")
def reset_link(
    email: _EmailArgument = None, *, email_option: _EmailOption = None, data_dir: DataDir = None, json: Json = False
) -> None:
    """Print a link by which a user sets a new password: it works once, within an hour."""
    address = one_of("EMAIL", email, email_option)

    async def deed(desk: Desk) -> tuple[User, str, int]:
        async with desk.ground.database.transaction() as tx:
            at = desk.at
            user, token = await password_resets.link(tx, desk.by, address, at)
        settings = desk.ground.settings
        base = settings.public_url or f"http://{settings.host}:{settings.port}"
        return user, f"{base.rstrip('/')}{PAGE}#{token.reveal()}", at + password_resets.VALID_MS

    user, url, expires_at = at_desk(Where(data_dir), deed)
    if json:
        show.print_json({"id": user.id, "email": user.email, "url": url, "expires_at": show.when(expires_at)})
        return
    show.say(url)


@app.command()
def operator(
    email: _EmailArgument = None,
    *,
    email_option: _EmailOption = None,
    off: Annotated[bool, typer.Option("--off", help="Not any more.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Let a user run the instance, or not any more; the same as 'ostiary members operator'."""
    address = one_of("EMAIL", email, email_option)

    async def deed(desk: Desk) -> User:
        async with desk.ground.database.transaction() as tx:
            return await users.change_operator(tx, desk.by, address, desk.at, is_operator=not off)

    user = at_desk(Where(data_dir), deed)
    if json:
        show.print_json({"id": user.id, "email": user.email, "name": user.name, "is_operator": user.is_operator})
    else:
        show.say(f"{user.email} is {'an' if user.is_operator else 'no'} operator.")


def _described(one: users.Seen) -> dict[str, Any]:
    return {
        "id": one.user.id,
        "email": one.user.email,
        "name": one.user.name,
        "operator": one.user.is_operator,
        "password_changed_at": None if one.password_changed_at is None else show.when(one.password_changed_at),
        "second_factor": one.has_second_factor,
        "created_at": show.when(one.user.created_at),
    }
