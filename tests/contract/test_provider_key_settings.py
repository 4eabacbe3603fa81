"""How a provider key is set up, is, and is used: turns, limits, budgets, tags, health, and what leans on it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ostiary.db.database import Database
from ostiary.ledger.audit_store import list_audit
from ostiary.limits.budgets import Budget
from ostiary.limits.store import find_budget, list_accounts
from ostiary.names import LONGEST_NAME
from ostiary.providers.catalog import AuthMethod, Catalog, Field, load
from ostiary.providers.egress import Egress
from ostiary.secret import Secret
from ostiary.vault import entry, health_store, key_uses, provider_keys, store
from ostiary.vault.endpoint_store import EVERYBODY, Endpoint, EndpointTarget, add_endpoint
from ostiary.vault.health_store import HealthRow
from ostiary.vault.key_fields import MAY_TRAIN
from ostiary.vault.key_uses import Standing, Uses
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey, ProviderKeyEdit
from ostiary.vault.seal import MasterKeys, Seal
from tests.people import NONE, NOW, ONE, People, everything, refused, settle, spoil, traces
from tests.servers.canaries import Canaries

EGRESS = Egress(["http://127.0.0.1:9000"])
SECRET = "sk-test-0123456789"
DAY_CAP = Budget("day", 10_000_000_000, 5_000_000_000)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load()


@pytest.fixture
async def seal(database: Database) -> Seal:
    made = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await made.open_instance(database, NOW)
    return made


@pytest.fixture
async def folk(database: Database) -> People:
    return await settle(database)


@pytest.fixture
def wish(catalog: Catalog) -> NewProviderKey:
    return NewProviderKey("main", catalog.get("openai"), Secret(SECRET))


async def added(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey, by: str = "alice", place: str | None = None
) -> ProviderKey:
    async with database.transaction() as tx:
        return await provider_keys.add(tx, folk[by], place or folk.home.id, wish, seal=seal, egress=EGRESS, at=NOW)


async def edited(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey, by: str = "alice", /, **wished: Any
) -> ProviderKey:
    edit = ProviderKeyEdit(wish.provider, wished)
    async with database.transaction() as tx:
        return await provider_keys.change(
            tx, folk[by], folk.home.id, wish.name, edit, seal=seal, egress=EGRESS, at=NOW + 1
        )


async def kept(database: Database, key: ProviderKey) -> ProviderKey | None:
    async with database.read() as tx:
        return await store.find_provider_key_by_id(tx, key.id)


async def standing(database: Database, key: ProviderKey, at: int = NOW) -> Standing:
    async with database.read() as tx:
        (found,) = await key_uses.stand(tx, [key], at)
    return found


# ---- every field ------------------------------------------------------------------------------------------------


async def test_every_field_is_kept_and_told(database: Database, seal: Seal, folk: People, wish: NewProviderKey) -> None:
    full = replace(
        wish, priority=-7, weight=3, strategy="rotate", free_tier=True, account=" acme ", tags=("prod", " eu ", "prod"),
        rpm=60, rpd=1_000, tpm=90_000, parallel=4, budget=DAY_CAP,
    )  # fmt: skip
    key = await added(database, seal, folk, full, by="erin")
    assert (key.priority, key.weight, key.strategy, key.free_tier, key.account) == (-7, 3, "rotate", True, "acme")
    assert (key.tags, key.rpm, key.rpd, key.tpm, key.parallel) == (("prod", "eu"), 60, 1_000, 90_000, 4)
    assert (key.budget, key.added_by, key.by_operator) == (DAY_CAP, "erin@example.org", False)
    assert await kept(database, key) == key
    async with database.read() as tx:
        assert await store.list_provider_keys(tx, folk.home.id) == [key]
        assert await store.list_all_provider_keys(tx) == [key]
        accounts = await list_accounts(tx, "provider_key", key.id)
        told = (await list_audit(tx, folk.home.id))[0].after
    assert {one.period_id: one.cap_nano for one in accounts} == {
        "2026-11-18": DAY_CAP.cap_nano,
        "2026-11": None,
        "total": None,
    }
    assert told is not None
    assert (told["priority"], told["tags"], told["rpm"], told["budget"]["kind"]) == (-7, ["prod", "eu"], 60, "day")
    assert not told.keys() & {"sealed", "secret"}


async def test_a_key_is_the_operators_while_its_secret_and_its_sharing_are(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    assert (await added(database, seal, folk, wish, by="operator")).by_operator
    assert (await edited(database, seal, folk, wish, priority=2)).by_operator
    assert (await edited(database, seal, folk, wish, shared=True, weight=2)).by_operator is False
    assert (await edited(database, seal, folk, wish, "operator", shared=True)).by_operator is False, "it was already"
    entered = await edited(database, seal, folk, wish, "operator", secret=Secret(SECRET[::-1]))
    assert entered.by_operator
    assert (await edited(database, seal, folk, wish, shared=False)).by_operator
    taken = await edited(database, seal, folk, wish, secret=Secret(SECRET))
    assert taken.by_operator is False
    assert await kept(database, taken) == taken


async def test_a_key_that_the_operator_shares_is_the_operators(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    assert not (await added(database, seal, folk, wish)).by_operator
    shared = await edited(database, seal, folk, wish, "operator", shared=True)
    assert shared.by_operator
    assert await kept(database, shared) == shared
    async with database.read() as tx:
        told = (await list_audit(tx, folk.home.id))[0]
    assert told.after is not None
    assert told.after["by_operator"] is True


async def test_without_a_word_a_key_takes_turns_and_a_free_one_is_used_up_first(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    plain = await added(database, seal, folk, wish)
    free = await added(database, seal, folk, replace(wish, name="free", free_tier=True))
    assert (plain.priority, plain.weight, plain.strategy, plain.tags, plain.budget) == (0, 1, "rotate", (), None)
    assert free.strategy == "fill"


async def test_who_may_train_on_data_is_tagged_until_somebody_takes_it_off(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    eager = replace(wish, provider=replace(wish.provider, trains_on_data=True), tags=("prod",))
    key = await added(database, seal, folk, eager)
    assert key.tags == ("prod", MAY_TRAIN)
    assert (await edited(database, seal, folk, eager, tags=("prod",))).tags == ("prod",)
    unsure = replace(wish, name="unsure", provider=replace(wish.provider, trains_on_data=None))
    assert (await added(database, seal, folk, unsure)).tags == ()
    again = replace(eager, name="again", tags=(MAY_TRAIN,))
    assert (await added(database, seal, folk, again)).tags == (MAY_TRAIN,)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a\nb"),
        ("name", "\u202eevil"),
        ("name", "x" * (LONGEST_NAME + 1)),
        ("name", None),
        ("priority", 1_001),
        ("priority", -1_001),
        ("priority", True),
        ("priority", 1.5),
        ("priority", None),
        ("weight", 0),
        ("weight", 1_001),
        ("weight", 2**64),
        ("strategy", "random"),
        ("strategy", ["fill"]),
        ("free_tier", 1),
        ("shared", None),
        ("account", ""),
        ("account", "a\0b"),
        ("account", 7),
        ("tags", "prod"),
        ("tags", ("",)),
        ("tags", ("x" * 41,)),
        ("tags", ("a\x1b[2J",)),
        ("tags", (None,)),
        ("tags", tuple(f"t{number}" for number in range(21))),
        ("rpm", 0),
        ("rpd", -1),
        ("tpm", 10**12),
        ("parallel", "4"),
        ("budget", Budget("day", None, None)),
        ("budget", Budget("day", 1, 2)),
        ("budget", Budget("month", 2**63)),
        ("budget", "10/day"),
        ("provider", "groq"),
        ("status", "healthy"),
        ("sealed", "x"),
        ("organization_id", "orgn_other"),
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused_and_changes_nothing(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey, field: str, value: object
) -> None:
    key = await added(database, seal, folk, wish)
    before = await traces(database)
    with refused("invalid_field", field):
        await edited(database, seal, folk, wish, **{field: value})
    assert await kept(database, key) == key
    assert await traces(database) - before == NONE


async def test_absent_stays_and_none_clears(database: Database, seal: Seal, folk: People, wish: NewProviderKey) -> None:
    limits = {"rpm": 60, "rpd": 1_000, "tpm": 90_000, "parallel": 4, "account": "acme", "budget": DAY_CAP}
    full = replace(wish, tags=("prod",), fields={"project": "p1"}, **limits)  # type: ignore[arg-type]
    key = await added(database, seal, folk, full)
    renamed = await edited(database, seal, folk, wish, name="other")
    assert renamed == replace(key, name="other", updated_at=NOW + 1)
    other = replace(wish, name="other")
    before = await traces(database)
    same = await edited(database, seal, folk, other, **limits, tags=("prod",), fields={"project": "p1"})
    assert same == renamed
    assert await traces(database) - before == NONE
    cleared = await edited(database, seal, folk, other, **dict.fromkeys(limits), tags=(), fields=None, base_url=None)
    nothing: dict[str, Any] = {**dict.fromkeys(limits), "tags": (), "fields": {}}
    assert cleared == replace(renamed, **nothing)
    assert await traces(database) - before == ONE
    assert await kept(database, key) == cleared
    async with database.read() as tx:
        assert await find_budget(tx, "provider_key", key.id) is None
        assert all(one.cap_nano is None for one in await list_accounts(tx, "provider_key", key.id))
        told = (await list_audit(tx, folk.home.id))[0]
    assert told.before is not None
    assert told.after is not None
    assert (told.before["rpm"], told.after["rpm"], told.after["budget"]) == (60, None, None)
    assert "name" not in told.after


async def test_sharing_and_taking_it_back_are_told_to_every_gateway(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    await added(database, seal, folk, wish)
    for shared in (True, False):
        before = await traces(database)
        assert (await edited(database, seal, folk, wish, shared=shared)).shared is shared
        assert await traces(database) - before == ONE


async def test_another_way_to_sign_in_needs_the_secret_again(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    ways = (
        AuthMethod(),
        AuthMethod("token", "Token"),
        AuthMethod("oauth", "OAuth", callable=False, reason="is not built"),
    )
    wish = replace(wish, provider=replace(wish.provider, auth=ways))
    key = await added(database, seal, folk, wish)
    for auth, param in (("token", "secret"), ("oauth", "auth"), ("unheard-of", "auth"), ("", "auth"), (7, "auth")):
        with refused("invalid_field", param):
            await edited(database, seal, folk, wish, auth=auth)
    assert await kept(database, key) == key
    named = await edited(database, seal, folk, wish, auth="api-key")
    assert (named.auth, named.sealed) == ("api-key", key.sealed), "the first way, by its name"
    assert (await edited(database, seal, folk, wish, auth="token", secret=Secret("tok-0123456789"))).auth == "token"


async def test_an_address_moves_with_the_fields_it_is_made_of(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    places = (Field("region", "Region", required=True, pattern="[a-z]+"), Field("account", "Account", pattern="[a-z]+"))
    row = replace(wish.provider, base_url="https://{region}.example.org/v1/{account}", fields=places)
    wish = replace(wish, provider=row, fields={"region": "eu", "account": "a"})
    key = await added(database, seal, folk, wish)
    assert key.base_url == "https://eu.example.org/v1/a"
    beside = await edited(database, seal, folk, wish, fields={"region": "eu", "account": "b"})
    assert (beside.base_url, beside.sealed) == ("https://eu.example.org/v1/b", key.sealed)
    with refused("invalid_field", "secret"):
        await edited(database, seal, folk, wish, fields={"region": "us", "account": "b"})
    for fields in ({"region": "evil.example/x"}, {"region": "eu@evil"}, {"account": "b"}, {"region": 1}, "eu"):
        with refused("invalid_field", "fields"):
            await edited(database, seal, folk, wish, fields=fields)
    assert await kept(database, key) == beside


async def test_two_edits_at_once_both_count(database: Database, seal: Seal, folk: People, wish: NewProviderKey) -> None:
    """The second waits for the first, and judges what is there by then."""
    key = await added(database, seal, folk, replace(wish, budget=DAY_CAP))
    lower = Budget("day", 1_000_000_000)
    await asyncio.gather(
        edited(database, seal, folk, wish, budget=lower),
        edited(database, seal, folk, wish, rpm=5),
        edited(database, seal, folk, wish, "erin", tags=("x",)),
    )
    found = await kept(database, key)
    assert found is not None
    assert (found.budget, found.rpm, found.tags) == (lower, 5, ("x",))


async def test_an_edit_of_what_is_deleted_meanwhile_finds_nothing(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    key = await added(database, seal, folk, replace(wish, budget=DAY_CAP))

    async def removed() -> None:
        async with database.transaction() as tx:
            await provider_keys.remove(tx, folk["alice"], folk.home.id, key.id, NOW)

    outcomes = await asyncio.gather(
        removed(), *(edited(database, seal, folk, wish, rpm=rpm) for rpm in (1, 2, 3)), return_exceptions=True
    )
    assert outcomes[0] is None
    assert {getattr(one, "code", "edited") for one in outcomes[1:]} <= {"edited", "not_found"}
    with refused("not_found"):
        await edited(database, seal, folk, wish, budget=DAY_CAP)
    async with database.read() as tx:
        assert await find_budget(tx, "provider_key", key.id) is None


# ---- masks ------------------------------------------------------------------------------------------------------


async def test_the_mask_of_a_secret_is_never_taken_for_one(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    key = await added(database, seal, folk, wish)
    for mask in (key.preview, "…", "sk-…789", "***", "sk-***789", "•••••••••", "sk-tes••••789"):
        with refused("invalid_field", "secret") as caught:
            await edited(database, seal, folk, wish, secret=Secret(mask))
        assert "masked" in caught.value.message
        with refused("invalid_field", "secret"):
            await added(database, seal, folk, replace(wish, name="masked", secret=Secret(mask)))
    assert await kept(database, key) == key


async def test_a_secret_of_strange_letters_is_refused_without_being_quoted(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    for secret in ("sk-\u200bhidden-0123456789", "ｓｋ－ｗｉｄｅ", "sk-\ud800half", "sk-😀0123456789", "a" * 70_000):
        with refused("invalid_field", "secret") as caught:
            await added(database, seal, folk, replace(wish, secret=Secret(secret)))
        assert secret not in caught.value.message
    await added(database, seal, folk, wish)
    with refused("invalid_field", "secret"):
        await edited(database, seal, folk, wish, secret=12)
    with refused("invalid_field", "secret"):
        await edited(database, seal, folk, wish, secret=None)


# ---- health -----------------------------------------------------------------------------------------------------


async def ail(database: Database, key: ProviderKey, *rows: tuple[str, str, int | None]) -> None:
    """What gateways have found: model, state, until."""
    found = [HealthRow(key.id, model, state, 3, "said so", NOW - 5, until) for model, state, until in rows]
    async with database.transaction() as tx:
        await health_store.put_health(tx, key.id, found)


async def test_health_is_shown_as_it_is_now(database: Database, seal: Seal, folk: People, wish: NewProviderKey) -> None:
    key = await added(database, seal, folk, wish)
    assert (await standing(database, key)).status == "healthy"
    await ail(database, key, ("gpt-4o", "cooling", NOW + 100))
    found = await standing(database, key)
    assert (found.status, [(row.model, row.state) for row in found.health]) == ("healthy", [("gpt-4o", "cooling")])
    assert (await standing(database, key, NOW + 100)).health == ()
    await ail(database, key, ("", "disabled", None), ("gpt-4o", "cooling", NOW + 100))
    assert (await standing(database, key, NOW + 10**9)).status == "disabled"
    await ail(database, key, ("", "unhealthy", NOW + 100))
    assert (await standing(database, key, NOW + 200)).status == "unhealthy", "until a call goes well"
    await spoil(database, "UPDATE provider_keys SET status = 'needs_reauth'")
    changed = await kept(database, key)
    assert changed is not None
    assert (await standing(database, changed)).status == "needs_reauth"


async def test_a_reset_forgets_everything_and_always_works(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    key = await added(database, seal, folk, wish)
    other = await added(database, seal, folk, replace(wish, name="other"))
    for one in (key, other):
        await ail(database, one, ("", "disabled", None), ("gpt-4o", "cooling", NOW + 100))
    await spoil(database, "UPDATE provider_keys SET status = 'disabled' WHERE id = :id", id=key.id)
    for deeds in (1, 2):
        before = await traces(database)
        async with database.transaction() as tx:
            assert (await provider_keys.reset(tx, folk["erin"], folk.home.id, "main", NOW)).status == "healthy"
        assert await traces(database) - before == ONE, deeds
    assert await kept(database, key) == key
    assert (await standing(database, key)).health == ()
    assert (await standing(database, other)).status == "disabled"
    async with database.read() as tx:
        told = (await list_audit(tx, folk.home.id))[1]
    assert told.before == {"status": "disabled", "health": ["all models: disabled", "gpt-4o: cooling"]}


async def test_what_was_found_with_another_credential_is_forgotten(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    key = await added(database, seal, folk, wish)
    await ail(database, key, ("", "disabled", None))
    await spoil(database, "UPDATE provider_keys SET status = 'disabled' WHERE id = :id", id=key.id)
    assert (await edited(database, seal, folk, wish, rpm=5)).status == "disabled"
    for wished in ({"secret": Secret("sk-other-0123456789")}, {"fields": {"project": "p2"}}):
        await ail(database, key, ("", "disabled", None))
        assert (await edited(database, seal, folk, wish, **wished)).status == "healthy"
        assert (await standing(database, key)).health == ()


# ---- what leans on it -------------------------------------------------------------------------------------------


async def lead(database: Database, organization_id: str, name: str, *targets: EndpointTarget) -> Endpoint:
    made = Endpoint(f"endp_{name}", organization_id, name, "first", 0, None, targets, NOW, NOW)
    async with database.transaction() as tx:
        await add_endpoint(tx, made)
    return made


async def uses(database: Database, folk: People, key: ProviderKey, by: str = "alice") -> Uses:
    async with database.read() as tx:
        return await key_uses.find_uses(tx, folk[by], key)


async def delete(database: Database, folk: People, key: ProviderKey, by: str = "alice", *, force: bool = False) -> None:
    async with database.transaction() as tx:
        await provider_keys.remove(tx, folk[by], folk.home.id, key.id, NOW, force=force)


async def test_a_key_that_is_named_is_deleted_by_force_only(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    key = await added(database, seal, folk, replace(wish, budget=DAY_CAP))
    await added(database, seal, folk, replace(wish, name="spare"))
    await lead(database, folk.home.id, "chat", EndpointTarget("openai", "gpt-4o", key.id))
    before = await traces(database)
    with refused("in_use") as caught:
        await delete(database, folk, key)
    named = {"kind": "endpoint", "id": "endp_chat", "name": "chat", "how": "named"}
    assert caught.value.details == {"dependents": [named], "elsewhere": 0}
    assert "'chat'" in caught.value.message
    assert await traces(database) - before == NONE
    await ail(database, key, ("", "disabled", None))
    await delete(database, folk, key, force=True)
    assert await traces(database) - before == ONE
    async with database.read() as tx:
        assert await health_store.find_health(tx, [key.id]) == []
        assert await find_budget(tx, "provider_key", key.id) is None
        told = (await list_audit(tx, folk.home.id))[0]
    assert told.before is not None
    assert told.before["forced"] == 1


async def test_the_last_key_that_serves_an_endpoint_is_in_use_and_a_spare_is_not(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    key = await added(database, seal, folk, wish)
    spare = await added(database, seal, folk, replace(wish, name="spare"))
    await lead(database, folk.home.id, "chat", EndpointTarget("openai", "gpt-4o"))
    await lead(database, EVERYBODY, "ostiary/fast", EndpointTarget("openai", "gpt-4o-mini"))
    assert [(one.kind, one.name, one.how) for one in (await uses(database, folk, key)).named] == [
        ("endpoint", "chat", "any"),
        ("alias", "ostiary/fast", "any"),
    ]
    await ail(database, spare, ("", "disabled", None))
    with refused("in_use"):
        await delete(database, folk, key)
    await delete(database, folk, spare)
    with refused("in_use") as caught:
        await delete(database, folk, key)
    assert [one["name"] for one in caught.value.details["dependents"]] == ["chat", "ostiary/fast"]
    await added(database, seal, folk, replace(wish, name="doras"), by="dora", place=folk.elsewhere.id)
    with refused("in_use"):
        await delete(database, folk, key)
    await added(database, seal, folk, replace(wish, name="pool", shared=True), by="dora", place=folk.elsewhere.id)
    await delete(database, folk, key)


async def test_endpoints_of_others_are_counted_and_named_to_the_operator_alone(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey
) -> None:
    key = await added(database, seal, folk, replace(wish, shared=True))
    for name in ("doras-secret-project", "another"):
        await lead(database, folk.elsewhere.id, name, EndpointTarget("openai", "gpt-4o"))
    assert await uses(database, folk, key) == Uses((), 2)
    with refused("in_use") as caught:
        await delete(database, folk, key)
    assert caught.value.details == {"dependents": [], "elsewhere": 2}
    assert "doras" not in caught.value.message
    with refused("in_use") as caught:
        await delete(database, folk, key, "operator")
    assert "'doras-secret-project'" in caught.value.message
    await edited(database, seal, folk, wish, shared=False)
    private = await kept(database, key)
    assert private is not None
    assert not await uses(database, folk, private)


# ---- twins, rehearsals ------------------------------------------------------------------------------------------


async def test_a_twin_is_the_same_secret_of_the_same_provider_at_home(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey, catalog: Catalog
) -> None:
    broken = await added(database, seal, folk, replace(wish, name="broken"))
    await spoil(database, "UPDATE provider_keys SET sealed = 'gone' WHERE id = :id", id=broken.id)
    await added(database, seal, folk, replace(wish, name="groq", provider=catalog.get("groq")))
    await added(database, seal, folk, replace(wish, name="doras"), by="dora", place=folk.elsewhere.id)

    async def twin() -> ProviderKey | None:
        async with database.read() as tx:
            return await provider_keys.find_twin(tx, folk["alice"], folk.home.id, "openai", Secret(SECRET), seal=seal)

    assert await twin() is None
    key = await added(database, seal, folk, wish)
    assert await twin() == key
    async with database.read() as tx:
        with refused("insufficient_scope"):
            await provider_keys.find_twin(tx, folk["bob"], folk.home.id, "openai", Secret(SECRET), seal=seal)


async def test_a_rehearsal_leaves_nothing_behind(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey, canaries: Canaries
) -> None:
    before, was = await traces(database), await everything(database)
    secret = Secret(canaries.plant())
    key = await entry.rehearse(
        database,
        lambda tx: provider_keys.add(
            tx, folk["alice"], folk.home.id, replace(wish, secret=secret), seal=seal, egress=EGRESS, at=NOW
        ),
    )
    assert key.name == "main"
    assert await kept(database, key) is None
    assert await traces(database) - before == NONE
    assert await everything(database) == was
    with refused("invalid_field", "priority"):
        await entry.rehearse(
            database,
            lambda tx: provider_keys.add(
                tx, folk["alice"], folk.home.id, replace(wish, priority=9_999), seal=seal, egress=EGRESS, at=NOW
            ),
        )
