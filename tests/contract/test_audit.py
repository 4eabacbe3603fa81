"""The audit log: plain data only, in the transaction of the deed, the newest first."""

from __future__ import annotations

import pytest

from ostiary.db.database import Database
from ostiary.ledger import audit
from ostiary.ledger.store import list_audit
from ostiary.orgs import roles
from ostiary.secret import Secret
from tests.people import NONE, NOW, traces


async def wrote(database: Database, organization_id: str | None, **after: object) -> None:
    async with database.transaction() as tx:
        await audit.write(
            tx,
            roles.operator(),
            "agent_keys.edit",
            "agent_key",
            "key_1",
            "ci",
            organization_id=organization_id,
            after=after,
            at=NOW,
        )


@pytest.mark.parametrize(
    "value",
    [Secret("sk-x"), b"sk-x", 1.5, object(), {"a": Secret("sk-x")}, [Secret("sk-x")], ({"a": [b"x"]},)],
)
async def test_what_is_not_plain_data_stops_the_deed(database: Database, value: object) -> None:
    with pytest.raises(TypeError, match="audit log"):
        await wrote(database, "orgn_1", value=value)
    assert await traces(database) == NONE


async def test_plain_data_comes_back_as_json_has_it(database: Database) -> None:
    await wrote(database, "orgn_1", a=None, b=True, c=5, d="é", e=("x", ["y"]), f=frozenset({"q", "p"}), g={"h": {1}})
    async with database.read() as tx:
        (row,) = await list_audit(tx)
    assert row.after == {"a": None, "b": True, "c": 5, "d": "é", "e": ["x", ["y"]], "f": ["p", "q"], "g": {"h": [1]}}
    assert (row.before, row.address, row.result, row.actor_kind) == (None, None, "ok", "operator")


async def test_the_newest_come_first_and_organizations_apart(database: Database) -> None:
    for number, organization_id in enumerate(("orgn_1", "orgn_2", None, "orgn_1")):
        await wrote(database, organization_id, number=number)

    async def numbers(organization_id: str | None = None, limit: int = 100) -> list[int]:
        async with database.read() as tx:
            return [(row.after or {})["number"] for row in await list_audit(tx, organization_id, limit)]

    assert await numbers() == [3, 2, 1, 0]
    assert await numbers(limit=2) == [3, 2]
    assert await numbers("orgn_1") == [3, 0]
    assert await numbers("orgn_3") == []
