"""Finds what somebody must be told of, and puts it into the outbox: once, in the transaction in which it happens."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

from ostiary.clock import DAY_MS, iso
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import outbox_store as store
from ostiary.ledger.events import Event
from ostiary.ledger.outbox_store import Alert, Delivery, Expiring, Notification, Subject
from ostiary.ledger.rollup_store import PAID_FOR, is_unpriced
from ostiary.ledger.webhook_store import list_listeners
from ostiary.limits.budgets import AccountKey, Budget, kind_of, period_ends, periods_of
from ostiary.names import LONGEST_NAME

MAIL: Final = "mail"
WEBHOOK: Final = "webhook"

_ALL: Final = 100
_LONGEST_ID: Final = 64
_DATE: Final = len("2026-11-20")
_DAYS: Final = (7, 1)
"""Before the end of a key."""
_EXPIRY: Final = "expiry"
_MOST_REFUSED: Final = 10_000
_ANEW_MS: Final = 60_000
_KEPT_MS: Final = 90 * DAY_MS
_ALERTS_KEPT_MS: Final = 400 * DAY_MS
_PRUNED_AT_ONCE: Final = 1_000
_paid_for = attrgetter(*PAID_FOR)


class Way(NamedTuple):
    """By mail to an address, or to a webhook by its id."""

    channel: str
    address: str


class Mark(NamedTuple):
    """A line on a budget: `threshold` is in percent, of the hard cap, or negative of the soft limit."""

    threshold: int
    line_nano: int
    limit_nano: int


class Standing(NamedTuple):
    """What is spent of a budget in one of its periods."""

    account: AccountKey
    budget: Budget
    spent_nano: int


def marks_of(budget: Budget) -> list[Mark]:
    """The lines to watch: percents of the hard cap, or of the soft limit where there is no cap, and both limits."""
    percents = (*budget.thresholds, _ALL)
    if budget.cap_nano is not None:
        marks = {percent: _mark(percent, budget.cap_nano) for percent in percents}
        if budget.soft_nano is not None:
            marks[-_ALL] = _mark(-_ALL, budget.soft_nano)
    elif budget.soft_nano is not None:
        marks = {-percent: _mark(-percent, budget.soft_nano) for percent in percents}
    else:
        marks = {}
    return list(marks.values())


def _mark(threshold: int, limit_nano: int) -> Mark:
    return Mark(threshold, -(-limit_nano * abs(threshold) // _ALL), limit_nano)


# ---- what the writer sees ---------------------------------------------------------------------------------------


async def watch(
    tx: Transaction, charged: Mapping[AccountKey, tuple[int, int]], at: int, events: Iterable[Event] = ()
) -> None:
    """Look at what a batch changed: accounts with what was spent before and after it, and the events it inserted.

    A mark is told of when what is spent has reached it and nobody was told before; so one that a lowered limit has
    put behind the spend is told of with the next call. To be called in the transaction that charges, after it.
    """
    spent = {key: after for key, (before, after) in charged.items() if after > before}
    found = await _standings(tx, spent)
    await _tell_standings(tx, [(one, _passed(one)) for one in found], at)
    await _tell_odd_calls(tx, events, at)


async def rearm(tx: Transaction, scope: str, id: str, at: int) -> None:
    """After a budget was changed: marks that lie ahead again are told of again when they are reached."""
    accounts = [AccountKey(scope, id, period) for period in periods_of(scope, at)]
    spent = await store.list_spent(tx, accounts)
    behind = {
        Alert(*one.account, mark.threshold)
        for one in await _standings(tx, {account: spent.get(account, 0) for account in accounts})
        for mark in _passed(one)
    }
    await store.remove_alerts(tx, await store.list_alerts(tx, accounts) - behind)


async def _standings(tx: Transaction, spent: Mapping[AccountKey, int]) -> list[Standing]:
    """Those accounts that a budget is about, each with its budget."""
    if not spent:
        return []
    budgets = await store.list_budgets(tx, spent)
    found: list[Standing] = []
    for account, spent_nano in spent.items():
        budget = budgets.get((account.scope, account.id))
        if budget is not None and budget.kind == kind_of(account.period_id):
            found.append(Standing(account, budget, spent_nano))
    return found


def _passed(one: Standing) -> list[Mark]:
    return [mark for mark in marks_of(one.budget) if one.spent_nano >= mark.line_nano]


async def _tell_standings(
    tx: Transaction, found: Sequence[tuple[Standing, Sequence[Mark]]], at: int, *, refused: bool = False
) -> None:
    """Claim every mark that is new, in one order for all writers, then tell of the gravest of each account."""
    known = await store.list_alerts(tx, {one.account for one, marks in found if marks})
    claims = {Alert(*one.account, mark.threshold): (one, mark) for one, marks in found for mark in marks}
    claimed: dict[AccountKey, tuple[Standing, Mark]] = {}
    for alert in sorted(claims.keys() - known):
        one, mark = claims[alert]
        if await store.add_alert(tx, alert, at):
            gravest = claimed.get(one.account)
            claimed[one.account] = (one, mark) if gravest is None else (one, max(mark, gravest[1], key=_gravity))
    for one, mark in claimed.values():
        await _tell_standing(tx, one, mark, at, refused=refused)


async def _tell_standing(tx: Transaction, one: Standing, mark: Mark, at: int, *, refused: bool) -> None:
    subject = await store.find_subject(tx, one.account.scope, one.account.id)
    if subject is None or subject.parent_id is not None:
        return  # a child's slice is a part of its parent's budget, and that is told of
    kind = {_ALL: "budget.exceeded", -_ALL: "budget.soft_limit"}.get(mark.threshold, "budget.threshold")
    facts = {
        "limit": "hard" if mark.threshold > 0 else "soft",
        "limit_nano": mark.limit_nano,
        "spent_nano": one.spent_nano,
        "threshold": abs(mark.threshold),
        "percent": one.spent_nano * _ALL // mark.limit_nano if mark.limit_nano else _ALL,
        "period": one.account.period_id,
        "resets_at": period_ends(one.account.period_id, at)
        if one.account.period_id in periods_of(one.account.scope, at)
        else None,
        "refused": refused,
    }
    if one.account.scope == "provider_key":
        facts["spares"] = True  # other provider keys take its calls over, where there are any
    await tell(tx, kind, one.account.scope, subject, facts, at)


def _gravity(mark: Mark) -> tuple[int, int]:
    """Who passes several marks at once is told of the gravest: both limits before percents."""
    return {_ALL: 2, -_ALL: 1}.get(mark.threshold, 0), abs(mark.threshold)


# ---- calls that should not be so --------------------------------------------------------------------------------


async def _tell_odd_calls(tx: Transaction, events: Iterable[Event], at: int) -> None:
    """Calls without a price, and calls beyond their hold: once a day for each organization and model."""
    day = iso(at)[:_DATE]
    found: dict[Alert, tuple[str, Event]] = {}
    for event in events:
        if is_unpriced(event.price_version, *_paid_for(event)):
            found.setdefault(_alert_of("unpriced", event, day), ("model.unpriced", event))
        if event.over_hold_nano:
            found.setdefault(_alert_of("over_hold", event, day), ("call.over_hold", event))
    if not found:
        return
    known = await store.list_alerts(tx, {AccountKey(*alert[:3]) for alert in found})
    for alert in sorted(found.keys() - known):
        if await store.add_alert(tx, alert, at):
            await _tell_odd_call(tx, *found[alert], at)


def _alert_of(scope: str, event: Event, day: str) -> Alert:
    whose = f"{event.organization_id} {event.provider} {event.model}"
    return Alert(scope, hashlib.sha256(whose.encode()).hexdigest(), day, 0)


async def _tell_odd_call(tx: Transaction, kind: str, event: Event, at: int) -> None:
    name = f"{event.provider}/{event.model}"
    facts: dict[str, Any] = {"request_id": event.request_id, "agent_key": event.agent_key_name}
    if kind == "call.over_hold":
        facts |= {"cost_nano": event.cost_nano, "held_nano": event.held_nano}
    subject = Subject(name[:_LONGEST_ID], event.organization_id, name[:LONGEST_NAME])
    await tell(tx, kind, "model", subject, facts, at)


# ---- what is told -----------------------------------------------------------------------------------------------


async def tell(
    tx: Transaction,
    kind: str,
    subject_kind: str,
    subject: Subject,
    facts: Mapping[str, Any],
    at: int,
    ways: Sequence[Way] | None = None,
    knows: str | None = None,
) -> Notification | None:
    """Keep a notification and a delivery by each way; usual: to everybody it concerns. None: no such organization.

    Who `knows` of it already, as an e-mail address, gets no mail.
    """
    organization = await store.find_subject(tx, "organization", subject.organization_id)
    if organization is None:
        return None
    notification = Notification(
        id=new_id("ntf", at),
        organization_id=organization.id,
        kind=kind,
        subject_kind=subject_kind,
        subject_id=subject.id,
        subject_name=subject.name,
        facts={**facts, "organization": organization.name},
        created_at=at,
    )
    if ways is None:
        mailed = await store.list_recipients(tx, organization.id, subject.owner_id)
        posted = await list_listeners(tx, organization.id, kind)
        mails = [Way(MAIL, address) for address in mailed if address != knows]
        ways = [*mails, *(Way(WEBHOOK, webhook) for webhook in posted)]
    deliveries = [
        Delivery(new_id("dlv", at), notification.id, organization.id, way.channel, way.address, next_at=at)
        for way in ways
    ]
    await store.add_notification(tx, notification, deliveries)
    return notification


class Refused:
    """Accounts by which a call was refused because they are spent: noted on the path of a call, told of beside it."""

    def __init__(self) -> None:
        self._noted: set[AccountKey] = set()
        self._seen: set[AccountKey] = set()
        self._forget_at = 0

    def note(self, account: AccountKey) -> None:
        """A call was refused, and no settlement of an open one would have helped. Cheap, and does nothing else."""
        if account not in self._seen and len(self._seen) < _MOST_REFUSED:
            self._seen.add(account)
            self._noted.add(account)

    async def tell(self, database: Database, at: int) -> None:
        """Tell of what was noted, unless it was told before. Raises Refusal, and then it stays noted."""
        if not 0 <= self._forget_at - at <= _ANEW_MS:
            self._seen = set(self._noted)
            self._forget_at = at + _ANEW_MS
        if not self._noted:
            return
        noted, self._noted = self._noted, set()
        try:
            async with database.transaction() as tx:
                await tell_refused(tx, noted, at)
        except Refusal:
            self._noted |= noted
            raise


async def tell_refused(tx: Transaction, accounts: Collection[AccountKey], at: int) -> None:
    """Tell that calls are refused: as the budget being used up, so that either of both is told of once."""
    spent = await store.list_spent(tx, accounts)
    found = await _standings(tx, {account: spent.get(account, 0) for account in accounts})
    capped = [(one, [mark for mark in marks_of(one.budget) if mark.threshold == _ALL]) for one in found]
    await _tell_standings(tx, capped, at, refused=True)


# ---- by the clock -----------------------------------------------------------------------------------------------


async def tell_of_expiring(database: Database, at: int) -> None:
    """Tell of agent keys that end in seven days, and again in one day; a key that never had so long to live is not."""
    async with database.read() as tx:
        ending = await store.list_expiring(tx, at, at + max(_DAYS) * DAY_MS)
        found = {alert: one for one in ending for alert in _endings(one, at)}
        known = await store.list_alerts(tx, {AccountKey(*alert[:3]) for alert in found})
    new = sorted(found.keys() - known)
    if not new:
        return
    async with database.transaction() as tx:
        first = [alert for alert in new if await store.add_alert(tx, alert, at)]
        nearest = {alert.id: alert.threshold for alert in sorted(first, key=lambda one: -one.threshold)}
        for id, days in nearest.items():
            subject = await store.find_subject(tx, "agent_key", id)
            if subject is not None:
                facts = {"days": days, "expires_at": int(next(one.period_id for one in first if one.id == id))}
                await tell(tx, "agent_key.expiring", "agent_key", subject, facts, at)


def _endings(one: Expiring, at: int) -> list[Alert]:
    lived, left = one.expires_at - one.created_at, one.expires_at - at
    days = [days for days in _DAYS if left <= days * DAY_MS < lived]
    return [Alert(_EXPIRY, one.id, str(one.expires_at), number) for number in days]


async def prune(database: Database, at: int) -> None:
    """Forget notifications of more than 90 days, in portions that hold the database for a moment only."""
    while True:
        async with database.transaction() as tx:
            if await store.remove_old(tx, at - _KEPT_MS, _PRUNED_AT_ONCE) < _PRUNED_AT_ONCE:
                await store.remove_old_alerts(tx, at - _ALERTS_KEPT_MS)
                return
