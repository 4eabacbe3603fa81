"""The settings of an organization: its name, the rules for keys, what is kept, its limits and its budget."""

from __future__ import annotations

import json
from typing import Any, Final

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.settings_fields import PARTS, UNITS, changed
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget
from ostiary.limits.store import list_accounts
from ostiary.orgs import organizations
from ostiary.orgs.store import SCOPE, find_organization

_PAGE: Final = f"{HOME}/settings"
_NAMES: Final = {"max_lifetime_ms": "max_lifetime", "budget": "budget_cap"}
_UNITS: Final = tuple((name, name) for name, _ in UNITS)


async def show(visit: Visit) -> Answer:
    """Every part."""
    return visit.page("settings/show.html", **await _shown(visit), tab="general")


async def _shown(visit: Visit) -> dict[str, Any]:
    """What all parts show, as it is."""
    async with visit.reading() as tx:
        one = await organizations.show(tx, visit.by, visit.home)
        period = (one.budget or Budget("month", None)).period_at(visit.at)
        accounts = await list_accounts(tx, SCOPE, one.id)
    spent = sum(account.spent_nano for account in accounts if account.period_id == period)
    values = {name: part.show(one) for name, part in PARTS.items()}
    known = {"organization": one, "spent": spent, "values": values, "was": values, "units": _UNITS}
    return {**known, "meanwhile": (), "is_saved": False}


async def change(visit: Visit) -> Answer:
    """One part. Where somebody else has changed it since it was shown nothing is written, and nothing typed is lost."""
    name, form = visit.names["part"], visit.form
    part = PARTS.get(name)
    if part is None:
        raise Refusal("not_found")
    typed = {field: form.text(field) for field in part.labels}
    was = {field: form.text(f"was.{field}") for field in part.labels}
    wrong, meanwhile, status = Wrong(), list[str](), 409
    async with visit.reading() as tx:
        one = await organizations.show(tx, visit.by, visit.home)
    now = part.show(one)
    try:
        wished = part.read(form)
        async with visit.writing() as tx:
            visit.by.require("organizations.edit", visit.home)
            now = part.show(await find_organization(tx, visit.home, lock=True) or one)
            meanwhile = changed(part, was, now, typed)
            if not meanwhile:
                await organizations.change(tx, visit.by, visit.home, wished, visit.at)
    except Refusal as refusal:
        wrong, status = visit.refused(refusal, _NAMES), refusal.status
    if not meanwhile and not wrong.message:
        return await _saved(visit, name, f"{part.title} saved.")
    # What was not told yet is told when it is sent again.
    was = now if meanwhile else was
    known = {"values": {name: typed}, "was": {name: was}, "units": _UNITS, "meanwhile": meanwhile, "wrong": wrong}
    return visit.page(f"settings/{name}.html", status, **known, is_saved=False)


async def _saved(visit: Visit, name: str, said: str) -> Answer:
    """The part alone, so that what is typed in the others stays; a name stands elsewhere on the page, too."""
    if name == "organization" or not visit.is_partial:
        return visit.go(_PAGE, said)
    answer = visit.page(f"settings/{name}.html", **{**await _shown(visit), "is_saved": True})
    return answer.header(b"hx-trigger", json.dumps({"toast": {"kind": "success", "text": said}}))
