"""A real browser, and the window a test looks through: whatever goes wrong in it unasked fails the test."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from playwright import sync_api
from playwright.sync_api import (
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Page,
    Playwright,
    Request,
    WebError,
)
from yarl import URL

from tests.servers import apart, node
from tests.servers.chromium import executable
from tests.servers.forks import ROOT

PICTURES = "PICTURES"
"""The environment variable that names a folder for pictures to keep, from the root of the project."""
Scheme = Literal["light", "dark"]
_RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
# What a rule for one scheme can change: colours, and what is shown and so has a name. Structure is looked at once.
_RULES_IN_DARK = (
    *("color-contrast", "link-in-text-block", "label", "select-name", "button-name", "link-name", "image-alt"),
    *("svg-img-alt", "role-img-alt", "aria-command-name", "aria-dialog-name", "aria-input-field-name"),
    *("aria-meter-name", "aria-progressbar-name", "aria-toggle-field-name", "input-button-name", "empty-heading"),
)
_LOOKS: tuple[tuple[Scheme, Sequence[str]], ...] = (("light", _RULES), ("dark", _RULES_IN_DARK))
_WIDE, _NARROW = (1440, 900), (390, 844)
_PATIENCE_MS = 15_000
"""How long Playwright waits for what it is told to find: the machine has other things to do."""
_ARGS = (
    *("--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage", "--font-render-hinting=none"),
    # No name but the loopback's has an address, so that a page that asks for more never gets it.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE [::1]",
)
_WATCH_CSP = """
addEventListener("securitypolicyviolation", (event) => __violated(
  `${event.effectiveDirective} forbids ${event.blockedURI || "inline"} ${event.sample}`));
"""
_ELSEWHERE = """temporary => {
  const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (nodes.nextNode()) {
    const node = nodes.currentNode;
    if (node.data.includes(temporary + "/")) node.data = node.data.replace(/\\S*\\/data(?=\\b)/, "/var/lib/ostiary");
  }
}"""
"""The folder of a test says nothing to who looks at its picture: where the house stands is where deploy/ puts it."""

# At rest is a page that is there as a whole, and moves in none of three frames: a scheme is heard of in one, and what
# follows it begins in the next.
# Bounded: a browser that has nothing to draw may leave out the frame, and an animation that is held never finishes; by
# steps, of which none passes while the machine stands still.
_SETTLED = """
(() => {
  const drawn = () => new Promise((done) => requestAnimationFrame(done))
  const moving = () => document.getAnimations().filter(
    (one) => one.playState === "running" && one.effect?.getComputedTiming().endTime !== Infinity)
  const whole = () => document.readyState === "complete" || new Promise((done) => addEventListener("load", done))
  const rest = async () => {
    await whole()
    await document.fonts.ready
    for (let still = 0; still < 3; still += 1) {
      await drawn()
      if (moving().length) still = -1
      await Promise.all(moving().map((one) => one.finished.catch(() => {})))
    }
  }
  let left = 50
  const late = new Promise((done) => {
    const passing = setInterval(() => --left || done(clearInterval(passing)), 100)
  })
  return Promise.race([rest(), late]).then(() => {})
})()
"""
_COLOURS = """
["html", "body"].map((name) => getComputedStyle(document.querySelector(name)))
  .map((style) => `${style.color} on ${style.backgroundColor}`).join(", ")
"""
_TALLER = """
((page) => document.querySelector("dialog:modal, :popover-open:not(#toaster)") || page.scrollHeight <= innerHeight
  ? 0 : page.scrollHeight)(document.documentElement)
"""
"""How high a page is that has no room in its window; what is open above it stays where it is."""
_LOCAL_SCHEMES = ("data", "blob", "about", "")


if TYPE_CHECKING:
    expect = sync_api.expect
else:

    def expect(actual: object, message: str | None = None) -> object:
        """Playwright's, for what a window shows."""
        return apart.at_home(actual).call(sync_api.expect, actual, message)


@dataclass(frozen=True, slots=True)
class Browser:
    """A running Chromium, shared by the tests of a worker."""

    it: sync_api.Browser

    @contextmanager
    def window(self, folder: Path, *, has_touch: bool = False) -> Iterator[Window]:
        """A window nobody has used, with cookies of its own; its pictures go to `folder`, its faults end the block."""
        context = self.it.new_context(
            viewport={"width": _WIDE[0], "height": _WIDE[1]},
            has_touch=has_touch,
            color_scheme="light",
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
            locale="en-GB",
            timezone_id="UTC",
        )
        try:
            window = Window(context, folder)
            yield window
            window.check()
        finally:
            context.close()


@dataclass(eq=False)
class Window:
    """What one person sees. `page` is Playwright's; `expect(window.page.get_by_role(…))` is above.

    Errors on the console, exceptions, alerts, refusals by the content security policy, requests that fail and requests
    that leave for an origin nobody opened are faults; a test that means one says so with `expect`.
    """

    context: BrowserContext
    folder: Path
    page: Page = field(init=False)
    origins: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    _expected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context.set_default_timeout(_PATIENCE_MS)
        self.context.expose_binding("__violated", self._violated)
        self.context.add_init_script(_WATCH_CSP)
        self.context.on("console", self._logged)
        self.context.on("weberror", self._raised)
        self.context.on("dialog", self._asked)
        self.context.on("request", self._requested)
        self.context.on("requestfailed", self._failed)
        self.page = self.context.new_page()

    def open(self, url: str) -> Page:
        """Go there; from then on its origin is one that pages may ask."""
        self.allow(url)
        self.page.goto(url)
        return self.page

    def allow(self, *urls: str) -> None:
        """Let pages ask these origins too, such as that of another's sign-in."""
        self.origins |= {_origin(url) for url in urls}

    def tab(self) -> Page:
        """Another tab of the same person."""
        return self.context.new_page()

    def expect(self, *texts: str) -> None:
        """Faults that hold one of these are meant; each must come. `409` is as Chromium logs an answer."""
        self._expected += texts

    def check(self) -> None:
        """Fail for what went wrong since the last check; done at the end of each test."""
        for page in self.context.pages:
            with suppress(sync_api.Error):  # it may be on its way to elsewhere
                page.evaluate("new Promise((done) => setTimeout(done))")  # what has happened is told in its order
        unmeant = [fault for fault in self.faults if not any(text in fault for text in self._expected)]
        missing = [text for text in self._expected if not any(text in fault for fault in self.faults)]
        self.faults.clear()
        self._expected.clear()
        assert not unmeant, "in the browser:\n" + "\n".join(dict.fromkeys(unmeant))
        assert not missing, f"expected in the browser, but it never came: {missing}"

    # ---- how it looks -------------------------------------------------------------------------------------------

    def narrow(self) -> None:
        """As on a telephone."""
        self._resize(*_NARROW)

    def wide(self, width: int = _WIDE[0], height: int = _WIDE[1]) -> None:
        """As on a desk."""
        self._resize(width, height)

    @property
    def scrolls_sideways(self) -> bool:
        """Whether the page as it stands is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    def widths_that_scroll(self, widths: Sequence[int]) -> list[int]:
        """Those of these widths at which the page is wider than the window; it is the narrowest before.

        Nothing is waited for: what a chart draws follows a frame later, and has room for it already.
        """
        found = []
        for width in sorted(widths):
            self.page.set_viewport_size({"width": width, "height": _WIDE[1]})
            if self.scrolls_sideways:
                found.append(width)
        return found

    def dark(self) -> None:
        """As one sees it whose machine prefers dark."""
        self._paint("dark")

    def light(self) -> None:
        """As one sees it whose machine prefers light: how it begins."""
        self._paint("light")

    def picture(self, name: str) -> Path:
        """The whole page as a picture, when it has come to rest; where it is."""
        kept = os.environ.get(PICTURES)
        path = (ROOT / kept if kept else self.folder) / f"{name}.png"
        self.page.evaluate(_SETTLED)
        self.page.evaluate(_ELSEWHERE, tempfile.gettempdir())
        before = self.page.viewport_size
        whole = self.page.evaluate(_TALLER)
        if before and whole:  # the menu beside the page is as high as the window
            self._resize(before["width"], whole)
        self.page.screenshot(path=path, full_page=True, animations="disabled", caret="hide")
        if before and whole:
            self._resize(**before)
        return path

    def axe(self, label: str) -> None:
        """Fail for what keeps people out of the page as it stands, dialogs and all, in light and in dark.

        It runs where it is, as the developer tools do, which a content security policy does not concern: another
        context that bypasses it would see the page without what the test has opened.
        """
        before = self.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        found: list[str] = []
        colours = []
        for scheme, rules in _LOOKS:
            self._paint(scheme)
            colours.append(self.page.evaluate(_COLOURS))
            found += [f"{label}, {scheme}: {violation}" for violation in self._violations(rules)]
        self._paint("dark" if before else "light")
        assert not found, "\n".join(found)
        assert colours[0] != colours[1], f"{label} looks the same in light and in dark: {colours[0]}"

    def _violations(self, rules: Sequence[str]) -> list[str]:
        if self.page.evaluate("typeof axe === 'undefined'"):
            self.page.evaluate(_axe())
        options: dict[str, Any] = {"runOnly": list(rules), "resultTypes": ["violations"], "preload": False}
        result = self.page.evaluate("(options) => axe.run(document, options)", options)
        return [_told(violation) for violation in result["violations"]]

    def _resize(self, width: int, height: int) -> None:
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.evaluate(_SETTLED)  # charts follow a frame later

    def _paint(self, scheme: Scheme) -> None:
        self.page.emulate_media(color_scheme=scheme)
        self.page.evaluate(_SETTLED)

    # ---- what Playwright calls, in its thread -------------------------------------------------------------------

    def _violated(self, source: Mapping[str, Any], what: str) -> None:
        self.faults.append(f"content security policy: {what} at {source['page'].url}")

    def _logged(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text} at {message.location['url']}")

    def _raised(self, raised: WebError) -> None:
        self.faults.append(f"exception: {raised.error}")

    def _asked(self, dialog: Dialog) -> None:
        """Our pages ask by dialogs of their own: this one is a script's that should not have run."""
        self.faults.append(f"dialog: {dialog.type} {dialog.message!r}")
        dialog.dismiss()

    def _requested(self, request: Request) -> None:
        url = URL(request.url)
        if url.scheme not in _LOCAL_SCHEMES and _origin(request.url) not in self.origins:
            self.faults.append(f"request elsewhere: {request.method} {request.url}")

    def _failed(self, request: Request) -> None:
        # Aborted is what a page's requests are when one leaves it, streams above all, and what becomes a download.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"request failed: {request.method} {request.url}: {request.failure}")


Windows = Callable[[], Window]
"""Opens windows, one for each person."""


def _origin(url: str) -> str:
    """WebSockets belong to the origin of their pages."""
    return re.sub("^ws", "http", str(URL(url).origin()))


def _told(violation: Mapping[str, Any]) -> str:
    where = [f"  {' '.join(map(str, one['target']))}: {one['failureSummary']}" for one in violation["nodes"]]
    return "\n".join([f"{violation['id']}: {violation['help']}", *where])


@cache
def _axe() -> str:
    return (node.package("axe-core") / "axe.min.js").read_text()


@contextmanager
def opening(browser: Browser, folder: Path) -> Iterator[Windows]:
    """Opens windows while the block runs; the faults of each are raised at its end."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(browser.window(folder))


@contextmanager
def running() -> Iterator[Browser]:
    """Start it; it is gone when the block ends."""
    program, environment = executable()
    with apart.thread() as home:
        playwright: Playwright = home.call(sync_api.sync_playwright().start)
        try:
            home.call(sync_api.expect.set_options, timeout=_PATIENCE_MS)
            chromium = playwright.chromium.launch(
                executable_path=program,
                args=list(_ARGS),
                env={**os.environ, **environment},
                chromium_sandbox=False,
                handle_sigint=False,
            )
            yield Browser(chromium)
            chromium.close()
        finally:
            playwright.stop()
