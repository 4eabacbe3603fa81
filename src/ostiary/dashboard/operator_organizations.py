"""The organizations of the instance, for its operator: found, made, and looked into."""

from __future__ import annotations

from typing import Final

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.ledger import outbox_store
from ostiary.limits.budgets import AccountKey, Budget
from ostiary.orgs import organizations
from ostiary.orgs.store import SCOPE

_ROWS: Final = 50
_MONTHLY: Final = Budget("month", None)
"""What an organization without a budget is counted by."""


async def list_(visit: Visit) -> Answer:
    """All of them, oldest first, those that fit what is sought."""
    await visit.hall.flush()
    sought = visit.query.text("q").casefold()
    async with visit.reading() as tx:
        known = await organizations.list_(tx, visit.by)
        fitting = [one for one in known if sought in one.name.casefold() or sought in one.client_id.casefold()]
        begin = 1 + next((i for i, one in enumerate(fitting) if one.id == visit.query.text("after")), -1)
        shown = fitting[begin : begin + _ROWS]
        accounts = {one.id: AccountKey(SCOPE, one.id, (one.budget or _MONTHLY).period_at(visit.at)) for one in shown}
        spent = await outbox_store.list_spent(tx, set(accounts.values()))
    return visit.page(
        "operator/organizations_list.html" if visit.is_partial else "operator/organizations.html",
        organizations=shown,
        spent={id_: spent.get(account, 0) for id_, account in accounts.items()},
        total=len(known),
        fitting=len(fitting),
        following=shown[-1].id if begin + _ROWS < len(fitting) else None,
    )


async def create(visit: Visit) -> Answer:
    """Make one, with a client id of its own."""
    try:
        async with visit.writing() as tx:
            made = await organizations.create(tx, visit.by, visit.form.text("name"), visit.at)
    except Refusal as refusal:
        return visit.page("operator/organization_form.html", refusal.status, wrong=visit.refused(refusal))
    return visit.go(
        f"{HOME}/operator/organizations?q={made.client_id}", said=f"{made.name} is made. Open it to invite."
    )
