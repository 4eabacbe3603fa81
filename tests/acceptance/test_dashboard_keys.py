"""Keys in the browser: made, shown once, found, edited, rotated, stopped and deleted."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import httpx2
import pytest
from playwright.sync_api import Page

from tests.acceptance.pages import LINGER, PASSWORD
from tests.servers.browser import Window, expect
from tests.servers.gateway import NO_TLS, Gateway
from tests.servers.waiting import until

_HUE: Final = "bar => Number(getComputedStyle(bar).color.match(/^oklch\\(\\S+ \\S+ (\\S+)\\)$/)[1])"
_HUES: Final = {"good": 155, "warn": 80, "bad": 27}
"""Green, amber and red, by their angles."""
_SECRET: Final = re.compile(r"ost_(pat|eph)_[0-9A-Za-z]{49}")


@dataclass(slots=True)
class Desk:
    """A gateway with Alice, who owns the organization, Bob, a member of it, and Dora of another one."""

    gateway: Gateway
    home: str = ""
    numbers: Callable[[], int] = field(default_factory=lambda: count(1).__next__)

    def open(self) -> Desk:
        """Let them in."""
        gateway = self.gateway
        self.home = gateway.json("orgs", "list")[0]["id"]
        for name, role in (("alice", "owner"), ("bob", "member")):
            gateway.cli("members", "add", f"{name}@example.org", "--role", role, "--org", self.home)
        elsewhere = gateway.json("orgs", "create", "Elsewhere")["id"]
        gateway.cli("members", "add", "dora@example.org", "--role", "owner", "--org", elsewhere)
        for name in ("alice", "bob", "dora"):
            gateway.cli("users", "set-password", f"{name}@example.org", "--secret-stdin", stdin=PASSWORD)
        return self

    def sign_in(self, window: Window, name: str, path: str) -> Page:
        """Sign somebody in by the form, and go to a page."""
        page = window.open(f"{self.gateway.origin}/dashboard/sign-in?next=/dashboard{path}")
        page.get_by_label("E-mail").fill(f"{name}@example.org")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url(self.url(path))
        return page

    def url(self, path: str) -> str:
        """An address of the dashboard."""
        return f"{self.gateway.origin}/dashboard{path}"

    def name(self, stem: str) -> str:
        """One that no other test has."""
        return f"{stem} {self.numbers()}"

    def key(self, stem: str = "Key", *options: str, owner: str = "alice") -> tuple[str, str]:
        """A fresh key by the command line; its id and name."""
        made = self.made(stem, *options, owner=owner)
        return made["id"], made["name"]

    def made(self, stem: str, *options: str, owner: str = "alice") -> Any:
        """The same with its secret."""
        words = ("--name", self.name(stem), "--owner", f"{owner}@example.org", "--org", self.home)
        return self.gateway.json("keys", "create", *words, *options)

    def known(self, id: str) -> Any:
        """A key as the command line shows it."""
        return self.gateway.json("keys", "show", id, "--org", self.home)

    def revealed(self, page: Page) -> str:
        """The secret on the page, watched from now on."""
        text: str = page.locator("#secret").inner_text()
        assert _SECRET.fullmatch(text)
        self.gateway.canaries.watch(text)
        return text

    def opens(self, secret: str) -> bool:
        """Whether the gateway lets a secret in."""
        bearer = {"authorization": f"Bearer {secret}"}
        with httpx2.Client(base_url=self.gateway.origin, headers=bearer, verify=NO_TLS, timeout=20) as client:
            return client.get("/v1/key").status_code == httpx2.codes.OK


@pytest.fixture(scope="module")
def desk(shared_gateway: Gateway) -> Desk:
    return Desk(shared_gateway).open()


def _tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def _fill_basic(window: Window, name: str) -> None:
    page = window.page
    expect(page.get_by_label("Budget Alert Thresholds (%)")).to_be_hidden()
    expect(page.get_by_label("Expires In (seconds)")).to_be_hidden()
    window.axe("create, basic")
    window.picture("keys-create")
    page.get_by_label("Key Name").fill(name)
    page.get_by_label("Expiration").select_option("90d")
    page.get_by_label("Requests/min").fill("60")
    page.get_by_label("Tokens/min").fill("100000")
    page.get_by_label("Requests/day").fill("500")
    page.get_by_label("Budget ($)").fill("25")
    page.get_by_label("Budget Alert Thresholds (%)").fill("40, 90")
    page.get_by_role("button", name="All off").click()
    expect(page.get_by_text("All off: this key can reach no provider.")).to_be_visible()
    page.get_by_label("Find a provider").fill("anthrop")
    page.get_by_role("checkbox", name="Anthropic").check()


def _fill_advanced(window: Window) -> str:
    """The model that was picked."""
    page = window.page
    _tab(page, "Advanced")
    # Until its answer is here nothing may be there, or the whole list, which was asked for when the field was entered.
    with page.expect_response("**/keys/models?sought=claude-3"):
        page.get_by_label("Find a model, endpoint or alias to add").fill("claude-3")
    expect(page.locator("#models-found [data-pick]").filter(has_not_text="claude-3")).to_have_count(0)
    page.get_by_role("button", name="anthropic/claude-3").first.click()
    picked: str = page.get_by_label("Allowed Models").input_value()
    assert picked.startswith("anthropic/claude-3")
    window.axe("create, advanced")
    page.get_by_label("IP Allowlist").fill("192.168.1.0/24, 10.0.0.300")
    expect(page.get_by_text("'10.0.0.300' is not an IP address")).to_be_visible()
    page.get_by_label("IP Allowlist").fill("192.168.1.0/24, 2001:db8::1")
    expect(page.get_by_text("Calls from 192.168.1.0/24, 2001:db8::1/128 only.")).to_be_visible()
    page.get_by_label("Metadata (JSON)").fill('{"team": backend}')
    expect(page.get_by_text("This is not JSON. Line 1, column 10")).to_be_visible()
    page.get_by_label("Metadata (JSON)").fill('{"team": "backend"}')
    expect(page.get_by_text("Good JSON: team.")).to_be_visible()
    page.get_by_label("Parallel requests").fill("4")
    page.get_by_role("checkbox", name="gate:usage").uncheck()
    page.get_by_role("checkbox", name="Free models only").check()
    window.picture("keys-create-advanced")
    return picked


def test_a_key_is_made_with_everything(desk: Desk, window: Window) -> None:
    page = desk.sign_in(window, "alice", "/keys")
    name = desk.name("Production API")
    page.get_by_role("link", name="Create Key").first.click()
    page.wait_for_url(desk.url("/keys/new"))
    _fill_basic(window, name)
    picked = _fill_advanced(window)
    _tab(page, "MCP")
    expect(page.get_by_text("No MCP servers yet")).to_be_visible()
    window.axe("create, MCP")
    page.get_by_role("button", name="Create Key").click()
    desk.revealed(page)
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    known = desk.known(page.url.rpartition("/")[2])
    assert (known["name"], known["owner"], known["rpm"], known["tpm"]) == (name, "alice@example.org", 60, 100_000)
    assert (known["rpd"], known["parallel"], known["alert_at"]) == (500, 4, [40, 90])
    assert known["budget_usd"] == 25
    assert known["providers"] == {"mode": "only", "items": ["anthropic"]}
    assert known["models"] == {"mode": "only", "items": [picked]}
    assert known["ip"]["items"] == ["192.168.1.0/24", "2001:db8::1/128"]
    assert known["metadata"] == {"team": "backend"}
    assert known["scopes"] == ["gate:chat", "gate:models"]
    assert known["free_only"] is True
    window.axe("detail")
    window.picture("keys-detail")


def test_a_secret_is_copied_where_a_browser_has_no_clipboard_to_give(desk: Desk, window: Window) -> None:
    """As over plain http; and where it lets nobody copy, that is said, since the secret is shown once."""
    page = desk.sign_in(window, "alice", "/keys/new")
    page.get_by_label("Key Name").fill(desk.name("Plain"))
    page.get_by_role("button", name="Create Key").click()
    secret = desk.revealed(page)
    page.evaluate("navigator.clipboard.writeText = undefined")
    page.evaluate(LINGER)
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied!")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.evaluate("pass()")
    expect(page.get_by_role("button", name="Copy", exact=True)).to_be_focused()
    page.evaluate("document.execCommand = () => false")
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_text("Select the text and copy it yourself.")).to_be_visible()
    expect(page.get_by_role("button", name="Copied!")).to_have_count(0)


def test_a_secret_is_seen_once(desk: Desk, window: Window) -> None:
    page = desk.sign_in(window, "alice", "/keys/new")
    name = desk.name("Once")
    page.get_by_label("Key Name").fill(name)
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("API Key created! Copy it now")).to_be_visible()
    expect(page.get_by_text("This key will not be shown again. Make sure to save it securely.")).to_be_visible()
    secret = desk.revealed(page)
    page.evaluate(LINGER)
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.get_by_role("button", name="Copied!")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.evaluate("pass()")
    expect(page.get_by_role("button", name="Copy", exact=True)).to_be_visible()
    page.locator("#secret").click(position={"x": 30, "y": 12})
    assert page.evaluate("getSelection().toString()") == secret, "a click selects all of it, and nothing beside it"
    expect(page.get_by_text(f"export OSTIARY_API_KEY='{secret}'")).to_be_visible()
    expect(page.get_by_text("only a hash of it is kept here, and it can never be shown again")).to_be_visible()
    window.axe("reveal")
    window.picture("keys-reveal")
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    assert secret not in page.content()
    page.go_back()
    expect(page.get_by_label("Key Name")).to_be_visible()
    assert secret not in page.content()
    page.get_by_label("Key Name").fill(desk.name("Twice"))
    page.get_by_role("button", name="Create Key").click()
    other = desk.revealed(page)
    page.reload()
    expect(page.get_by_label("Key Name")).to_be_visible()
    assert other not in page.content()


def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(desk: Desk, window: Window) -> None:
    page = desk.sign_in(window, "alice", "/keys/new")
    window.expect("422")
    page.get_by_label("Requests/min").fill("many")
    page.get_by_label("Budget ($)").fill("lots")
    page.get_by_label("Budget Alert Thresholds (%)").fill("200")
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("name must be 1 to 200 visible characters.")).to_be_visible()
    expect(page.get_by_text("Give a whole number, or leave it empty for no limit.")).to_be_visible()
    expect(page.get_by_text("Write an amount in US dollars, such as 25 or 0.50.")).to_be_visible()
    expect(page.get_by_label("Requests/min")).to_have_value("many")
    expect(page.get_by_label("Budget Alert Thresholds (%)")).to_have_value("200")
    window.axe("create, refused")
    window.picture("keys-create-refused")
    page.get_by_label("Requests/min").fill("")
    page.get_by_label("Budget ($)").fill("5")
    page.get_by_label("Key Name").fill("n" * 10_000)
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("Write whole percents from 1 to 100")).to_be_visible()
    expect(page.get_by_label("Key Name")).to_have_value("n" * 10_000)
    page.get_by_label("Budget Alert Thresholds (%)").fill("50")
    page.get_by_label("Key Name").fill(desk.name("Mended"))
    _tab(page, "Advanced")
    page.get_by_label("Metadata (JSON)").fill("[1,")
    page.get_by_role("button", name="Create Key").click()
    expect(page.locator("#f-metadata-said")).to_contain_text("This is not JSON")
    expect(page.get_by_role("tab", name="Advanced")).to_have_attribute("aria-selected", "true")
    page.get_by_label("Metadata (JSON)").fill("")
    page.get_by_role("button", name="Create Key").click()
    desk.revealed(page)


def test_a_short_lived_token_is_made_without_a_parent(desk: Desk, window: Window) -> None:
    page = desk.sign_in(window, "alice", "/keys/new")
    window.expect("422")
    name = desk.name("Burst")
    page.get_by_label("Key Name").fill(name)
    page.get_by_role("switch", name="Ephemeral Token").check()
    expect(page.get_by_label("Expiration")).to_be_hidden()
    expect(page.get_by_label("Expires In (seconds)")).to_have_value("3600")
    page.get_by_label("Expires In (seconds)").fill("5")
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("An ephemeral key lives for 60 to 86400 seconds.")).to_be_visible()
    page.get_by_label("Expires In (seconds)").fill("120")
    page.get_by_role("button", name="Create Key").click()
    assert desk.revealed(page).startswith("ost_eph_")
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_role("button", name="Rotate Key")).to_have_count(0)


def test_a_key_is_made_for_a_member_who_then_owns_it(desk: Desk, windows: Callable[[], Window]) -> None:
    window = windows()
    page = desk.sign_in(window, "alice", "/keys/new")
    name = desk.name("For Bob")
    page.get_by_label("Key Name").fill(name)
    page.get_by_label("Create for member").select_option(label="bob (bob@example.org)")
    page.get_by_role("button", name="Create Key").click()
    desk.revealed(page)
    theirs = windows()
    page = desk.sign_in(theirs, "bob", "/keys/new")
    expect(page.get_by_label("Create for member")).to_have_count(0)
    page.goto(desk.url("/keys"))
    expect(page.get_by_role("link", name=name)).to_be_visible()
    expect(page.get_by_label("Owner")).to_have_count(0)
    theirs.axe("a member's list")


def test_the_list_is_searched_filtered_sorted_and_paged_and_its_address_keeps_it(desk: Desk, window: Window) -> None:
    made = [desk.key("Fleet", "--budget-usd", "10") for _ in range(3)]
    desk.gateway.cli("keys", "deactivate", made[0][0], "--org", desk.home)
    page = desk.sign_in(window, "alice", "/keys")
    window.axe("list")
    window.picture("keys-list")
    page.get_by_label("Search by name or key preview").fill("fleet")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(3)
    page.wait_for_url(re.compile("q=fleet"))
    page.get_by_label("Status").select_option("inactive")
    expect(rows).to_have_count(1)
    page.reload()
    expect(page.get_by_label("Search by name or key preview")).to_have_value("fleet")
    expect(rows).to_have_count(1)
    page.get_by_label("Status").select_option("")
    expect(rows).to_have_count(3)
    page.get_by_role("button", name="Name").click()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Name")
    by_name = sorted(name for _, name in made)
    expect(rows.first).to_contain_text(by_name[0])
    page.get_by_role("button", name="Name").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_text("Name")
    expect(rows.first).to_contain_text(by_name[-1])
    page.go_back()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text("Name")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    preview = desk.known(made[1][0])["preview"]
    page.get_by_label("Search by name or key preview").fill(preview)
    expect(rows).to_have_count(1)
    page.get_by_role("button", name="Copy preview").click()
    until(lambda: page.evaluate("navigator.clipboard.readText()") == preview, "the preview on the clipboard")
    page.get_by_label("Search by name or key preview").fill("no such key")
    expect(page.get_by_text("No key matches")).to_be_visible()
    window.axe("list, nothing found")
    page.get_by_role("link", name="Show all keys").click()
    rows.filter(has_text=made[1][1]).get_by_text("active").click()
    page.wait_for_url(desk.url(f"/keys/{made[1][0]}"))


def test_the_same_keys_stand_under_members(desk: Desk, window: Window) -> None:
    _, name = desk.key("Shared view")
    page = desk.sign_in(window, "alice", "/settings/members/agents?q=Shared%20view")
    expect(page.get_by_role("heading", name="Members")).to_be_visible()
    expect(page.get_by_role("link", name=name)).to_be_visible()
    window.axe("agents")
    page.goto(f"{desk.gateway.origin}/dashboard/gate/keys")
    page.wait_for_url(desk.url("/keys"))


def test_a_key_opened_among_the_agents_of_members_leads_back_there(desk: Desk, window: Window) -> None:
    """Through an edit, a rotation, what is done from its row, and its end."""
    id, name = desk.key("Of members")
    agents, there = desk.url("/settings/members/agents?q=Of%20members"), desk.url(f"/keys/{id}?from=members")
    page = desk.sign_in(window, "alice", "/settings/members/agents?q=Of%20members")
    page.get_by_role("link", name=name).click()
    page.wait_for_url(there)
    page.get_by_role("link", name="Edit", exact=True).click()
    page.get_by_role("link", name="Cancel").click()
    page.wait_for_url(there)
    page.get_by_role("link", name="Edit", exact=True).click()
    page.get_by_label("Requests/min").fill("20")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(there)
    page.get_by_role("button", name="Rotate Key").click()
    page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    desk.gateway.canaries.watch(page.locator("#secret").inner_text())
    page.get_by_role("link", name="Done").click()
    page.wait_for_url(there)
    page.get_by_role("button", name="Deactivate").click()
    expect(page.get_by_text("The key is inactive: no call with it is let in.")).to_be_visible()
    page.get_by_role("navigation", name="Where you are").get_by_role("link", name="Agents").click()
    page.wait_for_url(agents)
    page.get_by_role("button", name=f"Actions for {name}").click()
    page.get_by_role("menuitem", name="Edit").click()
    page.wait_for_url(desk.url(f"/keys/{id}/edit?from=members"))
    page.get_by_role("link", name="Cancel").click()
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill(name)
    dialog.get_by_role("button", name="Delete").click()
    page.wait_for_url(desk.url("/settings/members/agents"))
    page.get_by_role("link", name="Create Key").first.click()
    page.get_by_role("link", name="Cancel").click()
    page.wait_for_url(re.compile("/settings/members/agents"))


def test_two_tabs_that_edit_one_key_lose_nothing(desk: Desk, window: Window) -> None:
    id, name = desk.key("Two tabs")
    page = desk.sign_in(window, "alice", f"/keys/{id}/edit")
    window.expect("409")
    other = window.tab()
    other.goto(desk.url(f"/keys/{id}/edit"))
    other.get_by_label("Requests/min").fill("20")
    other.get_by_role("button", name="Save").click()
    other.wait_for_url(desk.url(f"/keys/{id}"))
    page.get_by_label("Requests/min").fill("30")
    page.get_by_label("Tokens/min").fill("999")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Requests/min was empty and is now “20”. You typed “30”.")).to_be_visible()
    expect(page.get_by_label("Tokens/min")).to_have_value("999")
    assert desk.known(id)["rpm"] == 20
    window.axe("edit, conflict")
    window.picture("keys-conflict")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(desk.url(f"/keys/{id}"))
    known = desk.known(id)
    assert (known["name"], known["rpm"], known["tpm"]) == (name, 30, 999)
    assert known["providers"]["mode"] == known["models"]["mode"] == "all"


def test_an_edit_keeps_what_no_list_can_say(desk: Desk, window: Window) -> None:
    id, _ = desk.key("Closed", "--models", "none", "--ip", "none")
    page = desk.sign_in(window, "alice", f"/keys/{id}/edit")
    expect(page.get_by_label("Expiration")).to_have_value("keep")
    page.get_by_label("Key Name").fill(desk.name("Still closed"))
    page.get_by_label("Budget ($)").fill("3.5")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url(desk.url(f"/keys/{id}"))
    known = desk.known(id)
    assert known["models"]["mode"] == known["ip"]["mode"] == "none"
    assert known["budget_usd"] == 3.5
    expect(page.get_by_text("No model at all: every call is refused.")).to_be_visible()


def test_a_key_is_rotated_with_an_overlap_and_at_once(desk: Desk, window: Window) -> None:
    made = desk.made("Turning")
    first, id = made["secret"], made["id"]
    page = desk.sign_in(window, "alice", f"/keys/{id}")
    page.get_by_role("button", name="Rotate Key").click()
    dialog = page.get_by_role("dialog", name="Rotate Key")
    window.axe("rotate")
    dialog.get_by_label("Overlap of old and new secret").select_option("86400")
    dialog.get_by_role("button", name="Rotate Key").click()
    second = desk.revealed(page)
    window.picture("keys-rotated")
    until(lambda: desk.opens(second), "the new secret")
    assert desk.opens(first)
    dialog.get_by_role("button", name="Close").click()
    expect(page.get_by_text("stops in 1 d")).to_be_visible()
    assert second not in page.content()
    page.get_by_role("button", name="Rotate Key").click()
    dialog.get_by_role("button", name="Rotate Key").click()
    expect(page.locator("#secret")).not_to_have_text(second)
    third = desk.revealed(page)
    until(lambda: desk.opens(third) and not desk.opens(second), "the old secret's end")
    page.get_by_role("link", name="Done").click()
    expect(page.locator("#secret")).to_have_count(0)


def test_a_child_is_made_and_a_key_is_stopped_and_let_in_again(desk: Desk, window: Window) -> None:
    id, name = desk.key("Parent", "--budget-usd", "5")
    page = desk.sign_in(window, "alice", f"/keys/{id}")
    window.expect("422")
    page.get_by_role("button", name="Ephemeral Token").click()
    dialog = page.get_by_role("dialog", name="Ephemeral Token")
    window.axe("ephemeral")
    dialog.get_by_label("Budget slice ($)").fill("50")
    dialog.get_by_role("button", name="Create token").click()
    expect(dialog.get_by_text(f"budget would let the ephemeral key do more than its parent, '{name}'")).to_be_visible()
    dialog.get_by_label("Budget slice ($)").fill("0.5")
    dialog.get_by_role("button", name="Create token").click()
    secret = desk.revealed(page)
    until(lambda: desk.opens(secret), "the child")
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_text("child of")).to_be_visible()
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", name="Ephemeral tokens")).to_be_visible()
    page.get_by_role("button", name="Deactivate").click()
    expect(page.get_by_text("The key is inactive: no call with it is let in.")).to_be_visible()
    until(lambda: not desk.opens(secret), "the child's end")
    page.get_by_role("button", name="Activate").click()
    expect(page.get_by_text("The key is active again.")).to_be_visible()
    until(lambda: desk.opens(secret), "the child again")
    page.get_by_role("button", name="Revoke").click()
    button = page.get_by_role("dialog").get_by_role("button", name="Revoke")
    expect(button).to_be_disabled()
    window.axe("revoke")
    page.get_by_label(f"Type {name} to confirm").fill(name)
    button.click()
    expect(page.get_by_text("The key is revoked.")).to_be_visible()
    expect(page.get_by_role("button", name="Activate")).to_be_visible()
    expect(page.get_by_role("button", name="Revoke")).to_have_count(0)


def test_a_key_is_deleted_by_name_and_the_list_keeps_its_place(desk: Desk, window: Window) -> None:
    (_, name), (_, stays) = desk.key("Doomed"), desk.key("Doomed")
    page = desk.sign_in(window, "alice", "/keys?q=Doomed")
    page.get_by_role("button", name=f"Actions for {name}").click()
    page.get_by_role("menuitem", name="Delete").click()
    asked = f"Delete API Key: Are you sure you want to delete ‘{name}’? This action cannot be undone."
    expect(page.get_by_text(asked)).to_be_visible()
    window.axe("delete")
    window.picture("keys-delete")
    button = page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True)
    expect(button).to_be_disabled()
    page.get_by_label(f"Type {name} to confirm").fill(name)
    button.click()
    expect(page.get_by_text("The key is deleted.")).to_be_visible()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("link", name=stays)).to_be_visible()
    assert "q=Doomed" in page.url


def test_try_it_says_what_a_call_would_do_and_why_not(desk: Desk, window: Window) -> None:
    model = "openai-compatible/ok"
    id, _ = desk.key("Asking", "--models", model)
    page = desk.sign_in(window, "alice", f"/keys/{id}")
    expect(page.get_by_text("Only for this model:")).to_be_visible()
    page.get_by_label("Model", exact=True).fill("gpt-4o-mini")
    page.get_by_role("button", name="Would this work?").click()
    expect(page.get_by_text("It would be answered with 403 model_not_allowed.")).to_be_visible()
    window.axe("try it, refused")
    page.get_by_text("A whole body instead").click()
    page.get_by_label("JSON body of the call").fill("{nonsense")
    page.get_by_role("button", name="Would this work?").click()
    expect(page.get_by_text("It would be answered with 400")).to_be_visible()
    page.get_by_label("JSON body of the call").fill(json.dumps({"model": model, "messages": [], "max_tokens": 5}))
    page.get_by_role("button", name="Would this work?").click()
    expect(page.locator("#explained p").first).to_be_visible()


def test_the_page_shows_spend_per_model_and_the_way_to_traces(desk: Desk, window: Window) -> None:
    made = desk.made("Busy")
    until(lambda: desk.opens(made["secret"]), "the key")
    assert desk.gateway.chat(made["secret"], "openai-compatible/ok").status_code == httpx2.codes.OK
    page = desk.sign_in(window, "alice", f"/keys/{made['id']}")
    table = page.get_by_role("table", name="Spend per model")
    expect(table.get_by_role("row").nth(1)).to_contain_text("openai-compatible/ok")
    traces = page.get_by_role("link", name="View Traces")
    expect(traces).to_have_attribute("href", f"/dashboard/traces?agent_key={made['id']}")
    expect(page.get_by_text(f'base_url="{desk.gateway.url}"')).to_be_hidden()
    _tab(page, "Python")
    expect(page.get_by_text(f'base_url="{desk.gateway.url}"')).to_be_visible()
    expect(page.get_by_text(f"Authorization: Bearer {made['preview']}", exact=True)).to_be_visible()
    expect(page.get_by_text("If it is lost, rotate the key, or revoke it and create another.")).to_be_visible()
    answers = page.get_by_role("table", name="Answers when a limit is reached")
    expect(answers).to_be_hidden()
    page.get_by_text("What a call is answered when a limit is reached").click()
    expect(answers.get_by_role("row", name="Requests per day 429 daily_rate_limit_exceeded")).to_be_visible()
    expect(answers.get_by_role("row", name="Hard budget 402 budget_exceeded")).to_be_visible()
    window.axe("connect an agent")
    watch = page.get_by_role("link", name="Watch its requests in Traces")
    expect(watch).to_have_attribute("href", f"/dashboard/traces?agent_key={made['id']}")
    window.picture("keys-connect")
    window.narrow()
    page.reload()
    window.picture("keys-detail-narrow")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_budget_is_green_until_70_percent_and_red_from_90(desk: Desk, window: Window) -> None:
    cap = 10_000_000_000
    levels = {
        **dict.fromkeys((0, 6_990_000_000, 6_999_999_999), "good"),
        **dict.fromkeys((7_000_000_000, 8_990_000_000, 8_999_999_999), "warn"),
        **dict.fromkeys((9_000_000_000, cap, 25_000_000_000), "bad"),
    }
    keys = {spent: desk.key("Budgeted", "--budget-usd", "10", "--budget-period", "total") for spent in levels}
    with closing(sqlite3.connect(desk.gateway.data_dir / "ostiary.db", timeout=10)) as database, database:
        for spent, (id, _) in keys.items():
            database.execute("DELETE FROM accounts WHERE id = ?", (id,))
            database.execute(
                "INSERT INTO accounts (scope, id, period_id, cap_nano, spent_nano, leased_nano)"
                " VALUES ('agent_key', ?, 'total', ?, ?, 0)",
                (id, cap, spent),
            )
    page = desk.sign_in(window, "alice", "/keys?q=Budgeted")
    window.light()
    for spent, level in levels.items():
        bar = page.get_by_role("progressbar", name=f"Budget used by {keys[spent][1]}", exact=True)
        expect(bar).to_have_attribute("value", str(min(100, spent * 100 // cap)))
        assert (bar.get_attribute("data-level"), bar.evaluate(_HUE)) == (level, _HUES[level]), spent
    for spent in (6_999_999_999, cap):
        page.goto(desk.url(f"/keys/{keys[spent][0]}"))
        expect(page.get_by_role("progressbar", name="Budget used")).to_have_attribute("data-level", levels[spent])
