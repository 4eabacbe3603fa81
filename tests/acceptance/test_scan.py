"""`ostiary scan`: what lies about in files is found, said by place and preview, and never repeated."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from ostiary.agents import credential
from tests.servers.canaries import INPUT_SUFFIX, Canaries
from tests.servers.gateway import House
from tests.servers.shell import Ran, Shell


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> House:
    made = House(tmp_path_factory.mktemp("scan"), canaries, shell)
    made.cli("orgs", "list")
    return made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder to look into."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def put(folder: Path, name: str, content: str | bytes) -> Path:
    """A file with a secret in it; its name ends as such files do, so that nobody takes it for a leak of ours."""
    path = folder / f"{name}{INPUT_SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def scanned(house: House, *words: str | Path, code: int) -> Ran:
    ran = house.cli("scan", *(str(word) for word in words), check=False)
    assert ran.code == code, (ran.out, ran.err)
    assert "Traceback" not in ran.err
    return ran


def mint(house: House, kind: credential.Kind = "pat") -> str:
    return house.canaries.watch(credential.mint(kind).reveal())


@pytest.mark.main_job
def test_ours_and_theirs_are_found_by_path_and_line(house: House, tree: Path) -> None:
    pat, groq = mint(house), house.canaries.watch("gsk_" + secrets.token_hex(26))
    one = put(tree, "deep/er/notes.md", f"# notes\n\nkey: {pat}\n")
    two = put(tree, "settings.json", f'{{"a": 1,\n"key": "{groq}"}}')
    put(tree, "harmless", f"{secrets.token_hex(32)}\n{pat[:-1]}\nsk-short\n")
    ran = scanned(house, tree, code=1)
    assert f"{one}:3: agent key {pat[:12]}…{pat[-4:]}, not known here" in ran.out
    assert f"{two}:2: provider key of groq gsk_…{groq[-3:]}" in ran.out
    assert "3 files, 2 credentials." in ran.out
    assert not [secret for secret in (pat, groq) if secret in ran.out + ran.err]
    again = scanned(house, tree, "--json", code=1).json
    assert [(one["line"], one["kind"], one["providers"], one["known"]) for one in again["found"]] == [
        (2, "provider key", ["groq"], None),
        (3, "agent key", [], False),
    ]


def test_what_is_clean_is_said_to_be(house: House, tree: Path) -> None:
    put(tree, "a", "nothing\n")
    assert "1 files, 0 credentials." in scanned(house, tree, code=0).out
    assert scanned(house, tree, "--json", code=0).json == {
        "found": [],
        "scanned": 1,
        "skipped": {"too_large": 0, "binary": 0, "links": 0, "unreadable": 0},
    }
    assert scanned(house, tree / "nowhere", code=2).out == ""
    assert scanned(house, code=2).out == ""


def test_a_key_that_is_known_is_told_with_its_standing(house: House, tree: Path) -> None:
    first = house.create_key("living")
    gone = house.create_key("stopped")
    house.cli("keys", "revoke", "stopped")
    rotated = house.create_key("turned")
    second = house.json("keys", "rotate", "turned")["secret"]
    triple = house.create_credential("machine")
    put(tree, "all", "\n".join([first, gone, rotated, second, triple, mint(house)]))
    found = scanned(house, tree, "--json", code=1).json["found"]
    assert [(one["line"], one["known"], one["name"], one["status"]) for one in found] == [
        (1, True, "living", "active"),
        (2, True, "stopped", "revoked"),
        (3, False, None, None),
        (4, True, "turned", "active"),
        (5, True, "machine", "active"),
        (6, False, None, None),
    ]
    offline = scanned(house, tree, "--json", "--offline", code=1).json["found"]
    assert {(one["known"], one["name"]) for one in offline} == {(None, None)}
    assert "'stopped' here, revoked" in scanned(house, tree, code=1).out


def test_looking_makes_no_instance(house: House, tree: Path) -> None:
    put(tree, "a", mint(house))
    nowhere = tree.parent / "nowhere"
    ran = scanned(house, tree, "--data-dir", nowhere, code=1)
    assert "no database here" in ran.err
    assert "agent key" in ran.out
    assert not nowhere.exists()


def test_a_database_that_does_not_open_keeps_nothing_from_being_found(house: House, tree: Path) -> None:
    put(tree, "a", mint(house))
    other = House(house.folder, house.canaries, house.shell, {"OSTIARY_MASTER_KEY": "B" * 43 + "="})
    ran = scanned(other, tree, code=1)
    assert "Whether a key is known is not said" in ran.err
    assert "agent key" in ran.out


def test_what_is_left_out_is_counted(house: House, tree: Path) -> None:
    pat = mint(house)
    outside = put(tree.parent, "outside", pat)
    put(tree, ".git/config", pat)
    put(tree, "sub/.git/objects/x", pat)
    put(tree, "program", b"\x7fELF\0\0" + pat.encode())
    put(tree, "large", pat.encode() + b"\n" * 5_000_000)
    (tree / "link").symlink_to(outside)
    (tree / "folder").symlink_to(tree.parent)
    (tree / "loop").symlink_to(tree)
    os.mkfifo(tree / "pipe")
    ran = scanned(house, tree, "--json", code=0).json
    assert ran["skipped"]["too_large"] == 1
    assert ran["skipped"]["binary"] == 1
    assert ran["skipped"]["links"] == 1
    assert "1 over 5 MB, 1 binary, 1 links" in scanned(house, tree, code=0).out
    assert scanned(house, tree / "link", "--json", code=1).json["found"][0]["line"] == 1, "who names a link means it"


def test_files_of_any_encoding_and_name(house: House, tree: Path) -> None:
    pat = mint(house)
    put(tree, "utf16", f"KEY={pat}\r\n".encode("utf-16"))
    put(tree, "latin", b"schl\xfcssel=" + pat.encode())
    put(tree, "one-line", b"x" * 1_000_000 + b" " + pat.encode())
    Path(os.fsdecode(os.fsencode(tree) + b"/ba\xff\x1b[2Jd" + INPUT_SUFFIX.encode())).write_text(pat)
    ran = scanned(house, tree, "--offline", code=1)
    assert ran.out.count("agent key") == 4
    assert "\x1b" not in ran.out
    assert len(scanned(house, tree, "--offline", "--json", code=1).json["found"]) == 4
    assert pat not in ran.out


def test_many_files_are_done_in_little_time(house: House, tree: Path) -> None:
    for number in range(2_000):
        (tree / f"{number}.txt").write_text("lorem ipsum dolor sit amet " * 40)
    last = put(tree, "zz", mint(house))
    assert f"{last}:1:" in scanned(house, tree, "--offline", code=1).out
