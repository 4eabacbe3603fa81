"""The audit log in the browser: who did what, what that changed, and the proof that nobody rewrote it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.archive import HOSTILE
from tests.acceptance.lodge import Lodge
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell


@pytest.fixture(scope="module")
def lodge(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Lodge]:
    with making(tmp_path_factory.mktemp("audit"), canaries, shell, started) as maker:
        lodge = Lodge(maker()).open("alice", "bob")
        lodge.gateway.cli("keys", "create", "--name", HOSTILE, "--rpm", "10")
        lodge.gateway.cli("keys", "edit", HOSTILE, "--rpm", "20")
        yield lodge


def test_rows_lead_to_what_a_deed_has_changed(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/audit")
    row = page.get_by_role("row").filter(has_text="agent_keys.edit")
    expect(row).to_contain_text(HOSTILE)
    window.axe("audit")
    window.picture("audit-light")
    window.narrow()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.wide()
    page.get_by_label("Deed").select_option("agent_keys.create")
    page.wait_for_url("**/audit?*deed=agent_keys.create*")
    expect(page.get_by_role("row").filter(has_text="agent_keys.edit")).to_have_count(0)
    page.get_by_label("Deed").select_option("agent_keys.edit")
    expect(page.get_by_role("row").filter(has_text="agent_keys.create")).to_have_count(0)
    page.get_by_role("link", name="ago").or_(page.get_by_role("link", name="just now")).first.click()
    expect(page.get_by_role("heading", name="agent_keys.edit")).to_be_visible()
    changed = page.get_by_role("table", name="Fields before and after").get_by_role("row").nth(1)
    expect(changed).to_contain_text("rpm")
    expect(changed.locator("del")).to_have_text("10")
    expect(changed.locator("ins")).to_have_text("20")
    window.axe("deed")
    window.picture("audit-deed")
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.get_by_role("row").filter(has_text="agent_keys.create")).to_have_count(1)


def test_filters_find_who_and_what_was_denied(lodge: Lodge) -> None:
    alice, bob = lodge.client("alice"), lodge.client("bob")
    assert bob.get("/audit").status_code == 403
    path = "/dashboard/audit?result=denied&actor=bob@example.org"
    denied = alice.http.get(path, headers={"hx-request": "true"}).text
    assert "audit.show" in denied
    assert "agent_keys.edit" not in denied
    assert "Nothing fits" in alice.get("/audit?result=denied&actor=alice@example.org").text
    assert "Nothing fits" in alice.get("/audit?target=nothing-of-this-name").text
    assert "Give a date" in alice.get("/audit?since=soon").text
    assert alice.get("/audit?cursor=x").status_code == 422
    assert alice.get("/audit?actor=" + "x" * 5_000).status_code == 200


def test_pages_go_on_where_the_last_one_ended(lodge: Lodge) -> None:
    lodge.admit("carol")
    for name in ("bob", "carol"):
        visitor = lodge.client(name)
        for _ in range(30):
            assert visitor.get("/audit").status_code == 403
    alice = lodge.client("alice")
    first = alice.get("/audit")
    older = first.text.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0].replace("&amp;", "&")
    second = alice.http.get(older)
    numbers = [
        {int(part.partition('"')[0]) for part in page.text.split("/dashboard/audit/")[1:] if part[0].isdigit()}
        for page in (first, second)
    ]
    assert len(numbers[0]) == 50
    assert max(numbers[1]) < min(numbers[0])


def test_rows_of_others_are_not_there(lodge: Lodge) -> None:
    lodge.admit("dora", "owner", lodge.gateway.json("orgs", "create", "Elsewhere")["id"])
    [row] = lodge.gateway.json("audit", "list", "--deed", "agent_keys.edit")
    assert lodge.client("alice").get(f"/audit/{row['seq']}").status_code == 200
    dora = lodge.client("dora")
    for seq in (row["seq"], "0", "x", "99999999999999999999", "%C2%B2"):
        assert dora.get(f"/audit/{seq}").status_code == 404
    assert HOSTILE not in dora.get("/audit").text
    assert lodge.client("bob").post("/audit/verify").status_code == 403


def test_the_proof_says_when_somebody_has_been_at_the_log(lodge: Lodge, window: Window) -> None:
    page = lodge.sign_in(window, "alice", "/audit")
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text("rows are as they were written.")).to_be_visible()
    window.axe("verified")
    with closing(sqlite3.connect(lodge.gateway.data_dir / "ostiary.db", timeout=10)) as database, database:
        database.execute("UPDATE audit SET actor_name = 'nobody' WHERE deed = 'agent_keys.edit'")
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text("Somebody has been at the audit log.")).to_be_visible()
    expect(page.get_by_text("was changed, or does not stand where it was written")).to_be_visible()
    window.axe("not verified")
