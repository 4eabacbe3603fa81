"""Signing in and out, and in again where a session has ended or a deed asks for a recent sign-in."""

from __future__ import annotations

from typing import Final

from ostiary.dashboard import entrance, forms
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Form
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit, csrf_of
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.orgs import sessions
from ostiary.orgs import sign_in as entry
from ostiary.orgs.access_store import may_anybody_sign_in
from ostiary.orgs.sessions import Session
from ostiary.orgs.sign_in import SignedIn
from ostiary.secret import Secret

_WHY: Final = {
    "session": "Sign in to go on.",
    "proof": "This needs a recent sign-in.",
}
_PLAIN: Final = "To the dashboard of this gateway."
_CODE: Final = "Enter the code of your second factor, too."


async def show(visit: Visit) -> Answer:
    """The form; who is signed in and need not prove it goes on."""
    why = visit.query.text("why")
    if visit.guest is not None and why != "proof":
        return visit.go(visit.query.text("next") or HOME)
    async with visit.reading() as tx:
        is_new = not await may_anybody_sign_in(tx)
    said = "Nobody has signed up yet. Use the link that 'ostiary serve' printed when it started." if is_new else ""
    return _form(visit, why=said or _WHY.get(why, _PLAIN))


async def sign_in(visit: Visit) -> Answer:
    """Start a session; the old one of this browser ends. A script gets only what is new, beside what was typed."""
    try:
        done = await _entered(visit)
    except Refusal as refusal:
        return form(visit, refusal, needs_code=visit.form.has("code"))
    if done.needs_code:
        return _form(visit, needs_code=True)
    visit.cookies.append(entrance.cookie(visit.hall, done.token))
    return visit.go(visit.form.text("next") or HOME)


async def again(visit: Visit) -> Answer:
    """Sign in without leaving the page: the dialog tells the script what it needs to go on."""
    guest, wanted = visit.guest, visit.form.text("organization")
    if not visit.form.raw("password"):
        if guest is None or not sessions.is_proved(guest.session, visit.at):
            return _said(422, "Enter your password, or sign in elsewhere first.")
        return await _go_on(visit, guest.session, guest.token, wanted)  # they did it in another tab
    try:
        done = await _entered(visit)
    except Refusal as refusal:
        return _said(refusal.status, refusal.message)
    if done.session is None or done.token is None:
        return _said(401, _CODE)
    visit.cookies.append(entrance.cookie(visit.hall, done.token))
    return await _go_on(visit, done.session, done.token.reveal(), wanted)


async def _go_on(visit: Visit, session: Session, token: str, wanted: str) -> Answer:
    """What the script needs; the session is in the organization of the page from then on, wherever it began."""
    if wanted and wanted != session.organization_id:
        try:
            async with visit.writing() as tx:
                await sessions.enter(tx, session, wanted)
        except Refusal:
            return _said(409, "You are signed in, but not where this page belongs. Load it again.")
    return Answer(204).header(b"x-ostiary-csrf", csrf_of(token, wanted or session.organization_id or ""))


async def sign_out(visit: Visit) -> Answer:
    """End this session."""
    async with visit.writing() as tx:
        await sessions.end(tx, visit.by, visit.here.session.id, visit.at)
    visit.cookies.append(entrance.cookie(visit.hall, None))
    return visit.go(f"{HOME}/sign-in")


async def enter(visit: Visit) -> Answer:
    """Look at another organization."""
    wanted = visit.form.text("organization")
    if wanted not in [id_ for id_, _ in visit.here.organizations]:
        raise Refusal("not_found")
    async with visit.writing() as tx:
        await sessions.enter(tx, visit.here.session, wanted)
    return visit.go(HOME)


# ---- what others that let somebody in need, too -----------------------------------------------------------------


async def end_old(tx: Transaction, visit: Visit) -> None:
    """A browser has one session: the one it had is over when another begins."""
    if visit.guest is not None:
        await sessions.end(tx, visit.by, visit.here.session.id, visit.at)


def form(visit: Visit, refusal: Refusal, *, needs_code: bool = False, wanted: str | None = None) -> Answer:
    """The form to sign in, with what was refused."""
    answer = _form(visit, refusal.status, wrong=forms.wrong(refusal), needs_code=needs_code, wanted=wanted)
    answer.headers.extend(refusal.headers)
    return answer


def twice(form: Form, name: str) -> Secret:
    """A password that was typed twice, so that nobody is locked out by a slip."""
    if form.raw(name) != form.raw("again"):
        raise Refusal("invalid_field", "The two are not the same.", param="again")
    return Secret(form.raw(name))


def proof(visit: Visit) -> Answer | None:
    """Asks for a recent sign-in where there was none: for deeds that need it only sometimes."""
    if sessions.is_proved(visit.here.session, visit.at):
        return None
    return Answer(401).header(b"x-ostiary-sign-in", "proof").header(b"hx-reswap", "none")


async def _entered(visit: Visit) -> SignedIn:
    given = visit.form
    done = await entry.sign_in(
        visit.hall.database,
        given.text("email"),
        Secret(given.raw("password")),
        given.text("code") or None,
        visit.at,
        address=visit.address,
        agent=visit.agent,
        seal=visit.hall.factors,
    )
    if done.session is not None and visit.guest is not None:
        async with visit.writing() as tx:
            await end_old(tx, visit)
    return done


def _form(visit: Visit, status: int = 200, *, wanted: str | None = None, **known: object) -> Answer:
    oidc = visit.hall.oidc
    defaults: dict[str, object] = {
        "needs_code": False,
        "why": _PLAIN,
        "oidc_name": oidc.name if oidc else "",
        "proof": "proof" if visit.query.text("why") == "proof" else "",
        "next": wanted or visit.query.text("next") or visit.form.text("next") or HOME,
    }
    return visit.page("parts/sign_in.html" if visit.is_partial else "sign_in.html", status, **{**defaults, **known})


def _said(status: int, words: str) -> Answer:
    """A header is what a script of the dialog reads; it holds ASCII."""
    return Answer(status).header(b"x-ostiary-said", words.encode("ascii", "replace"))
