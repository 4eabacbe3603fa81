"""Budgets, accounts and leases in SQL: the authority over money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Table, and_, delete, func, insert, select, update

from ostiary.clock import DAY_MS, date_of, month_of
from ostiary.db import schema
from ostiary.db.database import Transaction, insert_new
from ostiary.limits import window_store
from ostiary.limits.budgets import AccountKey, Budget, Kind, kind_of, periods_of

_LIVE_MS = 15_000
"""A process that has not been heard of for so long does not count when leases are sized, and its own are marked."""
_GONE_MS = DAY_MS
_OVER_MS = 7 * DAY_MS
"""How long after a month's end, and after its owner was last heard of, a lease counts as spent."""


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
    """What one owner was given of an account, and how much of it the ledger has seen spent.

    `charged_nano` of what is not used counts as spent already, because the owner was given up.
    """

    amount_nano: int
    used_nano: int
    charged_nano: int

    @property
    def rest_nano(self) -> int:
        """What the owner may still spend, return or be charged: the same as stands in the account as leased."""
        return self.amount_nano - self.used_nano - self.charged_nano


def _is(table: Table, key: AccountKey) -> ColumnElement[bool]:
    c = table.c
    return and_(c.scope == key.scope, c.id == key.id, c.period_id == key.period_id)


# ---- budgets ----------------------------------------------------------------------------------------------------


def read_budget(
    kind: Kind | None, cap_nano: int | None, soft_nano: int | None, thresholds: Sequence[int] | None
) -> Budget | None:
    """A budget from the columns of its row, which are all None where an outer join found none."""
    if kind is None:
        return None
    if thresholds is None:
        return Budget(kind, cap_nano, soft_nano)
    return Budget(kind, cap_nano, soft_nano, tuple(thresholds))


async def find_budget(tx: Transaction, scope: str, id: str) -> Budget | None:
    """The budget of a key or organization."""
    c = schema.budgets.c
    query = select(c.kind, c.cap_nano, c.soft_nano, c.thresholds).where(c.scope == scope, c.id == id)
    row = (await tx.execute(query)).first()
    return read_budget(*row) if row else None


async def list_budgets(tx: Transaction, scope: str) -> dict[str, Budget]:
    """Every budget of a kind of holder, by the holder's id."""
    c = schema.budgets.c
    rows = await tx.execute(select(c.id, c.kind, c.cap_nano, c.soft_nano, c.thresholds).where(c.scope == scope))
    found = {row.id: read_budget(*row[1:]) for row in rows}
    return {id_: budget for id_, budget in found.items() if budget is not None}


async def change_budget(tx: Transaction, scope: str, id: str, budget: Budget | None, at: int) -> None:
    """Set or (with None) lift the budget; the caps of the running periods change with it at once.

    A period may have begun since `at`, or by the clock of another gateway: if it has an account, that is one of them.
    """
    b = schema.budgets.c
    await tx.execute(delete(schema.budgets).where(b.scope == scope, b.id == id))
    if budget is not None:
        values = {**asdict(budget), "thresholds": list(budget.thresholds)}
        await tx.execute(insert(schema.budgets).values(scope=scope, id=id, **values))
    begun = await _list_begun(tx, scope, id, at)
    for period_id in sorted({*periods_of(scope, at), *begun}):  # as whoever charges has them, so that no two ever cross
        key = AccountKey(scope, id, period_id)
        await _ensure_account(tx, key)
        await tx.execute(update(schema.accounts).where(_is(schema.accounts, key)).values(cap_nano=_cap(budget, key)))


async def _list_begun(tx: Transaction, scope: str, id: str, at: int) -> list[str]:
    """The periods that begin after the day of `at` and have an account already; `total` sorts behind them."""
    a = schema.accounts.c
    query = select(a.period_id).where(a.scope == scope, a.id == id, a.period_id > date_of(at))
    return list((await tx.execute(query)).scalars())


def _cap(budget: Budget | None, key: AccountKey) -> int | None:
    """What the budget says of that very period: a monthly one caps months, another the total."""
    return budget.cap_nano if budget is not None and budget.kind == kind_of(key.period_id) else None


async def remove_budget(tx: Transaction, scope: str, id: str) -> None:
    """Forget the budget of something that is deleted; its accounts stay as history."""
    b = schema.budgets.c
    await tx.execute(delete(schema.budgets).where(b.scope == scope, b.id == id))


# ---- accounts ---------------------------------------------------------------------------------------------------


async def _ensure_account(tx: Transaction, key: AccountKey) -> None:
    """Make the row of a new period; its cap comes from the budget, in the same transaction."""
    cap = _cap(await find_budget(tx, key.scope, key.id), key)
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


# ---- soft limits --------------------------------------------------------------------------------------------------


async def list_soft_spent(tx: Transaction, ids: Sequence[str] | None = None) -> list[tuple[AccountKey, int]]:
    """What is spent of every account that has a soft limit, or of those of some holders."""
    a, b = schema.accounts.c, schema.budgets.c
    query = (
        select(a.scope, a.id, a.period_id, a.spent_nano)
        .join(schema.budgets, and_(b.scope == a.scope, b.id == a.id))
        .where(b.soft_nano.is_not(None))
    )
    if ids is not None:
        query = query.where(a.id.in_(ids))
    return [(AccountKey(*row[:3]), row[3]) for row in await tx.execute(query)]


# ---- leases -----------------------------------------------------------------------------------------------------


def _lease_is(owner: str, key: AccountKey) -> ColumnElement[bool]:
    return and_(schema.leases.c.owner == owner, _is(schema.leases, key))


async def find_lease(tx: Transaction, owner: str, key: AccountKey) -> Lease | None:
    """What this owner holds of the account."""
    c = schema.leases.c
    query = select(c.amount_nano, c.used_nano, c.charged_nano).where(_lease_is(owner, key)).with_for_update()
    row = (await tx.execute(query)).first()
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
    refund = max(-by_nano - lease.rest_nano, 0)  # charged when the owner was given up, and not spent after all
    a, c = schema.accounts.c, schema.leases.c
    await tx.execute(
        update(schema.leases)
        .where(_lease_is(owner, key))
        .values(amount_nano=c.amount_nano + by_nano, charged_nano=c.charged_nano - refund)
    )
    await tx.execute(
        update(schema.accounts)
        .where(_is(schema.accounts, key))
        .values(leased_nano=a.leased_nano + by_nano + refund, spent_nano=a.spent_nano - refund)
    )
    return True


async def close_lease(tx: Transaction, owner: str, key: AccountKey, *, charge_rest: bool) -> None:
    """End a lease: what is unspent goes back, or is charged when the owner's memory of it may be gone."""
    account = await lock_account(tx, key)
    lease = await find_lease(tx, owner, key)
    if lease is None:
        return
    spent = lease.rest_nano if charge_rest else -lease.charged_nano
    await tx.execute(
        update(schema.accounts)
        .where(_is(schema.accounts, key))
        .values(leased_nano=account.leased_nano - lease.rest_nano, spent_nano=account.spent_nano + spent)
    )
    await tx.execute(delete(schema.leases).where(_lease_is(owner, key)))


async def charge_lease(tx: Transaction, owner: str, key: AccountKey) -> int:
    """Count what is left of a silent owner's lease as spent, once; the answer is how much that was.

    The lease stays, and remembers the charge: what the owner settles or returns later is drawn from it.
    """
    account = await lock_account(tx, key)
    lease = await find_lease(tx, owner, key)
    if lease is None or lease.rest_nano <= 0:
        return 0
    await tx.execute(
        update(schema.accounts)
        .where(_is(schema.accounts, key))
        .values(leased_nano=account.leased_nano - lease.rest_nano, spent_nano=account.spent_nano + lease.rest_nano)
    )
    charged = lease.charged_nano + lease.rest_nano
    values = {"charged_nano": charged, "mark": "retired"}
    await tx.execute(update(schema.leases).where(_lease_is(owner, key)).values(**values))
    return lease.rest_nano


# ---- owners -----------------------------------------------------------------------------------------------------


async def add_owner(tx: Transaction, owner: str, name: str, version: str, at: int) -> None:
    """A gateway process has started; `owner` is its spool's id."""
    await tx.execute(
        insert(schema.owners).values(
            id=owner, name=name, version=version, started_at=at, heartbeat_at=at, closed_at=None
        )
    )


async def lock_owner(tx: Transaction, owner: str) -> None:
    """Nobody else marks, closes or gives up the owner until this transaction ends.

    Whoever does more than one of these things to it, and to what it leases, begins with this: so no two ever cross.
    """
    o = schema.owners.c
    await tx.execute(select(o.id).where(o.id == owner).with_for_update())


async def mark_owner(tx: Transaction, owner: str, at: int, *, closed: bool = False) -> None:
    """The owner is alive, whatever was thought of it meanwhile, or has closed with everything settled."""
    values: dict[str, int | None] = {"heartbeat_at": at, "retired_at": None}
    if closed:
        values["closed_at"] = at
        await window_store.close_leases(tx, owner, at)
    await tx.execute(update(schema.owners).where(schema.owners.c.id == owner).values(**values))
    c = schema.leases.c
    await tx.execute(update(schema.leases).where(c.owner == owner, c.mark.is_not(None)).values(mark=None))


async def mark_lost(tx: Transaction, at: int) -> int:
    """Mark the leases of owners that are silent; their money stays theirs. The answer is how many leases that were."""
    o, c = schema.owners.c, schema.leases.c
    silent = select(o.id).where(o.closed_at.is_(None), o.heartbeat_at <= at - _LIVE_MS)
    marked = update(schema.leases).where(c.mark.is_(None), c.owner.in_(silent)).values(mark="lost")
    return (await tx.execute(marked)).rowcount


async def retire_owner(tx: Transaction, owner: str, at: int) -> int:
    """Give up on a silent owner: what it leases counts as spent from now on. The answer is how much that was."""
    await lock_owner(tx, owner)
    charged = 0
    for key in await list_lease_keys(tx, owner):
        charged += await charge_lease(tx, owner, key)
    await window_store.drop_leases(tx, owner, at)
    await tx.execute(update(schema.owners).where(schema.owners.c.id == owner).values(retired_at=at))
    return charged


async def charge_old_leases(tx: Transaction, at: int) -> int:
    """Count as spent what silent owners still lease of months that are long over; the answer is how much that was."""
    o, c = schema.owners.c, schema.leases.c
    query = (
        select(c.owner, c.scope, c.id, c.period_id)
        .join(schema.owners, o.id == c.owner)
        .where(c.period_id < month_of(at - _OVER_MS), o.heartbeat_at <= at - _GONE_MS)
        .where(c.amount_nano > c.used_nano + c.charged_nano)
        .order_by(c.scope, c.id, c.period_id, c.owner)
    )
    charged = 0
    for owner, *key in (await tx.execute(query)).all():
        charged += await charge_lease(tx, owner, AccountKey(*key))
    return charged


async def count_live_owners(tx: Transaction, at: int) -> int:
    """How many processes share the accounts now; at least the one who asks."""
    c = schema.owners.c
    live = await tx.execute(select(func.count()).where(c.closed_at.is_(None), c.heartbeat_at > at - _LIVE_MS))
    return max(int(live.scalar_one()), 1)
