"""Names too long, secrets that do not come back, filters in the address, and pages where nothing is yet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2
import pytest

from ostiary.dashboard.routes import HOME
from ostiary.ground import Ground
from tests.acceptance.lobby import Lobby
from tests.servers import gateway as gateways_of
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.receiver import Receiver
from tests.servers.receiver import running as receiving
from tests.servers.shell import Shell

_LONG: Final = "n" * 10_000
_BARE: Final = {"provider": "groq", "anyway": "1"}
_ROUTE: Final = {
    "strategy": "first",
    "provider": "groq",
    "model": "m",
    "key": "",
    "role": "",
    "weight": "1",
    "retries": "1",
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture(scope="module")
def lobby(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path, receiver: Receiver
) -> Iterator[Lobby]:
    """Olga sees all there is; Dora's organization has nothing in it."""
    with gateways_of.making(tmp_path_factory.mktemp("fields"), canaries, shell, started) as maker:
        made = Lobby(maker(allow=[receiver.origin])).open("olga", "alice", "bob", "dora")

        async def add(base: Ground) -> None:
            async with base.database.transaction() as tx:
                for name in ("one", "two"):
                    await made.add_provider_key(base, tx, made.home, "groq", name, shared=name == "two")

        made.within(add)
        for name in ("first", "second"):
            made.gateway.create_key(name, "--org", made.home)
            made.gateway.cli("endpoints", "create", name, "--target", "groq/m", "--org", made.home)
        made.gateway.cli("aliases", "create", "ostiary/one", "--target", "groq/m")
        yield made


# ---- names too long ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "field", "more"),
    [
        ("/account/name", "name", {}),
        ("/endpoints/new", "name", _ROUTE),
        ("/endpoints/aliases/new", "name", _ROUTE),
        ("/keys/new", "name", {"expires": "30d", "scopes": "gate:chat"}),
        ("/operator/organizations", "name", {}),
        ("/settings/credentials", "name", {}),
        ("/settings/members/invite", "email", {"role": "member"}),
        ("/settings/organization", "name", {"was.name": "default"}),
        ("/settings/webhooks", "name", {"url": "https://example.org/", "which": "all"}),
        ("/vault/new", "name", _BARE),
        ("/vault/new", "account", {**_BARE, "name": "short"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_name_of_ten_thousand_characters_is_refused_beside_its_field(
    lobby: Lobby, path: str, field: str, more: dict[str, str]
) -> None:
    client = lobby.client("olga")
    typed = {**more, field: _LONG}
    if path == "/vault/new":
        typed["secret"] = lobby.gateway.canaries.plant()
    answer = client.post(f"{HOME}{path}", data=typed, headers={"hx-request": "true"})
    assert answer.status_code == httpx2.codes.UNPROCESSABLE_CONTENT, answer.text[:300]
    [control] = re.findall(rf'<input[^>]*\bname="{field}"[^>]*>', answer.text)
    told = re.search(r'aria-invalid="true" aria-describedby="([^"]+)"', control)
    assert told is not None, "the field says that it is wrong, and where that is told"
    said = re.search(rf'id="{told[1]}" role="alert">([^<]+)<', answer.text)
    assert said is not None
    assert len(said[1]) < 200
    assert f'value="{_LONG}"' in control, "nothing that was typed is lost"
    assert _LONG not in client.get(HOME).text


# ---- what is shown once -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "opens", "typed", "does", "shown"),
    [
        ("/settings/credentials", "New credential", {"Name": "server"}, "Create", "secret"),
        ("/settings/webhooks", "Add webhook", {"Name": "hook", "URL": ""}, "Add", "secret"),
        ("/settings/members", "Invite", {"E-mail": "ivy@example.org"}, "Invite", "invitation-link"),
    ],
    ids=["credential", "webhook", "invitation"],
)
def test_what_is_shown_once_comes_back_by_no_button_of_the_browser(
    lobby: Lobby,
    window: Window,
    receiver: Receiver,
    path: str,
    opens: str,
    typed: dict[str, str],
    does: str,
    shown: str,
) -> None:
    page = lobby.enter(window, "alice", path)
    page.get_by_role("button", name=opens).click()
    dialog = page.get_by_role("dialog")
    for label, text in typed.items():
        dialog.get_by_label(label, exact=True).fill(text or receiver.url)
    dialog.get_by_role("button", name=does, exact=True).click()
    once = page.get_by_test_id(shown)
    secret = once.inner_text()
    lobby.gateway.canaries.watch(secret.rpartition("#")[2])
    dialog.get_by_role("link", name="Done").click()
    expect(once).to_have_count(0)
    page.go_back()
    page.go_forward()
    page.go_back()
    expect(page.get_by_role("button", name=opens)).to_be_visible()
    assert secret not in page.content()
    page.reload()
    expect(page.get_by_role("button", name=opens)).to_be_visible()
    assert secret not in page.content()


# ---- filters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/keys",
        "/vault",
        "/endpoints",
        "/models",
        "/traces",
        "/usage",
        "/audit",
        "/settings/members",
        "/settings/notifications",
        "/operator/organizations",
        "/operator/pool",
        "/operator/aliases",
        "/operator/prices",
    ],
)
def test_filters_stand_in_the_address_and_are_there_after_a_reload(lobby: Lobby, window: Window, path: str) -> None:
    page = lobby.enter(window, "olga", path)
    form = page.get_by_role("search")
    expect(form).to_be_visible()
    chosen = {}
    for select in form.get_by_role("combobox").all():
        name = select.get_attribute("name")
        if name and select.is_visible() and name not in chosen:
            values = select.locator("option").evaluate_all("all => all.map((one) => one.value)")
            chosen[name] = next(one for one in values if one not in ("", "custom", select.input_value()))
            select.select_option(chosen[name])
            page.wait_for_url(re.compile(rf"[?&]{name}={re.escape(chosen[name])}(&|$)"))
    for field in form.get_by_role("searchbox").all():
        name = field.get_attribute("name") or ""
        chosen[name] = "zebra"
        field.fill("zebra")
        page.wait_for_url(re.compile(rf"[?&]{name}=zebra(&|$)"))
    assert chosen
    page.reload()
    for name, value in chosen.items():
        expect(page.get_by_role("search").locator(f"[name={name}]")).to_have_value(value)
    window.axe(f"{path}, filtered")


# ---- where nothing is yet -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "title", "way"),
    [
        ("", "Three steps to the first call.", "Create an agent key"),
        ("/keys", "No keys yet", "Create"),
        ("/vault", "The vault is empty", "Add"),
        ("/endpoints", "No endpoint yet", "endpoint"),
        ("/traces", "No calls in this period", "Make a call"),
        ("/usage", "Nothing was used", "Make"),
        ("/settings/webhooks", "No webhook yet", "Add webhook"),
        ("/settings/credentials", "No client credential yet", "New credential"),
        ("/settings/notifications", "Nobody was told of anything yet", "Send a test"),
    ],
)
def test_an_empty_page_says_what_to_do(lobby: Lobby, window: Window, path: str, title: str, way: str) -> None:
    page = lobby.enter(window, "dora", path)
    main = page.get_by_role("main")
    expect(main.get_by_text(title)).to_be_visible()
    ways = main.get_by_role("link", name=way).or_(main.get_by_role("button", name=way))
    expect(ways.first).to_be_visible()
    window.axe(f"{path}, empty")
    window.narrow()
    assert not window.scrolls_sideways
