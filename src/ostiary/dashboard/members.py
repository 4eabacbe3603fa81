"""Members: who belongs to the organization and as what, who is invited, and how somebody is let go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import revoke_all_of
from ostiary.agents.pages_store import Wanted
from ostiary.dashboard import account, entrance, letters, sign_in
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.mail import Unsent
from ostiary.orgs import invitations, members, sessions
from ostiary.orgs.invitations import Invitation
from ostiary.orgs.members import Member
from ostiary.secret import Secret

_PAGE: Final = f"{HOME}/settings/members"
_ROWS: Final = 50
_KEYS_SHOWN: Final = 20
ROLES: Final = (
    ("member", "Member – uses keys of their own"),
    ("admin", "Admin – runs everything but roles and the budget"),
    ("owner", "Owner – may do everything here"),
)


@dataclass(frozen=True, slots=True)
class Listed:
    """One page of members, and where the next begins."""

    shown: tuple[Member, ...]
    total: int
    next_cursor: str


async def list_(visit: Visit) -> Answer:
    """Everybody, and the open invitations."""
    async with visit.reading() as tx:
        found = _listed(visit, await members.list_(tx, visit.by, visit.home))
        asked = await _open(visit, tx)
    if visit.is_partial:
        return visit.page("members/rows.html", found=found)
    has_mail = visit.hall.mailer is not None
    roles = _roles(visit)
    return visit.page(
        "members/list.html", found=found, invitations=asked, roles=roles, has_mail=has_mail, tab="members"
    )


def _listed(visit: Visit, everybody: list[Member]) -> Listed:
    sought, role, after = visit.query.text("q").casefold(), visit.query.text("role"), visit.query.text("after")
    fitting = [
        one
        for one in sorted(everybody, key=lambda one: (one.created_at, one.user_id))
        if (sought in one.name.casefold() or sought in one.email) and role in ("", one.role)
    ]
    begin = next((place + 1 for place, one in enumerate(fitting) if one.user_id == after), 0)
    shown = fitting[begin : begin + _ROWS]
    more = len(fitting) > begin + _ROWS
    return Listed(tuple(shown), len(everybody), shown[-1].user_id if more else "")


async def _open(visit: Visit, tx: Transaction) -> list[Invitation]:
    found = await invitations.list_(tx, visit.by, visit.home, visit.at)
    return [one for one in found if one.is_open(visit.at)]


def _roles(visit: Visit) -> tuple[tuple[str, str], ...]:
    """What can be given away by who looks: only owners make owners."""
    return ROLES if visit.may("members.role") else ROLES[:2]


# ---- invitations --------------------------------------------------------------------------------------------------


async def invite(visit: Visit) -> Answer:
    """Ask somebody in, by mail or by a link that is in this answer and never again."""
    form = visit.form
    role = form.text("role") or "member"
    if role != "member" and (asked := sign_in.proof(visit)) is not None:
        return asked
    try:
        async with visit.writing() as tx:
            made, token = await invitations.invite(tx, visit.by, visit.home, form.text("email"), role, visit.at)
    except Refusal as refusal:
        wrong = visit.refused(refusal)
        known = {"roles": _roles(visit), "has_mail": visit.hall.mailer is not None, "wrong": wrong}
        return visit.page("members/invite.html", refusal.status, **known)
    unsent = await _mail(visit, made, token) if form.has("by_mail") else None
    link = f"{_base(visit)}{HOME}/invitation#{token.reveal()}"
    return visit.page("members/invited.html", invitation=made, link="" if unsent == "" else link, unsent=unsent)


async def _mail(visit: Visit, made: Invitation, token: Secret) -> str:
    """Why the letter was not taken; empty when it was."""
    hall, here = visit.hall, visit.here
    if hall.mailer is None:
        return "No mail server is set."
    link = Secret(f"{hall.base_url}{HOME}/invitation#{token.reveal()}")
    organization = here.organization.name if here.organization else ""
    try:
        await letters.send_invitation(
            hall.mailer,
            made.email,
            link,
            visit.at,
            by=here.user.name,
            organization=organization,
            role=made.role,
            base=hall.base_url,
        )
    except Unsent as unsent:
        return unsent.text
    return ""


def _base(visit: Visit) -> str:
    """As whoever copies the link has come here themselves: their browser said so, not somebody else's."""
    public = visit.hall.settings.public_url
    return public or f"http://{visit.line.headers.get(b'host', b'').decode('latin-1')}"


async def revoke(visit: Visit) -> Answer:
    """Take an invitation back."""
    async with visit.writing() as tx:
        await invitations.revoke(tx, visit.by, visit.home, visit.names["id"], visit.at)
    return visit.go(_PAGE, "The invitation is taken back.")


# ---- one member ---------------------------------------------------------------------------------------------------


async def show(visit: Visit) -> Answer:
    """One member: the role, the keys, the browsers, and what would go with them."""
    return await _one(visit)


async def _one(visit: Visit, status: int = 200, said: str = "", was: str = "") -> Answer:
    wanted = Wanted(owner_id=visit.names["id"], limit=_KEYS_SHOWN)
    async with visit.reading() as tx:
        member = _found(await members.list_(tx, visit.by, visit.home), visit.names["id"])
        keys = await agent_keys.list_page(tx, visit.by, visit.home, wanted, visit.at)
        found = await sessions.list_(tx, visit.by, member.user_id, visit.at)
    browsers = [account.Browser(one, account.named(one.agent or ""), is_this=False) for one in found]
    return visit.page(
        "members/role.html" if visit.is_partial else "members/show.html",
        status,
        member=member,
        keys=keys.keys,
        has_more_keys=keys.after is not None,
        browsers=browsers,
        roles=ROLES,
        is_me=member.user_id == visit.here.user.id,
        said_of_role=said,
        was=was or member.role,
    )


async def change_role(visit: Visit) -> Answer:
    """Another role. Their browsers are signed out; one's own goes on under a new token."""
    id_, role, was = visit.names["id"], visit.form.text("role"), visit.form.text("was") or None
    mine = visit.here.session
    is_me = id_ == visit.here.user.id
    try:
        async with visit.writing() as tx:
            but = mine.id if is_me else None
            member = await members.change_role(tx, visit.by, visit.home, id_, role, visit.at, was=was, but=but)
            token = (await sessions.renew(tx, mine, visit.at))[1] if is_me else None
    except Refusal as refusal:
        # What the role was stays as it was seen until it is told that it is another by now.
        seen = "" if refusal.code == "conflict" else was or ""
        return await _one(visit, refusal.status, visit.refused(refusal).message, seen)
    if token is not None:
        visit.cookies.append(entrance.cookie(visit.hall, token))
        return visit.go(_PAGE if role != "member" else HOME, f"You are {role} now.")
    return visit.go(f"{_PAGE}/{id_}", f"{member.name} is {role} now, and signed out.")


async def end_sessions(visit: Visit) -> Answer:
    """Sign a member out of this organization, wherever they work in it."""
    id_ = visit.names["id"]
    async with visit.writing() as tx:
        member = _found(await members.list_(tx, visit.by, visit.home), id_)
        but = visit.here.session.id
        ended = await sessions.end_all(tx, visit.by, member.user_id, visit.at, but=but)
    return visit.go(f"{_PAGE}/{id_}", f"{ended} signed out." if ended else "There was none to end.")


async def remove(visit: Visit) -> Answer:
    """Let a member go: keys, browsers and invitations of theirs go with them."""
    is_me = visit.names["id"] == visit.here.user.id
    try:
        async with visit.writing() as tx:
            gone = await members.remove(tx, visit.by, visit.home, visit.names["id"], visit.at, let_go=revoke_all_of)
    except Refusal as refusal:
        return visit.go(f"{_PAGE}/{visit.names['id']}", visit.refused(refusal).message, "error")
    if is_me:
        return visit.go(HOME, "You have left the organization.")
    return visit.go(_PAGE, f"{gone.name} is removed, and their keys are revoked.")


def _found(everybody: list[Member], user_id: str) -> Member:
    member = next((one for one in everybody if one.user_id == user_id), None)
    if member is None:
        raise Refusal("not_found")
    return member
