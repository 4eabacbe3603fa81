"""The settings of an organization on the dashboard: rules, limits, budget, notifications, webhooks, credentials."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.acceptance.lodge import Lodge
from tests.servers import receiver as receivers
from tests.servers.browser import Window, Windows, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.receiver import Receiver
from tests.servers.shell import Shell
from tests.servers.smtp import Smtp

HOSTILE = "</script><svg onload=alert(1)>"


@pytest.fixture(scope="module")
def post() -> Iterator[Smtp]:
    with Smtp().running() as server:
        yield server


@pytest.fixture(scope="module")
def hooks() -> Iterator[Receiver]:
    with receivers.running() as server:
        yield server


@pytest.fixture(scope="module")
def lodge(
    tmp_path_factory: pytest.TempPathFactory,
    canaries: Canaries,
    shell: Shell,
    started: Path,
    post: Smtp,
    hooks: Receiver,
) -> Iterator[Lodge]:
    mail = {"OSTIARY_SMTP_URL": post.url, "OSTIARY_MAIL_FROM": "Ostiary <gate@example.org>"}
    with making(tmp_path_factory.mktemp("lodge"), canaries, shell, started) as maker:
        yield Lodge(maker(env=mail, allow=[hooks.origin])).open("alice", "erin", "bob")


def test_rules_limits_and_budget_are_set(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/settings")
    window.axe("settings")
    window.picture("settings")
    page.get_by_label("Longest lifetime").fill("x")
    window.expect("422", "422", "422", "422")
    page.get_by_role("button", name="Save rules").click()
    expect(page.get_by_text("Give a whole number from 1.")).to_be_visible()
    expect(page.get_by_label("Longest lifetime")).to_have_value("x")
    page.get_by_label("Longest lifetime").fill("9000")
    page.get_by_role("button", name="Save rules").click()
    expect(page.get_by_text("must be between 1 hour and 1 year")).to_be_visible()
    window.axe("settings refused")
    page.get_by_label("Longest lifetime").fill("36")
    page.get_by_label("Unit").select_option("hours")
    page.get_by_label("A revoked key").select_option("yes")
    page.get_by_role("button", name="Save rules").click()
    expect(page.get_by_text("Keys saved.")).to_be_visible()
    expect(page.get_by_label("Longest lifetime")).to_have_value("36")
    page.get_by_label("Requests per minute").fill("600")
    page.get_by_role("button", name="Save limits").click()
    expect(page.get_by_text("Limits saved.")).to_be_visible()
    page.get_by_label("Days traces are kept").fill("90")
    page.get_by_label("Days contents are kept").fill("7")
    page.get_by_label("What was asked and answered").select_option("yes")
    page.get_by_role("button", name="Save recording").click()
    expect(page.get_by_text("Recording saved.")).to_be_visible()
    page.get_by_label("Hard limit in USD").fill("a lot")
    page.get_by_role("button", name="Save budget").click()
    expect(page.get_by_text("Give an amount in USD")).to_be_visible()
    page.get_by_label("Hard limit in USD").fill("12.50")
    page.get_by_label("Tell at percents").fill("80, x")
    page.get_by_role("button", name="Save budget").click()
    expect(page.get_by_text("Give whole percents")).to_be_visible()
    page.get_by_label("Tell at percents").fill("80 %, 100 %")
    page.get_by_role("button", name="Save budget").click()
    expect(page.get_by_text("Budget saved.")).to_be_visible()
    expect(page.get_by_text("of $12.50")).to_be_visible()
    found = lodge.gateway.json("orgs", "show", lodge.home)
    assert (found["rpm"], found["trace_days"], found["content_days"]) == (600, 90, 7)
    assert (found["revocation_is_final"], found["capture_is_forbidden"]) == (True, True)


def test_saving_one_part_leaves_what_is_typed_in_the_others(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/settings")
    page.get_by_label("Requests at once").fill("7")
    page.get_by_label("Days traces are kept").fill("45")
    page.get_by_label("Hard limit in USD").fill("31.25")
    page.get_by_role("button", name="Save budget").click()
    expect(page.get_by_text("Budget saved.")).to_be_visible()
    expect(page.get_by_text("of $31.25")).to_have_count(1)
    page.get_by_role("button", name="Save recording").click()
    expect(page.get_by_text("Recording saved.")).to_be_visible()
    page.get_by_label("Days traces are kept").fill("50")
    page.get_by_role("button", name="Save recording").click()  # once more: nobody else has changed it
    expect(page.locator("#part-recording [name='was.trace_days']")).to_have_value("50")
    expect(page.get_by_label("Requests at once")).to_have_value("7")
    found = lodge.gateway.json("orgs", "show", lodge.home)
    assert (found["trace_days"], found["parallel"]) == (50, None)
    page.get_by_role("button", name="Save limits").click()
    expect(page.get_by_text("Limits saved.")).to_be_visible()
    assert lodge.gateway.json("orgs", "show", lodge.home)["parallel"] == 7


def test_a_page_of_a_key_says_what_is_forbidden_to_keep(lodge: Lodge, window: Window) -> None:
    lodge.gateway.cli("orgs", "edit", "--let-capture", "--max-lifetime", "none")
    lodge.gateway.create_key("kept", "--capture")
    id_ = lodge.gateway.json("keys", "show", "kept")["id"]
    page = lodge.sign_in(window, "alice", f"/keys/{id_}")
    expect(page.get_by_text("Prompts and answers of its calls are kept, redacted.")).to_be_visible()
    lodge.gateway.cli("orgs", "edit", "--forbid-capture")
    page.reload()
    expect(page.get_by_text("its organization forbids it: nothing is kept.")).to_be_visible()
    page.goto(lodge.url("/keys/new"))
    page.get_by_label("Key Name").fill("another")
    page.get_by_role("tab", name="Advanced").click()
    expect(page.get_by_text("The organization forbids content capture")).to_be_visible()
    expect(page.get_by_label("content capture")).to_be_disabled()
    window.axe("capture is forbidden")
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_role("button", name="Create Key")).to_be_hidden()
    assert lodge.gateway.json("keys", "show", "another")["status"] == "active"
    page.goto(lodge.url(f"/keys/{id_}/edit"))
    page.get_by_role("tab", name="Advanced").click()
    tick = page.get_by_label("content capture")
    expect(tick).to_be_checked()
    expect(page.get_by_text("nothing is kept, though this key is set to.")).to_be_visible()
    tick.uncheck()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("The key is saved.")).to_be_visible()
    page.goto(lodge.url(f"/keys/{id_}/edit"))
    page.get_by_role("tab", name="Advanced").click()
    expect(page.get_by_label("content capture")).to_be_disabled()
    lodge.gateway.cli("orgs", "edit", "--let-capture")


def test_a_form_that_was_open_when_it_was_forbidden_says_so_and_saves_without(lodge: Lodge, window: Window) -> None:
    lodge.gateway.cli("orgs", "edit", "--let-capture")
    page = lodge.sign_in(window, "alice", "/keys/new")
    page.get_by_label("Key Name").fill("late")
    page.get_by_role("tab", name="Advanced").click()
    page.get_by_label("content capture").check()
    lodge.gateway.cli("orgs", "edit", "--forbid-capture")
    window.expect("422")
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("This organization forbids that prompts and answers are kept.")).to_be_visible()
    tick = page.get_by_label("content capture")
    expect(tick).to_be_disabled()
    expect(tick).not_to_be_checked()
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_role("button", name="Create Key")).to_be_hidden()
    assert lodge.gateway.json("keys", "show", "late")["status"] == "active"
    lodge.gateway.cli("orgs", "edit", "--let-capture")


def test_two_who_edit_at_once_lose_nothing(lodge: Lodge, windows: Windows) -> None:
    alice, erin = windows(), windows()
    page, other = lodge.sign_in(alice, "alice", "/settings"), lodge.sign_in(erin, "erin", "/settings")
    page.get_by_label("Requests per day").fill("1000")
    page.get_by_role("button", name="Save limits").click()
    expect(page.get_by_text("Limits saved.")).to_be_visible()
    other.get_by_label("Requests per day").fill("2000")
    erin.expect("409")
    other.get_by_role("button", name="Save limits").click()
    expect(other.get_by_role("alert")).to_contain_text("meanwhile changed from none to 1000; you have 2000")
    expect(other.get_by_label("Requests per day")).to_have_value("2000")
    erin.axe("conflict")
    erin.picture("conflict")
    assert lodge.gateway.json("orgs", "show", lodge.home)["rpd"] == 1000
    other.get_by_role("button", name="Save limits").click()
    expect(other.get_by_text("Limits saved.")).to_be_visible()
    assert lodge.gateway.json("orgs", "show", lodge.home)["rpd"] == 2000


def test_admins_leave_the_budget_alone_and_members_see_nothing(lodge: Lodge) -> None:
    erin, bob = lodge.client("erin"), lodge.client("bob")
    assert "Owners can change it." in erin.get("/settings").text
    shown = dict(re.findall(r'name="(was\.budget_\w+)" value="([^"]*)"', lodge.client("alice").get("/settings").text))
    assert erin.post("/settings/budget", budget_cap="1", **shown).status_code == 403
    for path in ("", "/notifications", "/webhooks", "/credentials", "/gateways", "/members"):
        assert bob.get(f"/settings{path}").status_code == 403, path
    assert bob.post("/settings/organization", name="Bob's").status_code == 403
    assert erin.post("/settings/nothing", name="x").status_code == 404
    long = erin.post("/settings/organization", name="x" * 10_000, **{"was.name": "default"})
    assert long.status_code == 422
    assert "must be 1 to 200 visible characters" in long.text


def test_who_runs_an_organization_sees_which_gateways_serve_it(lodge: Lodge, windows: Windows) -> None:
    [known] = lodge.gateway.json("gateways", "list")
    for name in ("alice", "erin"):
        window = windows()
        page = lodge.sign_in(window, name, "/settings/webhooks")
        page.get_by_role("navigation", name="Settings").get_by_role("link", name="Gateways").click()
        row = page.get_by_role("row").filter(has_text=known["name"])
        expect(row).to_contain_text(known["version"])
        expect(row).to_contain_text("live")
        expect(row).to_contain_text("up to date", timeout=30_000)
        window.axe("gateways of the settings")
        window.picture("settings-gateways")
        shown = page.content()
        hidden = {known["id"], str(lodge.gateway.data_dir), "Retire", "leased", "operator/gateways"}
        assert not [one for one in hidden if one in shown]
        assert lodge.client(name).get("/operator/gateways").status_code == 403
    assert lodge.client("bob").get("/settings/gateways").status_code == 403


def test_a_test_is_sent_and_its_way_is_shown(lodge: Lodge, window: Window, post: Smtp) -> None:
    page = lodge.sign_in(window, "alice", "/settings/notifications")
    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_text("A test is on its way.")).to_be_visible()
    post.wait_for(1)
    expect(page.get_by_text("delivered").first).to_be_visible()
    window.axe("notifications")
    window.picture("notifications")


def replace_secret(page: Page, window: Window) -> None:
    """A new secret of the webhook named billing, which is asked for twice: the first time it was a mistake."""
    page.get_by_role("button", name="New secret", exact=True).click()
    asked = page.get_by_role("dialog", name="Replace the secret of billing?")
    window.axe("asked before the secret is replaced")
    asked.get_by_role("button", name="Cancel").click()
    expect(asked).to_be_hidden()
    expect(page.get_by_test_id("secret")).to_have_count(0)
    page.get_by_role("button", name="New secret", exact=True).click()
    asked.get_by_role("button", name="Make a new secret").click()
    expect(asked).to_be_hidden()


def test_a_webhook_from_its_secret_to_its_end(lodge: Lodge, window: Window, hooks: Receiver) -> None:
    page = lodge.sign_in(window, "alice", "/settings/webhooks")
    window.axe("no webhooks")
    page.get_by_role("button", name="Add webhook").click()
    dialog = page.get_by_role("dialog", name="Add webhook")
    dialog.get_by_label("Name").fill(HOSTILE)
    dialog.get_by_label("URL").fill("http://169.254.169.254/latest")
    window.expect("422", "422")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_text("This URL cannot be used")).to_be_visible()
    expect(dialog.get_by_label("Name")).to_have_value(HOSTILE)
    dialog.get_by_label("URL").fill(hooks.url)
    dialog.get_by_label("Some kinds only").check()
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_text("kinds are 'all' alone")).to_be_visible()
    window.axe("webhook refused")
    dialog.get_by_label("budget.exceeded").check()
    dialog.get_by_role("button", name="Add", exact=True).click()
    hooks.secret = lodge.gateway.canaries.watch(page.get_by_test_id("secret").inner_text())
    window.axe("webhook secret")
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_test_id("secret")).to_have_count(0)
    assert hooks.secret not in page.content()
    page.go_back()
    assert hooks.secret not in page.content()
    page.goto(lodge.url("/settings/webhooks"))
    page.get_by_role("row").filter(has_text="active").get_by_role("button", name="Test").click()
    hooks.wait_for(1)
    page.wait_for_url(lodge.url("/settings/notifications"))
    page.goto(lodge.url("/settings/webhooks"))
    page.get_by_role("cell").get_by_role("link", name=HOSTILE).click()
    window.axe("webhook")
    window.picture("webhook")
    page.get_by_label("Name").fill("billing")
    page.get_by_label("State").select_option("no")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("billing saved.")).to_be_visible()
    page.get_by_role("link", name="billing").click()
    replace_secret(page, window)
    fresh = lodge.gateway.canaries.watch(page.get_by_test_id("secret").inner_text())
    assert fresh != hooks.secret
    page.goto(lodge.url("/settings/webhooks"))
    page.get_by_role("link", name="billing").click()
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog", name="Delete billing?")
    dialog.get_by_role("textbox").fill("billing")
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("billing is deleted.")).to_be_visible()


def test_a_webhook_that_was_changed_meanwhile_is_not_overwritten(lodge: Lodge, hooks: Receiver) -> None:
    made = lodge.gateway.json("webhooks", "create", "twice", "--url", hooks.url)
    alice = lodge.client("alice")
    page = f"/settings/webhooks/{made['id']}"
    seen = re.search(r'name="updated_at" value="(\d+)"', alice.get(page).text)
    assert seen is not None
    typed = {"url": hooks.url, "which": "all", "is_active": "yes", "updated_at": seen.group(1)}
    assert alice.post(page, name="first", **typed).status_code == 303
    late = alice.post(page, name="second", **typed)
    assert late.status_code == 409
    assert "Somebody else has changed this" in late.text
    assert 'value="second"' in late.text


def test_a_client_credential_is_shown_once_and_revoked(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "erin", "/settings/credentials")
    page.get_by_role("button", name="New credential").click()
    dialog = page.get_by_role("dialog", name="New client credential")
    dialog.get_by_label("Name").fill("server-1")
    dialog.get_by_role("button", name="Create").click()
    secret = lodge.gateway.canaries.watch(page.get_by_test_id("secret").inner_text())
    assert secret.count(":") == 2
    window.axe("client credential")
    client = lodge.gateway.client(secret)
    assert client.get("/v1/key").status_code == 200
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("row").filter(has_text="server-1")).to_contain_text("active")
    assert secret not in page.content()
    window.picture("credentials")
    page.get_by_role("button", name="Revoke").click()
    dialog = page.get_by_role("dialog", name="Revoke server-1?")
    dialog.get_by_role("textbox").fill("server-1")
    dialog.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("server-1 is revoked.")).to_be_visible()
    assert client.get("/v1/key").status_code == 401


def test_another_organizations_things_are_not_there(lodge: Lodge, hooks: Receiver) -> None:
    made = lodge.gateway.json("webhooks", "create", "ours", "--url", hooks.url)
    elsewhere = lodge.gateway.json("orgs", "create", "Elsewhere")["id"]
    lodge.admit("dora", "owner", elsewhere)
    dora = lodge.client("dora")
    assert dora.get(f"/settings/webhooks/{made['id']}").status_code == 404
    for deed in ("test", "secret", "delete"):
        assert dora.post(f"/settings/webhooks/{made['id']}/{deed}").status_code == 404, deed
    assert dora.post("/settings/credentials/cred_nothing/revoke").status_code == 404
    shown = dora.get("/settings/gateways").text
    [known] = lodge.gateway.json("gateways", "list")
    assert f'title="{known["name"]}"' in shown, "gateways serve everybody"
    assert not [one for one in (known["id"], lodge.home, "Retire", str(lodge.gateway.data_dir)) if one in shown]
