"""Who is quicker than the page: what is pressed before it is ready, or while an older answer is on its way."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import PASSWORD
from tests.servers.apart import at_home
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.waiting import until

_HOLD = """
([number, isLook]) => {
  const asked = window.fetch
  const go = new Promise((go) => { window.letGo = go })
  const seen = document.documentElement.dataset
  let matching = seen.answered = seen.aborted = 0
  window.fetch = async (what, how) => {
    how.signal?.addEventListener('abort', () => seen.aborted++)
    const isHeld = ('X-Ostiary-Look' in how.headers) === isLook && ++matching === number
    const answer = await asked(what, how)
    seen.answered++
    if (isHeld) {
      seen.held = what
      await go
      how.signal?.throwIfAborted()
    }
    return answer
  }
}
"""
"""One of the page's next requests, a look or another, is answered when `letGo()` is called; `html` tells of it."""


@pytest.fixture(scope="module")
def lodge(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Lodge]:
    with making(tmp_path_factory.mktemp("haste"), canaries, shell, started) as maker:
        made = Lodge(maker()).open("alice")
        made.gateway.cli("members", "operator", "alice@example.org")
        for provider in ("openai", "groq", "mistral"):
            made.gateway.add_provider_key(provider, f"my {provider}")
        for name in ("first", "second"):
            made.gateway.create_key(name)
        yield made


# ---- before the script is there -----------------------------------------------------------------------------------


def load_without_script(page: Page, url: str) -> list[Any]:
    """Go there; the requests of the script, which come no further, once it is asked for."""
    held: list[Any] = []
    page.route("**/app.js*", lambda route: held.append(route))  # noqa: PLW0108 - it counts the parameters
    page.goto(url, wait_until="commit")
    until(lambda: page.evaluate("true") and held, "the script to be asked for")
    return held


def let_go(page: Page, held: list[Any]) -> None:
    for route in held:
        at_home(page).call(route.continue_)


def test_what_is_sent_before_the_script_is_there_waits_for_it_and_stands_in_no_address(
    lodge: Lodge, window: Window
) -> None:
    page = lodge.sign_in(window, "alice")
    held = load_without_script(page, lodge.url("/account"))
    for label in ("Password now", "New password", "New password, once more"):
        page.get_by_label(label, exact=True).fill("typed in haste, all of it")
    window.expect("422")
    page.get_by_role("button", name="Change password").click()
    expect(page).to_have_url(lodge.url("/account"))
    let_go(page, held)
    expect(page.get_by_text("The password is not right.")).to_be_visible()
    expect(page).to_have_url(lodge.url("/account"))


def test_a_button_that_is_pressed_before_the_script_is_there_does_what_it_says_then(
    lodge: Lodge, window: Window
) -> None:
    page = lodge.sign_in(window, "alice")
    held = load_without_script(page, lodge.url("/keys"))
    page.get_by_role("button", name="Actions for second").click()
    let_go(page, held)
    expect(page.get_by_role("menu", name="Actions for second")).to_be_visible()


@pytest.mark.parametrize(("path", "presses"), [("/keys/new", "tab"), ("/keys", "row")])
def test_what_only_the_script_does_is_done_when_it_is_there(
    lodge: Lodge, window: Window, path: str, presses: str
) -> None:
    page = lodge.sign_in(window, "alice")
    held = load_without_script(page, lodge.url(path))
    if presses == "tab":
        page.get_by_role("tab", name="Advanced").click()
    else:
        page.get_by_role("row").filter(has_text="second").get_by_text("active").click()
    let_go(page, held)
    if presses == "tab":
        expect(page.get_by_role("tab", name="Advanced")).to_have_attribute("aria-selected", "true")
    else:
        expect(page.get_by_role("heading", name="second")).to_be_visible()


def test_what_is_chosen_before_the_script_is_there_counts(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice")
    held = load_without_script(page, lodge.url("/endpoints/new"))
    target = page.get_by_role("group", name="Target 1", exact=True)
    target.get_by_label("Provider", exact=True).select_option("groq")
    let_go(page, held)
    keys = target.get_by_label("Provider key", exact=True).locator("option")
    expect(keys).to_have_text(["Any key of the provider", "my groq"])


@pytest.mark.parametrize("typed", ["my groq", ""])
def test_what_is_to_go_is_named_first_also_before_the_script_is_there(lodge: Lodge, window: Window, typed: str) -> None:
    page = lodge.sign_in(window, "alice", "/vault")
    page.get_by_role("link", name="my groq").click()
    page.wait_for_url("**/vault/pkey_*")
    held = load_without_script(page, page.url)
    sent: list[str] = []
    page.on("request", lambda one: sent.append(one.method))
    page.get_by_role("button", name="Delete this key").click()
    name, button = page.get_by_label("Type my groq to confirm"), page.get_by_role("button", name="Delete", exact=True)
    if typed:
        name.fill(typed)
    else:
        button.click()
    let_go(page, held)
    page.wait_for_load_state()
    expect(name).to_have_value(typed)
    expect(button).to_be_enabled(enabled=bool(typed))
    assert "POST" not in sent


# ---- while an older answer is on its way ---------------------------------------------------------------------------


def test_an_answer_to_less_than_is_typed_by_now_does_not_lead_enter_elsewhere(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice")
    page.get_by_role("button", name="Jump to").click()
    page.evaluate(_HOLD, [1, False])
    field = page.get_by_label("Where to?")
    field.fill("fir")
    expect(page.locator("html")).to_have_attribute("data-held", "/dashboard/jump?q=fir")
    typed = "(field) => { field.value = 'first'; field.dispatchEvent(new Event('input', {bubbles: true})); letGo() }"
    field.evaluate(typed)
    expect(page.locator("html")).to_have_attribute("data-aborted", "1")
    expect(page.locator("html")).to_have_attribute("data-answered", "2")
    expect(page.get_by_role("dialog").get_by_role("link", name="first")).to_be_visible()


def test_the_menu_that_was_asked_for_last_is_the_one_that_stays(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/keys")
    page.evaluate(_HOLD, [1, False])
    page.get_by_role("button", name="Actions for first").click()
    expect(page.locator("html")).to_have_attribute("data-answered", "1")
    page.get_by_role("button", name="Actions for second").click()
    expect(page.get_by_role("menu", name="Actions for second")).to_be_visible()
    page.evaluate("letGo()")
    expect(page.locator("html")).to_have_attribute("data-aborted", "1")
    expect(page.get_by_role("menu", name="Actions for second")).to_be_visible()


def test_the_keys_to_choose_from_are_those_of_the_provider_that_was_chosen_last(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/endpoints/new")
    target = page.get_by_role("group", name="Target 1", exact=True)
    page.evaluate(_HOLD, [1, False])
    for provider in ("openai", "groq", "mistral"):
        target.get_by_label("Provider", exact=True).select_option(provider)
    page.evaluate("letGo()")
    keys = target.get_by_label("Provider key", exact=True).locator("option")
    expect(keys).to_have_text(["Any key of the provider", "my mistral"])


def end_sessions(lodge: Lodge) -> None:
    with closing(sqlite3.connect(lodge.gateway.data_dir / "ostiary.db", timeout=10)) as database, database:
        database.execute("DELETE FROM sessions")


def sign_in_again(page: Page) -> None:
    """In the dialog that is open."""
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def test_who_has_signed_in_again_is_not_asked_once_more_by_an_older_look(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/operator/master-key")
    html, password = page.locator("html"), page.get_by_label("Password")
    page.evaluate(_HOLD, [2, True])
    window.expect("401")
    end_sessions(lodge)
    expect(password).to_be_visible()
    expect(html).to_have_attribute("data-held", "/dashboard/operator/master-key")
    sign_in_again(page)
    expect(password).to_be_hidden()
    page.evaluate("document.documentElement.dataset.answered = 0")
    page.evaluate("letGo()")
    expect(html).to_have_attribute("data-answered", re.compile("^[1-9]"))  # the next look, after the one that was held
    expect(password).to_be_hidden()


def test_what_was_sent_before_somebody_signed_in_again_is_sent_anew(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/settings/notifications")
    html, password = page.locator("html"), page.get_by_label("Password")
    page.evaluate(_HOLD, [1, False])
    window.expect("401")
    end_sessions(lodge)
    page.get_by_role("button", name="Send a test").click()
    expect(html).to_have_attribute("data-held", "/dashboard/settings/notifications/test")
    expect(password).to_be_visible()  # by a look
    sign_in_again(page)
    expect(password).to_be_hidden()
    with page.expect_navigation():
        page.evaluate("letGo()")
    expect(page.get_by_role("table")).to_contain_text("test")
