"""The vault in SQL: proofs of the master key, wrapped data keys, and provider keys with their sealed credentials."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Row, Select, and_, delete, exists, func, insert, not_, or_, select, update
from sqlalchemy.exc import IntegrityError

from ostiary.db import schema
from ostiary.db.database import Transaction, insert_new
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget
from ostiary.limits.store import find_budget, read_budget
from ostiary.names import sought_name
from ostiary.vault.health import LASTING

SCOPE: Final = "provider_key"
"""The scope of a provider key's budget and accounts."""

# ---- the instance and its data keys -----------------------------------------------------------------------------


async def is_unsealed(tx: Transaction, proofs: Collection[str]) -> bool:
    """Whether nothing here has ever been sealed, so that any master key may become this database's."""
    traces = (
        select(schema.instance).where(schema.instance.c.name.in_(proofs)),
        select(schema.data_keys),
        select(schema.provider_keys),
    )
    return not (await tx.execute(select(or_(*(exists(trace) for trace in traces))))).scalar_one()


async def find_instance(tx: Transaction, name: str) -> str | None:
    """One of the instance's own sealed values."""
    i = schema.instance.c
    return (await tx.execute(select(i.value).where(i.name == name))).scalar_one_or_none()


async def add_instance(tx: Transaction, name: str, value: str) -> None:
    """Keep a value of the instance, unless another process was first."""
    await tx.execute(insert_new(tx, schema.instance, {"name": name, "value": value}))


async def find_data_key(tx: Transaction, organization_id: str, version: int) -> str | None:
    """A wrapped data key."""
    d = schema.data_keys.c
    found = await tx.execute(select(d.wrapped).where(d.organization_id == organization_id, d.version == version))
    return found.scalar_one_or_none()


async def find_newest_version(tx: Transaction, organization_id: str) -> int | None:
    """The version of the data key that seals now, None before the first."""
    d = schema.data_keys.c
    newest: int | None = (
        await tx.execute(select(func.max(d.version)).where(d.organization_id == organization_id))
    ).scalar_one()
    return newest


async def add_data_key(tx: Transaction, organization_id: str, version: int, wrapped: str, at: int) -> None:
    """Keep a data key, unless another process was first: then its key is the one to be read and used."""
    row = {"organization_id": organization_id, "version": version, "wrapped": wrapped, "created_at": at}
    await tx.execute(insert_new(tx, schema.data_keys, row))


# ---- provider keys ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A credential that goes out, without its secret: `sealed` opens only in the place this row is."""

    id: str
    organization_id: str
    name: str
    provider: str
    base_url: str
    origin: str
    fields: Mapping[str, str]
    sealed: str = field(repr=False)
    sealed_version: int
    preview: str
    shared: bool
    status: str
    created_at: int
    updated_at: int
    last_used_at: int | None
    auth: str | None = None
    """A method of the catalogue's row; None is its first."""
    priority: int = 0
    weight: int = 1
    strategy: str = "rotate"
    free_tier: bool = False
    account: str | None = None
    tags: tuple[str, ...] = ()
    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    parallel: int | None = None
    added_by: str | None = None
    by_operator: bool = False
    """Whoever added it ran the instance: of the pool, such keys come first."""
    budget: Budget | None = None
    """What may be spent with it per day or month or in total; it stands in a table of its own."""


_BUDGET: Final = ("kind", "cap_nano", "soft_nano", "thresholds")


def _record(row: Row[Any]) -> ProviderKey:
    values = row._asdict()
    budget = read_budget(*(values.pop(name) for name in _BUDGET))
    return ProviderKey(**{**values, "tags": tuple(values["tags"])}, budget=budget)


def _all() -> Select[Any]:
    p, b = schema.provider_keys.c, schema.budgets.c
    beside = schema.provider_keys.outerjoin(schema.budgets, and_(b.scope == SCOPE, b.id == p.id))
    return select(schema.provider_keys, *(b[name] for name in _BUDGET)).select_from(beside)


def _within(organization_id: str) -> Select[Any]:
    return _all().where(schema.provider_keys.c.organization_id == organization_id)


async def find_provider_key(
    tx: Transaction, organization_id: str, id_or_name: str, *, lock: bool = False
) -> ProviderKey | None:
    """One of the organization's, by id or by name; `lock` keeps others from changing it meanwhile."""
    sought = sought_name(id_or_name)
    if sought is None:
        return None
    p = schema.provider_keys.c
    query = _within(organization_id).where(or_(p.id == sought, p.name == sought)).order_by(p.id != sought).limit(1)
    row = (await tx.execute(query.with_for_update(of=schema.provider_keys) if lock else query)).first()
    if row is None:
        return None
    # Whoever had to wait for the lock has read the budget before the other one changed it.
    return replace(_record(row), budget=await find_budget(tx, SCOPE, row.id)) if lock else _record(row)


async def get_provider_key(
    tx: Transaction, organization_id: str, id_or_name: str, *, lock: bool = False
) -> ProviderKey:
    """As `find_provider_key`; refuses with `not_found`."""
    key = await find_provider_key(tx, organization_id, id_or_name, lock=lock)
    if key is None:
        raise Refusal("not_found", "There is no such provider key. 'ostiary vault list' shows all.")
    return key


async def find_provider_key_by_id(tx: Transaction, id: str) -> ProviderKey | None:
    """Anybody's, for a gateway that heard of a change."""
    row = (await tx.execute(_all().where(schema.provider_keys.c.id == id))).first()
    return _record(row) if row else None


async def list_provider_keys(tx: Transaction, organization_id: str) -> list[ProviderKey]:
    """The organization's, oldest first."""
    p = schema.provider_keys.c
    rows = await tx.execute(_within(organization_id).order_by(p.created_at, p.id))
    return [_record(row) for row in rows]


async def list_all_provider_keys(tx: Transaction) -> list[ProviderKey]:
    """Everybody's, oldest first, for a gateway that starts."""
    p = schema.provider_keys.c
    return [_record(row) for row in await tx.execute(_all().order_by(p.created_at, p.id))]


async def list_servers(tx: Transaction, provider: str) -> list[tuple[str, str, bool]]:
    """Every key of a provider that calls may use, whosever it is: its id, its organization, whether it is shared."""
    p, h = schema.provider_keys.c, schema.provider_key_health.c
    is_out = exists().where(h.provider_key_id == p.id, h.model == "", h.state.in_(sorted(LASTING)))
    rows = await tx.execute(
        select(p.id, p.organization_id, p.shared).where(
            p.provider == provider, p.status.not_in(sorted(LASTING)), not_(is_out)
        )
    )
    return [(row.id, row.organization_id, row.shared) for row in rows]


async def count_provider_keys(tx: Transaction, organization_id: str) -> dict[str, int]:
    """How many keys the organization has, by provider."""
    p = schema.provider_keys.c
    query = select(p.provider, func.count().label("number")).where(p.organization_id == organization_id)
    return {row.provider: row.number for row in await tx.execute(query.group_by(p.provider))}


async def list_key_spent(tx: Transaction, keys: Collection[ProviderKey], at: int) -> dict[str, int]:
    """Nano-dollars by key id: of the budget's running period, or of the month where there is no budget."""
    a = schema.accounts.c
    periods = {key.id: (key.budget or _MONTHLY).period_at(at) for key in keys}
    query = select(a.id, a.period_id, a.spent_nano).where(a.scope == SCOPE, a.id.in_(periods))
    rows = await tx.execute(query.where(a.period_id.in_(set(periods.values()))))
    return dict.fromkeys(periods, 0) | {row.id: row.spent_nano for row in rows if row.period_id == periods[row.id]}


_MONTHLY: Final = Budget("month", None)
"""What a key without a budget is counted by."""


async def add_provider_key(tx: Transaction, key: ProviderKey) -> None:
    """Keep a new key, without its budget; refuses with `conflict` when its name is taken."""
    row = {column.name: getattr(key, column.name) for column in schema.provider_keys.columns}
    row["tags"] = list(key.tags)
    try:
        await tx.execute(insert(schema.provider_keys).values(**row))
    except IntegrityError:
        raise _taken(key.name) from None


async def change_provider_key(tx: Transaction, organization_id: str, id: str, **values: object) -> None:
    """Write the given columns; refuses with `conflict` when the new name is taken."""
    p = schema.provider_keys.c
    if not values:  # a budget that changed in the same millisecond as the row before it
        return
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    this = (p.organization_id == organization_id, p.id == id)
    try:
        await tx.execute(update(schema.provider_keys).where(*this).values(**values))
    except IntegrityError:
        raise _taken(str(values.get("name"))) from None


async def mark_provider_keys_used(tx: Transaction, used_at: Mapping[str, int]) -> None:
    """When each was last used; never earlier than what another gateway has written."""
    k = schema.provider_keys.c
    for id, at in sorted(used_at.items()):  # one order for all, so that two gateways never wait for each other
        is_news = or_(k.last_used_at.is_(None), k.last_used_at < at)
        await tx.execute(update(schema.provider_keys).where(k.id == id, is_news).values(last_used_at=at))


async def remove_provider_key(tx: Transaction, organization_id: str, id: str) -> None:
    """Forget a key and its sealed credential."""
    p = schema.provider_keys.c
    await tx.execute(delete(schema.provider_keys).where(p.organization_id == organization_id, p.id == id))


def _taken(name: str) -> Refusal:
    return Refusal("conflict", f"There is a provider key named {name!r} already.", param="name")
