"""Every form that edits something: nobody is written over, and what was typed outlives a mistake and a session."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from ostiary.dashboard.routes import HOME
from ostiary.ground import Ground
from tests.acceptance.lobby import Lobby
from tests.acceptance.pages import PASSWORD
from tests.servers import gateway as gateways_of
from tests.servers.browser import Window, expect
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell

_BESIDE: Final = {"anyway": "1"}
"""Provider keys are saved without a test: there is no provider."""
_VOID: Final = ("input", "br", "hr", "img", "link", "meta")


@dataclass(frozen=True, slots=True)
class Edit:
    """A form: its page, where it is sent when that is elsewhere, a field, two values for it and one that is refused."""

    page: str
    field: str
    theirs: str
    mine: str
    mistake: str
    action: str = ""
    stays: str = ""
    """What is said above the page that stays, where saving does not lead elsewhere."""


EDITS: Final = {
    "agent key": Edit("/keys/{key}/edit", "rpm", "20", "30", "many"),
    "provider key": Edit("/vault/{vault}/edit", "name", "theirs", "mine", ""),
    "endpoint": Edit("/endpoints/{endpoint}", "retries", "3", "4", "many"),
    "alias": Edit("/endpoints/aliases/{alias}", "retries", "3", "4", "many"),
    "organization": Edit("/settings", "name", "Theirs", "Mine", "", "/settings/organization"),
    "limits": Edit("/settings", "rpm", "200", "300", "many", "/settings/limits", "Limits saved."),
    "budget": Edit("/settings", "budget_cap", "20", "30", "much", "/settings/budget", "Budget saved."),
    "rules": Edit("/settings", "max_lifetime", "20", "30", "long", "/settings/keys", "Keys saved."),
    "recording": Edit("/settings", "trace_days", "20", "30", "long", "/settings/recording", "Recording saved."),
    "webhook": Edit("/settings/webhooks/{webhook}", "name", "theirs", "mine", ""),
    "price": Edit(
        "/operator/prices/model?model=gpt-4o&provider=openai", "input", "7", "8", "much", "/operator/prices/model"
    ),
    "role": Edit("/settings/members/{bob}", "role", "admin", "owner", "king", "/settings/members/{bob}/role"),
}


@dataclass(slots=True)
class House:
    """The gateway, and what there is to edit, by kind."""

    lobby: Lobby
    ids: dict[str, str]

    def page(self, edit: Edit) -> str:
        """Where its form is."""
        return edit.page.format_map(self.ids)

    def action(self, edit: Edit) -> str:
        """Where it is sent."""
        return (edit.action or edit.page).format_map(self.ids)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path) -> Iterator[House]:
    with gateways_of.making(tmp_path_factory.mktemp("edits"), canaries, shell, started) as maker:
        lobby = Lobby(maker()).open("olga", "alice", "bob")
        gateway, ids = lobby.gateway, {"bob": lobby.ids["bob"]}

        async def add(base: Ground) -> None:
            async with base.database.transaction() as tx:
                ids["vault"] = await lobby.add_provider_key(base, tx, lobby.home, "groq", "sealed")

        lobby.within(add)
        gateway.create_key("agent", "--org", lobby.home)
        ids["key"] = gateway.json("keys", "list", "--org", lobby.home)[0]["id"]
        ids["endpoint"] = gateway.json("endpoints", "create", "one", "--target", "groq/m", "--org", lobby.home)["id"]
        ids["alias"] = gateway.json("aliases", "create", "ostiary/one", "--target", "groq/m")["id"]
        hook = gateway.json("webhooks", "create", "hook", "--url", "https://hooks.example.com/", "--org", lobby.home)
        canaries.watch(hook["secret"])
        yield House(lobby, {**ids, "webhook": hook["id"]})


class _Reader(HTMLParser):
    """What a browser would send of one form as it stands."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action
        self.sent: defaultdict[str, list[str]] = defaultdict(list)
        self._depth = 0
        self._is_ours = False
        self._select = ""
        self._area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {name: value or "" for name, value in attrs}
        if tag == "template":
            self._depth += 1
        if tag == "form":
            self._is_ours = own.get("hx-post") == HOME + self.action
        if not self._is_ours or self._depth:
            return
        name = own.get("name", "")
        if tag == "select":
            self._select = name
        elif tag == "textarea":
            self._area = name
            self.sent[name].append("")
        elif tag == "option" and self._select and ("selected" in own or not self.sent[self._select]):
            self.sent[self._select] = [own["value"]]
        elif tag == "input" and name and (own.get("type") not in ("checkbox", "radio") or "checked" in own):
            self.sent[name].append(own.get("value", ""))

    def handle_data(self, data: str) -> None:
        if self._area:
            self.sent[self._area][-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "template":
            self._depth -= 1
        elif tag == "form":
            self._is_ours = False
        elif tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._area = ""


def read(answer: httpx2.Response, action: str) -> dict[str, list[str]]:
    """What the form on this page would send, or that of which this is the inside."""
    reader = _Reader(action)
    reader.feed(answer.text if "<form" in answer.text else f'<form hx-post="{HOME}{action}">{answer.text}</form>')
    assert reader.sent, answer.text[:500]
    return dict(reader.sent)


def send(client: httpx2.Client, action: str, form: Mapping[str, Any], **typed: str) -> httpx2.Response:
    return client.post(HOME + action, data={**form, **_BESIDE, **typed}, headers={"hx-request": "true"})


def done(answer: httpx2.Response, edit: Edit, action: str, value: str) -> None:
    """It is saved: the answer leads elsewhere, or is the form as it is from now on."""
    if not edit.stays:
        assert "hx-redirect" in answer.headers, answer.text[:500]
        return
    assert answer.is_success, answer.text[:500]
    assert edit.stays in answer.headers["hx-trigger"]
    form = read(answer, action)
    assert form[edit.field] == form[f"was.{edit.field}"] == [value]


@pytest.mark.parametrize("name", EDITS)
def test_who_comes_late_is_told_and_keeps_what_was_typed(house: House, name: str) -> None:
    """Also when a mistake was in between; sent once more, it is theirs that is replaced, knowingly."""
    edit, client = EDITS[name], house.lobby.client("olga")
    action = house.action(edit)
    shown = read(client.get(HOME + house.page(edit)), action)
    saved = send(client, action, shown, **{edit.field: edit.theirs})
    assert saved.is_success, saved.text[:500]
    done(saved, edit, action, edit.theirs)
    late = send(client, action, shown, **{edit.field: edit.mistake})
    if late.status_code != httpx2.codes.CONFLICT:
        assert late.status_code == httpx2.codes.UNPROCESSABLE_CONTENT, late.text[:500]
        late = send(client, action, read(late, action), **{edit.field: edit.mine})
    assert late.status_code == httpx2.codes.CONFLICT, f"{late.status_code}: {late.text[:500]}"
    assert read(client.get(HOME + house.page(edit)), action)[edit.field] == [edit.theirs]
    told = send(client, action, shown, **{edit.field: edit.mine})
    assert told.status_code == httpx2.codes.CONFLICT
    again = read(told, action)
    assert again[edit.field] == [edit.mine], "what was typed is still there"
    done(send(client, action, again), edit, action, edit.mine)
    assert read(client.get(HOME + house.page(edit)), action)[edit.field] == [edit.mine]


@pytest.mark.parametrize("name", EDITS)
def test_what_was_typed_is_sent_when_one_has_signed_in_again(house: House, window: Window, name: str) -> None:
    edit = EDITS[name]
    action = house.action(edit)
    page = house.lobby.enter(window, "olga")
    page.goto(house.lobby.url(house.page(edit)))
    form = page.locator(f'form[hx-post="{HOME}{action}"]')
    control = form.locator(f"[name={edit.field}]")
    if control.evaluate("(one) => one.tagName") == "SELECT":
        control.select_option(edit.theirs)
    else:
        control.fill(edit.theirs)
    with house.lobby.database() as database:
        database.execute("DELETE FROM sessions WHERE user_id = ?", (house.lobby.ids["olga"],))
    window.expect("401")
    form.locator("button:not([type])").last.click()
    again = page.get_by_role("dialog", name="Sign in again")
    expect(again.get_by_text("Nothing you typed is lost.")).to_be_visible()
    again.get_by_label("Password").fill(PASSWORD)
    if edit.stays:
        again.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.get_by_text(edit.stays)).to_be_visible()
    else:
        with page.expect_navigation():
            again.get_by_role("button", name="Sign in", exact=True).click()
    page.goto(house.lobby.url(house.page(edit)))
    expect(control).to_have_value(edit.theirs)
