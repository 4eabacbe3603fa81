"""The audit log as a chain: whatever is done to its rows behind Ostiary's back is found, and the first one named."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, Final

import pytest
from alembic import command
from sqlalchemy import Connection, insert

from ostiary.db import schema
from ostiary.db.database import Database, Transaction
from ostiary.db.migrate import alembic_config, migrate
from ostiary.errors import Refusal
from ostiary.ledger import anchors, audit, chain
from ostiary.ledger import audit_store as store
from ostiary.ledger.verify import Report
from ostiary.ledger.verify import verify as prove
from ostiary.orgs import roles
from ostiary.secret import Secret
from tests.people import CHAIN_KEY, NOW, spoil

WHERE: Final = ("orgn_1", "orgn_2", None)
ROWS: Final = 12
"""In turn: rows 1, 4, 7, 10 are of the first organization, 2, 5, 8, 11 of the second, 3, 6, 9, 12 of the instance."""


async def write(database: Database, organization_id: str | None, n: int = 0) -> None:
    async with database.transaction() as tx:
        await audit.write(
            tx,
            roles.operator(),
            "agent_keys.edit",
            "agent_key",
            f"key_{n}",
            f"é {n}",
            organization_id=organization_id,
            at=NOW + n,
            before={"rpm": None, "models": ["x", "ü\U0001f600"]},
            after={"rpm": n},
        )


async def fill(database: Database, rows: int = ROWS, first: int = 0) -> None:
    for n in range(rows):
        await write(database, WHERE[n % 3], first + n)


async def verified(database: Database, *files: Path, key: Secret = CHAIN_KEY) -> Report:
    return await prove(database, key, files, lambda *_: None)


def first_seq(report: Report) -> int | None:
    assert report.faults
    return report.faults[0].seq


async def test_what_was_only_written_is_whole(database: Database) -> None:
    assert (await verified_after_begin(database)).rows == 0
    await fill(database)
    report = await verified(database)
    assert (report.rows, report.chains, report.older_rows, report.faults) == (ROWS, 3, 0, ())


async def verified_after_begin(database: Database) -> Report:
    async with database.transaction() as tx:
        await audit.begin(tx, NOW)
    report = await verified(database)
    assert report.is_whole
    return report


async def test_numbers_have_no_gap_in_each_chain_and_in_all(database: Database) -> None:
    await fill(database)
    async with database.read() as tx:
        rows = await store.list_audit(tx)
    found = sorted((row.seq, row.chain, row.number) for row in rows)
    assert found == [(n + 1, WHERE[n % 3] or "-", n // 3 + 1) for n in range(ROWS)]


async def test_a_deed_that_fails_leaves_no_gap(database: Database) -> None:
    await fill(database, 3)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with database.transaction() as tx:
                await audit.write(tx, roles.operator(), "x", "y", "z", "", organization_id="orgn_1", at=NOW)
                raise ZeroDivisionError
    await fill(database, 3)
    assert (await verified(database)).rows == 6


async def test_writers_at_once_do_not_fork_the_chain(database: Database, database_url: str) -> None:
    others = [Database(database_url) for _ in range(3)]
    for other in others:
        other.chain_key = CHAIN_KEY
    await asyncio.gather(*(write(others[n % 3], WHERE[n % 2], n) for n in range(30)))
    report = await verified(database)
    assert (report.rows, report.chains, report.faults) == (30, 2, ())
    for other in others:
        await other.close()


async def test_several_rows_in_one_transaction(database: Database) -> None:
    async with database.transaction() as tx:
        for n in range(5):
            await audit.write(tx, roles.operator(), "x", "y", f"z{n}", "", organization_id=WHERE[n % 2], at=NOW)
    assert (await verified(database)).rows == 5


async def test_a_long_log_is_walked_in_batches(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.ledger.verify._BATCH", 4)
    monkeypatch.setattr("ostiary.ledger.audit._BATCH", 3)
    await fill(database, 21)
    told: list[int] = []
    report = await prove(database, CHAIN_KEY, (), lambda _what, done, _of: told.append(done))
    assert (report.rows, report.faults) == (21, ())
    assert told == [4, 8, 12, 16, 20, 21, 21]


async def test_deeds_may_go_on_meanwhile(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.ledger.verify._BATCH", 3)
    await fill(database)

    async def go_on() -> None:
        for n in range(20):
            await write(database, WHERE[n % 3], n)

    writing = asyncio.get_running_loop().create_task(go_on())
    while not writing.done():
        report = await verified(database)
        assert report.faults == ()
    await writing
    assert (await verified(database)).rows == ROWS + 20


# ---- what somebody with a shell on the database may do ------------------------------------------------------------

OTHER: Final[dict[str, str]] = {
    "at": "at + 1",
    "organization_id": "'orgn_2'",
    "actor_kind": "'user'",
    "actor_id": "'somebody'",
    "actor_name": "'somebody'",
    "deed": "'agent_keys.show'",
    "target_kind": "'member'",
    "target_id": "'key_77'",
    "target_name": "target_name || ' '",
    "before": "'{}'",
    "after": "NULL",
    "origin": "'page'",
    "address": "''",
    "result": "'denied'",
    "chain": "'orgn_3'",
    "number": "77",
    "hash": "(SELECT b.hash FROM audit AS b WHERE b.seq = 7)",
}


@pytest.mark.parametrize("column", OTHER)
async def test_an_edit_of_any_column(database: Database, column: str) -> None:
    await fill(database)
    await spoil(database, f'UPDATE audit SET "{column}" = {OTHER[column]} WHERE seq = 4')  # noqa: S608 - our own columns
    assert first_seq(await verified(database)) == 4


async def test_every_column_is_tried() -> None:
    assert set(OTHER) | {"seq"} == {column.name for column in schema.audit.c} == {*chain.FIELDS, "hash"}


@pytest.mark.parametrize("column", ["organization_id", "before", "after", "chain", "number", "hash"])
async def test_a_value_taken_out(database: Database, column: str) -> None:
    await fill(database)
    await spoil(database, f'UPDATE audit SET "{column}" = NULL WHERE seq = 4')  # noqa: S608 - our own columns
    assert first_seq(await verified(database)) == 4


@pytest.mark.parametrize(
    ("statements", "first"),
    [
        (["DELETE FROM audit WHERE seq = 1"], 1),
        (["DELETE FROM audit WHERE seq = 5"], 5),
        (["DELETE FROM audit WHERE seq IN (4, 7)"], 4),
        (["DELETE FROM audit WHERE seq = 12"], 12),
        (["DELETE FROM audit WHERE seq > 6"], 7),
        (["DELETE FROM audit WHERE chain = 'orgn_2'"], 2),
        (["DELETE FROM audit"], 1),
        (["UPDATE audit SET seq = 100 WHERE seq = 4"], 4),
        (["UPDATE audit SET seq = 100 WHERE seq = 12"], 12),
        (["UPDATE audit SET seq = 0 WHERE seq = 4"], 0),
        # two rows change places, in one chain and across
        (["UPDATE audit SET seq = 99 WHERE seq = 4", "UPDATE audit SET seq = 4 WHERE seq = 7",
          "UPDATE audit SET seq = 7 WHERE seq = 99"], 4),
        (["UPDATE audit SET seq = 99 WHERE seq = 4", "UPDATE audit SET seq = 4 WHERE seq = 5",
          "UPDATE audit SET seq = 5 WHERE seq = 99"], 4),
        # their contents change places, the numbers stay
        (["UPDATE audit SET number = 99 WHERE seq = 4", "UPDATE audit SET number = 2 WHERE seq = 7",
          "UPDATE audit SET number = 3 WHERE number = 99"], 4),
        # a row is taken out and everything behind it moves up
        (["DELETE FROM audit WHERE seq = 10", "UPDATE audit SET seq = seq - 1 WHERE seq = 11",
          "UPDATE audit SET seq = seq - 1 WHERE seq = 12"], 10),
        # a row goes to another organization, with the columns it would have there
        (["UPDATE audit SET chain = 'orgn_2', organization_id = 'orgn_2', number = 5 WHERE seq = 10"], 10),
        (["UPDATE audit SET chain = 'orgn_3', organization_id = 'orgn_3' WHERE chain = 'orgn_2'"], 2),
        (["UPDATE audit SET number = number + 100"], 1),
    ],
)  # fmt: skip
async def test_rows_taken_out_and_moved(database: Database, statements: list[str], first: int) -> None:
    await fill(database)
    for statement in statements:
        await spoil(database, statement)
    assert first_seq(await verified(database)) == first


async def forge(database: Database, seq: int, **other: Any) -> None:
    """Put a row in, made like the one it copies."""
    async with database.transaction() as tx:
        row = dict((await tx.execute(schema.audit.select().where(schema.audit.c.seq == 4))).mappings().one())
        await tx.execute(insert(schema.audit).values({**row, "seq": seq, **other}))


@pytest.mark.parametrize(
    "other",
    [
        {"number": 5},
        {"number": 5, "hash": b"x" * 32},
        {"chain": "orgn_9", "organization_id": "orgn_9", "number": 1},
        {"chain": None, "number": None, "hash": None},
        {"chain": "orgn_1", "number": None, "hash": None},
        {"chain": None, "number": 5, "hash": b"x" * 32},
    ],
)
@pytest.mark.parametrize("seq", [-(2**63), 0, 13, 50])
async def test_rows_put_in(database: Database, seq: int, other: dict[str, Any]) -> None:
    await fill(database)
    await forge(database, seq, **other)
    report = await verified(database)
    assert seq in {fault.seq for fault in report.faults}
    assert report.faults[0].seq in {seq, 13}
    await fill(database, 6)  # the house goes on, and the row stays found
    report = await verified(database)
    assert seq in {fault.seq for fault in report.faults}


async def test_a_row_in_the_place_of_another(database: Database) -> None:
    await fill(database)
    await spoil(database, "DELETE FROM audit WHERE seq = 7")
    await forge(database, 7, number=3)
    assert first_seq(await verified(database)) == 7


@pytest.mark.parametrize("cut", [11, 6, 3, 0])
async def test_cut_off_and_written_on(database: Database, cut: int) -> None:
    """The gap stays for good: the next row is numbered behind what was there."""
    await fill(database)
    await spoil(database, f"DELETE FROM audit WHERE seq > {cut}")  # noqa: S608 - our own columns
    await fill(database, 9)
    assert first_seq(await verified(database)) == cut + 1


async def test_cut_off_written_on_and_numbered_again(database: Database) -> None:
    """Whoever cuts rows off cannot make the head of what is left, even where every row that is left is true."""
    await fill(database)
    await spoil(database, "DELETE FROM audit WHERE seq > 6")
    for old, new in (('"seq":12', '"seq":6'), ('"older":0', '"older":12')):
        await spoil(
            database,
            "UPDATE instance SET value = replace(value, :old, :new) WHERE name = 'audit_head'",
            old=old,
            new=new,
        )
        assert not (await verified(database)).is_whole
        await fill(database, 3)
        assert not (await verified(database)).is_whole


@pytest.mark.parametrize("column", ["seq", "link", "older", "begun_at"])
async def test_an_edit_of_the_head(database: Database, column: str) -> None:
    await fill(database)
    async with database.read() as tx:
        found = json.loads((await store.find_end(tx)).text or "")
    found[column] = "00" * 32 if column == "link" else found[column] + 1
    await spoil(database, "UPDATE instance SET value = :value WHERE name = 'audit_head'", value=json.dumps(found))
    assert not (await verified(database)).is_whole
    await fill(database, 3)
    assert not (await verified(database)).is_whole


@pytest.mark.parametrize("value", ["", "{}", "null", "[1]", '{"seq":12}', "x" * 1_000, '{"seq":"12"}'])
async def test_a_head_that_is_none_stops_deeds(database: Database, value: str) -> None:
    await fill(database)
    await spoil(database, "UPDATE instance SET value = :value WHERE name = 'audit_head'", value=value)
    await refused_everywhere(database)


async def test_without_its_head_the_log_is_not_begun_anew(database: Database) -> None:
    await fill(database)
    await spoil(database, "DELETE FROM instance WHERE name = 'audit_head'")
    await refused_everywhere(database)


async def refused_everywhere(database: Database) -> None:
    async with database.transaction() as tx:
        await audit.begin(tx, NOW)
    with pytest.raises(Refusal, match="audit verify") as caught:
        await write(database, "orgn_1")
    assert caught.value.code == "service_unavailable"
    report = await verified(database)
    assert "end of the log" in report.faults[-1].what
    assert report.rows == ROWS


async def test_another_key_proves_nothing(database: Database) -> None:
    await fill(database, 40)
    report = await verified(database, key=Secret("7b" * 32))
    assert (first_seq(report), len(report.faults), report.more) == (1, 20, 20)


async def test_without_a_key_nothing_is_done(database: Database) -> None:
    database.chain_key = None
    with pytest.raises(RuntimeError, match="vault"):
        await write(database, "orgn_1")
    async with database.read() as tx:
        assert await store.list_audit(tx) == []


async def test_a_row_cannot_be_written_in_passing(database: Database) -> None:
    async with database.read() as tx:
        with pytest.raises(RuntimeError, match="transaction"):
            await audit.write(tx, roles.operator(), "x", "y", "z", "", organization_id=None, at=NOW)


async def test_what_is_no_text_is_named_too(sqlite_template: Path, tmp_path: Path) -> None:
    """SQLite keeps any bytes in any column, and would not read them as text."""
    database = Database(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'x.db')}")
    database.chain_key = CHAIN_KEY
    for column, value in (
        ("actor_name", "CAST(x'fffe' AS TEXT)"),
        ("actor_name", "CAST(actor_name AS BLOB)"),
        ("at", "CAST(at AS BLOB)"),
        ("at", "'soon'"),
        ("at", "at + 0.5"),
        ("number", "'x'"),
        ("number", "-1"),
        ("hash", "CAST(x'fffe' AS TEXT)"),
        ("chain", "CAST(x'fffe' AS TEXT)"),
        ("before", "CAST(x'fffe' AS TEXT)"),
        ("before", "NULL"),
    ):
        await fill(database, 3)
        end = (await verified(database)).rows
        kept = await snapshot(database)
        await spoil(database, f"UPDATE audit SET {column} = {value} WHERE seq = {end}")  # noqa: S608 - our own columns
        assert first_seq(await verified(database)) == end, (column, value)
        await put_back(database, kept)
        assert (await verified(database)).is_whole
    await database.close()


# ---- older rows -------------------------------------------------------------------------------------------------


OLDER: Final = (1, 2, 3, 5, 9)


async def as_once(database: Database, seqs: tuple[int, ...] = OLDER) -> None:
    """Rows as an Ostiary without a chain wrote them."""
    async with database.transaction() as tx:
        await as_once_in(tx, seqs)


async def as_once_in(tx: Transaction, seqs: tuple[int, ...] = OLDER) -> None:
    for n in seqs:
        row = {"seq": n, "at": NOW + n, "actor_kind": "operator", "actor_id": "operator", "actor_name": "operator"}
        row |= {"deed": "prices.set", "target_kind": "price", "target_id": "p", "target_name": "p"}
        row |= {"origin": "cli", "result": "ok"}
        where = WHERE[n % 3]
        await tx.execute(insert(schema.audit).values(row | ({"organization_id": where} if where else {})))


async def test_older_rows_are_taken_in_and_counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.ledger.audit._BATCH", 2)
    await as_once(database)
    async with database.transaction() as tx:
        await audit.begin(tx, NOW + 100)
    await fill(database, 6)
    report = await verified(database)
    assert (report.rows, report.older_rows, report.begun_at, report.faults) == (11, 5, NOW + 100, ())


async def test_a_database_of_before_the_chain_is_taken_in(tmp_path: Path) -> None:
    """As its first start with this version does: the schema first, then the rows."""
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    database.chain_key = CHAIN_KEY

    def to_first(connection: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")

    async with database.transaction() as tx:
        await tx.run_sync(to_first)
        await as_once_in(tx)
    await migrate(database)
    async with database.transaction() as tx:
        await audit.begin(tx, NOW)
    await fill(database, 3)
    report = await verified(database)
    assert (report.rows, report.older_rows, report.faults) == (8, 5, ())
    await database.close()


async def test_gateways_that_start_at_once_begin_once(database: Database, database_url: str) -> None:
    await as_once(database)
    other = Database(database_url)
    other.chain_key = CHAIN_KEY

    async def start(each: Database, at: int) -> None:
        async with each.transaction() as tx:
            await audit.begin(tx, at)

    await asyncio.gather(*(start(each, NOW + n) for n in range(4) for each in (database, other)))
    await fill(database, 3)
    assert (await verified(database)).is_whole
    await other.close()


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        ("UPDATE audit SET actor_name = 'x' WHERE seq = 3", 3),
        ("UPDATE audit SET number = NULL WHERE seq = 3", 3),
        ("UPDATE audit SET number = NULL, hash = NULL, chain = NULL WHERE seq = 3", 3),
        ("UPDATE audit SET number = NULL, hash = NULL, chain = NULL WHERE seq = 12", 12),
        ("DELETE FROM audit WHERE seq = 1", 11),  # the next row of its chain
        ("UPDATE audit SET seq = 4 WHERE seq = 5", 4),
        ("DELETE FROM audit WHERE seq = 10", 10),
    ],
)
async def test_older_rows_are_proven_from_then_on(database: Database, statement: str, first: int) -> None:
    await as_once(database)
    async with database.transaction() as tx:
        await audit.begin(tx, NOW)
    await fill(database, 6)
    assert (await verified(database)).is_whole
    await spoil(database, statement)
    assert first_seq(await verified(database)) == first


@pytest.mark.parametrize("seq", [4, 8, 0, -7])
async def test_no_row_can_be_slipped_in_among_the_older_ones(database: Database, seq: int) -> None:
    await as_once(database)
    async with database.transaction() as tx:
        await audit.begin(tx, NOW)
    await fill(database, 3)
    await as_once(database, (seq,))
    assert first_seq(await verified(database)) == seq


# ---- anchors ----------------------------------------------------------------------------------------------------


async def test_each_chain_that_has_grown_is_anchored(database: Database, tmp_path: Path) -> None:
    path = tmp_path / anchors.FILE
    await fill(database)
    assert await anchors.anchor(database, path, "here", NOW) == 3
    assert await anchors.anchor(database, path, "here", NOW + 1) == 0
    await write(database, "orgn_2", 50)
    assert await anchors.anchor(database, path, "here", NOW + 2) == 1
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["chain"], one["number"], one["seq"]) for one in lines] == [
        ("orgn_1", 4, 10), ("orgn_2", 4, 11), ("-", 4, 12), ("orgn_2", 5, 13),
    ]  # fmt: skip
    assert path.stat().st_mode & 0o777 == 0o600
    report = await verified(database, path)
    assert (report.anchors, report.anchored_at, report.faults) == (4, NOW + 2, ())


async def test_two_who_anchor_at_once_leave_a_file_that_proves_itself(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a gateway and 'ostiary explain' beside it do: the second comes when the first knows where the file ends."""
    path, cut = tmp_path / anchors.FILE, anchors._cut_to_last_line
    await fill(database)
    locking, came = threading.Event(), list[Future[int]]()

    def lock(descriptor: int, how: int) -> None:
        if came:
            locking.set()
        fcntl.flock(descriptor, how)

    def cut_as_another_comes(file: IO[bytes]) -> bytes:
        end = cut(file)
        if not came:
            came.append(asyncio.run_coroutine_threadsafe(anchors.anchor(database, path, "there", NOW + 1), loop))
            came[0].add_done_callback(lambda _: locking.set())
            assert locking.wait(20)
        return end

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(anchors, "fcntl", SimpleNamespace(flock=lock, LOCK_EX=fcntl.LOCK_EX), raising=False)
    monkeypatch.setattr(anchors, "_cut_to_last_line", cut_as_another_comes)
    await anchors.anchor(database, path, "here", NOW)
    await asyncio.wrap_future(came[0])
    report = await verified(database, path)
    assert (report.anchors, report.faults) == (6, ())


async def snapshot(database: Database) -> dict[str, list[dict[str, Any]]]:
    async with database.read() as tx:
        tables = (schema.audit, schema.instance)
        return {table.name: [dict(row) for row in (await tx.execute(table.select())).mappings()] for table in tables}


async def put_back(database: Database, kept: dict[str, list[dict[str, Any]]]) -> None:
    async with database.transaction() as tx:
        for table in (schema.audit, schema.instance):
            await tx.execute(table.delete())
            for row in kept[table.name]:
                await tx.execute(
                    insert(table).values({name: value for name, value in row.items() if value is not None})
                )


@pytest.mark.parametrize("on", [0, 1, 20])
async def test_a_whole_log_put_back_to_what_it_once_was(database: Database, tmp_path: Path, on: int) -> None:
    """Rows and head of an hour ago are true among themselves: only what is outside of the database knows better."""
    path = tmp_path / anchors.FILE
    await fill(database, 6)
    kept = await snapshot(database)
    await fill(database, 6)
    await anchors.anchor(database, path, "here", NOW)
    await put_back(database, kept)
    with pytest.raises(Refusal, match="shorter"):
        await anchors.anchor(database, path, "here", NOW + 1)
    await fill(database, on, 100)
    assert (await verified(database)).is_whole
    report = await verified(database, path)
    assert not report.is_whole
    assert "anchor" in report.faults[0].what


async def test_a_log_begun_anew(database: Database, tmp_path: Path) -> None:
    """All rows made to look older than the chain, and edited: the next start takes them in, the anchors do not."""
    path = tmp_path / anchors.FILE
    await fill(database)
    await anchors.anchor(database, path, "here", NOW)
    await spoil(database, "UPDATE audit SET chain = NULL, number = NULL, hash = NULL")
    await spoil(database, "UPDATE audit SET actor_name = 'nobody' WHERE seq = 4")
    await spoil(database, "DELETE FROM instance WHERE name = 'audit_head'")
    async with database.transaction() as tx:
        await audit.begin(tx, NOW)
    assert (await verified(database)).is_whole
    assert not (await verified(database, path)).is_whole


async def test_a_chain_taken_out_whole(database: Database, tmp_path: Path) -> None:
    path = tmp_path / anchors.FILE
    await fill(database)
    await anchors.anchor(database, path, "here", NOW)
    await spoil(database, "DELETE FROM audit WHERE chain = 'orgn_2'")
    report = await verified(database, path)
    assert first_seq(report) == 2
    assert any(fault.chain == "orgn_2" and "had 4 rows" in fault.what for fault in report.faults)


@pytest.mark.parametrize(
    ("spoilt", "line"),
    [
        (lambda lines: [lines[0].replace('"number":4', '"number":3'), *lines[1:]], 1),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [*lines, lines[-1]], 5),
        (lambda lines: [*lines[:2], "", *lines[2:]], 3),
        (lambda lines: [*lines, "{}"], 5),
        (lambda lines: [*lines[:1], "x" * 20_000, *lines[1:]], 2),
        (lambda lines: [lines[0].replace('"mac":"', '"mac":"0'), *lines[1:]], 1),
    ],
)
async def test_a_file_of_anchors_that_was_changed(database: Database, tmp_path: Path, spoilt: Any, line: int) -> None:
    path = tmp_path / anchors.FILE
    await fill(database)
    await anchors.anchor(database, path, "here", NOW)
    await write(database, "orgn_1")
    await anchors.anchor(database, path, "here", NOW)
    path.write_text("\n".join(spoilt(path.read_text().splitlines())) + "\n")
    report = await verified(database, path)
    assert report.faults[0].what.startswith(f"line {line} of ")
    await write(database, "orgn_1")
    await anchors.anchor(database, path, "here", NOW)  # goes on behind it
    assert (await verified(database, path)).faults[0].what.startswith(f"line {line} of ")


@pytest.mark.parametrize("cut", [1, 10, 100])
async def test_half_a_line_of_a_crash_is_not_held_against_it(database: Database, tmp_path: Path, cut: int) -> None:
    path = tmp_path / anchors.FILE
    await fill(database)
    await anchors.anchor(database, path, "here", NOW)
    path.write_bytes(path.read_bytes()[:-cut])
    assert (await verified(database, path)).anchors == 2
    assert await anchors.anchor(database, path, "here", NOW) == 1
    report = await verified(database, path)
    assert (report.anchors, report.faults) == (3, ())


async def test_anchors_of_several_gateways_are_compared(database: Database, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    await fill(database, 6)
    await anchors.anchor(database, paths[0], "a", NOW)
    kept = await snapshot(database)
    await fill(database, 6)
    await anchors.anchor(database, paths[1], "b", NOW)
    assert (await verified(database, *paths)).is_whole
    await put_back(database, kept)
    await fill(database, 6, 100)
    assert (await verified(database, paths[0])).is_whole
    assert not (await verified(database, *paths)).is_whole


async def test_after_a_restore_the_old_anchors_are_set_aside(database: Database, tmp_path: Path) -> None:
    path = tmp_path / anchors.FILE
    assert anchors.set_aside(path, NOW) is None
    await fill(database, 3)
    await anchors.anchor(database, path, "a", NOW)
    kept = anchors.set_aside(path, NOW)
    assert kept
    assert kept.exists()
    assert not path.exists()
    assert await anchors.anchor(database, path, "a", NOW) == 3
    assert (await verified(database, path, kept)).anchors == 6


async def test_the_key_is_made_of_the_pepper_and_is_not_it() -> None:
    pepper = Secret("pepper")
    assert chain.key_of(pepper) == chain.key_of(Secret("pepper"))
    assert chain.key_of(pepper) != chain.key_of(Secret("pepper "))
    assert len(bytes.fromhex(chain.key_of(pepper).reveal())) == 32
