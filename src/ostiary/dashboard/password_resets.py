"""A new password for who has forgotten theirs: asked for by mail, chosen by a link that works once."""

from __future__ import annotations

from typing import Final

from ostiary.dashboard import entrance, letters, sign_in
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.mail import Mailer
from ostiary.names import checked_email
from ostiary.orgs import password_resets
from ostiary.secret import Secret

_PAGE: Final = f"{HOME}/reset-password"


async def ask(visit: Visit) -> Answer:
    """Whose password is forgotten."""
    return visit.page("password_resets/forgotten.html", has_mail=visit.hall.mailer is not None, is_sent=False)


async def send(visit: Visit) -> Answer:
    """Mail a link to whoever has this address. The answer is the same, and takes as long, when nobody has it."""
    mailer = visit.hall.mailer
    if mailer is None:
        return visit.page("password_resets/forgotten.html", 409, has_mail=False, is_sent=False)
    try:
        email = checked_email(visit.form.text("email"))
        visit.hall.post.later(lambda: _mail(visit, mailer, email))
    except Refusal as refusal:
        wrong = visit.refused(refusal)
        return visit.page("password_resets/forgotten.html", refusal.status, has_mail=True, is_sent=False, wrong=wrong)
    return visit.page("password_resets/forgotten.html", has_mail=True, is_sent=True)


async def _mail(visit: Visit, mailer: Mailer, email: str) -> None:
    hall = visit.hall
    async with hall.database.transaction() as tx:
        found = await password_resets.request(tx, email, visit.at)
    if found is not None:
        user, token = found
        link = Secret(f"{hall.base_url}{_PAGE}#{token.reveal()}")
        await letters.send_reset(mailer, user.email, link, visit.at, base=hall.base_url)


async def show(visit: Visit) -> Answer:
    """The page of the link. Its token stands behind `#`, so a script has to ask what it is worth."""
    return visit.page("password_resets/reset.html")


async def look(visit: Visit) -> Answer:
    """What the link is worth; looking spends nothing."""
    token = visit.form.text("token")
    async with visit.reading() as tx:
        is_open = await password_resets.is_open(tx, token, visit.at)
    return visit.page("password_resets/form.html", 200, is_open=is_open, token=token)


async def reset(visit: Visit) -> Answer:
    """Set the password; whoever did signs in with it, and with the second factor if they have one."""
    form = visit.form
    token = form.text("token")
    try:
        password = sign_in.twice(form, "password")
        await password_resets.reset(visit.hall.database, token, password, visit.at, address=visit.address)
    except Refusal as refusal:
        if refusal.code == "not_found":
            return visit.page("password_resets/form.html", 404, is_open=False, token="")
        wrong = visit.refused(refusal)
        return visit.page("password_resets/form.html", refusal.status, is_open=True, token=token, wrong=wrong)
    visit.cookies.append(entrance.cookie(visit.hall, None))
    return visit.go(f"{HOME}/sign-in", "Your password is set. Sign in with it.")
