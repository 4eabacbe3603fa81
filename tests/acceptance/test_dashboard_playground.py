"""The playground in the browser: a conversation through /v1, what it cost, and the same call as code."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page

from tests.acceptance.pages import LINGER, PASSWORD, Reception
from tests.servers import node
from tests.servers.behaviours import refuse
from tests.servers.browser import Window, Windows, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, making
from tests.servers.shell import Shell
from tests.servers.upstream import Exchange, Upstream
from tests.servers.wire import (
    COMPLETION_TOKENS,
    DONE,
    LAST,
    PROMPT_TOKENS,
    TEXT,
    chunk,
    completion,
    event,
    framed,
    stream_head,
    usage,
    whole,
)

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>'\"\\ $(id) `id`"
EVIL = (
    "<img src=x onerror=alert(1)><script>alert(2)</script></p></template><svg onload=alert(3)></svg>"
    "<b x-init=alert(4) hx-get=/dashboard hx-trigger=load>b</b>"
    "<a href=javascript:alert(5)>a</a>'\"&amp;{{7*7}}${alert(6)}"
)
MINT = """
(ids) => Promise.all(ids.map(async (key) => {
  const headers = {"X-CSRF-Token": document.querySelector("meta[name=csrf]").content, "HX-Request": "true"}
  const body = new URLSearchParams({key})
  const answer = await fetch("/dashboard/playground/key", {method: "POST", headers, body})
  return [answer.status, await answer.text()]
}))
"""
MINT_WITHOUT_TOKEN = """
async (key) => (await fetch("/dashboard/playground/key", {method: "POST", body: new URLSearchParams({key})})).status
"""
PEOPLE = {"alice": "owner", "bob": "member"}


@pytest.fixture(scope="module")
def reception(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, shared_upstream: Upstream
) -> Iterator[Reception]:
    """Alice and Bob, each with an agent key; a provider that does what its model says, with prices."""
    with making(tmp_path_factory.mktemp("playground"), canaries, shell) as maker:
        gateway = maker(allow=[shared_upstream.origin])
        gateway.add_provider_key("openai-compatible", "upstream", shared_upstream.url)
        for name, role in PEOPLE.items():
            gateway.cli("members", "add", f"{name}@example.org", "--role", role)
            gateway.cli("users", "set-password", f"{name}@example.org", "--secret-stdin", stdin=PASSWORD)
            gateway.json("keys", "create", "--name", f"{name}'s key", "--owner", f"{name}@example.org")
        for model in ("ok", "gated"):
            gateway.cli("prices", "set", f"openai-compatible/{model}", "--input", "1000", "--output", "1000")
        gateway.cli("endpoints", "create", "my route", "--target", "openai-compatible/ok")
        yield Reception(gateway)


def said(page: Page) -> Locator:
    """The newest answer."""
    return page.locator("[data-answer]").last


def say(page: Page, text: str) -> None:
    """Type it and send it."""
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def choose(page: Page, model: str) -> None:
    """Write a model's name."""
    page.get_by_label("Model, endpoint or alias").fill(model)


def minted(gateway: Gateway) -> int:
    """How many children agent keys have."""
    return sum(one["parent_id"] is not None for one in gateway.json("keys", "list"))


def test_a_conversation_by_a_key_of_mine(reception: Reception, window: Window) -> None:
    page = reception.sign_in(window, "bob", "/playground")
    expect(page.get_by_label("Which").locator("option")).to_have_text(["bob's key"])
    window.axe("playground")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Name a model, an endpoint or an alias.")).to_be_visible()
    field = page.get_by_label("Model, endpoint or alias")
    field.fill("route")
    expect(page.locator("#askable option").first).to_have_attribute("value", "my route")
    choose(page, "my route")
    page.get_by_label("System message").fill("Be brief.")
    page.get_by_label("Most tokens of the answer").fill("50")
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, HOSTILE)
    expect(said(page)).to_have_text(TEXT)
    call = page.locator("#call-1")
    expect(call.get_by_text("my route → openai-compatible/ok by upstream")).to_be_visible()
    expect(call.locator("[data-cost]")).to_have_text("$0.02")
    expect(call).to_contain_text(f"{PROMPT_TOKENS} in, {COMPLETION_TOKENS} out")
    answer = asked.value.response()
    assert answer is not None
    request_id = answer.header_value("x-request-id")
    expect(call.get_by_role("link", name="Trace")).to_have_attribute("href", f"/dashboard/traces/{request_id}")
    body: Any = asked.value.post_data_json
    first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": HOSTILE}]
    assert (body["messages"], body["max_tokens"]) == (first, 50)
    assert asked.value.header_value("cookie") is None
    with page.expect_request("**/v1/chat/completions") as asked:
        say(page, "And then?")
    expect(page.locator("#call-2").locator("[data-cost]")).to_be_visible()
    body = asked.value.post_data_json
    assert body["messages"] == [
        *first,
        {"role": "assistant", "content": TEXT},
        {"role": "user", "content": "And then?"},
    ]
    assert minted(reception.gateway) == 1  # one for both calls
    window.axe("playground, two turns")
    window.picture("playground")
    window.dark()
    window.picture("playground-dark")
    window.narrow()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    window.picture("playground-narrow")
    window.wide()
    window.light()
    page.get_by_role("button", name="Start anew").click()
    expect(page.get_by_text("Nothing was said yet.")).to_be_visible()


def test_the_page_of_a_key_leads_to_a_call_by_it(reception: Reception, window: Window) -> None:
    reception.gateway.create_key("before others")
    reception.gateway.create_key("to be called by")
    page = reception.sign_in(window, "alice", "/keys?q=called")
    page.get_by_role("link", name="to be called by", exact=True).click()
    page.get_by_role("link", name="Call for real").click()
    expect(page.get_by_label("Which").locator("option:checked")).to_contain_text("to be called by")


def test_what_was_minted_is_nowhere_but_in_the_page(reception: Reception, window: Window) -> None:
    page = reception.sign_in(window, "bob", "/playground")
    choose(page, "openai-compatible/ok")
    with page.expect_response("**/dashboard/playground/key") as answered:
        say(page, "Hello")
    expect(said(page)).to_have_text(TEXT)
    answer = answered.value
    told = answer.json()
    reception.gateway.canaries.watch(told["secret"])
    assert told["secret"].startswith("ost_eph_")
    assert 0 < told["lasts_ms"] <= 300_000
    assert answer.header_value("cache-control") == "no-store"
    assert told["secret"] not in page.content()
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])")
    assert told["secret"] not in kept
    assert told["secret"] not in reception.gateway.output


def test_a_child_that_has_ended_is_followed_by_another(reception: Reception, window: Window) -> None:
    gateway = reception.gateway
    page = window.page
    page.clock.install()
    reception.sign_in(window, "bob", "/playground?model=openai-compatible/ok")
    before = minted(gateway)
    for number, minutes in enumerate((0, 4, 1), 1):
        page.clock.fast_forward(minutes * 60_000)
        say(page, f"Hello {number}")
        expect(page.locator(f"#call-{number}").get_by_role("link", name="Trace")).to_be_visible()
    assert minted(gateway) == before + 2, "the first lasts for four minutes, not for five"
    for one in gateway.json("keys", "list"):
        if one["parent_id"] is not None and one["status"] == "active":
            gateway.cli("keys", "revoke", one["id"])
    gateway.hear()
    window.expect("401")
    say(page, "Stopped by somebody")
    expect(page.get_by_text("Refused: invalid_api_key")).to_be_visible()
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#call-5").get_by_role("link", name="Trace")).to_be_visible()
    expect(said(page)).to_have_text(TEXT)


def test_a_pasted_key_stays_in_the_page_and_refusals_are_plain(reception: Reception, window: Window) -> None:
    gateway = reception.gateway
    secret = gateway.create_key("narrow", "--models", "openai-compatible/ok")
    page = reception.sign_in(window, "bob", "/playground")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    page.get_by_label("Paste one").check()
    choose(page, "openai-compatible/ok")
    say(page, "Hello")
    expect(page.get_by_text("Paste an agent key first.")).to_be_visible()
    page.get_by_label("Pasted agent key").fill("kein Schlüssel")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("This is no agent key: it holds characters that none has.")).to_be_visible()
    window.expect("401")
    page.get_by_label("Pasted agent key").fill("ost_pat_wrong")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Refused: invalid_token_format")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_have_value("Hello")
    window.axe("playground, refused")
    page.get_by_label("Pasted agent key").fill(secret)
    page.get_by_role("button", name="Send").click()
    expect(said(page)).to_have_text(TEXT)
    # Whose calls Bob may not look at has no trace for him.
    expect(page.get_by_text("This organization has no trace of it")).to_be_visible(timeout=20_000)
    window.expect("403")
    choose(page, "openai-compatible/gated")
    say(page, "Hello")
    expect(page.get_by_text("Refused: model_not_allowed")).to_be_visible()
    window.expect("502")
    assert {url.removeprefix(gateway.origin) for url in asked} == {"/v1/chat/completions"}
    page.get_by_label("One of mine").check()
    choose(page, "openai-compatible/status-500")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Refused: provider_error")).to_be_visible()
    expect(page.locator("#call-4").get_by_role("link", name="Trace")).to_be_visible()


def test_a_stream_can_be_stopped_and_may_break(reception: Reception, window: Window) -> None:
    page = reception.sign_in(window, "alice", "/playground?model=openai-compatible/gated")
    expect(page.get_by_label("Which").locator("option:checked")).to_have_text("alice's key")
    say(page, "Wait for it")
    expect(said(page)).to_have_text("The")
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped.")).to_be_visible()
    expect(page.locator("#call-1").get_by_text("cancelled")).to_be_visible()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    choose(page, "openai-compatible/error-in-stream")
    say(page, "Break")
    expect(page.get_by_role("heading", name="The answer broke off")).to_be_visible()
    expect(page.locator("#call-2").get_by_text("error", exact=True)).to_be_visible()
    choose(page, "openai-compatible/byte-by-byte")
    say(page, "In pieces")
    expect(said(page)).to_have_text(TEXT)


async def in_a_stream(exchange: Exchange) -> None:
    """A model whose words would run if they were ever taken for markup, cut where they hurt."""
    request = exchange.request
    middle = len(EVIL) // 2
    parts = [chunk(request, {"content": text}) for text in ("", EVIL[:4], EVIL[4:middle], EVIL[middle:])]
    last = [chunk(request, {}, "stop"), chunk(request, None, usage=usage())]
    await exchange.send(stream_head(), *(framed(event(one)) for one in (*parts, *last)), framed(DONE), LAST)


async def as_a_whole(exchange: Exchange) -> None:
    """The same in one answer, as models do that do not stream."""
    await exchange.send(whole(200, json.dumps(completion(exchange.request, usage(), EVIL)).encode()))


async def as_an_error(exchange: Exchange) -> None:
    """The same as what went wrong after the first word."""
    request = exchange.request
    parts = (chunk(request, {"content": "So"}), {"error": {"message": EVIL, "type": "server_error"}})
    await exchange.send(stream_head(), *(framed(event(one)) for one in parts), LAST)


def test_what_a_model_or_a_provider_says_is_text(
    reception: Reception, window: Window, shared_upstream: Upstream
) -> None:
    page = reception.sign_in(window, "alice", "/playground?model=openai-compatible/ok")
    for number, behaviour in enumerate((in_a_stream, as_a_whole), 1):
        shared_upstream.push(behaviour)
        say(page, f"Evil {number}")
        expect(said(page)).to_have_text(EVIL)
        expect(page.locator(f"#call-{number}").locator("[data-cost]")).to_be_visible()
    shared_upstream.push(as_an_error)
    say(page, "Break")
    expect(page.get_by_role("heading", name="The answer broke off")).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text=EVIL)).to_be_visible()
    window.expect("400")
    shared_upstream.push(refuse(400, EVIL))
    say(page, "Refuse")
    expect(page.get_by_role("heading", name="Refused: invalid_request")).to_be_visible()
    expect(page.get_by_role("alert").filter(has_text=EVIL)).to_have_count(2)
    assert page.locator("[role=log] img, [role=log] script, [role=log] a[href^=javascript], [role=log] b").count() == 0
    texts = page.get_by_label("Snippet").inner_text()
    assert "onerror" in texts, "it is said again as what was answered before"
    assert page.get_by_label("Snippet").locator("img, script").count() == 0


def test_snippets_are_this_very_call(
    reception: Reception, window: Window, shared_upstream: Upstream, tmp_path: Path
) -> None:
    gateway = reception.gateway
    secret = gateway.create_key("snippets")
    page = reception.sign_in(window, "alice", "/playground")
    choose(page, "my route")
    page.get_by_label("Message", exact=True).fill(HOSTILE)
    page.get_by_label("Most tokens of the answer").fill("9")
    texts = {}
    page.evaluate(LINGER)
    for language in ("curl", "Python", "TypeScript"):
        page.get_by_role("button", name=language, exact=True).click()
        page.get_by_role("button", name="Copy", exact=True).click()
        expect(page.get_by_role("button", name="Copied!")).to_be_visible()
        texts[language] = page.evaluate("navigator.clipboard.readText()")
        page.evaluate("pass()")
        expect(page.get_by_role("button", name="Copy", exact=True)).to_be_visible()
    assert all(text.count("YOUR_AGENT_KEY") == 1 for text in texts.values())
    (tmp_path / "node_modules").symlink_to(node.package("openai").parent)
    programs = {
        "curl": ["/bin/sh", "-s"],
        "Python": [sys.executable, "-"],
        "TypeScript": [str(node.NODE), "--input-type=module-typescript", "-"],
    }
    for language, program in programs.items():
        text = texts[language].replace("YOUR_AGENT_KEY", secret)
        ran = subprocess.run(program, input=text, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert ("[DONE]" if language == "curl" else TEXT) in ran.stdout
        sent = shared_upstream.calls[-1].json
        assert (sent["messages"], sent["max_tokens"]) == ([{"role": "user", "content": HOSTILE}], 9)


def test_nobody_mints_from_a_key_that_is_not_theirs(reception: Reception, window: Window) -> None:
    gateway = reception.gateway
    keys = {one["name"]: one["id"] for one in gateway.json("keys", "list")}
    gateway.json("keys", "create", "--name", "stopped", "--owner", "bob@example.org")
    gateway.cli("keys", "deactivate", "stopped")
    alices = keys["alice's key"]
    page = reception.sign_in(window, "bob", f"/playground?key={alices}")
    expect(page.get_by_label("Which").locator("option")).to_have_text(["bob's key"])
    window.expect("403", "404", "409")
    answers = page.evaluate(MINT, [alices, "key_none", "stopped", "", "x".ljust(10_000, "x")])
    assert [status for status, _ in answers] == [404, 404, 409, 404, 404]
    assert "stopped" in answers[2][1]
    assert not any("ost_eph_" in text for _, text in answers)
    before = minted(gateway)
    wrong = page.evaluate(MINT_WITHOUT_TOKEN, keys["bob's key"])
    assert (wrong, minted(gateway)) == (403, before)


def test_where_not_all_keys_are_listed_the_way_to_the_others_is(reception: Reception, windows: Windows) -> None:
    """Alice has more than a page of them; those are not Bob's to choose, and he has one."""
    window = windows()
    gateway = reception.gateway
    with closing(sqlite3.connect(gateway.data_dir / "ostiary.db", timeout=10)) as database, database:
        names = [row[1] for row in database.execute("PRAGMA table_info(agent_keys)") if row[1] not in ("id", "name")]
        columns = ", ".join(names)
        for number in range(101):
            database.execute(
                f"INSERT INTO agent_keys (id, name, {columns})"  # noqa: S608 - the table's own
                f" SELECT ?, ?, {columns} FROM agent_keys WHERE name = 'alice''s key'",
                (f"key_many_{number:03}", f"many {number:03}"),
            )
    page = reception.sign_in(window, "alice", "/playground")
    expect(page.get_by_label("Which").locator("option", has_text="many 100")).to_have_count(0)
    window.axe("playground, many keys")
    page.get_by_role("link", name="find another").click()
    page.get_by_role("searchbox").first.fill("many 100")
    page.get_by_role("link", name="many 100", exact=True).click()
    page.get_by_role("link", name="Call for real").click()
    expect(page.get_by_label("Which").locator("option:checked")).to_have_text("many 100")
    other = reception.sign_in(windows(), "bob", "/playground")
    expect(other.get_by_label("Which").locator("option")).to_have_count(1)
    expect(other.get_by_role("link", name="find another")).to_have_count(0)
