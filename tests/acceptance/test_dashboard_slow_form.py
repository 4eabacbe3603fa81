"""A form that comes slowly, over real HTTP: its sender may do what they may when the whole of it is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ostiary.dashboard.routes import HOME
from ostiary.ground import Ground
from ostiary.orgs import members
from tests.acceptance.lobby import BY, Lobby
from tests.servers.gateway import Gateway


def _change(lobby: Lobby, name: str, role: str) -> None:
    async def deed(base: Ground) -> None:
        async with base.database.transaction() as tx:
            await members.change_role(tx, BY, lobby.home, f"{name}@example.org", role, base.clock.now())

    lobby.within(deed)


def _role_of(lobby: Lobby, name: str) -> str:
    with lobby.database() as database:
        query = "SELECT role FROM members WHERE organization_id = ? AND user_id = ?"
        role: str = database.execute(query, (lobby.home, lobby.ids[name])).fetchone()[0]
        return role


@pytest.mark.parametrize("meanwhile", ["member", "owner"])
def test_who_is_demoted_while_their_form_comes_makes_no_owner(gateway: Gateway, meanwhile: str) -> None:
    lobby = Lobby(gateway).open("olga", "alice", "bob")
    _change(lobby, "bob", "owner")
    client = lobby.client("bob")

    def slowly() -> Iterator[bytes]:
        yield b"role="  # the head has come before this, and with it who it is
        if meanwhile != "owner":
            _change(lobby, "bob", meanwhile)
        yield b"owner"

    answer = client.post(
        f"{HOME}/settings/members/{lobby.ids['olga']}/role",
        content=slowly(),
        headers={"content-type": "application/x-www-form-urlencoded", "content-length": "10"},
    )
    assert answer.is_redirect, answer.text
    assert ("/sign-in" in answer.headers["location"]) == (meanwhile == "member")
    assert _role_of(lobby, "olga") == ("owner" if meanwhile == "owner" else "member")
