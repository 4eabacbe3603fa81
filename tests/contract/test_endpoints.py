"""Endpoints and aliases: every deed, by everybody, on both databases; where they lead, who uses them, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from ostiary.actor import Actor
from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.agents.policy import Choice
from ostiary.db import changes, schema
from ostiary.db.database import Database, Transaction
from ostiary.ledger.audit_store import list_audit
from ostiary.orgs import organizations, roles
from ostiary.providers.catalog import Catalog, load
from ostiary.secret import Secret
from ostiary.vault import aliases, endpoint_store, endpoints, store
from ostiary.vault.aliases import MODELS
from ostiary.vault.endpoint_store import EVERYBODY, Dependent, UserFilter
from ostiary.vault.endpoints import Endpoint, EndpointTarget, GivenKey, NewEndpoint, View
from ostiary.vault.store import ProviderKey
from tests.people import DAY, INSIDE, NONE, NOW, ONE, OUTSIDE, People, refused, settle, traces

MINI = EndpointTarget("openai", "gpt-5-mini")
LLAMA = EndpointTarget("groq", "llama-3.3-70b-versatile", weight=2)
SMALL = EndpointTarget("mistral", "mistral-small-latest", is_fallback=True)
WISH = NewEndpoint("chat", (MINI, LLAMA, SMALL), "split", 3, 30_000)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load()


async def created(
    database: Database, catalog: Catalog, folk: People, wish: NewEndpoint = WISH, by: str = "alice", at: int = NOW
) -> Endpoint:
    async with database.transaction() as tx:
        home = folk.elsewhere.id if by == "dora" else folk.home.id
        return await endpoints.create(tx, folk[by], home, wish, catalog=catalog, at=at)


async def aliased(database: Database, catalog: Catalog, folk: People, wish: NewEndpoint) -> Endpoint:
    async with database.transaction() as tx:
        return await aliases.create(tx, folk.operator, wish, catalog=catalog, at=NOW)


async def changed(
    database: Database, catalog: Catalog, folk: People, id: str, edit: Mapping[str, object], *, force: bool = False
) -> Endpoint:
    async with database.transaction() as tx:
        return await endpoints.change(
            tx, folk["alice"], folk.home.id, id, edit, catalog=catalog, at=NOW + 1, force=force
        )


async def seen(database: Database, folk: People, id: str, by: str = "alice", at: int = NOW) -> View:
    async with database.read() as tx:
        return await endpoints.show(tx, folk[by], folk.home.id, id, at)


async def provider_key(
    database: Database, organization_id: str, name: str, provider: str = "openai", *, shared: bool = False
) -> ProviderKey:
    """A row as the vault keeps it; nothing here opens its secret."""
    key = ProviderKey(
        id=f"pkey_{name}_{organization_id[-6:]}",
        organization_id=organization_id,
        name=name,
        provider=provider,
        base_url="https://api.example.org/v1",
        origin="https://api.example.org",
        fields={},
        sealed="",
        sealed_version=0,
        preview="",
        shared=shared,
        status="healthy",
        created_at=NOW,
        updated_at=NOW,
        last_used_at=None,
    )
    async with database.transaction() as tx:
        await store.add_provider_key(tx, key)
    return key


async def agent_key(
    database: Database, folk: People, name: str, models: Sequence[str] = (), by: str = "alice"
) -> AgentKey:
    wish = NewAgentKey(name=name, models=Choice("only", frozenset(models)) if models else Choice())
    home = folk.elsewhere.id if by == "dora" else folk.home.id
    async with database.transaction() as tx:
        key, _ = await agent_keys.create(tx, folk[by], home, wish, pepper=Secret("pepper" * 8), at=NOW)
        return key


# ---- by everybody -----------------------------------------------------------------------------------------------


async def test_each_deed_by_everybody(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    one = await created(database, catalog, folk)

    async def create(tx: Transaction, by: Actor, home: str) -> object:
        return await endpoints.create(tx, by, home, replace(WISH, name=f"by {by.name}"), catalog=catalog, at=NOW)

    async def show(tx: Transaction, by: Actor, home: str) -> object:
        return await endpoints.show(tx, by, home, one.id, NOW)

    async def edit(tx: Transaction, by: Actor, home: str) -> object:
        return await endpoints.change(tx, by, home, one.id, {"name": f"of {by.name}"}, catalog=catalog, at=NOW)

    async def delete(tx: Transaction, by: Actor, home: str) -> object:
        wish = replace(WISH, name=f"to be deleted by {by.name}")
        made = await endpoints.create(tx, folk.operator, folk.home.id, wish, catalog=catalog, at=NOW)
        return await endpoints.remove(tx, by, home, made.id, NOW)

    deeds: dict[str, Callable[[Transaction, Actor, str], Awaitable[object]]] = {
        "create": create,
        "list": endpoints.list_,
        "show": show,
        "edit": edit,
        "delete": delete,
    }
    leaves = {"create": 1, "edit": 1, "delete": 2}
    for name in (*INSIDE, *OUTSIDE, "operator"):
        for verb, deed in deeds.items():
            is_too_much = name == "bob" and verb in leaves
            code = "not_found" if name in OUTSIDE else "insufficient_scope" if is_too_much else None
            before = await traces(database)
            if code is None:
                async with database.transaction() as tx:
                    await deed(tx, folk[name], folk.home.id)
                assert await traces(database) - before == type(ONE)(leaves.get(verb, 0), leaves.get(verb, 0)), verb
            else:
                with refused(code):
                    async with database.transaction() as tx:
                        await deed(tx, folk[name], folk.home.id)
                assert await traces(database) - before == NONE, (name, verb)


async def test_aliases_are_the_operators_to_make_and_everybodys_to_see(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    wish = NewEndpoint("ostiary/quick", (MINI,))
    before = await traces(database)
    one = await aliased(database, catalog, folk, wish)
    assert await traces(database) - before == ONE
    assert one.is_alias
    before = await traces(database)
    for name in ("alice", "erin", "bob", "dora"):
        by = folk[name]
        async with database.read() as tx:
            assert await aliases.list_(tx, by) == [one]
            assert (await aliases.show(tx, by, "ostiary/quick", NOW)).endpoint == one
        for deed in (
            lambda tx, by=by: aliases.create(tx, by, replace(wish, name="mine"), catalog=catalog, at=NOW),
            lambda tx, by=by: aliases.change(tx, by, one.id, {"retries": 1}, catalog=catalog, at=NOW),
            lambda tx, by=by: aliases.remove(tx, by, one.id, NOW),
            lambda tx, by=by: aliases.make(tx, by, catalog=catalog, at=NOW),
            lambda tx, by=by: aliases.make_first(tx, by, catalog=catalog, at=NOW),
        ):
            with refused("not_found"):
                async with database.transaction() as tx:
                    await deed(tx)
    with refused("insufficient_scope"):
        async with database.read() as tx:
            await aliases.list_(tx, folk["charlie"])
    assert await traces(database) - before == NONE


async def test_an_alias_is_found_by_the_end_of_its_name(database: Database, catalog: Catalog) -> None:
    """Where nothing is called just so."""
    folk = await settle(database)
    one = await aliased(database, catalog, folk, NewEndpoint("ostiary/quick", (MINI,)))
    async with database.transaction() as tx:
        assert (await aliases.show(tx, folk["bob"], "quick", NOW)).endpoint == one
        edited = await aliases.change(tx, folk.operator, "quick", {"retries": 0}, catalog=catalog, at=NOW)
        assert edited == replace(one, retries=0)
    other = await aliased(database, catalog, folk, NewEndpoint("quick", (LLAMA,)))
    async with database.transaction() as tx:
        assert (await aliases.show(tx, folk["bob"], "quick", NOW)).endpoint == other
        await aliases.remove(tx, folk.operator, "quick", NOW)
        await aliases.remove(tx, folk.operator, "quick", NOW)
        assert await aliases.list_(tx, folk["bob"]) == []
        with refused("not_found"):
            await aliases.show(tx, folk["bob"], "ick", NOW)


async def test_an_alias_is_no_endpoint_of_anybodys(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    one = await aliased(database, catalog, folk, NewEndpoint("quick", (MINI,)))
    mine = await created(database, catalog, folk, NewEndpoint("quick", (LLAMA,)))
    theirs = await created(database, catalog, folk, NewEndpoint("quick", (MINI,)), "dora")
    async with database.read() as tx:
        assert await endpoints.list_(tx, folk["alice"], folk.home.id) == [mine]
        assert await endpoints.list_(tx, folk["dora"], folk.elsewhere.id) == [theirs]
        assert await endpoint_store.list_all_endpoints(tx) == sorted((one, mine, theirs), key=lambda each: each.id)
    for id in (one.id, theirs.id):
        with refused("not_found"):
            await seen(database, folk, id)


# ---- what is kept -----------------------------------------------------------------------------------------------


async def test_what_is_made_is_what_is_read(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    one = await created(database, catalog, folk)
    assert (one.name, one.strategy, one.retries, one.timeout_ms) == ("chat", "split", 3, 30_000)
    assert one.targets == (MINI, LLAMA, SMALL)
    async with database.read() as tx:
        assert await endpoint_store.find_endpoint_by_id(tx, one.id) == one
        assert await endpoint_store.find_endpoint(tx, folk.home.id, "chat") == one
        assert await endpoint_store.find_endpoint(tx, folk.home.id, "no\0thing") is None
        heard = (await changes.list_after(tx, 0))[-1]
        [row] = (await list_audit(tx, folk.home.id))[:1]
    assert (heard.noun, heard.organization_id, heard.id) == ("endpoint", folk.home.id, one.id)
    assert (row.deed, row.target_kind, row.target_name) == ("endpoints.create", "endpoint", "chat")
    assert row.after is not None
    assert row.after["targets"][1] == {
        "provider": "groq",
        "model": "llama-3.3-70b-versatile",
        "provider_key_id": None,
        "weight": 2,
        "is_fallback": False,
    }


async def test_what_is_not_named_stays(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    one = await created(database, catalog, folk)
    edited = await changed(database, catalog, folk, "chat", {"timeout_ms": None, "retries": 0})
    assert edited == replace(one, timeout_ms=None, retries=0, updated_at=NOW + 1)
    turned = await changed(database, catalog, folk, "chat", {"targets": [SMALL, LLAMA]})
    assert turned.targets == (SMALL, LLAMA)
    assert (await seen(database, folk, "chat")).endpoint == turned
    before = await traces(database)
    assert await changed(database, catalog, folk, "chat", {"targets": [SMALL, LLAMA], "retries": 0}) == turned
    assert await traces(database) - before == NONE
    async with database.read() as tx:
        row = (await list_audit(tx, folk.home.id))[0]
    assert (row.deed, set(row.before or ()), set(row.after or ())) == ("endpoints.edit", {"targets"}, {"targets"})


async def test_what_is_deleted_leaves_nothing(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    one = await created(database, catalog, folk)
    key = await agent_key(database, folk, "caller")
    async with database.transaction() as tx:
        await endpoint_store.mark_endpoints_used(tx, {(one.id, folk.home.id, key.id): NOW})
        await endpoints.remove(tx, folk["erin"], folk.home.id, "chat", NOW)
        await endpoint_store.mark_endpoints_used(tx, {(one.id, folk.home.id, key.id): NOW + 1})
    async with database.read() as tx:
        for table in (schema.endpoints, schema.endpoint_targets, schema.endpoint_uses):
            assert (await tx.execute(select(func.count()).select_from(table))).scalar_one() == 0, table.name
    again = await created(database, catalog, folk)
    assert again.id != one.id


async def test_a_name_is_taken_once(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    await created(database, catalog, folk)
    other = await created(database, catalog, folk, replace(WISH, name="other"))
    with refused("conflict", "name"):
        await created(database, catalog, folk)
    with refused("conflict", "name"):
        await changed(database, catalog, folk, other.id, {"name": "chat"})
    assert (await created(database, catalog, folk, by="dora")).name == "chat"


# ---- what cannot be ---------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name"),
    ({"name": "/chat"}, "name"),
    ({"name": "chat/"}, "name"),
    ({"name": "a//b"}, "name"),
    ({"name": "a,b"}, "name"),
    ({"name": "all"}, "name"),
    ({"name": "openai/gpt-5"}, "name"),
    ({"name": "OpenAI/mine"}, "name"),
    ({"name": "ostiary/mine"}, "name"),
    ({"name": "x" * 201}, "name"),
    ({"targets": ()}, "targets"),
    ({"targets": (SMALL,)}, "targets"),
    ({"targets": [replace(MINI, model=f"m{number}") for number in range(51)]}, "targets"),
    ({"targets": (MINI, MINI)}, "targets.1"),
    ({"targets": (MINI, replace(MINI, weight=5, is_fallback=True))}, "targets.1"),
    ({"targets": (MINI, EndpointTarget("openia", "gpt-5"))}, "targets.1.provider"),
    ({"targets": (EndpointTarget("ostiary", "fast"),)}, "targets.0.provider"),
    ({"targets": (replace(MINI, model=" "),)}, "targets.0.model"),
    ({"targets": (replace(MINI, weight=0),)}, "targets.0.weight"),
    ({"targets": (replace(MINI, weight=1_001),)}, "targets.0.weight"),
    ({"targets": (replace(MINI, provider_key_id="nobody's"),)}, "targets.0.provider_key_id"),
    ({"strategy": "random"}, "strategy"),
    ({"retries": -1}, "retries"),
    ({"retries": 10}, "retries"),
    ({"retries": True}, "retries"),
    ({"timeout_ms": 99}, "timeout_ms"),
    ({"timeout_ms": 600_001}, "timeout_ms"),
]


async def test_what_cannot_be_is_refused_and_leaves_nothing(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    one = await created(database, catalog, folk, replace(WISH, name="as it was"))
    before = await traces(database)
    for wrong, param in WRONG:
        with refused("invalid_field", param):
            await created(database, catalog, folk, replace(WISH, **wrong))
        with refused("invalid_field", param):
            await changed(database, catalog, folk, one.id, wrong)
    with refused("invalid_field", "id"):
        await changed(database, catalog, folk, one.id, {"id": "endp_x"})
    assert await traces(database) - before == NONE
    assert (await seen(database, folk, one.id)).endpoint == one


async def test_a_provider_that_cannot_be_called_is_refused_with_its_reason(
    database: Database, catalog: Catalog
) -> None:
    folk = await settle(database)
    mute = replace(catalog.get("openai"), id="mute", name="Mute", callable=False, reason="its dialect is not built")
    wider = Catalog([*catalog.providers.values(), mute])
    wish = NewEndpoint("chat", (EndpointTarget("mute", "m"),))
    with refused("invalid_field", "targets.0.provider") as caught:
        await created(database, wider, folk, wish)
    assert "its dialect is not built" in caught.value.message


async def test_there_is_an_end_to_endpoints(
    database: Database, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.vault.endpoint_changes._MOST", 1)
    folk = await settle(database)
    await created(database, catalog, folk)
    with refused("conflict"):
        await created(database, catalog, folk, replace(WISH, name="one more"))
    assert (await created(database, catalog, folk, by="dora")).name == "chat"


async def test_two_at_once_do_not_pass_that_end(
    database: Database, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiary.vault.endpoint_changes._MOST", 1)
    folk = await settle(database)
    async with database.transaction() as tx:
        await endpoints.create(tx, folk["alice"], folk.home.id, WISH, catalog=catalog, at=NOW)
        other = asyncio.ensure_future(created(database, catalog, folk, replace(WISH, name="one more")))
        await asyncio.sleep(0.2)
        assert not other.done()
    with refused("conflict"):
        await other


# ---- provider keys that targets name ----------------------------------------------------------------------------


async def test_a_target_names_a_key_of_ones_own_or_of_the_pool(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    mine = await provider_key(database, folk.home.id, "mine")
    pool = await provider_key(database, folk.elsewhere.id, "pool", shared=True)
    private = await provider_key(database, folk.elsewhere.id, "private")
    wish = NewEndpoint("chat", (replace(MINI, provider_key_id="mine"), replace(MINI, provider_key_id=pool.id)))
    one = await created(database, catalog, folk, wish)
    assert [target.provider_key_id for target in one.targets] == [mine.id, pool.id]
    view = await seen(database, folk, "chat")
    assert view.keys == (GivenKey(mine.id, "mine", is_usable=True), GivenKey(pool.id, None, is_usable=True))
    for strange in (private.id, "private", "pool"):  # of somebody else's key in the pool the name is not told
        with refused("invalid_field", "targets.0.provider_key_id"):
            await changed(database, catalog, folk, "chat", {"targets": [replace(MINI, provider_key_id=strange)]})
    with refused("invalid_field", "targets.0.provider_key_id") as caught:
        await changed(database, catalog, folk, "chat", {"targets": [replace(LLAMA, provider_key_id="mine")]})
    assert "is for openai" in caught.value.message
    twice = [replace(MINI, provider_key_id="mine"), replace(MINI, provider_key_id=mine.id)]
    with refused("invalid_field", "targets.1"):
        await changed(database, catalog, folk, "chat", {"targets": twice})


async def test_the_operator_names_keys_of_the_pool(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    await provider_key(database, folk.home.id, "private")
    pool = await provider_key(database, folk.home.id, "pool", shared=True)
    with refused("invalid_field", "targets.0.provider_key_id"):
        await aliased(database, catalog, folk, NewEndpoint("fast", (replace(MINI, provider_key_id="private"),)))
    one = await aliased(database, catalog, folk, NewEndpoint("fast", (replace(MINI, provider_key_id="pool"),)))
    assert one.targets[0].provider_key_id == pool.id
    other = await provider_key(database, folk.elsewhere.id, "pool", shared=True)
    with refused("invalid_field", "targets.0.provider_key_id") as caught:
        await aliased(database, catalog, folk, NewEndpoint("other", (replace(MINI, provider_key_id="pool"),)))
    assert pool.id in caught.value.message
    assert other.id in caught.value.message


async def test_a_key_that_is_taken_back_or_gone_is_said_to_be(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    pool = await provider_key(database, folk.elsewhere.id, "pool", shared=True)
    mine = await provider_key(database, folk.home.id, "mine")
    wish = NewEndpoint("chat", (replace(MINI, provider_key_id=pool.id), replace(MINI, provider_key_id=mine.id)))
    await created(database, catalog, folk, wish)
    async with database.transaction() as tx:
        await store.change_provider_key(tx, folk.elsewhere.id, pool.id, shared=False)
        await store.remove_provider_key(tx, folk.home.id, mine.id)
    assert [key.is_usable for key in (await seen(database, folk, "chat")).keys] == [False, False]
    edited = await changed(database, catalog, folk, "chat", {"retries": 1})  # the targets are left as they are
    assert edited.targets[0].provider_key_id == pool.id


async def test_what_leans_on_a_provider_key_is_known(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    key = await provider_key(database, folk.home.id, "main", shared=True)
    named = await created(database, catalog, folk, NewEndpoint("named", (replace(MINI, provider_key_id="main"), MINI)))
    open_ = await created(database, catalog, folk, NewEndpoint("open", (MINI,)))
    await created(database, catalog, folk, NewEndpoint("elsewhere", (LLAMA,)))
    alias = await aliased(database, catalog, folk, NewEndpoint("ostiary/x", (MINI,)))
    theirs = await created(database, catalog, folk, NewEndpoint("theirs", (MINI,)), "dora")
    bound = await created(
        database, catalog, folk, NewEndpoint("theirs too", (replace(MINI, provider_key_id=key.id),)), "dora"
    )
    home, other = folk.home.id, folk.elsewhere.id
    own = [
        Dependent("endpoint", named.id, "named", home, "named"),
        Dependent("endpoint", open_.id, "open", home, "any"),
        Dependent("alias", alias.id, "ostiary/x", EVERYBODY, "any"),
    ]
    hers = Dependent("endpoint", bound.id, "theirs too", other, "named")
    async with database.read() as tx:
        found = await endpoint_store.list_dependents(tx, key)
        assert found == [*own, Dependent("endpoint", theirs.id, "theirs", other, "any"), hers]
        private = replace(key, shared=False)
        assert await endpoint_store.list_dependents(tx, private) == [*own, hers]


# ---- who uses them ----------------------------------------------------------------------------------------------


async def test_users_of_the_last_days_and_those_that_name_it(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    one = await created(database, catalog, folk)
    caller = await agent_key(database, folk, "caller")
    both = await agent_key(database, folk, "both", ["gpt-5", "chat"], by="bob")
    await agent_key(database, folk, "naming", ["chat"])
    old = await agent_key(database, folk, "old")
    await agent_key(database, folk, "another case", ["CHAT", 'a"chat"b', "chatter"])
    await agent_key(database, folk, "hers", ["chat"], by="dora")
    async with database.transaction() as tx:
        uses = {(one.id, folk.home.id, key.id): NOW for key in (caller, both)}
        await endpoint_store.mark_endpoints_used(tx, uses)
        await endpoint_store.mark_endpoints_used(tx, dict.fromkeys(uses, NOW - DAY))  # never earlier
        await endpoint_store.mark_endpoints_used(tx, {(one.id, folk.home.id, old.id): NOW - 31 * DAY})
    users = (await seen(database, folk, "chat", at=NOW)).users
    assert users is not None
    assert [(user.name, user.last_used_at, user.is_named) for user in users] == [
        ("both", NOW, True),
        ("caller", NOW, False),
        ("naming", None, True),
    ]
    bobs = (await seen(database, folk, "chat", "bob")).users
    assert bobs is not None
    assert [user.name for user in bobs] == ["both"]
    blind = replace(folk["alice"], grants={"endpoints.show": "all"})
    async with database.read() as tx:
        assert (await endpoints.show(tx, blind, folk.home.id, "chat", NOW)).users is None


async def test_users_of_an_alias_are_seen_by_their_own(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    one = await aliased(database, catalog, folk, NewEndpoint("ostiary/quick", (MINI,)))
    mine = await agent_key(database, folk, "mine")
    hers = await agent_key(database, folk, "hers", ["ostiary/quick"], by="dora")
    async with database.transaction() as tx:
        for key in (mine, hers):
            await endpoint_store.mark_endpoints_used(tx, {(one.id, key.organization_id, key.id): NOW})
    async with database.read() as tx:
        found = {
            name: [user.name for user in (await aliases.show(tx, folk[name], one.id, NOW)).users or ()]
            for name in ("alice", "dora", "operator")
        }
        assert len(await endpoint_store.list_users(tx, one, UserFilter(NOW, limit=1))) == 1
    assert found == {"alice": ["mine"], "dora": ["hers"], "operator": ["hers", "mine"]}


async def test_what_agent_keys_name_is_not_deleted_nor_renamed_unawares(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    await created(database, catalog, folk, replace(WISH, name="größe"))
    key = await agent_key(database, folk, "naming", ["größe"])
    before = await traces(database)
    with refused("in_use") as caught:
        async with database.transaction() as tx:
            await endpoints.remove(tx, folk["alice"], folk.home.id, "größe", NOW)
    expected = {"kind": "agent_key", "id": key.id, "name": "naming", "organization_id": folk.home.id}
    assert caught.value.details["dependents"] == [expected]
    assert "1 agent key " in caught.value.message
    with refused("in_use"):
        await changed(database, catalog, folk, "größe", {"name": "size"})
    assert await traces(database) - before == NONE
    assert (await changed(database, catalog, folk, "größe", {"retries": 1})).retries == 1
    assert (await changed(database, catalog, folk, "größe", {"name": "chat"}, force=True)).name == "chat"
    await changed(database, catalog, folk, "chat", {"name": "größe"})
    async with database.transaction() as tx:
        await endpoints.remove(tx, folk["alice"], folk.home.id, "größe", NOW, force=True)


async def test_the_dependents_of_an_alias_are_everywhere(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    await aliased(database, catalog, folk, NewEndpoint("ostiary/quick", (MINI,)))
    await agent_key(database, folk, "hers", ["ostiary/quick"], by="dora")
    with refused("in_use") as caught:
        async with database.transaction() as tx:
            await aliases.remove(tx, folk.operator, "ostiary/quick", NOW)
    assert [one["organization_id"] for one in caught.value.details["dependents"]] == [folk.elsewhere.id]
    async with database.transaction() as tx:
        await aliases.remove(tx, folk.operator, "ostiary/quick", NOW, force=True)


# ---- aliases out of the catalogue -------------------------------------------------------------------------------


async def made(database: Database, catalog: Catalog, folk: People, at: int, *, first: bool = False) -> dict[str, Any]:
    deed = aliases.make_first if first else aliases.make
    async with database.transaction() as tx:
        done = await deed(tx, folk.operator, catalog=catalog, at=at)
    return {one.name: [target.provider for target in one.targets] for one in done}


async def test_aliases_are_made_over_the_pool_alone(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    await provider_key(database, folk.home.id, "own", "openai")
    before = await traces(database)
    assert await made(database, catalog, folk, NOW) == {}
    assert await traces(database) - before == NONE
    await provider_key(database, folk.home.id, "g", "groq", shared=True)
    everywhere = {"ostiary/fast": ["groq"], "ostiary/smart": ["groq"], "ostiary/cheap": ["groq"]}
    assert await made(database, catalog, folk, NOW, first=True) == everywhere
    assert await traces(database) - before == type(ONE)(3, 3)
    assert await made(database, catalog, folk, NOW) == {}


async def test_where_there_is_one_organization_alone_its_keys_need_not_be_shared(
    database: Database, catalog: Catalog
) -> None:
    async with database.transaction() as tx:
        alone = await organizations.create(tx, roles.operator(), "Alone", NOW)
    await provider_key(database, alone.id, "g", "groq")

    async def make(at: int) -> list[str]:
        async with database.transaction() as tx:
            return [one.name for one in await aliases.make(tx, roles.operator(), catalog=catalog, at=at)]

    assert await make(NOW) == ["ostiary/fast", "ostiary/smart", "ostiary/cheap"]
    async with database.transaction() as tx:
        await organizations.create(tx, roles.operator(), "Another", NOW)
    await provider_key(database, alone.id, "o", "openai")
    assert await make(NOW + 1) == [], "from now on it is nobody else's business who has keys for what"


async def test_what_was_made_grows_unless_it_was_edited(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    await provider_key(database, folk.home.id, "g", "groq", shared=True)
    await made(database, catalog, folk, NOW, first=True)
    async with database.transaction() as tx:
        await aliases.change(
            tx, folk.operator, "ostiary/smart", {"retries": 2, "targets": [MINI]}, catalog=catalog, at=NOW + 1
        )
        await aliases.remove(tx, folk.operator, "ostiary/cheap", NOW + 1)
    await provider_key(database, folk.home.id, "m", "mistral", shared=True)
    assert await made(database, catalog, folk, NOW + 2, first=True) == {}
    assert await made(database, catalog, folk, NOW + 2) == {
        "ostiary/fast": ["groq", "mistral"],
        "ostiary/cheap": ["groq", "mistral"],
        "ostiary/embed": ["mistral"],
    }
    await provider_key(database, folk.home.id, "o", "openai", shared=True)
    again = await made(database, catalog, folk, NOW + 3)
    assert again["ostiary/fast"] == ["groq", "openai", "mistral"]
    assert set(again) == {"ostiary/fast", "ostiary/cheap"}  # `embed` stays with its model, `smart` with its editor
    await aliased(database, catalog, folk, NewEndpoint("ostiary/mine", (MINI,)))
    async with database.read() as tx:
        origins = {one.name: aliases.origin(one) for one in await aliases.list_(tx, folk.operator)}
    assert origins == dict.fromkeys(("ostiary/fast", "ostiary/cheap", "ostiary/embed"), "catalogue") | {
        "ostiary/smart": "edited",
        "ostiary/mine": "own",
    }


async def test_who_makes_aliases_and_who_edits_one_do_not_wait_for_each_other(
    database: Database, catalog: Catalog
) -> None:
    """Not for ever: on PostgreSQL one of them would fail."""
    folk = await settle(database)
    await provider_key(database, folk.home.id, "g", "groq", shared=True)
    await made(database, catalog, folk, NOW, first=True)
    for round_ in range(10):
        await provider_key(database, folk.home.id, f"m{round_}", ("mistral", "openai")[round_ % 2], shared=True)
        async with database.transaction() as tx:
            await aliases.remove(tx, folk.operator, "ostiary/smart", NOW + round_)
        making = asyncio.ensure_future(made(database, catalog, folk, NOW + round_))
        async with database.transaction() as tx:
            edit = {"retries": round_ % 3}
            await aliases.change(tx, folk.operator, "ostiary/fast", edit, catalog=catalog, at=NOW)
        assert "ostiary/smart" in await making


async def test_an_alias_that_somebody_made_by_hand_is_left_alone(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    await provider_key(database, folk.home.id, "g", "groq", shared=True)
    await aliased(database, catalog, folk, NewEndpoint("ostiary/fast", (MINI,)))
    assert "ostiary/fast" not in await made(database, catalog, folk, NOW)


def test_every_model_of_an_alias_is_one_that_is_known_and_can_be_called(catalog: Catalog) -> None:
    """What the catalogue forgets is left out when an alias is made; here it is noticed."""
    found = 0
    for name, models in MODELS.items():
        for one in models:
            provider, _, model = one.partition("/")
            row = catalog.find(provider)
            if row is None or not row.callable:
                continue  # a provider whose dialect is not spoken yet
            found += 1
            assert provider in catalog.served_by(model), one
            assert ("embeddings" if name == aliases.EMBED else "chat") in row.operations, one
    assert found >= 30


# ---- hints ------------------------------------------------------------------------------------------------------


async def told(database: Database, catalog: Catalog, one: Endpoint) -> str:
    async with database.read() as tx:
        return "\n".join(await endpoints.hints(tx, one, catalog))


async def test_what_may_not_be_meant_is_said(database: Database, catalog: Catalog) -> None:
    folk = await settle(database)
    await provider_key(database, folk.home.id, "main")
    plain = await created(database, catalog, folk, NewEndpoint("plain", (MINI,)))
    assert await told(database, catalog, plain) == ""
    await aliased(database, catalog, folk, NewEndpoint("quick", (MINI,)))
    for wish, said in (
        (NewEndpoint("gpt-5-mini", (MINI,)), "'openai/gpt-5-mini' is the model"),
        (NewEndpoint("quick", (MINI,)), "alias 'quick'"),
        (NewEndpoint("typo", (replace(MINI, model="gpt-5-mimi"),)), "gpt-5-mini"),
        (NewEndpoint("keyless", (LLAMA,)), "no key for groq"),
        (NewEndpoint("weighty", (replace(MINI, weight=3),)), "'split' only"),
        (NewEndpoint("alone", (MINI, SMALL), "split"), "one target"),
    ):
        assert said in await told(database, catalog, await created(database, catalog, folk, wish)), wish.name
    of_nobody = NewEndpoint("local", (EndpointTarget("openai-compatible", "whatever I run"),))
    assert "catalogue" not in await told(database, catalog, await created(database, catalog, folk, of_nobody))
    alias = await aliased(database, catalog, folk, NewEndpoint("fast", (MINI,)))
    assert "no key for openai in the pool" in await told(database, catalog, alias)
