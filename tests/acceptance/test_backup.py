"""`ostiary backup` and `restore`: made while calls go on, checked, and put back only where they fit."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.servers import canaries as sweeping
from tests.servers.forks import CLI, Process
from tests.servers.gateway import OSTIARY, Gateway, GatewayMaker
from tests.servers.postgres import Postgres
from tests.servers.reaper import watch
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL = "openai-compatible/ok"
_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="
_KILLS = 12
_KILL_STEP_S = 0.03
_OTHER = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@dataclass
class House:
    """A gateway with a priced provider key and an agent key, and where its backups go."""

    gateway: Gateway
    secret: str
    folder: Path

    def call(self, count: int = 1) -> None:
        for _ in range(count):
            answer = self.gateway.chat(self.secret, _MODEL, max_tokens=5)
            assert answer.status_code == 200, answer.text

    def backup(self, name: str = "copy.ostiary") -> Path:
        file = self.folder / name
        self.made = self.gateway.json("backup", str(file))
        return file

    def fork(self, *words: str) -> Process:
        """Begin a command that may be killed in the middle."""
        env = self.gateway.environment()
        log = self.folder.with_name("killed.log")
        return watch(self.gateway.shell.forks.fork(CLI, words, env, self.gateway.folder, log))

    def restore(self, file: Path, *options: str) -> dict[str, Any]:
        found: dict[str, Any] = self.gateway.json("restore", str(file), *options)
        return found

    def refused(self, file: Path, *options: str) -> str:
        """What a restore says that must fail, and leave no trace."""
        before = sorted(path.name for path in self.gateway.data_dir.iterdir())
        ran = self.gateway.cli("restore", str(file), *options, check=False)
        assert ran.code == 1, ran.out
        assert "Traceback" not in ran.err
        after = sorted(path.name for path in self.gateway.data_dir.iterdir())
        assert [name for name in after if name not in before and not name.endswith(".lock")] == []
        return ran.err

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database says, whichever it is."""
        url = self.gateway.env.get("OSTIARY_DATABASE_URL", "")
        if url.startswith("postgresql"):
            return asyncio.run(_fetch(url, query))
        path = Path(url.removeprefix("sqlite:///")) if url else self.gateway.data_dir / "ostiary.db"
        return _rows(path, query)

    def written(self, count: int) -> bool:
        """Whether the ledger has so many calls, or more."""
        return bool(self.rows("SELECT count(*) FROM usage_events")[0][0] >= count)

    def check(self, count: int) -> None:
        """The ledger has exactly so many calls, and every account the sum of them."""
        events = self.rows("SELECT request_id, cost_nano FROM usage_events")
        assert len(events) == len(set(events)) == count
        total = sum(cost for _, cost in events)
        assert total > 0
        sums: Counter[tuple[str, int]] = Counter()  # of all periods of a kind: one may have ended meanwhile
        for scope, period, spent in self.rows("SELECT scope, period_id, spent_nano FROM accounts"):
            sums[scope, period.count("-")] += spent
        assert set(sums.values()) == {total}


async def _fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    import asyncpg

    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def _furnish(gateway: Gateway, upstream: Upstream, folder: Path) -> House:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "1", "--output", "1")
    folder.mkdir()
    return House(gateway, gateway.create_key("a", "--budget-usd", "5", "--expires", "never"), folder)


@pytest.fixture
def house(gateway: Gateway, upstream: Upstream, tmp_path: Path) -> House:
    """On the embedded database."""
    return _furnish(gateway, upstream, tmp_path / "backups")


@pytest.fixture
def pg_house(gateways: GatewayMaker, upstream: Upstream, postgres_url: str, tmp_path: Path) -> House:
    """On PostgreSQL."""
    env = {"OSTIARY_DATABASE_URL": postgres_url, "OSTIARY_MASTER_KEY": _KEY}
    return _furnish(gateways(allow=[upstream.origin], env=env), upstream, tmp_path / "backups")


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> House:
    """On the one, then on the other."""
    found: House = request.getfixturevalue("house" if request.param == "sqlite" else "pg_house")
    return found


@pytest.fixture
def second_url(postgres: Postgres) -> Iterator[str]:
    """An empty database beside the test's own."""
    name = postgres.make()
    yield postgres.url(name)
    postgres.drop(name)


# ---- the round trip ---------------------------------------------------------------------------------------------


@pytest.mark.main_job
def test_what_was_backed_up_works_after_a_restore(either: House) -> None:
    either.call(3)
    until(lambda: either.written(3), "three calls in the ledger")
    file = either.backup()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in either.folder.iterdir()] == [file.name], "no half-made file is left"
    assert either.made["rows"]["usage_events"] == 3
    [name] = either.made["master_keys"]
    assert name.startswith("mk_")
    either.call(2)
    later = either.gateway.create_key("later")
    either.gateway.stop()
    restored = either.restore(file, "--force")
    assert restored["sha256"] == either.made["sha256"]
    either.gateway.start()
    assert either.gateway.chat(later, _MODEL).status_code == 401, "what came after the backup is not there"
    either.check(3)
    either.call(2)
    until(lambda: either.written(5), "two more calls")
    either.check(5)
    deeds = [deed for (deed,) in either.rows("SELECT deed FROM audit ORDER BY seq") if deed.startswith("backups.")]
    assert deeds == ["backups.restore"], "the copy was made before the deed of making it was written"


def test_a_backup_moves_from_one_kind_of_database_to_the_other(
    pg_house: House, gateways: GatewayMaker, upstream: Upstream, second_url: str, tmp_path: Path
) -> None:
    pg_house.call(2)
    until(lambda: pg_house.written(2), "two calls in the ledger")
    file = pg_house.backup()
    to_sqlite = {"OSTIARY_DATABASE_URL": f"sqlite:///{tmp_path / 'moved.db'}", "OSTIARY_MASTER_KEY": _KEY}
    moved = House(gateways(allow=[upstream.origin], env=to_sqlite, start=False), pg_house.secret, pg_house.folder)
    moved.gateway.data_dir.mkdir()
    moved.restore(file)
    moved.gateway.start()
    moved.call(2)
    until(lambda: moved.written(4), "two calls more")
    moved.check(4)
    moved.gateway.cli("audit", "verify")
    moved.gateway.create_key("numbered after the restored rows")
    back = moved.backup("back.ostiary")
    assert moved.made["database"] == "sqlite"
    to_postgres = {"OSTIARY_DATABASE_URL": second_url, "OSTIARY_MASTER_KEY": _KEY}
    again = House(gateways(allow=[upstream.origin], env=to_postgres, start=False), pg_house.secret, pg_house.folder)
    again.restore(back)
    again.gateway.start()
    again.gateway.create_key("numbered after the restored rows again")
    again.call()
    until(lambda: again.written(5), "one call more")
    again.check(5)
    again.gateway.cli("audit", "verify")


def test_calls_go_on_while_a_backup_is_made_and_it_is_of_one_moment(either: House) -> None:
    over = threading.Event()
    failed: list[int] = []

    def load() -> None:
        while not over.is_set():
            answer = either.gateway.chat(either.secret, _MODEL, max_tokens=5)
            if answer.status_code != 200:
                failed.append(answer.status_code)

    callers = [threading.Thread(target=load) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        until(lambda: either.written(20), "a load", 60)
        file = either.backup()
        size = either.made["rows"]["usage_events"]
        until(lambda: either.written(size + 20), "a load that went on", 60)
    finally:
        over.set()
        for caller in callers:
            caller.join()
    assert failed == []
    either.gateway.stop()
    either.restore(file, "--force")
    either.gateway.start()
    either.check(size)


def test_no_secret_is_in_a_backup_in_the_clear(either: House) -> None:
    file = either.backup()
    key_file = either.gateway.data_dir / "master.key"
    text = key_file.read_text().strip() if key_file.exists() else _KEY
    assert sweeping.sweep(either.folder, either.gateway.canaries.seen) == []
    data = file.read_bytes()
    assert text.encode() not in data
    assert either.secret.encode() not in data
    assert b"upstream" in data, "names are"


# ---- spools -----------------------------------------------------------------------------------------------------


def test_a_spool_that_was_left_is_adopted_into_the_restored_ledger_once(house: House) -> None:
    """What the gateway settled after the backup is in its spool: it comes back, and what was in both counts once."""
    house.call(3)
    until(lambda: house.written(3), "three calls in the ledger")
    file = house.backup()
    house.call(4)
    house.gateway.kill()
    house.restore(file, "--force")
    house.gateway.start()
    assert "spool.adopted" in house.gateway.output
    house.check(7)
    [leased] = {row[0] for row in _rows(house.gateway.data_dir / "ostiary.db", "SELECT leased_nano FROM accounts")}
    assert leased == 0


# ---- what is refused --------------------------------------------------------------------------------------------


def test_an_existing_file_is_not_overwritten(house: House) -> None:
    file = house.folder / "there"
    file.write_text("mine")
    ran = house.gateway.cli("backup", str(file), check=False)
    assert ran.code == 1
    assert "exists" in ran.err
    assert file.read_text() == "mine"
    assert list(house.folder.iterdir()) == [file]


def test_there_must_be_something_to_back_up(gateways: GatewayMaker, tmp_path: Path) -> None:
    nowhere = gateways(start=False)
    ran = nowhere.cli("backup", str(tmp_path / "x"), check=False)
    assert (ran.code, "no instance" in ran.err) == (1, True)
    assert not nowhere.data_dir.exists(), "nothing was made to be backed up"


def test_no_folder_is_said(house: House) -> None:
    ran = house.gateway.cli("backup", str(house.folder / "no" / "x"), check=False)
    assert (ran.code, "There is no folder" in ran.err) == (1, True)


def test_what_is_there_is_replaced_only_when_told_to_and_only_when_nobody_serves(either: House) -> None:
    file = either.backup()
    assert "'ostiary serve'" in either.refused(file)
    assert "'ostiary serve'" in either.refused(file, "--force")
    either.gateway.stop()
    assert "--force" in either.refused(file)
    either.restore(file, "--force")


def test_a_gateway_of_another_folder_is_noticed_on_postgresql(pg_house: House, gateways: GatewayMaker) -> None:
    file = pg_house.backup()
    other = gateways(env=pg_house.gateway.env)
    pg_house.gateway.stop()
    assert "uses this database" in pg_house.refused(file, "--force")
    other.stop()
    pg_house.restore(file, "--force")


def test_whoever_has_the_sqlite_file_open_is_noticed(house: House) -> None:
    file = house.backup()
    house.gateway.stop()
    with closing(sqlite3.connect(house.gateway.data_dir / "ostiary.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        assert "open" in house.refused(file, "--force")
        db.execute("ROLLBACK")
    house.restore(file, "--force")


def test_a_wrong_master_key_changes_nothing_and_is_named(
    house: House, gateways: GatewayMaker, upstream: Upstream
) -> None:
    file = house.backup()
    [needed] = house.made["master_keys"]
    house.gateway.stop()
    path = house.gateway.data_dir / "ostiary.db"
    before = _everything(path)
    house.gateway.env["OSTIARY_MASTER_KEY"] = _OTHER
    said = house.refused(file, "--force")
    assert needed in said
    assert "mk_" in said.replace(needed, "")
    assert _OTHER not in said
    assert _everything(path) == before
    empty = House(gateways(start=False), house.secret, house.folder)
    empty.gateway.data_dir.mkdir()
    assert "master key file" in empty.refused(file), "a new key is not made for an old database"
    assert not (empty.gateway.data_dir / "master.key").exists()
    shutil.copy(house.gateway.data_dir / "master.key", empty.gateway.data_dir / "master.key")
    empty.restore(file)
    empty.gateway.env["OSTIARY_EGRESS_ALLOW"] = upstream.origin
    empty.gateway.start()
    empty.call()


@pytest.mark.parametrize("how", ["half", "tail", "head", "bit", "nothing", "foreign", "folder"])
def test_a_file_that_is_not_whole_changes_nothing(house: House, how: str) -> None:
    whole = house.backup().read_bytes()
    house.gateway.stop()
    path = house.gateway.data_dir / "ostiary.db"
    before = _everything(path)
    bad = house.folder / "bad"
    middle = len(whole) // 2
    spoilt = {
        "half": whole[:middle],
        "tail": whole[:-1],
        "head": whole[1:],
        "bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "nothing": b"",
        "foreign": b"SQLite format 3\0" * 100,
    }
    if how == "folder":
        bad.mkdir()
    else:
        bad.write_bytes(spoilt[how])
    said = house.refused(bad, "--force")
    assert "ostiary:" in said
    assert _everything(path) == before
    house.gateway.start()
    house.call()


def test_a_backup_altered_with_its_digest_mended_is_refused(house: House) -> None:
    """Whoever has the file but not the master key gives himself a key: the digest is right, the signature is not."""
    from ostiary.db import backup_file

    file = house.backup()
    house.gateway.stop()
    manifest = backup_file.read_manifest(file)
    forged = house.folder / "forged"
    forged.write_bytes(file.read_bytes()[: manifest.size])
    with closing(sqlite3.connect(forged)) as db, db:
        db.execute("UPDATE agent_keys SET models_mode = 'all'")
    backup_file.finish(forged, manifest, "a secret of the thief's", lambda *_: None)
    assert "altered" in house.refused(forged, "--force")


def test_a_newer_backup_is_refused(house: House) -> None:
    import msgspec

    from ostiary.db import backup_file

    file = house.backup()
    house.gateway.stop()
    manifest = backup_file.read_manifest(file)
    newer = house.folder / "newer"
    newer.write_bytes(file.read_bytes()[: manifest.size])
    backup_file.finish(newer, msgspec.structs.replace(manifest, schema="9999"), "x", lambda *_: None)
    assert "newer Ostiary" in house.refused(newer, "--force")


# ---- accidents --------------------------------------------------------------------------------------------------


def _run(house: House, *words: str, largest: int) -> subprocess.Popen[bytes]:
    """A command in a process of its own, which may not write files larger than so."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    process = subprocess.Popen(
        [OSTIARY, *words],
        env=house.gateway.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=limit,  # noqa: PLW1509 - no thread runs in the child yet
    )
    return watch(process)


def test_a_full_disk_is_said_and_leaves_no_half_file(house: House) -> None:
    house.call()
    size = (house.gateway.data_dir / "ostiary.db").stat().st_size
    process = _run(house, "backup", str(house.folder / "x"), largest=size // 2)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert b"disk" in said
    assert b"Traceback" not in said
    assert list(house.folder.iterdir()) == []
    file = house.backup()
    house.gateway.stop()
    before = _everything(house.gateway.data_dir / "ostiary.db")
    process = _run(house, "restore", str(file), "--force", largest=size // 2)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert b"disk" in said
    assert _everything(house.gateway.data_dir / "ostiary.db") == before


@pytest.mark.parametrize("deed", ["backup", "restore"])
def test_killed_in_the_middle_the_old_state_is_usable(house: House, deed: str) -> None:
    """Again and again, each time a little later after it has begun, until it was done before it was killed."""
    from ostiary.db import backup_file

    house.call(2)
    until(lambda: house.written(2), "two calls in the ledger")
    _grow(house)
    file = house.backup()
    house.gateway.stop()
    target = house.folder / "killed"
    words = ("backup", str(target)) if deed == "backup" else ("restore", str(file), "--force")
    room_in = house.folder if deed == "backup" else house.gateway.data_dir
    killed = tries = 0
    while killed < _KILLS:
        process = house.fork(*words)
        until(partial(_has_begun, process, room_in), "it to begin", 60)
        time.sleep(killed * _KILL_STEP_S)
        process.kill()
        process.wait(60)
        house.check(2)
        assert _is_sound(house.gateway.data_dir / "ostiary.db")
        half = list(room_in.glob(".ostiary-*"))
        if process.returncode == 0:
            assert not half
            if killed:
                break
            target.unlink(missing_ok=deed == "restore")  # done before anybody came to kill it
            tries += 1
            assert tries < _KILLS, "it is never caught at it"
            continue
        if not half or target.exists():  # killed between its last steps: it has its name when it is whole
            if deed == "backup":
                backup_file.read_manifest(target)
            target.unlink(missing_ok=deed == "restore")
        for room in half:
            assert room.stat().st_mode & 0o777 == 0o700
            shutil.rmtree(room)
        killed += 1
    house.gateway.start()
    house.call()
    until(lambda: house.written(3), "one call more")
    house.check(3)


def _has_begun(process: Process, room_in: Path) -> bool:
    return process.poll() is not None or any(room_in.glob(".ostiary-*"))


def _grow(house: House) -> None:
    """Make the database large enough that copying takes a while."""
    with closing(sqlite3.connect(house.gateway.data_dir / "ostiary.db")) as db, db:
        db.executemany(
            "INSERT INTO changes (at, noun, organization_id, id) VALUES (0, 'nothing', NULL, ?)",
            [(os.urandom(24).hex(),) for _ in range(200_000)],
        )


def _is_sound(path: Path) -> bool:
    return _rows(path, "PRAGMA integrity_check") == [("ok",)]


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def _everything(path: Path) -> list[list[tuple[Any, ...]]]:
    names = [row[0] for row in _rows(path, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    return [_rows(path, f'SELECT * FROM "{name}"') for name in names]  # noqa: S608 - own names
