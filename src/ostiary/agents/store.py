"""Agent keys, their secrets, and client credentials in SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, exists, insert, or_, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import IntegrityError

from ostiary.agents.policy import Choice, Policy, Status, parse_networks
from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget
from ostiary.names import sought_name

SCOPE: Final = "agent_key"
"""The scope of an agent key's budget and accounts."""


@dataclass(frozen=True, slots=True)
class AgentKey:
    """What a caller is known by: an identity with limits, which outlives the secrets that open it."""

    id: str
    organization_id: str
    owner_id: str | None
    name: str
    status: Status
    expires_at: int | None
    scopes: frozenset[str]
    rpm: int | None
    rpd: int | None
    models: Choice
    providers: Choice
    free_only: bool
    addresses: Choice
    metadata: Mapping[str, Any]
    budget: Budget | None
    previews: tuple[str, ...]
    """Of each secret, newest first: several while an old one is let live on after a rotation."""
    created_at: int
    updated_at: int
    last_used_at: int | None
    tpm: int | None = None
    parallel: int | None = None
    capture: bool = False
    is_ephemeral: bool = False
    parent_id: str | None = None

    def policy(self) -> Policy:
        """What is asked about this key on the path of a call, with its networks read once."""
        networks = None if self.addresses.mode == "all" else parse_networks(sorted(self.addresses.items))
        return Policy(self.status, self.expires_at, self.scopes, self.models, self.providers, self.free_only, networks)

    def shown_status(self, now: int) -> str:
        """The status as people see it: an active key whose time is over is `expired`."""
        is_over = self.expires_at is not None and self.expires_at <= now
        return "expired" if self.status == "active" and is_over else self.status


@dataclass(frozen=True, slots=True)
class KeySecret:
    """One of the secrets that open an agent key; `expires_at` only while a rotation lets it live on."""

    digest: bytes
    agent_key_id: str
    preview: str
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class ClientCredential:
    """A triple client_id:api_key:api_secret that authenticates as the organization."""

    id: str
    organization_id: str
    name: str
    digest: bytes
    preview: str
    created_at: int
    revoked_at: int | None

    def policy(self) -> Policy:
        """What it may do: everything at the door, until it is revoked."""
        return Policy("active" if self.revoked_at is None else "revoked")


# ---- agent keys -------------------------------------------------------------------------------------------------

_CHOICES: Final = ("models", "providers", "addresses")
_ELSEWHERE: Final = ("budget", "previews")


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
        raise Refusal("not_found", "There is no such agent key. 'ostiary keys list' shows all.")
    return key


async def find_agent_key_by_id(tx: Transaction, id: str) -> AgentKey | None:
    """Anybody's, for a gateway that heard of a change."""
    return next(iter(await _list(tx, schema.agent_keys.c.id == id)), None)


async def list_agent_keys(tx: Transaction, organization_id: str) -> list[AgentKey]:
    """The organization's, oldest first."""
    return await _list(tx, schema.agent_keys.c.organization_id == organization_id)


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


async def remove_agent_key(tx: Transaction, organization_id: str, id: str) -> None:
    """Forget a key and its secrets; events keep its name."""
    k = schema.agent_keys.c
    await remove_secrets(tx, id)
    await tx.execute(delete(schema.agent_keys).where(k.organization_id == organization_id, k.id == id))


async def _list(tx: Transaction, where: ColumnElement[bool] | None, *, lock: bool = False) -> list[AgentKey]:
    k, s, b = schema.agent_keys.c, schema.agent_key_secrets.c, schema.budgets.c
    its_budget = and_(b.scope == SCOPE, b.id == k.id)
    keys = select(schema.agent_keys, b.kind, b.cap_nano).outerjoin(schema.budgets, its_budget)
    secrets = select(s.agent_key_id, s.preview).join(schema.agent_keys, k.id == s.agent_key_id)
    if where is not None:
        keys, secrets = keys.where(where), secrets.where(where)
    if lock:
        keys = keys.with_for_update(of=schema.agent_keys)
    rows = (await tx.execute(keys.order_by(k.created_at, k.id))).mappings().all()
    previews: defaultdict[str, list[str]] = defaultdict(list)
    for agent_key_id, preview in await tx.execute(secrets.order_by(s.created_at.desc(), s.expires_at.is_not(None))):
        previews[agent_key_id].append(preview)
    return [_agent_key(row, tuple(previews[row["id"]])) for row in rows]


def _agent_key(row: RowMapping, previews: tuple[str, ...]) -> AgentKey:
    values = dict(row)
    kind, cap_nano = values.pop("kind"), values.pop("cap_nano")
    for name in _CHOICES:
        values[name] = Choice(values.pop(f"{name}_mode"), frozenset(values[name]))
    values["scopes"] = frozenset(values["scopes"])
    return AgentKey(**values, budget=Budget(kind, cap_nano) if cap_nano is not None else None, previews=previews)


def _columns(values: Mapping[str, object]) -> dict[str, object]:
    columns: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Choice):
            columns |= {f"{name}_mode": value.mode, name: sorted(value.items)}
        else:
            columns[name] = sorted(value) if isinstance(value, frozenset) else value
    return columns


async def is_member(tx: Transaction, organization_id: str, user_id: str) -> bool:
    """Whether a user belongs to the organization, and so may own a key in it."""
    m = schema.members.c
    found = await tx.execute(select(exists().where(m.organization_id == organization_id, m.user_id == user_id)))
    return bool(found.scalar_one())


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
