"""Two tabs of one browser: one signs in anew or works in another organization, and nothing is lost in the other."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from ostiary.dashboard.routes import ANYBODY, ROUTES
from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import PASSWORD
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

_PARTIAL = {"hx-request": "true"}
_BUSY_MS = 20_000
"""Longer than a page waits for a database that somebody else writes to."""


@dataclass(slots=True)
class Place:
    """Alice owns two organizations, each with an agent key that is named after it; she begins in the first."""

    lodge: Lodge
    elsewhere: str

    def names(self) -> set[str]:
        """Of both organizations."""
        return {one["name"] for one in self.lodge.gateway.json("orgs", "list")}

    def end_sessions(self) -> None:
        with closing(sqlite3.connect(self.lodge.gateway.data_dir / "ostiary.db", timeout=10)) as database, database:
            database.execute("DELETE FROM sessions")

    def sign_in_elsewhere(self, window: Window) -> Page:
        """Her session ends, and she signs in anew in another tab; that tab."""
        self.end_sessions()
        tab = window.tab()
        tab.goto(self.lodge.url("/sign-in"))
        tab.get_by_label("E-mail").fill("alice@example.org")
        tab.get_by_label("Password").fill(PASSWORD)
        tab.get_by_role("button", name="Sign in", exact=True).click()
        tab.wait_for_url(self.lodge.url())
        return tab

    def move(self, window: Window) -> None:
        """In another tab she chooses the other organization."""
        tab = window.tab()
        tab.goto(self.lodge.url())
        with tab.expect_navigation():
            tab.get_by_label("Organization", exact=True).select_option(self.elsewhere)
        expect(tab.get_by_label("Organization", exact=True)).to_have_value(self.elsewhere)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Place]:
    with making(tmp_path_factory.mktemp("tabs"), canaries, shell, started) as maker:
        lodge = Lodge(maker()).open("alice")
        made = Place(lodge, lodge.gateway.json("orgs", "create", "Elsewhere")["id"])
        lodge.gateway.cli("members", "add", "alice@example.org", "--role", "owner", "--org", made.elsewhere)
        lodge.gateway.create_key("at home", "--org", lodge.home)
        lodge.gateway.create_key("far away", "--org", made.elsewhere)
        yield made


def asked_again(page: Page) -> Locator:
    """The dialog that has to open."""
    dialog = page.get_by_role("dialog", name="Sign in again")
    expect(dialog.get_by_text("This page is from before you signed in anew, or chose another org")).to_be_visible()
    return dialog


def sign_in(dialog: Locator) -> None:
    dialog.get_by_label("Password").fill(PASSWORD)
    dialog.get_by_role("button", name="Sign in", exact=True).click()


# ---- what is sent ---------------------------------------------------------------------------------------------------


def test_a_form_from_before_a_sign_in_in_another_tab_is_sent_after_signing_in_again(
    place: Place, window: Window
) -> None:
    page = place.lodge.sign_in(window, "alice", "/settings")
    page.get_by_label("Name", exact=True).fill("Half typed")
    place.sign_in_elsewhere(window)
    window.expect("401")
    page.get_by_role("button", name="Save name").click()
    dialog = asked_again(page)
    window.axe("signing in again, by a page from before")
    assert "Half typed" not in place.names()
    sign_in(dialog)
    expect(page.get_by_text("Organization saved.")).to_be_visible()
    assert "Half typed" in place.names()


def test_a_form_is_sent_to_the_organization_that_its_page_is_headed_with(place: Place, window: Window) -> None:
    page = place.lodge.sign_in(window, "alice", "/settings")
    page.get_by_label("Name", exact=True).fill("Where it was typed")
    place.move(window)
    window.expect("401")
    page.get_by_role("button", name="Save name").click()
    dialog = asked_again(page)
    assert "Where it was typed" not in place.names()
    sign_in(dialog)
    expect(page.get_by_text("Organization saved.")).to_be_visible()
    expect(page.locator("#organization")).to_have_value(place.lodge.home)
    assert {"Where it was typed", "Elsewhere"} <= place.names()


def test_whoever_does_not_sign_in_again_has_done_nothing_and_keeps_what_was_typed(place: Place, window: Window) -> None:
    page = place.lodge.sign_in(window, "alice", "/settings")
    page.get_by_label("Name", exact=True).fill("Never saved")
    place.move(window)
    window.expect("401")
    page.get_by_role("button", name="Save name").click()
    dialog = asked_again(page)
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog.get_by_label("Password")).to_be_hidden()
    expect(page.get_by_label("Name", exact=True)).to_have_value("Never saved")
    assert "Never saved" not in place.names()


def test_no_deed_is_done_by_a_script_without_the_token_of_its_page(place: Place) -> None:
    alice = place.lodge.client("alice")
    for route in (one for one in ROUTES if one.is_write and one.deed != ANYBODY):
        path = re.sub(r"\{\w+\}", "x", route.path)
        for token in ("", "0" * 64, place.lodge.client("alice").csrf()):
            wrong = {"x-csrf-token": token, **_PARTIAL}
            answer = alice.post(path, wrong, csrf=token, name="Mallory")
            assert answer.status_code == HTTPStatus.UNAUTHORIZED, (path, token)
            assert answer.headers["x-ostiary-sign-in"] == "page"
            assert answer.content == b""
            assert "set-cookie" not in answer.headers
    assert "Mallory" not in alice.get("/account").text + str(place.names())
    assert alice.post("/account/name", {"x-csrf-token": "0"}, name="Mallory").status_code == HTTPStatus.FORBIDDEN
    assert alice.post("/account/name", _PARTIAL, name="Alice").status_code == HTTPStatus.OK


# ---- what is read ---------------------------------------------------------------------------------------------------


def test_a_list_is_filtered_in_the_organization_that_its_page_is_headed_with(place: Place, window: Window) -> None:
    page = place.lodge.sign_in(window, "alice", "/keys")
    expect(page.get_by_role("link", name="at home", exact=True)).to_be_visible()
    place.move(window)
    window.expect("401")
    page.get_by_role("searchbox", name="Search by name").fill("a")
    dialog = asked_again(page)
    expect(page.locator("#list")).to_contain_text("at home")
    expect(page.locator("#list")).not_to_contain_text("far away")
    with page.expect_response(lambda answer: "/keys?" in answer.url and answer.ok):
        sign_in(dialog)
    expect(page.locator("#list")).to_contain_text("at home")
    expect(page.locator("#list")).not_to_contain_text("far away")


def test_a_live_list_stands_still_while_one_works_in_another_organization(place: Place, window: Window) -> None:
    page = place.lodge.sign_in(window, "alice", "/settings/notifications")
    expect(page.get_by_text("Nobody was told of anything yet")).to_be_visible()
    place.move(window)
    window.expect("401")
    said = page.get_by_text("This page stands still")
    said.hover()  # so long it stays
    there = window.context.pages[-1]
    there.goto(place.lodge.url("/settings/notifications"))
    there.get_by_role("button", name="Send a test").click()
    expect(there.get_by_role("table")).to_contain_text("test")
    for _ in range(2):
        with page.expect_response(lambda answer: "x-ostiary-look" in answer.request.headers):
            pass
    expect(said).to_have_count(1)
    expect(page.get_by_text("Nobody was told of anything yet")).to_be_visible()
    expect(page.get_by_role("dialog", name="Sign in again").get_by_label("Password")).to_be_hidden()
    with there.expect_navigation():
        there.get_by_label("Organization", exact=True).select_option(place.lodge.home)
    with page.expect_response(lambda answer: "x-ostiary-look" in answer.request.headers and answer.ok):
        pass


def test_a_part_of_a_page_is_read_only_in_the_organization_of_that_page(place: Place) -> None:
    alice = place.lodge.client("alice")
    for home, status in ((place.lodge.home, HTTPStatus.OK), (place.elsewhere, HTTPStatus.UNAUTHORIZED)):
        answer = alice.http.get("/dashboard/keys", headers={"x-ostiary-organization": home, **_PARTIAL})
        assert answer.status_code == status
        assert ("at home" in answer.text) is (status == HTTPStatus.OK)
    assert answer.headers["x-ostiary-sign-in"] == "page"
    assert alice.get("/keys").is_success


# ---- the playground -------------------------------------------------------------------------------------------------


def test_the_playground_asks_to_sign_in_where_its_page_is_from_before(place: Place, window: Window) -> None:
    page = place.lodge.sign_in(window, "alice", "/playground?model=openai/gpt-4o")
    place.sign_in_elsewhere(window)
    window.expect("401")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.get_by_role("button", name="Send").click()
    dialog = asked_again(page)
    expect(page.get_by_text("Sign in, then send again: nothing you typed is lost.")).to_be_attached()
    sign_in(dialog)
    expect(dialog.get_by_label("Password")).to_be_hidden()
    window.expect("503")
    with page.expect_response("**/playground/key") as answered:
        page.get_by_role("button", name="Send").click()
    assert answered.value.ok
    place.lodge.gateway.canaries.watch(answered.value.json()["secret"])
    expect(page.get_by_text("Refused:")).to_be_visible()  # there is no key of a provider


def test_the_playground_says_what_the_gateway_says(place: Place, window: Window) -> None:
    page = place.lodge.sign_in(window, "alice", "/playground?model=openai/gpt-4o")
    page.get_by_label("Message", exact=True).fill("Hello")
    window.expect("503")
    with closing(sqlite3.connect(place.lodge.gateway.data_dir / "ostiary.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with page.expect_response("**/playground/key", timeout=_BUSY_MS):
            page.get_by_role("button", name="Send").click()
        other.execute("ROLLBACK")
    expect(page.get_by_role("main").get_by_role("alert")).to_have_text(
        "The database is not available. Nothing was changed; try again shortly."
    )
