"""One's own account: the password, the second factor, the browsers that are signed in; and who has forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pyotp
import pytest
from playwright.sync_api import Page

from tests.acceptance import corpus
from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import PASSWORD
from tests.servers.browser import Window, Windows, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import GatewayMaker, making
from tests.servers.shell import Shell
from tests.servers.smtp import Smtp

OTHER = "quite another battery staple"


@pytest.fixture(scope="module")
def post() -> Iterator[Smtp]:
    with Smtp().running() as server:
        yield server


@pytest.fixture(scope="module")
def lodge(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path, post: Smtp
) -> Iterator[Lodge]:
    mail = {"OSTIARY_SMTP_URL": post.url, "OSTIARY_MAIL_FROM": "Ostiary <gate@example.org>"}
    with making(tmp_path_factory.mktemp("lodge"), canaries, shell, started) as maker:
        yield Lodge(maker(env=mail)).open("alice")


def fill(page: Page, **typed: str) -> None:
    for label, value in typed.items():
        page.get_by_label(label.replace("_", " "), exact=True).fill(value)


def test_a_new_name_is_shown_wherever_one_is_listed(lodge: Lodge, windows: Windows) -> None:
    lodge.admit("ida")
    window, other = windows(), windows()
    page = lodge.sign_in(window, "ida", "/account")
    menu = page.get_by_role("navigation", name="Main")
    fill(page, Name=" " * 3)
    window.expect("422", "422")
    page.get_by_role("button", name="Change name").click()
    said = page.get_by_text("name must be 1 to 200 visible characters.")
    expect(said).to_be_visible()
    fill(page, Name="x" * 10_000)
    page.get_by_role("button", name="Change name").click()
    expect(said).to_be_visible()
    # The attribute is what the server wrote: the form has been shown again.
    expect(page.get_by_label("Name", exact=True)).to_have_attribute("value", "x" * 10_000)
    expect(page.get_by_label("Name", exact=True)).to_have_value("x" * 10_000)
    expect(page.get_by_label("Name", exact=True)).to_have_attribute("aria-invalid", "true")
    window.axe("name refused")
    window.picture("name-refused")
    fill(page, Name=corpus.EVIL)
    page.get_by_role("button", name="Change name").click()
    expect(page.get_by_text("Your name is changed.")).to_be_visible()
    expect(menu.get_by_text(corpus.EVIL, exact=True)).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value(corpus.EVIL)
    window.axe("name changed")
    window.narrow()
    page.reload()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.picture("name-narrow")
    window.wide()

    page = lodge.sign_in(other, "alice", "/settings/members")
    expect(page.get_by_role("link", name=corpus.EVIL, exact=True)).to_be_visible()
    page.goto(lodge.url("/audit?deed=users.name"))
    expect(page.get_by_role("row").filter(has_text="users.name")).to_have_count(1)
    page.get_by_role("row").filter(has_text="users.name").get_by_role("link").first.click()
    expect(page.get_by_role("main")).to_contain_text(corpus.EVIL)
    found = lodge.gateway.json("members", "list", "--org", lodge.home)
    assert [one["name"] for one in found if one["email"] == "ida@example.org"] == [corpus.EVIL]


def test_a_name_is_changed_only_by_a_form_of_ones_own(lodge: Lodge) -> None:
    alice, again = lodge.client("alice"), lodge.client("alice")
    assert lodge.client().post("/account/name", name="Nobody").status_code == httpx2.codes.SEE_OTHER
    assert alice.post("/account/name", {"x-csrf-token": "0"}, name="Mallory").status_code == httpx2.codes.FORBIDDEN
    assert (
        alice.post("/account/name", {"origin": "https://evil.example"}, name="M").status_code == httpx2.codes.FORBIDDEN
    )
    assert alice.post("/account/name", name="Alice Liddell", user_id="usr_other").status_code == httpx2.codes.SEE_OTHER
    assert "Alice Liddell" in again.get("/account").text
    assert "Mallory" not in again.get("/account").text


def test_a_new_password_ends_every_other_browser_and_leaves_this_one(lodge: Lodge, windows: Windows) -> None:
    lodge.admit("carol")
    here, there = windows(), windows()
    page, other = lodge.sign_in(here, "carol", "/account"), lodge.sign_in(there, "carol", "/account")
    before = {one["name"]: one["value"] for one in here.context.cookies()}
    fill(page, Password_now="not it at all", New_password=OTHER)
    page.get_by_label("New password, once more").fill(OTHER)
    here.expect("422", "422", "422")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_text("The password is not right.")).to_be_visible()
    here.axe("password refused")
    fill(page, Password_now=PASSWORD, New_password=OTHER)
    page.get_by_label("New password, once more").fill("a slip")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_text("The two are not the same.")).to_be_visible()
    fill(page, Password_now=PASSWORD, New_password="carol@example.org")
    page.get_by_label("New password, once more").fill("carol@example.org")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_text("must not be the name or the e-mail address")).to_be_visible()
    fill(page, Password_now=PASSWORD, New_password=OTHER)
    page.get_by_label("New password, once more").fill(OTHER)
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_text("Your password is changed.")).to_be_visible()
    after = {one["name"]: one["value"] for one in here.context.cookies()}
    assert before["ostiary_session"] != after["ostiary_session"]
    other.reload()
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()


def test_sessions_are_listed_and_ended(lodge: Lodge, windows: Windows) -> None:
    lodge.admit("dan")
    here, there, third = windows(), windows(), windows()
    page = lodge.sign_in(here, "dan", "/account")
    other, last = lodge.sign_in(there, "dan", "/account"), lodge.sign_in(third, "dan", "/account")
    page.reload()
    rows = page.get_by_role("row").filter(has_text="Chrome")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("this one")
    here.axe("sessions")
    rows.nth(1).get_by_role("button", name="End", exact=True).click()
    expect(page.get_by_text("That browser is signed out.")).to_be_visible()
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="End all others").click()
    expect(page.get_by_text("1 signed out.")).to_be_visible()
    for gone in (other, last):
        gone.reload()
        expect(gone.get_by_role("heading", name="Sign in")).to_be_visible()
    page.reload()
    expect(rows).to_have_count(1)


def test_many_sessions_are_listed_by_pages(lodge: Lodge, windows: Windows) -> None:
    lodge.admit("tess")
    others = [lodge.client("tess") for _ in range(24)]
    window = windows()
    page = lodge.sign_in(window, "tess", "/account")
    rows = page.get_by_role("table", name="Browsers that are signed in").locator("tbody tr")
    expect(rows).to_have_count(20)
    expect(page.get_by_text("20 shown of 25")).to_be_visible()
    expect(rows.first).to_contain_text("this one")
    expect(page.get_by_role("link", name="First page")).to_have_count(0)
    window.axe("many sessions")
    window.picture("account-sessions")
    page.get_by_role("link", name="Next page").click()
    expect(rows).to_have_count(5)
    expect(rows.filter(has_text="this one")).to_have_count(0)
    expect(page.get_by_role("link", name="Next page")).to_have_count(0)
    window.narrow()
    page.reload()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.picture("account-sessions-narrow")
    page.get_by_role("link", name="First page").click()
    expect(rows).to_have_count(20)
    page.goto(lodge.url("/account?after=ses_that_is_gone"))
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="End all others").click()
    expect(page.get_by_text("24 signed out.")).to_be_visible()
    expect(rows).to_have_count(1)
    assert others[0].get("/account").status_code == httpx2.codes.SEE_OTHER


def test_somebody_elses_session_is_not_there(lodge: Lodge) -> None:
    lodge.admit("eve")
    alice, eve = lodge.client("alice"), lodge.client("eve")
    id_ = re.search(r"/account/sessions/(ses_\w+)/end", lodge.client("alice").get("/account").text)
    assert id_ is not None
    assert eve.post(f"/account/sessions/{id_.group(1)}/end").status_code == 404
    assert alice.get("/account").status_code == 200


def replace_codes(page: Page, window: Window, codes: list[str]) -> None:
    """New recovery codes, which are asked for twice: the first time it was a mistake."""
    expect(page.get_by_text("9 recovery codes are left.")).to_be_visible()
    renewed = page.get_by_role("dialog", name="Replace the recovery codes?")
    page.get_by_role("button", name="New recovery codes").click()
    window.axe("asked before recovery codes are replaced")
    renewed.get_by_role("button", name="Cancel").click()
    expect(renewed).to_be_hidden()
    expect(page.get_by_text("9 recovery codes are left.")).to_be_visible()
    page.get_by_role("button", name="New recovery codes").click()
    renewed.get_by_role("button", name="Make new codes").click()
    expect(renewed).to_be_hidden()
    fresh = page.get_by_test_id("recovery-codes").inner_text().split()
    assert len(fresh) == 10
    assert not set(fresh) & set(codes)


def test_a_second_factor_is_set_up_asked_for_and_removed(lodge: Lodge, windows: Windows) -> None:
    lodge.admit("fay")
    window = windows()
    page = lodge.sign_in(window, "fay", "/account")
    page.get_by_role("button", name="Set up").click()
    secret = page.get_by_test_id("factor-secret").inner_text().replace(" ", "")
    expect(page.get_by_role("img", name="QR code")).to_be_visible()
    window.axe("second factor begun")
    window.picture("second-factor")
    totp = pyotp.TOTP(secret)
    page.get_by_label("Code it shows now").fill("000000" if totp.now() != "000000" else "111111")
    window.expect("422", "422", "422")
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_text("The code is not right.")).to_be_visible()
    expect(page.get_by_role("img", name="QR code")).to_be_visible()
    page.get_by_label("Code it shows now").fill(totp.now())
    page.get_by_role("button", name="Confirm").click()
    codes = page.get_by_test_id("recovery-codes").inner_text().split()
    assert len(codes) == len(set(codes)) == 10
    window.axe("recovery codes")
    window.picture("recovery-codes")
    page.reload()
    expect(page.get_by_text("10 recovery codes are left.")).to_be_visible()
    assert not any(code in page.content() for code in codes)
    page.go_back()
    assert not any(code in page.content() for code in codes)

    door = windows()
    other = door.open(lodge.url("/sign-in"))
    fill(other, **{"E-mail": "fay@example.org", "Password": PASSWORD})
    other.get_by_role("button", name="Sign in", exact=True).click()
    other.get_by_label("Code of your second factor").fill("not a code")
    expect(other.get_by_label("Password")).to_have_value(PASSWORD)
    door.axe("code asked for")
    door.expect("422")
    other.get_by_role("button", name="Sign in", exact=True).click()
    expect(other.get_by_text("The code is not right, or was used already.")).to_be_visible()
    other.get_by_label("Code of your second factor").fill(codes[0])
    other.get_by_role("button", name="Sign in", exact=True).click()
    other.wait_for_url(lodge.url())

    page.goto(lodge.url("/account"))
    replace_codes(page, window, codes)
    page.goto(lodge.url("/account"))
    page.get_by_role("button", name="Remove").click()
    page.get_by_label("Your password").fill("wrong horse battery staple")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("The password is not right.")).to_be_visible()
    window.axe("second factor to be removed")
    page.get_by_label("Your password").fill(PASSWORD)
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("Your second factor is removed.")).to_be_visible()
    expect(page.get_by_role("button", name="Set up")).to_be_visible()


def test_a_forgotten_password_is_replaced_by_mail(lodge: Lodge, window: Window, post: Smtp) -> None:
    lodge.admit("gus")
    page = window.open(lodge.url("/sign-in"))
    page.get_by_role("link", name="Forgotten your password?").click()
    expect(page.get_by_role("button", name="Mail me a link")).to_be_visible()
    window.axe("forgotten")
    page.get_by_label("E-mail").fill("nobody@example.org")
    page.get_by_role("button", name="Mail me a link").click()
    expect(page.get_by_role("link", name="To the sign-in")).to_be_visible()
    unknown = page.get_by_role("main").inner_text()
    page.goto(lodge.url("/forgotten"))
    page.get_by_label("E-mail").fill("GUS@example.org")
    page.get_by_role("button", name="Mail me a link").click()
    expect(page.get_by_text("If somebody has this address here")).to_be_visible()
    expect(page.get_by_role("link", name="To the sign-in")).to_be_visible()
    assert page.get_by_role("main").inner_text() == unknown
    mail = post.wait_for(1)
    assert mail.to == ("gus@example.org",)
    link = re.search(r"http://\S+/reset-password#\S+", mail.text)
    assert link is not None
    assert link.group().startswith(lodge.gateway.origin)
    token = lodge.gateway.canaries.watch(link.group().partition("#")[2])

    page.goto(link.group())
    expect(page.get_by_label("New password", exact=True)).to_be_visible()
    assert page.url == lodge.url("/reset-password")
    page.reload()
    expect(page.get_by_label("New password", exact=True)).to_be_visible()
    window.axe("reset")
    window.picture("reset-password")
    page.get_by_label("New password", exact=True).fill("short")
    page.get_by_label("New password, once more").fill("short")
    window.expect("422")
    page.get_by_role("button", name="Set password").click()
    expect(page.get_by_text("A password has 12 to 200 characters")).to_be_visible()
    page.get_by_label("New password", exact=True).fill(OTHER)
    page.get_by_label("New password, once more").fill(OTHER)
    page.get_by_role("button", name="Set password").click()
    expect(page.get_by_text("Your password is set.")).to_be_visible()
    fill(page, **{"E-mail": "gus@example.org", "Password": OTHER})
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.wait_for_url(lodge.url())

    guest = lodge.client()
    assert "does not work any more" in guest.post("/reset-password/look", token=token).text
    assert guest.post("/reset-password", token=token, password=PASSWORD, again=PASSWORD).status_code == 404
    assert token not in lodge.gateway.log.read_text()
    page.goto(lodge.url("/reset-password#nonsense"))
    expect(page.get_by_text("This link does not work any more")).to_be_visible()
    page.get_by_role("link", name="Ask for another").click()


def test_the_operators_link_leads_to_the_same_page(lodge: Lodge, window: Window) -> None:
    lodge.admit("hal")
    link = lodge.gateway.json("users", "reset-link", "hal@example.org")["url"]
    page = window.open(lodge.gateway.origin + link[link.index("/dashboard") :])
    page.get_by_label("New password", exact=True).fill(OTHER)
    page.get_by_label("New password, once more").fill(OTHER)
    page.get_by_role("button", name="Set password").click()
    page.wait_for_url(lodge.url("/sign-in"))


def test_a_second_link_in_the_same_tab_is_the_one_that_counts(lodge: Lodge, window: Window) -> None:
    """And where "Skip to content" leads is no link."""
    page = window.open(lodge.url("/reset-password#nonsense"))
    expect(page.get_by_text("This link does not work any more")).to_be_visible()
    for name in ("ina", "jon"):
        lodge.admit(name)
        link = lodge.gateway.json("users", "reset-link", f"{name}@example.org")["url"]
        token = lodge.gateway.canaries.watch(link.partition("#")[2])
        page.goto(lodge.url(f"/reset-password#{token}"))
        expect(page.locator("[name=token]")).to_have_value(token)
        expect(page.get_by_label("New password", exact=True)).to_be_visible()
        assert page.url == lodge.url("/reset-password")
    page.get_by_role("link", name="Skip to content").press("Enter")
    page.wait_for_url("**/reset-password#content")
    page.reload()
    expect(page.locator("[name=token]")).to_have_value(token)
    expect(page.get_by_label("New password", exact=True)).to_be_visible()


def test_without_a_mail_server_the_page_says_whom_to_ask(gateways: GatewayMaker, window: Window) -> None:
    lodge = Lodge(gateways())
    page = window.open(lodge.url("/forgotten"))
    expect(page.get_by_text("ostiary users reset-link")).to_be_visible()
    window.axe("no mail")
    assert lodge.client().post("/forgotten", email="a@example.org").status_code == httpx2.codes.CONFLICT
