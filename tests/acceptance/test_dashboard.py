"""Getting into the dashboard: the set-up link, signing in and out, and what every page has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.lodge import EMAIL, Lodge
from tests.acceptance.pages import PASSWORD, Reception
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import GatewayMaker, making
from tests.servers.shell import Shell


@pytest.fixture(scope="module")
def lodge(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Lodge]:
    with making(tmp_path_factory.mktemp("lodge"), canaries, shell, started) as maker:
        yield Lodge(maker()).open("alice", "bob")


def test_the_link_that_serve_prints_makes_the_first_owner_once(gateways: GatewayMaker, window: Window) -> None:
    reception = Reception(gateways())
    link = reception.set_up_link()
    page = window.open(link)
    expect(page.get_by_label("Your name")).to_be_visible()
    window.picture("set-up")
    page.get_by_label("Your name").fill("Alice")
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Organization").fill("Acme")
    page.get_by_label("Password").fill("alice@example.org")
    window.expect("422")
    page.get_by_role("button", name="Set up").click()
    expect(page.get_by_text("must not be the name or the e-mail address")).to_be_visible()
    expect(page.get_by_label("Your name")).to_have_value("Alice")
    page.get_by_label("Password").fill(PASSWORD)
    window.axe("set-up")
    page.get_by_role("button", name="Set up").click()
    page.wait_for_url(reception.url())
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.get_by_text("Welcome. This instance is yours.")).to_be_visible()
    window.axe("overview")
    page.goto(link)
    expect(page.get_by_text("This link does not work: it was used already")).to_be_visible()


def test_signing_in_and_out(lodge: Lodge, window: Window) -> None:
    page = window.open(lodge.url("/account"))
    expect(page).to_have_url(lodge.url("/sign-in?why=session&next=%2Fdashboard%2Faccount"))
    window.axe("sign-in")
    window.picture("sign-in")
    page.get_by_label("E-mail").fill(EMAIL)
    page.get_by_label("Password").fill("wrong horse battery staple")
    window.expect("422")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text("The e-mail address or the password is not right.")
    expect(page.get_by_label("E-mail")).to_have_value(EMAIL)
    window.axe("sign-in refused")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(lodge.url("/account"))
    expect(page.get_by_role("heading", name="Account")).to_be_visible()
    page.get_by_role("complementary").get_by_role("button", name="Sign out").click()
    page.wait_for_url(lodge.url("/sign-in"))
    page.goto(lodge.url("/account"))
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_session_has_a_new_token_whatever_cookie_there_was(lodge: Lodge) -> None:
    visitor = lodge.client()
    planted = {"cookie": f"ostiary_session={'A' * 43}"}
    answer = visitor.post("/sign-in", planted, email=EMAIL, password=PASSWORD)
    cookie = answer.headers["set-cookie"]
    assert "A" * 43 not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert lodge.client().http.get(lodge.url(), headers=planted).status_code == 303
    first = dict(visitor.http.cookies)["ostiary_session"]
    visitor.post("/sign-in", email=EMAIL, password=PASSWORD)
    assert lodge.client().http.get(lodge.url(), headers={"cookie": f"ostiary_session={first}"}).status_code == 303


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "/dashboard\r\nx: y"],
)
def test_signing_in_leads_nowhere_else(lodge: Lodge, wanted: str) -> None:
    answer = lodge.client().post("/sign-in", email=EMAIL, password=PASSWORD, next=wanted)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/dashboard")
    assert "x" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_sites_page_signs_nobody_in(lodge: Lodge, headers: dict[str, str]) -> None:
    answer = lodge.client().post("/sign-in", headers, email=EMAIL, password=PASSWORD)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_a_form_without_the_sessions_token_does_nothing(lodge: Lodge) -> None:
    visitor = lodge.client("bob")
    assert visitor.post("/account/sessions/end-others", {"x-csrf-token": "0" * 64}).status_code == 403
    assert visitor.post("/account/sessions/end-others").status_code == 303


def test_guessing_is_slowed_down_and_said_plainly(gateways: GatewayMaker, window: Window) -> None:
    lodge = Lodge(gateways(clock=True)).open("bob")
    page = window.open(lodge.url("/sign-in"))
    page.get_by_label("E-mail").fill("bob@example.org")
    page.get_by_label("Password").fill(PASSWORD)
    guesser = lodge.client()
    answers = [guesser.post("/sign-in", email="bob@example.org", password="not it, surely") for _ in range(10)]
    assert [one.status_code for one in answers] == [422] * 5 + [429] * 5
    assert 0 < int(answers[-1].headers["retry-after"]) <= 30
    window.expect("429")
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Signing in has failed too often. Try again in")
    window.axe("slowed down")
    lodge.gateway.shift(31)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(lodge.url())


def test_a_form_that_outlives_its_session_is_sent_after_signing_in_again(
    gateways: GatewayMaker, window: Window
) -> None:
    lodge = Lodge(gateways()).open("alice")
    page = lodge.sign_in(window, "alice", "/settings")
    page.get_by_label("Name", exact=True).fill("Typed before the end")
    lodge.gateway.cli("users", "set-password", EMAIL, "--secret-stdin", stdin=PASSWORD)  # ends every session
    window.expect("401", "422")
    page.get_by_role("button", name="Save name").click()
    dialog = page.get_by_role("dialog", name="Sign in again")
    expect(dialog.get_by_text("Nothing you typed is lost.")).to_be_visible()
    window.axe("signing in again")
    dialog.get_by_label("Password").fill("wrong horse battery staple")
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog.get_by_text("The e-mail address or the password is not right.")).to_be_visible()
    dialog.get_by_label("Password").fill(PASSWORD)
    dialog.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Organization saved.")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value("Typed before the end")
    assert lodge.gateway.json("orgs", "list")[0]["name"] == "Typed before the end"


def test_a_session_ends_when_nobody_looks_and_after_half_a_day(gateways: GatewayMaker) -> None:
    lodge = Lodge(gateways(clock=True)).open("bob")
    idle = lodge.client("bob")
    lodge.gateway.shift(29 * 60)
    assert idle.get("/account").status_code == 200
    lodge.gateway.shift(60 * 60)
    assert idle.get("/account").headers["location"].startswith("/dashboard/sign-in?why=session")
    busy = lodge.client("bob")
    for minute in range(20, 12 * 60, 20):
        lodge.gateway.shift((60 + minute) * 60)
        assert busy.get("/account").status_code == 200, minute
    lodge.gateway.shift((60 + 12 * 60 + 1) * 60)
    assert busy.get("/account").headers["location"].startswith("/dashboard/sign-in?why=session")


def test_a_set_up_link_expires(gateways: GatewayMaker, window: Window) -> None:
    reception = Reception(gateways())
    link = reception.set_up_link()
    token = link.partition("#")[2]
    visitor = Lodge(reception.gateway).client()
    assert "Your name" in visitor.post("/set-up/look", token=token).text
    with reception.bureau.database() as database:  # as it is a day and a moment later
        assert database.execute("UPDATE links SET expires_at = created_at WHERE kind = 'set_up'").rowcount == 1
    assert "This link does not work" in visitor.post("/set-up/look", token=token).text
    typed = {"name": "Mallory", "email": "mallory@example.org", "organization": "Mine", "password": PASSWORD}
    answer = visitor.post("/set-up", token=token, **typed)
    assert answer.status_code == 404
    assert "set-cookie" not in answer.headers
    page = window.open(link)
    expect(page.get_by_text("This link does not work")).to_be_visible()
    expect(page.get_by_label("Password")).to_have_count(0)
    window.axe("a set-up link that has expired")


def test_under_https_the_cookie_is_bound_to_the_host(gateways: GatewayMaker) -> None:
    lodge = Lodge(gateways(env={"OSTIARY_PUBLIC_URL": "https://gate.example.org"})).open("alice")
    visitor = lodge.client()
    answer = visitor.post("/sign-in", email=EMAIL, password=PASSWORD)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-ostiary=")
    assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    token = cookie.partition("=")[2].partition(";")[0]
    plain = visitor.http.get(lodge.url(), headers={"cookie": f"ostiary_session={token}"})
    assert plain.status_code == 303
    assert visitor.http.get(lodge.url(), headers={"cookie": f"__Host-ostiary={token}"}).status_code == 200
    assert visitor.post("/sign-in", {"origin": "https://gate.example.org"}, email=EMAIL, password=PASSWORD).is_redirect
