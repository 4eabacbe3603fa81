"""Toasts: seen above whatever is open, and heard by who does not see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from tests.acceptance.test_dashboard_keys import Desk
from tests.servers.browser import Window, expect
from tests.servers.gateway import Gateway

_REFUSED: Final = "There is nothing here: it does not exist, or belongs to another organization."
_IS_ON_TOP: Final = """(toast) => {
  const at = toast.getBoundingClientRect()
  return toast.contains(document.elementFromPoint(at.x + at.width / 2, at.y + at.height / 2))
}"""
_IS_HEARD: Final = """(toast) => {
  const modal = [...document.querySelectorAll('dialog:modal')].at(-1)
  return toast.closest('[aria-live=polite]') !== null && (modal === undefined || modal.contains(toast))
}"""
"""What is outside an open modal dialog is shut off for screen readers, too."""
_IS_UP: Final = "(toast) => Promise.all(toast.getAnimations({subtree: true}).map((one) => one.finished)).then(() => {})"
"""It has come to where it stays: before, it moves away from under the mouse."""


@pytest.fixture(scope="module")
def desk(shared_gateway: Gateway) -> Desk:
    return Desk(shared_gateway).open()


def test_a_refusal_is_seen_and_heard_though_a_dialog_is_open(desk: Desk, window: Window) -> None:
    id, name = desk.key("Gone meanwhile")
    page = desk.sign_in(window, "alice", f"/keys/{id}")
    assert '<div id="toaster" class="toaster' in page.request.get(page.url).text()
    expect(page.locator("#toaster")).to_have_attribute("aria-live", "polite")
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label(f"Type {name} to confirm").fill(name)
    expect(dialog.locator("#toaster")).to_have_count(1)
    desk.gateway.cli("keys", "delete", id, "--org", desk.home)
    window.expect("404")
    dialog.get_by_role("button", name="Delete", exact=True).click()
    toast = page.locator(".toast").filter(has_text=_REFUSED)
    toast.evaluate(_IS_UP)
    toast.hover()  # it stays for who reads it
    expect(dialog.get_by_role("heading")).to_be_visible()
    window.axe("a toast above a dialog")
    window.picture("toast-above-dialog")
    assert toast.evaluate(_IS_ON_TOP)
    assert toast.evaluate(_IS_HEARD)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.locator("body > #toaster")).to_have_count(1)
    page.keyboard.press("Control+k")
    expect(page.locator("#jump #toaster")).to_have_count(1)


def test_what_the_page_before_has_to_say_is_seen_and_heard(desk: Desk, window: Window) -> None:
    id, _ = desk.key("Paused")
    page = desk.sign_in(window, "alice", f"/keys/{id}")
    page.get_by_role("button", name="Deactivate").click()
    toast = page.locator(".toast").filter(has_text="The key is inactive: no call with it is let in.")
    toast.evaluate(_IS_UP)
    toast.hover()
    assert toast.evaluate(_IS_ON_TOP)
    assert toast.evaluate(_IS_HEARD)
    window.axe("a toast")
    window.picture("toast")
    page.mouse.move(0, 0)
    expect(toast).to_have_count(0)


def test_a_part_that_is_replaced_takes_no_toast_with_it(desk: Desk, window: Window) -> None:
    """What stood in a dialog that a script has replaced would be gone with it."""
    id, _ = desk.key("Replaced")
    page = desk.sign_in(window, "alice", f"/keys/{id}")
    page.get_by_role("button", name="Delete").click()
    expect(page.locator("dialog #toaster")).to_have_count(1)
    page.evaluate("htmx.ajax('GET', location.pathname + '/delete', { target: '#asked' })")
    expect(page.locator("#toaster")).to_have_count(1)
    expect(page.locator("dialog:modal #toaster")).to_have_count(1)


def test_what_was_said_while_the_machine_stood_still_can_be_read_afterwards(desk: Desk, window: Window) -> None:
    """As by a laptop that is shut for a minute: then every timer is due, and none of that time was there to read."""
    window.page.clock.install()
    page = desk.sign_in(window, "alice", "/keys/new")
    page.clock.pause_at(datetime.now(UTC) + timedelta(seconds=10))
    page.evaluate("document.dispatchEvent(new CustomEvent('toast', {detail: {text: 'Read me'}}))")
    toast = page.locator(".toast").filter(has_text="Read me")
    expect(toast).to_be_visible()
    page.clock.fast_forward(60_000)
    page.clock.run_for(1_000)
    expect(toast).not_to_have_attribute("aria-hidden", "true")
    page.clock.run_for(5_000)
    expect(toast).to_have_count(0)
    page.clock.resume()
