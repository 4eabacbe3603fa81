"""What an ephemeral key called is counted to its parent on every page, also when nothing is left but its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostiary.agents import ephemeral_keys
from ostiary.clock import DAY_MS, SystemClock
from ostiary.db.database import Database
from tests.acceptance.lodge import Lodge
from tests.servers import behaviours
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.gateway import making
from tests.servers.shell import Shell
from tests.servers.waiting import until

MODEL = "openai-compatible/ok"


@pytest.fixture(scope="module")
def lodge(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[Lodge]:
    with (
        behaviours.serving() as upstream,
        making(tmp_path_factory.mktemp("children"), canaries, shell, started) as maker,
    ):
        gateway = maker(allow=[upstream.origin])
        gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
        yield Lodge(gateway).open("alice", "bob")


def call(lodge: Lodge, secret: str) -> str:
    """A call; its request id, when the ledger has it."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    answer = lodge.gateway.client(secret).post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    found: str = answer.headers["x-request-id"]
    alice = lodge.client("alice")
    until(lambda: alice.get(f"/traces/{found}").status_code == 200, "the ledger")
    return found


def forget_ended(lodge: Lodge) -> None:
    """What the hourly job does two days later."""

    async def prune() -> None:
        database = Database(f"sqlite:///{lodge.gateway.data_dir / 'ostiary.db'}")
        await ephemeral_keys.prune(database, SystemClock().now() + 2 * DAY_MS)
        await database.close()

    asyncio.run(prune())


@pytest.mark.usefixtures("one_day")
def test_the_calls_of_a_forgotten_child_stay_its_parents(lodge: Lodge, window: Window) -> None:
    gateway = lodge.gateway
    gateway.create_key("parent", "--owner", "bob@example.org")
    child = gateway.json("keys", "ephemeral", "parent", "--ttl", "10m", "--name", "short-lived")
    gateway.hear()
    request_id = call(lodge, child["secret"])
    gateway.create_key("elsewhere", "--owner", "alice@example.org")
    forget_ended(lodge)
    assert gateway.cli("keys", "show", "short-lived", check=False).code, "it is forgotten"
    page = lodge.sign_in(window, "bob", "/keys")
    row = page.get_by_role("row").filter(has_text="parent")
    expect(row).to_contain_text("100.0%")
    row.get_by_role("link", name="parent").click()
    expect(page.get_by_role("link", name="View traces")).to_be_visible()
    page.get_by_role("link", name="View traces").click()
    expect(page.get_by_role("row").filter(has_text="short-lived")).to_have_count(1)
    page.goto(lodge.url("/traces"))
    page.locator(f'a[href="/dashboard/traces/{request_id}"]').first.click()
    expect(page.get_by_text(request_id).first).to_be_visible()
    page.goto(lodge.url("/usage?by=agent_key&show=requests"))
    expect(page.get_by_role("row").filter(has_text="short-lived")).to_have_count(1)
    page.goto(lodge.url())
    expect(page.get_by_label("This month").get_by_role("link", name="1", exact=True)).to_be_visible()


def test_a_parent_was_used_when_its_child_was(lodge: Lodge) -> None:
    gateway = lodge.gateway
    gateway.create_key("quiet", "--owner", "bob@example.org")
    child = gateway.json("keys", "ephemeral", "quiet", "--ttl", "10m")
    gateway.hear()
    call(lodge, child["secret"])
    until(lambda: gateway.json("keys", "show", "quiet")["last_used_at"] is not None, "the mark", 60)
