"""What stops a start, and what it says; nothing is served and nothing is changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostiary.db.migrate import HEAD
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, GatewayMaker, making
from tests.servers.shell import Shell
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="
_OTHER = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def _fails(gateway: Gateway) -> str:
    """What a start says that must fail."""
    process = gateway.spawn()
    assert process.wait(60) == 1
    said = gateway.output
    assert "Traceback" not in said
    return said


@pytest.fixture
def gateways(tmp_path: Path, canaries: Canaries, shell: Shell, started: Path) -> Iterator[GatewayMaker]:
    """They start as a user's do."""
    with making(tmp_path, canaries, shell, started, forked=False) as maker:
        yield maker


@pytest.fixture
def stopped(gateways: GatewayMaker) -> Gateway:
    """A house that was served once, by the embedded default."""
    gateway = gateways()
    gateway.stop()
    return gateway


@pytest.mark.main_job
def test_the_embedded_default_makes_a_private_key_file_and_says_so(gateways: GatewayMaker) -> None:
    gateway = gateways(start=False)
    gateway.start()
    file = gateway.data_dir / "master.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert gateway.data_dir.stat().st_mode & 0o077 == 0
    assert "master_key.made" in gateway.output
    assert "Back it up" in gateway.output


def test_a_missing_key_file_is_not_made_anew(stopped: Gateway) -> None:
    (stopped.data_dir / "master.key").unlink()
    assert "missing" in _fails(stopped)
    assert not (stopped.data_dir / "master.key").exists()


def test_a_key_file_others_may_read_is_refused(stopped: Gateway) -> None:
    (stopped.data_dir / "master.key").chmod(0o644)
    assert "chmod 600" in _fails(stopped)


@pytest.mark.parametrize("text", ["short", "", "x" * 44, _OTHER])
def test_a_wrong_or_short_key_file_serves_nothing_and_changes_nothing(stopped: Gateway, text: str) -> None:
    database = stopped.data_dir / "ostiary.db"
    before = _rows(database)
    (stopped.data_dir / "master.key").write_text(text)
    assert "master key" in _fails(stopped).lower()
    assert _rows(database) == before


def test_the_master_key_may_come_from_the_environment_or_a_file_of_it(gateways: GatewayMaker, tmp_path: Path) -> None:
    gateway = gateways(env={"OSTIARY_MASTER_KEY": _KEY})
    assert not (gateway.data_dir / "master.key").exists()
    gateway.stop()
    file = tmp_path / "key"
    file.write_text(_KEY + "\n")
    file.chmod(0o600)
    gateway.env = {"OSTIARY_MASTER_KEY_FILE": str(file)}
    gateway.start()
    gateway.stop()
    gateway.env = {"OSTIARY_MASTER_KEY": _OTHER}
    assert "master key" in _fails(gateway).lower()
    gateway.env = {"OSTIARY_MASTER_KEY": f"{_OTHER},{_KEY}"}
    gateway.start()


def test_a_database_of_ones_own_needs_a_master_key_of_ones_own(gateways: GatewayMaker, tmp_path: Path) -> None:
    gateway = gateways(env={"OSTIARY_DATABASE_URL": f"sqlite:///{tmp_path / 'own.db'}"}, start=False)
    assert "OSTIARY_MASTER_KEY" in _fails(gateway)
    assert list(gateway.data_dir.glob("*.key")) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://u:p@127.0.0.1:1/x", "database is not available"),
        ("sqlite:////proc/nope/x.db", "cannot be made"),
        ("sqlite://", "OSTIARY_DATABASE_URL"),
        ("mysql://x", "OSTIARY_DATABASE_URL"),
    ],
)
def test_a_database_that_cannot_be_reached_is_said_without_a_trace(gateways: GatewayMaker, url: str, says: str) -> None:
    gateway = gateways(env={"OSTIARY_DATABASE_URL": url, "OSTIARY_MASTER_KEY": _KEY}, start=False)
    said = _fails(gateway)
    assert says in said
    assert ":p@" not in said
    ran = gateway.cli("doctor", "--json", check=False)
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert isinstance(ran.json, dict | list)


@pytest.mark.main_job
def test_a_second_serve_on_the_same_data_is_refused(gateways: GatewayMaker) -> None:
    first = gateways()
    second = gateways(start=False, folder=first.folder)
    second.env = first.env
    said = _fails(second)
    assert "Another 'ostiary serve'" in said
    assert str(first.process.pid if first.process else 0) in said
    assert first.client().get("/health").status_code == 200


def test_a_taken_port_is_said_clearly(gateways: GatewayMaker) -> None:
    first = gateways()
    second = gateways(start=False)
    second.port = first.port
    said = _fails(second)
    assert f"port {first.port}" in said
    assert "by --port" in said


def test_an_address_that_is_not_this_machines_is_said_clearly(gateways: GatewayMaker) -> None:
    elsewhere = gateways(env={"OSTIARY_HOST": "192.0.2.1"}, start=False)
    said = _fails(elsewhere)
    assert "Cannot listen on 192.0.2.1" in said
    assert "by --host" in said


def test_an_unknown_setting_names_the_nearest(gateways: GatewayMaker) -> None:
    gateway = gateways(env={"OSTIARY_EGRES_ALLOW": "x"}, start=False)
    assert "OSTIARY_EGRESS_ALLOW" in _fails(gateway)


def test_a_half_made_or_newer_schema_is_refused(stopped: Gateway) -> None:
    database = stopped.data_dir / "ostiary.db"
    _run(database, "UPDATE alembic_version SET version_num = '9999'")
    assert "newer Ostiary" in _fails(stopped)
    _run(database, f"UPDATE alembic_version SET version_num = '{HEAD}'")  # noqa: S608 - our constant
    _run(database, "DROP TABLE leases")
    assert "leases" in _fails(stopped)
    _run(database, "UPDATE alembic_version SET version_num = '0001'")
    assert f"could not be brought from 0001 to {HEAD}; nothing was changed" in _fails(stopped)
    _run(database, "DROP TABLE alembic_version")
    assert "half made" in _fails(stopped)


def test_a_swapped_ciphertext_is_unusable_alone(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "one", upstream.url)
    gateway.add_provider_key("vllm", "two", upstream.url)
    secret = gateway.create_key("a")
    gateway.stop()
    _run(
        gateway.data_dir / "ostiary.db",
        "UPDATE provider_keys SET sealed = (SELECT sealed FROM provider_keys WHERE name = 'two') WHERE name = 'one'",
    )
    gateway.start()
    refused = gateway.chat(secret, "openai-compatible/ok")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "no_usable_key")
    told = [(one["provider_key"], one["state"], one["retry_at"]) for one in error["keys"]]
    assert told == [("one", "undecryptable", None)]
    assert "retry-after" not in refused.headers, "no waiting mends it"
    assert gateway.chat(secret, "vllm/ok").status_code == 200
    assert "undecryptable" in gateway.output
    assert gateway.json("vault", "show", "one")["status"] == "undecryptable"


def test_a_locked_database_is_a_503_that_passes(gateway: Gateway, upstream: Upstream) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", "openai-compatible/ok", "--input", "1", "--output", "1")
    secret = gateway.create_key("a", "--budget-usd", "1")
    unbounded = gateway.create_key("b")
    with sqlite3.connect(gateway.data_dir / "ostiary.db", isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        client, body = gateway.client(secret, timeout=60), {"model": "openai-compatible/ok", "messages": []}

        def refused_s() -> float:
            refused = client.post("/v1/chat/completions", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "service_unavailable")
            return refused.elapsed.total_seconds()

        assert any(refused_s() < 12 for _ in range(3)), "a machine may stand still, but not each time"
        assert gateway.chat(unbounded, "openai-compatible/ok").status_code == 200, "what needs no budget goes on"
        db.execute("ROLLBACK")
    db.close()
    assert gateway.chat(secret, "openai-compatible/ok").status_code == 200
    assert len(gateway.traces(calls=2)) == 2


def test_a_full_disk_is_a_503_that_passes(gateway: Gateway, upstream: Upstream) -> None:
    """The limit on file sizes stands for the disk: it may be lowered and raised while the process runs."""
    import psutil

    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    secret = gateway.create_key("a")
    assert gateway.chat(secret, "openai-compatible/ok").status_code == 200
    assert gateway.process
    process = psutil.Process(gateway.process.pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (0, before[1]))
    refused = gateway.chat(secret, "openai-compatible/ok")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "service_unavailable")
    calls = len(upstream.calls)
    assert calls == 1, "a call that can't be written down is not made"
    process.rlimit(psutil.RLIMIT_FSIZE, before)
    assert gateway.chat(secret, "openai-compatible/ok").status_code == 200
    until(lambda: len(gateway.traces()) == 2, "both calls in the ledger, which had found the disk full too")


def _run(database: Path, query: str) -> None:
    with sqlite3.connect(database) as db:
        db.execute(query)
    db.close()


def _rows(database: Path) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(database) as db:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in names}  # noqa: S608 - own names
    db.close()
    return found


def test_the_umask_of_a_careless_shell_opens_nothing(gateways: GatewayMaker) -> None:
    before = os.umask(0)
    try:
        gateway = gateways()
        gateway.cli("backup", str(gateway.data_dir / "backup"))
    finally:
        os.umask(before)
    assert gateway.data_dir.stat().st_mode & 0o077 == 0
    assert [path for path in gateway.data_dir.rglob("*") if path.stat().st_mode & 0o077] == []


def test_a_folder_that_others_look_into_shows_them_nothing(gateways: GatewayMaker) -> None:
    gateway = gateways(start=False)
    gateway.data_dir.mkdir(mode=0o755)
    gateway.start()
    assert (gateway.data_dir / "ostiary.db").exists()
    assert [path for path in gateway.data_dir.rglob("*") if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize("lock", ["start.lock", "serve.lock"])
def test_a_file_that_cannot_be_written_is_named(gateways: GatewayMaker, lock: str) -> None:
    gateway = gateways(start=False)
    (gateway.data_dir / lock).mkdir(parents=True)  # nor can root write that
    said = _fails(gateway)
    assert f"{gateway.data_dir / lock} cannot be written to" in said
    assert "Traceback" not in said
