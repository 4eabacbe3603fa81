"""Every page with something on it: in light, in dark and narrow, without a violation, and none scrolls sideways.

`PICTURES=docs/pictures uv run pytest tests/acceptance/test_pictures.py` keeps the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pytest
from playwright.sync_api import Page

from tests.acceptance.pages import PASSWORD, Reception
from tests.servers.behaviours import status
from tests.servers.browser import Window, expect
from tests.servers.gateway import Gateway
from tests.servers.upstream import Upstream

_MODEL: Final = "openai-compatible/ok"
_PAGES: Final = (
    *("", "/keys", "/keys/new", "/vault", "/vault/providers", "/vault/new?provider=openai", "/vault/import"),
    *("/endpoints", "/endpoints/new", "/models?q=gpt-4o", "/playground", "/traces", "/usage", "/audit", "/settings"),
    *("/settings/members", "/settings/members/agents", "/settings/notifications", "/settings/webhooks"),
    *("/settings/credentials", "/settings/gateways"),
    *("/operator", "/operator/organizations", "/operator/pool", "/operator/aliases", "/operator/prices"),
    *("/operator/prices/recost", "/operator/gateways", "/operator/master-key", "/account"),
)
_DETAILS: Final = {
    "key": ("/keys", "Production API"),
    "provider-key": ("/vault", "upstream"),
    "endpoint": ("/endpoints", "assistant"),
    "member": ("/settings/members", "Bob"),
}
"""Pages of one thing: where it is listed, and the link that leads to it."""


@dataclass
class Album:
    """The dashboard as its owner sees it, after a busy hour."""

    reception: Reception
    page: Page
    window: Window

    def take(self, name: str) -> None:
        """One page as it stands; what is wrong with it is told when all of its pictures are taken."""
        sideways = [self._shoot(name)]
        self.window.dark()
        sideways.append(self._shoot(f"{name}-dark"))
        self.window.light()
        self.window.narrow()
        self.page.reload()  # the menu is open where there is room for it when the page is opened
        sideways.append(self._shoot(f"{name}-narrow"))
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
    gateway.cli("members", "add", "alice@example.org", "--name", "Alice", "--role", "owner")
    gateway.cli("members", "operator", "alice@example.org")
    gateway.cli("users", "set-password", "alice@example.org", "--secret-stdin", stdin=PASSWORD)
    gateway.add_provider_key("openai-compatible", "second", upstream.url)
    gateway.cli("vault", "edit", "second", "--shared")
    gateway.cli("aliases", "create", "ostiary/chat", "--target", _MODEL, "--fallback", "openai/gpt-4o-mini")
    gateway.cli("prices", "set", _MODEL, "--input", "1000", "--output", "2000")
    gateway.cli("members", "add", "bob@example.org", "--name", "Bob", "--role", "member")
    gateway.cli(
        "endpoints", "create", "assistant", "--target", f"{_MODEL}:weight=3", "--fallback", "openai/gpt-4o-mini"
    )
    busy = gateway.create_key("Production API", "--budget-usd", "1", "--rpm", "600", "--owner", "bob@example.org")
    quiet = gateway.create_key("Nightly evals", "--budget-usd", "0.2", "--models", _MODEL)
    gateway.create_key("CI smoke tests", "--free-only")
    for _ in range(20):
        assert gateway.chat(busy, _MODEL, max_tokens=9).status_code == 200
    assert gateway.chat(quiet, _MODEL, max_tokens=9).status_code == 200
    upstream.push(status(400))
    gateway.chat(busy, _MODEL, max_tokens=9)
    gateway.hear()


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


def test_a_trace_looks_as_it_should(album: Album) -> None:
    album.page.goto(album.reception.url("/traces"))
    album.page.locator("#list a[href*='/traces/req_']").first.click()
    expect(album.page.get_by_role("heading", level=1)).to_be_visible()
    album.take("trace")
