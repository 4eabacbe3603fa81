"""`ostiary vault` beyond adding a key: how it is used, how it is, what leans on it, and what clears."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest

from tests.servers.canaries import Canaries
from tests.servers.gateway import House
from tests.servers.shell import Shell


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell) -> House:
    """One installation for all tests here; each uses names of its own."""
    return House(tmp_path_factory.mktemp("vault"), canaries, shell)


def add(house: House, name: str, *words: str, provider: str = "openai") -> Any:
    return house.json(
        *("vault", "add", provider, "--name", name, "--no-test", "--secret-stdin", *words),
        stdin=house.canaries.plant("sk-"),
    )


def refused(house: House, *words: str, code: int = 1) -> str:
    ran = house.cli(*words, check=False)
    assert ran.code == code, (ran.out, ran.err)
    assert "Traceback" not in ran.err
    return ran.err


def write(house: House, *statements: tuple[str, tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(house.data_dir / "ostiary.db", timeout=30)) as database, database:
        for statement, values in statements:
            database.execute(statement, values)


@pytest.mark.main_job
def test_a_key_is_set_up_and_cleared_by_word(house: House) -> None:
    made = add(
        house, "full", "--priority", "-5", "--weight", "7", "--free-tier", "--account", "acme", "--tag", "prod",
        "--tag", "eu", "--rpm", "60", "--rpd", "1000", "--tpm", "90000", "--parallel", "4",
        "--spend-cap", "10/day", "--spend-warn", "5/day",
    )  # fmt: skip
    expected = {
        "priority": -5, "weight": 7, "strategy": "fill", "free_tier": True, "account": "acme", "tags": ["prod", "eu"],
        "rpm": 60, "rpd": 1_000, "tpm": 90_000, "parallel": 4, "spend_cap_usd": 10, "spend_warn_usd": 5,
        "spend_period": "day", "spent_usd": 0, "status": "healthy", "health": [], "used_by": [], "added_by": "operator",
    }  # fmt: skip
    assert {name: made[name] for name in expected} == expected
    edited = house.json("vault", "edit", "full", "--spend-cap", "20/day", "--strategy", "rotate", "--paid")
    assert (edited["spend_cap_usd"], edited["spend_warn_usd"], edited["spend_period"]) == (20, 5, "day")
    assert (edited["strategy"], edited["free_tier"], edited["rpm"], edited["test"]) == ("rotate", False, 60, None)
    monthly = house.json("vault", "edit", "full", "--spend-cap", "none", "--spend-warn", "1.5/month")
    assert (monthly["spend_cap_usd"], monthly["spend_warn_usd"], monthly["spend_period"]) == (None, 1.5, "month")
    cleared = house.json(
        "vault", "edit", "full", "--account", "none", "--tag", "none", "--rpm", "none", "--rpd", "none",
        "--tpm", "none", "--parallel", "none", "--spend-warn", "none",
    )  # fmt: skip
    names = ("account", "rpm", "rpd", "tpm", "parallel", "spend_cap_usd", "spend_warn_usd", "spend_period")
    assert {cleared[name] for name in names} == {None}
    assert cleared["tags"] == []
    assert house.json("vault", "show", "full") == {name: value for name, value in cleared.items() if name != "test"}
    assert "-5" in house.cli("vault", "show", "full").out


def test_what_is_not_understood_is_a_mistake_in_usage(house: House) -> None:
    add(house, "usage", "--spend-cap", "10/day", "--spend-warn", "5/day")
    for words in (
        ("--spend-cap", "10"),
        ("--spend-cap", "10/year"),
        ("--spend-cap", "x/day"),
        ("--spend-cap", "none/day"),
        ("--spend-cap", "1/day", "--spend-warn", "1/month"),
        ("--spend-cap", "1/month"),
        ("--strategy", "chance"),
        ("--priority", "high"),
        ("--rpm", "0"),
        (),
    ):
        refused(house, "vault", "edit", "usage", *words, code=2)
    for option, value, said in (
        ("--priority", "1001", "priority"),
        ("--weight", "0", "weight"),
        ("--tag", "x" * 41, "A tag"),
        ("--auth", "telepathy", "sign-in"),
    ):
        assert said in refused(house, "vault", "edit", "usage", option, value, "--no-test")
    assert "soft limit" in refused(house, "vault", "edit", "usage", "--spend-warn", "11/day")


def test_keys_are_listed_by_provider_and_tag(house: House) -> None:
    add(house, "listed-1", "--tag", "shelf")
    add(house, "listed-2", "--tag", "shelf", provider="groq")
    names = [key["name"] for key in house.json("vault", "list", "--tag", "shelf")]
    assert names == ["listed-1", "listed-2"]
    (only,) = house.json("vault", "list", "--tag", "shelf", "--provider", "groq")
    assert only["name"] == "listed-2"
    assert "no such provider key" in house.cli("vault", "list", "--tag", "nowhere").out
    assert "listed-2" in house.cli("vault", "list").out


def test_a_provider_that_may_train_marks_its_keys(house: House) -> None:
    rows = {row["id"]: row for row in house.json("vault", "providers")}
    trains = next(id for id, row in rows.items() if row["trains_on_data"] and row["callable"] and not row["fields"])
    made = add(house, "studious", "--tag", "prod", provider=trains)
    assert made["tags"] == ["prod", "may-train-on-data"]
    assert house.json("vault", "edit", "studious", "--tag", "prod")["tags"] == ["prod"]


def test_a_reset_forgets_what_is_held_against_a_key(house: House) -> None:
    made = add(house, "ailing")
    write(
        house,
        ("INSERT INTO provider_key_health VALUES (?, '', 'disabled', 3, 'turned down', 1, NULL)", (made["id"],)),
    )
    shown = house.json("vault", "show", "ailing")
    assert (shown["status"], shown["health"][0]["reason"]) == ("disabled", "turned down")
    assert "all models disabled (turned down)" in house.cli("vault", "show", "ailing").out
    assert "counts as healthy again" in house.cli("vault", "reset", "ailing").out
    assert house.json("vault", "show", "ailing")["health"] == []
    assert house.json("vault", "reset", "ailing")["status"] == "healthy"
    assert "no such provider key" in refused(house, "vault", "reset", "nobody")


def test_a_key_in_use_is_deleted_by_force(house: House) -> None:
    made = add(house, "leaned-on")
    home = house.json("orgs", "list")[0]["id"]
    write(
        house,
        ("INSERT INTO endpoints VALUES ('endp_1', ?, 'chat', 'first', 0, NULL, 1, 1)", (home,)),
        ("INSERT INTO endpoint_targets VALUES ('endp_1', 0, 'openai', 'gpt-4o', ?, 1, 0)", (made["id"],)),
    )
    assert [one["name"] for one in house.json("vault", "show", "leaned-on")["used_by"]] == ["chat"]
    assert "endpoint chat" in house.cli("vault", "show", "leaned-on").out
    assert "The endpoint 'chat' is served" in refused(house, "vault", "delete", "leaned-on")
    assert house.json("vault", "delete", "leaned-on", "--force")["deleted"]
