"""Answers that come late or cross, what is pressed twice, what is drawn anew meanwhile, and pages one comes back to."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from http.client import NO_CONTENT
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import HOLD, LET_GO, PASSWORD
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

_ANSWERED = (
    "new Promise((done) => document.addEventListener('htmx:finally:request', () => setTimeout(done), {once: true}))"
)
"""The next answer has come, and what was to be done with it is done."""
_CLOSED_LATE = """
() => addEventListener('close', (event) => {
  event.stopImmediatePropagation()
  window.sayClosed = () => new Promise((done) => {
    event.target.dispatchEvent(new Event('close'))
    setTimeout(done, 500)
  })
}, {capture: true, once: true})
"""
"""That a dialog is closed, a browser says at its next frame: here with `sayClosed()`; half a second to act on it."""
_KEPT_IN_MEMORY = "dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))"


@pytest.fixture(scope="module")
def lodge(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Lodge]:
    """Alice owns the organization and runs the instance; there are two agent keys, and keys of three providers."""
    with making(tmp_path_factory.mktemp("late"), canaries, shell, started) as maker:
        made = Lodge(maker()).open("alice")
        made.gateway.cli("users", "operator", "alice@example.org")
        for name in ("one", "two"):
            made.gateway.create_key(name)
        for provider in ("anthropic", "groq", "openai"):
            made.gateway.add_provider_key(provider, f"main {provider}")
        made.gateway.json("orgs", "create", "Elsewhere")
        yield made


def asked(page: Page, times: int) -> None:
    """Wait until the page has asked so often since `HOLD`."""
    expect(page.locator("html")).to_have_attribute("data-asked", str(times))


# ---- pressed twice --------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_by_two_presses_and_its_secret_stays(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/keys/new")
    page.get_by_label("Key Name").fill("pressed twice")
    page.evaluate(HOLD)
    page.get_by_role("button", name="Create Key").dblclick()
    asked(page, 1)
    page.evaluate("letGo()")
    lodge.gateway.canaries.watch(page.locator("#secret").inner_text())
    asked(page, 1)
    expect(page.get_by_text("API Key created! Copy it now")).to_be_visible()


def test_what_is_typed_while_a_check_is_on_its_way_is_checked(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/keys/new")
    page.get_by_role("tab", name="Advanced").click()
    page.evaluate(HOLD)
    page.get_by_label("IP Allowlist").fill("10.0.0.0/8")
    asked(page, 1)
    page.get_by_label("IP Allowlist").fill("10.0.0.0/8, nowhere")
    expect(page.locator("#check-addresses")).to_contain_text("nowhere")
    page.evaluate("letGo()")
    expect(page.locator("html")).to_have_attribute("data-aborted", "1")


def test_what_is_refused_is_sent_again_and_what_leaves_the_page_is_not(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/operator/organizations")
    page.get_by_role("button", name="Create organization").click()
    dialog = page.get_by_role("dialog", name="Create organization")
    create = dialog.get_by_role("button", name="Create", exact=True)
    window.expect("409")
    for taken in ("default", "Elsewhere"):
        dialog.get_by_label("Name").fill(taken)
        create.click()
        expect(dialog.get_by_text(f"There is an organization named '{taken}' already.")).to_be_visible()
    dialog.get_by_label("Name").fill("Another")
    page.route("**/operator/organizations?q=*", lambda route: route.fulfill(status=204), times=1)  # one stays here
    with page.expect_response(lambda answer: answer.status == NO_CONTENT):
        create.click()
    page.evaluate(HOLD)
    create.click()
    asked(page, 0)
    page.evaluate(_KEPT_IN_MEMORY)
    expect(page.get_by_role("row").filter(has_text="Another")).to_have_count(1)
    expect(dialog).to_be_hidden()


def test_signing_in_again_is_asked_once_and_says_when_the_gateway_is_away(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/settings")
    with closing(sqlite3.connect(lodge.gateway.data_dir / "ostiary.db", timeout=10)) as database, database:
        database.execute("DELETE FROM sessions")
    window.expect("401", "ERR_FAILED")
    page.get_by_role("button", name="Save name").click()
    again = page.get_by_role("dialog", name="Sign in again")
    again.get_by_label("Password").fill(PASSWORD)
    page.route("**/sign-in-again", lambda route: route.abort(), times=1)
    again.get_by_role("button", name="Sign in", exact=True).click()
    expect(again.get_by_role("alert")).to_have_text("The gateway does not answer. Try again in a moment.")
    page.evaluate(HOLD.replace("how.signal.", "how.signal?."))
    again.get_by_role("button", name="Sign in", exact=True).dblclick()
    asked(page, 1)
    page.evaluate("letGo()")
    expect(page.get_by_text("Organization saved.")).to_be_visible()


# ---- late, and crossed ----------------------------------------------------------------------------------------------


def test_the_menu_is_of_the_row_that_was_pressed_last(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/keys")
    page.evaluate(HOLD)
    page.get_by_role("button", name="Actions for one").click()
    asked(page, 1)
    page.get_by_role("button", name="Actions for two").click()
    menu = page.get_by_role("menu")
    expect(menu).to_have_accessible_name("Actions for two")
    expect(page.locator("html")).to_have_attribute("data-aborted", "1")
    page.evaluate("letGo()")
    expect(menu).to_have_accessible_name("Actions for two")
    expect(menu.get_by_role("menuitem").first).to_be_focused()


def test_a_secret_whose_dialog_was_closed_before_it_came_is_shown(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/keys?q=one")
    page.get_by_role("link", name="one", exact=True).click()
    page.get_by_role("button", name="Rotate Key").click()
    page.evaluate(HOLD)
    dialog = page.get_by_role("dialog", name="Rotate")
    dialog.get_by_role("button", name="Rotate Key").click()
    asked(page, 1)
    page.evaluate(_CLOSED_LATE)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.evaluate("letGo()")
    expect(dialog.locator("#secret")).to_be_visible()
    lodge.gateway.canaries.watch(dialog.locator("#secret").inner_text())
    page.evaluate("sayClosed()")  # a page that is drawn anew meanwhile ends this with an error
    expect(dialog.locator("#secret")).to_be_visible()
    expect(dialog.get_by_role("button", name="Close")).to_be_enabled()  # no sooner than somebody has seen it
    page.keyboard.press("Escape")
    expect(page.locator("#secret")).to_have_count(0)


def test_the_keys_of_a_target_are_those_of_the_provider_that_was_chosen_last(lodge: Lodge, window: Window) -> None:
    """By the arrows of a keyboard one passes many."""
    page = lodge.sign_in(window, "alice", "/endpoints/new")
    provider = page.get_by_label("Provider", exact=True).first
    page.evaluate(HOLD)
    for name in ("anthropic", "groq", "openai"):
        provider.select_option(name)
    page.evaluate("letGo()")
    keys = page.get_by_label("Provider key", exact=True).first.locator("option")
    expect(keys.filter(has_text="main")).to_have_text(re.compile("main openai"))


_PROGRESS = """
<div data-live hx-get="/dashboard/operator/prices/recost/recost_slow" hx-trigger="every 1s" hx-target="#found">40 %
</div>
"""
_SLOW = "**/operator/prices/recost/recost_slow"
_TICKS_MS = 2_500
"""In this time it would ask twice."""


def begin(page: Page) -> None:
    """A recost that takes long; what is asked of it is answered by the test."""
    page.route("**/operator/prices/recost", lambda route: route.fulfill(body=_PROGRESS), times=1)
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#found")).to_have_text("40 %")


def test_how_far_something_was_is_not_drawn_over_what_was_asked_for_since(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/operator/prices/recost")
    page.route(_SLOW, lambda route: route.fulfill(body=_PROGRESS))
    begin(page)
    page.evaluate(HOLD)
    asked(page, 1)
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("No call fits")).to_be_visible()
    page.evaluate(LET_GO)
    expect(page.get_by_text("No call fits")).to_be_visible()


def test_who_asks_every_second_is_told_the_way_to_the_next_page_once(lodge: Lodge, window: Window) -> None:
    """Told it again before that page is there, a browser would begin it anew, and again a second later."""
    page = lodge.sign_in(window, "alice", "/operator/prices/recost")
    there = lodge.url("/operator/prices")
    page.route(_SLOW, lambda route: route.fulfill(headers={"hx-redirect": there}))
    page.route(there, lambda route: route.fulfill(status=204))  # it is never there
    with page.expect_response(there):
        begin(page)
    page.evaluate(HOLD)
    page.wait_for_timeout(_TICKS_MS)
    asked(page, 0)


# ---- drawn anew -----------------------------------------------------------------------------------------------------


def test_what_is_held_down_while_its_list_looks_again_is_pressed(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/operator/gateways")
    page.locator("#list a").hover()
    page.mouse.down()
    page.evaluate(_ANSWERED)
    page.mouse.up()
    page.wait_for_url(re.compile(r"/operator/gateways/\w+$"))


def test_what_has_the_focus_keeps_it_when_it_is_drawn_anew(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/operator/gateways")
    link = page.locator("#list a")
    link.focus()
    link.evaluate("(one) => { one.dataset.old = '' }")
    expect(page.locator("#list a:not([data-old])")).to_be_focused()
    page.goto(lodge.url("/keys"))
    head = page.get_by_role("button", name="Name")
    head.press("Enter")
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Name")
    expect(head).to_be_focused()


# ---- come back to ---------------------------------------------------------------------------------------------------


def test_a_list_that_one_goes_back_to_by_its_filters_is_whole(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/keys")
    for status in ("active", "revoked"):
        page.get_by_label("Status").select_option(status)
        page.wait_for_url(f"**status={status}*")
    expect(page.get_by_text("No key matches")).to_be_visible()
    page.go_back()
    page.wait_for_url("**status=active*")
    expect(page.get_by_label("Status")).to_have_value("active")
    page.get_by_role("button", name="Actions for one").click()
    expect(page.get_by_role("menuitem", name="View Traces")).to_be_focused()
    page.keyboard.press("Escape")
    window.narrow()
    page.go_back()
    page.wait_for_url(lodge.url("/keys"))
    expect(page.get_by_label("Status")).to_have_value("")
    expect(page.locator("#toaster")).to_have_count(1)
    page.get_by_role("button", name="Menu", exact=True).click()
    expect(page.get_by_role("navigation", name="Main").get_by_role("link", name="Ostiary")).to_be_focused()


def test_a_list_that_one_goes_back_to_looks_again_by_itself(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/operator/gateways")
    page.get_by_label("Also those that stopped").check()
    page.wait_for_url("**/operator/gateways?all=on")
    page.go_back()
    page.wait_for_url(lodge.url("/operator/gateways"))
    expect(page.get_by_label("Also those that stopped")).not_to_be_checked()
    with page.expect_request(lambda request: "x-ostiary-look" in request.headers) as looked:
        pass
    assert looked.value.url.endswith("/operator/gateways")
