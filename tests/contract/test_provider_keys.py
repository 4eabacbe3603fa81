"""Provider keys: every deed, by everybody, on both databases; where a credential may go, and that none is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ostiary.actor import Actor
from ostiary.db.database import Database, Transaction
from ostiary.ledger.audit_store import list_audit
from ostiary.providers.catalog import Catalog, Field, load
from ostiary.providers.egress import Egress
from ostiary.secret import Secret
from ostiary.vault import provider_keys, store
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey, ProviderKeyEdit
from ostiary.vault.seal import MasterKeys, Seal, Undecryptable
from tests import people
from tests.people import INSIDE, NONE, NOW, ONE, OUTSIDE, People, refused, settle, spoil, traces
from tests.servers.canaries import Canaries

EGRESS = Egress(["http://127.0.0.1:9000"])
LOCAL = "http://127.0.0.1:9000/v1"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load()


@pytest.fixture
async def seal(database: Database) -> Seal:
    made = Seal(MasterKeys.parse(Secret("A" * 43 + "=")))
    await made.open_instance(database, NOW)
    return made


async def added(
    database: Database, seal: Seal, folk: People, wish: NewProviderKey, by: str = "alice", place: str | None = None
) -> ProviderKey:
    async with database.transaction() as tx:
        return await provider_keys.add(tx, folk[by], place or folk.home.id, wish, seal=seal, egress=EGRESS, at=NOW)


async def edited(
    database: Database, seal: Seal, folk: People, id_or_name: str, edit: ProviderKeyEdit, by: str = "alice"
) -> ProviderKey:
    async with database.transaction() as tx:
        return await provider_keys.change(
            tx, folk[by], folk.home.id, id_or_name, edit, seal=seal, egress=EGRESS, at=NOW + 1
        )


async def shown(database: Database, seal: Seal, folk: People, id_or_name: str) -> ProviderKey:
    async with database.read() as tx:
        return await provider_keys.show(tx, folk.operator, folk.home.id, id_or_name, seal=seal)


async def secret_of(database: Database, seal: Seal, key: ProviderKey) -> str:
    async with database.read() as tx:
        kept = await store.find_provider_key_by_id(tx, key.id)
        assert kept is not None
        return (await provider_keys.open_secret(tx, seal, kept)).reveal()


# ---- by everybody -----------------------------------------------------------------------------------------------


async def test_each_deed_by_everybody(database: Database, seal: Seal, catalog: Catalog, canaries: Canaries) -> None:
    folk = await settle(database)
    row = catalog.get("openai")
    wish = NewProviderKey("main", row, Secret(canaries.plant()))
    key = await added(database, seal, folk, wish)

    async def add(tx: Transaction, by: Actor, organization_id: str) -> object:
        other = replace(wish, name=f"by {by.name}")
        return await provider_keys.add(tx, by, organization_id, other, seal=seal, egress=EGRESS, at=NOW)

    async def edit(tx: Transaction, by: Actor, organization_id: str) -> object:
        change = ProviderKeyEdit(row, {"name": f"of {by.name}"})
        return await provider_keys.change(tx, by, organization_id, key.id, change, seal=seal, egress=EGRESS, at=NOW)

    async def show(tx: Transaction, by: Actor, organization_id: str) -> object:
        return await provider_keys.show(tx, by, organization_id, key.id, seal=seal)

    async def reset(tx: Transaction, by: Actor, organization_id: str) -> object:
        return await provider_keys.reset(tx, by, organization_id, key.id, NOW)

    async def test(tx: Transaction, by: Actor, organization_id: str) -> object:
        return await provider_keys.open_for_test(tx, by, organization_id, key.id, seal=seal)

    async def remove(tx: Transaction, by: Actor, organization_id: str) -> None:
        fresh = replace(wish, name=f"to be removed by {by.name}")
        made = await provider_keys.add(tx, folk.operator, folk.home.id, fresh, seal=seal, egress=EGRESS, at=NOW)
        await provider_keys.remove(tx, by, organization_id, made.id, NOW)

    deeds: dict[str, Callable[[Transaction, Actor, str], Awaitable[object]]] = {
        "add": add,
        "list": provider_keys.list_,
        "show": show,
        "edit": edit,
        "test": test,
        "reset": reset,
        "delete": remove,
    }
    leaves = {"add": 1, "edit": 1, "reset": 1, "delete": 2}
    for name in (*INSIDE, *OUTSIDE, "operator"):
        for verb, deed in deeds.items():
            code = (
                "not_found" if name in OUTSIDE else "insufficient_scope" if name == "bob" and verb != "list" else None
            )
            before = await traces(database)
            if code is None:
                async with database.transaction() as tx:
                    await deed(tx, folk[name], folk.home.id)
                expected = leaves.get(verb, 0)
            else:
                with refused(code):
                    async with database.transaction() as tx:
                        await deed(tx, folk[name], folk.home.id)
                expected = 0
            assert (await traces(database) - before).audit == expected, (name, verb)


async def test_elsewhere_what_exists_and_what_does_not_look_alike(
    database: Database, seal: Seal, catalog: Catalog
) -> None:
    folk = await settle(database)
    row = catalog.get("openai")
    key = await added(database, seal, folk, NewProviderKey("main", row, Secret("sk-test-0123456789")))
    for name in OUTSIDE:
        bodies = []
        for id_or_name in (key.id, "main", "none"):
            async with database.transaction() as tx:
                with refused("not_found") as caught:
                    await provider_keys.show(tx, folk[name], folk.home.id, id_or_name, seal=seal)
                bodies.append(caught.value.body())
                with refused("not_found") as caught:
                    await provider_keys.remove(tx, folk[name], folk.home.id, id_or_name, NOW)
                bodies.append(caught.value.body())
        assert all(body == bodies[0] for body in bodies)
    async with database.transaction() as tx:
        with refused("not_found"):
            await provider_keys.remove(tx, folk["dora"], folk.elsewhere.id, key.id, NOW)


# ---- what is kept -----------------------------------------------------------------------------------------------


async def test_a_credential_is_sealed_and_only_its_ends_are_shown(
    database: Database, seal: Seal, catalog: Catalog, canaries: Canaries
) -> None:
    folk = await settle(database)
    secret = canaries.plant("sk-")
    wish = NewProviderKey(" main ", catalog.get("openai"), Secret(f" {secret}\n"), fields={"organization": "o1"})
    key = await added(database, seal, folk, wish)
    assert (key.name, key.provider, key.base_url, key.origin, key.fields) == (
        "main",
        "openai",
        "https://api.openai.com/v1",
        "https://api.openai.com",
        {"organization": "o1"},
    )
    assert (key.preview, key.shared, key.status) == (f"{secret[:4]}…{secret[-3:]}", False, "healthy")
    assert await secret_of(database, seal, key) == secret
    assert await shown(database, seal, folk, "main") == key
    assert secret not in repr(key)
    assert secret not in await people.everything(database)


async def test_the_audit_knows_everything_but_the_secret(
    database: Database, seal: Seal, catalog: Catalog, canaries: Canaries
) -> None:
    folk = await settle(database)
    secret = canaries.plant("sk-")
    row = catalog.get("openai")
    key = await added(database, seal, folk, NewProviderKey("main", row, Secret(secret)), by="erin")
    await edited(
        database, seal, folk, "main", ProviderKeyEdit(row, {"name": "other", "secret": Secret(canaries.plant("sk-"))})
    )
    async with database.read() as tx:
        change, creation, *_ = await list_audit(tx, folk.home.id)
    assert (creation.deed, creation.actor_name, creation.target_id) == ("provider_keys.add", "erin@example.org", key.id)
    assert creation.after is not None
    assert creation.after["preview"] == key.preview
    assert change.before is not None
    assert change.after is not None
    assert (change.before["name"], change.after["name"], change.after["secret_entered"]) == ("main", "other", True)
    assert key.sealed not in repr([change, creation])


async def test_a_short_secret_shows_nothing(database: Database, seal: Seal, catalog: Catalog) -> None:
    folk = await settle(database)
    row = catalog.get("openai-compatible")
    short = await added(database, seal, folk, NewProviderKey("short", row, Secret("abcdefghijk"), LOCAL))
    none = await added(database, seal, folk, NewProviderKey("none", row, Secret(""), LOCAL))
    assert (short.preview, none.preview) == ("…", "")
    assert await secret_of(database, seal, none) == ""


async def test_a_name_is_taken_once_in_an_organization(database: Database, seal: Seal, catalog: Catalog) -> None:
    folk = await settle(database)
    row = catalog.get("openai")
    wish = NewProviderKey("main", row, Secret("sk-test-0123456789"))
    await added(database, seal, folk, wish)
    await added(database, seal, folk, replace(wish, name="other"))
    before = await traces(database)
    with refused("conflict", "name"):
        await added(database, seal, folk, wish)
    with refused("conflict", "name"):
        await edited(database, seal, folk, "other", ProviderKeyEdit(row, {"name": "main"}))
    for name in ("", "a\0b"):
        with refused("invalid_field", "name"):
            await added(database, seal, folk, replace(wish, name=name))
        with refused("not_found"):
            await shown(database, seal, folk, name)
    assert await traces(database) == before
    await added(database, seal, folk, wish, by="dora", place=folk.elsewhere.id)
    done = await asyncio.gather(
        *(added(database, seal, folk, replace(wish, name="race")) for _ in range(3)), return_exceptions=True
    )
    assert sorted(getattr(one, "code", "added") for one in done) == ["added", "conflict", "conflict"]


async def test_what_cannot_go_into_a_header_is_refused(database: Database, seal: Seal, catalog: Catalog) -> None:
    """A line end in a credential would let it write headers of its own."""
    folk = await settle(database)
    row = replace(catalog.get("openai"), fields=(Field("region", "Region", "x-region", required=True),))
    wish = NewProviderKey("main", row, Secret("sk-test-0123456789"), fields={"region": "eu"})
    for secret in ("", "  ", "a b", "sk-1\r\nx-evil: 1", "sk-\0", "schlüssel", "x" * 16_385):
        with refused("invalid_field", "secret") as caught:
            await added(database, seal, folk, replace(wish, secret=Secret(secret)))
        assert not secret.strip() or secret not in caught.value.message
    for fields in ({}, {"region": " "}, {"region": "eu", "other": "x"}, {"region": "eu\r\nx: 1"}, {"region": "é"},
                   {"region": "x" * 513}):  # fmt: skip
        with refused("invalid_field", "fields"):
            await added(database, seal, folk, replace(wish, fields=fields))
    assert (await added(database, seal, folk, wish)).fields == {"region": "eu"}


async def test_a_provider_that_cannot_be_called_takes_no_key(database: Database, seal: Seal, catalog: Catalog) -> None:
    folk = await settle(database)
    row = replace(catalog.get("openai"), callable=False, reason="not built yet")
    with refused("invalid_field", "provider") as caught:
        await added(database, seal, folk, NewProviderKey("main", row, Secret("sk-test-0123456789")))
    assert "not built yet" in caught.value.message


async def test_a_deleted_key_is_gone_and_the_others_stay(database: Database, seal: Seal, catalog: Catalog) -> None:
    folk = await settle(database)
    wish = NewProviderKey("main", catalog.get("openai"), Secret("sk-test-0123456789"))
    key = await added(database, seal, folk, wish)
    other = await added(database, seal, folk, replace(wish, name="other", shared=True))
    before = await traces(database)
    async with database.transaction() as tx:
        await provider_keys.remove(tx, folk["alice"], folk.home.id, "main", NOW)
    assert await traces(database) - before == ONE
    async with database.read() as tx:
        assert await store.find_provider_key_by_id(tx, key.id) is None
        assert await store.list_all_provider_keys(tx) == [other]
        assert await provider_keys.list_(tx, folk["bob"], folk.home.id) == [other]
        assert await store.list_provider_keys(tx, folk.elsewhere.id) == []


# ---- where it may go --------------------------------------------------------------------------------------------


async def test_a_base_url_is_public_and_https_or_listed(database: Database, seal: Seal, catalog: Catalog) -> None:
    folk = await settle(database)
    wish = NewProviderKey("main", catalog.get("openai-compatible"), Secret("sk-test-0123456789"))
    for url in (
        None,
        "",
        "api.example.org/v1",
        "http://api.example.org/v1",
        "https://127.0.0.1/v1",
        "https://169.254.169.254/latest",
        "http://127.0.0.1:9001/v1",
        "https://user:pass@api.example.org/v1",
        "https://api.example.org/v1?key=x",
        "https://api.example.org/v1#x",
        "https://2130706433/v1",
        "https://[::ffff:10.0.0.1]/v1",
        "file:///etc/passwd",
    ):
        with refused("invalid_field", "base_url"):
            await added(database, seal, folk, replace(wish, base_url=url))
    key = await added(database, seal, folk, replace(wish, base_url="https://API.Example.org:443/v1/"))
    assert (key.base_url, key.origin) == ("https://api.example.org/v1", "https://api.example.org")
    local = await added(database, seal, folk, replace(wish, name="local", base_url=LOCAL))
    assert (local.base_url, local.origin) == (LOCAL, "http://127.0.0.1:9000")


async def test_another_origin_needs_the_secret_again(
    database: Database, seal: Seal, catalog: Catalog, canaries: Canaries
) -> None:
    folk = await settle(database)
    row = catalog.get("openai-compatible")
    first, second = canaries.plant(), canaries.plant()
    key = await added(database, seal, folk, NewProviderKey("main", row, Secret(first), "https://api.example.org/v1"))
    elsewhere = {"base_url": "https://api.evil.example/v1"}
    for wished in (elsewhere, {"base_url": "https://api.example.org:8443/v1"}):
        with refused("invalid_field", "secret") as caught:
            await edited(database, seal, folk, "main", ProviderKeyEdit(row, wished))
        assert "https://api.example.org" in caught.value.message
    assert await shown(database, seal, folk, "main") == key

    same = await edited(database, seal, folk, "main", ProviderKeyEdit(row, {"base_url": "https://api.example.org/v2"}))
    assert (same.base_url, same.sealed) == ("https://api.example.org/v2", key.sealed)
    assert await secret_of(database, seal, same) == first

    moved = await edited(database, seal, folk, "main", ProviderKeyEdit(row, elsewhere | {"secret": Secret(second)}))
    assert (moved.id, moved.origin) == (key.id, "https://api.evil.example")
    assert await secret_of(database, seal, moved) == second


async def test_an_origin_changed_in_sql_does_not_open(database: Database, seal: Seal, catalog: Catalog) -> None:
    folk = await settle(database)
    row = catalog.get("openai-compatible")
    key = await added(
        database, seal, folk, NewProviderKey("main", row, Secret("sk-test-0123456789"), "https://api.example.org/v1")
    )
    await spoil(
        database,
        "UPDATE provider_keys SET origin = 'https://api.evil.example', base_url = 'https://api.evil.example/v1'",
    )
    with pytest.raises(Undecryptable):
        await secret_of(database, seal, key)


# ---- edit in place ----------------------------------------------------------------------------------------------


async def test_an_edit_changes_what_is_named_and_keeps_the_rest(
    database: Database, seal: Seal, catalog: Catalog
) -> None:
    folk = await settle(database)
    row = catalog.get("openai")
    wish = NewProviderKey("main", row, Secret("sk-test-0123456789"), fields={"organization": "o1"})
    key = await added(database, seal, folk, wish)
    before = await traces(database)
    assert await edited(database, seal, folk, key.id, ProviderKeyEdit(row, {})) == key
    assert await edited(database, seal, folk, key.id, ProviderKeyEdit(row, {"name": "main", "shared": False})) == key
    assert await traces(database) - before == NONE
    edit = ProviderKeyEdit(row, {"name": "other", "fields": {"project": "p1"}, "shared": True})
    changed = await edited(database, seal, folk, key.id, edit)
    assert await traces(database) - before == ONE
    assert changed == replace(key, name="other", fields={"project": "p1"}, shared=True, updated_at=NOW + 1)
    assert await shown(database, seal, folk, "other") == changed
    assert await secret_of(database, seal, changed) == "sk-test-0123456789"
    with refused("invalid_field", "provider"):
        await edited(database, seal, folk, "other", ProviderKeyEdit(catalog.get("groq"), {"name": "x"}))


async def test_a_new_secret_takes_the_place_of_the_old(
    database: Database, seal: Seal, catalog: Catalog, canaries: Canaries
) -> None:
    folk = await settle(database)
    row = catalog.get("openai")
    first, second = canaries.plant("sk-"), canaries.plant("sk-")
    key = await added(database, seal, folk, NewProviderKey("main", row, Secret(first)))
    changed = await edited(database, seal, folk, "main", ProviderKeyEdit(row, {"secret": Secret(second)}))
    assert (changed.id, changed.created_at, changed.preview) == (key.id, key.created_at, f"{second[:4]}…{second[-3:]}")
    assert changed.sealed != key.sealed
    assert await secret_of(database, seal, changed) == second


# ---- a ciphertext in a place that is not its own ----------------------------------------------------------------


async def test_swapped_rows_do_not_open_and_the_others_do(
    database: Database, seal: Seal, catalog: Catalog, canaries: Canaries
) -> None:
    """Somebody with SQL puts Dora's credential into Alice's row, to have it sent where Alice's calls go."""
    folk = await settle(database)
    wish = NewProviderKey("one", catalog.get("openai"), Secret(canaries.plant()))
    one = await added(database, seal, folk, wish)
    two = await added(database, seal, folk, replace(wish, name="two", secret=Secret(canaries.plant())))
    three = await added(database, seal, folk, replace(wish, name="three"))
    doras = await added(database, seal, folk, wish, by="dora", place=folk.elsewhere.id)
    await spoil(database, "UPDATE provider_keys SET sealed = :s WHERE id = :id", s=two.sealed, id=one.id)
    await spoil(database, "UPDATE provider_keys SET sealed = :s WHERE id = :id", s=doras.sealed, id=two.id)
    for key in (one, two):
        assert (await shown(database, seal, folk, key.id)).status == "undecryptable"
        async with database.read() as tx:
            with pytest.raises(Undecryptable):
                await provider_keys.open_for_test(tx, folk["alice"], folk.home.id, key.id, seal=seal)
    assert (await shown(database, seal, folk, three.id)).status == "healthy"
    assert await secret_of(database, seal, doras) == wish.secret.reveal()
    # Entered again, it works.
    row = catalog.get("openai")
    mended = await edited(database, seal, folk, "one", ProviderKeyEdit(row, {"secret": Secret("sk-test-0123456789")}))
    assert (await shown(database, seal, folk, mended.id)).status == "healthy"


async def test_a_row_moved_to_another_organization_does_not_open(
    database: Database, seal: Seal, catalog: Catalog
) -> None:
    folk = await settle(database)
    wish = NewProviderKey("one", catalog.get("openai"), Secret("sk-test-0123456789"))
    key = await added(database, seal, folk, wish)
    await added(database, seal, folk, replace(wish, name="doras"), by="dora", place=folk.elsewhere.id)
    for column, value in (("organization_id", folk.elsewhere.id), ("sealed_version", 2)):
        was = getattr(key, column)
        await spoil(database, f"UPDATE provider_keys SET {column} = :new WHERE id = :id", new=value, id=key.id)  # noqa: S608 - ours
        with pytest.raises(Undecryptable):
            await secret_of(database, seal, key)
        await spoil(database, f"UPDATE provider_keys SET {column} = :old WHERE id = :id", old=was, id=key.id)  # noqa: S608 - ours
    assert await secret_of(database, seal, key) == "sk-test-0123456789"


async def test_an_undecryptable_key_can_be_renamed_and_deleted(
    database: Database, seal: Seal, catalog: Catalog
) -> None:
    folk = await settle(database)
    row = catalog.get("openai")
    key = await added(database, seal, folk, NewProviderKey("main", row, Secret("sk-test-0123456789")))
    await spoil(database, "UPDATE provider_keys SET sealed = 'gone'")
    await edited(database, seal, folk, "main", ProviderKeyEdit(row, {"name": "broken"}))
    async with database.transaction() as tx:
        assert [one.name for one in await provider_keys.list_(tx, folk["bob"], folk.home.id)] == ["broken"]
        await provider_keys.remove(tx, folk["alice"], folk.home.id, key.id, NOW)
    with refused("not_found"):
        await shown(database, seal, folk, key.id)
