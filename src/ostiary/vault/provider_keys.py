"""Provider keys: the credentials that go out; added, edited in place, tested and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import audit
from ostiary.names import checked_name
from ostiary.providers.catalog import Provider
from ostiary.providers.egress import Blocked, Egress, Target
from ostiary.providers.transport import Transport, TransportError, Waits
from ostiary.providers.verdict import said
from ostiary.secret import Secret
from ostiary.vault import store
from ostiary.vault.seal import Place, Seal, Undecryptable
from ostiary.vault.store import ProviderKey

__all__ = ["NewProviderKey", "ProviderKey", "ProviderKeyEdit", "TestResult"]

_LONGEST_SECRET: Final = 16_384
_LONGEST_FIELD: Final = 512
_HEALTHY: Final = "healthy"
_UNDECRYPTABLE: Final = "undecryptable"
_FACTS: Final = ("name", "provider", "base_url", "fields", "preview", "shared")
"""What the audit log may know of a provider key."""


@dataclass(frozen=True, slots=True)
class NewProviderKey:
    """What is wished for. Without a base URL, the catalogue's is meant."""

    name: str
    provider: Provider
    secret: Secret
    base_url: str | None = None
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    shared: bool = False


@dataclass(frozen=True, slots=True)
class ProviderKeyEdit:
    """What is to change: None leaves a thing as it is. `provider` is the catalogue's row of the key."""

    provider: Provider
    name: str | None = None
    secret: Secret | None = None
    base_url: str | None = None
    fields: Mapping[str, str] | None = None
    shared: bool | None = None


async def add(
    tx: Transaction, by: Actor, organization_id: str, wish: NewProviderKey, *, seal: Seal, egress: Egress, at: int
) -> ProviderKey:
    """Seal a credential for the origin it is entered for. Test it before: this does not."""
    by.require("provider_keys.add", organization_id)
    provider = wish.provider
    if not provider.callable:
        raise _refusal("provider", f"{provider.name} cannot be called yet: {provider.reason}")
    target = _checked_target(wish.base_url or provider.base_url, provider, egress)
    _require_own_door(by, provider, target.origin, shared=wish.shared, egress=egress)
    secret = _checked_secret(wish.secret, provider)
    key = ProviderKey(
        id=new_id("pkey", at),
        organization_id=organization_id,
        name=checked_name(wish.name),
        provider=provider.id,
        base_url=target.url,
        origin=target.origin,
        fields=_checked_fields(provider, wish.fields),
        sealed="",
        sealed_version=0,
        preview=_preview(secret),
        shared=wish.shared,
        status=_HEALTHY,
        created_at=at,
        updated_at=at,
        last_used_at=None,
    )
    key = await _sealed(tx, seal, key, secret, at)
    await store.add_provider_key(tx, key)
    await _tell(tx, by, "provider_keys.add", key, at, after=_facts(key))
    return key


async def list_(tx: Transaction, by: Actor, organization_id: str) -> list[ProviderKey]:
    """The organization's, oldest first; nothing is opened for it."""
    by.require("provider_keys.list", organization_id)
    return await store.list_provider_keys(tx, organization_id)


async def show(tx: Transaction, by: Actor, organization_id: str, id: str, *, seal: Seal) -> ProviderKey:
    """One key, by id or by name, never its secret; its status says `undecryptable` when that does not open."""
    by.require("provider_keys.show", organization_id)
    key = await store.get_provider_key(tx, organization_id, id)
    try:
        await open_secret(tx, seal, key)
    except Undecryptable:
        return replace(key, status=_UNDECRYPTABLE)
    return key


async def change(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    edit: ProviderKeyEdit,
    *,
    seal: Seal,
    egress: Egress,
    at: int,
) -> ProviderKey:
    """Edit in place: id, sharing and history stay. Another origin needs the secret again."""
    by.require("provider_keys.edit", organization_id)
    key = await store.get_provider_key(tx, organization_id, id, lock=True)
    if edit.provider.id != key.provider:
        raise _refusal("provider", "A provider key stays with its provider. Add another key instead.")
    edited = replace(key, **_checked_edit(edit, egress))
    _require_own_door(by, edit.provider, edited.origin, shared=edited.shared, egress=egress)
    if edit.secret is not None:
        secret = _checked_secret(edit.secret, edit.provider)
        edited = replace(edited, preview=_preview(secret), status=_HEALTHY)
        edited = await _sealed(tx, seal, edited, secret, at)
    elif edited.origin != key.origin:
        message = f"The secret was entered for {key.origin}. Enter it again to have it sent to {edited.origin}."
        raise _refusal("secret", message)
    if edited == key:
        return key
    edited = replace(edited, updated_at=at)
    columns = ("name", "base_url", "origin", "fields", "sealed", "sealed_version", "preview", "shared", "status")
    values = {name: getattr(edited, name) for name in columns if getattr(edited, name) != getattr(key, name)}
    await store.change_provider_key(tx, organization_id, key.id, **values, updated_at=at)
    before, after = _facts(key), _facts(edited)
    changed = [name for name in after if before[name] != after[name]]
    await _tell(
        tx,
        by,
        "provider_keys.edit",
        edited,
        at,
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed} | {"secret_entered": edit.secret is not None},
    )
    return edited


async def remove(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> None:
    """Forget a key and its sealed credential; events keep its name."""
    by.require("provider_keys.delete", organization_id)
    key = await store.get_provider_key(tx, organization_id, id, lock=True)
    await store.remove_provider_key(tx, organization_id, key.id)
    await _tell(tx, by, "provider_keys.delete", key, at, before=_facts(key))


async def open_secret(tx: Transaction, seal: Seal, key: ProviderKey) -> Secret:
    """The credential itself; raises Undecryptable when it does not open in its place."""
    return await seal.open(tx, _place(key), key.sealed)


# ---- the test of a connection -----------------------------------------------------------------------------------

Outcome = Literal["valid", "invalid_key", "no_model_access", "network", "unknown"]

_WAITS: Final = Waits(connect_s=10, first_byte_s=20, idle_s=10, total_s=30)
_LONGEST_ANSWER: Final = 4_194_304
"""The list of a large provider's models is over a megabyte."""
_FORBIDDEN: Final = 403
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True)
class TestResult:
    """What a test call said, in the provider's words without what identifies its owner."""

    outcome: Outcome
    message: str


async def open_for_test(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id: str,
    *,
    seal: Seal,
) -> tuple[ProviderKey, Secret]:
    """A stored key and its credential, for `test`."""
    by.require("provider_keys.test", organization_id)
    key = await store.get_provider_key(tx, organization_id, id)
    return key, await open_secret(tx, seal, key)


async def test(
    transport: Transport, provider: Provider, base_url: str, fields: Mapping[str, str], secret: Secret
) -> TestResult:
    """Make the provider's cheapest call with this credential, as a real call would go. Holds no transaction."""
    url = base_url.rstrip("/") + provider.test.path
    try:
        answer = await transport.send(provider.test.method, url, headers(provider, fields, secret), None, _WAITS)
        body = _read(await answer.read(_LONGEST_ANSWER))
    except TransportError as error:
        return TestResult("network", f"{provider.name} was not reached: {error.text}.")
    return _judged(provider, answer.status, said(body, (secret.reveal(),)) or "")


def headers(provider: Provider, fields: Mapping[str, str], secret: Secret) -> list[tuple[str, str]]:
    """What a call to the provider carries of this key: the credential and the fields that are headers."""
    sent = [(one.header, fields[one.name]) for one in provider.fields if one.header and fields.get(one.name)]
    if secret:
        sent.append((provider.auth_header, provider.auth_format.replace("{key}", secret.reveal())))
    return sent


def _judged(provider: Provider, status: int, message: str) -> TestResult:
    shown = f"{provider.name} answered {status}" + (f": {message}" if message else ".")
    if status in provider.test.bad_key or status == _UNAUTHORIZED:
        return TestResult("invalid_key", shown)
    if status == _FORBIDDEN:
        return TestResult("no_model_access", shown)
    if not 200 <= status < 300:  # noqa: PLR2004 - what HTTP calls success
        return TestResult("unknown", shown)
    if not provider.test.proves:
        return TestResult("unknown", f"{provider.name} answered, as it does to anyone: only a call proves the key.")
    return TestResult("valid", f"{provider.name} accepts the key.")


def _read(body: bytes) -> Mapping[str, object] | None:
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


# ---- what may be entered ----------------------------------------------------------------------------------------


def _checked_edit(edit: ProviderKeyEdit, egress: Egress) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if edit.name is not None:
        values["name"] = checked_name(edit.name)
    if edit.base_url is not None:
        target = _checked_target(edit.base_url, edit.provider, egress)
        values |= {"base_url": target.url, "origin": target.origin}
    if edit.fields is not None:
        values["fields"] = _checked_fields(edit.provider, edit.fields)
    if edit.shared is not None:
        values["shared"] = edit.shared
    return values


def _checked_target(base_url: str | None, provider: Provider, egress: Egress) -> Target:
    if not base_url:
        raise _refusal("base_url", f"{provider.name} has no address of its own: give one by --base-url.")
    if "?" in base_url:
        raise _refusal("base_url", "A base URL has no query: paths are put behind it.")
    try:
        return egress.check_url(base_url.strip().rstrip("/"))
    except Blocked as blocked:
        raise _refusal("base_url", f"This base URL cannot be used: {blocked.reason}") from None


def _require_own_door(by: Actor, provider: Provider, origin: str, *, shared: bool, egress: Egress) -> None:
    """A shared key gets other organizations' prompts, so only the operator may point one elsewhere."""
    if not shared or by.organization_id is None:
        return
    if provider.base_url is None or egress.check_url(provider.base_url).origin != origin:
        raise _refusal("shared", f"A key that is shared goes to {provider.name}'s own address. Keep this one private.")


def _checked_secret(secret: Secret, provider: Provider) -> Secret:
    """The secret without blanks around it. It goes into a header, so it is one word of plain characters."""
    text = secret.reveal().strip()
    if not text and not provider.key_optional:
        raise _refusal("secret", "The secret is empty.")
    if len(text) > _LONGEST_SECRET or not all("!" <= letter <= "~" for letter in text):
        raise _refusal("secret", "The secret has blanks, line ends or characters that no API key has. Copy it again.")
    return Secret(text)


def _checked_fields(provider: Provider, given: Mapping[str, str]) -> dict[str, str]:
    known = {one.name: one for one in provider.fields}
    for name, value in given.items():
        if name not in known:
            fields = ", ".join(known) or "none"
            raise _refusal("fields", f"{provider.name} has no field {name!r}; it has {fields}.")
        if len(value) > _LONGEST_FIELD or not all(" " <= letter <= "~" for letter in value):
            raise _refusal("fields", f"The field {name!r} must be plain text in one line.")
    values = {name: (given.get(name) or one.default or "").strip() for name, one in known.items()}
    for name, one in known.items():
        if one.required and not values[name]:
            raise _refusal("fields", f"{provider.name} needs the field {name!r} ({one.label}).")
    return {name: value for name, value in values.items() if value}


def _preview(secret: Secret) -> str:
    return secret.preview() if secret else ""


def _refusal(param: str, message: str) -> Refusal:
    return Refusal("invalid_field", message, param=param)


# ---- sealing, telling -------------------------------------------------------------------------------------------


def _place(key: ProviderKey) -> Place:
    return Place(key.organization_id, "provider_keys", key.id, "sealed", key.sealed_version, key.origin)


async def _sealed(tx: Transaction, seal: Seal, key: ProviderKey, secret: Secret, at: int) -> ProviderKey:
    placed = replace(key, sealed_version=await seal.newest_version(tx, key.organization_id, at))
    return replace(placed, sealed=await seal.seal(tx, _place(placed), secret))


def _facts(key: ProviderKey) -> dict[str, object]:
    return {name: getattr(key, name) for name in _FACTS}


async def _tell(
    tx: Transaction,
    by: Actor,
    deed: str,
    key: ProviderKey,
    at: int,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    await audit.write(
        tx,
        by,
        deed,
        "provider_key",
        key.id,
        key.name,
        organization_id=key.organization_id,
        before=before,
        after=after,
        at=at,
    )
    await changes.append(tx, "provider_key", key.organization_id, key.id, at)
