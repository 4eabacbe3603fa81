"""What each field of an agent key may hold: everything else is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.agents.fields import checked, require_lifetime
from ostiary.agents.policy import ALL, Choice
from ostiary.limits.budgets import Budget
from ostiary.money import MAX_NANO
from tests.people import DAY, HOUR, NOW, refused

DEEP: list[Any] = []
for _ in range(2_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 5),
        ("name", None),
        ("expires_at", NOW),
        ("expires_at", NOW + HOUR // 2),
        ("expires_at", NOW + 367 * DAY),
        ("expires_at", 0),
        ("expires_at", True),
        ("expires_at", "usual"),
        ("expires_at", float(NOW + DAY)),
        ("scopes", frozenset()),
        ("scopes", "gate:chat"),
        ("scopes", ["gate:chat", "gate:fly"]),
        ("scopes", ["gate:*"]),
        ("scopes", ["admin:*"]),
        ("scopes", ["admin:agent-keys:*"]),
        ("scopes", ["admin:agent-keys:delete"]),
        ("scopes", ["admin::read"]),
        ("scopes", ["admin:agent-keys:read "]),
        ("scopes", ["ADMIN:agent-keys:read"]),
        ("scopes", ["admin:agent-keys:read:x"]),
        ("scopes", ["gate:chat", "\u0261ate:chat"]),
        ("scopes", [5]),
        ("scopes", None),
        ("rpm", 0),
        ("rpm", -1),
        ("rpm", True),
        ("rpm", 1.5),
        ("rpm", "60"),
        ("rpm", 2**31),
        ("rpd", 0),
        ("tpm", 0),
        ("tpm", -5),
        ("tpm", 1.0),
        ("tpm", 10**30),
        ("parallel", 0),
        ("parallel", False),
        ("parallel", "2"),
        ("capture", None),
        ("capture", "yes"),
        ("capture", 0),
        ("models", None),
        ("models", "gpt-9"),
        ("models", [5]),
        ("models", [" gpt-9"]),
        ("models", ["gpt-9\u00a0"]),
        ("models", ["gpt\u200b-9"]),
        ("models", ["gpt-9\n"]),
        ("models", [["gpt-9"]]),
        ("models", {"mode": "all"}),
        ("models", Choice("only")),
        ("models", Choice("all", frozenset({"a"}))),
        ("models", Choice("none", frozenset({"a"}))),
        ("models", Choice("some", frozenset({"a"}))),  # type: ignore[arg-type]
        ("models", Choice("only", frozenset({""}))),
        ("models", Choice("only", frozenset({" gpt-9 "}))),
        ("models", Choice("only", frozenset({"a\0b"}))),
        ("models", Choice("only", frozenset({"x" * 201}))),
        ("models", Choice("only", frozenset(str(number) for number in range(501)))),
        ("providers", Choice("only", frozenset({5}))),  # type: ignore[arg-type]
        ("addresses", Choice("only", frozenset({"everywhere"}))),
        ("addresses", Choice("only", frozenset({"192.0.2.7/24"}))),
        ("free_only", None),
        ("free_only", 1),
        ("metadata", None),
        ("metadata", "{}"),
        ("metadata", []),
        ("metadata", {"a": float("nan")}),
        ("metadata", {"a": float("inf")}),
        ("metadata", {"a": 2**63}),
        ("metadata", {"a": "\0"}),
        ("metadata", {"a\0": 1}),
        ("metadata", {"a": "\ud800"}),
        ("metadata", {"a": {5: 1}}),
        ("metadata", {"a": b"x"}),
        ("metadata", {"a": DEEP}),
        ("metadata", {"a": "é" * 2_100}),
        ("metadata", {"a": "x" * 1_000_000}),
        ("metadata", {str(number): number for number in range(100_000)}),
        ("budget", 5),
        ("budget", Budget("week", 5)),  # type: ignore[arg-type]
        ("budget", Budget("month", -1)),
        ("budget", Budget("month", MAX_NANO + 1)),
        ("budget", Budget("month", True)),
        ("budget", Budget("month", 1.5)),  # type: ignore[arg-type]
        ("budget", Budget("month", None)),
        ("budget", Budget("month", None, -1)),
        ("budget", Budget("month", None, MAX_NANO + 1)),
        ("budget", Budget("month", None, True)),
        ("budget", Budget("month", 10, 11)),
        ("budget", Budget("month", 10, None, (50, 50))),
        ("budget", Budget("month", 10, None, (80, 50))),
        ("budget", Budget("month", 10, None, (0, 50))),
        ("budget", Budget("month", 10, None, (50, 101))),
        ("budget", Budget("month", 10, None, (50.5, 60))),  # type: ignore[arg-type]
        ("budget", Budget("month", 10, None, (True, 60))),
        ("budget", Budget("month", 10, None, ("50",))),  # type: ignore[arg-type]
        ("budget", Budget("month", 10, None, [50])),  # type: ignore[arg-type]
        ("budget", Budget("month", 10, None, tuple(range(1, 12)))),
    ],
)
def test_what_cannot_be_kept_is_refused(name: str, value: object) -> None:
    with refused("invalid_field", name):
        checked({name: value}, NOW)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "é" * 200),
        ("expires_at", None),
        ("expires_at", NOW + HOUR),
        ("expires_at", NOW + HOUR - 500),  # half a second after it was chosen
        ("expires_at", NOW + 366 * DAY),
        ("scopes", frozenset({"gate:usage"})),
        ("rpm", 1),
        ("rpm", None),
        ("models", Choice("none")),
        ("models", Choice("only", frozenset({"a/b:free", "modèle"}))),
        ("metadata", {}),
        ("metadata", {"a": "\\u0000", "b": [[[[[[]]]]]], "c": -(2**63)}),
        ("budget", Budget("month", 0)),
        ("budget", Budget("total", None, 0)),
        ("budget", Budget("month", 10, 10, ())),
        ("budget", Budget("month", 10, 5, tuple(range(91, 101)))),
        ("budget", None),
        ("tpm", 1_000_000_000),
        ("parallel", 1),
        ("parallel", None),
        ("capture", True),
        ("scopes", frozenset({"admin:agent-keys:read", "admin:usage:read"})),
    ],
)
def test_what_can_be_kept_is_kept_as_it_is(name: str, value: object) -> None:
    assert checked({name: value}, NOW) == {name: value}


def test_networks_are_kept_in_one_spelling() -> None:
    given = Choice("only", frozenset({"192.0.2.7", "2001:DB8:0::/32", "::ffff:10.0.0.0/104"}))
    kept = Choice("only", frozenset({"192.0.2.7/32", "2001:db8::/32", "10.0.0.0/8"}))
    assert checked({"addresses": given}, NOW) == {"addresses": kept}


@pytest.mark.parametrize("shorthand", [[], (), set(), frozenset()])
def test_naming_nothing_means_all_and_is_kept_as_such(shorthand: object) -> None:
    for name in ("models", "providers", "addresses"):
        assert checked({name: shorthand}, NOW) == {name: ALL}


def test_a_list_means_only_these() -> None:
    assert checked({"models": ["b", "a", "b"]}, NOW) == {"models": Choice("only", frozenset({"a", "b"}))}
    assert checked({"addresses": ["::1"]}, NOW) == {"addresses": Choice("only", frozenset({"::1/128"}))}


def test_who_may_write_may_read() -> None:
    kept = checked({"scopes": ["admin:agent-keys:write", "gate:chat"]}, NOW)
    assert kept == {"scopes": frozenset({"admin:agent-keys:write", "admin:agent-keys:read", "gate:chat"})}


@pytest.mark.parametrize("name", ["id", "status", "organization_id", "previews", "parent_id", "is_ephemeral", "rpm "])
def test_what_is_no_field_is_refused_by_its_name(name: str) -> None:
    with refused("invalid_field", name):
        checked({"rpm": 5, name: 5}, NOW)


def test_the_longest_lifetime_counts_for_never_too() -> None:
    require_lifetime(None, None, NOW)
    require_lifetime(NOW + DAY, DAY, NOW)
    for expires_at in (None, NOW + DAY + HOUR):
        with refused("invalid_field", "expires_at"):
            require_lifetime(expires_at, DAY, NOW)
