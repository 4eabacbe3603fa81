"""Endpoints and aliases in the browser: made, drawn, edited in place, deleted, by whom who may."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from playwright.sync_api import Locator, Page

from tests.acceptance.pages import PASSWORD, Reception
from tests.servers.browser import Window, Windows, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

HOSTILE = "<img src=x onerror=alert(1)>\"'`{{7*7}}</script><script>alert(2)</script>"
PEOPLE = {"alice": "owner", "bob": "member", "olga": "admin"}
_numbers = count(1)


@pytest.fixture(scope="module")
def reception(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Reception]:
    """Alice, Bob and Olga the operator; keys for OpenAI and, in the pool, for Groq; and Dora elsewhere."""
    with making(tmp_path_factory.mktemp("endpoints"), canaries, shell) as maker:
        gateway = maker()
        reception = Reception(gateway)
        home = gateway.json("orgs", "list")[0]["id"]
        elsewhere = gateway.json("orgs", "create", "Elsewhere")["id"]
        for name, role in PEOPLE.items():
            gateway.cli("members", "add", f"{name}@example.org", "--role", role, "--org", home)
        gateway.cli("members", "operator", "olga@example.org")
        gateway.cli("members", "add", "dora@example.org", "--role", "owner", "--org", elsewhere)
        for name in (*PEOPLE, "dora"):
            gateway.cli("users", "set-password", f"{name}@example.org", "--secret-stdin", stdin=PASSWORD)
        for provider, place, how in (("openai", home, ()), ("groq", elsewhere, ("--shared",))):
            gateway.cli(
                *("vault", "add", provider, "--name", f"my {provider}", "--org", place, *how),
                *("--no-test", "--secret-stdin"),
                stdin=canaries.plant(),
            )
        reception.bureau.home, reception.bureau.elsewhere = home, elsewhere
        yield reception


def made(reception: Reception, *more: str, targets: tuple[str, ...] = ("openai/gpt-5-mini",), org: str = "") -> str:
    """A fresh endpoint by the operator's command; its id."""
    words = [word for target in targets for word in ("--target", target)]
    name = f"chat-{next(_numbers)}"
    place = org or reception.bureau.home
    id: str = reception.gateway.json("endpoints", "create", name, *words, *more, "--org", place)["id"]
    return id


def shown(reception: Reception, id: str) -> Any:
    """One as the operator's command shows it."""
    return reception.gateway.json("endpoints", "show", id, "--org", reception.bureau.home)


def fill_target(page: Page, number: int, provider: str, model: str) -> None:
    """One row of the form; rows count from 1."""
    row = page.get_by_role("group", name=f"Target {number}", exact=True)
    row.get_by_label("Provider", exact=True).select_option(provider)
    row.get_by_label("Model").fill(model)


def row(page: Page, number: int, label: str) -> Locator:
    """A field of a row of the form."""
    return page.get_by_role("group", name=f"Target {number}", exact=True).get_by_label(label, exact=True)


# ---- the whole way ----------------------------------------------------------------------------------------------


def test_an_endpoint_is_made_drawn_edited_and_deleted(reception: Reception, window: Window) -> None:
    page = reception.sign_in(window, "alice", "/endpoints")
    expect(page.get_by_role("heading", name="No endpoint yet")).to_be_visible()
    window.axe("endpoints, none")
    page.get_by_role("link", name="Create endpoint").first.click()
    page.get_by_label("Name", exact=True).fill("support chat")
    fill_target(page, 1, "openai", "gpt-5-mini")
    expect(row(page, 1, "Provider key").locator("option")).to_have_text(["Any key of the provider", "my openai"])
    row(page, 1, "Provider key").select_option(label="my openai")
    expect(row(page, 1, "Weight")).to_be_hidden()
    page.get_by_label("Split by weight").check()
    row(page, 1, "Weight").fill("3")
    page.get_by_role("button", name="Add target").click()
    fill_target(page, 2, "groq", "llama-3.3-70b-versatile")
    page.get_by_role("button", name="Add target").click()
    fill_target(page, 3, "openai", "gpt-5-nano")
    row(page, 3, "Tried").select_option("fallback")
    page.get_by_label("Time-out of each attempt").fill("2.5")
    window.axe("endpoints, new")
    window.picture("endpoints-new")
    page.get_by_role("button", name="Create endpoint").click()
    page.wait_for_url("**/endpoints/endp_*")
    expect(page.get_by_text("support chat is made")).to_be_visible()
    picture = page.get_by_role("figure", name="The route of support chat")
    expect(picture.get_by_role("listitem")).to_have_count(3)
    expect(picture.get_by_role("listitem").nth(0)).to_contain_text("75 %")
    expect(picture.get_by_role("listitem").nth(0)).to_contain_text("1 healthy")
    expect(picture.get_by_role("listitem").nth(2)).to_contain_text("fallback")
    expect(picture).to_contain_text("up to 3 attempts, each 2.5 s at most")
    window.axe("endpoint")
    window.picture("endpoint")
    found = shown(reception, "support chat")
    assert [(one["provider"], one["weight"], one["is_fallback"]) for one in found["targets"]] == [
        ("openai", 3, False),
        ("groq", 1, False),
        ("openai", 1, True),
    ]
    assert (found["strategy"], found["timeout_ms"]) == ("split", 2_500)

    page.get_by_role("group", name="Target 2", exact=True).get_by_role("button", name="Move up").click()
    page.get_by_role("group", name="Target 3", exact=True).get_by_role("button", name="Remove this target").click()
    page.get_by_label("First healthy").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved. Every gateway knows")).to_be_visible()
    expect(page.get_by_role("figure").get_by_role("listitem").nth(0)).to_contain_text("llama-3.3-70b-versatile")
    expect(page.get_by_text("Weights count with the strategy 'split' only")).to_be_visible()

    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("button", name="Delete endpoint")).to_be_disabled()
    page.get_by_label("Type support chat to confirm").fill("support chat")
    window.axe("endpoint, delete")
    page.get_by_role("button", name="Delete endpoint").click()
    page.wait_for_url(reception.url("/endpoints"))
    expect(page.get_by_text("support chat is deleted.")).to_be_visible()


def test_what_is_wrong_stands_beside_its_field_and_nothing_typed_is_lost(reception: Reception, window: Window) -> None:
    page = reception.sign_in(window, "alice", "/endpoints/new")
    window.expect("422")
    page.get_by_label("Name", exact=True).fill("openai/mine")
    page.get_by_role("button", name="Add target").click()
    fill_target(page, 1, "openai", "gpt-5-mini")
    row(page, 2, "Model").fill("nothing chosen")
    page.get_by_role("button", name="Create endpoint").click()
    expect(row(page, 2, "Provider")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("Choose a provider.")).to_be_visible()
    window.axe("endpoints, refused")
    fill_target(page, 2, "openai", "gpt-5-mini")
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_text("openai/… always means a model of OpenAI itself")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_text("openai/gpt-5-mini is a target twice.")).to_be_visible()
    page.get_by_role("group", name="Target 2", exact=True).get_by_role("button", name="Remove this target").click()
    page.get_by_label("Retries").fill("many")
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_text("Give a whole number of further attempts; 0 is none.")).to_be_visible()
    page.get_by_label("Retries").fill("10")
    page.get_by_label("Time-out of each attempt").fill("0.05")
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_text("retries must be 0 to 9 further attempts.")).to_be_visible()
    page.get_by_label("Retries").fill("0")
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_text("timeout_ms must be 100 ms to 600 s, or nothing.")).to_be_visible()
    for typed in ("soon", "1e999999999", "0.0001", "-1"):
        page.get_by_label("Time-out of each attempt").fill(typed)
        page.get_by_role("button", name="Create endpoint").click()
        # The attribute is what the server wrote: the form has been shown again.
        expect(page.get_by_label("Time-out of each attempt")).to_have_attribute("value", typed)
        expect(page.get_by_text("Give seconds, such as 30 or 0.5, or nothing.")).to_be_visible()
    page.get_by_label("Time-out of each attempt").fill("")
    page.get_by_label("Name", exact=True).fill("n" * 10_000)
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_label("Name", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Name", exact=True)).to_have_value("n" * 10_000)
    expect(row(page, 1, "Model")).to_have_value("gpt-5-mini")


def test_two_tabs_that_edit_one_endpoint_lose_nothing(reception: Reception, window: Window) -> None:
    id = made(reception)
    page = reception.sign_in(window, "alice", f"/endpoints/{id}")
    other = window.tab()
    other.goto(reception.url(f"/endpoints/{id}"))
    other.get_by_label("Retries").fill("7")
    other.get_by_role("button", name="Save").click()
    expect(other.get_by_text("Saved.")).to_be_visible()
    window.expect("409")
    page.get_by_label("Retries").fill("5")
    page.get_by_label("Time-out of each attempt").fill("12")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Retries: is now 7, you typed 5")).to_be_visible()
    expect(page.get_by_text("Time-out: is now –, you typed 12")).to_be_visible()
    window.axe("endpoint, conflict")
    assert shown(reception, id)["retries"] == 7
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    found = shown(reception, id)
    assert (found["retries"], found["timeout_ms"]) == (5, 12_000)


def test_agent_keys_that_name_it_are_shown_before_it_goes(reception: Reception, window: Window) -> None:
    id = made(reception)
    name = shown(reception, id)["name"]
    home = reception.bureau.home
    reception.gateway.json("keys", "create", "--name", f"namer of {name}", "--models", name, "--org", home)
    page = reception.sign_in(window, "alice", f"/endpoints/{id}")
    expect(page.get_by_role("region", name="Used by")).to_contain_text(f"namer of {name}")
    window.expect("409")
    page.get_by_label("Name", exact=True).fill(f"{name}-new")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Agent keys name this endpoint in their allowed models.")).to_be_visible()
    page.get_by_label("Rename it all the same").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name=f"{name}-new", level=1)).to_be_visible()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name=name, level=1, exact=True)).to_be_visible()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("1 agent key names it in the allowed models")).to_be_visible()
    page.get_by_label(f"Type {name} to confirm").fill(name)
    page.get_by_role("button", name="Delete endpoint").click()
    expect(page.get_by_text(f"{name} is deleted.")).to_be_visible()


def test_the_list_is_searched_filtered_and_paged(reception: Reception, window: Window) -> None:
    id = made(reception, targets=("groq/llama-3.1-8b-instant", "openai/gpt-5-mini", "openai/gpt-5-nano"))
    page = reception.sign_in(window, "alice", "/endpoints")
    page.get_by_label("Search name or model").fill("LLAMA-3.1")
    expect(page.get_by_role("table", name="Endpoints").get_by_role("row")).to_have_count(2)
    expect(page).to_have_url(reception.url("/endpoints?q=LLAMA-3.1&provider=&sort=name"))
    page.reload()
    expect(page.get_by_role("table", name="Endpoints").get_by_role("row")).to_have_count(2)
    window.axe("endpoints")
    page.get_by_label("Search name or model").fill("nothing like it")
    expect(page.get_by_text("No endpoint is like that.")).to_be_visible()
    with reception.bureau.database() as database:  # 52 commands would take long
        for number in range(52):
            row = (f"endp_p{number:02}", reception.bureau.home, f"page {number:02}", "first", 2, 1, 1)
            database.execute(
                "INSERT INTO endpoints (id, organization_id, name, strategy, retries, created_at, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            database.execute(
                "INSERT INTO endpoint_targets (endpoint_id, position, provider, model, weight, is_fallback)"
                " VALUES (?, 0, 'openai', 'gpt-5-nano', 1, 0)",
                (row[0],),
            )
    page.goto(reception.url("/endpoints?q=page+"))
    expect(page.get_by_role("table", name="Endpoints").get_by_role("row")).to_have_count(51)
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_role("table", name="Endpoints").get_by_role("row")).to_have_count(3)
    expect(page.get_by_role("link", name="page 51")).to_be_visible()
    page.get_by_role("link", name="First page").click()
    expect(page.get_by_role("link", name="page 00")).to_be_visible()
    window.picture("endpoints")
    window.narrow()
    page.goto(reception.url("/endpoints"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.picture("endpoints-narrow")
    page.goto(reception.url(f"/endpoints/{id}"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.dark()
    window.picture("endpoint-narrow-dark")


# ---- who may ----------------------------------------------------------------------------------------------------


def test_the_operator_makes_aliases_which_others_only_see(reception: Reception, windows: Windows) -> None:
    olga = windows()
    reception.gateway.cli("aliases", "delete", "ostiary/cheap")  # made with the first key of the pool
    page = reception.sign_in(olga, "olga", "/endpoints")
    page.get_by_role("button", name="Make usual aliases").click()
    expect(page.get_by_text("Made ostiary/cheap.")).to_be_visible()
    page.get_by_role("link", name="Create alias").click()
    page.get_by_label("Name", exact=True).fill("ostiary/quick")
    fill_target(page, 1, "groq", "llama-3.1-8b-instant")
    expect(row(page, 1, "Provider key").locator("option")).to_have_text(["Any key of the provider", "my groq"])
    olga.axe("alias, new")
    page.get_by_role("button", name="Create alias").click()
    expect(page.get_by_role("heading", name="ostiary/quick", level=1)).to_be_visible()
    address = page.url
    olga.axe("alias")
    bob = windows()
    page = reception.sign_in(bob, "bob", "/endpoints")
    expect(page.get_by_role("link", name="Create")).to_have_count(0)
    page.get_by_role("link", name="ostiary/quick").click()
    expect(page).to_have_url(address)
    expect(page.get_by_role("figure", name="The route of ostiary/quick")).to_be_visible()
    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete", exact=True)).to_have_count(0)
    expect(page.get_by_text("my groq")).to_have_count(0)  # somebody else's key goes without its name
    bob.axe("alias, as a member")
    page.goto(reception.url(f"/endpoints/{address.rsplit('/', 1)[1]}"))
    expect(page).to_have_url(address)
    page = olga.page
    page.get_by_label("Retries").fill("1")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_label("Type ostiary/quick to confirm").fill("ostiary/quick")
    page.get_by_role("button", name="Delete alias").click()
    expect(page.get_by_text("ostiary/quick is deleted.")).to_be_visible()


def test_others_reach_nothing_and_hostile_names_are_text(reception: Reception, windows: Windows) -> None:
    id = made(reception)
    foreign = made(reception, targets=("groq/llama-3.1-8b-instant",), org=reception.bureau.elsewhere)
    dora = windows()
    page = reception.sign_in(dora, "dora", "/endpoints")
    dora.expect("404")
    for path in (f"/endpoints/{id}", "/endpoints/aliases/none", "/endpoints/endp_none"):
        page.goto(reception.url(path))
        expect(page.get_by_text("There is nothing here")).to_be_visible()
    bob = windows()
    page = reception.sign_in(bob, "bob", f"/endpoints/{id}")
    bob.expect("403", "404")
    page.goto(reception.url(f"/endpoints/{foreign}"))
    expect(page.get_by_text("There is nothing here")).to_be_visible()
    page.goto(reception.url("/endpoints/new"))
    expect(page.get_by_text("403")).to_be_visible()
    alice = windows()
    page = reception.sign_in(alice, "alice", "/endpoints/new")
    name = HOSTILE.replace("/", "|")
    page.get_by_label("Name", exact=True).fill(name)
    fill_target(page, 1, "openai", HOSTILE)
    page.get_by_role("button", name="Create endpoint").click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    expect(page.get_by_role("figure")).to_contain_text(HOSTILE)
    page.goto(reception.url("/endpoints"))
    expect(page.get_by_role("link", name=name)).to_be_visible()
    alice.axe("endpoints, hostile")
