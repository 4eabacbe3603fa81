"""Notifications as people look them up: newest first, in pages, their own or all, and never another organization's."""

from __future__ import annotations

import pytest

from ostiary.actor import Actor
from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.db.database import Database
from ostiary.ledger import alerts, notifications
from ostiary.ledger.alerts import Way
from ostiary.ledger.audit_store import list_audit
from ostiary.ledger.notifications import Told
from ostiary.ledger.outbox_store import find_subject
from ostiary.secret import Secret
from tests.people import INSIDE, NOW, OUTSIDE, People, refused, settle


@pytest.fixture
async def folk(database: Database) -> People:
    return await settle(database)


async def happened(database: Database, folk: People, owner: str, at: int = NOW, number: int = 0) -> None:
    """A key of this member ends soon."""
    async with database.transaction() as tx:
        key, _ = await agent_keys.create(
            tx, folk[owner], folk.home.id, NewAgentKey(f"{owner} {number}"), pepper=Secret("pepper"), at=NOW
        )
        subject = await find_subject(tx, "agent_key", key.id)
        assert subject is not None
        facts = {"days": 7, "expires_at": NOW}
        await alerts.tell(tx, "agent_key.expiring", "agent_key", subject, facts, at)


async def seen(database: Database, folk: People, name: str, **options: object) -> list[Told]:
    async with database.read() as tx:
        return await notifications.list_(tx, folk[name], folk.home.id, **options)  # type: ignore[arg-type]


async def test_a_member_sees_what_is_about_their_own_keys(database: Database, folk: People) -> None:
    for owner in ("alice", "bob"):
        await happened(database, folk, owner)
    for name in ("alice", "erin", "operator"):
        assert len(await seen(database, folk, name)) == 2
    [own] = await seen(database, folk, "bob")
    assert own.notification.subject_name == "bob 0"
    assert [way.address for way in own.deliveries] == ["bob@example.org"], "who else was told is not Bob's to know"


@pytest.mark.parametrize("name", OUTSIDE)
async def test_outsiders_see_nothing(database: Database, folk: People, name: str) -> None:
    with refused("not_found"):
        await seen(database, folk, name)


async def test_pages_follow_each_other_without_gap_or_repetition(database: Database, folk: People) -> None:
    for number in range(7):
        await happened(database, folk, "alice", NOW + number // 3, number)  # several in the same millisecond
    whole = [one.notification.id for one in await seen(database, folk, "alice")]
    found: list[str] = []
    after = None
    while page := await seen(database, folk, "alice", after=after, limit=2):
        found += [one.notification.id for one in page]
        after = (page[-1].notification.created_at, page[-1].notification.id)
    assert found == whole
    assert len(set(found)) == 7
    times = [one.notification.created_at for one in await seen(database, folk, "alice")]
    assert times == sorted(times, reverse=True)


async def test_by_kind(database: Database, folk: People) -> None:
    await happened(database, folk, "alice")
    assert len(await seen(database, folk, "alice", kind="agent_key.expiring")) == 1
    assert await seen(database, folk, "alice", kind="test") == []


@pytest.mark.parametrize(
    ("options", "param"),
    [({"kind": "nonsense"}, "kind"), ({"limit": 0}, "limit"), ({"limit": 201}, "limit"), ({"limit": -1}, "limit")],
)
async def test_bad_questions(database: Database, folk: People, options: dict[str, object], param: str) -> None:
    with refused("invalid_field", param):
        await seen(database, folk, "alice", **options)


async def probe(database: Database, by: Actor, organization_id: str, *ways: Way) -> Told:
    async with database.transaction() as tx:
        told = await notifications.test(tx, by, organization_id, NOW, *ways)
        return Told(told, tuple(await notifications.deliveries_of(tx, told.id)))


async def test_a_test_goes_to_all_who_would_be_told(database: Database, folk: People) -> None:
    told = await probe(database, folk["erin"], folk.home.id)
    assert [way.address for way in told.deliveries] == ["alice@example.org", "erin@example.org"]
    assert told.notification.facts == {"by": "erin@example.org", "organization": "Home"}
    async with database.read() as tx:
        [row] = await list_audit(tx, folk.home.id, 1)
    assert (row.deed, row.actor_name) == ("notifications.test", "erin@example.org")


async def test_a_test_may_go_one_way(database: Database, folk: People) -> None:
    told = await probe(database, folk["erin"], folk.home.id, Way("webhook", "wh_1"))
    assert [(way.channel, way.address) for way in told.deliveries] == [("webhook", "wh_1")]


@pytest.mark.parametrize("name", [*INSIDE[2:], *OUTSIDE])
async def test_others_test_nothing(database: Database, folk: People, name: str) -> None:
    with refused("insufficient_scope" if name == "bob" else "not_found"):
        await probe(database, folk[name], folk.home.id)


async def test_an_organization_that_is_none(database: Database, folk: People) -> None:
    with refused("not_found"):
        await probe(database, folk.operator, "orgn_nowhere")
