"""Usage in the browser: what was spent by what, over which time, and the same numbers as a file."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostiary.money import NANO_PER_USD
from tests.acceptance.archive import HOSTILE, Caller, made, remember, write
from tests.acceptance.lodge import Lodge
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell

FORMULA = "=HYPERLINK('http://evil.example')"


@pytest.fixture(scope="module")
def lodge(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Lodge]:
    with making(tmp_path_factory.mktemp("usage"), canaries, shell, started) as maker:
        lodge = Lodge(maker()).open("alice", "bob")
        for name, owner in (("hers", "alice"), ("his", "bob"), (HOSTILE, "alice"), (FORMULA, "alice")):
            lodge.gateway.cli("keys", "create", "--name", name, "--owner", f"{owner}@example.org")
        keys = [Caller(one["id"], one["name"]) for one in lodge.gateway.json("keys", "list")]
        remember(lodge.gateway, lodge.home, [*keys, Caller("key_gone", "gone")], days=100)
        yield lodge


def sums(lodge: Lodge, by: str, since: str = "400d") -> dict[str, float]:
    rows = lodge.gateway.json("usage", "--since", since, "--by", by.removeprefix("agent_"))
    return {str(row[by]): float(row["cost_usd"]) for row in rows}


@pytest.mark.parametrize("by", ["model", "provider", "agent_key", "provider_key", "member"])
def test_every_way_to_sum_up_comes_to_the_same(lodge: Lodge, by: str) -> None:
    alice = lodge.client("alice")
    whole = sum(sums(lodge, "provider").values())
    first = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 380 * 86_400))
    rows = list(csv.DictReader(io.StringIO(alice.get(f"/usage/csv?since={first}&by={by}").text)))
    assert sum(float(row["cost_usd"]) for row in rows) == pytest.approx(whole)
    page = alice.get(f"/usage?since={first}&by={by}").text
    drawn = json.loads(page.partition('id="usage-data">')[2].partition("</script>")[0])
    assert sum(sum(one["data"]) for one in drawn["series"]) / NANO_PER_USD == pytest.approx(whole)
    if by in ("model", "agent_key"):
        found: dict[str, float] = {}
        for row in rows:
            name = row["name"].partition("/")[2] if by == "model" else row["name"].removeprefix("'")
            found[name] = found.get(name, 0) + float(row["cost_usd"])
        assert found == pytest.approx(sums(lodge, by))


def test_the_page_draws_and_lists_what_was_used(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/usage?by=agent_key")
    table = page.get_by_role("table", name="Sums by agent key, the dearest first")
    expect(table.get_by_role("row").filter(has_text=HOSTILE)).to_have_count(1)
    expect(page.get_by_role("img", name="Stacked bars: spend a day by agent key")).to_be_visible()
    window.axe("usage")
    window.picture("usage-light")
    window.dark()
    window.picture("usage-dark")
    window.light()
    page.get_by_label("By", exact=True).select_option("member")
    page.wait_for_url("**/usage?*by=member*")
    expect(page.get_by_role("row").filter(has_text="alice")).to_have_count(1)
    expect(page.get_by_role("row").filter(has_text="Keys without an owner")).to_have_count(1)
    page.get_by_label("Show", exact=True).select_option("tokens")
    expect(page.get_by_role("heading", name="Tokens by member")).to_be_visible()
    page.get_by_label("Period", exact=True).select_option("custom")
    expect(page.get_by_label("From", exact=True)).to_be_visible()
    page.get_by_label("From", exact=True).fill("2020-01-01")
    expect(page.get_by_text("Choose 400 days at most.")).to_be_visible()
    page.get_by_label("To", exact=True).fill("2020-01-05")
    expect(page.get_by_role("heading", name="Nothing was used")).to_be_visible()
    page.get_by_label("Period", exact=True).select_option("90d")
    expect(page.get_by_role("heading", name="Tokens by member")).to_be_visible()
    window.narrow()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.picture("usage-narrow")


def test_a_row_leads_to_the_calls_behind_it(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice")
    row = page.get_by_role("row").filter(has_text="gpt-4o")
    for query in ("period=90d&agent_key=his", "period=7d"):
        page.goto(lodge.url(f"/usage?by=model&{query}"))
        calls = row.get_by_role("cell").nth(3).inner_text()
        row.get_by_role("link", name="gpt-4o", exact=True).click()
        page.wait_for_url(lodge.url(f"/traces?model=gpt-4o&provider=openai&{query}"))
        expect(page.get_by_label("Summary").locator("div").first).to_contain_text(f"Calls{calls}")
    first, last = (time.strftime("%Y-%m-%d", time.gmtime(time.time() - days * 86_400)) for days in (20, 10))
    page.goto(lodge.url(f"/usage?by=agent_key&since={first}&until={last}"))
    page.get_by_role("link", name="his", exact=True).click()
    page.wait_for_url(re.compile(rf"agent_key=\w+&period=custom&since={first}&until={last}$"))
    expect(page.locator("#list tbody tr").first).to_be_visible()


def test_a_file_is_no_formula(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/usage?by=agent_key")
    with page.expect_download() as downloaded:
        page.get_by_role("link", name="CSV by day").click()
    assert downloaded.value.suggested_filename.startswith("usage-by-agent-key-")
    rows = list(csv.DictReader(io.StringIO(Path(downloaded.value.path()).read_text())))
    names = {row["name"] for row in rows}
    assert f"'{FORMULA}" in names
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]


def test_a_member_sees_their_own_keys_only(lodge: Lodge) -> None:
    bob = lodge.client("bob")
    page = bob.get("/usage?by=agent_key&period=90d").text
    assert "his" in page
    assert "hers" not in page
    assert 'value="member"' not in page
    rows = list(csv.DictReader(io.StringIO(bob.get("/usage/csv?by=agent_key&period=90d").text)))
    assert {row["name"] for row in rows} == {"his"}
    assert "Nothing was used" in bob.get("/usage?agent_key=hers").text
    assert "Nothing was used" in bob.get("/usage?by=member&agent_key=hers").text


def test_another_organization_sees_nothing_of_it(lodge: Lodge) -> None:
    lodge.admit("dora", "owner", lodge.gateway.json("orgs", "create", "Elsewhere")["id"])
    dora = lodge.client("dora")
    assert "Nothing was used" in dora.get("/usage?period=90d").text
    assert "Nothing was used" in dora.get("/usage?period=90d&agent_key=hers").text
    assert dora.get("/usage/csv?period=90d").text.strip().count("\n") == 0


def test_what_had_no_price_is_pointed_out(lodge: Lodge) -> None:
    event = made(
        time.time_ns() // 1_000_000, lodge.home, Caller("key_free", "free"), random.Random(3),  # noqa: S311 - the same every time
        price_version=None, cost_nano=0, status="ok", input_tokens=7,
    )  # fmt: skip
    write(lodge.gateway, [event])
    assert "1 attempt had no price" in lodge.client("alice").get("/usage").text


def test_bad_periods_are_refused(lodge: Lodge) -> None:
    alice = lodge.client("alice")
    assert "Give a date" in alice.get("/usage?since=31.12.2026").text
    assert alice.get("/usage/csv?since=0001-01-01&until=9999-12-31").status_code == 422
    assert alice.get("/usage?by=nothing&show=nothing&period=nothing").status_code == 200
