"""The vault in the browser: picking a provider, a key tested and saved, edited in place, shared, healed and deleted."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.acceptance.bureau import ROLES
from tests.acceptance.pages import HOLD_ALL, PASSWORD, Reception
from tests.servers import behaviours
from tests.servers import gateway as gateways
from tests.servers.browser import Window, Windows, expect
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream

HOSTILE = "<img src=x onerror=alert(1)>\"'`{{7*7}}</script><script>alert(2)</script>"


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway with Alice (owner), Bob (member) and Dora (owner of another organization)."""

    reception: Reception
    upstream: Upstream
    good: str
    """The one secret that the provider takes."""

    def add(self, name: str, *options: str) -> str:
        """A key that is there already; its id."""
        gateway = self.reception.gateway
        words = ("vault", "add", "openai-compatible", "--name", name, "--base-url", self.upstream.url, "--no-test")
        found: str = gateway.json(*words, "--secret-stdin", *options, "--org", self.home, stdin=self.good)["id"]
        return found

    def names(self) -> set[str]:
        """What the keys in the vault are called."""
        return {one["name"] for one in self.reception.gateway.json("vault", "list", "--org", self.home)}

    def fresh(self) -> str:
        """Another secret that the provider takes, and nobody has added yet."""
        made = self.reception.gateway.canaries.plant()
        assert self.upstream.keys is not None
        self.upstream.keys.add(made)
        return made

    @property
    def home(self) -> str:
        """Alice's organization."""
        return self.reception.bureau.home

    def vault(self, window: Window, path: str = "", who: str = "alice") -> Page:
        """Sign in and go to the vault."""
        return self.reception.sign_in(window, who, f"/vault{path}")


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    canaries: Canaries,
    shell: Shell,
    started: Path,
    shared_upstream: Upstream,
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("vault")
    good = canaries.plant()
    shared_upstream.keys = {good}
    with gateways.making(folder, canaries, shell, started) as maker:
        gateway = maker(allow=[shared_upstream.origin])
        reception = Reception(gateway)
        reception.bureau.home = gateway.json("orgs", "list")[0]["id"]
        elsewhere = gateway.json("orgs", "create", "Elsewhere")["id"]
        for name, role, org in (
            ("alice", ROLES["alice"], reception.bureau.home),
            ("bob", ROLES["bob"], reception.bureau.home),
            ("dora", "owner", elsewhere),
        ):
            gateway.cli("members", "add", f"{name}@example.org", "--role", role, "--org", org)
            gateway.cli("users", "set-password", f"{name}@example.org", "--secret-stdin", stdin=PASSWORD)
        yield Place(reception, shared_upstream, good)


def test_an_empty_vault_leads_to_the_catalogue_of_providers(place: Place, window: Window) -> None:
    page = place.vault(window)
    expect(page.get_by_role("heading", name="The vault is empty")).to_be_visible()
    window.axe("empty vault")
    window.picture("vault-empty")
    page.get_by_role("link", name="Pick a provider").click()
    page.wait_for_url(place.reception.url("/vault/providers"))
    window.axe("catalogue")
    window.picture("vault-catalogue")
    page.get_by_label("Free only").check()
    expect(page.locator("[data-provider=openai]")).to_have_count(0)
    expect(page.locator("[data-provider=groq]")).to_be_visible()
    page.get_by_label("Free only").uncheck()
    expect(page.locator("[data-provider=deepgram]")).to_contain_text("Cannot be called yet: it speaks a dialect")
    expect(page.locator("[data-provider=deepgram]").get_by_role("link", name="Add key")).to_have_count(0)
    page.get_by_label("Search providers").fill("compatible")
    expect(page.locator("[data-provider]")).to_have_count(1)
    page.wait_for_url("**/vault/providers?q=compatible&category=")
    page.get_by_label("Search providers").fill("openai")
    expect(page.locator("[data-provider]")).to_have_count(3)
    expect(page.locator("[data-provider=openai]").get_by_role("link", name="Sign up")).to_have_attribute(
        "href", "https://platform.openai.com/api-keys"
    )
    window.narrow()
    page.reload()
    window.picture("vault-catalogue-narrow")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    ("label", "value", "among", "not_among"),
    [
        ("Popular", "popular", "openai", "ollama"),
        ("LLM", "llm", "groq", "recraft"),
        ("Enterprise", "enterprise", "azure-openai", "openai"),
        ("Media", "media", "elevenlabs", "anthropic"),
        ("Local", "local", "ollama", "openai"),
    ],
)
def test_the_catalogue_is_narrowed_to_a_category(
    place: Place, window: Window, label: str, value: str, among: str, not_among: str
) -> None:
    page = place.vault(window, "/providers")
    expect(page.locator("[data-provider=openai]")).to_be_visible()
    page.get_by_label("Category").select_option(label)
    page.wait_for_url(f"**/vault/providers?*category={value}*")
    expect(page.locator(f"[data-provider={not_among}]")).to_have_count(0)
    expect(page.locator(f"[data-provider={among}]")).to_be_visible()
    cards = page.locator("[data-provider]")
    expect(cards.filter(has=page.locator("p", has_text=label))).to_have_count(cards.count())
    page.reload()
    expect(page.get_by_label("Category")).to_have_value(value)
    expect(page.locator(f"[data-provider={not_among}]")).to_have_count(0)


def test_a_form_asks_for_what_its_provider_and_its_way_to_sign_in_need(
    place: Place, window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.upstream, "keys", None)  # it knows bearers only, and these come in other headers
    page = place.vault(window, "/new?provider=azure-openai")
    methods = page.get_by_label("Sign-in method").locator("option")
    expect(methods).to_have_count(2)
    expect(methods.last).to_contain_text("Entra ID application (not yet")
    expect(methods.last).to_be_disabled()
    expect(page.get_by_label("Tenant")).to_be_hidden()
    window.axe("a key for Azure")
    window.picture("vault-new-azure")
    page.get_by_label("Name", exact=True).fill("clouded")
    secret = place.reception.gateway.canaries.plant()
    page.get_by_label("API key", exact=True).fill(secret)
    window.expect("422")
    page.get_by_role("button", name="Test and save").click()
    resource = page.get_by_label("Resource, the first word of its endpoint")
    expect(resource).to_have_attribute("aria-invalid", "true")
    resource.fill("ours")
    page.get_by_label("Base URL").fill(place.upstream.url)
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_role("heading", name="clouded", exact=True)).to_be_visible()
    assert place.upstream.received[-1].header("api-key") == secret
    expect(page.locator("dl.facts").last).to_contain_text("ours")

    page.goto(place.reception.url("/vault/new?provider=openai-compatible"))
    page.get_by_label("Name", exact=True).fill("by another header")
    page.get_by_label("Base URL").fill(place.upstream.url)
    page.get_by_label("Sign-in method").select_option("Key in x-api-key")
    secret = place.reception.gateway.canaries.plant()
    page.locator("input[name=secret]").fill(secret)
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_role("heading", name="by another header", exact=True)).to_be_visible()
    assert place.upstream.received[-1].header("x-api-key") == secret
    expect(page.locator("dl.facts").last).to_contain_text("Key in x-api-key")
    for name in ("clouded", "by another header"):
        place.reception.gateway.cli("vault", "delete", name, "--force", "--org", place.home)


def test_a_key_is_tested_before_it_is_saved(place: Place, window: Window) -> None:
    before = place.names()
    page = place.vault(window, "/providers?q=openai")
    page.get_by_role("link", name="Add key for OpenAI", exact=True).click()
    window.axe("a new key")
    window.picture("vault-new")

    secret = page.get_by_label("API key", exact=True)
    expect(secret).to_have_attribute("type", "password")
    secret.fill("not-the-key-at-all")
    page.get_by_role("button", name="Show the secret").click()
    expect(secret).to_have_attribute("type", "text")
    window.expect("422")
    page.get_by_label("Base URL").fill("http://10.0.0.1/v1")
    page.get_by_role("button", name="Test connection").click()
    expect(page.get_by_text("Nothing was tested: look at Base URL")).to_be_visible()
    page.get_by_label("Base URL").fill(place.upstream.url)
    page.evaluate(HOLD_ALL)
    asking = page.get_by_role("status").filter(has_text="Asking ")
    expect(asking).to_be_hidden()
    page.get_by_role("button", name="Test connection").click()
    expect(asking).to_be_visible()
    page.evaluate("letGo()")
    expect(page.locator("#tested")).to_contain_text("The provider does not accept this key")
    expect(asking).to_be_hidden()
    window.axe("a test that failed")
    window.picture("vault-tested")
    secret.fill(place.good)
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("#tested")).to_contain_text("The connection works")
    assert place.names() == before

    page.get_by_label("Name", exact=True).fill("x" * 10_000)
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_text("name must be 1 to 200 visible characters.")).to_be_visible()
    expect(secret).to_have_value(place.good)  # what was typed is not lost
    page.get_by_label("Name", exact=True).fill("first")
    page.get_by_role("button", name="Limits and spend cap").click()
    page.get_by_label("Block at").fill("25.50")
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_role("heading", name="first", exact=True)).to_be_visible()
    expect(page.get_by_text("first is in the vault.")).to_be_visible()
    window.axe("a key")
    window.picture("vault-key")
    assert place.good not in page.content()
    assert place.names() == before | {"first"}
    saved = place.reception.gateway.json("vault", "show", "first", "--org", place.home)
    assert (saved["shared"], saved["spend_cap_usd"]) == (False, 25.5)
    page.goto(place.reception.url("/vault"))
    window.axe("the vault")
    window.picture("vault-list")
    window.dark()
    window.picture("vault-list-dark")


def test_what_a_provider_says_of_a_key_is_text(place: Place, window: Window) -> None:
    id_ = place.add("slandered")
    usual = place.upstream.choose
    place.upstream.choose = lambda _request: behaviours.refuse(401, HOSTILE, "invalid_api_key")
    try:
        page = place.vault(window, f"/{id_}")
        page.get_by_role("button", name="Test", exact=True).click()
        expect(page.locator("#tested")).to_contain_text("<img src=x onerror=alert(1)>")
        assert page.locator("#tested").locator("img, script").count() == 0
        page.goto(place.reception.url("/vault/new?provider=openai"))
        page.get_by_label("API key", exact=True).fill(place.fresh())
        page.get_by_label("Base URL").fill(place.upstream.url)
        page.get_by_role("button", name="Test connection").click()
        expect(page.locator("#tested")).to_contain_text("<img src=x onerror=alert(1)>")
        assert page.locator("#tested").locator("img, script").count() == 0
    finally:
        place.upstream.choose = usual
        place.reception.gateway.cli("vault", "delete", id_, "--force", "--org", place.home)


def test_a_form_says_how_keys_look_and_takes_one_that_looks_otherwise(place: Place, window: Window) -> None:
    remark = "It does not look like a key of Groq: they usually begin with 'gsk_'."
    page = place.vault(window, "/providers?q=groq")
    expect(page.locator("[data-provider=groq]")).to_contain_text("Keys of Groq usually begin with 'gsk_'.")
    page.get_by_role("link", name="Add key for Groq", exact=True).click()
    secret = page.get_by_label("API key", exact=True)
    expect(secret).to_have_accessible_description("Keys of Groq usually begin with 'gsk_'.")
    window.axe("a key with a hint")
    window.picture("vault-key-hint")
    page.get_by_label("Name", exact=True).fill("looks-otherwise")
    page.get_by_label("Base URL").fill(place.upstream.url)
    secret.fill("not-like-it-at-all")
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("#tested")).to_contain_text(remark)
    window.expect("422")
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_label("Save it anyway, without a test")).to_be_visible()  # the form is there anew
    expect(page.locator("#tested [data-outcome=invalid_key]")).to_contain_text(remark)
    secret.fill(place.fresh())
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("#tested")).to_contain_text("The connection works")
    expect(page.locator("#tested")).not_to_contain_text("does not look like")
    secret.fill("not-like-it-at-all")
    page.get_by_label("Save it anyway, without a test").check()
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_text(f"looks-otherwise is in the vault. It was not tested. {remark}")).to_be_visible()
    page.get_by_role("link", name="Edit").click()
    expect(page.get_by_label("New secret")).to_have_accessible_description(
        re.compile(r"Leave this empty to keep it\. Keys of Groq usually begin with 'gsk_'\.")
    )


def test_a_key_is_edited_in_place_with_a_new_secret_and_stays_what_it_is(place: Place, window: Window) -> None:
    id_ = place.add("edited", "--rpm", "60")
    page = place.vault(window, f"/{id_}")
    page.get_by_role("link", name="Edit", exact=True).click()
    expect(page.get_by_label("Requests per minute")).to_have_value("60")
    expect(page.get_by_label("New secret")).to_have_value("")
    window.axe("editing")
    window.picture("vault-edit")
    page.get_by_label("Name", exact=True).fill("renamed")
    page.get_by_label("Requests per minute").fill("sixty")
    window.expect("422", "422")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Give a whole number.")).to_be_visible()
    page.get_by_label("Requests per minute").fill("120")
    page.get_by_label("New secret").fill("another-wrong-one")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#tested")).to_contain_text("The provider does not accept this key")
    expect(page.get_by_label("New secret")).to_have_value("another-wrong-one")
    page.get_by_label("Save it anyway, without a test").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="renamed", exact=True)).to_be_visible()
    shown = place.reception.gateway.json("vault", "show", "renamed", "--org", place.home)
    assert (shown["id"], shown["rpm"], shown["preview"]) == (id_, 120, "anot…one")
    page.get_by_role("button", name="Test", exact=True).click()
    expect(page.locator("#tested")).to_contain_text("The provider does not accept this key")
    window.axe("tested")


def test_two_tabs_that_edit_one_key_lose_nothing(place: Place, window: Window) -> None:
    id_ = place.add("fought-over")
    page = place.vault(window, f"/{id_}/edit")
    other = window.tab()
    other.goto(place.reception.url(f"/vault/{id_}/edit"))
    other.get_by_label("Name", exact=True).fill("theirs")
    other.get_by_role("button", name="Save").click()
    expect(other.get_by_role("heading", name="theirs", exact=True)).to_be_visible()
    page.get_by_label("Name", exact=True).fill("mine")
    window.expect("409")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Somebody has changed this key while you were editing.")).to_be_visible()
    expect(page.get_by_role("row", name="Name fought-over theirs mine")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value("mine")
    window.axe("a conflict")
    window.picture("vault-conflict")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="mine", exact=True)).to_be_visible()


def test_a_key_is_shared_taken_back_healed_and_deleted_with_what_leans_on_it(place: Place, window: Window) -> None:
    id_ = place.add("leaned-on")
    gateway = place.reception.gateway
    gateway.cli("endpoints", "create", "leaning", "--target", "openai-compatible@leaned-on/ok", "--org", place.home)
    with place.reception.bureau.database() as database:
        database.execute(
            "INSERT INTO provider_key_health (provider_key_id, model, state, failures, reason, since, until)"
            " VALUES (?, 'ok', 'cooling', 2, ?, 1, 9999999999999)",
            (id_, HOSTILE),
        )
        database.execute(
            "INSERT INTO provider_key_quotas VALUES (?, ?, 'tokens-day', 1200, 50000, 9999999999999, ?, 'east')",
            (id_, HOSTILE, round(time.time() * 1_000)),
        )
    page = place.vault(window, f"/{id_}")
    expect(page.get_by_role("cell", name=HOSTILE)).to_be_visible()
    quota = page.get_by_role("table", name="Quota left, as the provider said last")
    expect(quota.get_by_role("rowheader")).to_have_text(HOSTILE)
    expect(quota.get_by_role("cell").first).to_have_text("1,200 of 50,000 tokens a day")
    expect(quota.get_by_role("cell").last).to_contain_text("by east")
    expect(page.get_by_role("link", name="leaning")).to_be_visible()
    window.axe("an ailing key")
    window.picture("vault-ailing")
    window.dark()
    window.picture("vault-ailing-dark")
    window.light()
    window.narrow()
    page.reload()
    window.picture("vault-ailing-narrow")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    window.wide()
    page.get_by_role("button", name="Reset health").click()
    expect(page.get_by_text("Nothing is held against it.")).to_be_visible()
    page.get_by_role("button", name="Share", exact=True).click()
    window.axe("sharing")
    window.expect("422")
    page.get_by_role("dialog").get_by_role("button", name="Share").click()
    expect(page.get_by_text("own address. Keep this one private.")).to_be_visible()
    page.reload()
    page.get_by_role("button", name="Delete this key").click()
    dialog = page.get_by_role("dialog", name="Delete this provider key?")
    expect(dialog.get_by_text("endpoint leaning")).to_be_visible()
    window.axe("deleting")
    window.picture("vault-delete")
    expect(dialog.get_by_role("button", name="Delete")).to_be_disabled()
    dialog.get_by_label("to confirm").fill("leaned-on")
    dialog.get_by_label("Delete it all the same").check()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The provider key leaned-on is deleted.")).to_be_visible()
    assert "leaned-on" not in place.names()


def test_to_share_takes_a_recent_sign_in(place: Place, window: Window) -> None:
    gateway = place.reception.gateway
    words = ("vault", "add", "groq", "--name", "to-share", "--no-test", "--secret-stdin", "--org", place.home)
    id_ = gateway.json(*words, stdin=place.good)["id"]
    page = place.vault(window, f"/{id_}")
    with place.reception.bureau.database() as database:
        database.execute("UPDATE sessions SET proved_at = proved_at - 3600000")
    window.expect("401")
    page.get_by_role("button", name="Share", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Share").click()
    again = page.get_by_role("dialog", name="Sign in again")
    again.get_by_label("Password").fill(PASSWORD)
    again.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("It is shared with the pool.")).to_be_visible()
    assert gateway.json("vault", "show", "to-share", "--org", place.home)["shared"] is True
    page.get_by_role("button", name="Take back", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Take back").click()
    expect(page.get_by_text("It is private again")).to_be_visible()
    assert gateway.json("vault", "show", "to-share", "--org", place.home)["shared"] is False


@contextmanager
def _sixty_like(place: Place, name: str) -> Iterator[None]:
    """Copies of a key, "many 00" to "many 59"; gone with the block, however it ends."""
    with place.reception.bureau.database() as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(provider_keys)")]
        rest = ", ".join(one for one in columns if one not in ("id", "name"))
        for number in range(60):
            database.execute(
                f"INSERT INTO provider_keys (id, name, {rest}) SELECT ?, ?, {rest} FROM provider_keys"  # noqa: S608 - ours
                " WHERE name = ?",
                (f"pkey_many{number}", f"many {number:02}", name),
            )
    try:
        yield
    finally:
        with place.reception.bureau.database() as database:
            database.execute("DELETE FROM provider_keys WHERE id LIKE 'pkey_many%'")


def test_the_list_is_searched_sorted_and_paged_and_keeps_it_all_in_its_address(place: Place, window: Window) -> None:
    place.add(HOSTILE, "--tag", "<b>tag</b>", "--account", "acme")
    with _sixty_like(place, HOSTILE):
        _search_sort_and_page(place.vault(window), window)


def _search_sort_and_page(page: Page, window: Window) -> None:
    expect(page.locator("tbody tr")).to_have_count(50)
    window.axe("a long list")
    page.get_by_label("Search provider keys").fill("many")
    expect(page.get_by_text("60 of")).to_be_visible()
    page.get_by_role("button", name="Name").click()
    expect(page.locator("tbody tr").first).to_contain_text("many 59")
    page.get_by_label("Search provider keys").fill("many 0")
    expect(page.locator("tbody tr")).to_have_count(10)
    page.wait_for_url("**q=many+0**")
    expect(page.locator("tbody tr").first).to_contain_text("many 09")  # another search, in the same order
    page.get_by_label("Search provider keys").fill("many")
    expect(page.get_by_text("60 of")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Search provider keys")).to_have_value("many")
    page.get_by_role("link", name="Next page").click()
    expect(page.locator("tbody tr")).to_have_count(10)
    expect(page.locator("tbody tr").last).to_contain_text("many 00")
    page.get_by_label("Search provider keys").fill("onerror")
    expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()
    window.narrow()
    page.reload()
    window.picture("vault-list-narrow")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    window.wide()
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    page.get_by_role("link", name="Edit", exact=True).click()
    expect(page.get_by_label("Name", exact=True)).to_have_value(HOSTILE)


def test_a_member_looks_only_and_another_organization_sees_nothing(
    place: Place, window: Window, windows: Windows
) -> None:
    id_ = place.add("not-yours")
    page = place.vault(window, who="bob")
    expect(page.get_by_text("not-yours")).to_be_visible()
    expect(page.get_by_role("link", name="not-yours")).to_have_count(0)
    expect(page.get_by_role("link", name="Add key")).to_have_count(0)
    window.axe("a member's vault")
    for path in ("/vault/new?provider=openai", f"/vault/{id_}", f"/vault/{id_}/edit", "/vault/import"):
        window.expect("403")
        assert page.goto(place.reception.url(path)).status == HTTPStatus.FORBIDDEN  # type: ignore[union-attr]
    theirs = windows()
    page = place.vault(theirs, who="dora")
    for path in (f"/vault/{id_}", f"/vault/{id_}/edit", "/vault/pkey_nothing"):
        theirs.expect("404")
        assert page.goto(place.reception.url(path)).status == HTTPStatus.NOT_FOUND  # type: ignore[union-attr]


def test_a_pasted_env_text_is_read_tested_and_kept_where_ticked(place: Place, window: Window) -> None:
    gateway = place.reception.gateway
    page = place.vault(window, "/import")
    text = f"""
        OPENAI_API_KEY={place.good}-wrong
        OPENAI_BASE_URL={place.upstream.url}
        GROQ_API_KEY=not a key
        {HOSTILE}
        EDITOR=vi
    """
    page.get_by_label("Lines of NAME=VALUE").fill(text)
    page.evaluate(HOLD_ALL)
    page.get_by_role("button", name="Read and test").click()
    testing = page.get_by_role("status").filter(has_text="Testing each key")
    expect(testing).to_be_visible()
    expect(page.get_by_role("button", name="Read and test")).to_be_disabled()
    page.evaluate("letGo()")
    expect(testing).to_be_hidden()
    row = page.get_by_role("row").filter(has_text="OPENAI_API_KEY")
    expect(row).to_contain_text("invalid key")
    expect(row.get_by_role("checkbox")).not_to_be_checked()
    expect(page.get_by_role("row").filter(has_text="GROQ_API_KEY").get_by_role("checkbox")).to_be_disabled()
    expect(page.get_by_text("Line 6, EDITOR: no provider's key is called so.")).to_be_visible()
    expect(page.get_by_label("Lines of NAME=VALUE")).to_have_value(text)
    window.axe("an import")
    window.picture("vault-import")
    window.expect("422")
    page.get_by_role("button", name="Save what is ticked").click()
    expect(page.get_by_text("Tick what to keep.")).to_be_visible()
    page.get_by_label("Lines of NAME=VALUE").fill(
        f"OPENAI_API_KEY={place.fresh()}\nOPENAI_BASE_URL={place.upstream.url}"
    )
    page.get_by_role("button", name="Read and test").click()
    expect(row).to_contain_text("valid")
    expect(row.get_by_role("checkbox")).to_be_checked()
    row.get_by_label("Name for OPENAI_API_KEY").fill("imported")
    assert "imported" not in place.names()
    page.get_by_role("button", name="Save what is ticked").click()
    expect(page.get_by_text("1 key is in the vault.")).to_be_visible()
    saved = gateway.json("vault", "show", "imported", "--org", place.home)
    assert (saved["provider"], saved["base_url"]) == ("openai", place.upstream.url)
