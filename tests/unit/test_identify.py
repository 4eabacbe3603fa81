"""Who is calling, where the directory knows, does not know, or cannot know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from ostiary.agents import credential
from ostiary.agents.policy import Policy
from ostiary.errors import Refusal
from ostiary.gateway.caller import Caller
from ostiary.gateway.directory import Directory
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.identify import identify, identify_if_any
from ostiary.limits.local import Allowance

pytestmark = pytest.mark.anyio

KEY = credential.mint("pat").reveal()
NEW = credential.mint("pat").reveal()
CALLER = Caller("org", Policy(), Allowance("key"))


@dataclass
class Known:
    """A directory that learns of NEW when it looks again, unless it has lost its database."""

    is_lost: bool = False
    looks: int = 0
    met: dict[bytes, Caller] = field(default_factory=dict)

    def find_caller(self, text: str) -> Caller | None:
        return CALLER if text == KEY or (text == NEW and self.looks) else None

    def meet_again(self, presented: bytes) -> Caller | None:
        return self.met.get(presented)

    def meet(self, presented: bytes, caller: Caller) -> None:
        self.met[presented] = caller

    async def look_again(self) -> bool:
        if not self.is_lost:
            self.looks += 1
        return not self.is_lost


def exchange(*headers: tuple[str, str], query: bytes = b"") -> Exchange:
    first: dict[bytes, bytes] = {}
    repeated: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        pair = (name.encode(), value.encode("latin-1"))
        if pair[0] in first:
            repeated.append(pair)
        else:
            first[pair[0]] = pair[1]
    return Exchange(cast("Any", None), "GET", "/", query, first, repeated)


async def code(known: Known, *headers: tuple[str, str], query: bytes = b"") -> str:
    try:
        found = await identify(exchange(*headers, query=query), cast("Directory", known))
    except Refusal as refusal:
        return refusal.code
    return "ok" if found is CALLER else "?"


async def test_a_known_key_is_found_without_another_look() -> None:
    known = Known()
    assert await code(known, ("authorization", f"Bearer {KEY}")) == "ok"
    assert known.looks == 0


async def test_a_key_made_a_moment_ago_is_found_by_looking_again() -> None:
    known = Known()
    assert await code(known, ("x-api-key", NEW)) == "ok"
    assert known.looks == 1


async def test_nobody_is_turned_away_as_unknown_while_the_database_is_away() -> None:
    assert await code(Known(), ("x-api-key", credential.mint("pat").reveal())) == "invalid_api_key"
    assert await code(Known(is_lost=True), ("x-api-key", NEW)) == "service_unavailable"
    assert await code(Known(is_lost=True), ("x-api-key", KEY)) == "ok"


async def test_what_has_no_shape_is_not_looked_for() -> None:
    known = Known(is_lost=True)
    for text in ("", "sk-1", KEY[:-1], credential.mint("ck").reveal(), credential.mint("inv").reveal(), "\xe9" * 60):
        assert await code(known, ("api-key", text)) == "invalid_token_format"
    assert await code(known) == "missing_api_key"


async def test_one_credential_in_all_carriers_is_one() -> None:
    everywhere = [(name, KEY) for name in ("x-api-key", "api-key", "x-goog-api-key")]
    assert await code(Known(), ("authorization", f"bearer  {KEY}"), *everywhere) == "ok"
    assert await code(Known(), ("authorization", f"Bearer {NEW}"), *everywhere) == "invalid_request"
    assert await code(Known(), *everywhere, ("x-api-key", NEW)) == "invalid_request"


@pytest.mark.parametrize(
    ("query", "is_refused"),
    [
        (b"api_key=x", True),
        (b"a=1&KEY=x", True),
        (b"q=ost_pat_" + b"0" * 49, True),
        (b"q=org_" + b"0" * 22 + b":ost_ck_" + b"0" * 49 + b":ost_cs_" + b"0" * 49, True),
        (b"search=ghost_pattern", False),
        (b"monkey=x", False),
        (b"", False),
    ],
)
async def test_what_looks_like_a_credential_in_the_query(query: bytes, is_refused: bool) -> None:  # noqa: FBT001 - a parameter of the test
    expected = "invalid_request" if is_refused else "ok"
    assert await code(Known(), ("x-api-key", KEY), query=query) == expected


async def test_no_credential_is_nobody_where_none_is_needed() -> None:
    assert await identify_if_any(exchange(), cast("Directory", Known())) is None


async def test_who_was_met_is_known_again_without_being_looked_up() -> None:
    known = Known()
    sent = exchange(("authorization", f"Bearer {KEY}"))
    assert await identify(sent, cast("Directory", known)) is CALLER
    assert known.met == {KEY.encode(): CALLER}
    known.met = {KEY.encode(): (other := Caller("org", Policy(), Allowance("other")))}
    assert await identify(exchange(("authorization", f"Bearer {KEY}")), cast("Directory", known)) is other
