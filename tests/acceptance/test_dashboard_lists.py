"""Lists longer than a page: the first page is always one step away, and whoever comes back finds the list as it was."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import HOLD
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

_MANY = 130
_MEMBERS = (
    "INSERT INTO users (id, email, name, is_operator, created_at) VALUES (?, ?, ?, 0, 1)",
    "INSERT INTO members (organization_id, user_id, role, created_at) VALUES (?, ?, 'member', 1)",
)
_KEYS = (
    "INSERT INTO provider_keys (id, organization_id, name, provider, base_url, origin, fields, sealed, sealed_version,"
    " preview, shared, status, created_at, updated_at)"
    " VALUES (?, ?, ?, 'openai', '', '', '{}', '', 1, '', 0, 'healthy', 1, 1)"
)


@pytest.fixture(scope="module")
def lodge(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Lodge]:
    with making(tmp_path_factory.mktemp("lists"), canaries, shell, started) as maker:
        made = Lodge(maker()).open("alice")
        with closing(sqlite3.connect(made.gateway.data_dir / "ostiary.db", timeout=10)) as database, database:
            for number in range(_MANY):
                name = f"many {number:03}"
                database.execute(_MEMBERS[0], (f"user_{number:03}", f"{number:03}@example.org", name))
                database.execute(_MEMBERS[1], (made.home, f"user_{number:03}"))
                database.execute(_KEYS, (f"pkey_{number:03}", made.home, name))
        yield made


@pytest.mark.parametrize("path", ["/settings/members?q=many", "/vault?q=many&sort=name&direction=ascending"])
def test_the_first_page_is_one_step_away_with_the_same_filters(lodge: Lodge, window: Window, path: str) -> None:
    page = lodge.sign_in(window, "alice")
    page.goto(lodge.url(path))
    expect(page.get_by_role("link", name="many 000")).to_be_visible()
    expect(page.get_by_role("link", name="First page")).to_have_count(0)
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_role("link", name="many 000")).to_have_count(0)
    expect(page.get_by_role("searchbox").first).to_have_value("many")
    window.axe(f"a later page of {path}")
    page.get_by_role("link", name="First page").click()
    page.wait_for_url(lodge.url(path))
    expect(page.get_by_role("link", name="many 000")).to_be_visible()


def test_lists_of_all_kinds_lead_back_to_their_first_page(lodge: Lodge) -> None:
    """Also where nothing is left to show."""
    alice = lodge.client("alice")
    for path, at in (("/settings/credentials", "from=50"), ("/models?q=gpt", "after=openai/gpt-4o")):
        shown = alice.get(f"{path}{'&' if '?' in path else '?'}{at}").text
        assert f'href="/dashboard{path}"' in shown.split('aria-label="Pages"')[1], path
        assert 'aria-label="Pages"' not in alice.get(f"{path.partition('?')[0]}?q=nothing-is-called-so").text


def test_whoever_comes_back_finds_the_list_as_they_left_it(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/settings/members")
    page.get_by_role("searchbox").first.fill("many 12")
    page.wait_for_url("**/settings/members?*q=many*")
    expect(page.get_by_role("link", name="many 000")).to_have_count(0)
    left = page.url
    page.get_by_role("link", name="many 121").click()
    page.wait_for_url(lodge.url("/settings/members/user_121"))
    page.reload()
    page.get_by_role("navigation", name="Where you are").get_by_role("link", name="Members").click()
    page.wait_for_url(left)
    expect(page.get_by_role("link", name="many 121")).to_be_visible()
    expect(page.get_by_role("link", name="many 000")).to_have_count(0)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Settings").click()
    page.get_by_role("navigation", name="Settings").get_by_role("link", name="Members").click()
    page.wait_for_url(lodge.url("/settings/members"))
    page.get_by_role("link", name="many 000").click()
    page.get_by_role("navigation", name="Where you are").get_by_role("link", name="Members").click()
    page.wait_for_url(lodge.url("/settings/members"))


def test_a_search_whose_answer_is_late_gives_way_to_what_was_typed_after_it(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/vault")
    page.evaluate(HOLD)
    for number, typed in enumerate(("many 1", "many 12", "many 129"), 1):
        page.get_by_label("Search provider keys").fill(typed)
        expect(page.locator("html")).to_have_attribute("data-asked", str(number))
    page.wait_for_url("**q=many+129**")
    page.evaluate("letGo()")
    expect(page.locator("html")).to_have_attribute("data-aborted", re.compile("[12]"))
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("link", name="many 129")).to_be_visible()


def test_a_head_that_is_held_down_for_a_moment_after_a_search_sorts(lodge: Lodge, window: Window) -> None:
    """Whoever leaves a search field has searched already: what they press must not be drawn anew under them."""
    page = lodge.sign_in(window, "alice", "/vault")
    page.get_by_label("Search provider keys").fill("many 01")
    expect(page.locator("tbody tr")).to_have_count(10)
    page.wait_for_url("**q=many+01**")
    page.evaluate(HOLD)
    page.evaluate("letGo()")
    page.get_by_role("button", name="Name").hover()
    page.mouse.down()
    page.wait_for_timeout(500)
    page.mouse.up()
    expect(page.locator("tbody tr").first).to_contain_text("many 019")
    expect(page.locator("html")).to_have_attribute("data-asked", "1")  # the sort, and nothing else


@pytest.mark.parametrize("path", ["/traces", "/settings/notifications"])
def test_a_list_that_looks_again_by_itself_gives_way_to_a_filter(lodge: Lodge, window: Window, path: str) -> None:
    page = lodge.sign_in(window, "alice", path)
    page.evaluate(HOLD)
    expect(page.locator("html")).to_have_attribute("data-asked", "1")
    page.locator("#filters select").first.select_option(index=1)
    expect(page.locator("html")).to_have_attribute("data-aborted", "1")
    page.wait_for_url(f"**{path}?**")
    page.evaluate("letGo()")
