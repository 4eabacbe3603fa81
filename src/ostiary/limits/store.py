"""Budgets, accounts and leases in SQL: the authority over money."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table, and_, delete, func, insert, select, update

from ostiary.clock import month_of
from ostiary.db import schema
from ostiary.db.database import Transaction, insert_new
from ostiary.limits.budgets import TOTAL, AccountKey, Budget, Kind

_LIVE_MS = 15_000
"""A process that has not been heard of for so long does not count when leases are sized."""


@dataclass(frozen=True, slots=True)
class Account:
    """What stands in the authority for one scope, id and period; a `cap_nano` of None is no cap."""

    scope: str
    id: str
    period_id: str
    cap_nano: int | None
    spent_nano: int
    leased_nano: int

    @property
    def room_nano(self) -> int:
        """What nobody has spent or leased; 0 when over the cap. Without a cap it is not asked."""
        return max((self.cap_nano or 0) - self.spent_nano - self.leased_nano, 0)


@dataclass(frozen=True, slots=True)
class Lease:
    """What one owner was given of an account, and how much of it the ledger has seen spent."""

    amount_nano: int
    used_nano: int


def _is(table: Table, key: AccountKey) -> ColumnElement[bool]:
    c = table.c
    return and_(c.scope == key.scope, c.id == key.id, c.period_id == key.period_id)


# ---- budgets ----------------------------------------------------------------------------------------------------


async def find_budget(tx: Transaction, scope: str, id: str) -> Budget | None:
    """The hard budget of a key or organization."""
    c = schema.budgets.c
    row = (await tx.execute(select(c.kind, c.cap_nano).where(c.scope == scope, c.id == id))).first()
    return Budget(row.kind, row.cap_nano) if row else None


async def change_budget(
    tx: Transaction,
    scope: str,
    id: str,
    kind: Kind,
    cap_nano: int | None,
    at: int,
) -> None:
    """Set or (with None) lift the hard cap; the rows of the running periods change with it at once."""
    b = schema.budgets.c
    await tx.execute(delete(schema.budgets).where(b.scope == scope, b.id == id))
    if cap_nano is not None:
        await tx.execute(insert(schema.budgets).values(scope=scope, id=id, kind=kind, cap_nano=cap_nano))
    for period_kind, period_id in (("month", month_of(at)), ("total", TOTAL)):
        key = AccountKey(scope, id, period_id)
        await _ensure_account(tx, key)
        cap = cap_nano if kind == period_kind else None
        await tx.execute(update(schema.accounts).where(_is(schema.accounts, key)).values(cap_nano=cap))


async def remove_budget(tx: Transaction, scope: str, id: str) -> None:
    """Forget the budget of something that is deleted; its accounts stay as history."""
    b = schema.budgets.c
    await tx.execute(delete(schema.budgets).where(b.scope == scope, b.id == id))


# ---- accounts ---------------------------------------------------------------------------------------------------


async def _ensure_account(tx: Transaction, key: AccountKey) -> None:
    """Make the row of a new period; its cap comes from the budget, in the same transaction."""
    budget = await find_budget(tx, key.scope, key.id)
    kind = "total" if key.period_id == TOTAL else "month"
    cap = budget.cap_nano if budget and budget.kind == kind else None
    await tx.execute(
        insert_new(tx, schema.accounts, {**key._asdict(), "cap_nano": cap, "spent_nano": 0, "leased_nano": 0})
    )


async def lock_account(tx: Transaction, key: AccountKey) -> Account:
    """The account as it is, made if new, and nobody else's to change until this transaction ends."""
    a = schema.accounts.c
    query = select(a.cap_nano, a.spent_nano, a.leased_nano).where(_is(schema.accounts, key)).with_for_update()
    row = (await tx.execute(query)).first()
    if row is None:
        await _ensure_account(tx, key)
        row = (await tx.execute(query)).one()
    return Account(*key, *row)


async def list_accounts(tx: Transaction, scope: str, id: str) -> list[Account]:
    """Every period of a key or organization, newest month last."""
    a = schema.accounts.c
    rows = await tx.execute(
        select(a.scope, a.id, a.period_id, a.cap_nano, a.spent_nano, a.leased_nano)
        .where(a.scope == scope, a.id == id)
        .order_by(a.period_id)
    )
    return [Account(*row) for row in rows]


async def charge(tx: Transaction, owner: str, key: AccountKey, cost_nano: int, leased_nano: int) -> None:
    """Write what was spent, and draw the owner's lease down by `leased_nano`, or by what is left of it.

    `leased_nano` is the cost of those calls that were held on the lease; more than it covers is spent all the same.
    """
    account = await lock_account(tx, key)
    lease = await find_lease(tx, owner, key) if leased_nano else None
    covered = min(leased_nano, lease.amount_nano - lease.used_nano) if lease else 0
    await tx.execute(
        update(schema.accounts)
        .where(_is(schema.accounts, key))
        .values(spent_nano=account.spent_nano + cost_nano, leased_nano=account.leased_nano - covered)
    )
    if lease and covered:
        await tx.execute(update(schema.leases).where(_lease_is(owner, key)).values(used_nano=lease.used_nano + covered))


# ---- leases -----------------------------------------------------------------------------------------------------


def _lease_is(owner: str, key: AccountKey) -> ColumnElement[bool]:
    return and_(schema.leases.c.owner == owner, _is(schema.leases, key))


async def find_lease(tx: Transaction, owner: str, key: AccountKey) -> Lease | None:
    """What this owner holds of the account."""
    c = schema.leases.c
    row = (await tx.execute(select(c.amount_nano, c.used_nano).where(_lease_is(owner, key)).with_for_update())).first()
    return Lease(*row) if row else None


async def list_lease_keys(tx: Transaction, owner: str) -> list[AccountKey]:
    """The accounts an owner has leases of, in one fixed order, so that two transactions never cross."""
    c = schema.leases.c
    rows = await tx.execute(select(c.scope, c.id, c.period_id).where(c.owner == owner))
    return sorted(AccountKey(*row) for row in rows)


async def change_lease(tx: Transaction, owner: str, account: Account, known_nano: int, by_nano: int) -> bool:
    """Lease `by_nano` more (or, negative, give back) of a locked account.

    False changes nothing: the lease is not at `known_nano`, so an earlier change of unknown outcome must be read
    again, or the account has no room for it.
    """
    key = AccountKey(account.scope, account.id, account.period_id)
    await tx.execute(
        insert_new(tx, schema.leases, {"owner": owner, **key._asdict(), "amount_nano": 0, "used_nano": 0, "mark": None})
    )
    lease = await find_lease(tx, owner, key)
    if lease is None or lease.amount_nano != known_nano or known_nano + by_nano < lease.used_nano:
        return False
    if by_nano > 0 and account.cap_nano is not None and by_nano > account.room_nano:
        return False
    a, c = schema.accounts.c, schema.leases.c
    await tx.execute(update(schema.leases).where(_lease_is(owner, key)).values(amount_nano=c.amount_nano + by_nano))
    await tx.execute(
        update(schema.accounts).where(_is(schema.accounts, key)).values(leased_nano=a.leased_nano + by_nano)
    )
    return True


async def close_lease(tx: Transaction, owner: str, key: AccountKey, *, charge_rest: bool) -> None:
    """End a lease: what is unspent goes back, or is charged when the owner's memory of it may be gone."""
    account = await lock_account(tx, key)
    lease = await find_lease(tx, owner, key)
    if lease is None:
        return
    rest = lease.amount_nano - lease.used_nano
    await tx.execute(
        update(schema.accounts)
        .where(_is(schema.accounts, key))
        .values(leased_nano=account.leased_nano - rest, spent_nano=account.spent_nano + (rest if charge_rest else 0))
    )
    await tx.execute(delete(schema.leases).where(_lease_is(owner, key)))


# ---- owners -----------------------------------------------------------------------------------------------------


async def add_owner(tx: Transaction, owner: str, name: str, version: str, at: int) -> None:
    """A gateway process has started; `owner` is its spool's id."""
    await tx.execute(
        insert(schema.owners).values(
            id=owner, name=name, version=version, started_at=at, heartbeat_at=at, closed_at=None
        )
    )


async def mark_owner(tx: Transaction, owner: str, at: int, *, closed: bool = False) -> None:
    """The owner is alive, or has closed with everything settled."""
    values = {"heartbeat_at": at} | ({"closed_at": at} if closed else {})
    await tx.execute(update(schema.owners).where(schema.owners.c.id == owner).values(**values))


async def count_live_owners(tx: Transaction, at: int) -> int:
    """How many processes share the accounts now; at least the one who asks."""
    c = schema.owners.c
    live = await tx.execute(select(func.count()).where(c.closed_at.is_(None), c.heartbeat_at > at - _LIVE_MS))
    return max(int(live.scalar_one()), 1)
