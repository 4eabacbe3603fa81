"""The dashboard with a few people in it, made quickly: for tests of accounts, members and settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import httpx2
from playwright.sync_api import Page

from tests.acceptance.pages import PASSWORD
from tests.servers.browser import Window
from tests.servers.gateway import Gateway

EMAIL: Final = "alice@example.org"
_ROLES: Final = {"alice": "owner", "erin": "admin", "bob": "member"}
_CSRF: Final = re.compile(r'<meta name="csrf" content="([0-9a-f]+)">')


@dataclass(slots=True)
class Lodge:
    """A gateway whose people can sign in, and clients that are no browsers."""

    gateway: Gateway
    home: str = field(default="")

    def open(self, *names: str) -> Lodge:
        """Let these in: Alice owns the organization, Erin is an admin, others are members."""
        self.home = self.gateway.json("orgs", "list")[0]["id"]
        for name in names:
            self.admit(name)
        return self

    def admit(self, name: str, role: str | None = None, org: str | None = None) -> str:
        """Somebody more, with a password; their address."""
        email = f"{name}@example.org"
        role = role or _ROLES.get(name, "member")
        self.gateway.cli("members", "add", email, "--role", role, "--org", org or self.home)
        self.gateway.cli("users", "set-password", email, "--secret-stdin", stdin=PASSWORD)
        return email

    def url(self, path: str = "") -> str:
        """An address of the dashboard."""
        return f"{self.gateway.origin}/dashboard{path}"

    def sign_in(self, window: Window, name: str, path: str = "") -> Page:
        """Sign somebody in by the form, and go to a page."""
        page = window.open(self.url(f"/sign-in?next=/dashboard{path}"))
        page.get_by_label("E-mail").fill(f"{name}@example.org")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url(self.url(path))
        return page

    def client(self, name: str | None = None) -> Visitor:
        """Somebody without a browser, signed in where a name is given."""
        visitor = Visitor(self.gateway.client(follow_redirects=False), self.gateway.origin)
        if name is not None:
            answer = visitor.post("/sign-in", email=f"{name}@example.org", password=PASSWORD)
            assert answer.status_code == httpx2.codes.SEE_OTHER, answer.text
        return visitor


@dataclass(slots=True)
class Visitor:
    """Asks for pages as a script would."""

    http: httpx2.Client
    origin: str

    def get(self, path: str) -> httpx2.Response:
        """A page."""
        return self.http.get(f"/dashboard{path}")

    def post(self, path: str, headers: dict[str, str] | None = None, /, **form: str) -> httpx2.Response:
        """A form, with what a browser sends beside it."""
        own = {"origin": self.origin, "x-csrf-token": self.csrf(), **(headers or {})}
        return self.http.post(f"/dashboard{path}", data=form or {"nothing": ""}, headers=own)

    def csrf(self) -> str:
        """The token of the session that the cookie stands for; empty where there is none."""
        if not self.http.cookies:
            return ""
        found = _CSRF.search(self.get("/account").text)
        return found.group(1) if found else ""
