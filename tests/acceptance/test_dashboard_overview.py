"""The first page: three steps where nothing is yet, then how everything is; and jumping to anything by its name."""

from __future__ import annotations

import json
import random
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from ostiary.dashboard.words import lasting, percent
from ostiary.money import NANO_PER_USD
from tests.acceptance.archive import HOSTILE, Caller, made, remember, write
from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import HOLD, LET_GO
from tests.servers import behaviours
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with behaviours.serving() as server:
        yield server


@pytest.fixture(scope="module")
def lodge(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path, upstream: Upstream
) -> Iterator[Lodge]:
    with making(tmp_path_factory.mktemp("overview"), canaries, shell, started) as maker:
        yield Lodge(maker(allow=[upstream.origin])).open("alice", "bob")


def test_an_empty_instance_shows_three_steps_and_ticks_them_one_by_one(
    lodge: Lodge, window: Window, upstream: Upstream
) -> None:
    gateway = lodge.gateway
    page = lodge.sign_in(window, "alice")
    steps = page.get_by_role("main").get_by_role("listitem")
    expect(steps).to_have_count(3)
    expect(steps.first.get_by_role("link", name="Add a provider key")).to_have_attribute("href", "/dashboard/vault/new")
    expect(page.get_by_text("Done.")).to_have_count(0)
    window.axe("first steps")
    window.picture("overview-first")
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    page.reload()
    expect(steps.first).to_contain_text("Done.")
    expect(page.locator("[aria-current=step]")).to_contain_text("Create an agent key")
    secret = gateway.create_key("first")
    page.reload()
    expect(page.get_by_text("Done.")).to_have_count(2)
    expect(page.locator("[aria-current=step]").get_by_role("link")).to_have_attribute("href", "/dashboard/playground")
    assert gateway.chat(secret, "openai-compatible/ok").status_code == 200
    page.reload()
    expect(page.get_by_role("heading", name="Spend by model, last 30 days")).to_be_visible()
    expect(page.get_by_text("Done.")).to_have_count(0)


@pytest.mark.usefixtures("one_day")
def test_the_overview_says_how_everything_is_and_leads_to_what_mends_it(lodge: Lodge, window: Window) -> None:
    gateway = lodge.gateway
    gateway.cli("keys", "create", "--name", "ends soon", "--expires", "3d")
    gateway.cli("keys", "create", "--name", HOSTILE, "--budget-usd", "0.01", "--owner", "alice@example.org")
    keys = {one["name"]: one["id"] for one in gateway.json("keys", "list")}
    callers = [Caller(keys["ends soon"], "ends soon"), Caller(keys[HOSTILE], HOSTILE)]
    written = remember(gateway, lodge.home, callers)
    _spend_now(lodge, callers[1])
    page = lodge.sign_in(window, "alice")
    trouble = page.get_by_role("region", name="Needs attention")
    ending = trouble.get_by_role("link", name="ends soon")
    expect(ending).to_contain_text("Agent key expires in 3 d.")
    expect(ending).to_have_attribute("href", f"/dashboard/keys/{keys['ends soon']}")
    expect(trouble.get_by_role("link", name=HOSTILE)).to_contain_text("of $0.01 spent")
    chart = json.loads(page.locator("#spend-data").inner_text())
    assert next(one["name"] for one in chart["series"]).startswith(("openai/", "anthropic/"))
    assert len(chart["labels"]) == 30
    assert sum(sum(one["data"]) for one in chart["series"]) / NANO_PER_USD == pytest.approx(_spent(lodge), rel=1e-6)
    models = page.get_by_role("table", name="The dearest models of the last 30 days")
    expect(models.get_by_role("link", name="gpt-4o")).to_be_visible()
    expect(page.get_by_role("table", name="The agent keys that have spent most")).to_contain_text(HOSTILE)
    expect(page.get_by_role("region", name="Provider keys")).to_contain_text("healthy 1")
    serving = page.get_by_role("region", name="Gateways").get_by_role("listitem")
    expect(serving).to_have_count(1)
    expect(serving).to_contain_text("live")
    expect(serving.get_by_role("link")).to_have_attribute("href", "/dashboard/settings/gateways")
    assert written > 100
    window.axe("overview")
    window.picture("overview-light")
    window.dark()
    window.picture("overview-dark")
    window.light()
    window.narrow()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.picture("overview-narrow")


def test_budgets_need_attention_by_thresholds_of_their_own(lodge: Lodge, window: Window) -> None:
    """A key's, and the organization's; each is listed while its spend is beyond the last of its thresholds."""
    gateway, id_ = lodge.gateway, _id_of(lodge, "ends soon")
    spent, whole = _spent_of(lodge, "agent_key", id_), _spent_of(lodge, "organization", lodge.home)
    budget = ("--budget-usd", f"{spent * 1.9:.6f}", "--budget-period", "total")
    all_of_it = ("--budget-usd", f"{whole * 1.9:.6f}", "--budget-period", "total")
    page = lodge.sign_in(window, "alice")
    trouble = page.get_by_role("region", name="Needs attention")
    for threshold, is_listed in (("40", True), ("60", False), ("20,40,90", False), ("20,40", True)):
        gateway.cli("keys", "edit", id_, *budget, "--alert-at", threshold)
        gateway.cli("orgs", "edit", lodge.home, *all_of_it, "--alert-at", threshold)
        page.reload()
        for said in (re.compile("Agent key: .* 52 %"), re.compile("Organization: .* 52 %")):
            expect(trouble.get_by_role("link").filter(has_text=said)).to_have_count(int(is_listed))
    of_it = trouble.get_by_role("link").filter(has_text="Organization: ")
    expect(of_it).to_have_attribute("href", "/dashboard/settings#budget-title")
    window.axe("budgets that need attention")
    window.picture("overview-budgets")
    gateway.cli("keys", "edit", id_, *budget, "--alert-at", "90", "--soft-budget-usd", f"{spent / 2:.6f}")
    gateway.cli("orgs", "edit", lodge.home, "--budget-usd", "none")
    page.reload()
    expect(trouble).to_contain_text(re.compile(r"Agent key: .* 52 %\. Its soft limit of \$\S+ is passed\."))
    expect(of_it).to_have_count(0)


@pytest.mark.usefixtures("one_day")
def test_figures_are_those_of_the_ledger(lodge: Lodge, window: Window) -> None:
    """Counted here from its single rows."""
    page = lodge.sign_in(window, "alice")
    now = datetime.now(UTC)
    began = int(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)
    month = _rows(lodge, "SELECT request_id, status FROM usage_events WHERE started_at >= ?", began)
    calls, failed = len({request for request, _ in month}), sum(status == "error" for _, status in month)
    assert failed > 0
    day_ago = int((now - timedelta(days=1)).timestamp() * 1000)
    times = [row[0] for row in _rows(lodge, "SELECT latency_ms FROM usage_events WHERE started_at >= ?", day_ago)]
    p50, p95 = (sorted(times)[max(0, ceil(len(times) * part) - 1)] for part in (0.5, 0.95))
    figures = page.get_by_label("This month", exact=True)
    expect(figures.get_by_role("link", name=f"{calls}", exact=True)).to_have_attribute(
        "href", "/dashboard/usage?period=month&show=requests"
    )
    errors = figures.get_by_role("link", name=percent(failed / len(month)), exact=True)
    expect(figures).to_contain_text(f"{failed} of {len(month)} attempts")
    expect(figures).to_contain_text(f"{lasting(p50)}half are quicker; p95 {lasting(p95)}")
    errors.click()
    page.wait_for_url(lodge.url("/traces?status=error&period=month"))
    expect(page.locator("#list tbody tr").filter(has_text="error")).to_have_count(failed)


def test_figures_lead_to_what_they_are_about(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice")
    health = page.get_by_role("region", name="Provider keys").get_by_role("link")
    expect(health).to_have_attribute("href", "/dashboard/vault?status=healthy")
    slow = page.locator("a[href*=min_latency_ms]")
    expect(slow).to_have_count(2)
    shown = slow.last.inner_text()
    slow.last.click()
    page.wait_for_url(re.compile(r"/traces\?period=24h&min_latency_ms=\d+$"))
    rows = page.locator("#list tbody tr")
    expect(rows.filter(has_text=shown)).not_to_have_count(0)
    page.goto(lodge.url("/vault?status=healthy"))
    expect(page.get_by_role("link", name="upstream", exact=True)).to_be_visible()
    page.goto(lodge.url("/vault?status=exhausted"))
    expect(page.get_by_role("link", name="upstream", exact=True)).to_have_count(0)


def _spend_now(lodge: Lodge, caller: Caller) -> None:
    """A dear call and one that failed: on the first of a month the past has none of that month."""
    now, chance = time.time_ns() // 1_000_000, random.Random(1)  # noqa: S311 - the same every time
    dear = {"status": "ok", "http_status": 200, "error_code": None, "cost_nano": NANO_PER_USD // 80}
    wrong = {"status": "error", "http_status": 500, "error_code": "provider_error", "cost_nano": 0}
    write(lodge.gateway, [made(now, lodge.home, caller, chance, **how) for how in (dear, wrong)])


def _rows(lodge: Lodge, query: str, *values: object) -> list[Any]:
    """Of the organization's ledger."""
    with closing(sqlite3.connect(lodge.gateway.data_dir / "ostiary.db")) as database:
        return database.execute(f"{query} AND organization_id = ?", (*values, lodge.home)).fetchall()


def _id_of(lodge: Lodge, name: str) -> str:
    return next(str(one["id"]) for one in lodge.gateway.json("keys", "list") if one["name"] == name)


def _spent_of(lodge: Lodge, scope: str, id_: str) -> float:
    """In total, as the authority over money has it."""
    with closing(sqlite3.connect(lodge.gateway.data_dir / "ostiary.db")) as database:
        query = "SELECT spent_nano FROM accounts WHERE scope = ? AND id = ? AND period_id = 'total'"
        return float(database.execute(query, (scope, id_)).fetchone()[0]) / NANO_PER_USD


def _spent(lodge: Lodge) -> float:
    """The last 30 UTC days, as the command adds them up."""
    first = (datetime.now(UTC) - timedelta(days=29)).date().isoformat()
    rows = lodge.gateway.json("usage", "--since", "40d", "--by", "day")
    return sum(float(row["cost_usd"]) for row in rows if row["day"] >= first)


def test_a_member_sees_their_own_only(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "bob")
    steps = page.get_by_role("main").get_by_role("listitem")
    expect(steps).to_have_count(3)
    expect(steps.first).to_contain_text("Done.")
    expect(steps.nth(1)).not_to_contain_text("Done.")
    assert HOSTILE not in page.content()
    expect(page.get_by_role("region", name="Gateways")).to_have_count(0)
    page.keyboard.press("Control+k")
    page.evaluate(HOLD)
    page.get_by_role("searchbox", name="Where to?").fill("soon")
    expect(page.locator("html")).to_have_attribute("data-asked", "1")
    page.evaluate(LET_GO)
    assert "ends soon" not in page.locator("#jump-found").inner_text()


def test_one_jumps_anywhere_by_typing(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice")
    page.keyboard.press("Meta+k")
    box = page.get_by_role("searchbox", name="Where to?")
    found = page.locator("#jump-found")
    for sought, kind in (
        ("ends so", "agent key"),
        ("upstr", "provider key"),
        ("gpt-4o-min", "model"),
        ("img src", "agent key"),
    ):
        box.fill(sought)
        expect(found.get_by_role("link").first).to_contain_text(kind)
    window.axe("jump")
    box.fill("ends soon")
    expect(found.get_by_role("link")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(lodge.url("/keys/*"))
    expect(page.get_by_role("heading", name="ends soon")).to_be_visible()


def test_pages_and_people_are_jumped_to_by_who_may_see_them(lodge: Lodge, upstream: Upstream) -> None:
    """What leads on is the thing itself, not a list it stands in."""
    gateway = lodge.gateway
    gateway.json("webhooks", "create", "--name", "pager", "--url", upstream.url, "--org", lodge.home)
    alias = gateway.json("aliases", "create", "ostiary/chat", "--target", "openai-compatible/ok")
    [hook] = gateway.json("webhooks", "list", "--org", lodge.home)
    users = {one["email"]: one["id"] for one in gateway.json("members", "list", "--org", lodge.home)}
    sought = {
        "account": "/account",
        "catalog": "/vault/providers",
        "import": "/vault/import",
        "of members": "/settings/members/agents",
        "bob@exam": f"/settings/members/{users['bob@example.org']}",
        "pager": f"/settings/webhooks/{hook['id']}",
        "ostiary/chat": f"/endpoints/aliases/{alias['id']}",
        "master": "/operator/master-key",
        "recost": "/operator/prices/recost",
    }
    of_members = {"account", "catalog", "ostiary/chat"}
    of_operators = {"master", "recost"}
    alice, bob = lodge.client("alice"), lodge.client("bob")
    for text, path in sought.items():
        for who, may in ((alice, text not in of_operators), (bob, text in of_members)):
            answer = who.http.get("/dashboard/jump", params={"q": text})
            assert (f'href="/dashboard{path}"' in answer.text) == may, (text, may)
            if may:
                assert who.get(path).status_code == 200
    gateway.cli("users", "operator", "bob@example.org")
    for text in of_operators:
        assert sought[text] in lodge.client("bob").http.get("/dashboard/jump", params={"q": text}).text
    gateway.cli("users", "operator", "bob@example.org", "--off")


def test_typing_wildcards_and_whole_books_breaks_nothing(lodge: Lodge) -> None:
    alice = lodge.client("alice")
    for sought in ("%", "_", "'", '"><script>', "x" * 4_000, "\u202e", "req_nothing", " "):
        answer = alice.http.get("/dashboard/jump", params={"q": sought})
        assert answer.status_code == 200
        assert "<script" not in answer.text
    assert "/dashboard/traces/req_nothing" in alice.http.get("/dashboard/jump", params={"q": "req_nothing"}).text
    assert alice.http.get("/dashboard/jump", params={"q": "a\0b"}).status_code == 422
