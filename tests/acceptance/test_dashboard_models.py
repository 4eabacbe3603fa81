"""Models in the browser: what each costs, and which provider key can serve it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.pages import PASSWORD, Reception
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def reception(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> Iterator[Reception]:
    """Bob the member, a key for OpenAI, and prices that the operator has set."""
    with making(tmp_path_factory.mktemp("models"), canaries, shell) as maker:
        gateway = maker()
        gateway.cli("members", "add", "bob@example.org", "--role", "member")
        gateway.cli("users", "set-password", "bob@example.org", "--secret-stdin", stdin=PASSWORD)
        gateway.add_provider_key("openai", "my openai")
        gateway.cli("prices", "set", f"openai-compatible/{HOSTILE}", "--input", "1.25", "--output", "0.0042")
        gateway.cli("prices", "set", "openai/picture-maker", "--image", "0.04")
        yield Reception(gateway)


def test_models_are_searched_and_filtered_and_keep_their_place(reception: Reception, window: Window) -> None:
    page = reception.sign_in(window, "bob", "/models")
    rows = page.get_by_role("table", name="Models").get_by_role("row")
    expect(rows).to_have_count(51)
    window.axe("models")
    window.picture("models")
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_role("link", name="First page")).to_be_visible()
    expect(rows).to_have_count(51)
    page.get_by_label("Search models").fill("gpt-5-mini")
    page.get_by_label("Provider", exact=True).select_option("openai")
    mini = rows.filter(has=page.get_by_text("openai/gpt-5-mini", exact=True))
    expect(mini).to_have_count(1)
    expect(mini).to_contain_text("$0.25")
    expect(mini).to_contain_text("$2.00")
    expect(mini).to_contain_text("$0.025 cached")  # a rate is shown to its last digit
    expect(mini).to_contain_text("400k")
    expect(mini.get_by_role("link", name="my openai")).to_have_attribute("title", "healthy")
    page.wait_for_url("**q=gpt-5-mini&provider=openai**")
    page.reload()
    expect(page.get_by_label("Search models")).to_have_value("gpt-5-mini")
    mini.get_by_role("link", name="Try openai/gpt-5-mini").click()
    expect(page.get_by_label("Model, endpoint or alias")).to_have_value("openai/gpt-5-mini")


def test_free_models_mine_and_prices_that_were_set(reception: Reception, window: Window) -> None:
    page = reception.sign_in(window, "bob", "/models")
    rows = page.get_by_role("table", name="Models").get_by_role("row")
    page.get_by_label("Free only").check()
    expect(page).to_have_url(reception.url("/models?q=&provider=&free=1"))
    expect(rows.nth(1)).to_contain_text("free")
    expect(rows.nth(1)).to_contain_text("$0")
    page.get_by_label("Only what my keys can serve").check()
    expect(page.get_by_text("2 of 1,", exact=False)).to_be_visible()
    expect(rows.nth(1)).to_contain_text("openai/omni-moderation-latest")
    page.get_by_label("Search models").fill("picture-maker")
    expect(page.get_by_role("heading", name="No model is like that")).to_be_visible()
    window.axe("models, none")
    page.get_by_label("Free only").uncheck()
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text("$0.04 an image")
    expect(rows.nth(1)).to_contain_text("price set by the operator")
    page.get_by_label("Only what my keys can serve").uncheck()
    page.get_by_label("Search models").fill("onerror")
    expect(rows.nth(1)).to_contain_text(HOSTILE)
    expect(rows.nth(1)).to_contain_text("$0.0042")
    page.get_by_label("Search models").fill("x" * 5_000)
    expect(page.get_by_role("heading", name="No model is like that")).to_be_visible()
    window.narrow()
    page.goto(reception.url("/models"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.picture("models-narrow")
