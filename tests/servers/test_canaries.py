"""The sweep finds what has leaked, however it was written, and nothing else."""

from __future__ import annotations

import base64
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ostiary.agents import credential
from tests.servers.canaries import INPUT_SUFFIX, REGISTER, Canaries, plant, registered, sweep
from tests.servers.forks import ROOT

_MINTED = "ost_pat_" + "3kT9aB7cD2eF5gH8iJ1kL4mN6oP0qR" + "sTuVwXyZ01234567890"


@pytest.fixture
def own(tmp_path: Path) -> Canaries:
    """Canaries of this test alone: what leaks here must not be looked for by the suite's own sweep."""
    return Canaries(tmp_path / REGISTER)


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    """A place whose leaks are meant, cleared away before the suite's own sweep comes."""
    return tmp_path


@pytest.fixture(autouse=True)
def cleared(tmp_path: Path) -> object:
    yield
    shutil.rmtree(tmp_path)


def test_planted_secret_is_found_across_blocks(yard: Path) -> None:
    secret = plant("sk-")
    (yard / "log").write_bytes(b"." * ((1 << 20) - 10) + secret.encode() + b"...")
    [leak] = sweep(yard, [])
    assert leak.where.endswith("log")
    assert secret not in str(leak)


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_watched_secret_is_found_in_base64(yard: Path, own: Canaries, before: str) -> None:
    own.watch(_MINTED)
    (yard / "log").write_bytes(base64.b64encode(f"{before}{_MINTED}:".encode()))
    assert len(sweep(yard, own.seen)) == 1


def test_cut_short_is_found_too(yard: Path, own: Canaries) -> None:
    own.watch(_MINTED)
    (yard / "log").write_text(_MINTED[:45])
    assert len(sweep(yard, own.seen)) == 1


@pytest.mark.parametrize("kind", ["pat", "eph", "ck", "cs", "inv"])
def test_credential_of_ours_is_found_though_nobody_watches(yard: Path, kind: str) -> None:
    (yard / "log").write_text(f'{{"key": "{credential.mint(kind).reveal()}"}}')  # type: ignore[arg-type]
    assert len(sweep(yard, [])) == 1


def test_preview_and_client_id_are_not_leaks(yard: Path, own: Canaries) -> None:
    own.watch(f"org_1234567890abcdef1234:{_MINTED}:{_MINTED[::-1]}")
    (yard / "log").write_text(f"org_1234567890abcdef1234 {_MINTED[:12]}…{_MINTED[-4:]}")
    assert sweep(yard, own.seen) == []


def test_database_and_its_log_are_read(yard: Path) -> None:
    secret = plant()
    connection = sqlite3.connect(yard / "x.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (v TEXT)")
    connection.execute("INSERT INTO t VALUES (?)", (secret,))
    connection.commit()
    assert any("x.db-wal" in leak.where for leak in sweep(yard, []))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert any(leak.where.endswith("x.db") for leak in sweep(yard, []))
    connection.close()


def test_inputs_and_the_register_are_left_out(yard: Path, own: Canaries) -> None:
    secret = own.plant()
    (yard / f"key{INPUT_SUFFIX}").write_text(secret)
    assert sweep(yard, own.seen) == []
    assert registered(yard) == {secret}


@pytest.mark.parametrize("workers", [("-p", "no:xdist"), ("-n", "1")], ids=["alone", "xdist"])
@pytest.mark.parametrize("leak", ["(tmp_path / 'log').write_text(canaries.plant())", "print(canaries.plant())"])
def test_leak_fails_the_whole_run(tmp_path: Path, workers: tuple[str, ...], leak: str) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text(f"def test_it(tmp_path, canaries):\n    {leak}\n")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *workers, "-p", "no:cacheprovider", "--basetemp", tmp_path / "base", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "1 passed" in done.stdout
    assert "secrets in the clear" in done.stdout
    assert done.returncode == 1
