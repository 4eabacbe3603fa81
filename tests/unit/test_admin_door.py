"""The admin door before anything is behind it: its table, its bodies, and what it does not load."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.admin import body, pages
from ostiary.admin.door import Door
from ostiary.admin.office import Office
from ostiary.admin.routes import ROUTES, Table
from ostiary.errors import Refusal
from ostiary.orgs.roles import ADMIN_SCOPES
from tests.people import refused


@dataclass(slots=True)
class Line:
    """A request, and what was answered."""

    method: str
    path: str
    query: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    keep_alive: bool = True
    is_gone: bool = False
    is_started: bool = False
    request_id: str = ""
    said: list[tuple[int, bytes, dict[bytes, bytes]]] = field(default_factory=list)

    def all_of(self, name: bytes) -> list[bytes]:
        return [self.headers[name]] if name in self.headers else []

    async def read_body(self, wait_s: float) -> bytes:
        raise AssertionError(f"nobody was to read for {wait_s} s")

    async def answer(self, status: int, content: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.said.append((status, content, dict(headers)))


async def _nobody(_line: Any) -> Any:
    raise Refusal("missing_api_key")


@pytest.fixture
def door() -> Door:
    office: Any = SimpleNamespace(identify=_nobody)
    assert Office.__slots__
    return Door(office)


async def test_nothing_is_loaded_for_who_is_not_let_in(door: Door) -> None:
    for path, status in (("/api/v1/agent-keys", 401), ("/api/v1/nowhere", 404), ("/api/v1", 404)):
        line = Line("GET", path)
        await door(line)
        [(said, _, _)] = line.said
        assert said == status
    assert door._api is None


async def test_a_fault_is_a_503_that_says_nothing(door: Door) -> None:
    async def fail(_line: Any) -> Any:
        raise RuntimeError("a detail of ours")

    door._office.identify = fail  # type: ignore[misc]
    line = Line("GET", "/api/v1/agent-keys")
    await door(line)
    [(status, content, headers)] = line.said
    assert status == 503
    assert b"detail of ours" not in content
    assert json.loads(content)["code"] == "service_unavailable"
    assert headers[b"content-type"] == b"application/problem+json"


async def test_who_has_gone_is_told_nothing(door: Door) -> None:
    line = Line("GET", "/api/v1/agent-keys", is_gone=True)
    await door(line)
    assert line.said == []


def test_the_application_does_not_load_the_framework() -> None:
    look = "import ostiary.app, sys; sys.exit('fastapi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0


# ---- the table --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_leads_to_a_function_that_says_what_it_does(route: Any) -> None:
    answer = getattr(importlib.import_module(f"ostiary.admin.{route.module}"), route.function)
    assert answer.__doc__
    assert route.deed in ADMIN_SCOPES[route.scope]
    assert route.scope.endswith(":read") == (route.method == "GET")
    found, target = Table().find(route.method, route.full_path.replace("{id}", "a b"))
    assert found == route
    assert target == ("a b" if "{id}" in route.path else None)


def test_no_two_routes_are_the_same() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


# ---- bodies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["{", '{"a":1,"a":2}', '{"x":{"a":1,"a":2}}', "NaN", "[Infinity]", "\ufeff{}", "1" * 5_000, "[" * 10**6]
)
def test_what_could_be_read_two_ways_is_refused(text: str) -> None:
    with refused("invalid_request"):
        body.parse(text.encode())


def test_fractions_stay_exact() -> None:
    found = body.parse(b"[0.1, 9000000000.000000001, 5.0, 1e2, 1e30, 1.50]")
    exact = [Decimal("0.1"), Decimal("9000000000.000000001"), 5, 100, Decimal("1e30"), Decimal("1.5")]
    assert found == exact
    assert [type(one) for one in found] == [type(one) for one in exact]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_what_is_plain_json_is_read_as_it_is(value: Any) -> None:
    assert body.parse(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(content: bytes) -> None:
    with suppress(Refusal):
        body.parse(content)


# ---- pages ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.text(max_size=3)), unique=True), st.integers(1, 4), st.booleans())
def test_pages_hold_each_thing_once_in_order(rows: list[tuple[int, str]], limit: int, descending: bool) -> None:  # noqa: FBT001 - from hypothesis
    found: list[tuple[int, str]] = []
    cursor = None
    while True:
        page, cursor = pages.turn(
            rows, pages.Page(limit=limit, cursor=cursor), "order", lambda row: row, descending=descending
        )
        found += page
        if cursor is None:
            break
    assert found == sorted(rows, reverse=descending)


@pytest.mark.parametrize("text", ["M0", "bnVsbA", "dHJ1ZQ", "e30", "W10", "Ii0i"])
def test_a_cursor_that_holds_something_else_is_refused(text: str) -> None:
    """A number, null, true, an object, nothing, a text."""
    with pytest.raises(Refusal):
        pages.place_of(text, "order", (int, str))


@given(st.text(max_size=60))
def test_a_cursor_that_was_not_given_out_is_refused(text: str) -> None:
    with refused("invalid_field", "cursor"):
        pages.place_of(text, "order", (int, str))


@given(st.integers(), st.text())
def test_a_cursor_stands_for_its_place(number: int, text: str) -> None:
    cursor = pages.cursor_of("order", (number, text))
    assert pages.place_of(cursor, "order", (int, str)) == (number, text)
    with refused("invalid_field", "cursor"):
        pages.place_of(cursor, "another order", (int, str))
