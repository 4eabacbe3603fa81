"""Signing in again over a page: what waits for it is sent once it is done, what was cancelled never is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import HOLD, LET_GO, PASSWORD
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

_HOLD = HOLD.replace("how.signal.", "how.signal?.")
"""Signing in again gives nothing up, so it says no signal."""
_TYPED_AND_SENT = """
(text) => {
  const field = document.querySelector('textarea[name=addresses]')
  field.value = text
  field.dispatchEvent(new Event('input', {bubbles: true}))
  field.form.requestSubmit()
}
"""
"""Typed, and the whole sent before what was typed is checked."""
_LONG_MS = 61_000
"""After a minute the gateway says that something goes on without whoever waits for it."""


@dataclass(slots=True)
class Place:
    """Alice owns two organizations; in the one she begins in Bob is a member."""

    lodge: Lodge
    elsewhere: str

    def end_sessions(self) -> None:
        self._do("DELETE FROM sessions")

    def forget_proofs(self) -> None:
        """Whoever is signed in has been for long."""
        self._do("UPDATE sessions SET proved_at = proved_at - 3600000")

    def _do(self, statement: str) -> None:
        with closing(sqlite3.connect(self.lodge.gateway.data_dir / "ostiary.db", timeout=10)) as database, database:
            database.execute(statement)

    def names(self) -> set[str]:
        """Of the agent keys."""
        return {one["name"] for one in self.lodge.gateway.json("keys", "list", "--org", self.lodge.home)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Place]:
    with making(tmp_path_factory.mktemp("again"), canaries, shell, started) as maker:
        lodge = Lodge(maker()).open("alice", "bob")
        for provider in ("groq", "openai"):
            lodge.gateway.add_provider_key(provider, f"my {provider}")
        made = Place(lodge, lodge.gateway.json("orgs", "create", "Elsewhere")["id"])
        lodge.gateway.cli("members", "add", "alice@example.org", "--role", "owner", "--org", made.elsewhere)
        yield made


def password_of(page: Page) -> Locator:
    """What the dialog asks for, which is open."""
    password = page.get_by_role("dialog", name="Sign in again").get_by_label("Password")
    expect(password).to_be_visible()
    return password


def sign_in(page: Page) -> None:
    password_of(page).fill(PASSWORD)
    page.get_by_role("dialog", name="Sign in again").get_by_role("button", name="Sign in", exact=True).click()


def leave(page: Page, how: str) -> None:
    """The dialog, by a key or by its button."""
    password = password_of(page)
    if how == "Escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("dialog", name="Sign in again").get_by_role("button", name="Cancel").click()
    expect(password).to_be_hidden()


def choose(page: Page, organization: str) -> None:
    page.get_by_label("Organization", exact=True).select_option(organization)


def asked(page: Page, times: int) -> None:
    """How often the page has asked since `_HOLD`."""
    expect(page.locator("html")).to_have_attribute("data-asked", str(times))


# ---- cancelled ------------------------------------------------------------------------------------------------------


def ask_to_delete(place: Place, window: Window, name: str) -> Page:
    """The page of a new key; to delete it takes a recent sign-in, which is asked for."""
    place.lodge.gateway.create_key(name, "--org", place.lodge.home)
    page = place.lodge.sign_in(window, "alice", f"/keys?q={name}")
    page.get_by_role("link", name=name, exact=True).click()
    place.forget_proofs()
    page.get_by_role("button", name="Delete").click()
    page.get_by_label(f"Type {name} to confirm").fill(name)
    window.expect("401")
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    return page


@pytest.mark.parametrize("how", ["Escape", "Cancel"])
def test_a_deed_is_not_done_when_one_cancels_while_the_password_is_checked(
    place: Place, window: Window, how: str
) -> None:
    page = ask_to_delete(place, window, f"kept-by-{how}")
    token = page.locator("meta[name=csrf]")
    before = token.get_attribute("content")
    page.evaluate(_HOLD)
    sign_in(page)
    asked(page, 1)
    leave(page, how)
    page.evaluate("letGo()")
    expect(token).not_to_have_attribute("content", str(before))  # signed in again one is
    asked(page, 1)
    assert f"kept-by-{how}" in place.names()
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_url("**/dashboard/keys*")
    assert f"kept-by-{how}" not in place.names()


def test_what_was_cancelled_is_not_done_by_a_later_sign_in(place: Place, window: Window) -> None:
    place.lodge.gateway.create_key("to play with", "--org", place.lodge.home)
    page = place.lodge.sign_in(window, "alice", "/playground?model=openai/gpt-4o")
    place.end_sessions()
    window.expect("401")
    page.get_by_role("button", name="Sign out").click()
    leave(page, "Cancel")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.get_by_role("button", name="Send").click()
    token = page.locator("meta[name=csrf]")
    before = token.get_attribute("content")
    page.evaluate(_HOLD)
    sign_in(page)
    page.evaluate("letGo()")
    expect(token).not_to_have_attribute("content", str(before))
    asked(page, 1)  # it did not sign out
    expect(page.get_by_label("Message", exact=True)).to_have_value("Hello")


# ---- sent once it is done -------------------------------------------------------------------------------------------


def test_a_check_that_is_refused_after_its_form_takes_nothing_from_it(place: Place, window: Window) -> None:
    page = place.lodge.sign_in(window, "alice", "/keys/new")
    page.get_by_label("Key Name").fill("typed to its end")
    page.get_by_role("tab", name="Advanced").click()
    place.end_sessions()
    window.expect("401")
    with page.expect_response("**/keys/check?field=addresses"):
        page.evaluate(_TYPED_AND_SENT, "10.0.0.0/8")
    sign_in(page)
    expect(page.get_by_text("API Key created! Copy it now")).to_be_visible()
    place.lodge.gateway.canaries.watch(page.locator("#secret").inner_text())
    assert "typed to its end" in place.names()


def test_an_organization_is_entered_after_signing_in_again(place: Place, window: Window) -> None:
    page = place.lodge.sign_in(window, "alice", "/keys/new")
    place.end_sessions()
    window.expect("401")
    choose(page, place.elsewhere)
    with page.expect_navigation():
        sign_in(page)
    expect(page).to_have_url(place.lodge.url())
    expect(page.get_by_label("Organization", exact=True)).to_have_value(place.elsewhere)


@pytest.mark.parametrize("how", ["Escape", "Cancel", "no network"])
def test_the_choice_of_an_organization_that_came_to_nothing_is_taken_back(
    place: Place, window: Window, how: str
) -> None:
    page = place.lodge.sign_in(window, "alice", "/keys/new")
    page.get_by_label("Key Name").fill("half typed")
    if how == "no network":
        window.expect("ERR_FAILED", "Failed to fetch")
        page.route("**/dashboard/organization", lambda route: route.abort())
        choose(page, place.elsewhere)
        expect(page.get_by_text("The gateway does not answer.")).to_be_visible()
    else:
        place.end_sessions()
        window.expect("401")
        choose(page, place.elsewhere)
        leave(page, how)
    expect(page.get_by_label("Organization", exact=True)).to_have_value(place.lodge.home)
    expect(page.get_by_label("Key Name")).to_have_value("half typed")


def test_the_keys_of_a_target_are_looked_up_after_signing_in_again(place: Place, window: Window) -> None:
    page = place.lodge.sign_in(window, "alice", "/endpoints/new")
    target = page.get_by_role("group", name="Target 1", exact=True)
    keys = target.get_by_label("Provider key", exact=True).locator("option")
    target.get_by_label("Provider", exact=True).select_option("groq")
    expect(keys).to_have_text(["Any key of the provider", "my groq"])
    place.end_sessions()
    window.expect("401")
    target.get_by_label("Provider", exact=True).select_option("openai")
    sign_in(page)
    expect(keys).to_have_text(["Any key of the provider", "my openai"])


def test_all_that_was_refused_meanwhile_is_sent(place: Place, window: Window) -> None:
    """Two targets, and the session ends: what the second asks for is not sent instead of what the first does."""
    page = place.lodge.sign_in(window, "alice", "/endpoints/new")
    page.get_by_role("button", name="Add target").click()
    place.end_sessions()
    window.expect("401")
    chosen = """() => {
      for (const one of document.querySelectorAll('select[name=provider]')) {
        one.value = 'groq'
        one.dispatchEvent(new Event('change', {bubbles: true}))
      }
    }"""
    page.evaluate(chosen)
    sign_in(page)
    for number in (1, 2):
        target = page.get_by_role("group", name=f"Target {number}", exact=True)
        keys = target.get_by_label("Provider key", exact=True).locator("option")
        expect(keys).to_have_text(["Any key of the provider", "my groq"])


# ---- what stays as it was meanwhile ---------------------------------------------------------------------------------


def test_who_is_to_go_is_named_also_after_another_form_of_the_page_was_sent(place: Place, window: Window) -> None:
    page = place.lodge.sign_in(window, "alice", "/settings/members")
    page.get_by_role("link", name="bob", exact=True).click()
    place.forget_proofs()
    window.expect("401")
    page.get_by_role("combobox", name="Role").select_option("admin")
    page.get_by_role("button", name="Change role").click()
    leave(page, "Cancel")
    expect(page.get_by_role("button", name="Change role")).to_be_enabled()
    page.get_by_role("button", name="Remove").click()
    remove = page.get_by_role("dialog", name="Remove bob").get_by_role("button", name="Remove")
    expect(remove).to_be_disabled()
    page.get_by_label("Type bob@example.org to confirm").press("Enter")
    expect(page.get_by_role("dialog", name="Sign in again").get_by_label("Password")).to_be_hidden()
    page.get_by_label("Type bob@example.org to confirm").fill("bob@example.org")
    expect(remove).to_be_enabled()


def test_a_page_waits_until_the_gateway_says_that_something_goes_on_without_it(place: Place, window: Window) -> None:
    window.page.clock.install()
    page = place.lodge.sign_in(window, "alice", "/settings")
    page.evaluate(_HOLD)
    page.get_by_role("button", name="Save name").click()
    asked(page, 1)
    page.clock.run_for(_LONG_MS)
    expect(page.locator("html")).to_have_attribute("data-aborted", "0")
    page.clock.resume()
    page.evaluate(LET_GO)
    expect(page.get_by_text("The gateway does not answer.")).to_have_count(0)
    expect(page.get_by_text("Organization saved.")).to_be_visible()
