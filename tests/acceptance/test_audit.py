"""The audit log of a running house: who did what, and that nobody who has its database can rewrite it unseen."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, GatewayMaker, House, making
from tests.servers.shell import Shell
from tests.servers.waiting import until

HOUR_S = 3_600


@pytest.fixture(scope="module")
def lived(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path
) -> Iterator[Gateway]:
    """A house that is served, in which two organizations have done this and that; it was stopped once meanwhile."""
    with making(tmp_path_factory.mktemp("audit"), canaries, shell, started) as maker:
        gateway = maker()
        gateway.cli("orgs", "create", "--name", "acme")
        for n in range(3):
            gateway.json("keys", "create", "--name", f"key-{n}", "--org", "default")
            gateway.json("keys", "create", "--name", f"key-{n}", "--org", "acme")
        gateway.restart()
        gateway.cli("members", "add", "alice@example.org", "--role", "owner", "--org", "acme")
        gateway.cli("prices", "set", "openai/gpt-4o", "--input", "1", "--output", "2", "--org", "default")
        gateway.cli("members", "add", "bob@example.org", "--org", "default")
        yield gateway


def verify(house: House, *options: str) -> tuple[int, dict[str, Any]]:
    ran = house.cli("audit", "verify", "--json", *options, check=False)
    assert "Traceback" not in ran.err
    return ran.code, json.loads(ran.out)


def database(house: House) -> sqlite3.Connection:
    return sqlite3.connect(house.data_dir / "ostiary.db", timeout=10, isolation_level=None)


def rows(house: House) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.json("audit", "list", "--limit", "0")
    return sorted(found, key=lambda row: row["seq"])


@contextmanager
def undone(house: House) -> Iterator[sqlite3.Connection]:
    """The database, open for mischief that is taken back behind the test, while the house is served."""
    with closing(database(house)) as db:
        db.execute("BEGIN IMMEDIATE")
        kept = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in ("audit", "instance")}  # noqa: S608 - two names
        db.execute("COMMIT")
        try:
            yield db
        finally:
            db.execute("BEGIN IMMEDIATE")
            for name, old in kept.items():
                db.execute(f"DELETE FROM {name}")  # noqa: S608 - as above
                db.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(old[0]))})", old)  # noqa: S608 - as above
            db.execute("COMMIT")


@pytest.mark.main_job
def test_a_log_that_nobody_touched_is_whole(lived: Gateway) -> None:
    code, report = verify(lived)
    assert (code, report["ok"], report["faults"]) == (0, True, [])
    assert report["rows"] == len(rows(lived)) >= 10
    assert report["chains"] >= 2
    assert report["anchors"] >= 2
    said = lived.cli("audit", "verify").out
    assert f"{report['rows']} rows in {report['chains']} chains are as they were written." in said
    assert "anchors were compared" in said


COLUMNS = (
    *("at", "organization_id", "actor_kind", "actor_id", "actor_name", "deed", "target_kind", "target_id"),
    *("target_name", "before", "after", "origin", "address", "result", "chain", "number", "hash"),
)


@pytest.mark.parametrize("column", COLUMNS)
def test_an_edit_of_any_column_is_named(lived: Gateway, column: str) -> None:
    with undone(lived) as db:
        db.execute(f'UPDATE audit SET "{column}" = coalesce("{column}", 0) || 1 WHERE seq = 5')  # noqa: S608 - our own columns
        code, report = verify(lived)
        assert (code, report["faults"][0]["seq"]) == (1, 5)
    assert verify(lived)[0] == 0


COPY = "INSERT INTO audit SELECT"
MOVE = "UPDATE audit SET seq ="
SAME = (
    "at, organization_id, actor_kind, actor_id, actor_name, deed, target_kind, target_id, target_name, "
    "before, after, origin, address, result"
)
MISCHIEF = {
    "delete the first": ("DELETE FROM audit WHERE seq = 1", 1),
    "delete": ("DELETE FROM audit WHERE seq = 5", 5),
    "delete the last": ("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)", None),
    "truncate": ("DELETE FROM audit WHERE seq > 6", 7),
    "empty": ("DELETE FROM audit", 1),
    "reorder": (
        f"{MOVE} -1 WHERE seq = 5; {MOVE} 5 WHERE seq = 6; {MOVE} 6 WHERE seq = -1",
        5,
    ),
    "close the gap": ("DELETE FROM audit WHERE seq = 5; UPDATE audit SET seq = seq - 1 WHERE seq > 5", 5),
    "move to another organization": (
        "UPDATE audit SET organization_id = 'x', chain = 'x', number = 1 WHERE seq = 5",
        5,
    ),
    "make older than the chain": ("UPDATE audit SET chain = NULL, number = NULL, hash = NULL WHERE seq = 5", 5),
    "insert": (f"{COPY} 1000, {SAME}, chain, 1000, hash FROM audit WHERE seq = 5", None),
    "insert without a chain": (f"{COPY} 0, {SAME}, NULL, NULL, NULL FROM audit WHERE seq = 5", 0),
    "remove the end": ("DELETE FROM instance WHERE name = 'audit_head'", None),
}


@pytest.mark.parametrize("what", MISCHIEF)
def test_mischief_is_named(lived: Gateway, what: str) -> None:
    statements, first = MISCHIEF[what]
    last = rows(lived)[-1]["seq"]
    with undone(lived) as db:
        db.executescript(f"BEGIN IMMEDIATE; {statements}; COMMIT")
        code, report = verify(lived)
        assert code == 1
        expected = {"delete the last": last, "insert": last + 1, "remove the end": None}.get(what, first)
        assert report["faults"][0]["seq"] == expected
        said = lived.cli("audit", "verify", check=False)
        assert said.code == 1
        assert ("The log: " if expected is None else f"Row {expected}") in said.out
    assert verify(lived)[0] == 0


@pytest.mark.parametrize("left", [3, 6, 9])
def test_truncated_and_written_on(gateways: GatewayMaker, lived: Gateway, tmp_path: Path, left: int) -> None:
    """With deeds behind the cut, through Ostiary itself, so that all that is left is truly Ostiary's."""
    gateway = copied(gateways, lived, tmp_path)
    with closing(database(gateway)) as db:
        db.execute("DELETE FROM audit WHERE seq > ?", (left,))
    for n in range(12):
        gateway.create_key(f"again-{n}", "--org", "default")
    code, report = verify(gateway)
    assert (code, report["faults"][0]["seq"]) == (1, left + 1)


def test_the_whole_database_put_back_to_an_hour_ago(gateways: GatewayMaker, lived: Gateway, tmp_path: Path) -> None:
    """All in it is true, and it is gone on with: only the anchors know better."""
    gateway = copied(gateways, lived, tmp_path)
    earlier = tmp_path / "earlier.db"
    with closing(database(gateway)) as db, closing(sqlite3.connect(earlier)) as copy:
        db.backup(copy)
    gateway.create_key("incriminating", "--org", "acme")
    gateway.start()
    gateway.stop()
    for name in ("ostiary.db", "ostiary.db-wal", "ostiary.db-shm"):
        (gateway.data_dir / name).unlink(missing_ok=True)
    shutil.copy(earlier, gateway.data_dir / "ostiary.db")
    assert verify(gateway)[0] == 1
    for n in range(5):
        gateway.create_key(f"innocent-{n}", "--org", "acme")
    code, report = verify(gateway)
    assert code == 1
    assert "anchored" in report["faults"][0]["what"]
    kept = (gateway.data_dir / "audit-anchors.jsonl").rename(tmp_path / "kept.jsonl")
    code, report = verify(gateway)
    assert (code, report["anchors"]) == (0, 0)
    assert verify(gateway, "--anchors", str(kept))[0] == 1
    assert "no anchor" in gateway.cli("audit", "verify").out


def copied(gateways: GatewayMaker, lived: Gateway, tmp_path: Path) -> Gateway:
    """The same house, for mischief that is not taken back; not served."""
    folder = tmp_path / "copy"
    folder.mkdir()
    gateway = gateways(folder=folder, start=False)
    gateway.data_dir.mkdir(mode=0o700)
    for name in ("master.key", "audit-anchors.jsonl"):
        shutil.copy2(lived.data_dir / name, gateway.data_dir / name)
    with closing(database(lived)) as db, closing(sqlite3.connect(gateway.data_dir / "ostiary.db")) as copy:
        db.backup(copy)
    return gateway


@pytest.mark.main_job
def test_anchors_that_were_changed(gateways: GatewayMaker, lived: Gateway, tmp_path: Path) -> None:
    gateway = copied(gateways, lived, tmp_path)
    path = gateway.data_dir / "audit-anchors.jsonl"
    text = path.read_text()
    for spoilt in (text.replace('"number":', '"number":1', 1), text.partition("\n")[2], text + "{}\n"):
        path.write_text(spoilt)
        code, report = verify(gateway)
        assert code == 1
        assert "audit-anchors.jsonl was changed" in report["faults"][0]["what"]
    path.write_text(text)
    assert verify(gateway)[0] == 0


def test_another_master_key_proves_nothing(gateways: GatewayMaker, lived: Gateway, tmp_path: Path) -> None:
    gateway = copied(gateways, lived, tmp_path)
    (gateway.data_dir / "master.key").write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    ran = gateway.cli("audit", "verify", check=False)
    assert ran.code == 1
    assert "master key" in ran.err


def test_each_hour_and_each_stop_is_anchored(gateways: GatewayMaker) -> None:
    gateway = gateways(clock=True)
    path = gateway.data_dir / "audit-anchors.jsonl"

    def numbers() -> list[int]:
        return [json.loads(line)["number"] for line in path.read_text().splitlines()] if path.exists() else []

    until(lambda: numbers() == [1], "the first anchor")
    gateway.json("keys", "create", "--name", "one")
    newest = rows(gateway)[-1]["number"]
    assert numbers() == [1]
    gateway.shift(HOUR_S + 60)
    until(lambda: numbers()[-1] >= newest, "an anchor an hour later")
    gateway.json("keys", "create", "--name", "two")
    newest = rows(gateway)[-1]["number"]
    assert gateway.stop() == 0
    assert numbers()[-1] == newest
    assert path.stat().st_mode & 0o777 == 0o600
    assert verify(gateway)[1]["anchors"] == len(numbers())


def test_deeds_are_listed_as_people_ask_for_them(lived: Gateway) -> None:
    everything = lived.json("audit", "list", "--limit", "0")
    assert [row["seq"] for row in everything] == sorted((row["seq"] for row in everything), reverse=True)
    assert len(lived.json("audit", "list", "--limit", "3")) == 3
    acme = lived.json("audit", "list", "--org", "acme")
    assert {row["organization_id"] for row in acme} != {row["organization_id"] for row in everything}
    (one,) = lived.json("audit", "list", "--org", "acme", "--target", "key-2", "--deed", "agent_keys.create")
    assert (one["actor"]["name"], one["target"]["name"], one["result"]) == ("operator", "key-2", "ok")
    assert one["after"]["name"] == "key-2"
    assert lived.json("audit", "list", "--result", "denied") == []
    assert lived.json("audit", "list", "--until", "1h") == []
    assert lived.json("audit", "list", "--org", "acme", "--actor", "alice@example.org") == []
    table = lived.cli("audit", "list", "--org", "acme").out
    assert "agent_keys.create" in table
    assert "alice@example.org" in table
    assert "no such member" in lived.cli("audit", "list", "--org", "acme", "--actor", "x@y.z", check=False).err
    assert "Nothing of this kind" in lived.cli("audit", "list", "--deed", "nothing").out
