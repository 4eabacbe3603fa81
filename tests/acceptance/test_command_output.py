"""What commands print arrives whole, or they say that it did not: a secret is shown once."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.servers.canaries import Canaries
from tests.servers.gateway import OSTIARY, House
from tests.servers.shell import Shell

SECRET = re.compile(r"ost_pat_[0-9A-Za-z]{49}")
NAME = "Schlüssel – 鍵"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> House:
    """One installation for all tests here; each uses names of its own."""
    made = House(tmp_path_factory.mktemp("output"), canaries, shell)
    made.cli("keys", "list")  # the first command of all speaks of the master key that it made
    return made


def ran(house: House, line: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    """A line of the shell, in which `ostiary` is the installed program from its start."""
    return subprocess.run(
        ["/bin/sh", "-c", line.replace("ostiary", shlex.quote(str(OSTIARY)))],
        capture_output=True,
        timeout=60,
        env=house.environment() | env,
        cwd=house.folder,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_our_letters_loses_no_secret(house: House, encoding: str) -> None:
    name = f"{NAME} {encoding}"
    made = ran(house, f"ostiary keys create --name '{name}' --json", PYTHONIOENCODING=encoding)
    found = json.loads(made.stdout)  # UTF-8, as all JSON
    house.canaries.watch(found["secret"])
    assert (made.returncode, made.stderr) == (0, b"")
    assert found["name"] == name
    assert found["preview"] == f"{found['secret'][:12]}…{found['secret'][-4:]}"
    told = ran(house, f"ostiary keys rotate '{name}'", PYTHONIOENCODING=encoding)
    assert (told.returncode, told.stderr) == (0, b"")
    (secret,) = set(SECRET.findall(told.stdout.decode(encoding)))
    house.canaries.watch(secret)
    assert "Schl" in told.stdout.decode(encoding)
    assert "\\u2013" in told.stdout.decode(encoding), "what it lacks is spelled out"
    table = ran(house, "ostiary keys list", PYTHONIOENCODING=encoding)
    assert (table.returncode, table.stderr) == (0, b"")
    assert "\\u2026" in table.stdout.decode(encoding)


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("form", ["", " --json"])
def test_an_output_that_takes_nothing_is_said_in_one_line(house: House, form: str, buffered: str) -> None:
    name = f"unseen{form}{buffered}".replace(" --", "-")
    made = ran(house, f"ostiary keys create --name {name}{form} > /dev/full", PYTHONUNBUFFERED=buffered)
    (line,) = made.stderr.decode().splitlines()
    assert made.returncode == 1
    assert "No space left on device" in line
    assert "done all the same" in line
    assert name in [key["name"] for key in house.json("keys", "list")], "and so it is"
    listed = ran(house, f"ostiary keys list{form} > /dev/full", PYTHONUNBUFFERED=buffered)
    assert (listed.returncode, len(listed.stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("to", ["> /dev/full", ">&-"])
@pytest.mark.parametrize("line", ["--help", "--version", "keys --help", "keys create --help"])
def test_help_that_cannot_be_written_is_said_in_one_line(house: House, line: str, to: str, buffered: str) -> None:
    asked = ran(house, f"ostiary {line} {to}", PYTHONUNBUFFERED=buffered)
    (said,) = asked.stderr.decode().splitlines()
    why = "it is closed" if "-" in to else "No space left on device"
    assert (asked.returncode, said) == (1, f"ostiary: Nothing can be written to standard output: {why}.")


@pytest.mark.parametrize("line", ["keys list", "keys list --json", "usage --csv"])
def test_a_closed_output_is_said_in_one_line(house: House, line: str) -> None:
    closed = ran(house, f"ostiary {line} >&-")
    (said,) = closed.stderr.decode().splitlines()
    assert closed.returncode == 1
    assert "it is closed" in said


@pytest.mark.parametrize("form", ["", " --json"])
def test_who_reads_no_further_hears_nothing_of_it(house: House, form: str, tmp_path: Path) -> None:
    code = tmp_path / "code"
    piped = ran(house, f"(ostiary vault providers{form}; echo $? > {code}) | true")
    assert (piped.stderr, code.read_text()) == (b"", "1\n")
