"""Members on the dashboard: invited by mail or by a copied link, given roles, let go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import LINGER, PASSWORD
from tests.servers.browser import Window, Windows, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.smtp import Smtp

HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}"


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
        yield Lodge(maker(env=mail)).open("alice", "erin", "bob")


def test_somebody_is_invited_by_mail_and_comes_in(lodge: Lodge, windows: Windows, post: Smtp) -> None:
    alice, guest = windows(), windows()
    page = lodge.sign_in(alice, "alice", "/settings/members")
    alice.axe("members")
    page.get_by_role("button", name="Invite").click()
    dialog = page.get_by_role("dialog", name="Invite somebody")
    dialog.get_by_label("E-mail").fill("erin@example.org")
    alice.expect("409")
    dialog.get_by_role("button", name="Invite").click()
    expect(dialog.get_by_text("is a member already")).to_be_visible()
    alice.axe("invitation refused")
    dialog.get_by_label("E-mail").fill("ivy@example.org")
    dialog.get_by_label("Role").select_option("admin")
    before = len(post.mails)
    dialog.get_by_role("button", name="Invite").click()
    expect(dialog.get_by_text("A letter with the link is on its way to ivy@example.org.")).to_be_visible()
    mail = post.wait_for(before + 1)
    assert mail.to == ("ivy@example.org",)
    assert "invites you to default" in str(mail.message["subject"])
    found = re.search(r"http://\S+/invitation#\S+", mail.text)
    assert found is not None
    token = lodge.gateway.canaries.watch(found.group().partition("#")[2])
    page.goto(lodge.url("/settings/members"))
    expect(page.get_by_role("row").filter(has_text="ivy@example.org")).to_contain_text("admin")
    assert token not in page.content()
    alice.picture("members")

    scanner = lodge.client()  # what reads mails before people do consumes nothing
    assert scanner.get("/invitation").status_code == 200
    assert "ivy@example.org" in scanner.post("/invitation/look", token=token).text
    other = guest.open(found.group())
    expect(other.get_by_text("ivy@example.org")).to_be_visible()
    assert other.url == lodge.url("/invitation")
    guest.axe("invitation")
    guest.picture("invitation")
    other.get_by_label("Your name").fill(HOSTILE)
    other.get_by_label("Choose a password").fill("short")
    guest.expect("422")
    other.get_by_role("button", name="Accept").click()
    expect(other.get_by_text("A password has 12 to 200 characters")).to_be_visible()
    expect(other.get_by_label("Your name")).to_have_value(HOSTILE)
    other.get_by_label("Choose a password").fill(PASSWORD)
    other.get_by_role("button", name="Accept").click()
    other.wait_for_url(lodge.url())
    expect(other.get_by_text("Welcome. You are in.")).to_be_visible()
    other.goto(lodge.url("/settings/members"))
    expect(other.get_by_role("cell").get_by_role("link", name=HOSTILE)).to_be_visible()
    assert "does not work any more" in lodge.client().post("/invitation/look", token=token).text


def test_a_copied_link_is_shown_once_and_taken_back(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "erin", "/settings/members")
    page.get_by_role("button", name="Invite").click()
    dialog = page.get_by_role("dialog", name="Invite somebody")
    assert dialog.get_by_label("Role").locator("option").all_inner_texts()[-1].startswith("Admin")
    dialog.get_by_label("E-mail").fill("jon@example.org")
    dialog.get_by_label("Mail them the link").uncheck()
    dialog.get_by_role("button", name="Invite").click()
    link = page.get_by_test_id("invitation-link").inner_text()
    window.axe("invitation link")
    window.picture("invitation-link")
    page.evaluate(LINGER)
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.get_by_text("Copied!")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == link
    page.reload()
    assert link not in page.content()
    row = page.get_by_role("row").filter(has_text="jon@example.org")
    row.get_by_role("button", name="Take back").click()
    expect(page.get_by_text("The invitation is taken back.")).to_be_visible()
    expect(row).to_have_count(0)
    page.goto(link)
    expect(page.get_by_text("This invitation does not work any more")).to_be_visible()


def test_another_role_counts_at_the_next_click(lodge: Lodge, windows: Windows) -> None:
    lodge.admit("kim", "admin")
    alice, kim = windows(), windows()
    theirs = lodge.sign_in(kim, "kim", "/settings")
    page = lodge.sign_in(alice, "alice", "/settings/members")
    page.get_by_role("link", name="kim", exact=True).click()
    alice.axe("member")
    alice.picture("member")
    page.get_by_role("combobox", name="Role").select_option("member")
    page.get_by_role("button", name="Change role").click()
    expect(page.get_by_text("kim is member now, and signed out.")).to_be_visible()
    theirs.get_by_role("link", name="Members").click()
    expect(theirs.get_by_role("heading", name="Sign in")).to_be_visible()
    kim.expect("403")
    theirs.get_by_label("E-mail").fill("kim@example.org")
    theirs.get_by_label("Password").fill(PASSWORD)
    theirs.get_by_role("button", name="Sign in", exact=True).click()
    theirs.wait_for_url(lodge.url("/settings/members"))
    expect(theirs.get_by_role("heading", name="does not allow members.list")).to_be_visible()


def test_all_the_keys_of_a_member_are_theirs_alone(lodge: Lodge, window: Window) -> None:
    lodge.admit("nina")
    for number in range(2):
        lodge.gateway.create_key(f"ninas-{number}", "--owner", "nina@example.org")
    lodge.gateway.create_key("somebody-elses", "--owner", "alice@example.org")
    owner = next(one["id"] for one in lodge.gateway.json("members", "list") if one["email"].startswith("nina@"))
    page = lodge.sign_in(window, "alice", f"/keys?owner={owner}")
    expect(page.get_by_text("ninas-0", exact=True)).to_be_visible()
    expect(page.get_by_text("ninas-1", exact=True)).to_be_visible()
    expect(page.get_by_text("somebody-elses")).to_have_count(0)
    expect(page.get_by_role("combobox", name="Owner")).to_have_value(owner)
    of_others = lodge.client("bob").get(f"/keys?owner={owner}")
    assert "ninas-0" not in of_others.text


def test_the_last_owner_stays_one_and_changing_ones_own_role_renews_the_session(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/settings/members")
    page.get_by_role("cell").get_by_role("link", name="alice", exact=True).click()
    page.get_by_role("combobox", name="Role").select_option("member")
    window.expect("409")
    page.get_by_role("button", name="Change role").click()
    expect(page.get_by_text("This is the last owner.")).to_be_visible()
    window.axe("last owner")
    lodge.admit("lea", "owner")
    lea = lodge.client("lea")
    id_ = re.search(r"/dashboard/settings/members/(usr_\w+)\" title=\"lea\"", lea.get("/settings/members").text)
    assert id_ is not None
    old = dict(lea.http.cookies)["ostiary_session"]
    done = lea.post(f"/settings/members/{id_.group(1)}/role", role="admin", was="owner")
    assert done.status_code == 303
    assert dict(lea.http.cookies)["ostiary_session"] != old
    assert ">admin</dd>" in lea.get("/account").text
    assert (
        lodge.client().http.get(lodge.url("/account"), headers={"cookie": f"ostiary_session={old}"}).status_code == 303
    )


def test_somebody_is_let_go_with_all_that_is_theirs(lodge: Lodge, windows: Windows) -> None:
    lodge.admit("max")
    lodge.gateway.create_key("max's agent", "--owner", "max@example.org")
    alice, theirs = windows(), windows()
    gone = lodge.sign_in(theirs, "max", "/account")
    page = lodge.sign_in(alice, "alice", "/settings/members?q=max")
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("link", name="max", exact=True).click()
    page.get_by_role("button", name="Remove").click()
    dialog = page.get_by_role("dialog", name="Remove max?")
    expect(dialog).to_contain_text("1 key is revoked for good")
    expect(dialog.get_by_role("button", name="Remove")).to_be_disabled()
    alice.axe("member to be removed")
    dialog.get_by_role("textbox").fill("max@example.org")
    dialog.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("max is removed, and their keys are revoked.")).to_be_visible()
    assert lodge.gateway.json("keys", "show", "max's agent")["status"] == "revoked"
    gone.reload()
    expect(gone.get_by_role("heading", name="Sign in")).to_be_visible()


def test_members_are_a_part_of_the_settings_with_their_agents_beneath(lodge: Lodge, windows: Windows) -> None:
    lodge.gateway.create_key("bobs agent", "--owner", "bob@example.org")
    lodge.gateway.create_key("erins agent", "--owner", "erin@example.org")
    alice, bob = windows(), windows()
    page = lodge.sign_in(alice, "alice", "/settings")
    tabs, beneath = (page.get_by_role("navigation", name=name) for name in ("Settings", "Members"))
    tabs.get_by_role("link", name="Members").click()
    page.wait_for_url(lodge.url("/settings/members"))
    expect(tabs.get_by_role("link", name="Members")).to_have_attribute("aria-current", "page")
    expect(beneath.get_by_role("link", name="People")).to_have_attribute("aria-current", "page")
    main = page.get_by_role("navigation", name="Main")
    expect(main.locator("[aria-current=page]")).to_have_text("Settings")
    beneath.get_by_role("link", name="Agents").click()
    page.wait_for_url(lodge.url("/settings/members/agents"))
    expect(tabs.get_by_role("link", name="Members")).to_have_attribute("aria-current", "page")
    expect(beneath.get_by_role("link", name="Agents")).to_have_attribute("aria-current", "page")
    for name in ("bobs agent", "erins agent"):
        expect(page.get_by_role("link", name=name)).to_be_visible()
    alice.axe("agents among the settings")
    page.get_by_role("button", name="Jump to").click()
    page.get_by_role("dialog").get_by_role("link", name="Members").click()
    page.wait_for_url(lodge.url("/settings/members"))
    theirs = lodge.sign_in(bob, "bob", "/settings/members/agents")
    expect(theirs.get_by_role("link", name="bobs agent")).to_be_visible()
    expect(theirs.get_by_text("erins agent")).to_have_count(0)
    expect(theirs.get_by_role("navigation", name="Settings")).to_have_count(0)
    expect(theirs.get_by_role("link", name="People")).to_have_count(0)


def test_addresses_that_members_had_before_lead_to_them(lodge: Lodge) -> None:
    alice = lodge.client("alice")
    for old, new in (
        ("/members?q=max&role=owner", "/settings/members?q=max&role=owner"),
        ("/members/agents?q=x", "/settings/members/agents?q=x"),
        ("/members/usr_1", "/settings/members/usr_1"),
        ("/members/%0d%0ax-evil:%201%3f", "/settings/members/%0D%0Ax-evil%3A%201%3F"),
        ("/members//evil.example", "/settings/members//evil.example"),
    ):
        answer = alice.get(old)
        assert (answer.status_code, answer.headers["location"]) == (308, f"/dashboard{new}"), old
        assert "x-evil" not in answer.headers


def test_members_and_strangers_are_refused(lodge: Lodge) -> None:
    elsewhere = lodge.gateway.json("orgs", "create", "Elsewhere")["id"]
    lodge.admit("dora", "owner", elsewhere)
    alice, bob, dora = lodge.client("alice"), lodge.client("bob"), lodge.client("dora")
    id_ = re.search(r"/dashboard/settings/members/(usr_\w+)\" title=\"bob\"", alice.get("/settings/members").text)
    assert id_ is not None
    assert bob.get("/settings/members").status_code == 403
    assert bob.post("/settings/members/invite", email="x@example.org", role="member").status_code == 403
    assert bob.post(f"/settings/members/{id_.group(1)}/role", role="owner").status_code == 403
    for path in ("", "/role", "/remove", "/sessions/end"):
        method = dora.get if not path else lambda path: dora.post(path, role="owner")
        assert method(f"/settings/members/{id_.group(1)}{path}").status_code == 404, path
    long = alice.post("/settings/members/invite", email="x" * 10_000 + "@example.org", role="member")
    assert long.status_code == 422
    assert "email must be an address" in long.text
