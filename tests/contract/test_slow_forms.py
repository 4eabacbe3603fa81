"""A form that comes slowly: what it asks for is judged by what its sender may when it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from ostiary.dashboard.door import Door
from ostiary.dashboard.hall import Hall, Line
from ostiary.dashboard.visit import csrf_of
from ostiary.db.database import Database
from ostiary.orgs import members, sessions
from ostiary.providers import catalog
from ostiary.settings import Settings
from tests.fakes import SetClock
from tests.people import NOW, People, settle


class SlowLine:
    """A form whose head has come; the rest is held back until it is let go."""

    def __init__(self, path: str, token: str, organization_id: str, body: bytes) -> None:
        self.method, self.path, self.query = "POST", path, b""
        self.headers = {
            b"host": b"127.0.0.1:8420",
            b"origin": b"http://127.0.0.1:8420",
            b"content-type": b"application/x-www-form-urlencoded",
            b"content-length": b"%d" % len(body),
            b"cookie": f"ostiary_session={token}".encode(),
            b"x-csrf-token": csrf_of(token, organization_id).encode(),
        }
        self.keep_alive, self.is_gone, self.is_started, self.request_id = True, False, False, ""
        self.is_waiting, self.may_come = asyncio.Event(), asyncio.Event()
        self.status = 0
        self._body = body

    def all_of(self, name: bytes) -> list[bytes]:
        return [self.headers[name]] if name in self.headers else []

    async def read_body(self, _wait_s: float) -> bytes:
        self.is_waiting.set()
        await self.may_come.wait()
        return self._body

    async def answer(self, status: int, _body: bytes, _headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.status = status


def door(database: Database, folder: Path) -> Door:
    """The pages, with all that this form needs."""
    nothing = cast("Any", None)

    async def hear() -> None:
        return None

    hall = Hall(
        clock=SetClock(NOW),
        database=database,
        seal=nothing,
        egress=nothing,
        catalog=catalog.load(),
        transport=nothing,
        settings=Settings(data_dir=folder),
        address_of=lambda _line: "192.0.2.7",
        flush=hear,
        hear=hear,
        explain=nothing,
    )
    return Door(hall)


async def roles_of(database: Database, folk: People) -> dict[str, str]:
    async with database.read() as tx:
        return {one.name: one.role for one in await members.list_(tx, folk.operator, folk.home.id)}


async def change(database: Database, folk: People, name: str, role: str) -> None:
    async with database.transaction() as tx:
        await members.change_role(tx, folk["alice"], folk.home.id, f"{name}@example.org", role, NOW)


@pytest.mark.parametrize("meanwhile", ["demoted", "nothing"])
async def test_who_is_demoted_while_their_form_comes_makes_no_owner(
    database: Database, tmp_path: Path, meanwhile: str
) -> None:
    folk = await settle(database)
    await change(database, folk, "erin", "owner")
    async with database.transaction() as tx:
        _, token = await sessions.start(tx, folk["erin"].id, folk.home.id, NOW, address=None, agent=None)
    path = f"/dashboard/settings/members/{folk['bob'].id}/role"
    line = SlowLine(path, token.reveal(), folk.home.id, b"role=owner")
    answering = asyncio.ensure_future(door(database, tmp_path)(cast("Line", line)))
    await line.is_waiting.wait()
    if meanwhile == "demoted":
        await change(database, folk, "erin", "member")
    line.may_come.set()
    await answering
    assert line.status == 303  # to that member's page, or to where one signs in
    assert (await roles_of(database, folk))["Bob"] == ("member" if meanwhile == "demoted" else "owner")
