"""The menu of a key's row: all that its page offers, from the list, by the mouse and by the keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import Page

from tests.acceptance.test_dashboard_keys import Desk
from tests.servers.browser import Window, expect
from tests.servers.gateway import Gateway

_ALL: Final = ["View Traces", "Edit", "Rotate Key", "Ephemeral Token", "Deactivate", "Revoke", "Delete"]
_AGO: Final = re.compile(r"^(just now|\d min ago)$")
_EXACT: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")
_FOCUSED: Final = "document.activeElement.textContent.trim() || document.activeElement.getAttribute('aria-label')"


@pytest.fixture(scope="module")
def desk(shared_gateway: Gateway) -> Desk:
    return Desk(shared_gateway).open()


def _open(page: Page, name: str) -> None:
    page.get_by_role("button", name=f"Actions for {name}", exact=True).click()
    expect(page.get_by_role("menu", name=f"Actions for {name}", exact=True)).to_be_visible()


def _pick(page: Page, name: str, words: str) -> None:
    _open(page, name)
    page.get_by_role("menuitem", name=words, exact=True).click()


def test_a_row_says_when_and_over_how_long_and_offers_what_fits_its_key(desk: Desk, window: Window) -> None:
    id, name = desk.key("Offered")
    child = desk.gateway.json("keys", "ephemeral", id, "--ttl", "1h", "--name", f"{name} child", "--org", desk.home)
    desk.gateway.canaries.watch(child["secret"])
    page = desk.sign_in(window, "alice", "/keys?q=Offered")
    created = page.get_by_role("row", name=f"Actions for {name} child").get_by_text(_AGO)
    expect(created).to_have_attribute("title", _EXACT)
    expect(page.get_by_role("columnheader", name="Requests, 30 d")).to_be_visible()
    _open(page, name)
    items = page.get_by_role("menuitem")
    expect(items).to_have_text(_ALL)
    window.axe("the menu of a row")
    window.picture("keys-menu")
    page.keyboard.press("Escape")
    _open(page, f"{name} child")
    expect(items).to_have_text(["View Traces", "Edit", "Deactivate", "Revoke", "Delete"])


def test_the_keyboard_goes_through_the_menu_and_back_to_its_row(desk: Desk, window: Window) -> None:
    _, name = desk.key("By keyboard")
    page = desk.sign_in(window, "alice", "/keys?q=By%20keyboard")
    button = page.get_by_role("button", name=f"Actions for {name}")
    expect(button).to_have_attribute("aria-haspopup", "menu")
    expect(button).to_have_attribute("aria-expanded", "false")
    button.focus()
    page.keyboard.press("Enter")
    menu = page.get_by_role("menu")
    expect(menu).to_be_visible()
    expect(button).to_have_attribute("aria-expanded", "true")
    for key, words in (
        ("ArrowDown", "Edit"),
        ("ArrowUp", "View Traces"),
        ("ArrowUp", "Delete"),
        ("ArrowDown", "View Traces"),
        ("End", "Delete"),
        ("Home", "View Traces"),
    ):
        page.keyboard.press(key)
        assert page.evaluate(_FOCUSED) == words, key
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("Enter")
    expect(menu).to_be_visible()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(menu).to_be_hidden()
    expect(page.get_by_label(f"Type {name} to confirm")).to_be_visible()


def test_what_is_done_from_the_list_leads_back_to_it(desk: Desk, window: Window) -> None:
    id, name = desk.key("From afar")
    page = desk.sign_in(window, "alice", "/keys?q=From%20afar")
    row = page.get_by_role("row").filter(has_text=name)
    _pick(page, name, "Deactivate")
    expect(page.get_by_text("The key is inactive: no call with it is let in.")).to_be_visible()
    expect(row).to_contain_text("inactive")
    assert page.url == desk.url("/keys?q=From%20afar")
    _pick(page, name, "Activate")
    expect(page.get_by_text("The key is active again.")).to_be_visible()
    _pick(page, name, "Revoke")
    revoke = page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True)
    expect(revoke).to_be_disabled()
    page.get_by_label(f"Type {name} to confirm").fill(name)
    revoke.click()
    expect(page.get_by_text("The key is revoked.")).to_be_visible()
    expect(row).to_contain_text("revoked")
    _pick(page, name, "Rotate Key")
    page.wait_for_url(desk.url(f"/keys/{id}"))
    expect(page.get_by_role("dialog", name="Rotate Key").get_by_role("heading")).to_be_visible()
    page.go_back()
    _pick(page, name, "View Traces")
    page.wait_for_url(desk.url(f"/traces?agent_key={id}"))


@pytest.fixture
def final(desk: Desk) -> Iterator[None]:
    """For so long whoever revokes a key revokes it for good."""
    desk.gateway.cli("orgs", "edit", desk.home, "--revocation-is-final")
    yield
    desk.gateway.cli("orgs", "edit", desk.home, "--revocation-is-not-final")


@pytest.mark.usefixtures("final")
def test_where_revocation_is_final_the_question_says_so_and_nothing_offers_to_activate(
    desk: Desk, window: Window
) -> None:
    _, name = desk.key("For good")
    page = desk.sign_in(window, "alice", "/keys?q=For%20good")
    _pick(page, name, "Revoke")
    expect(page.get_by_text("revocation is final: it can never be activated again")).to_be_visible()
    window.picture("keys-revoke")
    page.get_by_label(f"Type {name} to confirm").fill(name)
    page.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    expect(page.get_by_text("The key is revoked.")).to_be_visible()
    window.narrow()
    page.reload()
    _open(page, name)
    expect(page.get_by_role("menuitem")).to_have_text(
        [one for one in _ALL if one not in ("Deactivate", "Revoke", "Ephemeral Token")]
    )
    window.dark()
    window.picture("keys-menu-narrow")


# ---- drawn anew under a menu ----------------------------------------------------------------------------------------

_KEPT_BACK: Final = """
(part) => {
  const asked = window.fetch
  const go = new Promise((go) => { window.letGo = go })
  window.fetch = async (what, how) => {
    const answer = await asked(what, how)
    if (what.includes(part)) {
      document.documentElement.dataset.kept = what
      await go
    }
    return answer
  }
}
"""
"""What the page asks for with this in its path is answered with `letGo()`; `html` tells that it was asked."""


def test_a_menu_is_gone_with_the_list_that_it_was_opened_over(desk: Desk, window: Window) -> None:
    """Another row stands beside it then."""
    _, name = desk.key("Drawn anew")
    page = desk.sign_in(window, "alice", "/keys?q=Drawn%20anew")
    page.evaluate(_KEPT_BACK, "status=active")
    page.get_by_label("Status").select_option("active")
    expect(page.locator("html")).to_have_attribute("data-kept", re.compile("active"))
    _open(page, name)
    page.evaluate("letGo()")
    page.wait_for_url("**status=active*")
    expect(page.get_by_role("menu")).to_be_hidden()
    _open(page, name)


def test_a_menu_that_comes_when_its_row_is_gone_is_not_shown(desk: Desk, window: Window) -> None:
    id_, name = desk.key("Gone meanwhile")
    page = desk.sign_in(window, "alice", "/keys?q=Gone%20meanwhile")
    page.evaluate(_KEPT_BACK, "/menu")
    page.get_by_role("button", name=f"Actions for {name}").click()
    expect(page.locator("html")).to_have_attribute("data-kept", re.compile(id_))
    page.get_by_label("Status").select_option("revoked")
    expect(page.get_by_text("No key matches")).to_be_visible()
    page.evaluate("letGo()")
    expect(page.locator("#row-menu [role=menu]")).to_have_count(1)
    expect(page.get_by_role("menu")).to_be_hidden()
