"""What takes long: what is typed meanwhile, and pages that ask how far something is when one answer is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import HOLD_ALL
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream

_MORE_ROWS: Final = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 150000)
INSERT INTO audit ({names}) SELECT {values} FROM numbers, (SELECT * FROM audit LIMIT 1)
"""
"""So many that a proof of them takes several answers; nobody wrote them, and the proof says so in the end."""


@pytest.fixture(scope="module")
def lodge(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path, shared_upstream: Upstream
) -> Iterator[Lodge]:
    with making(tmp_path_factory.mktemp("lasting"), canaries, shell, started) as maker:
        yield Lodge(maker(allow=[shared_upstream.origin])).open("alice")


# ---- typed meanwhile -------------------------------------------------------------------------------------------------


def test_a_provider_key_is_not_edited_while_it_is_tested(lodge: Lodge, window: Window) -> None:
    """The answer would draw the form as it was sent over what was typed since."""
    page = lodge.sign_in(window, "alice", "/vault/new?provider=openai")
    secret = lodge.gateway.canaries.plant()
    page.get_by_label("Name", exact=True).fill("tested")
    page.get_by_label("API key", exact=True).fill(secret)
    page.get_by_label("Base URL").fill("http://10.0.0.1/v1")
    page.get_by_role("button", name="Limits and spend cap").click()
    page.evaluate(HOLD_ALL)
    save = page.get_by_role("button", name="Test and save")
    save.click()
    for label in ("Name", "API key", "Block at ($)"):
        expect(page.get_by_label(label, exact=True)).to_be_disabled()
    expect(save).to_be_disabled()
    window.expect("422")
    page.evaluate("letGo()")
    expect(page.get_by_label("Base URL")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("API key", exact=True)).to_have_value(secret)
    page.get_by_label("Name", exact=True).fill("tested again")
    expect(save).to_be_enabled()


def test_enter_in_a_name_that_an_import_has_found_keeps_it(
    lodge: Lodge, window: Window, shared_upstream: Upstream
) -> None:
    page = lodge.sign_in(window, "alice", "/vault/import")
    read: list[str] = []
    page.on("request", lambda one: read.append(one.url) if one.url.endswith("/vault/import") else None)
    secret = lodge.gateway.canaries.plant()
    page.get_by_label("Lines of NAME=VALUE").fill(f"OPENAI_API_KEY={secret}\nOPENAI_BASE_URL={shared_upstream.url}")
    page.get_by_role("button", name="Read and test").click()
    name = page.get_by_label("Name for OPENAI_API_KEY")
    name.fill("named by hand")
    before = len(read)
    name.press("Enter")
    page.get_by_label("Keep OPENAI_API_KEY").press("Enter")
    page.get_by_label("Keep OPENAI_API_KEY").check()
    page.get_by_role("button", name="Save what is ticked").click()
    expect(page.get_by_text("1 key is in the vault.")).to_be_visible()
    assert len(read) == before
    assert lodge.gateway.json("vault", "show", "named by hand")["provider"] == "openai"


# ---- a lost answer ---------------------------------------------------------------------------------------------------


def test_a_proof_goes_on_when_one_answer_is_lost(lodge: Lodge, window: Window) -> None:
    with closing(sqlite3.connect(lodge.gateway.data_dir / "ostiary.db", timeout=10)) as database, database:
        names = [name for _, name, *_ in database.execute("PRAGMA table_info(audit)") if name != "seq"]
        values = ["1000000 + n" if name == "number" else name for name in names]
        database.execute(_MORE_ROWS.format(names=", ".join(names), values=", ".join(values)))
    page = lodge.sign_in(window, "alice", "/audit")
    window.expect("ERR_FAILED", "Failed to fetch")
    lost = [False, True]  # the second answer: the page has asked for it by itself
    page.route("**/audit/verify", lambda route: route.abort() if lost and lost.pop(0) else route.continue_())
    page.get_by_role("button", name="Verify").click()
    proof = page.locator("#proof")
    expect(proof).to_contain_text("Proving row by row")
    expect(page.get_by_text("The gateway does not answer. This page goes on looking.")).to_be_visible()
    expect(proof).to_contain_text("Somebody has been at the audit log.", timeout=60_000)


def test_what_a_call_cost_is_looked_up_again_when_one_answer_is_lost(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/playground")
    page.get_by_label("Paste one").check()
    page.get_by_label("Pasted agent key").fill("ost_pat_wrong")
    page.get_by_label("Model, endpoint or alias").fill("openai/none")
    page.get_by_label("Message", exact=True).fill("Hello")
    window.expect("401", "ERR_FAILED", "Failed to fetch")
    page.route("**/playground/calls/*look=*", lambda route: route.abort(), times=1)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("The gateway does not answer. This page goes on looking.")).to_be_visible()
    expect(page.get_by_text("This organization has no trace of it")).to_be_visible(timeout=30_000)
