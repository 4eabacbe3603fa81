"""What every command does around its deed: settings, the ground, the organization, and the operator who acts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from getpass import getpass
from pathlib import Path
from typing import Final, TypeVar

import typer

from ostiary import logs
from ostiary.actor import Actor, Denied
from ostiary.agents.store import find_agent_key
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ground import Ground, ground
from ostiary.ledger import audit, reports
from ostiary.orgs import members, organizations, roles
from ostiary.orgs.organizations import Organization
from ostiary.secret import Secret
from ostiary.settings import Settings

T = TypeVar("T")

_LONGEST_SECRET: Final = 65_536
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Where:
    """Which installation, and which organization in it, a command is about."""

    data_dir: Path | None
    org: str | None = None
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """An open installation with the operator at it."""

    ground: Ground
    by: Actor
    org: str | None

    @property
    def at(self) -> int:
        """Now."""
        return self.ground.clock.now()

    async def organization(self, tx: Transaction) -> Organization:
        """The one that was asked for, else the only one."""
        if self.org is not None:
            return await organizations.get(tx, self.org)
        known = await organizations.list_(tx, self.by)
        if len(known) == 1:
            return known[0]
        shown = ", ".join(one.name for one in known[:_SHOWN]) + (" …" if len(known) > _SHOWN else "")
        raise Refusal("invalid_field", f"There are several organizations: {shown}. Choose one by --org.", param="org")

    async def user_id(self, tx: Transaction, organization_id: str, email: str | None) -> str | None:
        """The member of that address; None when none was asked for."""
        if email is None:
            return None
        known = await members.list_(tx, self.by, organization_id)
        found = next((member.user_id for member in known if member.email == email.strip().lower()), None)
        if found is None:
            raise Refusal("not_found", "There is no such member. 'ostiary members list' shows all.", param="owner")
        return found

    async def key_of_history(self, tx: Transaction, organization_id: str, id_or_name: str | None) -> str | None:
        """The id of an agent key that is there, or that the ledger remembers; None when none was asked for."""
        if id_or_name is None:
            return None
        key = await find_agent_key(tx, organization_id, id_or_name)
        found = key.id if key else await reports.find_agent_key_id(tx, organization_id, id_or_name)
        if found is None:
            raise Refusal("not_found", "There is no such agent key, and the ledger remembers none.", param="key")
        return found


def at_desk(where: Where, deed: Callable[[Desk], Awaitable[T]]) -> T:
    """Do one deed as the operator; a running gateway hears of it through the database."""
    settings = Settings.load(where.config, data_dir=where.data_dir)
    logs.configure(quiet(settings))

    async def do() -> T:
        async with ground(settings) as open_ground:
            return await do_deed(Desk(open_ground, roles.operator(), where.org), deed)

    return asyncio.run(do())


async def do_deed(desk: Desk, deed: Callable[[Desk], Awaitable[T]]) -> T:
    """Do it, and note in the audit log when whoever stands at the desk may not."""
    try:
        return await deed(desk)
    except Denied as denied:
        await audit.denied(desk.ground.database, desk.by, denied, at=desk.at)
        raise


def quiet(settings: Settings) -> Settings:
    """The same, with no more in the log than what is wrong: a command speaks for itself."""
    return settings if settings.log_level == "error" else replace(settings, log_level="warning")


def read_secret(prompt: str, *, from_stdin: bool, is_optional: bool = False) -> Secret:
    """A secret from standard input or a hidden prompt; never from an argument, which every user could see."""
    if from_stdin:
        text = sys.stdin.read(_LONGEST_SECRET + 1)
    elif sys.stdin.isatty():
        text = getpass(f"{prompt}{' (empty for none)' if is_optional else ''}: ")
    elif is_optional:
        text = ""
    else:
        raise typer.BadParameter("Standard input is not a terminal: give --secret-stdin and pipe the secret in.")
    if len(text) > _LONGEST_SECRET:
        raise Refusal("invalid_field", f"The secret is longer than {_LONGEST_SECRET} characters.", param="secret")
    return Secret(text.strip())
