"""Keys in the browser, where people mean harm or may not: scripts in every field, and keys of others."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import httpx2
import pytest

from tests.acceptance.pages import PASSWORD
from tests.acceptance.test_dashboard_keys import Desk
from tests.servers.browser import Window, expect
from tests.servers.gateway import Gateway

_SCRIPT: Final = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7193*7919}}${7193*7919}`"
_CSRF: Final = re.compile(r'<meta name="csrf" content="([^"]+)">')
_MOVES: Final = ("edit", "rotate", "ephemeral", "deactivate", "activate", "revoke", "delete", "explain")


@pytest.fixture(scope="module")
def desk(shared_gateway: Gateway) -> Desk:
    return Desk(shared_gateway).open()


@pytest.fixture(scope="module")
def alice(desk: Desk) -> Asker:
    return Asker(desk.gateway, "alice")


@pytest.fixture(scope="module")
def bob(desk: Desk) -> Asker:
    return Asker(desk.gateway, "bob")


class Asker:
    """Somebody who has signed in, without a browser."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.name = name
        self.client = gateway.client()
        self.client.headers["origin"] = gateway.origin
        typed = {"email": f"{name}@example.org", "password": PASSWORD}
        assert self.client.post("/dashboard/sign-in", data=typed).status_code == httpx2.codes.SEE_OTHER
        found = _CSRF.search(self.client.get("/dashboard/keys").text)
        assert found is not None
        self.csrf = found[1]

    def post(self, path: str, **typed: Any) -> httpx2.Response:
        """Send a form as the pages do."""
        headers = {"x-csrf-token": self.csrf, "hx-request": "true"}
        return self.client.post(f"/dashboard{path}", data=typed, headers=headers)


def test_scripts_in_every_field_are_shown_as_text(desk: Desk, window: Window) -> None:
    page = desk.sign_in(window, "alice", "/keys/new")
    name = desk.name(_SCRIPT)
    page.get_by_label("Key Name").fill(name)
    page.get_by_label("Budget ($)").fill("1")
    page.get_by_role("tab", name="Advanced").click()
    page.get_by_label("Allowed Models").fill(_SCRIPT)
    page.get_by_label("Find a model, endpoint or alias to add").fill(_SCRIPT)
    expect(page.get_by_text("Nothing here is called so.")).to_be_visible()
    page.get_by_label("Metadata (JSON)").fill(json.dumps({_SCRIPT: _SCRIPT}))
    expect(page.get_by_text("Good JSON:")).to_contain_text("<script>")
    page.get_by_role("button", name="Create Key").click()
    desk.revealed(page)
    expect(page.locator("#made-panel-curl")).to_contain_text("<script>alert(1)</script>")
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_label("Metadata", exact=True)).to_contain_text("<script>")
    expect(page.get_by_text(str(7193 * 7919))).to_have_count(0)
    page.get_by_label("Model", exact=True).fill(_SCRIPT)
    page.get_by_role("button", name="Would this work?").click()
    expect(page.locator("#explained p").first).to_be_visible()
    window.axe("a hostile key")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"‘{name}’")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("link", name="Edit").click()
    expect(page.get_by_label("Key Name")).to_have_value(name)
    page.goto(desk.url("/keys"))
    page.get_by_label("Search by name or key preview").fill(_SCRIPT)
    expect(page.get_by_role("link", name=name)).to_be_visible()
    window.narrow()
    page.reload()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_keys_of_another_organization_or_of_a_colleague_do_not_exist(desk: Desk, alice: Asker, bob: Asker) -> None:
    id, name = desk.key("Private")
    before = desk.known(id)
    form = {"name": "mine now", "model": "gpt-4o-mini", "overlap": "0", "ttl_s": "60"}
    dora = Asker(desk.gateway, "dora")
    form["shown"] = _shown(desk, alice)
    expected = httpx2.codes.NOT_FOUND
    for asker in (dora, bob):
        for path in ("", "/menu", "/edit", "/revoke", "/delete"):
            assert asker.client.get(f"/dashboard/keys/{id}{path}").status_code == expected, (asker.name, path)
        for move in _MOVES:
            answer = asker.post(f"/keys/{id}/{move}", **form)
            assert answer.status_code == expected, (asker.name, move, answer.text)
            assert name not in answer.text
        assert name not in asker.client.get(f"/dashboard/keys?q={name}").text.partition("<tbody")[2]
    after = desk.known(id)
    assert {**before, "last_used_at": None} == {**after, "last_used_at": None}


def test_a_member_makes_keys_for_themselves_only_and_hands_out_no_more_than_they_have(
    desk: Desk, alice: Asker, bob: Asker
) -> None:
    found = re.search(r'<option value="(\w+)"[^>]*>Me \(alice', alice.client.get("/dashboard/keys/new").text)
    assert found is not None
    typed = {"name": desk.name("Grab"), "expires": "30d", "scopes": "gate:chat"}
    assert bob.post("/keys/new", **typed, owner_id=found[1]).status_code == httpx2.codes.FORBIDDEN
    refused = bob.post("/keys/new", **{**typed, "scopes": "admin:audit:read"})
    assert refused.status_code == httpx2.codes.UNPROCESSABLE_CONTENT
    assert "does not reach admin:audit:read" in refused.text


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"expires": "custom", "expires_at": "soon"}, "Say when: a date and a time, in UTC."),
        ({"expires": "custom", "expires_at": "2020-01-01T00:00"}, "expires after 1 hour at the earliest"),
        ({"expires": "forever"}, "Choose when the key expires."),
        ({"scopes": "gate:everything"}, "There is no scope gate:everything"),
        ({"scopes": ""}, "A key without a scope opens nothing"),
        ({"budget": "-5"}, "Write an amount in US dollars"),
        ({"budget": "1", "soft": "2"}, "the soft limit must not be above the hard one"),
        ({"budget": "1", "budget_kind": "day"}, "A budget counts per month or in total."),
        ({"metadata": '{"a": 1e999}'}, "must be plain JSON"),
        ({"metadata": "[" * 5_000}, "This is not JSON"),
        ({"addresses": "10.0.0.7/8"}, "write 10.0.0.0/8 for the range"),
        ({"models": ",".join(f"m{n}" for n in range(600))}, "models must name 500 at most"),
        ({"rpm": "0"}, "rpm must be a whole number from 1"),
    ],
)
def test_bad_fields_are_refused_with_a_reason(desk: Desk, alice: Asker, typed: dict[str, str], said: str) -> None:
    usual = {"name": desk.name("Bad"), "expires": "30d", "scopes": "gate:chat"}
    answer = alice.post("/keys/new", **{**usual, **typed})
    assert answer.status_code == httpx2.codes.UNPROCESSABLE_CONTENT
    assert said in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_odd_addresses_of_the_list_are_answered(desk: Desk, alice: Asker) -> None:
    for query in ("sort=secret", "status=gone", "cursor=!!", "cursor=WzEsMl0", "cursor=eyJhIjoxfQ", "q=%25%5F\\"):
        assert alice.client.get(f"/dashboard/keys?{query}").status_code == httpx2.codes.OK, query
    assert alice.client.get("/dashboard/keys/nonsense").status_code == httpx2.codes.NOT_FOUND
    id, _ = desk.key("Formless")
    assert alice.post(f"/keys/{id}/edit", shown="[]").status_code == httpx2.codes.BAD_REQUEST
    assert alice.post(f"/keys/{id}/rotate", overlap="9999999").status_code == httpx2.codes.UNPROCESSABLE_CONTENT
    assert alice.post(f"/keys/{id}/rotate", overlap="x").status_code == httpx2.codes.UNPROCESSABLE_CONTENT


def _shown(desk: Desk, alice: Asker) -> str:
    """What an edit form carries, of any key."""
    id, _ = desk.key("Template")
    found = re.search(r'name="shown" value="([^"]*)"', alice.client.get(f"/dashboard/keys/{id}/edit").text)
    assert found is not None
    return found[1].replace("&#34;", '"')
