"""The browser is real, what goes wrong in it is seen, and it leaves the loops of other tests alone."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from playwright import sync_api

from tests.servers import chromium
from tests.servers.browser import PICTURES, Window, Windows, expect
from tests.servers.forks import ROOT
from tests.servers.upstream import Exchange, Upstream
from tests.servers.wire import whole

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'"
)
_STYLE = """
body { background: #fff; color: #222; font: 20px sans-serif }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee } }
.faint { color: #888 }
@media (prefers-color-scheme: dark) { .faint { color: #333 } }
"""
_GOOD = "<h1>The door</h1><label>Name <input></label><button>Knock</button>"
_BODIES = {
    "/good": _GOOD,
    "/empty": "<h1 hidden>Nothing</h1>",
    "/unlabelled": "<h1>The door</h1><input>",
    "/faint": "<h1>The door</h1><p class=faint>Hardly to be read</p>",
    "/unthemed": None,
    "/inline": "<h1>The door</h1><script>document.title = 'open'</script>",
    "/throws": "<h1>The door</h1><script src=/throws.js></script>",
    "/alerts": "<h1>The door</h1><script src=/alerts.js></script>",
    "/conflict": "<h1>The door</h1><script src=/conflict.js></script>",
    "/late": "<h1>The door</h1><img src=/late.svg alt=knocker>",
    "/names": "<h1>The door</h1><p lang=en id=said></p><script src=/names.js></script>",
}
_SCRIPTS = {
    "/throws.js": "throw new Error('stuck')",
    "/alerts.js": "alert('let me in')",
    "/conflict.js": "fetch('/taken')",
    "/names.js": "setTimeout(() => { document.querySelector('#said').textContent = 'knocked' }, 200)",
}


async def _answer(exchange: Exchange) -> None:
    path = exchange.request.target.partition("?")[0]
    if path in _BODIES:
        style = "" if _BODIES[path] is None else "<link rel=stylesheet href=/style.css>"
        page = f"<!doctype html><html lang=en><head><title>Door</title>{style}</head><body><main>"
        body = f"{page}{_BODIES[path] or _GOOD}</main></body></html>".encode()
        policy = b"content-security-policy: " + _POLICY
        await exchange.send(whole(200, body, policy, kind=b"text/html; charset=utf-8"))
    elif path in _SCRIPTS:
        await exchange.send(whole(200, _SCRIPTS[path].encode(), kind=b"text/javascript"))
    elif path == "/late.svg":
        await exchange.pause(1)
        await exchange.send(whole(200, b"<svg xmlns='http://www.w3.org/2000/svg'/>", kind=b"image/svg+xml"))
    elif path == "/style.css":
        await exchange.send(whole(200, _STYLE.encode(), kind=b"text/css"))
    else:
        await exchange.send(whole(204 if path == "/favicon.ico" else 409, b""))


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """A few pages under a strict policy; their origin."""
    server = Upstream()
    server.choose = lambda _request: _answer
    with server.running():
        yield server.origin


@pytest.fixture(autouse=True)
def no_pictures_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """These pages are not the product's."""
    monkeypatch.delenv(PICTURES, raising=False)


def faults(window: Window) -> str:
    with pytest.raises(AssertionError) as failed:
        window.check()
    return str(failed.value)


def suite(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Another run of pytest, with our fixtures."""
    program: list[str | Path] = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    return subprocess.run([*program, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


# ---- which browser --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "is_found"),
    [
        ("echo Chromium 153.0.8010.0", True),
        ("echo Google Chrome 140.0.7339.80 beta", True),
        ("echo Chromium 134.0.6998.35", False),
        ("echo Command requires the chromium snap >&2; exit 1", False),
        ("exit 0", False),
    ],
)
def test_a_browser_of_the_machine_is_taken_when_it_is_able(
    script: str, *, is_found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "chromium"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium._on_the_machine() == (program if is_found else None)


def test_the_packaged_browser_starts_by_itself() -> None:
    """Whatever the machine has."""
    program, environment = chromium._packaged()
    said = subprocess.run([program, "--version"], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("Chromium 153.")


# ---- what goes wrong is seen ----------------------------------------------------------------------------------------


def test_a_good_page_has_no_faults(window: Window, site: str) -> None:
    page = window.open(f"{site}/good")
    page.get_by_label("Name").fill("Alice")
    expect(page.get_by_label("Name")).to_have_value("Alice")
    expect(page).to_have_title("Door")
    window.check()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/inline", "content security policy: script-src-elem forbids inline"),
        ("/throws", "exception: stuck"),
        ("/alerts", "dialog: alert 'let me in'"),
        ("/conflict", "status of 409"),
    ],
)
def test_a_fault_fails_the_test(window: Window, site: str, path: str, told: str) -> None:
    window.open(f"{site}{path}").wait_for_load_state("networkidle")
    assert told in faults(window)


def test_a_request_that_leaves_fails_the_test(window: Window, site: str) -> None:
    page = window.open(f"{site}/good")
    with pytest.raises(sync_api.Error, match="ERR_NAME_NOT_RESOLVED"):
        page.goto("https://elsewhere.example.org/")
    assert "request elsewhere: GET https://elsewhere.example.org/" in faults(window)


def test_a_request_to_another_port_fails_the_test_unless_allowed(window: Window, site: str, upstream: Upstream) -> None:
    window.open(f"{site}/good").goto(f"{upstream.origin}/models")
    assert f"request elsewhere: GET {upstream.origin}/models" in faults(window)
    window.allow(upstream.origin)
    window.page.goto(f"{upstream.origin}/models")
    window.check()


def test_a_server_that_is_gone_fails_the_test(window: Window) -> None:
    server = Upstream()
    server.choose = lambda _request: _answer
    with server.running():
        page = window.open(f"{server.origin}/good")
    with pytest.raises(sync_api.Error, match="ERR_CONNECTION_REFUSED"):
        page.reload()
    assert f"request failed: GET {server.origin}/good: net::ERR_CONNECTION_REFUSED" in faults(window)


def test_a_fault_in_another_tab_counts(window: Window, site: str) -> None:
    window.open(f"{site}/good")
    window.tab().goto(f"{site}/throws")
    assert "exception: stuck" in faults(window)


def test_what_is_meant_is_no_fault(window: Window, site: str) -> None:
    window.expect("409")
    window.open(f"{site}/conflict").wait_for_load_state("networkidle")
    window.check()


def test_what_is_meant_must_come(window: Window, site: str) -> None:
    window.expect("409")
    window.open(f"{site}/good")
    assert "never came: ['409']" in faults(window)


def test_the_fixture_itself_fails_the_test(site: str, tmp_path: Path) -> None:
    """As a test would be written that looks for nothing."""
    (tmp_path / "test_unaware.py").write_text(
        f"def test_it(window):\n    window.open('{site}/throws').wait_for_load_state('networkidle')\n"
    )
    ran = suite("--rootdir", tmp_path, tmp_path)
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, ran.stdout + ran.stderr
    assert "exception: stuck" in ran.stdout


# ---- who can use the page -------------------------------------------------------------------------------------------


def test_axe_finds_nothing_on_a_good_page(window: Window, site: str) -> None:
    window.open(f"{site}/good")
    window.axe("good")
    window.check()


def test_axe_finds_a_missing_label(window: Window, site: str) -> None:
    window.open(f"{site}/unlabelled")
    with pytest.raises(AssertionError, match=r"unlabelled, light: label: (.|\n)*unlabelled, dark: label: "):
        window.axe("unlabelled")


def test_axe_looks_in_light_and_in_dark(window: Window, site: str) -> None:
    window.open(f"{site}/faint")
    with pytest.raises(AssertionError) as failed:
        window.axe("faint")
    assert "faint, dark: color-contrast" in str(failed.value)
    assert "#333333" in str(failed.value)
    assert "#888888" in str(failed.value)


def test_axe_wants_a_dark_page_to_be_dark(window: Window, site: str) -> None:
    window.open(f"{site}/unthemed")
    with pytest.raises(AssertionError, match="looks the same in light and in dark"):
        window.axe("unthemed")


def test_axe_leaves_the_page_as_it_was(window: Window, site: str) -> None:
    page = window.open(f"{site}/good")
    page.get_by_label("Name").fill("Alice")
    window.dark()
    window.axe("filled in")
    expect(page.get_by_label("Name")).to_have_value("Alice")
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")


# ---- pictures -------------------------------------------------------------------------------------------------------


def rows(picture: Path) -> tuple[tuple[int, int], set[bytes]]:
    """A PNG's size, and the different lines in it."""
    data = picture.read_bytes()
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert (depth, kind) in {(8, 2), (8, 6)}
    packed, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        packed += data[at + 8 : at + 8 + length] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += length + 12
    raw = zlib.decompress(packed)
    size = len(raw) // height
    return (width, height), {raw[start : start + size] for start in range(0, len(raw), size)}


def test_text_is_drawn(window: Window, site: str) -> None:
    window.open(f"{site}/empty")
    _, nothing = rows(window.picture("empty"))
    window.open(f"{site}/good")
    _, drawn = rows(window.picture("good"))
    assert len(drawn) > len(nothing) + 20


@pytest.mark.parametrize("look", [Window.picture, Window.axe])
def test_a_page_is_looked_at_when_all_of_it_is_there(
    window: Window, site: str, look: Callable[[Window, str], object]
) -> None:
    """A link that is clicked has left its page, but the next one may still be on its way."""
    window.allow(site)
    window.page.goto(f"{site}/late", wait_until="commit")
    look(window, "late")
    assert window.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventStart") > 0


def test_letters_differ(window: Window, site: str) -> None:
    """Without fonts each would be the same box, or nothing."""
    page = window.open(f"{site}/good")
    widths = page.evaluate(
        """() => { const pen = document.createElement("canvas").getContext("2d"); pen.font = "40px sans-serif";
                   return [..."iWq"].map((letter) => pen.measureText(letter).width) }"""
    )
    assert len(set(widths)) == 3
    assert min(widths) > 0


def test_pictures_are_as_wide_as_the_window(window: Window, site: str) -> None:
    window.open(f"{site}/good")
    wide, _ = rows(window.picture("wide"))
    window.narrow()
    narrow, light = rows(window.picture("narrow"))
    window.dark()
    _, dark = rows(window.picture("dark"))
    assert (wide, narrow) == ((1440, 900), (390, 844))
    assert light != dark


def test_pictures_are_kept_where_one_wants(
    window: Window, site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.open(f"{site}/good")
    assert window.picture("door").parent == tmp_path
    monkeypatch.setenv(PICTURES, str(tmp_path / "kept"))
    assert window.picture("door").parent == tmp_path / "kept"


# ---- people, and the loops of others --------------------------------------------------------------------------------


def test_each_window_has_cookies_of_its_own(windows: Windows, site: str) -> None:
    alice, bob = windows(), windows()
    alice.open(f"{site}/good").evaluate("document.cookie = 'who=alice'")
    assert alice.tab().goto(f"{site}/good")
    assert "who=alice" in alice.page.evaluate("document.cookie")
    assert "who=alice" not in bob.open(f"{site}/good").evaluate("document.cookie")


def test_the_clipboard_can_be_read(window: Window, site: str) -> None:
    page = window.open(f"{site}/good")
    page.evaluate("navigator.clipboard.writeText('Copied')")
    assert page.evaluate("navigator.clipboard.readText()") == "Copied"


def test_waiting_and_callbacks(window: Window, site: str) -> None:
    """What Playwright is given runs in its thread, what it gives is used here."""
    page = window.open(f"{site}/good")
    page.route("**/names.js", lambda route: route.fulfill(body=f"// {page.url}\n", content_type="text/javascript"))
    with page.expect_response("**/names.js") as response:
        page.goto(f"{site}/names")
    assert response.value.text() == f"// {site}/names\n"
    page.unroute_all()
    page.reload()
    expect(page.locator("#said")).to_have_text("knocked")
    assert [one.inner_text() for one in page.locator("h1, p").all()] == ["The door", "knocked"]


def test_an_expectation_that_fails_says_so(window: Window, site: str) -> None:
    page = window.open(f"{site}/good")
    with pytest.raises(AssertionError, match="Locator expected to have text 'Shut'"):
        expect(page.get_by_role("heading")).to_have_text("Shut", timeout=100)
    with pytest.raises(ValueError, match="Unsupported type"):
        sync_api.expect(page)


def test_a_loop_may_run_while_a_window_is_open(window: Window, site: str) -> None:
    async def ask() -> int:
        async with httpx2.AsyncClient() as client:
            return (await client.get(f"{site}/good")).status_code

    window.open(f"{site}/good")
    assert asyncio.run(ask()) == 200


async def test_even_that_of_the_test(window: Window, site: str) -> None:
    await asyncio.sleep(0)
    assert window.open(f"{site}/good").title() == "Door"


_LOOPS = """
import asyncio

import pytest

def test_browser(window):
    assert window.page.evaluate("6 * 7") == 42

async def test_loop():
    await asyncio.sleep(0)

def test_run():
    asyncio.run(asyncio.sleep(0))

@pytest.fixture
async def slept():
    await asyncio.sleep(0)
    yield 1
    await asyncio.sleep(0)

async def test_fixture(slept):
    assert slept
"""


@pytest.mark.parametrize(
    "order", [("test_browser", "test_loop", "test_run", "test_fixture"), ("test_loop", "test_browser", "test_loop")]
)
def test_files_in_one_process(order: tuple[str, ...], tmp_path: Path) -> None:
    """A browser's test and an async one, either first, in a process that nothing else was run in."""
    files = [tmp_path / f"test_{number}.py" for number in range(len(order))]
    for file in files:
        file.write_text(_LOOPS)
    chosen = [f"{file}::{name}" for file, name in zip(files, order, strict=True)]
    ran = suite("-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "--basetemp", tmp_path / "inner", *chosen)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(order)} passed" in ran.stdout
