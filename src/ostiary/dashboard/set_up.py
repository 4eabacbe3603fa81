"""The first start: a link that works once makes the first owner."""

from __future__ import annotations

from ostiary.dashboard import entrance
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.orgs import set_up as first
from ostiary.secret import Secret


async def show(visit: Visit) -> Answer:
    """The page alone: the token stands behind `#`, where no log of a proxy finds it."""
    return visit.page("set_up/show.html")


async def look(visit: Visit) -> Answer:
    """What the link is worth; looking spends nothing."""
    return await _form(visit)


async def set_up(visit: Visit) -> Answer:
    """Make the owner, and sign them in."""
    form = visit.form
    try:
        done = await first.set_up(
            visit.hall.database,
            form.text("token"),
            name=form.text("name"),
            email=form.text("email"),
            password=Secret(form.raw("password")),
            organization=form.text("organization"),
            at=visit.at,
            address=visit.address,
            agent=visit.agent,
        )
    except Refusal as refusal:
        if refusal.code == "not_found":
            return await _form(visit, 404)
        return await _form(visit, refusal.status, visit.refused(refusal))
    visit.cookies.append(entrance.cookie(visit.hall, done.token))
    return visit.go(HOME, "Welcome. This instance is yours.")


async def _form(visit: Visit, status: int = 200, wrong: Wrong | None = None) -> Answer:
    """Who you are, and what your organization is called; or that the link does not work."""
    token = visit.form.text("token")
    async with visit.reading() as tx:
        is_open = await first.is_open(tx, token, visit.at)
    known = {"is_open": is_open, "token": token, "wrong": wrong or Wrong()}
    return visit.page("set_up/form.html", status, **known)
