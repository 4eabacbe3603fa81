"""A base URL whose name leads inside, or whose server redirects, is refused when a key is saved, at every door."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.bureau import Bureau, code, fields
from tests.acceptance.pages import PASSWORD, Reception
from tests.servers import behaviours
from tests.servers.behaviours import chooser, raw
from tests.servers.browser import Window, expect
from tests.servers.canaries import INPUT_SUFFIX, Canaries
from tests.servers.forks import ROOT
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream

ENTRY = "tests.inward_entry"
PATH = "/provider-keys"
INSIDE = "https://inside.example/v1"
SAID = "leads to an address that is not public"
INWARD = pytest.mark.parametrize("host", ["inside.example", "half-inside.example", "metadata.example"])
MOVED = raw(b"HTTP/1.1 307 Moved\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway on a machine where names lead inside, and a provider under a name that the operator has listed."""

    reception: Reception
    provider: Upstream
    listed: str

    @property
    def bureau(self) -> Bureau:
        """Who asks by the API."""
        return self.reception.bureau

    def names(self) -> set[str]:
        """What the vault holds."""
        return {key["name"] for key in self.bureau.done("alice", "GET", PATH, params={"limit": 200})["data"]}

    def post(self, **wished: Any) -> httpx2.Response:
        """A key that somebody wants to save."""
        secret = self.reception.gateway.canaries.plant("sk-")
        asked = {"name": self.bureau.name("pkey"), "provider": "openai-compatible", "secret": secret, **wished}
        return self.bureau.ask("alice", "POST", PATH, json=asked)

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`ostiary …` where names lead as they do for the gateway."""
        gateway = self.reception.gateway
        return subprocess.run(
            [sys.executable, "-m", ENTRY, *words],
            env=gateway.environment() | {"PYTHONPATH": str(ROOT)},
            cwd=gateway.folder, input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("inward")
    with behaviours.serving() as provider, making(folder, canaries, shell, started) as maker:
        listed = provider.origin.replace("127.0.0.1", "listed.example")
        reception = Reception(maker(allow=[provider.origin, listed], entry=ENTRY))
        reception.bureau.settle()
        reception.gateway.cli("users", "set-password", "alice@example.org", "--secret-stdin", stdin=PASSWORD)
        yield Place(reception, provider, listed)


@pytest.fixture(autouse=True)
def _as_ever(place: Place) -> Iterator[None]:
    yield
    place.provider.choose = chooser(place.provider)


# ---- the admin API ----------------------------------------------------------------------------------------------


@INWARD
@pytest.mark.parametrize("test", [True, False])
def test_a_name_that_leads_inside_is_not_saved(place: Place, host: str, *, test: bool) -> None:
    answer = place.post(base_url=f"https://{host}/v1", test=test, name=f"{host}-{test}")
    assert (answer.status_code, code(answer), fields(answer)) == (422, "invalid_field", {"base_url"})
    assert f"{host} {SAID}" in answer.json()["detail"]
    assert f"{host}-{test}" not in place.names()


def test_a_key_is_not_moved_to_where_a_name_leads_inside(place: Place) -> None:
    made = place.post(base_url=f"{place.provider.origin}/v1").raise_for_status().json()
    moved = {"base_url": INSIDE, "secret": place.reception.gateway.canaries.plant("sk-"), "test": False}
    answer = place.bureau.ask("alice", "PATCH", f"{PATH}/{made['id']}", json=moved)
    assert (code(answer), fields(answer)) == ("invalid_field", {"base_url"})
    assert place.bureau.done("alice", "GET", f"{PATH}/{made['id']}")["base_url"] == made["base_url"]
    renamed = place.bureau.done("alice", "PATCH", f"{PATH}/{made['id']}", json={"priority": 3})
    assert (renamed["priority"], renamed["test"]) == (3, None)


@pytest.mark.parametrize("host", ["rebound.example", "rebound-to-metadata.example"])
def test_a_name_that_leads_inside_since_it_was_saved_is_not_connected_to(place: Place, host: str) -> None:
    gateway = place.reception.gateway
    provider = {"rebound.example": "groq", "rebound-to-metadata.example": "xai"}[host]
    made = place.post(provider=provider, base_url=f"https://{host}/v1", test=False).raise_for_status().json()
    answer = gateway.chat(gateway.create_key(host, "--org", place.bureau.home), f"{provider}/m")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_error")
    (attempt,) = answer.json()["error"]["attempts"]
    assert (attempt["status"], attempt["reason"]) == (None, "blocked")
    assert not [each for each in ("10.0.0.7", "169.254") if each in answer.text]
    assert place.bureau.done("alice", "GET", f"{PATH}/{made['id']}")["health"] == [], "that is no fault of the key"


def test_a_listed_name_may_lead_inside(place: Place) -> None:
    provider = place.provider
    made = place.post(base_url=f"{place.listed}/v1", provider="vllm").raise_for_status().json()
    assert (made["base_url"], made["test"]["outcome"]) == (f"{place.listed}/v1", "valid")
    other = place.listed.rpartition(":")[0].replace("http:", "https:")
    answer = place.post(base_url=f"{other}/v1", test=False)
    assert f"listed.example {SAID}" in answer.json()["detail"], "of a listed name only the listed port may"
    assert provider.received


def test_a_name_that_nobody_knows_fails_the_test(place: Place) -> None:
    answer = place.post(base_url="https://nowhere.example/v1")
    assert (answer.status_code, answer.json()["outcome"], fields(answer)) == (422, "network", {"test"})
    assert "the host name could not be resolved" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["nowhere.example", "silent.example"])
def test_a_name_that_nobody_tells_is_saved_by_who_wants_no_test(place: Place, host: str) -> None:
    saved = place.post(base_url=f"https://{host}/v1", test=False)
    assert (saved.status_code, saved.json()["base_url"]) == (201, f"https://{host}/v1")


@pytest.mark.parametrize("provider", ["openai-compatible", "ollama", "vllm"])
def test_a_redirect_is_refused_whatever_the_test_proves(place: Place, provider: str) -> None:
    place.provider.choose = lambda _request: MOVED
    answer = place.post(provider=provider, base_url=f"{place.provider.origin}/v1", name=f"moved-{provider}")
    assert (answer.status_code, answer.json()["outcome"], fields(answer)) == (422, "network", {"test"})
    assert "answered 307, a redirect, which is not followed" in answer.json()["detail"]
    assert f"moved-{provider}" not in place.names()


# ---- the shell --------------------------------------------------------------------------------------------------


@INWARD
def test_the_shell_saves_no_name_that_leads_inside(place: Place, host: str) -> None:
    secret = place.reception.gateway.canaries.plant("sk-")
    add = ("vault", "add", "openai-compatible", "--name", f"shell-{host}", "--base-url", f"https://{host}/v1")
    ran = place.run(*add, "--no-test", "--secret-stdin", stdin=secret)
    assert (ran.returncode, f"{host} {SAID}" in ran.stderr, secret in ran.stderr) == (1, True, False), ran.stderr
    assert f"shell-{host}" not in place.names()


def test_the_shell_moves_no_key_inside_and_saves_no_redirect(place: Place) -> None:
    gateway = place.reception.gateway
    url, secret = f"{place.provider.origin}/v1", gateway.canaries.plant("sk-")
    gateway.add_provider_key("openai-compatible", "settled", url)
    ran = place.run("vault", "edit", "settled", "--base-url", INSIDE, "--no-test", "--secret-stdin", stdin=secret)
    assert (ran.returncode, f"inside.example {SAID}" in ran.stderr) == (1, True), ran.stderr
    assert gateway.json("vault", "show", "settled")["base_url"] == url
    place.provider.choose = lambda _request: MOVED
    add = ("vault", "add", "openai-compatible", "--name", "redirected", "--base-url", url, "--secret-stdin")
    refused = gateway.cli(*add, stdin=secret, check=False)
    assert (refused.code, "a redirect, which is not followed" in refused.err) == (1, True)
    assert "redirected" not in place.names()


def test_an_env_file_brings_in_no_name_that_leads_inside(place: Place) -> None:
    gateway = place.reception.gateway
    file = gateway.folder / f"inward.env{INPUT_SUFFIX}"
    file.write_text(
        f"OPENAI_API_KEY={gateway.canaries.plant('sk-')}\nOPENAI_BASE_URL={INSIDE}\n"
        f"VLLM_API_KEY={gateway.canaries.plant()}\nVLLM_API_BASE={place.listed}/v1\n"
    )
    ran = place.run("vault", "import", str(file), "--no-test", "--yes")
    assert ran.returncode == 1, ran.stderr
    assert "1 saved, 0 skipped, 1 not saved" in ran.stdout
    assert f"OPENAI_API_KEY: refused. This base URL cannot be used: inside.example {SAID}" in ran.stderr
    assert {"VLLM_API_KEY"} == place.names() & {"VLLM_API_KEY", "OPENAI_API_KEY"}


# ---- the dashboard ----------------------------------------------------------------------------------------------


def test_the_form_says_it_beside_the_base_url(place: Place, window: Window) -> None:
    page = place.reception.sign_in(window, "alice", "/vault/new?provider=vllm")
    window.expect("422")
    page.get_by_label("Name", exact=True).fill("by-form")
    page.get_by_label("API key (optional)", exact=True).fill(place.reception.gateway.canaries.plant())
    page.get_by_label("Base URL").fill(INSIDE)
    page.get_by_role("button", name="Test connection").click()
    expect(page.get_by_text("Nothing was tested: look at Base URL")).to_be_visible()
    expect(page.locator("#tested")).to_contain_text(SAID)
    place.provider.choose = lambda _request: MOVED
    page.get_by_label("Base URL").fill(f"{place.provider.origin}/v1")
    page.get_by_role("button", name="Test and save").click()
    expect(page.locator("#tested")).to_contain_text("a redirect, which is not followed")
    page.get_by_label("Save it anyway, without a test").check()
    page.get_by_label("Base URL").fill(INSIDE)
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_role("alert").filter(has_text=SAID)).to_be_visible()
    assert "by-form" not in place.names()


def test_a_stored_key_is_not_moved_inside_by_the_form(place: Place, window: Window) -> None:
    made = place.post(base_url=f"{place.provider.origin}/v1", provider="vllm").raise_for_status().json()
    page = place.reception.sign_in(window, "alice", f"/vault/{made['id']}/edit")
    window.expect("422")
    page.get_by_label("New secret").fill(place.reception.gateway.canaries.plant())
    page.get_by_label("Base URL").fill(INSIDE)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text=SAID)).to_be_visible()
    assert place.bureau.done("alice", "GET", f"{PATH}/{made['id']}")["base_url"] == made["base_url"]


def test_a_pasted_text_brings_in_no_name_that_leads_inside(place: Place, window: Window) -> None:
    page = place.reception.sign_in(window, "alice", "/vault/import")
    secret = place.reception.gateway.canaries.plant("sk-")
    page.get_by_label("Lines of NAME=VALUE").fill(f"OPENAI_API_KEY_2={secret}\nOPENAI_BASE_URL={INSIDE}")
    page.get_by_role("button", name="Read and test").click()
    row = page.get_by_role("row").filter(has_text="OPENAI_API_KEY_2")
    expect(row).to_contain_text(SAID)
    tick = row.get_by_role("checkbox")
    expect(tick).to_be_disabled()
    tick.evaluate("tick => { tick.disabled = false; tick.checked = true }")  # as whoever sends the form by hand
    window.expect("422")
    page.get_by_role("button", name="Save what is ticked").click()
    expect(page.get_by_text("1 not saved, 0 saved")).to_be_visible()
    assert "OPENAI_API_KEY_2" not in place.names()
