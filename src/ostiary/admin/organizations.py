"""Organizations at the admin API."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import Field

from ostiary.admin import pages
from ostiary.admin.budget_shapes import BudgetPatch, Rate, ShownBudget, shown_budget
from ostiary.admin.pages import Page, Place
from ostiary.admin.shapes import ABSENT, Asked, Asking, Id, Name, Shown, ShownMoment, ShownUsd, usd
from ostiary.clock import SECOND_MS, iso
from ostiary.db.database import Transaction
from ostiary.limits.budgets import Budget
from ostiary.limits.store import list_accounts
from ostiary.orgs import organizations
from ostiary.orgs.organizations import Organization
from ostiary.orgs.store import SCOPE

Days = Annotated[int, Field(ge=1, le=3_650)]
_PLAIN: Final = (
    *("id", "client_id", "name", "rpm", "rpd", "tpm", "parallel"),
    *("revocation_is_final", "allow_unpriced", "trace_days", "content_days", "capture_is_forbidden"),
)


class Filter(Page):
    """Which organizations, and in which order."""

    search: Annotated[str | None, Field(max_length=200, description="A part of the name or of the client id.")] = None
    sort: Literal["created_at", "name"] = "created_at"


class NewOrganization(Asked):
    """An organization to make."""

    name: Name


class OrganizationPatch(Asked):
    """What is named is changed; null lifts a limit or a rule. The budget is the owners' to set."""

    name: Name = ABSENT
    rpm: Rate | None = ABSENT
    rpd: Rate | None = ABSENT
    tpm: Rate | None = ABSENT
    parallel: Rate | None = ABSENT
    budget: BudgetPatch | None = ABSENT
    revocation_is_final: bool = ABSENT
    max_lifetime_s: Annotated[int, Field(ge=3_600, le=366 * 86_400)] | None = ABSENT
    allow_unpriced: bool = ABSENT
    trace_days: Days | None = ABSENT
    content_days: Days | None = ABSENT
    capture_is_forbidden: bool = ABSENT

    def wished(self, known: Organization) -> dict[str, object]:
        """The fields that were named, as the deed takes them, merged with the organization as it is."""
        found: dict[str, object] = {name: getattr(self, name) for name in self.model_fields_set}
        if "max_lifetime_s" in found:
            seconds = found.pop("max_lifetime_s")
            found["max_lifetime_ms"] = None if seconds is None else self.max_lifetime_s * SECOND_MS  # type: ignore[operator]
        if self.budget is not None:
            found["budget"] = self.budget.over(known.budget)
        return found


class ShownOrganization(Shown):
    """A tenant. Usage and spend are attributed to its client id, which is no secret."""

    id: str
    client_id: str
    name: str
    rpm: int | None
    rpd: int | None
    tpm: int | None
    parallel: int | None
    budget: ShownBudget | None
    spent_usd: ShownUsd = Field(description="In the running period of the budget; without one, this month.")
    revocation_is_final: bool
    max_lifetime_s: int | None
    allow_unpriced: bool
    trace_days: int | None
    content_days: int | None
    capture_is_forbidden: bool = Field(
        description="Whether no key keeps what was asked and answered, whatever it says."
    )
    created_at: ShownMoment


class Organizations(Shown):
    """One page of them."""

    data: list[ShownOrganization]
    next_cursor: str | None


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Organizations:
    """All organizations of the instance."""
    tx = await asking.begin()
    found = await organizations.list_(tx, asking.by)
    sought = (asked.search or "").casefold()
    fitting = [one for one in found if sought in one.name.casefold() or sought in one.client_id.casefold()]

    def place(one: Organization) -> Place:
        return (getattr(one, asked.sort), one.id)

    page, cursor = pages.turn(fitting, asked, asked.sort, place)
    return Organizations(data=[await _shown(tx, one, asking.at) for one in page], next_cursor=cursor)


async def create(asking: Asking, asked: NewOrganization) -> ShownOrganization:
    """Make an organization, with a client id of its own."""
    tx = await asking.begin()
    return await _shown(tx, await organizations.create(tx, asking.by, asked.name, asking.at), asking.at)


async def show(asking: Asking, id: Id) -> ShownOrganization:
    """One organization, its limits and rules."""
    tx = await asking.begin()
    meant = await asking.find_organization(tx, id)
    return await _shown(tx, await organizations.show(tx, asking.by, meant), asking.at)


async def change(asking: Asking, id: Id, asked: OrganizationPatch) -> ShownOrganization:
    """Edit what is named (RFC 7396): absent stays, null lifts."""
    tx = await asking.begin()
    meant = await asking.find_organization(tx, id)
    known = await organizations.get(tx, meant, lock=True)
    edited = await organizations.change(tx, asking.by, meant, asked.wished(known), asking.at)
    return await _shown(tx, edited, asking.at)


async def _shown(tx: Transaction, one: Organization, at: int) -> ShownOrganization:
    period_id = (one.budget or Budget("month", None)).period_at(at)
    accounts = await list_accounts(tx, SCOPE, one.id)
    spent = sum(account.spent_nano for account in accounts if account.period_id == period_id)
    facts: dict[str, Any] = {name: getattr(one, name) for name in _PLAIN}
    return ShownOrganization(
        **facts,
        budget=shown_budget(one.budget, spent, at),
        spent_usd=usd(spent),
        max_lifetime_s=None if one.max_lifetime_ms is None else one.max_lifetime_ms // SECOND_MS,
        created_at=iso(one.created_at),
    )
