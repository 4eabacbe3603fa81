"""What each field of an agent key may hold: everything else is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.agents.fields import checked
from ostiary.agents.policy import Choice
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
        ("scopes", [5]),
        ("scopes", None),
        ("rpm", 0),
        ("rpm", -1),
        ("rpm", True),
        ("rpm", 1.5),
        ("rpm", "60"),
        ("rpm", 2**31),
        ("rpd", 0),
        ("models", None),
        ("models", ["a"]),
        ("models", Choice("only")),
        ("models", Choice("all", frozenset({"a"}))),
        ("models", Choice("none", frozenset({"a"}))),
        ("models", Choice("some", frozenset({"a"}))),  # type: ignore[arg-type]
        ("models", Choice("only", frozenset({""}))),
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
        ("budget", 5),
        ("budget", Budget("week", 5)),  # type: ignore[arg-type]
        ("budget", Budget("month", -1)),
        ("budget", Budget("month", MAX_NANO + 1)),
        ("budget", Budget("month", True)),
        ("budget", Budget("month", 1.5)),  # type: ignore[arg-type]
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
        ("budget", None),
    ],
)
def test_what_can_be_kept_is_kept_as_it_is(name: str, value: object) -> None:
    assert checked({name: value}, NOW) == {name: value}


def test_networks_are_kept_in_one_spelling() -> None:
    given = Choice("only", frozenset({"192.0.2.7", "2001:DB8:0::/32", "::ffff:10.0.0.0/104"}))
    kept = Choice("only", frozenset({"192.0.2.7/32", "2001:db8::/32", "10.0.0.0/8"}))
    assert checked({"addresses": given}, NOW) == {"addresses": kept}
