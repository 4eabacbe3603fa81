"""The first page: how everything is, what needs somebody, and what to do first where nothing is yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from ostiary.clock import DAY_MS, day_of, moment, month_ends, month_of
from ostiary.dashboard import trace_reach
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.usage import chart_of
from ostiary.dashboard.visit import Visit
from ostiary.dashboard.words import left, usd
from ostiary.db.database import Transaction
from ostiary.ledger import gateways, overview_store, reports, series
from ostiary.ledger.gateways import Gateway, Serving
from ostiary.ledger.overview_store import Beginning, Filling
from ostiary.ledger.reports import Filter
from ostiary.ledger.series import Days
from ostiary.limits.budgets import Budget

_CHART_DAYS: Final = 30
_MEASURED: Final = 10_000
_ENDING_MS: Final = 7 * DAY_MS
_ALL: Final = 100
_TOP: Final = 5
_ORGANIZATION: Final = "organization"
_HOLDERS: Final = {
    "agent_key": ("Agent key", "keys"),
    "provider_key": ("Provider key", "vault"),
    _ORGANIZATION: ("Organization", "settings#budget-title"),
}
"""Whose budgets are looked at: how each is called, and where it is mended."""
_MOST_SHOWN: Final = 4
"""Of one kind of trouble; of more, how many there are."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that needs somebody, and where it is mended."""

    icon: str
    level: str
    name: str
    says: str
    path: str


async def show(visit: Visit) -> Answer:
    """The overview; the first steps where they are not done."""
    if visit.here.organization is None:
        return visit.page("overview/nobody.html")
    await visit.hall.flush()
    is_all = visit.may("usage.show")
    owner_id = None if is_all else visit.by.id
    async with visit.reading() as tx:
        begun = await overview_store.find_beginning(tx, visit.home, owner_id)
        if not all(begun):
            return visit.page("overview/first.html", steps=_steps(visit, begun))
        known = await _figures(visit, tx, owner_id)
        troubles = _of_organization(visit, known["budget"], known["budget_spent"])
        troubles += await _troubles(visit, tx, owner_id)
    troubles.sort(key=lambda one: one.level != "bad")
    return visit.page("overview/show.html", troubles=troubles, is_all=is_all, **known)


# ---- the beginning ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do first."""

    title: str
    text: str
    words: str
    path: str
    is_done: bool
    is_next: bool


def _steps(visit: Visit, begun: Beginning) -> list[Step]:
    may_add = visit.may("provider_keys.add")
    said = "Its credential is sealed; agents never see it." if may_add else "An admin of your organization does this."
    wishes = (
        ("Add a provider key", said, "Add a provider key", f"{HOME}/vault/new" if may_add else ""),
        ("Create an agent key", "What an agent presents here, with limits of its own.", "Create an agent key",
         f"{HOME}/keys/new"),
        ("Make a call", "From the playground, or from wherever your agent runs.", "Open the playground",
         f"{HOME}/playground"),
    )  # fmt: skip
    following = next(number for number, done in enumerate(begun) if not done)
    return [
        Step(*wish, is_done=done, is_next=number == following and bool(wish[3]))
        for number, (wish, done) in enumerate(zip(wishes, begun, strict=True))
    ]


# ---- the figures ------------------------------------------------------------------------------------------------


async def _figures(visit: Visit, tx: Transaction, owner_id: str | None) -> dict[str, Any]:
    at, home = visit.at, visit.home
    today = day_of(at)
    keys = None if owner_id is None else await trace_reach.keys_of(visit, tx, "usage.show")
    month = Days(today - moment(at).day + 1, today + 1)
    whole = await series.total(tx, home, month, keys)
    picture = await series.look(tx, home, Days(today - _CHART_DAYS + 1, today + 1), "model", keys=keys, most=_TOP)
    p50, p95, measured = await reports.measure(tx, home, Filter(keys, since_at=at - DAY_MS), _MEASURED)
    organization = visit.here.organization
    budget = organization.budget if organization is not None and visit.may("organizations.show") else None
    return {
        "month": whole,
        "month_spent": whole.cost_nano if keys is not None else await overview_store.find_spent(tx, home, month_of(at)),
        "month_ends": month_ends(at),
        "budget": budget,
        "budget_spent": await overview_store.find_spent(tx, home, budget.period_at(at)) if budget else 0,
        "p50": p50,
        "p95": p95,
        "measured": measured,
        "picture": picture,
        "chart": chart_of(picture, "cost"),
        "spenders": await overview_store.list_spenders(tx, home, owner_id, at, _TOP),
        "health": await overview_store.count_health(tx, home, at) if visit.may("provider_keys.list") else {},
        "gateways_path": f"{HOME}/{'operator' if visit.may('gateways.list') else 'settings'}/gateways",
        "gateways": await _gateways(visit, tx),
    }


async def _gateways(visit: Visit, tx: Transaction) -> Sequence[Gateway | Serving]:
    """All that is known of them for the operator; for who looks after an organization, which serve it."""
    if visit.may("gateways.list"):
        return await gateways.list_(tx, visit.by, visit.at)
    return await gateways.list_serving(tx, visit.by, visit.home, visit.at) if visit.may("gateways.show") else ()


# ---- what needs somebody ----------------------------------------------------------------------------------------


async def _troubles(visit: Visit, tx: Transaction, owner_id: str | None) -> list[Trouble]:
    at, home = visit.at, visit.home
    found: list[Trouble] = []
    if visit.may("provider_keys.show"):
        for ill in await overview_store.list_ill(tx, home, at, _MOST_SHOWN):
            until = f" for {left(ill.until - at)} more" if ill.until is not None and ill.until > at else ""
            says = f"Provider key {ill.state.replace('_', ' ')}{until}. {ill.reason}".strip()
            found.append(Trouble("vault", "bad", ill.name, says, f"{HOME}/vault/{_in_path(ill.id)}"))
    found += [_filled(one) for one in await overview_store.list_filling(tx, home, owner_id, at, _MOST_SHOWN)]
    for one in await overview_store.list_ending(tx, home, owner_id, at, at + _ENDING_MS, _MOST_SHOWN):
        says = f"Agent key expires in {left(one.expires_at - at)}."
        found.append(Trouble("key-round", "warn", one.name, says, f"{HOME}/keys/{_in_path(one.id)}"))
    if visit.may("notifications.test"):
        lost = await overview_store.count_undelivered(tx, home, at - _ENDING_MS)
        if lost:
            says = f"{lost} of the last 7 days did not arrive and {'was' if lost == 1 else 'were'} given up."
            found.append(Trouble("mail-warning", "bad", "Notifications", says, f"{HOME}/settings/notifications"))
    found += await _of_gateways(visit, tx)
    return found


def _of_organization(visit: Visit, budget: Budget | None, spent_nano: int) -> list[Trouble]:
    """Its own budget, as `list_filling` finds those of keys."""
    organization = visit.here.organization
    if organization is None or budget is None:
        return []
    has_cap = budget.cap_nano is not None
    cap, soft = (budget.cap_nano, budget.soft_nano) if has_cap else (budget.soft_nano, None)
    if not cap or not spent_nano:
        return []
    if spent_nano * _ALL < cap * budget.last_threshold and (soft is None or spent_nano < soft):
        return []
    return [_filled(Filling(_ORGANIZATION, organization.id, organization.name, spent_nano, cap, soft))]


def _filled(one: Filling) -> Trouble:
    noun, place = _HOLDERS[one.kind]
    percent = one.spent_nano * _ALL // one.cap_nano
    is_soft = one.soft_nano is not None and one.spent_nano >= one.soft_nano
    beyond = f" Its soft limit of {usd(one.soft_nano)} is passed." if is_soft and percent < _ALL else ""
    says = f"{noun}: {usd(one.spent_nano)} of {usd(one.cap_nano)} spent, {percent} %.{beyond}"
    path = f"{HOME}/{place}" if one.kind == _ORGANIZATION else f"{HOME}/{place}/{_in_path(one.id)}"
    return Trouble("wallet", "bad" if percent >= _ALL else "warn", one.name, says, path)


async def _of_gateways(visit: Visit, tx: Transaction) -> list[Trouble]:
    if not visit.may("gateways.list"):
        return []
    lost = [one for one in await gateways.list_(tx, visit.by, visit.at) if one.state == "lost"]
    says = "Gateway not heard of: it has ended without saying so, or cannot reach the database."
    return [
        Trouble("server-off", "bad", one.name, says, f"{HOME}/operator/gateways/{_in_path(one.id)}")
        for one in lost[:_MOST_SHOWN]
    ]


def _in_path(id_: str) -> str:
    return quote(id_, safe="")
