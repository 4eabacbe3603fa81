"""Signing in at an OpenID provider: a real one, and what hostile answers come to."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from playwright.sync_api import Page

from tests.acceptance.lodge import Lodge
from tests.servers.browser import Window, Windows, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import GatewayMaker, making
from tests.servers.oidc import Oidc, running
from tests.servers.shell import Shell
from tests.servers.waiting import free_port, until

CALLBACK = "/dashboard/oidc/callback"
ACCOUNTS: dict[str, dict[str, Any]] = {
    "Mallory": {"sub": "m-1", "email": "alice@example.org", "email_verified": False},
    "Nina": {"sub": "n-1", "email": "nina@new.example", "name": "Nina <b>New</b>"},
}


@pytest.fixture(scope="module")
def inn(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path
) -> Iterator[tuple[Lodge, Oidc]]:
    """A gateway that knows a provider, and the provider that knows the gateway."""
    port, folder = free_port(), tmp_path_factory.mktemp("inn")
    with running(folder, canaries, f"http://127.0.0.1:{port}{CALLBACK}", accounts=ACCOUNTS) as provider:
        env = {
            "OSTIARY_OIDC_ISSUER": provider.issuer,
            "OSTIARY_OIDC_CLIENT_ID": provider.client_id,
            "OSTIARY_OIDC_CLIENT_SECRET": provider.client_secret,
            "OSTIARY_OIDC_NAME": "Acme",
            "OSTIARY_OIDC_DOMAINS": "new.example",
        }
        with making(folder, canaries, shell, started) as maker:
            gateway = maker(env=env, allow=[provider.issuer], start=False)
            shutil.copytree(started, gateway.data_dir)
            gateway.port = port
            gateway.start()
            yield Lodge(gateway).open("alice", "bob"), provider


def at_the_provider(page: Page, name: str) -> None:
    page.get_by_role("link", name="Sign in with Acme").click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Sign in").click()


def test_who_the_provider_knows_comes_in(inn: tuple[Lodge, Oidc], windows: Windows) -> None:
    lodge, provider = inn
    bob = windows()
    bob.allow(provider.issuer)
    page = bob.open(lodge.url("/account"))
    bob.axe("sign-in with a provider")
    bob.picture("sign-in-oidc")
    at_the_provider(page, "Bob")
    page.wait_for_url(lodge.url("/account"))
    expect(page.get_by_text("bob@example.org").first).to_be_visible()

    mallory = windows()
    mallory.allow(provider.issuer)
    page = mallory.open(lodge.url("/sign-in"))
    mallory.expect("404")
    at_the_provider(page, "Mallory")
    expect(page.get_by_role("alert")).to_contain_text("has not verified the e-mail address")

    nina = windows()
    nina.allow(provider.issuer)
    page = nina.open(lodge.url("/sign-in"))
    at_the_provider(page, "Nina")
    page.wait_for_url(lodge.url())
    page.goto(lodge.url("/account"))
    expect(page.get_by_label("Name", exact=True)).to_have_value("Nina <b>New</b>")

    stranger = windows()
    stranger.allow(provider.issuer)
    page = stranger.open(lodge.url("/sign-in"))
    stranger.expect("404")
    at_the_provider(page, "Zoe")
    expect(page.get_by_role("alert")).to_contain_text("not known here")
    log = lodge.gateway.log.read_text()
    assert provider.client_secret not in log
    assert "code=" not in log


def test_a_grave_deed_takes_another_sign_in_at_the_provider(inn: tuple[Lodge, Oidc], window: Window) -> None:
    lodge, provider = inn
    lodge.gateway.create_key("doomed", "--owner", "alice@example.org")
    doomed = lodge.gateway.json("keys", "show", "doomed")["id"]
    window.allow(provider.issuer)
    page = window.open(lodge.url(f"/keys/{doomed}"))
    at_the_provider(page, "Alice")
    page.wait_for_url(lodge.url(f"/keys/{doomed}"))
    an_hour_later(lodge)
    page.get_by_role("button", name="Delete").click()
    page.get_by_label("Type doomed to confirm").fill("doomed")
    window.expect("401", "422")
    page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
    again = page.get_by_role("dialog", name="Sign in again")
    expect(again.get_by_text("This needs a recent sign-in.")).to_be_visible()
    window.axe("signing in again with a provider")
    window.picture("sign-in-again-oidc")
    again.get_by_role("button", name="I have signed in there").click()
    expect(again.get_by_role("alert")).to_have_text("Enter your password, or sign in elsewhere first.")
    assert lodge.gateway.json("keys", "show", "doomed")["status"] == "active"
    with window.context.expect_page() as opened:
        again.get_by_role("link", name="Sign in with Acme in a new tab").click()
    tab = opened.value
    tab.get_by_label("Name").fill("Alice")  # who has signed in there is asked again
    tab.get_by_role("button", name="Sign in").click()
    tab.wait_for_url(lodge.url("/account"))
    tab.close()
    again.get_by_role("button", name="I have signed in there").click()
    expect(page.get_by_text("The key is deleted.")).to_be_visible()
    assert "doomed" not in [one["name"] for one in lodge.gateway.json("keys", "list")]


def test_who_is_let_in_by_the_provider_unasked_has_proved_nothing_anew(inn: tuple[Lodge, Oidc], window: Window) -> None:
    """It knows them from before, which says nothing of who sits there now: what counts is when it last asked."""
    lodge, provider = inn
    window.allow(provider.issuer)
    page = window.open(lodge.url("/account"))
    at_the_provider(page, "Bob")
    page.wait_for_url(lodge.url("/account"))
    first = newest(lodge)
    page.get_by_role("complementary").get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in with Acme").click()
    page.wait_for_url(lodge.url())
    second = newest(lodge)
    assert second["id"] != first["id"]
    assert second["proved_at"] == first["proved_at"] < first["created_at"] < second["created_at"]
    page.goto(lodge.url("/sign-in?why=proof&next=/dashboard/account"))
    expect(page.get_by_text("This needs a recent sign-in.", exact=True)).to_be_visible()
    page.get_by_role("link", name="Sign in with Acme").click()
    until(lambda: time.time() > first["proved_at"] / 1000 + 1, "a second that a provider tells from the one before")
    page.get_by_label("Name").fill("Bob")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lodge.url("/account"))
    assert newest(lodge)["proved_at"] > first["proved_at"]


def test_a_form_goes_to_the_organization_of_its_page_whichever_one_signs_in_to(
    inn: tuple[Lodge, Oidc], window: Window
) -> None:
    lodge, provider = inn
    other = lodge.gateway.json("orgs", "create", "The second")["id"]
    lodge.gateway.cli("members", "add", "alice@example.org", "--role", "owner", "--org", other)
    window.allow(provider.issuer)
    page = window.open(lodge.url("/settings"))
    at_the_provider(page, "Alice")
    page.wait_for_url(lodge.url("/settings"))
    page.get_by_role("combobox", name="Organization").select_option(other)
    page.wait_for_url(lodge.url())
    page.goto(lodge.url("/settings"))
    expect(page.get_by_label("Name", exact=True)).to_have_value("The second")
    page.get_by_label("Name", exact=True).fill("Still the second")
    with lodge_database(lodge) as database:
        database.execute("DELETE FROM sessions")
    window.expect("401")
    page.get_by_role("button", name="Save name").click()
    again = page.get_by_role("dialog", name="Sign in again")
    with window.context.expect_page() as opened:
        again.get_by_role("link", name="Sign in with Acme in a new tab").click()
    tab = opened.value
    tab.get_by_label("Name").fill("Alice")
    tab.get_by_role("button", name="Sign in").click()
    tab.wait_for_url(lodge.url("/account"))
    again.get_by_role("button", name="I have signed in there").click()
    expect(page.get_by_text("Organization saved.")).to_be_visible()
    names = {one["id"]: one["name"] for one in lodge.gateway.json("orgs", "list")}
    assert (names[lodge.home], names[other]) == ("default", "Still the second")


def an_hour_later(lodge: Lodge) -> None:
    """For all who have signed in."""
    with lodge_database(lodge) as database:
        database.execute("UPDATE sessions SET proved_at = proved_at - 3600000")


def newest(lodge: Lodge) -> sqlite3.Row:
    """The last session that began."""
    with lodge_database(lodge) as database:
        database.row_factory = sqlite3.Row
        row: sqlite3.Row = database.execute("SELECT * FROM sessions ORDER BY created_at DESC LIMIT 1").fetchone()
    return row


@contextmanager
def lodge_database(lodge: Lodge) -> Iterator[sqlite3.Connection]:
    """What somebody with a shell on the machine may do."""
    with closing(sqlite3.connect(lodge.gateway.data_dir / "ostiary.db", timeout=10)) as connection, connection:
        yield connection


def test_whoever_refuses_at_the_provider_is_told(inn: tuple[Lodge, Oidc], window: Window) -> None:
    lodge, provider = inn
    window.allow(provider.issuer)
    page = window.open(lodge.url("/sign-in"))
    page.get_by_role("link", name="Sign in with Acme").click()
    window.expect("400")
    page.get_by_role("button", name="Refuse").click()
    expect(page.get_by_role("alert")).to_contain_text("did not sign you in: They would not sign in.")
    window.axe("refused at the provider")


def test_only_the_browser_that_went_comes_back_and_once(inn: tuple[Lodge, Oidc]) -> None:
    lodge, provider = inn
    went = lodge.client()
    begun = went.get("/oidc?next=https://evil.example/")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.headers["location"]).query).items()}
    assert begun.headers["location"].startswith(provider.issuer)
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{lodge.gateway.origin}{CALLBACK}"
    cookie = begun.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Max-Age=600" in cookie
    assert asked["state"] not in cookie
    assert asked["nonce"] not in cookie

    with httpx2.Client(follow_redirects=False, timeout=20) as browser:
        code = _code(browser, begun.headers["location"], "Bob")
    back = f"/oidc/callback?code={code}&state={asked['state']}&iss={provider.issuer}"
    elsewhere = lodge.client().get(back)
    assert elsewhere.status_code == 400
    assert "was not begun in this browser" in elsewhere.text
    kept = dict(went.http.cookies)
    other_state = went.get(f"/oidc/callback?code={code}&state={'0' * 64}")
    assert other_state.status_code == 400
    went.http.cookies.update(kept)
    done = went.get(back)
    assert (done.status_code, done.headers["location"]) == (303, "/dashboard")
    went.http.cookies.update(kept)
    again = went.get(back)
    assert again.status_code == 400
    assert "was used already" in again.text


def test_an_answer_of_another_issuer_is_not_taken(inn: tuple[Lodge, Oidc]) -> None:
    lodge, _ = inn
    went = lodge.client()
    begun = went.get("/oidc")
    state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
    answer = went.get(f"/oidc/callback?code=x&state={state}&iss=https://evil.example")
    assert answer.status_code == 400
    assert "not from the OpenID provider" in answer.text


def test_a_code_that_the_provider_does_not_know_lets_nobody_in(inn: tuple[Lodge, Oidc]) -> None:
    lodge, _ = inn
    went = lodge.client()
    begun = went.get("/oidc")
    state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
    answer = went.get(f"/oidc/callback?code=made-up&state={state}")
    assert answer.status_code == 503
    assert not any("ostiary_session" in one for one in answer.headers.get_list("set-cookie"))


@pytest.mark.parametrize("missing", ["OSTIARY_OIDC_CLIENT_ID", "OSTIARY_OIDC_CLIENT_SECRET"])
def test_half_a_setting_stops_the_start(gateways: GatewayMaker, missing: str) -> None:
    env = {
        "OSTIARY_OIDC_ISSUER": "https://login.example.org",
        "OSTIARY_OIDC_CLIENT_ID": "ostiary",
        "OSTIARY_OIDC_CLIENT_SECRET": "a secret that is one",
    }
    gateway = gateways(env={name: value for name, value in env.items() if name != missing}, start=False)
    assert gateway.spawn().wait(30) == 1
    assert "go together" in gateway.log.read_text()


def test_without_a_provider_there_is_no_such_page(gateways: GatewayMaker) -> None:
    lodge = Lodge(gateways())
    assert lodge.client().get("/oidc").status_code == 404
    assert lodge.client().get("/oidc/callback?code=x&state=y").status_code == 404
    assert "Sign in with" not in lodge.client().get("/sign-in").text


def _code(browser: httpx2.Client, url: str, name: str) -> str:
    """Sign in at the provider by hand; the code that it sends back."""
    answer = browser.get(url)
    while True:
        where = answer.headers.get("location", "")
        if CALLBACK in where:
            return parse_qs(urlsplit(where).query)["code"][0]
        answer = browser.get(httpx2.URL(url).join(where)) if where else browser.post(answer.url, data={"name": name})
