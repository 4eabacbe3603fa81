"""Who is told of what: each mark of a budget once, by whoever passes it first, however many do at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.clock import month_of
from ostiary.db import schema
from ostiary.db.database import Database
from ostiary.ledger import alerts, writer
from ostiary.ledger.alerts import Refused
from ostiary.ledger.events import Event
from ostiary.ledger.outbox_store import Delivery, Notification, list_deliveries, list_notifications
from ostiary.limits import store as money
from ostiary.limits.budgets import TOTAL, AccountKey, Budget
from ostiary.secret import Secret
from tests.contract.nowhere import database_away
from tests.people import DAY, HOUR, NOW, People, refused, settle

USD = 1_000_000_000
MONTH = month_of(NOW)
HARD = Budget("month", 10 * USD)


@dataclass
class House:
    """An organization whose keys spend."""

    database: Database
    folk: People
    calls: int = 0

    async def key(self, name: str, budget: Budget | None = HARD, by: str = "bob", **fields: Any) -> str:
        wish = NewAgentKey(name, budget=budget, expires_at=fields.pop("expires_at", None), **fields)
        async with self.database.transaction() as tx:
            made, _ = await agent_keys.create(
                tx, self.folk[by], self.folk.home.id, wish, pepper=Secret("pepper"), at=fields.get("at", NOW)
            )
        return made.id

    async def spend(self, key: str, nano: int, at: int = NOW, **changed: Any) -> None:
        """One call of the key, written as the writer does."""
        async with self.database.transaction() as tx:
            await writer.write_events(tx, "spool_a", [self.event(key, nano, at, **changed)])

    def event(self, key: str, nano: int, at: int = NOW, **changed: Any) -> Event:
        self.calls += 1
        event = Event(
            f"req_{self.calls}", 1, self.folk.home.id, key, "key", None, "chat", "openai", "m", "m", "pkey", "pk",
            False, at, None, {}, nano, (), "v", nano, "provider", "ok", 200, held_at=at,
        )  # fmt: skip
        for name, value in changed.items():
            setattr(event, name, value)
        return event

    async def told(self, organization_id: str | None = None) -> list[tuple[Notification, list[Delivery]]]:
        """Everything that was told, the oldest first."""
        async with self.database.read() as tx:
            found = await list_notifications(
                tx, organization_id or self.folk.home.id, kind=None, owner_id=None, after=None, limit=1_000
            )
            ways = await list_deliveries(tx, [one.id for one in found])
        return [(one, [way for way in ways if way.notification_id == one.id]) for one in reversed(found)]

    async def kinds(self) -> list[tuple[str, int | None]]:
        """Kind and threshold of everything that was told, in any order."""
        return sorted((one.kind, one.facts.get("threshold")) for one, _ in await self.told())

    async def addresses(self) -> set[str]:
        return {way.address for _, ways in await self.told() for way in ways}

    async def rebudget(self, key: str, budget: Budget | None) -> None:
        async with self.database.transaction() as tx:
            await money.change_budget(tx, "agent_key", key, budget, NOW)
            await alerts.rearm(tx, "agent_key", key, NOW)


@pytest.fixture
async def house(database: Database) -> House:
    return House(database, await settle(database))


# ---- marks of a budget ------------------------------------------------------------------------------------------


async def test_each_mark_is_told_of_once(house: House) -> None:
    key = await house.key("ci")
    for _ in range(12):
        await house.spend(key, USD)
    assert await house.kinds() == [("budget.exceeded", 100), ("budget.threshold", 50), ("budget.threshold", 80)]
    half = next(one for one, _ in await house.told() if one.facts["threshold"] == 50)
    assert half.facts == {
        "limit": "hard",
        "limit_nano": 10 * USD,
        "spent_nano": 5 * USD,
        "threshold": 50,
        "percent": 50,
        "period": MONTH,
        "resets_at": 1_796_083_200_000,
        "refused": False,
        "organization": "Home",
    }
    assert (half.subject_kind, half.subject_id, half.subject_name) == ("agent_key", key, "ci")


async def test_one_nano_before_a_mark_nothing_is_said(house: House) -> None:
    key = await house.key("ci")
    await house.spend(key, 5 * USD - 1)
    assert await house.kinds() == []
    await house.spend(key, 1)
    assert await house.kinds() == [("budget.threshold", 50)]


async def test_who_jumps_over_several_is_told_of_the_gravest(house: House) -> None:
    key = await house.key("ci")
    await house.spend(key, 11 * USD)
    assert await house.kinds() == [("budget.exceeded", 100)]
    await house.spend(key, USD)
    assert len(await house.told()) == 1


async def test_the_limit_itself_is_told_of_whatever_the_thresholds(house: House) -> None:
    key = await house.key("ci", Budget("month", 10 * USD, thresholds=(20,)))
    await house.spend(key, 3 * USD)
    await house.spend(key, 7 * USD)
    assert await house.kinds() == [("budget.exceeded", 100), ("budget.threshold", 20)]


async def test_a_soft_limit_beside_a_hard_one(house: House) -> None:
    key = await house.key("ci", Budget("month", 10 * USD, soft_nano=6 * USD))
    for _ in range(7):
        await house.spend(key, USD)
    assert await house.kinds() == [("budget.soft_limit", 100), ("budget.threshold", 50)]
    soft = next(one for one, _ in await house.told() if one.kind == "budget.soft_limit")
    assert (soft.facts["limit"], soft.facts["limit_nano"], soft.facts["spent_nano"]) == ("soft", 6 * USD, 6 * USD)


async def test_a_soft_limit_alone(house: House) -> None:
    key = await house.key("ci", Budget("month", None, soft_nano=10 * USD))
    for _ in range(20):
        await house.spend(key, USD)
    assert await house.kinds() == [("budget.soft_limit", 100), ("budget.threshold", 50), ("budget.threshold", 80)]
    assert {one.facts["limit"] for one, _ in await house.told()} == {"soft"}
    await house.rebudget(key, Budget("month", 15 * USD))
    await house.spend(key, USD)
    assert ("budget.exceeded", 100) in await house.kinds(), "the hard limit is another one"


async def test_a_new_month_begins_anew(house: House) -> None:
    key = await house.key("ci")
    await house.spend(key, 6 * USD)
    await house.spend(key, 6 * USD, NOW + 20 * DAY)
    assert [one.facts["period"] for one, _ in await house.told()] == ["2026-11", "2026-12"]


async def test_a_budget_in_total_never_does(house: House) -> None:
    key = await house.key("ci", Budget("total", 10 * USD))
    await house.spend(key, 6 * USD)
    await house.spend(key, USD, NOW + 20 * DAY)
    [(one, _)] = await house.told()
    assert (one.facts["period"], one.facts["resets_at"]) == (TOTAL, None)


async def test_without_a_budget_or_without_cost_nothing_is_said(house: House) -> None:
    await house.spend(await house.key("free", None), 100 * USD)
    await house.spend(await house.key("zero"), 0)
    await house.spend("key_gone", 100 * USD)
    assert await house.told() == []


async def test_an_organizations_budget(house: House) -> None:
    async with house.database.transaction() as tx:
        await money.change_budget(tx, "organization", house.folk.home.id, HARD, NOW)
    key = await house.key("ci", None)
    await house.spend(key, 8 * USD)
    [(one, ways)] = await house.told()
    assert (one.kind, one.subject_kind, one.subject_name) == ("budget.threshold", "organization", "Home")
    assert {way.address for way in ways} == {"alice@example.org", "erin@example.org"}


async def test_a_childs_slice_is_silent_and_its_parents_budget_is_not(house: House) -> None:
    parent = await house.key("ci")
    child = await house.key("job")
    async with house.database.transaction() as tx:
        k = schema.agent_keys.c
        await tx.execute(update(schema.agent_keys).where(k.id == child).values(parent_id=parent, is_ephemeral=True))
    await house.spend(child, 6 * USD, parent_key_id=parent)
    assert [one.subject_name for one, _ in await house.told()] == ["ci"]


# ---- at once ----------------------------------------------------------------------------------------------------


async def test_a_hundred_calls_at_once_are_told_of_once(house: House) -> None:
    key = await house.key("ci")
    await house.spend(key, 4 * USD)
    await asyncio.gather(*(house.spend(key, USD // 20) for _ in range(100)))
    assert await house.kinds() == [("budget.threshold", 50), ("budget.threshold", 80)]
    async with house.database.read() as tx:
        assert (await tx.execute(select(func.count()).select_from(schema.alerts))).scalar_one() == 2


async def test_writers_of_the_same_accounts_never_wait_for_each_other(house: House) -> None:
    """Each batch charges the same keys, in an order of its own, and refusals are told of meanwhile."""
    keys = [await house.key(f"key {number}") for number in range(6)]
    accounts = [AccountKey("agent_key", key, MONTH) for key in keys]

    async def batch(turn: int) -> None:
        events = [house.event(key, USD) for key in (keys if turn % 2 else reversed(keys))]
        async with house.database.transaction() as tx:
            await writer.write_events(tx, "spool_a", events)

    async def refuse(turn: int) -> None:
        async with house.database.transaction() as tx:
            await alerts.tell_refused(tx, accounts if turn % 2 else accounts[::-1], NOW)

    await asyncio.gather(*(batch(turn) for turn in range(10)), *(refuse(turn) for turn in range(4)))
    kinds = await house.kinds()
    assert kinds.count(("budget.exceeded", 100)) == len(keys)
    assert len(kinds) == len({(one.subject_id, one.facts["threshold"]) for one, _ in await house.told()})


async def test_a_batch_that_is_rolled_back_has_told_nobody(house: House) -> None:
    key = await house.key("ci")
    with pytest.raises(RuntimeError):
        async with house.database.transaction() as tx:
            await writer.write_events(tx, "spool_a", [house.event(key, 6 * USD)])
            raise RuntimeError
    assert await house.told() == []
    await house.spend(key, 6 * USD)
    assert len(await house.told()) == 1


async def test_the_same_events_again_tell_nobody(house: House) -> None:
    key = await house.key("ci")
    event = house.event(key, 6 * USD)
    for _ in range(2):
        async with house.database.transaction() as tx:
            await writer.write_events(tx, "spool_a", [event])
    assert len(await house.told()) == 1


# ---- a budget that changes --------------------------------------------------------------------------------------


async def test_a_limit_lowered_below_the_spend_is_told_of_with_the_next_call(house: House) -> None:
    key = await house.key("ci", Budget("month", 100 * USD))
    await house.spend(key, 9 * USD)
    await house.rebudget(key, HARD)
    assert await house.told() == []
    await house.spend(key, 1)
    assert await house.kinds() == [("budget.threshold", 80)]


async def test_a_raised_limit_is_told_of_again(house: House) -> None:
    key = await house.key("ci")
    await house.spend(key, 10 * USD)
    await house.rebudget(key, Budget("month", 100 * USD))
    await house.spend(key, USD)
    assert await house.kinds() == [("budget.exceeded", 100)], "11 of 100: no mark"
    await house.spend(key, 40 * USD)
    assert await house.kinds() == [("budget.exceeded", 100), ("budget.threshold", 50)]


async def test_what_was_passed_and_stays_so_is_not_told_of_again(house: House) -> None:
    key = await house.key("ci")
    await house.spend(key, 9 * USD)
    await house.rebudget(key, Budget("month", 11 * USD))
    await house.spend(key, 1)
    assert await house.kinds() == [("budget.threshold", 80)]


# ---- refusals ---------------------------------------------------------------------------------------------------


async def refuse(house: House, noted: Refused, *keys: str, at: int = NOW) -> None:
    for key in keys:
        noted.note(AccountKey("agent_key", key, MONTH))
    await noted.tell(house.database, at)


async def test_a_refusal_is_told_of_once_in_a_period(house: House) -> None:
    key = await house.key("ci")
    await house.spend(key, 5 * USD - 1)
    one, other = Refused(), Refused()
    for turn in range(5):
        await refuse(house, one, key, at=NOW + turn * HOUR)
    await refuse(house, other, key)
    [(told, _)] = await house.told()
    assert (told.kind, told.facts["refused"], told.facts["spent_nano"]) == ("budget.exceeded", True, 5 * USD - 1)


async def test_used_up_and_refused_are_one_thing_to_tell(house: House) -> None:
    key = await house.key("ci")
    await house.spend(key, 10 * USD)
    await refuse(house, Refused(), key)
    assert await house.kinds() == [("budget.exceeded", 100)]


async def test_a_refusal_by_what_is_no_budget_any_more_is_forgotten(house: House) -> None:
    soft = await house.key("soft", Budget("month", None, soft_nano=USD))
    await refuse(house, Refused(), "key_gone", await house.key("free", None), soft)
    assert await house.told() == []


async def test_refusals_cost_next_to_nothing_and_a_bounded_memory(house: House) -> None:
    noted = Refused()
    for number in range(50_000):
        noted.note(AccountKey("agent_key", f"key_{number}", MONTH))
    assert len(noted._seen) == len(noted._noted) == 10_000
    await noted.tell(house.database, NOW)
    assert noted._noted == set()


async def test_a_refusal_without_a_database_is_told_of_later(house: House) -> None:
    key = await house.key("ci")
    noted = Refused()
    noted.note(AccountKey("agent_key", key, MONTH))
    async with database_away() as away:
        with refused("service_unavailable"):
            await noted.tell(away, NOW)
    await noted.tell(house.database, NOW)
    assert len(await house.told()) == 1


# ---- calls that should not be so --------------------------------------------------------------------------------


async def test_a_model_without_a_price_is_told_of_once_a_day(house: House) -> None:
    key = await house.key("ci", None)
    unpriced = {"price_version": None, "input_tokens": 5}
    for at in (NOW, NOW + 1, NOW + DAY):
        await house.spend(key, 0, at, **unpriced)
    await house.spend(key, 0, NOW, **unpriced, model="other")
    await house.spend(key, 0, NOW, price_version=None)
    assert sorted(one.subject_name for one, _ in await house.told()) == ["openai/m", "openai/m", "openai/other"]
    assert await house.addresses() == {"alice@example.org", "erin@example.org"}


@pytest.mark.parametrize("unit", ["output_tokens", "images", "audio_ms", "characters", "searches"])
async def test_whatever_is_paid_for_wants_a_price(house: House, unit: str) -> None:
    key = await house.key("ci", None)
    await house.spend(key, 0, NOW, price_version="set", **{unit: 1})
    assert await house.told() == []
    await house.spend(key, 0, NOW, price_version=None, **{unit: 1})
    [(one, _)] = await house.told()
    assert (one.kind, one.subject_name) == ("model.unpriced", "openai/m")


async def test_a_call_beyond_its_hold_is_told_of(house: House) -> None:
    key = await house.key("ci", None)
    leased = (("agent_key", key, MONTH),)
    await house.spend(key, 3 * USD, held_nano=3 * USD, leased=leased)
    assert await house.told() == []
    await asyncio.gather(*(house.spend(key, 3 * USD, held_nano=USD, leased=leased) for _ in range(5)))
    [(one, _)] = await house.told()
    assert (one.kind, one.facts["cost_nano"], one.facts["held_nano"]) == ("call.over_hold", 3 * USD, USD)


async def test_the_longest_model_name_fits(house: House) -> None:
    key = await house.key("ci", None)
    await house.spend(key, 0, model="m" * 200, provider="p" * 64, price_version=None, input_tokens=1)
    [(one, _)] = await house.told()
    assert len(one.subject_name) == 200


# ---- who is told ------------------------------------------------------------------------------------------------


async def test_the_owner_of_the_key_and_those_who_run_the_organization_are_told(house: House) -> None:
    await house.spend(await house.key("bobs"), 6 * USD)
    assert await house.addresses() == {"alice@example.org", "bob@example.org", "erin@example.org"}
    assert await house.told(house.folk.elsewhere.id) == []


async def test_nobody_is_told_twice(house: House) -> None:
    await house.spend(await house.key("alices", by="alice"), 6 * USD)
    [(_, ways)] = await house.told()
    assert sorted(way.address for way in ways) == ["alice@example.org", "erin@example.org"]


async def test_who_left_the_organization_is_not_told(house: House) -> None:
    key = await house.key("bobs")
    async with house.database.transaction() as tx:
        bob = house.folk["bob"].id
        await tx.execute(schema.members.delete().where(schema.members.c.user_id == bob))
    await house.spend(key, 6 * USD)
    assert await house.addresses() == {"alice@example.org", "erin@example.org"}


async def test_webhooks_hear_of_the_kinds_they_asked_for(house: House) -> None:
    rows: Mapping[str, tuple[list[str], bool]] = {
        "wh_all": (["all"], True),
        "wh_this": (["budget.threshold", "test"], True),
        "wh_other": (["budget.exceeded"], True),
        "wh_off": (["all"], False),
    }
    async with house.database.transaction() as tx:
        for id, (kinds, is_active) in rows.items():
            await tx.execute(
                insert(schema.webhooks).values(**_webhook(id, house.folk.home.id, kinds, is_active=is_active))
            )
        await tx.execute(
            insert(schema.webhooks).values(**_webhook("wh_dora", house.folk.elsewhere.id, ["all"], is_active=True))
        )
    await house.spend(await house.key("ci"), 6 * USD)
    [(_, ways)] = await house.told()
    assert {way.address for way in ways if way.channel == "webhook"} == {"wh_all", "wh_this"}


def _webhook(id: str, organization_id: str, kinds: list[str], *, is_active: bool) -> dict[str, object]:
    return {
        "id": id,
        "organization_id": organization_id,
        "name": id,
        "url": "https://example.org/hook",
        "origin": "https://example.org",
        "kinds": kinds,
        "sealed": "-",
        "sealed_version": 1,
        "is_active": is_active,
        "created_at": NOW,
        "updated_at": NOW,
    }


# ---- by the clock -----------------------------------------------------------------------------------------------


async def ends(house: House, *, at: int) -> list[int]:
    await alerts.tell_of_expiring(house.database, at)
    return [one.facts["days"] for one, _ in await house.told()]


async def test_a_key_is_told_of_seven_days_and_one_day_before_its_end(house: House) -> None:
    await house.key("ci", None, expires_at=NOW + 30 * DAY)
    assert await ends(house, at=NOW + 23 * DAY - 1) == []
    assert await ends(house, at=NOW + 23 * DAY) == [7]
    assert await ends(house, at=NOW + 25 * DAY) == [7]
    assert await ends(house, at=NOW + 29 * DAY) == [7, 1]
    assert await ends(house, at=NOW + 30 * DAY - 1) == [7, 1]
    assert await ends(house, at=NOW + 31 * DAY) == [7, 1]
    assert await house.addresses() == {"alice@example.org", "bob@example.org", "erin@example.org"}


async def test_gateways_that_look_at_once_tell_once(house: House) -> None:
    for number in range(5):
        await house.key(f"key {number}", None, expires_at=NOW + 30 * DAY + number)
    await asyncio.gather(*(alerts.tell_of_expiring(house.database, NOW + 24 * DAY) for _ in range(8)))
    assert len(await house.told()) == 5


async def test_after_a_long_silence_only_the_nearest_is_told(house: House) -> None:
    await house.key("ci", None, expires_at=NOW + 30 * DAY)
    assert await ends(house, at=NOW + 29 * DAY + HOUR) == [1]


async def test_another_end_is_told_of_anew(house: House) -> None:
    key = await house.key("ci", None, expires_at=NOW + 30 * DAY)
    assert await ends(house, at=NOW + 24 * DAY) == [7]
    async with house.database.transaction() as tx:
        await agent_keys.change(
            tx, house.folk.operator, house.folk.home.id, key, {"expires_at": NOW + 60 * DAY}, NOW + 24 * DAY
        )
    assert await ends(house, at=NOW + 24 * DAY) == [7]
    assert await ends(house, at=NOW + 54 * DAY) == [7, 7]


async def test_keys_that_were_never_to_live_so_long_are_left_alone(house: House) -> None:
    await house.key("hour", None, expires_at=NOW + HOUR)
    await house.key("day", None, expires_at=NOW + DAY)
    assert await ends(house, at=NOW + 1) == []
    await house.key("week", None, expires_at=NOW + 7 * DAY)
    assert await ends(house, at=NOW + 2) == []
    assert await ends(house, at=NOW + 6 * DAY) == [1]


async def test_ephemeral_and_stopped_keys_are_left_alone(house: House) -> None:
    keys = [await house.key(f"key {number}", None, expires_at=NOW + 30 * DAY) for number in range(3)]
    k = schema.agent_keys.c
    async with house.database.transaction() as tx:
        await tx.execute(update(schema.agent_keys).where(k.id == keys[0]).values(is_ephemeral=True))
        await tx.execute(update(schema.agent_keys).where(k.id == keys[1]).values(status="revoked"))
        await tx.execute(update(schema.agent_keys).where(k.id == keys[2]).values(expires_at=None))
    assert await ends(house, at=NOW + 24 * DAY) == []


async def test_the_old_is_forgotten_and_the_rest_stays(house: House) -> None:
    month, total = await house.key("month"), await house.key("total", Budget("total", 10 * USD))
    for key in (month, total):
        await house.spend(key, 6 * USD)
    await house.spend(await house.key("new"), 6 * USD, NOW + 50 * DAY)
    await alerts.prune(house.database, NOW + 100 * DAY)
    assert [one.subject_name for one, _ in await house.told()] == ["new"]
    async with house.database.read() as tx:
        left = (await tx.execute(select(func.count()).select_from(schema.deliveries))).scalar_one()
    assert left == 3
    await alerts.prune(house.database, NOW + 1_000 * DAY)
    await house.spend(total, USD, NOW + 1_000 * DAY)
    assert await house.told() == [], "a budget in total is not told of again"
