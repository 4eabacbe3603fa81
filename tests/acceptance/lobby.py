"""People and things for pages to show, put into a running gateway by the rooms' own deeds, all at once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import httpx2
from playwright.sync_api import Page

from ostiary.dashboard.routes import HOME
from ostiary.db.database import Transaction
from ostiary.ground import Ground, ground
from ostiary.orgs import members, organizations, password_resets, roles, users
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault import provider_keys
from ostiary.vault.provider_keys import NewProviderKey
from tests.acceptance.pages import PASSWORD
from tests.servers.browser import Window
from tests.servers.gateway import Gateway

T = TypeVar("T")

HOSTILE: Final = "<img src=x onerror=alert(1)>\"'{{7*7}}"
BY: Final = roles.operator()
_ROLES: Final[Mapping[str, str]] = {"olga": "member", "alice": "owner", "bob": "member", "charlie": "admin"}
"""As in `bureau.py`: Olga runs the instance, Charlie is let go again, and Dora owns another organization."""


@dataclass(slots=True)
class Lobby:
    """A gateway that these people can sign in at."""

    gateway: Gateway
    home: str = ""
    elsewhere: str = ""
    ids: dict[str, str] = field(default_factory=dict)
    """Of users, by name."""

    def open(self, *people: str, elsewhere: str = "Elsewhere") -> Lobby:
        """Let them in, each with a password."""
        self.within(lambda base: self._settle(base, people, elsewhere))
        if "charlie" in people:
            with self.database() as database:
                database.execute("DELETE FROM members WHERE user_id = ?", (self.ids["charlie"],))
        return self

    def within(self, deed: Callable[[Ground], Awaitable[T]]) -> T:
        """Do something on the gateway's own database and vault, as a command does."""

        async def done() -> T:
            settings = Settings.load(
                data_dir=self.gateway.data_dir,
                environment={name: value for name, value in self.gateway.environment().items() if value},
            )
            async with ground(settings) as base:
                return await deed(base)

        return asyncio.run(done())

    async def _settle(self, base: Ground, people: tuple[str, ...], elsewhere: str) -> None:
        at = base.clock.now()
        async with base.database.transaction() as tx:
            self.home = (await organizations.list_(tx, BY))[0].id
            self.elsewhere = (await organizations.create(tx, BY, elsewhere, at)).id
            for name in people:
                place, role = (self.elsewhere, "owner") if name == "dora" else (self.home, _ROLES[name])
                member = await members.add(tx, BY, place, f"{name}@example.org", name.title(), role, at)
                self.ids[name] = member.user_id
            if "olga" in people:
                await users.change_operator(tx, BY, "olga@example.org", at, is_operator=True)
        for name in people:
            await password_resets.set_password(base.database, BY, f"{name}@example.org", Secret(PASSWORD), at)

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """What somebody with a shell on the machine may do."""
        path = self.gateway.data_dir / "ostiary.db"
        with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
            yield connection

    async def add_provider_key(
        self, base: Ground, tx: Transaction, org: str, provider: str, name: str, **more: Any
    ) -> str:
        """A provider key that was not tested; its id."""
        secret = Secret(self.gateway.canaries.plant())
        wish = NewProviderKey(name, base.catalog.get(provider), secret, **more)
        made = await provider_keys.add(tx, BY, org, wish, seal=base.seal, egress=base.egress, at=base.clock.now())
        return made.id

    def url(self, path: str = "") -> str:
        """An address of the dashboard."""
        return f"{self.gateway.origin}{HOME}{path}"

    def enter(self, window: Window, name: str, path: str = "") -> Page:
        """Sign somebody in by the form, and go to a page."""
        page = window.open(self.url(f"/sign-in?next={HOME}{path}"))
        page.get_by_label("E-mail").fill(f"{name}@example.org")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url(self.url(path))
        return page

    def client(self, name: str | None = None) -> httpx2.Client:
        """A client that keeps cookies and sends what a browser does; signed in as somebody."""
        client = self.gateway.client(follow_redirects=False)
        client.headers["origin"] = self.gateway.origin
        client.headers["sec-fetch-site"] = "same-origin"
        if name is not None:
            said = client.post(f"{HOME}/sign-in", data={"email": f"{name}@example.org", "password": PASSWORD})
            assert said.status_code == httpx2.codes.SEE_OTHER, said.text[:500]
            page = client.get(f"{HOME}/sign-in?why=proof").text
            client.headers["x-csrf-token"] = page.split('name="csrf" content="')[1].split('"')[0]
        return client
