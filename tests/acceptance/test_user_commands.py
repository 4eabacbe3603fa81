"""`ostiary users`: what the operator's commands do for people who sign in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.servers.canaries import Canaries
from tests.servers.gateway import House
from tests.servers.shell import Shell

LINK = re.compile(r"https?://\S+/dashboard/reset-password#([0-9A-Za-z_-]{43})")


@pytest.fixture
def house(tmp_path: Path, canaries: Canaries, shell: Shell) -> House:
    """A data directory with two people in it."""
    made = House(tmp_path, canaries, shell)
    made.cli("members", "add", "alice@example.org", "--role", "owner")
    made.cli("members", "add", "bob@example.org")
    return made


def refused(house: House, *words: str, stdin: str | None = None, code: int = 1) -> str:
    """What a command says that does not pass."""
    ran = house.cli(*words, stdin=stdin, check=False)
    assert ran.code == code, (ran.out, ran.err)
    assert "Traceback" not in ran.err
    return ran.err


def by_email(house: House) -> dict[str, dict[str, object]]:
    return {one["email"]: one for one in house.json("users", "list")}


def test_people_are_listed_with_their_ways_in(house: House) -> None:
    known = by_email(house)
    assert list(known) == ["alice@example.org", "bob@example.org"]
    assert {key: known["bob@example.org"][key] for key in ("name", "operator", "password_changed_at")} == {
        "name": "bob",
        "operator": False,
        "password_changed_at": None,
    }
    table = house.cli("users", "list").out
    assert "second factor" in table
    assert "bob@example.org" in table


@pytest.mark.main_job
def test_a_password_is_read_from_standard_input_and_never_shown(house: House, canaries: Canaries) -> None:
    password = canaries.plant()
    said = house.cli("users", "set-password", "bob@example.org", "--secret-stdin", stdin=f"{password}\n")
    assert said.out == "bob@example.org has a new password, and is signed out everywhere.\n"
    done = house.json("users", "set-password", "--email", "bob@example.org", "--secret-stdin", stdin=password)
    assert done == {"id": by_email(house)["bob@example.org"]["id"], "email": "bob@example.org", "password_set": True}
    assert str(by_email(house)["bob@example.org"]["password_changed_at"]).endswith("Z")
    assert by_email(house)["alice@example.org"]["password_changed_at"] is None
    dropped = house.cli(
        "users", "set-password", "bob@example.org", "--secret-stdin", "--drop-second-factor", stdin=password
    )
    assert "No second factor is asked for any more." in dropped.out


def test_what_will_not_do_is_said(house: House) -> None:
    assert "12 to 200" in refused(house, "users", "set-password", "bob@example.org", "--secret-stdin", stdin="short")
    wrong = refused(house, "users", "set-password", "bob@example.org", "--secret-stdin", stdin="bob@example.org")
    assert "must not be" in wrong
    unknown = "nobody@example.org"
    assert "users list" in refused(house, "users", "set-password", unknown, "--secret-stdin", stdin="long enough now")
    assert "users list" in refused(house, "users", "reset-link", unknown)
    assert "no user" in refused(house, "users", "operator", unknown)
    assert "such as" in refused(house, "users", "reset-link", "nobody")
    assert "EMAIL is missing" in refused(house, "users", "reset-link", code=2)
    assert "--secret-stdin" in refused(house, "users", "set-password", "bob@example.org", stdin="", code=2)


def test_a_link_is_printed_once_and_is_of_the_gateway(house: House, canaries: Canaries) -> None:
    said = house.cli("users", "reset-link", "bob@example.org").out.strip()
    found = LINK.fullmatch(said)
    assert found, said
    canaries.watch(found[1])
    made = house.json("users", "reset-link", "bob@example.org")
    again = LINK.fullmatch(made["url"])
    assert again
    assert canaries.watch(again[1]) != found[1]
    assert made["email"] == "bob@example.org"


def test_an_operator_is_made_and_unmade_and_it_is_written_down(house: House) -> None:
    assert house.cli("users", "operator", "alice@example.org").out == "alice@example.org is an operator.\n"
    assert by_email(house)["alice@example.org"]["operator"] is True
    assert house.json("users", "operator", "alice@example.org", "--off")["is_operator"] is False
    deeds = [row["deed"] for row in house.json("audit", "list")]
    assert deeds.count("users.operator") == 2
