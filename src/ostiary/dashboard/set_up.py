"""The first start: a link that works once makes the first owner."""

from __future__ import annotations

from ostiary.dashboard import entrance, forms
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.orgs import set_up as first
from ostiary.secret import Secret


async def show(visit: Visit) -> Answer:
    """Who you are, and what your organization is called. Looking spends nothing."""
    token = visit.query.text("token")
    async with visit.reading() as tx:
        is_open = await first.is_open(tx, token, visit.at)
    return visit.page("set_up.html", 200 if is_open else 404, token=token, is_open=is_open)


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
            return visit.page("set_up.html", 404, token="", is_open=False)
        wrong = forms.wrong(refusal)
        return visit.page("set_up.html", refusal.status, token=form.text("token"), is_open=True, wrong=wrong)
    visit.cookies.append(entrance.cookie(visit.hall, done.token))
    return visit.go(HOME, "Welcome. This instance is yours.")
