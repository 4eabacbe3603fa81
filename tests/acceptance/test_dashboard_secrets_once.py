"""Secrets that are shown once, while other answers come late: nothing covers them, closes them or leads away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Locator, Page

from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import LINGER
from tests.servers import receiver as receivers
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.receiver import Receiver
from tests.servers.shell import Shell

_HOLD: Final = """
(deeds) => {
  const asked = window.fetch
  const going = {}
  window.letGo = (deed) => going[deed]()
  window.fetch = async (what, how) => {
    const deed = deeds.find((one) => what.endsWith(one))
    const go = deed && new Promise((go) => { going[deed] = go })
    const answer = await asked(what, how)
    if (deed) {
      document.documentElement.dataset.done = deed
      await go
    }
    return answer
  }
}
"""
"""What the page asks for by paths that end so is answered with `letGo(end)`; `html` tells what has been done last."""
_LET_GO: Final = """
(deed) => new Promise((done) => {
  document.addEventListener('htmx:finally:request', () => setTimeout(done), {once: true})
  letGo(deed)
})
"""
"""Let one go; done when its answer is here, and what is to be done with it."""
_A_SECOND: Final = LINGER.replace("2000", "1000")
"""What a second puts an end to lasts until `pass()`."""


@pytest.fixture(scope="module")
def hooks() -> Iterator[Receiver]:
    with receivers.running() as server:
        yield server


@pytest.fixture(scope="module")
def lodge(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path, hooks: Receiver
) -> Iterator[Lodge]:
    with making(tmp_path_factory.mktemp("once"), canaries, shell, started) as maker:
        yield Lodge(maker(allow=[hooks.origin])).open("alice")


def at_key(lodge: Lodge, window: Window, name: str) -> Page:
    """The page of a new key."""
    lodge.gateway.create_key(name)
    return lodge.sign_in(window, "alice", f"/keys/{lodge.gateway.json('keys', 'show', name)['id']}")


def press(page: Page, opens: str, does: str) -> Locator:
    """A button that opens a dialog, and the one in it; the dialog."""
    page.get_by_role("button", name=opens, exact=True).click()
    dialog = page.get_by_role("dialog", name=opens)
    dialog.get_by_role("button", name=does, exact=True).click()
    return dialog


def done(page: Page, deed: str) -> None:
    """Wait until the gateway has done it; its answer is held."""
    expect(page.locator("html")).to_have_attribute("data-done", deed)


def seen(lodge: Lodge, dialog: Locator) -> str:
    """The secret that a dialog shows."""
    return lodge.gateway.canaries.watch(dialog.locator("#secret").inner_text())


def close(dialog: Locator) -> None:
    dialog.get_by_role("button", name="Close").click()


# ---- two at once ----------------------------------------------------------------------------------------------------


def test_a_secret_stays_when_the_dialog_of_another_is_closed(lodge: Lodge, window: Window) -> None:
    page = at_key(lodge, window, "both came")
    page.evaluate(_HOLD, ["rotate"])
    rotate = press(page, "Rotate Key", "Rotate Key")
    done(page, "rotate")
    page.keyboard.press("Escape")
    ephemeral = press(page, "Ephemeral Token", "Create token")
    token = seen(lodge, ephemeral)
    page.evaluate(_LET_GO, "rotate")
    seen(lodge, rotate)
    close(rotate)
    expect(rotate).to_be_hidden()
    expect(ephemeral.locator("#secret")).to_have_text(token)
    with page.expect_navigation():
        close(ephemeral)
    expect(page.locator("#secret")).to_have_count(0)
    expect(page.get_by_role("table", name="Ephemeral tokens")).to_be_visible()


def test_a_secret_that_is_on_its_way_comes_when_the_dialog_of_another_is_closed(lodge: Lodge, window: Window) -> None:
    page = at_key(lodge, window, "one is to come")
    page.evaluate(_HOLD, ["ephemeral"])
    ephemeral = press(page, "Ephemeral Token", "Create token")
    done(page, "ephemeral")
    page.keyboard.press("Escape")
    rotate = press(page, "Rotate Key", "Rotate Key")
    seen(lodge, rotate)
    close(rotate)
    expect(rotate).to_be_hidden()
    page.evaluate(_LET_GO, "ephemeral")
    seen(lodge, ephemeral)
    with page.expect_navigation():
        close(ephemeral)
    expect(page.get_by_role("table", name="Ephemeral tokens")).to_be_visible()


# ---- an older answer ------------------------------------------------------------------------------------------------


def test_an_older_answer_is_not_drawn_over_a_secret(lodge: Lodge, window: Window, hooks: Receiver) -> None:
    made = lodge.gateway.json("webhooks", "create", "covered", "--url", hooks.url)
    page = lodge.sign_in(window, "alice", f"/settings/webhooks/{made['id']}")
    page.evaluate(_HOLD, ["secret", made["id"]])
    page.get_by_role("button", name="New secret", exact=True).click()
    page.get_by_role("button", name="Make a new secret").click()
    done(page, "secret")
    window.expect("409")
    page.get_by_role("button", name="Save", exact=True).click()
    done(page, made["id"])
    page.evaluate(_LET_GO, "secret")
    secret = lodge.gateway.canaries.watch(page.get_by_test_id("secret").inner_text())
    page.evaluate(_LET_GO, made["id"])
    expect(page.get_by_test_id("secret")).to_have_text(secret)
    expect(page.get_by_text("Copy the secret first")).to_be_visible()


def test_the_way_that_an_older_answer_leads_is_gone_when_the_secret_was_seen(lodge: Lodge, window: Window) -> None:
    page = at_key(lodge, window, "led away")
    page.evaluate(_HOLD, ["deactivate"])
    page.get_by_role("button", name="Deactivate").click()
    done(page, "deactivate")
    rotate = press(page, "Rotate Key", "Rotate Key")
    secret = seen(lodge, rotate)
    page.evaluate(_LET_GO, "deactivate")
    expect(rotate.locator("#secret")).to_have_text(secret)
    close(rotate)
    expect(page.get_by_text("The key is inactive: no call with it is let in.")).to_be_visible()
    expect(page.locator("#secret")).to_have_count(0)


def test_the_way_elsewhere_waits_for_a_secret_that_is_on_its_way(lodge: Lodge, window: Window) -> None:
    page = at_key(lodge, window, "led away before")
    page.evaluate(_HOLD, ["deactivate", "rotate"])
    page.get_by_role("button", name="Deactivate").click()
    done(page, "deactivate")
    rotate = press(page, "Rotate Key", "Rotate Key")
    done(page, "rotate")
    page.keyboard.press("Escape")
    page.evaluate(_LET_GO, "deactivate")
    page.evaluate(_LET_GO, "rotate")
    seen(lodge, rotate)
    close(rotate)
    expect(page.get_by_role("button", name="Activate")).to_be_visible()


# ---- a moment later -------------------------------------------------------------------------------------------------


def test_what_was_to_close_the_form_does_not_close_the_secret_that_came_in_that_moment(
    lodge: Lodge, window: Window
) -> None:
    page = at_key(lodge, window, "in that moment")
    page.evaluate(_A_SECOND)
    dialog = press(page, "Rotate Key", "Rotate Key")
    secret = seen(lodge, dialog)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(dialog.get_by_role("button", name="Close")).to_be_disabled()
    expect(dialog.locator("#secret")).to_have_text(secret)
    page.evaluate("window.pass()")
    with page.expect_navigation():
        page.keyboard.press("Escape")
    expect(page.locator("#secret")).to_have_count(0)
