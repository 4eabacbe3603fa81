"""Usage by one thing at a time comes to what the events say, whatever days are asked for, on both databases."""

from __future__ import annotations

from collections import Counter

import pytest

from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.clock import DAY_MS
from ostiary.db.database import Database
from ostiary.ledger import series
from ostiary.ledger.series import FACES, Days, Face
from ostiary.secret import Secret
from tests.contract.test_reports import DAY, ORG, OTHER, event, keep
from tests.people import NOW, settle

pytestmark = pytest.mark.anyio

FIRST = DAY // DAY_MS
KEYS = ("key_bob", "key_erin")


async def fill(database: Database) -> None:
    """One nano-dollar on the first day, two on the next, four, and so on: a sum names the days that are in it."""
    await keep(
        database,
        *(
            event(
                f"req_{day}", cost_nano=1 << day, started_at=DAY + day * DAY_MS, agent_key_id=KEYS[day % 2],
                agent_key_name=("bob", "erin")[day % 2], provider=("openai", "groq")[day % 3 == 0],
                provider_key_id=f"pk_{day % 4}",
            )
            for day in range(40)
        ),
        event("req_other", organization_id=OTHER, cost_nano=1 << 50),
    )  # fmt: skip


@pytest.mark.parametrize("days", [(0, 40), (0, 1), (3, 11), (5, 6), (7, 39), (39, 40), (12, 12), (-50, 90), (41, 60)])
async def test_spans_of_any_length_are_exact(database: Database, days: tuple[int, int]) -> None:
    await fill(database)
    asked = Days(FIRST + days[0], FIRST + days[1])
    within = [day for day in range(40) if days[0] <= day < days[1]]
    whole = sum(1 << day for day in within)
    for face in FACES:
        for keys in (None, KEYS):
            async with database.read() as tx:
                found = await series.look(tx, ORG, asked, face, keys=keys, most=50)
                one = await series.total(tx, ORG, asked, keys)
                rows = await series.list_days(tx, ORG, asked, face, keys=keys, most=1_000)
            assert found.total.cost_nano == one.cost_nano == whole
            assert {day - FIRST: line.cost_nano for day, line in found.by_day.items()} == {d: 1 << d for d in within}
            assert sum(line.cost_nano for line in found.lines) + found.rest.cost_nano == whole
            assert sum(line.cost_nano for _, line in rows) == whole
            assert [day for day, _ in rows] == [FIRST + day for day in within]
            for line in found.lines[: series.DRAWN]:
                assert sum(one.cost_nano for one in found.drawn[line.id].values()) == line.cost_nano


@pytest.mark.parametrize("days", [(0, 200), (1, 199), (63, 130), (5, 190), (100, 400), (150, 151), (-90, 70)])
async def test_months_are_exact_too(database: Database, days: tuple[int, int]) -> None:
    known = range(0, 200, 3)
    await keep(
        database,
        *(
            event(f"req_{day}", cost_nano=1_000_000 + day**3, started_at=DAY + day * DAY_MS, agent_key_id=KEYS[day % 2])
            for day in known
        ),
    )
    within = [day for day in known if days[0] <= day < days[1]]
    async with database.read() as tx:
        found = await series.look(tx, ORG, Days(FIRST + days[0], FIRST + days[1]), "agent_key", most=50)
    assert {line.id: line.cost_nano for line in found.lines} == {
        key: sum(1_000_000 + day**3 for day in within if KEYS[day % 2] == key)
        for key in {KEYS[day % 2] for day in within}
    }
    assert found.rest.cost_nano == 0


@pytest.mark.parametrize(
    ("face", "of"),
    [
        ("agent_key", lambda day: KEYS[day % 2]),
        ("provider", lambda day: ("openai", "groq")[day % 3 == 0]),
        ("provider_key", lambda day: f"pk_{day % 4}"),
    ],
)
async def test_lines_are_of_their_thing_the_dearest_first(database: Database, face: Face, of: object) -> None:
    await fill(database)
    assert callable(of)
    wanted: Counter[str] = Counter()
    for day in range(30):
        wanted[of(day)] += 1 << day
    for keys in (None, KEYS):
        async with database.read() as tx:
            found = await series.look(tx, ORG, Days(FIRST, FIRST + 30), face, keys=keys, most=50)
            cut = await series.look(tx, ORG, Days(FIRST, FIRST + 30), face, keys=keys, most=1)
        assert [(line.id, line.cost_nano) for line in found.lines] == wanted.most_common()
        assert found.rest.cost_nano == 0
        assert cut.rest.cost_nano == sum(wanted.values()) - wanted.most_common(1)[0][1]


async def test_names_of_what_is_deleted_are_those_of_its_calls(database: Database) -> None:
    await fill(database)
    async with database.read() as tx:
        found = await series.look(tx, ORG, Days(FIRST, FIRST + 2), "agent_key", most=5)
    assert {line.name for line in found.lines} == {"bob", "erin"}


async def test_what_children_used_is_their_owners_when_they_are_forgotten(database: Database) -> None:
    """And nobody's, where their parent is forgotten too."""
    folk = await settle(database)
    async with database.transaction() as tx:
        wish = NewAgentKey("ci")
        key, _ = await agent_keys.create(tx, folk["bob"], folk.home.id, wish, pepper=Secret("pepper"), at=NOW)
    of = {"organization_id": folk.home.id}
    await keep(
        database,
        event("req_1", agent_key_id=key.id, parent_key_id=None, cost_nano=1, **of),
        event("req_2", agent_key_id="key_gone", parent_key_id=key.id, cost_nano=2, **of),
        event("req_3", agent_key_id="key_x", parent_key_id=None, cost_nano=4, **of),
        event("req_4", agent_key_id="key_y", parent_key_id="key_x", cost_nano=8, **of),
    )
    days = Days(FIRST, FIRST + 1)
    async with database.read() as tx:
        found = await series.look(tx, folk.home.id, days, "member", most=50)
        rows = await series.list_days(tx, folk.home.id, days, "member", most=50)
    bob = key.owner_id or ""
    assert {line.id: line.cost_nano for line in found.lines} == {bob: 3}
    assert (found.total.cost_nano, found.rest.cost_nano) == (15, 12)
    assert found.drawn[bob][FIRST].cost_nano == 3
    assert {line.id: (line.cost_nano, line.requests) for _, line in rows} == {bob: (3, 2), "": (12, 2)}
