"""The dashboard as people meet it: a gateway with everybody in it, each with a password of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from playwright.sync_api import Page

from tests.acceptance.bureau import Bureau
from tests.servers.browser import Window
from tests.servers.gateway import Gateway
from tests.servers.waiting import until

PASSWORD: Final = "correct horse battery staple"
PEOPLE: Final = ("olga", "alice", "erin", "bob", "charlie", "dora")
"""As in `bureau.py`: Olga runs the instance; Alice owns the organization, Erin is an admin and Bob a member of it;
Charlie was let go; Dora owns another organization."""
HOLD: Final = """
() => {
  const asked = window.fetch
  const go = new Promise((go) => { window.letGo = go })
  const seen = document.documentElement.dataset
  seen.asked = seen.aborted = 0
  window.fetch = async (what, how) => {
    how.signal.addEventListener('abort', () => seen.aborted++)
    if (++seen.asked === 1) await go
    return asked(what, how)
  }
}
"""
"""The page's next request waits for `letGo()`; `html` tells how many were made, and how many given up."""
HOLD_ALL: Final = """
() => {
  const asked = window.fetch
  const go = new Promise((go) => { window.letGo = go })
  window.fetch = async (...what) => { await go; window.fetch = asked; return asked(...what) }
}
"""
"""Whatever the page asks waits for `letGo()`."""
LET_GO: Final = """
() => new Promise((done) => {
  document.addEventListener('htmx:finally:request', () => setTimeout(done), {once: true})
  letGo()
})
"""
"""Let it go; done when its answer is here, and what is to be done with it."""
LINGER: Final = """() => {
  const later = window.setTimeout
  window.setTimeout = (then, ms, ...more) => (ms === 2000 ? (window.pass = then) : later(then, ms, ...more))
}"""
"""What a button says for two seconds, that it has copied, it says until `pass()`."""
_LINK: Final = re.compile(r"/dashboard/set-up#\S+")


@dataclass(slots=True)
class Reception:
    """A gateway whose people can sign in."""

    gateway: Gateway
    bureau: Bureau = field(init=False)

    def __post_init__(self) -> None:
        self.bureau = Bureau(self.gateway)

    def open(self) -> Reception:
        """Let everybody in, and give each a password."""
        self.bureau.open()
        for name in PEOPLE:
            self.gateway.cli("users", "set-password", f"{name}@example.org", "--secret-stdin", stdin=PASSWORD)
        return self

    def set_up_link(self) -> str:
        """What `serve` printed when it started."""
        log = self.gateway.log
        until(lambda: _LINK.search(log.read_text()), "the set-up link in the log")
        found = _LINK.findall(log.read_text())
        return f"{self.gateway.origin}{found[-1]}"

    def url(self, path: str = "") -> str:
        """An address of the dashboard."""
        return f"{self.gateway.origin}/dashboard{path}"

    def sign_in(self, window: Window, name: str, path: str = "") -> Page:
        """Sign somebody in by the form, and go to a page."""
        page = window.open(self.url(f"/sign-in?next=/dashboard{path}"))
        page.get_by_label("E-mail").fill(f"{name}@example.org")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in", exact=True).click()
        page.wait_for_url(self.url(path))
        return page
