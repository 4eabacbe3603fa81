"""Master key and data keys are changed while gateways serve, killed and resumed, and nothing is lost."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ostiary.db.database import Database
from ostiary.secret import Secret
from ostiary.vault import contents, provider_keys, seal_store, store
from ostiary.vault.seal import MasterKeys, Seal
from tests.acceptance import nursery
from tests.acceptance.crowd import Answer, ask
from tests.acceptance.nursery import Nursery
from tests.servers.gateway import OSTIARY, Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL = "openai-compatible/ok"
_PER_SECOND = 200
_MOST_OPEN = 100
_LATE_S = 1.0
"""What could not be sent for longer than this is not caught up with."""
_PER_ROTATION = _PER_SECOND
"""Calls that are sent at least from the beginning of a rotation to its end, however long a busy machine takes."""
_PATIENCE_S = 120
_TRIES = 4
_ROTATIONS = 5
_KILLS = 2
_LATEST_KILL_S = 0.6
_SEED = 20_261_121
BAR = "━"
"""What a bar is drawn with."""


def _new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def _write(file: Path, *keys: str) -> None:
    """As an operator or an orchestrator does: the file is one or the other, at every moment."""
    fresh = file.with_suffix(".fresh")
    fresh.touch(0o600)
    fresh.write_text("\n".join(keys))
    fresh.replace(file)


@dataclass
class Pair:
    """Two gateways on one database, whose master keys are in one file."""

    gateways: tuple[Gateway, Gateway]
    file: Path
    url: str
    nursery: Nursery
    secrets: list[str] = field(default_factory=list)
    """Of two agent keys; what the second one says is captured."""

    @property
    def keys(self) -> list[str]:
        return self.file.read_text().split()

    def rotate_and_kill(self, after_s: float) -> bool:
        """Run the command and kill it so long after it has begun; whether it was killed before its end."""
        self.nursery.start(("master-key", "rotate", "--json"), self.gateways[0].environment())
        until(lambda: self.nursery.has_ended or _is_at_it(self.nursery.pid), "it to begin", 30)
        time.sleep(after_s)
        self.nursery.kill()
        return self.nursery.end().code == -signal.SIGKILL

    def time_a_rotation(self) -> float:
        """Run it to its end; the seconds from when it has begun. A fast machine is over before a slow one is at it."""
        for _ in range(_TRIES):
            self.nursery.start(("master-key", "rotate", "--json"), self.gateways[0].environment())
            until(lambda: self.nursery.has_ended or _is_at_it(self.nursery.pid), "it to begin", 30)
            began = time.monotonic()
            ran = self.nursery.end()
            if not _was_busy(ran.code, ran.err):
                break
        assert ran.code == 0, ran.err
        return time.monotonic() - began

    def rotate(self) -> dict[str, Any]:
        """Run it to its end."""
        for _ in range(_TRIES):
            self.nursery.start(("master-key", "rotate", "--json"), self.gateways[0].environment())
            ran = self.nursery.end()
            if not _was_busy(ran.code, ran.err):
                break
        assert ran.code == 0, ran.err
        found: dict[str, Any] = ran.json
        return found

    def rekey(self) -> dict[str, Any]:
        """Renew the data keys, as often as heartbeats that come late (of gateways under load) are still waited for."""
        for _ in range(_TRIES):
            ran = self.gateways[0].cli("vault", "rekey", "--json", check=False)
            if not _was_busy(ran.code, ran.err) and not ran.json["waits_for_gateways"]:
                break
        assert ran.code == 0, ran.err
        found: dict[str, Any] = ran.json
        return found

    async def check(self) -> Counter[str]:
        """Everything opens with the keys of the file alone; how many of each kind."""
        database = Database(self.url)
        seal = Seal(MasterKeys.parse(Secret(self.file.read_text())))
        found: Counter[str] = Counter()
        try:
            await seal.open_instance(database, 0)
            async with database.read() as tx:
                for key in await seal_store.list_data_keys(tx, None, 1_000):
                    await seal.data_key(tx, key.organization_id, key.version)
                    found["data keys"] += 1
                for one in await store.list_all_provider_keys(tx):
                    await provider_keys.open_secret(tx, seal, one)
                    found["provider keys"] += 1
                query = "SELECT organization_id, request_id, attempt, sealed, sealed_version FROM contents"
                for organization_id, request_id, attempt, sealed, version in await tx.execute(text(query)):
                    place = contents.place_of(organization_id, request_id, attempt, version)
                    assert json.loads((await seal.open(tx, place, sealed)).reveal())["request"]
                    found["contents"] += 1
        finally:
            await database.close()
        return found

    async def opened_by(self, key: str) -> int:
        """How many data keys this master key opens."""
        database = Database(self.url)
        master = MasterKeys.parse(Secret(key))
        try:
            async with database.read() as tx:
                rows = await seal_store.list_data_keys(tx, None, 1_000)
        finally:
            await database.close()
        return sum(master.rewrap(row.wrapped, master.names[0]) is not None for row in rows)


def _is_at_it(pid: int) -> bool:
    """Whether it has taken the lock under which it rotates."""
    try:
        return any(one.readlink().name == "rotation.lock" for one in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, gateways: GatewayMaker, upstream: Upstream, tmp_path: Path) -> Iterator[Pair]:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    file = tmp_path / "keys.secret"
    _write(file, _new_key())
    env = {"OSTIARY_DATABASE_URL": url, "OSTIARY_MASTER_KEY_FILE": str(file)}
    one, two = (gateways(allow=[upstream.origin], env=env | {"OSTIARY_NAME": f"gate-{n}"}) for n in range(2))
    one.add_provider_key("openai-compatible", "upstream", upstream.url)
    secrets = [one.create_key("plain"), one.create_key("captured", "--capture")]
    two.hear()
    with nursery.running(tmp_path / "nursery") as started:
        yield Pair((one, two), file, url, started, secrets)


@dataclass
class Load:
    """So many calls each second, evenly over both gateways and both keys; fewer where the machine cannot keep up."""

    pair: Pair
    answers: list[Answer] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    open: int = 0
    sent: int = 0

    async def run(self) -> None:
        due = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while not self.over.is_set():
                if self.open < _MOST_OPEN:
                    tasks.create_task(self._call(self.sent))
                    self.open += 1
                    self.sent += 1
                due = max(due + 1 / _PER_SECOND, time.monotonic() - _LATE_S)
                await asyncio.sleep(due - time.monotonic())

    def await_calls(self, sent: int) -> None:
        """Until so many have been sent in all."""
        until(lambda: self.sent >= sent, f"{sent} calls", _PATIENCE_S)

    async def _call(self, number: int) -> None:
        gateway, secret = self.pair.gateways[number % 2], self.pair.secrets[number // 2 % 2]
        try:
            self.answers.append(await ask(gateway.port, secret))
        except UnicodeDecodeError as error:
            self.broken.append(repr(error.object))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.broken.append(repr(error))
        finally:
            self.open -= 1

    def check(self) -> None:
        assert self.broken == []
        assert {(answer.status, answer.body) for answer in self.answers if answer.status != 200} == set()


@dataclass
class Deeds:
    """Provider keys are added and given other secrets, and organizations get their first data key, all the time."""

    pair: Pair
    done: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        for number in count():
            if self.over.is_set():
                return
            deed = (self.edit, self.add, self.found)[number % 3]
            deed(number)
            self.done[deed.__name__] += 1

    def edit(self, _number: int) -> None:
        self._do("vault", "edit", "upstream", "--no-test", "--secret-stdin", "--org", "default")

    def add(self, number: int, org: str = "default") -> None:
        """Of a provider that no call goes to."""
        self._do("vault", "add", "groq", "--name", f"k{number}", "--no-test", "--secret-stdin", "--org", org)

    def found(self, number: int) -> None:
        """An organization's first provider key makes its data key."""
        self._do("orgs", "create", f"o{number}")
        self.add(number, f"o{number}")

    def _do(self, *words: str) -> None:
        gateway = self.pair.gateways[1]
        for _ in range(_TRIES):
            ran = gateway.cli(*words, stdin=gateway.canaries.plant(), check=False)
            if not _was_busy(ran.code, ran.err):
                break
        assert ran.code == 0, (words, ran.err)


def _was_busy(code: int, said: str) -> bool:
    """Whether others kept the database for so long that nothing was done; that is no matter of keys."""
    return code == 1 and "The database is not available" in said


@contextmanager
def meanwhile(pair: Pair) -> Iterator[tuple[Load, Deeds]]:
    """Calls and deeds go on while the block runs, and have come to their end when it is over."""
    load, deeds = Load(pair), Deeds(pair)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(lambda: asyncio.run(load.run())), pool.submit(deeds.run)]
        try:
            yield load, deeds
        finally:
            load.over.set()
            deeds.over.set()
        for one in running:
            one.result()


def test_rotated_and_killed_again_and_again_under_load_nothing_fails(pair: Pair) -> None:
    chance = random.Random(_SEED)  # noqa: S311 - when to kill is no secret
    keys = pair.keys
    killed = 0
    with meanwhile(pair) as (load, deeds):
        keys.insert(0, _new_key())
        _write(pair.file, *keys[:2])
        latest_s = min(pair.time_a_rotation() / 4, _LATEST_KILL_S)
        _write(pair.file, keys[0])
        for _ in range(_ROTATIONS):
            before = load.sent
            keys.insert(0, _new_key())
            _write(pair.file, *keys[:2])
            for part in range(1, _KILLS + 1):
                is_killed = pair.rotate_and_kill(chance.uniform(0, latest_s))
                killed += is_killed
                if not is_killed:  # the machine has become faster since that was measured
                    latest_s /= 2
                load.await_calls(before + part * _PER_ROTATION // (_KILLS + 1))  # while it is cut off in the middle
            assert pair.rotate()["undecryptable"] == []
            _write(pair.file, keys[0])
            load.await_calls(before + _PER_ROTATION)
        until(
            lambda: min(deeds.done[what] for what in ("edit", "add", "found")) >= 2, "deeds of each kind", _PATIENCE_S
        )
    assert killed >= _ROTATIONS
    load.check()
    assert len(load.answers) == load.sent >= _ROTATIONS * _PER_ROTATION
    for gateway in pair.gateways:
        gateway.stop()
        assert "undecryptable" not in gateway.output
        assert "master_key.refused" not in gateway.output
    found = asyncio.run(pair.check())
    assert found["provider keys"] == 1 + deeds.done["add"] + deeds.done["found"]
    assert found["data keys"] == 2 + deeds.done["found"]
    assert abs(found["contents"] - len(load.answers) / 2) <= 2, "every call of the key that captures was kept"
    assert asyncio.run(pair.opened_by(keys[0])) == found["data keys"]
    assert [asyncio.run(pair.opened_by(key)) for key in keys[1:]] == [0] * (_ROTATIONS + 1)
    for key in (keys[1], keys[-1]):
        _write(pair.file, key)
        ran = pair.gateways[0].cli("keys", "list", "--org", "default", check=False)
        assert ran.code == 1
        assert "does not open this database" in ran.err
    _write(pair.file, keys[0])
    pair.gateways[0].start()
    assert pair.gateways[0].chat(pair.secrets[0], _MODEL).status_code == 200
    pair.gateways[0].cli("audit", "verify")


def test_data_keys_are_renewed_while_calls_go_on(pair: Pair) -> None:
    with meanwhile(pair) as (load, _):
        time.sleep(0.5)
        said = pair.rekey()
    assert said["waits_for_gateways"] == []
    assert said["undecryptable"] == 0
    assert said["old_data_keys_removed"] >= 1
    load.check()
    for gateway in pair.gateways:
        gateway.stop()
    found = asyncio.run(pair.check())
    assert abs(found["contents"] - len(load.answers) / 2) <= 2


# ---- the embedded default ---------------------------------------------------------------------------------------


@pytest.fixture
def house(gateway: Gateway, upstream: Upstream) -> Gateway:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    return gateway


@pytest.mark.main_job
def test_the_key_file_is_replaced_while_the_gateway_serves(house: Gateway) -> None:
    secret = house.create_key("a")
    file = house.data_dir / "master.key"
    old = file.read_text()
    said = house.json("master-key", "rotate")
    assert file.read_text() != old
    assert len(file.read_text().split()) == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert said["old_keys_dropped"]
    assert said["master_key"] in house.cli("doctor", check=False).out
    assert house.chat(secret, _MODEL).status_code == 200
    house.add_provider_key("openai-compatible", "second", "https://api.example.org/v1")
    house.restart()
    assert house.chat(secret, _MODEL).status_code == 200
    house.stop()
    new = file.read_text()
    _write(file, old)
    ran = house.cli("keys", "list", check=False)
    assert (ran.code, "does not open this database" in ran.err) == (1, True)
    _write(file, new)
    rows = [row for row in house.json("audit", "list") if row["deed"] == "master_key.rotate"]
    assert [row["after"]["phase"] for row in rows] == ["ended", "begun"]
    assert {row["target"]["name"] for row in rows} == {said["master_key"]}
    for text_ in (json.dumps(said), json.dumps(rows), house.output):
        assert old.strip() not in text_
        assert new.strip() not in text_


def test_a_bar_is_drawn_where_somebody_looks_and_nowhere_else(house: Gateway) -> None:
    house.add_provider_key("openai-compatible", "second", "https://api.example.org/v1")
    code, said = in_a_terminal(house, "master-key", "rotate")
    assert (code, BAR in said, "dropping the old key" in said) == (0, True, True)
    assert said.rindex(BAR) < said.index("The vault is under the master key")
    code, said = in_a_terminal(house, "master-key", "rotate", "--json")
    assert (code, BAR in said) == (0, False)
    env = house.environment() | {"FORCE_COLOR": "1"}  # as many a CI has it: a pipe stays one
    piped = subprocess.run([OSTIARY, "master-key", "rotate"], env=env, capture_output=True, text=True, check=True)
    assert "The vault is under the master key" in piped.stdout
    assert not [text for text in (piped.stdout, piped.stderr) if BAR in text or "\x1b" in text]


def in_a_terminal(house: Gateway, *words: str) -> tuple[int, str]:
    """The exit code of a command, and all that a terminal was told by it."""
    ours, theirs = pty.openpty()
    env = house.environment() | {"TERM": "xterm-256color"}
    with subprocess.Popen([OSTIARY, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # what is closed at the other end is an error here
            while part := os.read(ours, 65_536):
                said += part
        os.close(ours)
        return process.wait(), said.decode()


def test_a_backup_of_before_says_which_key_it_needs(house: Gateway, tmp_path: Path) -> None:
    file = house.data_dir / "master.key"
    old, backup = file.read_text(), tmp_path / "before.ostiary"
    [needed] = house.json("backup", str(backup))["master_keys"]
    [current] = [house.json("master-key", "rotate")["master_key"]]
    after = tmp_path / "after.ostiary"
    assert house.json("backup", str(after))["master_keys"] == [current]
    house.stop()
    ran = house.cli("restore", str(backup), "--force", check=False)
    assert ran.code == 1
    assert f"needs the master key {needed}, and this is {current}" in ran.err
    _write(file, file.read_text().strip(), old)
    house.cli("restore", str(backup), "--force")
    house.start()
    assert house.chat(house.create_key("a"), _MODEL).status_code == 200


# ---- what is refused --------------------------------------------------------------------------------------------


def test_a_gateway_whose_setting_lacks_the_new_key_is_named(gateways: GatewayMaker, tmp_path: Path) -> None:
    old, new = _new_key(), _new_key()
    env = {"OSTIARY_DATABASE_URL": f"sqlite:///{tmp_path / 'x.db'}", "OSTIARY_NAME": "gate-7"}
    gateway = gateways(env=env | {"OSTIARY_MASTER_KEY": old})
    alone = gateway.cli("master-key", "rotate", check=False)
    assert alone.code == 1
    assert "comes from a setting" in alone.err
    gateway.env["OSTIARY_MASTER_KEY"] = f"{new},{old}"
    ran = gateway.cli("master-key", "rotate", check=False)
    assert (ran.code, "gate-7" in ran.err, new in ran.err) == (1, True, False)
    gateway.restart()
    done = gateway.json("master-key", "rotate")
    assert (done["resumed"], done["old_keys_dropped"]) == (True, False)
    gateway.env["OSTIARY_MASTER_KEY"] = new
    gateway.restart()
    gateway.create_key("a")


def test_what_does_not_open_is_listed_and_the_exit_code_says_so(house: Gateway) -> None:
    house.stop()
    database = f"sqlite:///{house.data_dir / 'ostiary.db'}"
    asyncio.run(_spoil(database, "UPDATE provider_keys SET sealed = 'gAAAAA'"))
    ran = house.cli("vault", "rekey", "--json", check=False)
    assert (ran.code, ran.json["undecryptable"], len(ran.json["undecryptable_records"])) == (1, 1, 1)
    asyncio.run(_spoil(database, "UPDATE data_keys SET wrapped = 'gAAAAA' WHERE organization_id <> '-'"))
    ran = house.cli("master-key", "rotate", check=False)
    assert ran.code == 1
    assert "opens with no master key at hand" in ran.err
    assert "alone" in ran.out
    assert house.cli("master-key", "rotate", "--no-such-option", check=False).code == 2
    house.start()


async def _spoil(url: str, statement: str) -> None:
    database = Database(url)
    try:
        async with database.transaction() as tx:
            await tx.execute(text(statement))
    finally:
        await database.close()


def test_where_there_is_no_vault_none_is_made(gateways: GatewayMaker) -> None:
    nowhere = gateways(start=False)
    ran = nowhere.cli("master-key", "rotate", check=False)
    assert (ran.code, "no vault" in ran.err) == (1, True)
    assert not nowhere.data_dir.exists()
