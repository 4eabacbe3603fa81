"""What stands around every page: the menu of a narrow window, the way past it, the colours, the warning of http."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Page

from tests.acceptance.lodge import Lodge
from tests.servers.browser import Browser, Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.waiting import until

_IS_DARK: Final = "document.documentElement.classList.contains('dark')"
_FOCUSED: Final = "document.activeElement.textContent.trim()"
_IN_MENU: Final = "document.activeElement === document.body || document.activeElement.closest('#sidebar') !== null"
_COVERS: Final = """(nav) => {
  const at = nav.getBoundingClientRect()
  return at.left === 0 && nav.contains(document.elementFromPoint(at.width / 2, at.height / 2))
}"""
_WARNING: Final = "This address is not https: what you type can be read on the way."


@pytest.fixture(scope="module")
def lodge(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Lodge]:
    with making(tmp_path_factory.mktemp("frame"), canaries, shell, started) as maker:
        yield Lodge(maker()).open("alice")


# ---- the menu -----------------------------------------------------------------------------------------------------


def test_the_menu_of_a_narrow_window_is_opened_and_left_by_keyboard(lodge: Lodge, window: Window) -> None:
    page = narrow(lodge, window)
    button, menu = page.get_by_role("button", name="Menu"), page.get_by_role("navigation", name="Main")
    expect(menu).to_have_count(0)  # neither seen nor heard
    button.focus()
    page.keyboard.press("Enter")
    expect(menu).to_be_visible()
    until(lambda: menu.evaluate(_COVERS), "the menu to have come in")
    assert page.evaluate(_FOCUSED) == "Ostiary"
    window.axe("the menu of a narrow window")
    window.picture("menu-narrow")
    page.keyboard.press("Tab")
    assert page.evaluate(_FOCUSED) == "Overview"
    for key in ("Shift+Tab", "Tab"):  # round and round in it, whichever way
        for _ in range(20):
            page.keyboard.press(key)
            assert page.evaluate(_IN_MENU), f"{key} leaves the menu"
    button.evaluate("(one) => one.focus()")
    assert page.evaluate(_IN_MENU), "what it covers cannot be reached"
    menu.get_by_role("link", name="Overview").focus()
    page.keyboard.press("Escape")
    expect(menu).to_have_count(0)
    expect(button).to_be_focused()
    page.keyboard.press("Space")
    for _ in range(2):
        page.keyboard.press("Tab")
    assert page.evaluate(_FOCUSED) == "Keys"
    page.keyboard.press("Enter")
    page.wait_for_url(lodge.url("/keys"))
    expect(menu).to_have_count(0)
    assert not window.scrolls_sideways


def test_the_menu_of_a_narrow_window_is_opened_and_left_by_touch(
    lodge: Lodge, browser: Browser, tmp_path: Path
) -> None:
    with browser.window(tmp_path, has_touch=True) as window:
        page = narrow(lodge, window)
        button, menu = page.get_by_role("button", name="Menu"), page.get_by_role("navigation", name="Main")
        button.tap()
        expect(menu).to_be_visible()
        until(lambda: menu.evaluate(_COVERS), "the menu to have come in")
        page.touchscreen.tap(380, 500)  # beside the menu
        expect(menu).to_have_count(0)
        button.tap()
        menu.get_by_role("link", name="Vault").tap()
        page.wait_for_url(lodge.url("/vault"))
        expect(menu).to_have_count(0)


def test_a_telephone_that_is_turned_has_the_menu_where_there_is_room(lodge: Lodge, window: Window) -> None:
    page = narrow(lodge, window)
    menu = page.get_by_role("navigation", name="Main")
    window.wide()
    expect(menu).to_be_visible()
    expect(page.get_by_role("button", name="Menu")).to_be_hidden()
    page.get_by_role("link", name="Usage").click()
    page.wait_for_url(lodge.url("/usage"))
    expect(menu).to_be_visible()
    window.narrow()
    expect(menu).to_have_count(0)
    expect(page.get_by_role("button", name="Menu")).to_be_visible()


def test_the_first_key_leads_past_the_menu(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/usage")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Jump to")).to_be_focused()


def narrow(lodge: Lodge, window: Window) -> Page:
    """The first page, as it is loaded on a telephone."""
    page = lodge.sign_in(window, "alice")
    window.narrow()
    page.reload()
    return page


# ---- tables that are wider than their window ---------------------------------------------------------------------


def test_a_table_that_goes_on_beside_the_window_shows_so(lodge: Lodge, window: Window) -> None:
    """By a shadow where there is more, and by none where there is not; what is written in it is left out here."""
    lodge.gateway.create_key("wide")
    page = narrow(lodge, window)
    page.goto(lodge.url("/keys"))
    table = page.get_by_role("group", name="Table of keys")
    page.get_by_role("table").evaluate("(one) => { one.style.visibility = 'hidden' }")

    def sides() -> tuple[bytes, bytes]:
        """The outermost of it at the left and at the right."""
        box = table.bounding_box()
        assert box is not None
        x, y, height = box["x"], box["y"] + 20, box["height"] - 40
        left, right = (
            page.screenshot(clip={"x": x + by, "y": y, "width": 6, "height": height}) for by in (1, box["width"] - 7)
        )
        return left, right

    for paint in (window.light, window.dark):
        paint()
        table.evaluate("(one) => { one.scrollLeft = 0 }")
        plain, more_behind = sides()
        table.evaluate("(one) => { one.scrollLeft = one.scrollWidth }")
        more_before, at_the_end = sides()
        assert plain == at_the_end
        assert len({plain, more_behind, more_before}) == 3
        table.evaluate("(one) => { one.scrollLeft = (one.scrollWidth - one.clientWidth) / 2 }")
        assert sides() == (more_before, more_behind)


# ---- the colours --------------------------------------------------------------------------------------------------


def test_colours_follow_the_machine_until_somebody_chooses_and_are_kept(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice")
    toggle = page.get_by_role("button", name="Switch colour theme")
    assert page.evaluate(_IS_DARK) is False
    window.dark()
    assert page.evaluate(_IS_DARK) is True
    window.light()
    toggle.click()
    for path in ("", "/keys"):
        page.goto(lodge.url(path))
        assert page.evaluate(_IS_DARK) is True, "chosen, over a reload and on every page"
    assert page.evaluate("getComputedStyle(document.body).colorScheme") == "dark"
    window.dark()
    window.light()
    assert page.evaluate(_IS_DARK) is True, "whatever the machine does"
    toggle.click()
    assert page.evaluate(_IS_DARK) is False
    page.reload()
    assert page.evaluate(_IS_DARK) is False
    window.dark()
    page.reload()
    assert page.evaluate(_IS_DARK) is True, "what the machine had, too, was no choice"
    toggle.focus()
    page.keyboard.press("Enter")
    page.reload()
    assert page.evaluate(_IS_DARK) is False, "light on a machine that prefers dark"


# ---- plain http ---------------------------------------------------------------------------------------------------

_PAGES: Final = ("/sign-in", "/set-up", "/forgotten", "", "/account", "/vault/new")


@pytest.mark.parametrize(
    ("public_url", "host", "is_warned"),
    [
        (None, "127.0.0.1:8420", False),
        (None, "localhost", False),
        (None, "[::1]:8420", False),
        (None, "10.0.0.5:8420", True),
        (None, "gate.example.org", True),
        (None, "127.0.0.1.example.org", True),
        (None, "localhost.example.org", True),
        ("http://gate.example.org", "gate.example.org", True),
        ("http://gate.example.org", "127.0.0.1", True),
        ("https://gate.example.org", "gate.example.org", False),
        ("https://gate.example.org", "10.0.0.5", False),
    ],
)
def test_every_page_warns_where_what_is_typed_can_be_read_on_the_way(
    lodge: Lodge, addressed: Callable[[str], Lodge], public_url: str | None, host: str, *, is_warned: bool
) -> None:
    of_it = addressed(public_url) if public_url else lodge
    visitor = of_it.client("alice")
    for path in _PAGES:
        for client in (visitor, of_it.client()):
            page = client.http.get(f"/dashboard{path}", headers={"host": host}, follow_redirects=False)
            if page.is_success:
                assert (_WARNING in page.text) is is_warned, path


@pytest.fixture(scope="module")
def addressed(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path
) -> Iterator[Callable[[str], Lodge]]:
    """A gateway that was told how people reach it."""
    with making(tmp_path_factory.mktemp("addressed"), canaries, shell, started) as maker:

        @cache
        def made(public_url: str) -> Lodge:
            return Lodge(maker(env={"OSTIARY_PUBLIC_URL": public_url})).open("alice")

        yield made


def test_the_warning_is_seen_and_heard_before_anything_is_typed(
    addressed: Callable[[str], Lodge], window: Window
) -> None:
    lodge = addressed("http://gate.example.org")
    page = window.open(lodge.url("/sign-in"))
    warning = page.get_by_role("note").filter(has_text=_WARNING)
    expect(warning).to_be_visible()
    window.axe("sign-in by plain http")
    window.picture("sign-in-http")
    page = lodge.sign_in(window, "alice", "/account")
    expect(warning).to_be_visible()
    window.axe("plain http")
    window.narrow()
    assert not window.scrolls_sideways
