"""The audit log: plain data only, in the transaction of the deed; what was denied is in it, and it is told in pages."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from ostiary.actor import Actor, Denied
from ostiary.cli.desk import Desk, do_deed
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.ledger.audit import AuditRow, Filter
from ostiary.ledger.audit_store import list_audit
from ostiary.orgs import members, roles
from ostiary.secret import Secret
from tests.people import HOUR, NONE, NOW, OUTSIDE, People, refused, settle, traces


async def wrote(database: Database, organization_id: str | None, at: int = NOW, **after: object) -> None:
    async with database.transaction() as tx:
        await audit.write(
            tx,
            roles.operator(),
            "agent_keys.edit",
            "agent_key",
            "key_1",
            "ci",
            organization_id=organization_id,
            after=after,
            at=at,
        )


@pytest.mark.parametrize(
    "value",
    [Secret("sk-x"), b"sk-x", 1.5, object(), {"a": Secret("sk-x")}, [Secret("sk-x")], ({"a": [b"x"]},)],
)
async def test_what_is_not_plain_data_stops_the_deed(database: Database, value: object) -> None:
    with pytest.raises(TypeError, match="audit log"):
        await wrote(database, "orgn_1", value=value)
    assert await traces(database) == NONE


async def test_plain_data_comes_back_as_json_has_it(database: Database) -> None:
    await wrote(database, "orgn_1", a=None, b=True, c=5, d="é", e=("x", ["y"]), f=frozenset({"q", "p"}), g={"h": {1}})
    async with database.read() as tx:
        (row,) = await list_audit(tx)
    assert row.after == {"a": None, "b": True, "c": 5, "d": "é", "e": ["x", ["y"]], "f": ["p", "q"], "g": {"h": [1]}}
    assert (row.before, row.address, row.result, row.actor_kind) == (None, None, "ok", "operator")


async def test_the_newest_come_first_and_organizations_apart(database: Database) -> None:
    for number, organization_id in enumerate(("orgn_1", "orgn_2", None, "orgn_1")):
        await wrote(database, organization_id, number=number)

    async def numbers(organization_id: str | None = None, limit: int = 100) -> list[int]:
        async with database.read() as tx:
            return [(row.after or {})["number"] for row in await list_audit(tx, organization_id, limit)]

    assert await numbers() == [3, 2, 1, 0]
    assert await numbers(limit=2) == [3, 2]
    assert await numbers("orgn_1") == [3, 0]
    assert await numbers("orgn_3") == []


# ---- told in pages ----------------------------------------------------------------------------------------------


async def ask(database: Database, by: Actor, organization_id: str | None, **wanted: object) -> list[AuditRow]:
    async with database.read() as tx:
        return await audit.list_(tx, by, organization_id, Filter(**wanted))  # type: ignore[arg-type]


async def test_who_may_see_what_was_done(database: Database) -> None:
    folk = await settle(database)
    expected = {"operator": None, "alice": None, "erin": None, "bob": "insufficient_scope"}
    for name, code in {**expected, **dict.fromkeys(OUTSIDE, "not_found")}.items():
        if code is None:
            rows = await ask(database, folk[name], folk.home.id)
            assert [row.deed for row in rows] == ["members.add"] * 3 + ["organizations.create"]
        else:
            with refused(code):
                await ask(database, folk[name], folk.home.id)
        if name != "operator":
            with refused("not_found"):
                await ask(database, folk[name], None)
    assert len(await ask(database, folk.operator, None)) == 6


async def test_pages_give_every_row_once(database: Database) -> None:
    """Also where many rows are of the same moment, and where the clock went back in between."""
    folk = await settle(database)
    for n in range(40):
        await wrote(database, folk.home.id, NOW + (n % 7) * 1_000, n=n)
    found: list[AuditRow] = []
    after = None
    while True:
        async with database.read() as tx:
            page = await audit.list_(tx, folk["alice"], folk.home.id, after=after, limit=9)
        found += page
        if len(page) < 9:
            break
        after = (page[-1].at, page[-1].seq)
    assert len({row.seq for row in found}) == len(found) == 44
    assert [(row.at, row.seq) for row in found] == sorted(((row.at, row.seq) for row in found), reverse=True)
    for limit in (0, -1, 201, 10**9):
        async with database.read() as tx:
            with refused("invalid_field", "limit"):
                await audit.list_(tx, folk["alice"], folk.home.id, limit=limit)


async def test_rows_are_found_by_what_is_asked(database: Database) -> None:
    folk = await settle(database)
    async with database.transaction() as tx:
        await members.change_role(tx, folk["alice"], folk.home.id, "bob@example.org", "admin", NOW + HOUR)
    by_alice = {"actor": folk["alice"].id}
    for wanted, expected in (
        (by_alice, 1),
        ({"actor": "operator"}, 4),
        ({"actor": "nobody"}, 0),
        ({"deed": "members.add"}, 3),
        ({"deed": "members"}, 0),
        ({"target": folk["bob"].id}, 2),
        ({"target": "bob@example.org"}, 2),
        ({"target": "' OR 1=1"}, 0),
        ({"result": "ok"}, 5),
        ({"result": "denied"}, 0),
        ({"since_at": NOW + 1}, 1),
        ({"until_at": NOW + 1}, 4),
        ({"since_at": NOW, "until_at": NOW}, 0),
        ({**by_alice, "deed": "members.role", "target": "bob@example.org", "result": "ok", "since_at": NOW}, 1),
        ({**by_alice, "deed": "members.add"}, 0),
        ({"target": folk["bob"].id, "deed": "members.add"}, 1),
    ):
        assert len(await ask(database, folk.operator, folk.home.id, **wanted)) == expected, wanted
    assert len(await ask(database, folk.operator, None, target="dora@example.org")) == 1


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "at"),
        ({"since_at": 5}, "at"),
        ({"since_at": 5, "until_at": 9, "result": "denied"}, "result_at"),
        ({"since_at": 5, "until_at": 9, "actor": "a"}, "actor_id_at"),
        ({"actor": "a"}, "actor_id_at"),
        ({"deed": "a", "since_at": 5}, "deed_at"),
        ({"deed": "a", "actor": "b"}, "actor_id_deed_at"),
        ({"deed": "a", "actor": "b", "result": "ok", "since_at": 5}, "actor_id_deed_at"),
        ({"target": "a", "actor": "b", "deed": "c", "result": "denied"}, "target_name_at"),
        ({"actor": "b", "result": "denied"}, "result_at"),
        ({"actor": "b", "result": "ok"}, "actor_id_at"),
    ],
)
async def test_a_page_is_read_from_an_index(
    sqlite_template: Path, tmp_path: Path, wanted: dict[str, Any], index: str
) -> None:
    """SQLite's own plan: nothing is sorted, and nothing is looked at that is behind the page."""
    database = Database(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'x.db')}")
    said: list[tuple[str, Any]] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def heard(*given: Any) -> None:
        said.append((given[2], given[3]))

    async with database.read() as tx:
        for after in (None, (9, 9)):
            await audit.list_(tx, roles.operator(), "orgn_1", Filter(**wanted), after=after)
            statement, values = said[-1]
            plan = str((await tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)).all())
            assert f"ix_audit_organization_id_{index} " in plan
            assert "TEMP B-TREE" not in plan
            assert "SCAN" not in plan
    await database.close()


# ---- denied -----------------------------------------------------------------------------------------------------


async def tried(database: Database, by: Actor, organization_id: str, at: int = NOW) -> bool:
    async with database.read() as tx:
        try:
            await members.list_(tx, by, organization_id)
        except Denied as denied:
            refusal = denied
    return await audit.denied(database, by, refusal, at=at)


async def test_what_was_denied_is_noted_with_the_actors_own_organization(database: Database) -> None:
    folk = await settle(database)
    for name in ("bob", "charlie", "dora"):
        assert await tried(database, folk[name], folk.home.id)
    places = {"bob": folk.home.id, "charlie": None, "dora": folk.elsewhere.id}
    for name, organization_id in places.items():
        rows = await ask(database, folk.operator, organization_id, result="denied", actor=folk[name].id)
        (row,) = rows
        assert (row.deed, row.target_kind, row.target_id) == ("members.list", "member", folk.home.id)
        assert (row.organization_id, row.address) == (organization_id, "192.0.2.7")
        assert row.after == {
            "code": "insufficient_scope" if name == "bob" else "not_found",
            "organization_id": folk.home.id,
        }


async def test_a_denial_tells_nothing_to_whom_it_is_denied(database: Database) -> None:
    folk = await settle(database)
    with refused("not_found") as caught:
        folk["dora"].require("members.list", folk.home.id)
    assert caught.value.body() == Refusal("not_found").body()


async def test_other_refusals_are_not_noted(database: Database) -> None:
    folk = await settle(database)
    before = await traces(database)
    for code in ("not_found", "conflict", "invalid_field", "service_unavailable"):
        assert not await audit.denied(database, folk["bob"], Refusal(code), at=NOW)
    assert await traces(database) == before
    judged = Refusal("insufficient_scope")
    assert await audit.denied(database, folk["bob"], judged, at=NOW, deed="audit.show", target=("audit", "x", "y"))
    (row,) = await ask(database, folk.operator, folk.home.id, result="denied")
    assert (row.deed, row.target_kind, row.target_id, row.target_name) == ("audit.show", "audit", "x", "y")


async def test_what_a_stranger_sends_fits_into_the_log(database: Database) -> None:
    folk = await settle(database)
    for organization_id in ("x" * 100_000, "a\0b", "\x1b[2J", "é" * 64, ""):
        assert await tried(database, folk["dora"], organization_id)
    rows = await ask(database, folk.operator, folk.elsewhere.id, result="denied")
    assert all(len(row.target_id) <= 64 and row.target_id.isprintable() for row in rows)


async def test_denials_fill_no_disk(database: Database) -> None:
    """So many an hour of one actor; the last one says so, another actor's are noted all the same."""
    folk = await settle(database)
    noted = [await tried(database, folk["bob"], folk.home.id, NOW + n) for n in range(40)]
    assert noted == [True] * 30 + [False] * 10
    assert await tried(database, folk["charlie"], folk.home.id)
    rows = await ask(database, folk.operator, folk.home.id, result="denied")
    assert ["note" in (row.after or {}) for row in rows] == [True] + [False] * 29
    assert await tried(database, folk["bob"], folk.home.id, NOW + HOUR + 30)


async def test_many_actors_fill_none_either(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.ledger.audit._MOST_DENIED", 5)
    folk = await settle(database)
    actors = [replace(folk["bob"], id=f"user_{n}") for n in range(8)]
    assert [await tried(database, actor, folk.home.id) for actor in actors] == [True] * 5 + [False] * 3
    assert await tried(database, folk["dora"], folk.home.id)


async def test_the_answer_is_the_same_when_nothing_can_be_noted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    folk = await settle(database)

    def gone() -> None:
        raise Refusal("service_unavailable")

    monkeypatch.setattr(database, "transaction", gone)
    assert not await tried(database, folk["bob"], folk.home.id)


async def test_the_desk_notes_what_is_denied_at_it(database: Database) -> None:
    folk = await settle(database)
    desk = desk_of(database, folk)

    async def look(desk: Desk) -> None:
        async with desk.ground.database.read() as tx:
            await members.list_(tx, desk.by, folk.home.id)

    with refused("insufficient_scope"):
        await do_deed(desk, look)
    (row,) = await ask(database, folk.operator, folk.home.id, result="denied")
    assert (row.actor_name, row.deed) == ("bob@example.org", "members.list")


def desk_of(database: Database, folk: People) -> Desk:
    from ostiary.ground import Ground
    from ostiary.providers.catalog import load
    from ostiary.providers.egress import Egress
    from ostiary.settings import Settings
    from ostiary.vault.seal import MasterKeys, Seal
    from tests.fakes import SetClock

    seal = Seal(MasterKeys([b"k" * 32]))
    return Desk(Ground(Settings(), SetClock(), database, seal, load(), Egress(())), folk["bob"], None)
