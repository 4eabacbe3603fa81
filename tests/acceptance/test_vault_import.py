"""`ostiary vault import`: the keys of an .env file get into the vault, tested, asked about, and never shown."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.servers.behaviours import chooser, status
from tests.servers.canaries import INPUT_SUFFIX, Canaries
from tests.servers.gateway import OSTIARY, House
from tests.servers.shell import Ran, Shell
from tests.servers.upstream import Received, Upstream
from tests.servers.waiting import until

ROW = """
[[provider]]
id = "{id}"
name = "{id}"
categories = ["llm"]
base_url = "{url}"
env = ["{variable}"]
"""


@pytest.fixture
def house(tmp_path: Path, canaries: Canaries, shell: Shell, upstream: Upstream) -> House:
    """An installation whose operator knows two providers more, both played by `upstream`."""
    rows = tmp_path / "rows.toml"
    rows.write_text(
        ROW.format(id="acme", url=upstream.url, variable="ACME_API_KEY")
        + ROW.format(id="umbra", url=upstream.url, variable="UMBRA_TOKEN")
    )
    env = {"OSTIARY_EGRESS_ALLOW": upstream.origin, "OSTIARY_CATALOG_FILE": str(rows)}
    return House(tmp_path, canaries, shell, env)


@pytest.fixture(autouse=True)
def _as_ever(upstream: Upstream) -> Iterator[None]:
    yield
    upstream.choose = chooser(upstream)


def env_file(house: House, text: str, name: str = "dot.env") -> Path:
    path = house.folder / f"{name}{INPUT_SUFFIX}"
    path.write_text(text)
    return path


def imported(house: House, file: Path, *words: str, stdin: str = "", code: int = 0) -> Ran:
    before = file.read_bytes()
    ran = house.cli("vault", "import", str(file), *words, stdin=stdin, check=False)
    assert ran.code == code, (ran.out, ran.err)
    assert "Traceback" not in ran.err
    assert file.read_bytes() == before, "the file is only read"
    return ran


def vault(house: House) -> dict[str, str]:
    return {key["name"]: key["provider"] for key in house.json("vault", "list")}


@pytest.mark.main_job
def test_keys_are_found_tested_shown_and_saved_when_said(house: House, upstream: Upstream) -> None:
    one, two, bad, other = (house.canaries.plant() for _ in range(4))
    upstream.keys = {one, two}
    file = env_file(
        house,
        f"# keys\nexport ACME_API_KEY='{one}'\nUMBRA_TOKEN={two}\nUMBRA_TOKEN_2={bad}\n"
        f"DATABASE_PASSWORD={other}\n{other}\n",
    )
    ran = imported(house, file, stdin="y\n", code=1)
    assert vault(house) == {"ACME_API_KEY": "acme", "UMBRA_TOKEN": "umbra"}
    for said in ("ACME_API_KEY", "valid", "invalid_key", f"{one[:4]}…{one[-3:]}", "2 saved, 0 skipped, 1 not saved"):
        assert said in ran.out, said
    assert "Line 5, DATABASE_PASSWORD: no provider's key is called so. Left alone." in ran.out
    assert "Line 6: not of the form NAME=VALUE. Left alone." in ran.out
    assert "Remove lines 2, 3." in ran.out
    assert "UMBRA_TOKEN_2: invalid_key" in ran.err
    assert not [secret for secret in (one, two, bad, other) if secret in ran.out + ran.err]
    assert not [secret for secret in (one, bad) if secret in house.cli("audit", "list", "--json").out]
    assert other not in {request.key for request in upstream.received}, "what is nobody's key goes nowhere"
    shown = house.json("vault", "show", "ACME_API_KEY")
    assert (shown["base_url"], shown["status"], shown["added_by"]) == (upstream.url, "healthy", "operator")
    assert house.json("vault", "test", "UMBRA_TOKEN")["outcome"] == "valid"


@pytest.mark.parametrize("answer", ["n\n", "", "what\n"])
def test_without_a_yes_nothing_is_saved(house: House, answer: str) -> None:
    file = env_file(house, f"ACME_API_KEY={house.canaries.plant()}\n")
    imported(house, file, stdin=answer, code=1)
    assert vault(house) == {}


def test_a_terminal_is_asked(house: House) -> None:
    file = env_file(house, f"ACME_API_KEY={house.canaries.plant()}\n")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [OSTIARY, "vault", "import", file],
        stdin=theirs, stdout=theirs, stderr=theirs, env=house.environment(), cwd=house.folder,
    ) as process:  # fmt: skip
        os.close(theirs)
        said = ""

        def is_asked() -> bool:
            nonlocal said
            with suppress(OSError):
                said += os.read(ours, 65_536).decode()
            return "[y/N]" in said

        until(is_asked, "the question", 30)
        os.write(ours, b"y\n")
        with suppress(OSError):
            while part := os.read(ours, 65_536):
                said += part.decode()
        assert process.wait(30) == 0
    os.close(ours)
    assert "Save 1 key in the vault?" in said
    assert vault(house) == {"ACME_API_KEY": "acme"}


def test_a_script_says_yes_and_reads_json(house: House, upstream: Upstream) -> None:
    one, two = house.canaries.plant(), house.canaries.plant()
    upstream.keys = {one}
    file = env_file(house, f"ACME_API_KEY={one}\nUMBRA_TOKEN={two}\nUMBRA_URL=${{X}}\n")
    assert "--yes" in imported(house, file, "--json", code=2).err
    ran = imported(house, file, "--json", "--yes", code=1)
    found = ran.json
    assert [(key["variable"], key["line"], key["outcome"], key["saved"]) for key in found["keys"]] == [
        ("ACME_API_KEY", 1, "valid", True),
        ("UMBRA_TOKEN", 2, "invalid_key", False),
    ]
    assert found["keys"][0]["id"] == house.json("vault", "show", "ACME_API_KEY")["id"]
    assert [(one["line"], one["variable"]) for one in found["unknown"]] == [(3, "UMBRA_URL")]
    assert not [secret for secret in (one, two) if secret in ran.out + ran.err]


def test_what_is_there_already_is_not_there_twice(house: House, upstream: Upstream) -> None:
    one, two, three = (house.canaries.plant() for _ in range(3))
    house.cli("vault", "add", "acme", "--name", "by-hand", "--no-test", "--secret-stdin", stdin=one)
    house.cli("vault", "add", "acme", "--name", "ACME_API_KEY_2", "--no-test", "--secret-stdin", stdin=three)
    upstream.received.clear()
    file = env_file(house, f"ACME_API_KEY={one}\nACME_API_KEY_2={two}\nACME_API_KEY_3={two}\nUMBRA_TOKEN={one}\n")
    found = imported(house, file, "--json", "--yes").json["keys"]
    assert [(key["variable"], key["outcome"], key["name"]) for key in found] == [
        ("ACME_API_KEY", "skipped", None),
        ("ACME_API_KEY_2", "valid", "ACME_API_KEY_2-2"),
        ("ACME_API_KEY_3", "skipped", None),
        ("UMBRA_TOKEN", "valid", "UMBRA_TOKEN"),
    ]
    assert "'by-hand'" in found[0]["message"]
    assert sorted(request.key or "" for request in upstream.received) == sorted([one, two])
    again = imported(house, file, "--json", "--yes").json["keys"]
    assert {key["outcome"] for key in again} == {"skipped"}
    assert len(vault(house)) == 4


def test_a_broken_provider_key_does_not_keep_the_others_out(house: House, upstream: Upstream) -> None:
    good, slow = house.canaries.plant(), house.canaries.plant()
    usual = chooser(upstream)

    def choose(request: Received) -> object:
        return status(500) if request.key == slow else usual(request)

    upstream.choose = choose  # type: ignore[assignment]
    odd = f"{house.canaries.plant()}\u200b"
    file = env_file(house, f"ACME_API_KEY={slow}\nACME_API_KEY_2={odd}\nUMBRA_TOKEN={good}\n")
    found = imported(house, file, "--json", "--yes", code=1).json["keys"]
    assert [key["outcome"] for key in found] == ["unknown", "refused", "valid"]
    assert vault(house) == {"UMBRA_TOKEN": "umbra"}


def test_untested_when_told_so(house: House, upstream: Upstream) -> None:
    file = env_file(house, "".join(f"ACME_API_KEY_{n}={house.canaries.plant()}\n" for n in range(1, 21)))
    found = imported(house, file, "--json", "--yes", "--no-test").json["keys"]
    assert {key["outcome"] for key in found} == {"untested"}
    assert (len(vault(house)), upstream.received) == (20, [])


def test_many_are_tested_at_once_but_not_all(house: House, upstream: Upstream) -> None:
    asked: list[int] = []
    usual = chooser(upstream)

    def choose(request: Received) -> object:
        asked.append(sum(not one.answered.is_set() for one in upstream.received))
        return usual(request)

    upstream.choose = choose  # type: ignore[assignment]
    file = env_file(house, "".join(f"ACME_API_KEY_{n}={house.canaries.plant()}\n" for n in range(1, 31)))
    found = imported(house, file, "--json", "--yes").json["keys"]
    assert {key["outcome"] for key in found} == {"valid"}
    assert len(asked) == 30
    assert max(asked) <= 8


def test_an_address_in_the_file_is_where_the_key_goes(house: House, upstream: Upstream) -> None:
    one, two = house.canaries.plant("sk-"), house.canaries.plant("sk-")
    upstream.keys = {one}
    file = env_file(house, f"OPENAI_API_KEY={one}\nOPENAI_BASE_URL={upstream.url}\n")
    (found,) = imported(house, file, "--json", "--yes").json["keys"]
    assert (found["outcome"], found["base_url"]) == ("valid", upstream.url)
    inside = env_file(house, f"OPENAI_API_KEY={two}\nOPENAI_BASE_URL=http://u:p4ssw0rd@169.254.169.254/v1\n", "inside")
    ran = imported(house, inside, "--json", "--yes", code=1)
    assert ran.json["keys"][0]["outcome"] == "refused"
    assert "p4ssw0rd" not in ran.out + ran.err


def test_files_that_are_none_are_refused(house: House) -> None:
    secret = house.canaries.plant()
    odd = env_file(house, "")
    odd.write_bytes(b"\x00\x01" + secret.encode())
    assert "no text" in imported(house, odd, code=1).err
    odd.write_bytes(f"ACME_API_KEY={secret}é".encode("latin-1"))
    ran = imported(house, odd, code=1)
    assert "UTF-8" in ran.err
    assert secret not in ran.err
    odd.write_bytes(f"ACME_API_KEY={secret}\r\n".encode("utf-16"))
    assert imported(house, odd, "--yes", "--json").json["keys"][0]["outcome"] == "valid"
    assert house.cli("vault", "import", str(house.folder), check=False).code == 2
    assert house.cli("vault", "import", str(house.folder / "none"), check=False).code == 2
    empty = env_file(house, "# nothing\n", "empty")
    assert "No key of a provider" in imported(house, empty).out
