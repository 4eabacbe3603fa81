"""Every page with something on it: in light, in dark and narrow, without a violation; at no width one scrolls sideways.

`PICTURES=docs/pictures uv run pytest tests/acceptance/test_pictures.py` keeps the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest
from playwright.sync_api import Page

from tests.acceptance.archive import Caller, remember
from tests.acceptance.pages import PASSWORD, Reception
from tests.servers.behaviours import status
from tests.servers.browser import Window, Windows, expect
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.postgres import Postgres
from tests.servers.upstream import Upstream

_MODEL: Final = "openai-compatible/ok"
_MASTER_KEY: Final = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="
_PAGES: Final = (
    *("", "/keys", "/keys/new", "/vault", "/vault/providers", "/vault/new?provider=openai", "/vault/import"),
    *("/endpoints", "/endpoints/new", "/models?q=gpt-4o", "/playground", "/traces", "/usage", "/audit", "/settings"),
    *("/settings/members", "/settings/members/agents", "/settings/notifications", "/settings/webhooks"),
    *("/settings/credentials", "/settings/gateways"),
    *("/operator", "/operator/organizations", "/operator/pool", "/operator/aliases", "/operator/prices"),
    *("/operator/prices/model?provider=openai&model=gpt-4o", "/operator/prices/recost", "/operator/gateways"),
    *("/operator/master-key", "/account", "/endpoints/aliases/new"),
)
_WIDTHS: Final = (390, 480, 600, 768, 1024, 1280, 1600, 2000)
"""Of windows, from telephones to the screens of those who look at many things at once."""
_DETAILS: Final = {
    "key": ("/keys", "Production API"),
    "provider-key": ("/vault", "upstream"),
    "endpoint": ("/endpoints", "assistant"),
    "member": ("/settings/members", "Bob"),
    "alias": ("/operator/aliases", "ostiary/chat"),
    "webhook": ("/settings/webhooks", "to the pager"),
}
"""Pages of one thing: where it is listed, and the link that leads to it."""
_FIRST: Final = {
    "trace": ("/traces", "#list a[href*='/traces/req_']"),
    "deed": ("/audit", "tbody a[href*='/audit/']"),
    "operator-gateway": ("/operator/gateways", "tbody a[href*='/operator/gateways/']"),
}
"""The same of the first in a list."""


@dataclass
class Album:
    """The dashboard as its owner sees it, after a busy hour."""

    reception: Reception
    page: Page
    window: Window

    def take(self, name: str, link: str | None = None) -> None:
        """One page as it stands; what is wrong with it is told when all of its pictures are taken.

        `link` is where it is opened anew, when what it knows stands in its address alone.
        """
        sideways = [self._shoot(name)]
        self.window.dark()
        sideways.append(self._shoot(f"{name}-dark"))
        self.window.light()
        self.window.narrow()
        if link is not None:
            self.page.goto("about:blank")
            self.page.goto(link)
        else:
            self.page.reload()  # the menu is open where there is room for it when the page is opened
        sideways.append(self._shoot(f"{name}-narrow"))
        sideways += [f"{name} scrolls sideways at {width}" for width in self.window.widths_that_scroll(_WIDTHS)]
        self.window.wide()
        self.window.axe(name)
        assert [one for one in sideways if one] == []

    def _shoot(self, name: str) -> str:
        self.window.picture(name)
        return f"{name} scrolls sideways" if self.window.scrolls_sideways else ""


@pytest.fixture(scope="module")
def reception(shared_gateway: Gateway, shared_upstream: Upstream) -> Reception:
    """Everything an organization has after a while; Alice owns it, and runs the instance."""
    _live_in(shared_gateway, shared_upstream)
    return Reception(shared_gateway)


@pytest.fixture
def album(reception: Reception, window: Window) -> Album:
    return Album(reception, reception.sign_in(window, "alice"), window)


def _live_in(gateway: Gateway, upstream: Upstream) -> None:
    """What an organization has after a while."""
    home = gateway.json("orgs", "list")[0]["id"]
    gateway.cli("orgs", "edit", home, "--name", "Acme")
    _let_in_alice(gateway)
    gateway.add_provider_key("openai-compatible", "second", upstream.url)
    gateway.cli("vault", "edit", "second", "--shared")
    for provider in ("openai", "anthropic", "groq"):
        gateway.add_provider_key(provider, f"{provider} main")
    gateway.cli("aliases", "create", "ostiary/chat", "--target", _MODEL, "--fallback", "openai/gpt-4o-mini")
    gateway.cli("prices", "set", _MODEL, "--input", "1000", "--output", "2000")
    for name in ("Bob", "Mia"):
        gateway.cli("members", "add", f"{name.lower()}@example.org", "--name", name, "--role", "member")
    targets = ("--target", f"{_MODEL}:weight=3", "--target", "anthropic/claude-sonnet-4-5")
    gateway.cli("endpoints", "create", "assistant", *targets, "--strategy", "split", "--fallback", "openai/gpt-4o-mini")
    gateway.canaries.watch(
        gateway.json("webhooks", "create", "to the pager", "--url", "https://hooks.example.com/ostiary")["secret"]
    )
    busy = _make_keys(gateway)
    upstream.push(status(400))
    for _ in range(20):
        gateway.chat(busy, _MODEL, max_tokens=9)
    callers = [Caller(one["id"], one["name"]) for one in gateway.json("keys", "list")]
    past = remember(gateway, home, sorted(callers, key=lambda one: one.name), a_day=40)
    gateway.traces(calls=past + 20)
    gateway.hear()


def _make_keys(gateway: Gateway) -> str:
    """Keys of several people, as far along as keys get; the secret of the busiest."""
    busy = gateway.create_key("Production API", "--budget-usd", "4", "--rpm", "600", "--owner", "bob@example.org")
    gateway.create_key("Nightly evals", "--budget-usd", "1.5", "--models", _MODEL, "--owner", "alice@example.org")
    gateway.create_key("CI smoke tests", "--free-only", "--owner", "alice@example.org")
    gateway.create_key("Claude Code", "--expires", "never", "--owner", "mia@example.org")
    gateway.create_key("Data labelling", "--budget-usd", "20", "--expires", "5d", "--owner", "mia@example.org")
    for name, deed in (("Legacy importer", "deactivate"), ("Partner sandbox", "revoke")):
        gateway.create_key(name, "--expires", "90d", "--owner", "bob@example.org")
        gateway.cli("keys", deed, name)
    return busy


def _let_in_alice(gateway: Gateway) -> None:
    gateway.cli("members", "add", "alice@example.org", "--name", "Alice", "--role", "owner")
    gateway.cli("members", "operator", "alice@example.org")
    gateway.cli("users", "set-password", "alice@example.org", "--secret-stdin", stdin=PASSWORD)


@pytest.mark.parametrize("path", _PAGES, ids=lambda path: path.partition("?")[0] or "/")
def test_a_page_looks_as_it_should(album: Album, path: str) -> None:
    album.page.goto(album.reception.url(path))
    album.take(path.partition("?")[0].strip("/").replace("/", "-") or "overview")


@pytest.mark.parametrize("name", _DETAILS)
def test_the_page_of_one_thing_looks_as_it_should(album: Album, name: str) -> None:
    where, link = _DETAILS[name]
    album.page.goto(album.reception.url(where))
    album.page.get_by_role("link", name=link, exact=True).first.click()
    expect(album.page.get_by_role("heading", name=link, exact=True)).to_be_visible()
    album.take(name)


@pytest.mark.parametrize("name", _FIRST)
def test_the_page_of_the_first_of_a_list_looks_as_it_should(album: Album, name: str) -> None:
    where, link = _FIRST[name]
    album.page.goto(album.reception.url(where))
    first = album.page.locator(link).first
    there = first.get_attribute("href")
    first.click()
    album.page.wait_for_url(f"**{there}")
    album.take(name)


@pytest.mark.parametrize("name", ["key", "provider-key"])
def test_the_form_of_one_thing_looks_as_it_should(album: Album, name: str) -> None:
    where, link = _DETAILS[name]
    album.page.goto(album.reception.url(where))
    album.page.get_by_role("link", name=link, exact=True).first.click()
    expect(album.page.get_by_role("heading", name=link, exact=True)).to_be_visible()
    album.page.get_by_role("main").get_by_role("link", name="Edit", exact=True).first.click()
    album.page.wait_for_url("**/edit")
    album.take(f"{name}-edit")


# ---- for those who have not signed in ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["sign-in", "forgotten"])
def test_a_page_for_everybody_looks_as_it_should(reception: Reception, window: Window, path: str) -> None:
    Album(reception, window.open(reception.url(f"/{path}")), window).take(path)


def test_the_pages_behind_links_look_as_they_should(gateways: GatewayMaker, windows: Windows) -> None:
    """Setting up, an invitation, a new password: what they are about stands behind the `#`, which is not sent."""
    reception = Reception(gateways())
    link = reception.set_up_link()
    window = windows()
    Album(reception, window.open(link), window).take("set-up", link)
    page = window.page
    for label, text in (("Your name", "Alice"), ("E-mail", "alice@example.org"), ("Organization", "Acme")):
        page.get_by_label(label).fill(text)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Set up").click()
    page.wait_for_url(reception.url())
    Album(reception, page, window).take("first-steps")
    page.goto(reception.url("/settings/members"))
    page.get_by_role("button", name="Invite").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("E-mail").fill("ivy@example.org")
    dialog.get_by_role("button", name="Invite").click()
    invitation = page.get_by_test_id("invitation-link").inner_text()
    reset = reception.gateway.json("users", "reset-link", "alice@example.org")["url"]
    for name, told in (("invitation", invitation), ("reset-password", reset)):
        reception.gateway.canaries.watch(told.partition("#")[2])
        there = reception.gateway.origin + told[told.index("/dashboard") :]
        other = windows()
        Album(reception, other.open(there), other).take(name, there)


def test_the_page_while_the_database_is_away_looks_as_it_should(
    gateways: GatewayMaker, postgres: Postgres, window: Window
) -> None:
    """It looks like the others, says what to do, and one look later everything is there again."""
    name = postgres.make()
    env = {"OSTIARY_DATABASE_URL": postgres.url(name), "OSTIARY_MASTER_KEY": _MASTER_KEY}
    reception = Reception(gateways(env=env))
    _let_in_alice(reception.gateway)
    page = reception.sign_in(window, "alice", "/keys?q=mine")
    window.expect("503")
    postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    postgres.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608 - ours
    page.reload()
    expect(page.get_by_role("heading", name="The database is not available.")).to_be_visible()
    Album(reception, page, window).take("unavailable")
    postgres.run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    page.get_by_role("link", name="Try again").click()
    expect(page.get_by_role("heading", name="Keys", level=1)).to_be_visible()
    assert page.url.endswith("/keys?q=mine")
