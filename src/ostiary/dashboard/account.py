"""One's own account: the name one goes by, the password, the second factor, and the browsers that are signed in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ostiary.dashboard import entrance, sign_in
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.orgs import access_store, password_resets, second_factor, sessions, users
from ostiary.orgs.sessions import Session
from ostiary.secret import Secret

_PAGE: Final = f"{HOME}/account"
_ROWS: Final = 20
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR", "Opera"),
    ("Firefox", "Firefox"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
_MACHINES: Final = (
    *(("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows")),
    *(("Mac OS", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux")),
)


@dataclass(frozen=True, slots=True)
class Browser:
    """A session as its user knows it again."""

    session: Session
    name: str
    is_this: bool


async def show(visit: Visit) -> Answer:
    """Everything about the account."""
    user = visit.here.user
    async with visit.reading() as tx:
        has_password = await access_store.find_hash(tx, user.id) is not None
        factor = await second_factor.show(tx, user.id)
        found = await sessions.list_(tx, visit.by, user.id, visit.at)
    mine = visit.here.session.id
    browsers = [Browser(one, named(one.agent or ""), one.id == mine) for one in found]
    page, following = _cut(sorted(browsers, key=lambda one: not one.is_this), visit.query.text("after"))
    return visit.page(
        "account/show.html",
        has_password=has_password,
        factor=factor,
        name=user.name,
        browsers=page,
        total=len(browsers),
        following=following,
        is_first=not visit.query.text("after"),
    )


def _cut(browsers: list[Browser], after: str) -> tuple[list[Browser], str]:
    """One page, and the session that the next begins behind; one that has ended meanwhile begins anew."""
    begin = next((place + 1 for place, one in enumerate(browsers) if one.session.id == after), 0)
    page = browsers[begin : begin + _ROWS]
    return page, page[-1].session.id if len(browsers) > begin + _ROWS else ""


async def change_name(visit: Visit) -> Answer:
    """Another name, in every organization one belongs to; the whole page comes anew, as the menu says it, too."""
    typed = visit.form.text("name")
    try:
        async with visit.writing() as tx:
            await users.rename(tx, visit.by, visit.here.user.id, typed, visit.at)
    except Refusal as refusal:
        return visit.page("account/name.html", refusal.status, name=typed, wrong=visit.refused(refusal))
    return visit.go(_PAGE, "Your name is changed.")


async def change_password(visit: Visit) -> Answer:
    """Another password. Every other browser is signed out, and this one has a new token."""
    form, session = visit.form, visit.here.session
    old = Secret(form.raw("old"))
    try:
        new = sign_in.twice(form, "new")
        await password_resets.change_password(visit.hall.database, session, old, new, visit.at, address=visit.address)
    except Refusal as refusal:
        return visit.page("account/password.html", refusal.status, wrong=_beside(visit, refusal))
    async with visit.writing() as tx:
        _, token = await sessions.renew(tx, session, visit.at)
    visit.cookies.append(entrance.cookie(visit.hall, token))
    return visit.go(_PAGE, "Your password is changed. Every other browser is signed out.")


async def end(visit: Visit) -> Answer:
    """Sign one of one's own browsers out; this very one goes to the sign-in."""
    id_ = visit.names["id"]
    async with visit.writing() as tx:
        mine = [one.id for one in await sessions.list_(tx, visit.by, visit.here.user.id, visit.at)]
        if id_ not in mine:
            raise Refusal("not_found")
        await sessions.end(tx, visit.by, id_, visit.at)
    if id_ == visit.here.session.id:
        visit.cookies.append(entrance.cookie(visit.hall, None))
        return visit.go(f"{HOME}/sign-in")
    return visit.go(_PAGE, "That browser is signed out.")


async def end_others(visit: Visit) -> Answer:
    """Sign every other browser out."""
    here = visit.here
    async with visit.writing() as tx:
        ended = await sessions.end_all(tx, visit.by, here.user.id, visit.at, but=here.session.id)
    return visit.go(_PAGE, f"{ended} signed out." if ended else "There was no other.")


def named(agent: str) -> str:
    """What a browser calls itself, in two words that people know."""
    browser = next((name for mark, name in _BROWSERS if f"{mark}/" in agent), "")
    machine = next((name for mark, name in _MACHINES if mark in agent), "")
    if browser and machine:
        return f"{browser} on {machine}"
    return browser or machine or re.sub(r"[\s/(].*", "", agent)[:40] or "A browser"


def _beside(visit: Visit, refusal: Refusal) -> Wrong:
    """Both passwords are `password` to the deed: that the old one is wrong is said by another sentence."""
    is_old = refusal.message == "The password is not right."
    return visit.refused(refusal, {"password": "old" if is_old else "new"})
