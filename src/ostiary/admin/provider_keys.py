"""Provider keys at the admin API: found, added, edited in place, tested, reset, deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Query, Response
from pydantic import Field

from ostiary.admin import pages
from ostiary.admin.pages import Page, Place
from ostiary.admin.provider_key_shapes import (
    DetailedKey,
    KeyPatch,
    Keys,
    NewKey,
    SavedKey,
    ShownKey,
    ShownTest,
    shown,
    shown_left,
    shown_test,
    shown_uses,
)
from ostiary.admin.shapes import Asking, Id, Sought
from ostiary.admin.visit import Visit
from ostiary.db.database import Transaction
from ostiary.orgs import roles
from ostiary.providers.catalog import Provider
from ostiary.secret import Secret
from ostiary.vault import aliases, entry, key_uses, provider_keys
from ostiary.vault.key_uses import Standing
from ostiary.vault.provider_keys import ProviderKey, ProviderKeyEdit
from ostiary.vault.store import get_provider_key
from ostiary.vault.trial import TestResult

T = TypeVar("T")

_ANYWAY = 'To save it anyway, send "test": false.'


class Filter(Page):
    """Which keys, and in which order."""

    search: Annotated[
        str | None, Field(max_length=200, description="A part of the name, of the preview or of the account.")
    ] = None
    provider: Annotated[str | None, Field(max_length=64)] = None
    status: Annotated[str | None, Field(max_length=32, description="`healthy`, `cooling`, `disabled` …")] = None
    shared: bool | None = None
    tag: Annotated[str | None, Field(max_length=40)] = None
    sort: Literal["created_at", "name", "provider", "status", "priority", "last_used_at"] = "created_at"
    direction: Literal["ascending", "descending"] = "ascending"

    def fits(self, one: Standing) -> bool:
        """Whether a key is among those that are wanted."""
        key, sought = one.key, (self.search or "").strip().casefold()
        return (
            any(sought in text.casefold() for text in (key.name, key.preview, key.account or ""))
            and self.provider in (None, key.provider)
            and self.status in (None, one.status)
            and self.shared in (None, key.shared)
            and (self.tag is None or self.tag in key.tags)
        )


class Forced(Sought):
    """Whether a key is deleted although something is served by it."""

    force: bool = False


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Keys:
    """Provider keys of the organization, and how they are; nothing is opened for it."""
    tx = await asking.begin()
    keys = await provider_keys.list_(tx, asking.by, asking.organization_id)
    fitting = [one for one in await key_uses.stand(tx, keys, asking.at) if asked.fits(one)]

    def place(one: Standing) -> Place:
        value = one.status if asked.sort == "status" else getattr(one.key, asked.sort)
        return (value or 0 if asked.sort == "last_used_at" else value, one.key.id)

    order = f"{asked.sort} {asked.direction}"
    page, cursor = pages.turn(fitting, asked, order, place, descending=asked.direction == "descending")
    return Keys(data=[ShownKey(**shown(one, asking.at)) for one in page], next_cursor=cursor)


async def create(asking: Asking, asked: NewKey) -> SavedKey:
    """Seal a credential in the vault, after asking the provider about it. It is in no answer, also not in this one."""
    wish = asked.wish(asking.office.catalog.get(asked.provider))

    async def save(visit: Visit, tx: Transaction) -> ProviderKey:
        office = visit.office
        return await provider_keys.add(
            tx, visit.by, visit.organization_id, wish, seal=office.seal, egress=office.egress, at=visit.at
        )

    key = await _rehearse(asking, save)
    await entry.require_way_out(asking.office.egress, wish.provider, key)
    result = await _test(asking, wish.provider, key, wish.secret) if asked.test else None
    tx = await asking.begin()
    key = await save(asking, tx)
    await _make_first_aliases(tx, asking, key)
    return await _saved(tx, asking, key, result)


async def show(asking: Asking, id: Id) -> DetailedKey:
    """One provider key, by id or by name, with what uses it; its status says when its secret does not open."""
    tx = await asking.begin()
    key = await provider_keys.show(tx, asking.by, asking.organization_id, id, seal=asking.office.seal)
    return DetailedKey(**await _detailed(tx, asking, key))


async def change(asking: Asking, id: Id, asked: KeyPatch) -> SavedKey:
    """Edit what is named (RFC 7396). Calls under way end with what they began with, the next have the new."""

    async def save(visit: Visit, tx: Transaction) -> tuple[ProviderKey, Provider]:
        office = visit.office
        key = await get_provider_key(tx, visit.organization_id, id, lock=True)
        edit = ProviderKeyEdit(office.catalog.get(key.provider), asked.wished(key))
        edited = await provider_keys.change(
            tx, visit.by, visit.organization_id, key.id, edit, seal=office.seal, egress=office.egress, at=visit.at
        )
        return edited, edit.provider

    async def rehearsed(visit: Visit, tx: Transaction) -> tuple[ProviderKey, Provider, Secret]:
        if "secret" in asked.model_fields_set or not asked.test:
            return *(await save(visit, tx)), asked.secret or Secret("")
        key = await get_provider_key(tx, visit.organization_id, id)
        secret = await provider_keys.open_secret(tx, visit.office.seal, key)
        return *(await save(visit, tx)), secret

    result = None
    if asked.is_of_the_call:
        key, row, secret = await _rehearse(asking, rehearsed)
        await entry.require_way_out(asking.office.egress, row, key)
        result = await _test(asking, row, key, secret) if asked.test else None
    tx = await asking.begin()
    edited, _ = await save(asking, tx)
    await _make_first_aliases(tx, asking, edited)
    return await _saved(tx, asking, edited, result)


async def _make_first_aliases(tx: Transaction, visit: Visit, key: ProviderKey) -> None:
    """The first keys of a pool make the first aliases, whoever shares them."""
    if key.shared:
        await aliases.make_first(tx, roles.system("api"), catalog=visit.office.catalog, at=visit.at)


async def delete(asking: Asking, id: Id, asked: Annotated[Forced, Query()]) -> Response:
    """Forget a key and its credential; refused while endpoints need it, unless forced. This cannot be undone."""
    tx = await asking.begin()
    await provider_keys.remove(tx, asking.by, asking.organization_id, id, asking.at, force=asked.force)
    return Response(status_code=204)


async def test(asking: Asking, id: Id) -> ShownTest:
    """Make the provider's cheapest call with the stored key, and say what came of it."""

    async def opened(visit: Visit, tx: Transaction) -> tuple[ProviderKey, Secret]:
        return await provider_keys.open_for_test(tx, visit.by, visit.organization_id, id, seal=visit.office.seal)

    key, secret = await _rehearse(asking, opened)
    result = await entry.probe_once(asking.office.egress, asking.office.catalog.get(key.provider), key, secret)
    await asking.begin()
    return shown_test(result)


async def reset(asking: Asking, id: Id) -> DetailedKey:
    """Forget everything that is held against a key: the next call may use it."""
    tx = await asking.begin()
    key = await provider_keys.reset(tx, asking.by, asking.organization_id, id, asking.at)
    return DetailedKey(**await _detailed(tx, asking, key))


# ---- what they have in common -----------------------------------------------------------------------------------


async def _rehearse(asking: Visit, deed: Callable[[Visit, Transaction], Awaitable[T]]) -> T:
    """What a deed would come to, in a visit of its own that leaves nothing behind.

    So what cannot be saved is refused, and what was saved before is answered again, before a credential goes anywhere;
    and the transaction of this request is not open while a provider is waited for.
    """
    ahead = replace(asking, _tx=None, _stack=AsyncExitStack())
    kept: list[T] = []
    with suppress(entry.RehearsedError):
        async with ahead:
            kept.append(await deed(ahead, await ahead.begin()))
            raise entry.RehearsedError
    return kept[0]


async def _test(asking: Visit, row: Provider, key: ProviderKey, secret: Secret) -> TestResult:
    """The outcome of a test that lets the key be saved, or a refusal."""
    result = await entry.probe_once(asking.office.egress, row, key, secret)
    entry.require_passed(row, result, _ANYWAY)
    return result


async def _detailed(tx: Transaction, asking: Visit, key: ProviderKey) -> dict[str, Any]:
    (standing,) = await key_uses.stand(tx, [key], asking.at)
    uses = await key_uses.find_uses(tx, asking.by, key)
    left = await key_uses.list_left(tx, key, asking.at)
    return {**shown(standing, asking.at), **shown_left(left), **shown_uses(uses)}


async def _saved(tx: Transaction, asking: Visit, key: ProviderKey, result: TestResult | None) -> SavedKey:
    return SavedKey(**await _detailed(tx, asking, key), test=shown_test(result) if result else None)
