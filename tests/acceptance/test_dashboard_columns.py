"""What the lists of agent keys and provider keys say of each: every column, every order, every status."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import pytest
from playwright.sync_api import Locator, Page

from tests.acceptance.lodge import EMAIL, Lodge
from tests.servers import behaviours
from tests.servers.browser import Window, expect
from tests.servers.gateway import GatewayMaker
from tests.servers.upstream import Upstream

_MODEL: Final = "openai-compatible/ok"
_LATER: Final = 9_999_999_999_999
_AGO: Final = re.compile(r"^(just now|\d min ago)$")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with behaviours.serving() as server:
        yield server


@pytest.fixture
def lodge(gateways: GatewayMaker, upstream: Upstream) -> Lodge:
    lodge = Lodge(gateways(allow=[upstream.origin])).open("alice", "bob")
    lodge.gateway.cli("prices", "set", _MODEL, "--input", "1000", "--output", "1000")
    return lodge


def cell(row: Locator, column: str) -> Locator:
    """What stands in a row below the head of this column."""
    heads = row.page.locator("thead th").all_inner_texts()
    [at] = [number for number, words in enumerate(heads) if words.strip() == column]
    return row.locator("th, td").nth(at)


def write(lodge: Lodge, statement: str, *values: object) -> None:
    """What somebody with a shell on the machine may do."""
    with closing(sqlite3.connect(lodge.gateway.data_dir / "ostiary.db", timeout=10)) as database, database:
        assert database.execute(statement, values).rowcount == 1


def sort_by(page: Page, column: str, direction: str) -> None:
    """Press its head until the list goes that way."""
    page.locator("thead").get_by_role("button", name=column, exact=True).click()
    expect(page.locator(f"th[aria-sort={direction}]")).to_have_text(column)


def test_a_provider_key_is_listed_with_all_that_is_known_of_it(
    lodge: Lodge, window: Window, upstream: Upstream
) -> None:
    page = lodge.sign_in(window, "alice", "/vault/new?provider=openai-compatible")
    page.get_by_label("Name", exact=True).fill("upstream")
    page.get_by_label("Base URL").fill(upstream.url)
    secret = lodge.gateway.canaries.plant()
    page.get_by_label("Bearer token").fill(secret)
    page.get_by_role("button", name="Test and save").click()
    expect(page.get_by_role("heading", name="upstream", exact=True)).to_be_visible()
    gateway = lodge.gateway
    gateway.cli("endpoints", "create", "assistant", "--target", _MODEL)
    caller = gateway.create_key("caller")
    assert gateway.chat(caller, "assistant").status_code == 200
    [spent] = [float(one["cost_usd"]) for one in gateway.traces()]
    assert spent > 0
    [key] = gateway.json("vault", "list")
    page.goto(lodge.url("/vault"))
    row = page.get_by_role("row").filter(has_text="upstream")
    preview = f"{secret[:4]}…{secret[-3:]}"
    for column, words in (
        ("Provider", "Any OpenAI-compatible endpoint"),
        ("Preview", preview),
        ("Sharing", "private"),
        ("Health", "healthy"),
        ("Used by", "1"),
        ("Spend", f"${spent:.2f}"),
        ("Contributor", EMAIL),
    ):
        expect(cell(row, column)).to_have_text(words)
    for column in ("Last used", "Updated", "Created"):
        expect(cell(row, column)).to_have_text(_AGO)
    write(
        lodge,
        "INSERT INTO provider_key_health (provider_key_id, model, state, failures, reason, since, until)"
        " VALUES (?, '', 'cooling', 1, 'Slow down a little.', 1, ?)",
        key["id"],
        _LATER,
    )
    page.reload()
    health = cell(row, "Health")
    expect(health).to_contain_text("cooling")
    expect(health).to_contain_text("Slow down a little.")
    expect(health).to_contain_text(re.compile(r"until in \d+ y"))
    page.get_by_role("link", name="upstream", exact=True).click()
    # Beside the menu's, which is there before the page is whole.
    page.get_by_role("main").get_by_role("link", name="Traces", exact=True).click()
    page.wait_for_url(lodge.url(f"/traces?provider_key={key['id']}"))
    expect(page.locator("#list tbody tr")).to_have_count(1)
    page.goto(lodge.url("/endpoints"))
    page.get_by_role("link", name="assistant", exact=True).click()
    expect(page.get_by_role("region", name="Used by").get_by_role("link", name="caller")).to_be_visible()
    page.get_by_role("link", name="View traces").click()
    page.wait_for_url(lodge.url("/traces?endpoint=assistant"))
    expect(page.locator("#list tbody tr")).to_have_count(1)


def test_agent_keys_are_listed_with_all_columns_in_every_order_and_by_every_status(
    lodge: Lodge, window: Window, upstream: Upstream
) -> None:
    gateway = lodge.gateway
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    busy = gateway.create_key("cc busy", "--owner", "bob@example.org", "--budget-usd", "1", "--expires", "90d")
    some = gateway.create_key("aa some", "--owner", EMAIL, "--expires", "never")
    for name, deed in (("dd off", "deactivate"), ("bb gone", "revoke"), ("ee over", "")):
        gateway.create_key(name, "--owner", EMAIL)
        if deed:
            gateway.cli("keys", deed, name)
    write(lodge, "UPDATE agent_keys SET expires_at = 1 WHERE name = 'ee over'")
    for secret, calls in ((busy, 3), (some, 1)):
        for _ in range(calls):
            assert gateway.chat(secret, _MODEL).status_code == 200
    spent = sum(float(one["cost_usd"]) for one in gateway.traces(calls=4) if one["agent_key"] == "cc busy")
    page = lodge.sign_in(window, "alice", "/keys")
    sort_by(page, "Name", "ascending")
    names = page.locator("tbody th a")
    expect(names).to_have_text(["aa some", "bb gone", "cc busy", "dd off", "ee over"])
    row = page.get_by_role("row").filter(has_text="cc busy")
    for column, words in (
        ("Owner", "bob"),
        ("Key", gateway.json("keys", "show", "cc busy")["preview"]),
        ("Status", "active"),
        ("Expires", "in 3 mo"),
        ("Requests, 30 d", "3"),
        ("Budget", f"${spent:.2f} of $1.00"),
    ):
        expect(cell(row, column)).to_contain_text(words)
    for column in ("Last used", "Created"):
        expect(cell(row, column)).to_have_text(_AGO)
    quiet = page.get_by_role("row").filter(has_text="dd off")
    for column, words in (("Last used", "never"), ("Requests, 30 d", "0"), ("Usage, 30 d", "0%"), ("Budget", "$0")):
        expect(cell(quiet, column)).to_have_text(words)
    expect(cell(page.get_by_role("row").filter(has_text="aa some"), "Expires")).to_have_text("Never")
    for status, wanted in (
        ("active", ["aa some", "cc busy"]),
        ("inactive", ["dd off"]),
        ("expired", ["ee over"]),
        ("revoked", ["bb gone"]),
    ):
        page.get_by_label("Status").select_option(status)
        expect(names).to_have_text(wanted)
        expect(page.locator("tbody .pill")).to_have_text([status] * len(wanted))
    page.get_by_label("Status").select_option("")
    expect(names).to_have_count(5)
    sort_by(page, "Owner", "ascending")
    expect(names.last).to_have_text("cc busy")
    sort_by(page, "Owner", "descending")
    expect(names.first).to_have_text("cc busy")
    sort_by(page, "Status", "ascending")
    expect(page.locator("tbody .pill")).to_have_text(["active", "active", "expired", "inactive", "revoked"])
    sort_by(page, "Requests, 30 d", "ascending")
    expect(names.nth(3)).to_have_text("aa some")
    expect(names.last).to_have_text("cc busy")
    sort_by(page, "Requests, 30 d", "descending")
    expect(names.first).to_have_text("cc busy")
    expect(names.nth(1)).to_have_text("aa some")
