"""Prices the operator sets: kept, replaced, written down, heard of; and refused when they are none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ledger import prices
from ostiary.ledger.audit_store import list_audit
from ostiary.orgs import roles
from ostiary.orgs.store import User
from ostiary.providers import catalog, store
from ostiary.providers.catalog import Catalog
from ostiary.providers.prices import Override
from ostiary.providers.tokens import Tokens

AT = 1_795_000_000_000
RATES = {"input": 2_500_000_000, "output": 10_000_000_000}
OPERATOR = roles.operator()


@pytest.fixture(scope="module", name="known")
def the_catalog() -> Catalog:
    return catalog.load()


def person(role: roles.Role | None) -> Actor:
    user = User(id="usr_1", email="alice@example.org", name="Alice", is_operator=False, created_at=AT)
    return roles.member_actor(user, role, "org_1", "cli")


async def kept(database: Database) -> list[Override]:
    async with database.read() as tx:
        return await store.list_overrides(tx)


async def test_an_override_is_kept_exactly(database: Database) -> None:
    rates = {"input": 0, "output": 10**17, "cache_read": 3_625_000, "request": 1}
    async with database.transaction() as tx:
        await store.change_override(tx, Override("openai", "gpt-4o", rates, "v1"), AT)
        await store.change_override(tx, Override("a", "b/c:free", RATES, "v1"), AT)
    assert await kept(database) == [Override("a", "b/c:free", RATES, "v1"), Override("openai", "gpt-4o", rates, "v1")]
    async with database.read() as tx:
        assert await store.find_override(tx, "openai", "gpt-4o") == Override("openai", "gpt-4o", rates, "v1")
        assert await store.find_override(tx, "openai", "gpt") is None
        assert await store.find_override(tx, "a", "gpt-4o") is None


async def test_setting_it_again_replaces_it_whole(database: Database) -> None:
    for version, rates in (("v1", {**RATES, "request": 5}), ("v2", RATES)):
        async with database.transaction() as tx:
            await store.change_override(tx, Override("openai", "gpt-4o", rates, version), AT)
    assert await kept(database) == [Override("openai", "gpt-4o", RATES, "v2")]


async def test_two_at_once_leave_one(database: Database) -> None:
    async def set_it(version: str) -> None:
        async with database.transaction() as tx:
            await store.change_override(tx, Override("openai", "gpt-4o", RATES, version), AT)

    await asyncio.gather(*(set_it(f"v{number}") for number in range(6)))
    assert len(await kept(database)) == 1


async def test_a_deed_sets_it_writes_it_down_and_is_heard_of(database: Database, known: Catalog) -> None:
    for rates in (RATES, {**RATES, "cache_read": 1}):
        async with database.transaction() as tx:
            override = await prices.set_price(tx, OPERATOR, known.get("ollama"), " llama3 ", rates, AT)
    assert await kept(database) == [override]
    assert (override.provider, override.model) == ("ollama", "llama3")
    async with database.read() as tx:
        newest, oldest = await list_audit(tx)
        heard = await changes.list_after(tx, 0)
    assert (newest.deed, newest.target_kind, newest.target_name) == ("prices.set", "price", "ollama/llama3")
    assert (newest.before, newest.after) == (RATES, {**RATES, "cache_read": 1})
    assert (oldest.before, oldest.organization_id, oldest.actor_id) == (None, None, OPERATOR.id)
    assert [(change.noun, change.id) for change in heard] == [("price", "ollama/llama3")] * 2


async def test_each_setting_is_a_version_of_its_own(database: Database, known: Catalog) -> None:
    async with database.transaction() as tx:
        versions = {
            (await prices.set_price(tx, OPERATOR, known.get("ollama"), "x", RATES, AT)).version for _ in range(5)
        }
    assert len(versions) == 5
    assert all(len(version) <= 64 for version in versions)


async def test_a_long_model_name_fits_everywhere(database: Database, known: Catalog) -> None:
    model = "m" * 200
    async with database.transaction() as tx:
        await prices.set_price(tx, OPERATOR, known.get("openai-compatible"), model, RATES, AT)
    assert [each.model for each in await kept(database)] == [model]


async def refused(tx: Transaction, known: Catalog, by: Actor, model: str, rates: Mapping[str, int]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await prices.set_price(tx, by, known.get("openai"), model, rates, AT)
    return caught.value


@pytest.mark.parametrize(
    ("model", "rates", "param"),
    [
        ("gpt-4o", {}, "input"),
        ("gpt-4o", {"input": 1}, "output"),
        ("gpt-4o", {"output": 1}, "input"),
        ("gpt-4o", {**RATES, "seconds": 1}, "seconds"),
        ("gpt-4o", {**RATES, "input": -1}, "input"),
        ("gpt-4o", {**RATES, "output": 10**17 + 1}, "output"),
        ("gpt-4o", {**RATES, "input": True}, "input"),
        ("gpt-4o", {**RATES, "input": 0.5}, "input"),
        ("gpt-4o", {**RATES, "cache_read": "1"}, "cache_read"),
        ("", RATES, "model"),
        ("  ", RATES, "model"),
        ("m" * 201, RATES, "model"),
        ("a\nb", RATES, "model"),
        ("a\x00b", RATES, "model"),
    ],
)
async def test_what_is_no_price(
    database: Database, known: Catalog, model: str, rates: dict[str, int], param: str
) -> None:
    async with database.transaction() as tx:
        refusal = await refused(tx, known, OPERATOR, model, rates)
    assert (refusal.code, refusal.param) == ("invalid_field", param)
    async with database.read() as tx:
        assert await store.list_overrides(tx) == []
        assert await changes.latest(tx) == 0
        assert await list_audit(tx) == []


@pytest.mark.parametrize("role", ["owner", "admin", "member", None])
async def test_only_the_operator_sets_prices(database: Database, known: Catalog, role: roles.Role | None) -> None:
    async with database.transaction() as tx:
        assert (await refused(tx, known, person(role), "gpt-4o", RATES)).status in {403, 404}
    assert await kept(database) == []


async def test_prices_are_shown_to_everybody_in_an_organization(database: Database, known: Catalog) -> None:
    async with database.transaction() as tx:
        await prices.set_price(tx, OPERATOR, known.get("ollama"), "llama3", RATES, AT)
        await prices.set_price(tx, OPERATOR, known.get("groq"), "x", RATES, AT)
    async with database.read() as tx:
        for by in (OPERATOR, person("owner"), person("member")):
            every = await prices.show(tx, by)
            assert [(each.provider, each.model) for each in every] == [("groq", "x"), ("ollama", "llama3")]
            assert [each.provider for each in await prices.show(tx, by, known.get("ollama"))] == ["ollama"]
        (published,) = await prices.show(tx, OPERATOR, known.get("openai"), "gpt-4o")
        (override,) = await prices.show(tx, OPERATOR, known.get("ollama"), "llama3")
        (unknown,) = await prices.show(tx, OPERATOR, known.get("nvidia"), "x")
        with pytest.raises(Refusal):
            await prices.show(tx, person(None))
    assert published.price is not None
    assert published.price.version.startswith("genai-prices")
    assert override.price is not None
    assert override.price.cost_nano(Tokens(input=1_000_000)) == RATES["input"]
    assert unknown.price is None


async def test_who_waits_to_set_a_price_knows_what_it_is_by_then(database: Database, known: Catalog) -> None:
    """The form of a price is refused where it shows an older one, so it must look at the price alone."""
    provider = known.get("openai")

    async def look_and_set() -> dict[str, int]:
        async with database.transaction() as tx:
            await prices.alone(tx, OPERATOR)
            found = await store.find_override(tx, provider.id, "gpt-4o")
            await prices.set_price(tx, OPERATOR, provider, "gpt-4o", RATES, AT)
        return dict(found.rates) if found else {}

    dear = {"input": 1, "output": 2}
    async with database.transaction() as tx:
        await prices.set_price(tx, OPERATOR, provider, "gpt-4o", dear, AT)
        looking = asyncio.ensure_future(look_and_set())
        await asyncio.sleep(0.2)
        assert not looking.done()
    assert await looking == dear
    async with database.read() as tx:
        assert (await list_audit(tx))[0].before == dear


async def test_who_waits_to_set_a_price_says_what_they_replaced(database: Database, known: Catalog) -> None:
    provider = known.get("openai")

    async def set_price(rates: dict[str, int]) -> None:
        async with database.transaction() as tx:
            await prices.set_price(tx, OPERATOR, provider, "gpt-4o", rates, AT)

    async with database.transaction() as tx:
        await prices.set_price(tx, OPERATOR, provider, "gpt-4o", RATES, AT)
        other = asyncio.ensure_future(set_price({"input": 1, "output": 2}))
        await asyncio.sleep(0.2)
        assert not other.done()
    await other
    async with database.read() as tx:
        assert (await list_audit(tx))[0].before == RATES
