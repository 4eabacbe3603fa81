"""docs/quickstart.md, step by step: from `ostiary demo`, in the browser alone, to a key that was used and revoked."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest
from playwright.sync_api import Page

from tests.acceptance.pages import PASSWORD
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import OSTIARY, House
from tests.servers.llama import Llama
from tests.servers.reaper import watch
from tests.servers.shell import Shell
from tests.servers.waiting import free_port, until

_LINK: Final = re.compile(r"http://\S+/dashboard/set-up#\S+")
_COST: Final = re.compile(r"\$0\.0*[1-9]")
_SECRET: Final = re.compile(r"ost_pat_[0-9A-Za-z]{49}")


@pytest.fixture
def link(tmp_path: Path, canaries: Canaries, shell: Shell, llama: Llama) -> Iterator[str]:
    """`ostiary demo` in front of a real LLM server; the link that it prints."""
    house = House(tmp_path, canaries, shell, {"TMPDIR": str(tmp_path)})
    log = tmp_path / "demo.log"
    words = ["demo", "--port", str(free_port()), "--upstream", llama.url, "--upstream-model", llama.model]
    with log.open("wb") as out:
        process = watch(
            subprocess.Popen(
                [OSTIARY, *words, "--upstream-key-stdin"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=house.environment() | {"PYTHONUNBUFFERED": "1"},
            )
        )
    try:
        assert process.stdin is not None
        process.stdin.write(f"{llama.key}\n".encode())
        process.stdin.close()
        until(lambda: _LINK.search(log.read_text()), "the link", 60)
        found = _LINK.search(log.read_text())
        assert found is not None
        for secret in _SECRET.findall(log.read_text()):
            canaries.watch(secret)
        log.write_text("")  # the demo prints a key on purpose; no file that is left behind may hold one
        yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) in (0, -signal.SIGTERM)
        os.truncate(log, 0)


@pytest.mark.main_job
def test_the_quickstart(link: str, window: Window, llama: Llama, canaries: Canaries) -> None:
    home = link.partition("/set-up")[0]
    page = window.open(link)
    _set_up(page, home)
    _add_provider_key(window, page, home, llama)
    _set_a_price(page, llama)
    secret = _create_agent_key(window, page, canaries)
    _call(window, page, llama)
    _look_at_the_trace(window, page)
    _rotate_and_revoke(window, page, home, secret, canaries)


def _set_up(page: Page, home: str) -> None:
    for label, text in (("Your name", "Alice"), ("E-mail", "alice@example.org"), ("Organization", "Acme")):
        page.get_by_label(label).fill(text)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Set up").click()
    page.wait_for_url(home)


def _add_provider_key(window: Window, page: Page, home: str, llama: Llama) -> None:
    page.get_by_role("link", name="Vault", exact=True).click()
    page.get_by_role("link", name="Catalogue").click()
    page.get_by_label("Search providers").fill("llama.cpp")
    expect(page.get_by_role("link", name="Add key for llama.cpp server")).to_be_visible()
    expect(page.get_by_role("link", name="Add key for OpenAI", exact=True)).to_be_hidden()
    window.picture("quickstart-1-catalogue")
    page.get_by_role("link", name="Add key for llama.cpp server").click()
    page.get_by_label(re.compile("^API key")).fill(llama.key)
    page.get_by_label("Base URL").fill(llama.url)
    page.get_by_label("Name", exact=True).fill("my llama")
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_role("heading", name="my llama", exact=True)).to_be_visible()
    window.picture("quickstart-2-provider-key")
    assert page.url.startswith(f"{home}/vault/")


def _set_a_price(page: Page, llama: Llama) -> None:
    """A server of one's own has no published price: what it costs is what one says."""
    page.get_by_role("link", name="Operator", exact=True).click()
    page.get_by_role("link", name="Prices", exact=True).click()
    page.get_by_role("button", name="Look up or set a price").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Provider").select_option("llamacpp")
    dialog.get_by_label("Model").fill(llama.model)
    dialog.get_by_role("button", name="Show").click()
    page.get_by_label("Input tokens").fill("2")
    page.get_by_label("Output tokens").fill("8")
    page.get_by_role("button", name="Set price").click()
    expect(page.get_by_text(f"The price of llamacpp/{llama.model} is set.")).to_be_visible()


def _create_agent_key(window: Window, page: Page, canaries: Canaries) -> str:
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_role("link", name="Create Key").first.click()
    page.get_by_label("Key Name").fill("My agent")
    page.get_by_label("Budget ($)").fill("5")
    page.get_by_role("button", name="Create Key").click()
    expect(page.get_by_text("API Key created! Copy it now")).to_be_visible()
    secret: str = page.locator("#secret").inner_text()
    assert _SECRET.fullmatch(secret)
    canaries.watch(secret)
    expect(page.locator("#made-panel-curl")).to_contain_text('"llamacpp/<model>"')
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("heading", name="My agent")).to_be_visible()
    window.picture("quickstart-3-agent-key")
    return secret


def _call(window: Window, page: Page, llama: Llama) -> None:
    page.get_by_role("link", name="Playground", exact=True).click()
    page.get_by_label("Which").select_option(label="My agent")
    page.get_by_label("Model, endpoint or alias").fill(f"llamacpp/{llama.model}")
    page.get_by_label("Most tokens of the answer").fill("16")
    page.get_by_label("Message", exact=True).fill("Who keeps the door?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#call-1").get_by_role("link", name="Trace")).to_be_visible()
    expect(page.locator("#call-1").get_by_text("my llama")).to_be_visible()
    expect(page.locator("#call-1").get_by_text(_COST).first).to_be_visible()
    window.picture("quickstart-4-playground")


def _look_at_the_trace(window: Window, page: Page) -> None:
    page.locator("#call-1").get_by_role("link", name="Trace").click()
    page.wait_for_url(re.compile("/dashboard/traces/req_"))
    expect(page.get_by_text("my llama").first).to_be_visible()
    expect(page.get_by_text("My agent").first).to_be_visible()
    expect(page.get_by_role("main").get_by_text(_COST).first).to_be_visible()
    window.picture("quickstart-5-trace")


def _rotate_and_revoke(window: Window, page: Page, home: str, secret: str, canaries: Canaries) -> None:
    page.get_by_role("link", name="Keys", exact=True).click()
    page.get_by_role("link", name="My agent", exact=True).click()
    page.get_by_role("button", name="Rotate Key").click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("Rotate")).click()
    expect(page.locator("#secret")).to_be_visible()
    fresh: str = page.locator("#secret").inner_text()
    canaries.watch(fresh)
    assert fresh != secret
    origin = home.removesuffix("/dashboard")
    until(lambda: _status(origin, secret) == httpx2.codes.UNAUTHORIZED, "the old secret to open nothing")
    until(lambda: _status(origin, fresh) == httpx2.codes.OK, "the new one to open")
    page.get_by_role("link", name="Done").click()
    page.get_by_role("button", name="Revoke").click()
    page.get_by_label("Type My agent to confirm").fill("My agent")
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("revoked", exact=True).first).to_be_visible()
    until(lambda: _status(origin, fresh) == httpx2.codes.UNAUTHORIZED, "a revoked key to open nothing")
    window.picture("quickstart-6-revoked")


def _status(origin: str, secret: str) -> int:
    return httpx2.get(f"{origin}/v1/key", headers={"authorization": f"Bearer {secret}"}, timeout=20).status_code
