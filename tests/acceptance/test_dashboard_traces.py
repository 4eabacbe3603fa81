"""Traces in the browser: a list that looks again by itself, its filters, and one call from beginning to end."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.acceptance.archive import HOSTILE, Caller, made, remember, write
from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import HOLD, LET_GO
from tests.servers import behaviours
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.upstream import Exchange, Upstream
from tests.servers.waiting import until
from tests.servers.wire import completion, usage, whole

MODEL = "openai-compatible/ok"
PROMPT = "The treasure lies under <script>alert(1)</script> the third oak."


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with behaviours.serving() as server:
        yield server


@pytest.fixture(scope="module")
def lodge(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path, upstream: Upstream
) -> Iterator[Lodge]:
    with making(tmp_path_factory.mktemp("traces"), canaries, shell, started) as maker:
        gateway = maker(allow=[upstream.origin])
        gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
        yield Lodge(gateway).open("alice", "bob")


def call(lodge: Lodge, secret: str, text: str = "Who keeps the door?", model: str = MODEL) -> str:
    """A call; its request id, when the ledger has it."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    answer = lodge.gateway.client(secret).post("/v1/chat/completions", json=body)
    found: str = answer.headers["x-request-id"]
    alice = lodge.client("alice")
    until(lambda: alice.get(f"/traces/{found}").status_code == 200, "the ledger")
    return found


def test_a_call_shows_up_by_itself_and_leads_to_its_trace(lodge: Lodge, window: Window) -> None:
    lodge.gateway.cli("keys", "create", "--name", HOSTILE, "--metadata", '{"team": "<b>search</b>"}')
    secret = lodge.gateway.json("keys", "rotate", HOSTILE)["secret"]
    lodge.gateway.hear()
    page = lodge.sign_in(window, "alice", "/traces")
    expect(page.get_by_role("heading", name="No calls in this period")).to_be_visible()
    window.axe("traces, none")
    request_id = call(lodge, secret)
    row = page.get_by_role("row").filter(has_text=HOSTILE)
    expect(row).to_have_count(1)
    expect(row).to_contain_text("ok")
    page.get_by_role("button", name="Pause").click()
    call(lodge, secret)
    page.wait_for_timeout(4_000)
    expect(page.get_by_role("row").filter(has_text=HOSTILE)).to_have_count(1)
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("row").filter(has_text=HOSTILE)).to_have_count(2)
    window.axe("traces")
    page.locator(f'#list a[href="/dashboard/traces/{request_id}"]').click()
    page.wait_for_url(lodge.url(f"/traces/{request_id}"))
    bars = page.get_by_role("table", name="The steps of this call in their order")
    expect(bars.get_by_role("rowheader", name="identify")).to_be_visible()
    expect(bars.get_by_role("img", name="Waiting for the provider")).to_be_visible()
    expect(page.get_by_text("<b>search</b>")).to_be_visible()
    expect(page.get_by_role("table", name="Tokens and cost of attempt 1 by kind")).to_contain_text("Output")
    expect(page.get_by_role("link", name="upstream")).to_be_visible()
    expect(page.get_by_text("Not kept: content is captured only for keys that say so.")).to_be_visible()
    window.axe("trace")
    window.picture("trace-light")


def test_a_pause_counts_for_what_was_asked_before_it(lodge: Lodge, window: Window) -> None:
    secret = lodge.gateway.create_key("during a pause")
    page = lodge.sign_in(window, "alice", "/traces")
    page.evaluate(HOLD)
    expect(page.locator("html")).to_have_attribute("data-asked", "1")
    page.get_by_role("button", name="Pause").click()
    shown = page.locator(f'#list a[href="/dashboard/traces/{call(lodge, secret)}"]')
    page.evaluate(LET_GO)
    expect(shown).to_have_count(0)
    page.get_by_role("button", name="Go on").click()
    expect(shown).to_have_count(1)


def test_filters_stand_in_the_address_and_pages_follow_each_other(lodge: Lodge, window: Window) -> None:
    written = remember(lodge.gateway, lodge.home, [Caller("key_past", "of the past"), Caller("key_x", "another")], 20)
    page = lodge.sign_in(window, "alice", "/traces")
    page.goto(lodge.url("/traces?period=30d&agent_key=of+the+past"))
    expect(page.get_by_label("Agent key", exact=True)).to_have_value("of the past")
    expect(page.get_by_role("row").filter(has_text="another")).to_have_count(0)
    page.get_by_label("Agent key", exact=True).fill("")
    page.get_by_label("Status", exact=True).select_option("error")
    page.wait_for_url("**/traces?*status=error*")
    expect(page.get_by_text("provider_error").first).to_be_visible()
    expect(page.get_by_role("row").filter(has=page.get_by_text("ok", exact=True))).to_have_count(0)
    page.reload()
    expect(page.get_by_label("Status", exact=True)).to_have_value("error")
    page.goto(lodge.url("/traces?period=all"))
    expect(page.get_by_role("row")).to_have_count(51)
    expect(page.get_by_label("Summary")).to_contain_text("Calls")
    window.axe("traces, many")
    window.picture("traces-light")
    window.dark()
    window.picture("traces-dark")
    window.light()
    window.narrow()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.picture("traces-narrow")
    window.wide()
    seen = 0
    while True:
        seen += page.get_by_role("row").count() - 1
        older = page.get_by_role("link", name="Older")
        if not older.count():
            break
        following = older.get_attribute("href")
        older.click()
        page.wait_for_url(f"{lodge.gateway.origin}{following}")  # the whole of it, to the last row
    assert seen >= written


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("min_cost_usd=lots", "Give dollars, such as 0.05."),
        ("min_latency_ms=-1", "Give a whole number from 0."),
        ("status=splendid", "A status is ok, error, cancelled, unknown."),
        ("since=yesterday", "Give a date such as 2026-11-20."),
        ("since=2026-11-20&until=2026-11-01", "This is before the first day."),
    ],
)
def test_a_filter_that_cannot_be_read_says_so(lodge: Lodge, query: str, said: str) -> None:
    answer = lodge.client("alice").get(f"/traces?{query}")
    assert answer.status_code == 200
    assert said in answer.text


def test_every_filter_finds_what_the_ledger_has(lodge: Lodge) -> None:
    now = time.time_ns() // 1_000_000
    chance = random.Random(1)  # noqa: S311 - the same every time
    odd = made(
        now - 5_000, lodge.home, Caller("key_odd", "odd one"), chance,
        request_id="req_odd", provider="mistral", model="odd-model", endpoint="odd-endpoint",
        provider_key_id="pkey_odd", status="cancelled", latency_ms=70_000, cost_nano=9_000_000_000,
    )  # fmt: skip
    write(lodge.gateway, [odd])
    alice = lodge.client("alice")
    for query in (
        *("agent_key=odd+one", "agent_key=key_odd", "provider_key=pkey_odd", "endpoint=odd-endpoint"),
        *("status=cancelled", "model=odd-model", "provider=mistral", "min_latency_ms=70000", "min_cost_usd=9"),
    ):
        shown = alice.get(f"/traces?{query}").text
        assert shown.count('href="/dashboard/traces/req_') == 1, query
        assert 'href="/dashboard/traces/req_odd"' in shown
        assert 'href="/dashboard/traces/req_odd"' not in alice.get(f"/traces?{query}x&period=1h&min_cost_usd=10").text
        summed = alice.get(f"/traces/summary?{query}").text
        assert "1 attempt<" in summed, query
        assert "$9" in summed


def test_the_parts_of_a_cost_come_to_it_as_they_stand(lodge: Lodge, window: Window) -> None:
    lodge.gateway.cli("prices", "set", MODEL, "--input", "1000", "--output", "2000")
    request_id = call(lodge, lodge.gateway.create_key("counted"))
    page = lodge.sign_in(window, "alice", f"/traces/{request_id}")
    costs = page.get_by_role("table", name="Tokens and cost of attempt 1 by kind")
    expect(costs.locator("tbody tr")).not_to_have_count(0)
    parts = [Decimal(one.removeprefix("$")) for one in costs.locator("tbody td:last-child").all_inner_texts()]
    assert len(parts) > 1
    expect(costs.locator("tfoot td").last).to_have_text(f"${sum(parts)}")


def test_the_summary_is_of_all_that_fits(lodge: Lodge, window: Window) -> None:
    now, chance = time.time_ns() // 1_000_000, random.Random(2)  # noqa: S311 - the same every time
    write(
        lodge.gateway,
        [
            made(
                now - number * 1_000, lodge.home, Caller("key_sum", "of the sum"), chance,
                latency_ms=number * 1_000, cost_nano=250_000_000, status="error" if number <= 3 else "ok",
            )
            for number in range(1, 21)
        ],
    )  # fmt: skip
    page = lodge.sign_in(window, "alice", "/traces?agent_key=of%20the%20sum")
    shown = page.get_by_label("Summary").locator("div")
    for number, words in enumerate(
        ("Calls20", "Error rate15 %3 failed", "Cost$5.00", "Average10.5 s", "p5010 s", "p9519 s")
    ):
        expect(shown.nth(number)).to_contain_text(words)
    page.get_by_label("Status", exact=True).select_option("error")
    for number, words in enumerate(("Calls3", "Error rate100 %", "Cost$0.75", "Average2 s")):
        expect(shown.nth(number)).to_contain_text(words)


def test_the_tail_goes_on_when_the_gateway_was_away(lodge: Lodge, window: Window) -> None:
    secret = lodge.gateway.create_key("back again")
    page = lodge.sign_in(window, "alice", "/traces")
    window.expect("ERR_CONNECTION_REFUSED", "Failed to fetch")
    page.evaluate(HOLD)
    expect(page.locator("html")).to_have_attribute("data-asked", "1")  # no look is on its way when it stops
    lodge.gateway.stop()
    page.evaluate("letGo()")
    expect(page.get_by_text("This page goes on looking.")).to_be_visible()
    lodge.gateway.start()
    expect(page.get_by_text("The gateway answers again.")).to_be_visible()
    request_id = call(lodge, secret)
    expect(page.locator(f'#list a[href="/dashboard/traces/{request_id}"]').first).to_be_visible()


def test_what_was_said_is_shown_on_request_and_that_is_written_down(lodge: Lodge, window: Window) -> None:
    secret = lodge.gateway.create_key("open", "--capture")
    request_id = call(lodge, secret, PROMPT)
    page = lodge.sign_in(window, "alice", f"/traces/{request_id}")
    assert PROMPT not in page.content()
    page.get_by_role("button", name="Show what was asked and answered").click()
    expect(page.get_by_label("What was asked")).to_contain_text(PROMPT)
    window.axe("content")
    [row] = lodge.gateway.json("audit", "list", "--limit", "1")
    assert (row["deed"], row["target"]["id"], row["origin"]) == ("traces.content", request_id, "dashboard")


def test_what_was_asked_and_answered_is_text(lodge: Lodge, window: Window, upstream: Upstream) -> None:
    evil = f"{HOSTILE}</pre><script>alert(2)</script><b x-init=alert(3) hx-get=/dashboard hx-trigger=load>b</b>"

    async def answer(exchange: Exchange) -> None:
        body = completion(exchange.request, usage(), evil)
        await exchange.send(whole(200, json.dumps(body).encode()))

    upstream.push(answer)
    request_id = call(lodge, lodge.gateway.create_key("evil", "--capture"), evil)
    page = lodge.sign_in(window, "alice", f"/traces/{request_id}")
    page.get_by_role("button", name="Show what was asked and answered").click()
    for label in ("What was asked", "What was answered"):
        shown = page.get_by_label(label)
        expect(shown).to_contain_text("onerror=alert(1)>")
        expect(shown).to_contain_text("</pre><script>alert(2)</script><b x-init=alert(3)")
        assert shown.locator("*").count() == 0


def test_who_may_see_what(lodge: Lodge) -> None:
    gateway = lodge.gateway
    of_alice = call(lodge, gateway.create_key("hers", "--owner", "alice@example.org", "--capture"))
    of_bob = call(lodge, gateway.create_key("his", "--owner", "bob@example.org", "--capture"))
    other = gateway.json("orgs", "create", "Elsewhere")["id"]
    lodge.admit("dora", "owner", other)
    bob, dora = lodge.client("bob"), lodge.client("dora")
    listed = bob.get("/traces").text
    assert of_bob in listed
    assert of_alice not in listed
    assert of_alice not in bob.get("/traces?agent_key=hers").text
    gateway.create_key("hi", "--owner", "alice@example.org", "--org", lodge.home)
    assert of_bob in bob.get("/traces?agent_key=hi").text, "a part of his own key's name, whoever's key has it whole"
    assert bob.get(f"/traces/{of_bob}").status_code == 200
    assert bob.get(f"/traces/{of_alice}").status_code == 403
    assert bob.post(f"/traces/{of_alice}/content").status_code == 403
    for request_id in (of_alice, "req_nothing", "%00", "x" * 3_000):
        assert dora.get(f"/traces/{request_id}").status_code == 404
        assert dora.post(f"/traces/{request_id}/content").status_code == 404
    assert of_alice not in dora.get("/traces?period=all").text
    assert lodge.client().get("/traces").status_code == 303


def test_a_cursor_from_elsewhere_is_refused(lodge: Lodge) -> None:
    alice = lodge.client("alice")
    for cursor in ("x", "W10", "WzEsMiwzXQ", "A" * 5_000):
        assert alice.get(f"/traces?cursor={cursor}").status_code == 422


def test_a_call_by_an_organizations_own_server_says_which(lodge: Lodge, window: Window) -> None:
    made = lodge.gateway.json("credentials", "create", "nightly batch", "--org", lodge.home)
    until(
        lambda: lodge.gateway.client(made["secret"]).get("/v1/key").status_code == 200, "the credential to be heard of"
    )
    request_id = call(lodge, made["secret"])
    page = lodge.sign_in(window, "alice", "/traces")
    expect(page.get_by_role("row").filter(has_text="client nightly batch")).to_have_count(1)
    page.goto(lodge.url(f"/traces/{request_id}"))
    expect(page.get_by_role("term").filter(has_text="Client credential")).to_be_visible()
    expect(page.get_by_role("definition").filter(has_text="nightly batch")).to_be_visible()
    [attempt] = lodge.gateway.json("traces", "show", request_id, "--org", lodge.home)["attempts"]
    assert (attempt["credential"], attempt["agent_key"]) == ("nightly batch", None)
    assert "nightly batch" in lodge.gateway.cli("traces", "--org", lodge.home).out
    assert "client credential" in lodge.gateway.cli("traces", "show", request_id, "--org", lodge.home).out
