"""What needs somebody, on the first page: each row leads to where it is mended, and is gone when it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from ostiary.ground import Ground
from tests.acceptance.lobby import HOSTILE, Lobby
from tests.servers import gateway as gateways_of
from tests.servers.behaviours import refuse
from tests.servers.browser import Window, Windows, expect
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL: Final = "openai-compatible/ok"


@pytest.fixture(scope="module")
def lobby(
    tmp_path_factory: pytest.TempPathFactory,
    canaries: Canaries,
    shell: Shell,
    started: Path,
    shared_upstream: Upstream,
) -> Iterator[Lobby]:
    with gateways_of.making(tmp_path_factory.mktemp("attention"), canaries, shell, started) as maker:
        made = Lobby(maker(allow=[shared_upstream.origin])).open("olga", "alice", "bob")

        async def add(base: Ground) -> None:
            async with base.database.transaction() as tx:
                url = {"base_url": shared_upstream.url}
                await made.add_provider_key(base, tx, made.home, "openai-compatible", HOSTILE, **url)

        made.within(add)
        yield made


@pytest.fixture(scope="module")
def secret(lobby: Lobby) -> str:
    """A key that has made a call, as one has who is past the first steps."""
    secret = lobby.gateway.create_key("caller", "--owner", "bob@example.org", "--org", lobby.home)
    assert lobby.gateway.chat(secret, _MODEL).status_code == httpx2.codes.OK
    return secret


@pytest.mark.usefixtures("one_day")
def test_a_provider_key_that_fails_is_listed_until_it_is_mended(
    lobby: Lobby, secret: str, windows: Windows, shared_upstream: Upstream
) -> None:
    shared_upstream.push(refuse(429, "You exceeded your current quota", "insufficient_quota"))
    assert not lobby.gateway.chat(secret, _MODEL).is_success
    [id_] = [one["id"] for one in lobby.gateway.json("vault", "list", "--org", lobby.home)]
    until(lambda: is_ill(lobby, id_), "what was found out of the key")
    alice = windows()
    page = lobby.enter(alice, "alice")
    trouble = page.get_by_role("region", name="Needs attention")
    row = trouble.get_by_role("link").filter(has_text=HOSTILE)
    expect(row).to_contain_text(re.compile("Provider key exhausted"))
    expect(row).to_have_attribute("href", f"/dashboard/vault/{id_}")
    expect(trouble.locator("img")).to_have_count(0)
    expect(page.get_by_role("region", name="Provider keys")).to_contain_text("exhausted 1")
    alice.axe("a provider key that fails")
    alice.picture("overview-key-fails")
    row.click()
    page.wait_for_url(lobby.url(f"/vault/{id_}"))
    page.get_by_role("button", name="Reset health").click()
    expect(page.get_by_text("Nothing is held against it.")).to_be_visible()
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(row).to_have_count(0)
    assert lobby.gateway.chat(secret, _MODEL).status_code == httpx2.codes.OK


def is_ill(lobby: Lobby, id_: str) -> bool:
    """Whether it is written down, which comes a moment after the call."""
    health = lobby.gateway.json("vault", "show", id_, "--org", lobby.home)["health"]
    return [one["state"] for one in health] == ["exhausted"]


def test_a_gateway_that_is_lost_is_listed_for_the_operator_until_it_is_retired(
    lobby: Lobby, secret: str, windows: Windows
) -> None:
    assert secret
    with lobby.database() as database:
        database.execute(
            "INSERT INTO owners (id, name, version, started_at, heartbeat_at) VALUES ('own_lost', ?, '0.1', 1, 1)",
            (HOSTILE,),
        )
    olga, alice = windows(), windows()
    page = lobby.enter(olga, "olga")
    trouble = page.get_by_role("region", name="Needs attention")
    row = trouble.get_by_role("link").filter(has_text="Gateway not heard of")
    expect(row).to_contain_text(HOSTILE)
    expect(row).to_have_attribute("href", "/dashboard/operator/gateways/own_lost")
    olga.axe("a lost gateway")
    olga.picture("overview-gateway-lost")
    theirs = lobby.enter(alice, "alice")
    expect(theirs.get_by_role("heading", name="Overview")).to_be_visible()
    expect(theirs.get_by_text("Gateway not heard of")).to_have_count(0)
    row.click()
    page.wait_for_url(re.compile("own_lost$"))
    page.get_by_role("button", name="Retire").click()
    dialog = page.get_by_role("dialog", name="Retire this gateway?")
    dialog.get_by_label("to confirm").fill(HOSTILE)
    dialog.get_by_role("button", name="Retire").click()
    expect(page.get_by_text("What it held counts as spent.")).to_be_visible()
    page.goto(lobby.url())
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(row).to_have_count(0)


def test_a_member_is_told_of_their_own_only(lobby: Lobby, secret: str, window: Window) -> None:
    assert secret
    lobby.gateway.create_key("bobs last days", "--owner", "bob@example.org", "--expires", "2d", "--org", lobby.home)
    lobby.gateway.create_key("alices last days", "--owner", "alice@example.org", "--expires", "2d", "--org", lobby.home)
    page = lobby.enter(window, "bob")
    links = page.get_by_role("region", name="Needs attention").get_by_role("link")
    expect(links).to_have_count(1)
    expect(links).to_contain_text("bobs last days")
