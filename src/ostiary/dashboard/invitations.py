"""The page of an invitation: who is invited to what, and how they come in."""

from __future__ import annotations

from ostiary.dashboard import entrance, sign_in
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.orgs import invitations, organizations
from ostiary.secret import Secret


async def show(visit: Visit) -> Answer:
    """The page alone: the token stands behind `#`, where no scanner of mails and no log finds it."""
    return visit.page("invitations/show.html")


async def look(visit: Visit) -> Answer:
    """What the link is worth; looking spends nothing."""
    return await _form(visit)


async def accept(visit: Visit) -> Answer:
    """Become a member, and come in."""
    form = visit.form
    try:
        done = await invitations.accept(
            visit.hall.database,
            form.text("token"),
            name=form.text("name"),
            password=Secret(form.raw("password")),
            at=visit.at,
            address=visit.address,
            agent=visit.agent,
            code=form.text("code") or None,
            seal=visit.hall.factors,
        )
    except Refusal as refusal:
        if refusal.code == "not_found":
            return await _form(visit, 404)
        return await _form(visit, refusal.status, visit.refused(refusal), needs_code=form.has("code"))
    if done.needs_code:
        return await _form(visit, needs_code=True)
    async with visit.writing() as tx:
        await sign_in.end_old(tx, visit)
    visit.cookies.append(entrance.cookie(visit.hall, done.token))
    return visit.go(HOME, "Welcome. You are in.")


async def _form(visit: Visit, status: int = 200, wrong: Wrong | None = None, *, needs_code: bool = False) -> Answer:
    token = visit.form.text("token")
    async with visit.reading() as tx:
        found = await invitations.find(tx, token, visit.at)
        if found is None:
            return visit.page("invitations/form.html", status, invitation=None)
        needs = await invitations.needs(tx, found)
        home = await organizations.get(tx, found.organization_id)
    known = {"token": token, "invitation": found, "organization": home.name, "is_new": needs == "new"}
    return visit.page("invitations/form.html", status, needs_code=needs_code, wrong=wrong or Wrong(), **known)
