"""Agent keys, their secrets, and client credentials in SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, Final

import msgspec
from sqlalchemy import JSON, ColumnElement, Select, Text, and_, cast, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ostiary.agents.policy import Choice, Mode
from ostiary.agents.records import AgentKey, ClientCredential, KeySecret, Owner, Rules
from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.limits.store import read_budget
from ostiary.names import sought_name

__all__ = ["AgentKey", "ClientCredential", "KeySecret", "Owner", "Rules"]

SCOPE: Final = "agent_key"
"""The scope of an agent key's budget and accounts."""
UNKNOWN: Final = "There is no such agent key. 'ostiary keys list' shows all."

# ---- agent keys -------------------------------------------------------------------------------------------------

_CHOICES: Final = ("models", "providers", "addresses")
_BUDGET: Final = ("kind", "cap_nano", "soft_nano", "thresholds")
_NAMES: Final = (*schema.agent_keys.c.keys(), *_BUDGET)
_ELSEWHERE: Final = ("budget", "previews", "parent")


async def find_agent_key(
    tx: Transaction, organization_id: str, id_or_name: str, *, lock: bool = False
) -> AgentKey | None:
    """One of the organization's, by id or by name; `lock` keeps others from changing it meanwhile."""
    sought = sought_name(id_or_name)
    if sought is None:
        return None
    k = schema.agent_keys.c
    found = await _list(
        tx, and_(k.organization_id == organization_id, or_(k.id == sought, k.name == sought)), lock=lock
    )
    return min(found, key=lambda key: key.id != sought, default=None)


async def get_agent_key(tx: Transaction, organization_id: str, id_or_name: str, *, lock: bool = False) -> AgentKey:
    """As `find_agent_key`; refuses with `not_found`."""
    key = await find_agent_key(tx, organization_id, id_or_name, lock=lock)
    if key is None:
        raise Refusal("not_found", UNKNOWN)
    return key


async def find_agent_key_by_id(tx: Transaction, id: str) -> AgentKey | None:
    """Anybody's, for a gateway that heard of a change."""
    return next(iter(await _list(tx, schema.agent_keys.c.id == id)), None)


async def list_agent_keys(tx: Transaction, organization_id: str) -> list[AgentKey]:
    """The organization's, oldest first."""
    return await _list(tx, schema.agent_keys.c.organization_id == organization_id)


async def list_children(tx: Transaction, parent_id: str, *, lock: bool = False) -> list[AgentKey]:
    """The ephemeral keys minted from a key, oldest first, dead ones too."""
    return await _list(tx, schema.agent_keys.c.parent_id == parent_id, lock=lock)


async def list_living_children(tx: Transaction, parent_id: str, at: int) -> list[str]:
    """The ids of a key's children that would be let in if it is."""
    k = schema.agent_keys.c
    living = select(k.id).where(k.parent_id == parent_id, k.status == "active", k.expires_at > at).order_by(k.id)
    return list((await tx.execute(living)).scalars())


async def list_keys_of(tx: Transaction, organization_id: str, owner_id: str) -> list[AgentKey]:
    """One member's, to be changed: nobody else changes them meanwhile."""
    k = schema.agent_keys.c
    return await _list(tx, and_(k.organization_id == organization_id, k.owner_id == owner_id), lock=True)


async def list_parents_of(tx: Transaction, organization_id: str, owner_id: str) -> list[str]:
    """The ids of one member's, without children: these belong to whom their parent does."""
    k = schema.agent_keys.c
    query = select(k.id).where(k.organization_id == organization_id, k.owner_id == owner_id, k.parent_id.is_(None))
    return list((await tx.execute(query.order_by(k.id))).scalars())


async def list_expired_ephemeral_keys(tx: Transaction, before: int, limit: int) -> list[AgentKey]:
    """Ephemeral keys of everybody that expired before a time, the oldest first."""
    k = schema.agent_keys.c
    expired = select(k.id).where(k.is_ephemeral, k.expires_at < before).order_by(k.expires_at, k.id).limit(limit)
    ids = (await tx.execute(expired)).scalars().all()
    return await _list(tx, k.id.in_(ids), lock=True)


async def list_agent_keys_by_id(tx: Transaction, ids: Collection[str]) -> list[AgentKey]:
    """Anybody's, those that are there, for a page that has found its rows."""
    return await _list(tx, schema.agent_keys.c.id.in_(ids)) if ids else []


async def list_all_agent_keys(tx: Transaction) -> list[AgentKey]:
    """Everybody's, for a gateway that starts."""
    return await _list(tx, None)


async def add_agent_key(tx: Transaction, key: AgentKey) -> None:
    """Keep a new key, without its budget and secrets; refuses with `conflict` when its name is taken."""
    values = {field.name: getattr(key, field.name) for field in fields(key) if field.name not in _ELSEWHERE}
    try:
        await tx.execute(insert(schema.agent_keys).values(**_columns(values)))
    except IntegrityError:
        raise _taken("agent key", key.name) from None


async def change_agent_key(tx: Transaction, organization_id: str, id: str, values: Mapping[str, object]) -> None:
    """Write the given fields of a key; refuses with `conflict` when the new name is taken."""
    k = schema.agent_keys.c
    this = (k.organization_id == organization_id, k.id == id)
    try:
        await tx.execute(update(schema.agent_keys).where(*this).values(**_columns(values)))
    except IntegrityError:
        raise _taken("agent key", str(values.get("name"))) from None


async def mark_agent_keys_used(tx: Transaction, used_at: Mapping[str, int]) -> None:
    """When each was last used; never earlier than what another gateway has written."""
    k = schema.agent_keys.c
    for id, at in sorted(used_at.items()):  # one order for all, so that two gateways never wait for each other
        is_news = or_(k.last_used_at.is_(None), k.last_used_at < at)
        await tx.execute(update(schema.agent_keys).where(k.id == id, is_news).values(last_used_at=at))


async def mark_children_revoked(tx: Transaction, parent_id: str, at: int) -> None:
    """No child of the key is let in again."""
    k = schema.agent_keys.c
    await _lock(tx, k.parent_id == parent_id)
    children = update(schema.agent_keys).where(k.parent_id == parent_id, k.status != "revoked")
    await tx.execute(children.values(status="revoked", updated_at=at))


async def change_children_owner(tx: Transaction, parent_id: str, owner_id: str) -> None:
    """Children belong to whom their parent belongs to."""
    k = schema.agent_keys.c
    await _lock(tx, k.parent_id == parent_id)
    await tx.execute(update(schema.agent_keys).where(k.parent_id == parent_id).values(owner_id=owner_id))


async def remove_agent_key(tx: Transaction, organization_id: str, id: str) -> None:
    """Forget a key and its secrets; events keep its name."""
    k = schema.agent_keys.c
    await remove_secrets(tx, id)
    await tx.execute(delete(schema.agent_keys).where(k.organization_id == organization_id, k.id == id))


async def _list(tx: Transaction, where: ColumnElement[bool] | None, *, lock: bool = False) -> list[AgentKey]:
    k, s = schema.agent_keys.c, schema.agent_key_secrets.c
    keys = select_agent_keys()
    secrets = select(s.agent_key_id, s.preview).join(schema.agent_keys, k.id == s.agent_key_id)
    locked = None
    if where is not None:
        keys, secrets = keys.where(where), secrets.where(where)
        # Locked first and read then: whoever had to wait would read the budget of before the other one changed it.
        locked = await _lock(tx, where) if lock else None
    rows = [row for row in await tx.execute(keys.order_by(k.created_at, k.id)) if locked is None or row.id in locked]
    previews: defaultdict[str, list[str]] = defaultdict(list)
    for agent_key_id, preview in await tx.execute(secrets.order_by(s.created_at.desc(), s.expires_at.is_not(None))):
        previews[agent_key_id].append(preview)
    return await _with_parents(tx, [agent_key_of(row, previews) for row in rows])


async def _lock(tx: Transaction, where: ColumnElement[bool]) -> set[str]:
    """The ids of keys that nobody else changes until this transaction ends; in one order for all who do.

    An id begins with the time: it is the order in which gateways write down when keys were last used, too.
    """
    k = schema.agent_keys.c
    query = select(k.id).where(where).order_by(k.created_at, k.id)
    return set((await tx.execute(query.with_for_update())).scalars())


async def _with_parents(tx: Transaction, keys: list[AgentKey]) -> list[AgentKey]:
    """Children are known with their parent: without it, what they may do is not known."""
    known = {key.id: key for key in keys}
    missing = sorted({key.parent_id for key in keys if key.parent_id is not None} - known.keys())
    if missing:
        known |= {parent.id: parent for parent in await _list(tx, schema.agent_keys.c.id.in_(missing))}
    return [key if key.parent_id is None else replace(key, parent=known.get(key.parent_id)) for key in keys]


def select_agent_keys() -> Select[Any]:
    """What `agent_key_of` is made of; what is JSON as text, since most keys say the same."""
    k, b = schema.agent_keys.c, schema.budgets.c
    its_budget = and_(b.scope == SCOPE, b.id == k.id)
    columns = [cast(c, Text) if isinstance(c.type, JSON) else c for c in (*k, *(b[name] for name in _BUDGET))]
    return select(*columns).select_from(schema.agent_keys.outerjoin(schema.budgets, its_budget))


def agent_key_of(row: Iterable[Any], previews: Mapping[str, list[str]]) -> AgentKey:
    """The key in a row of `select_agent_keys`, without its parent."""
    values = dict(zip(_NAMES, row, strict=True))
    kind, cap_nano, soft_nano, thresholds = (values.pop(name) for name in _BUDGET)
    for name in _CHOICES:
        values[name] = _choice(values.pop(f"{name}_mode"), values[name])
    values["scopes"] = _items(values["scopes"])
    values["metadata"] = {} if values["metadata"] == "{}" else msgspec.json.decode(values["metadata"])
    budget = read_budget(kind, cap_nano, soft_nano, thresholds and msgspec.json.decode(thresholds))
    return AgentKey(**values, budget=budget, previews=tuple(previews.get(values["id"], ())))


@lru_cache(maxsize=4_096)
def _items(text: str) -> frozenset[str]:
    return frozenset(msgspec.json.decode(text, type=list[str]))


@lru_cache(maxsize=4_096)
def _choice(mode: Mode, text: str) -> Choice:
    return Choice(mode, _items(text))


def _columns(values: Mapping[str, object]) -> dict[str, object]:
    columns: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Choice):
            columns |= {f"{name}_mode": value.mode, name: sorted(value.items)}
        else:
            columns[name] = sorted(value) if isinstance(value, frozenset) else value
    return columns


async def find_owner(tx: Transaction, organization_id: str, user_id: str, *, lock: bool = False) -> Owner | None:
    """A user as the owner of keys in the organization; None when they do not belong to it.

    With `lock` they are not let go until this transaction ends: whoever lets them go finds what they were given in it.
    """
    m, u = schema.members.c, schema.users.c
    query = select(m.user_id, m.role, u.is_operator).join(schema.users, u.id == m.user_id)
    query = query.where(m.organization_id == organization_id, m.user_id == user_id)
    row = (await tx.execute(query.with_for_update(read=True, of=schema.members) if lock else query)).first()
    return Owner(row.user_id, "operator" if row.is_operator else row.role) if row else None


async def get_rules(tx: Transaction, organization_id: str) -> Rules:
    """What the organization says of its keys; refuses with `not_found` when there is none."""
    o = schema.organizations.c
    query = select(o.revocation_is_final, o.max_lifetime_ms, o.capture_is_forbidden).where(o.id == organization_id)
    row = (await tx.execute(query)).first()
    if row is None:
        raise Refusal("not_found", "There is no such organization.")
    return Rules(*row)


# ---- secrets of agent keys --------------------------------------------------------------------------------------


async def list_secrets(tx: Transaction, agent_key_id: str) -> list[KeySecret]:
    """What opens one key, newest first."""
    s = schema.agent_key_secrets.c
    query = select(s.digest, s.agent_key_id, s.preview, s.expires_at).where(s.agent_key_id == agent_key_id)
    query = query.order_by(s.created_at.desc(), s.expires_at.is_not(None))
    return [KeySecret(*row) for row in await tx.execute(query)]


async def list_all_secrets(tx: Transaction) -> list[KeySecret]:
    """What opens any key, for a gateway that starts."""
    s = schema.agent_key_secrets.c
    return [KeySecret(*row) for row in await tx.execute(select(s.digest, s.agent_key_id, s.preview, s.expires_at))]


async def add_secret(tx: Transaction, secret: KeySecret, at: int) -> None:
    """Keep a digest that opens a key."""
    await tx.execute(
        insert(schema.agent_key_secrets).values(
            digest=secret.digest,
            agent_key_id=secret.agent_key_id,
            preview=secret.preview,
            created_at=at,
            expires_at=secret.expires_at,
        )
    )


async def change_secrets_expiry(tx: Transaction, agent_key_id: str, expires_at: int) -> None:
    """Let what opens a key now do so until then at the longest."""
    s = schema.agent_key_secrets.c
    longer = or_(s.expires_at.is_(None), s.expires_at > expires_at)
    await tx.execute(
        update(schema.agent_key_secrets).where(s.agent_key_id == agent_key_id, longer).values(expires_at=expires_at)
    )


async def remove_secrets(tx: Transaction, agent_key_id: str, expired_at: int | None = None) -> None:
    """Forget what opens a key: all of it, or what had expired at a time."""
    s = schema.agent_key_secrets.c
    query = delete(schema.agent_key_secrets).where(s.agent_key_id == agent_key_id)
    await tx.execute(query if expired_at is None else query.where(s.expires_at <= expired_at))


# ---- client credentials -----------------------------------------------------------------------------------------


async def find_client_credential(
    tx: Transaction, organization_id: str, id_or_name: str, *, lock: bool = False
) -> ClientCredential | None:
    """One of the organization's, by id or by name; `lock` keeps others from changing it meanwhile."""
    sought = sought_name(id_or_name)
    if sought is None:
        return None
    c = schema.client_credentials.c
    query = select(schema.client_credentials).where(
        c.organization_id == organization_id, or_(c.id == sought, c.name == sought)
    )
    query = query.order_by(c.id != sought).limit(1)
    row = (await tx.execute(query.with_for_update() if lock else query)).first()
    return ClientCredential(*row) if row else None


async def find_client_credential_by_id(tx: Transaction, id: str) -> ClientCredential | None:
    """Anybody's, for a gateway that heard of a change."""
    query = select(schema.client_credentials).where(schema.client_credentials.c.id == id)
    row = (await tx.execute(query)).first()
    return ClientCredential(*row) if row else None


async def list_client_credentials(tx: Transaction, organization_id: str) -> list[ClientCredential]:
    """The organization's, oldest first, revoked ones too."""
    c = schema.client_credentials.c
    query = select(schema.client_credentials).where(c.organization_id == organization_id)
    return [ClientCredential(*row) for row in await tx.execute(query.order_by(c.created_at, c.id))]


async def list_all_client_credentials(tx: Transaction) -> list[ClientCredential]:
    """Everybody's, for a gateway that starts."""
    return [ClientCredential(*row) for row in await tx.execute(select(schema.client_credentials))]


async def add_client_credential(tx: Transaction, credential: ClientCredential) -> None:
    """Keep a new credential; refuses with `conflict` when its name is taken."""
    row = {field.name: getattr(credential, field.name) for field in fields(credential)}
    try:
        await tx.execute(insert(schema.client_credentials).values(**row))
    except IntegrityError:
        raise _taken("client credential", credential.name) from None


async def mark_client_credential_revoked(tx: Transaction, organization_id: str, id: str, at: int) -> None:
    """It opens nothing from now on."""
    c = schema.client_credentials.c
    this = (c.organization_id == organization_id, c.id == id)
    await tx.execute(update(schema.client_credentials).where(*this).values(revoked_at=at))


def _taken(kind: str, name: str) -> Refusal:
    return Refusal(
        "conflict", f"There is {'an' if kind[0] in 'aeiou' else 'a'} {kind} named {name!r} already.", param="name"
    )
