"""Whose limits a call must fit: the key's own, its parent's and its organization's, and how the ledger knows them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ostiary.agents import pages_store, store
from ostiary.agents.records import AgentKey
from ostiary.cli import show
from ostiary.clock import DAY_MS, SECOND_MS, day_ends, day_of
from ostiary.db.database import Transaction
from ostiary.limits.budgets import Budget
from ostiary.limits.store import list_accounts
from ostiary.limits.window_store import count_requests
from ostiary.orgs.store import SCOPE, Organization, find_organization

_MINUTE_MS: Final = 60 * SECOND_MS
Limited = AgentKey | Organization
"""Who has limits of requests and tokens."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How far limits are used: requests and tokens of the last minute, requests of the UTC day."""

    requests: int = 0
    tokens: int = 0
    today: int = 0


@dataclass(frozen=True, slots=True)
class Other:
    """Somebody whose limits a call must fit as well."""

    who: str
    limited: Limited
    pace: Pace
    spent_nano: int


async def pace_of(tx: Transaction, key: AgentKey, at: int) -> Pace:
    """A key's, its children's calls among them: they use their parent's limits."""
    ids = [key.id, *(child.id for child in await store.list_children(tx, key.id))]
    requests, tokens = await pages_store.count_since(tx, ids, at - _MINUTE_MS)
    since_midnight = await pages_store.count_since(tx, ids, day_ends(at) - DAY_MS - 1)
    return Pace(requests, tokens, since_midnight[0])


async def look(tx: Transaction, key: AgentKey, at: int) -> AsyncIterator[Other]:
    """The others of a key that limit anything."""
    parent = key.parent
    if parent is not None and is_limiting(parent):
        spent = (await pages_store.list_spent(tx, [parent], at))[parent.id]
        yield Other(f"Its parent, {parent.name}", parent, await pace_of(tx, parent, at), spent)
    organization = await find_organization(tx, key.organization_id)
    if organization is not None and is_limiting(organization):
        requests, tokens = await pages_store.count_all_since(tx, organization.id, at - _MINUTE_MS)
        today = await count_requests(tx, SCOPE, organization.id, day_of(at))
        spent = 0
        if organization.budget is not None:
            period_id = organization.budget.period_at(at)
            accounts = await list_accounts(tx, SCOPE, organization.id)
            spent = sum(one.spent_nano for one in accounts if one.period_id == period_id)
        who = f"Its organization, {organization.name}"
        yield Other(who, organization, Pace(requests, tokens, today), spent)


def is_limiting(limited: Limited) -> bool:
    """Whether there is anything that its calls must fit."""
    return limited.budget is not None or has_rates(limited)


def has_rates(limited: Limited) -> bool:
    """Whether it has a limit of requests or tokens."""
    return (limited.rpm, limited.rpd, limited.tpm, limited.parallel) != (None, None, None, None)


# ---- for machines -----------------------------------------------------------------------------------------------


def windows(limited: Limited, pace: Pace, at: int) -> dict[str, Any]:
    """How each limit stands as the ledger knows it; gateways know it to the very call. A minute slides on."""
    found = {
        "requests_per_minute": _window(limited.rpm, pace.requests, None),
        "requests_per_day": _window(limited.rpd, pace.today, day_ends(at)),
        "tokens_per_minute": _window(limited.tpm, pace.tokens, None),
        "parallel_requests": _window(limited.parallel, None, None),
    }
    return {name: window for name, window in found.items() if window is not None}


def _window(limit: int | None, used: int | None, resets_at: int | None) -> dict[str, Any] | None:
    if limit is None:
        return None
    remaining = None if used is None else max(limit - used, 0)
    return {"limit": limit, "used": used, "remaining": remaining, "resets_at": show.when(resets_at)}


def shown(other: Other, at: int) -> dict[str, Any]:
    """One of the others."""
    budget = other.limited.budget
    return {
        "whose": other.who,
        "budget_usd": show.usd(budget.cap_nano if budget else None),
        "spent_usd": show.usd(other.spent_nano) if budget else None,
        "limits": windows(other.limited, other.pace, at),
    }


# ---- for people -------------------------------------------------------------------------------------------------


def rates(limited: Limited, pace: Pace) -> Iterator[str]:
    """How far each limit is used, a half sentence each."""
    if limited.rpm is not None:
        yield f"{pace.requests:,} of {limited.rpm:,} requests in the last minute"
    if limited.rpd is not None:
        yield f"{pace.today:,} of {limited.rpd:,} requests today"
    if limited.tpm is not None:
        yield f"{pace.tokens:,} of {limited.tpm:,} tokens in the last minute"
    if limited.parallel is not None:
        yield f"at most {limited.parallel:,} requests at the same time"


def told(other: Other) -> Iterator[str]:
    """What is to be said of one of the others, a sentence a limit."""
    budget = other.limited.budget
    if budget is not None:
        yield f"{other.who}: {sum_of(budget, other.spent_nano)}. A call must fit this too."
    for rate in rates(other.limited, other.pace):
        yield f"{other.who}: {rate}. A call must fit this too."


def sum_of(budget: Budget, spent: int) -> str:
    """How a budget stands."""
    period = "this month" if budget.kind == "month" else "in total"
    if budget.cap_nano is None:
        return f"{show.dollars(spent)} {period}; nothing blocks it"
    left = show.dollars(max(budget.cap_nano - spent, 0))
    return f"{show.dollars(spent)} of {show.dollars(budget.cap_nano)} {period}; {left} left"
