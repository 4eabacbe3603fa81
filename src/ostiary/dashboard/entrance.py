"""Who stands at the door: the cookie of a session, where a request comes from, and what its form must carry."""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import unquote, urlsplit

from ostiary.dashboard.answers import SAID
from ostiary.dashboard.hall import LOOPBACK, Hall, Line
from ostiary.dashboard.visit import Guest, Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.orgs import roles, sessions
from ostiary.orgs.store import find_organization, find_user_by_id, list_memberships, list_organizations
from ostiary.secret import Secret

_HOST_COOKIE: Final = "__Host-ostiary"
_PLAIN_COOKIE: Final = "ostiary_session"
"""Where people come by http: a browser takes the other name over TLS only."""
_KINDS: Final = ("success", "info", "warning", "error")
_LONGEST_SAID: Final = 300


def cookie(hall: Hall, token: Secret | None) -> str:
    """The Set-Cookie of a session; with None, of its end."""
    name, tail = (_HOST_COOKIE, "; Secure") if hall.is_https else (_PLAIN_COOKIE, "")
    value = token.reveal() if token is not None else ""
    ends = "" if token is not None else "; Max-Age=0"
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Lax{tail}{ends}"


def token_of(hall: Hall, line: Line) -> str | None:
    """The session's token of a request, None when it has none."""
    return _cookies(line).get(_HOST_COOKIE if hall.is_https else _PLAIN_COOKIE) or None


def said_of(line: Line) -> tuple[str, str] | None:
    """What the page before left to say: kind and words."""
    kind, _, words = unquote(_cookies(line).get(SAID, "")).partition(":")
    return (kind, words[:_LONGEST_SAID]) if kind in _KINDS and words else None


def require_own_origin(hall: Hall, line: Line) -> None:
    """Refuses a write that another site's page sent: browsers say where one comes from."""
    site = line.headers.get(b"sec-fetch-site")
    origin = line.headers.get(b"origin")
    if site is not None and site not in (b"same-origin", b"none"):
        raise _foreign()
    if origin is None:
        if site is None:
            raise _foreign()
        return
    theirs = urlsplit(origin.decode("latin-1").lower())
    host = line.headers.get(b"host", b"").decode("latin-1").lower()
    ours = {("http", host), ("https", host)}
    if hall.settings.public_url is not None:
        # Then a Host is nothing to go by, but on the machine itself: anybody's name can be made to lead here.
        told = urlsplit(hall.settings.public_url.lower())
        ours = {(told.scheme, told.netloc), *(pair for pair in ours if urlsplit(f"//{pair[1]}").hostname in LOOPBACK)}
    if (theirs.scheme, theirs.netloc) not in ours:
        raise _foreign()


def is_of_now(visit: Visit) -> bool:
    """Whether a signed-in browser asks from a page of its session, in the organization that it works in by now.

    A write carries the session's own token; what a script reads names the organization that its page is headed with.
    """
    headers = visit.line.headers
    if not visit.route.is_write:
        home = visit.here.organization
        shown = headers.get(b"x-ostiary-organization") if visit.is_partial else None
        return shown is None or (home is not None and shown == home.id.encode())
    sent = headers.get(b"x-csrf-token", b"").decode("latin-1") or visit.form.raw("csrf")
    return hmac.compare_digest(sent.encode(), visit.here.csrf.encode())


async def guest_of(tx: Transaction, token: str | None, at: int, address: str | None) -> Guest | None:
    """Who a session stands for, with the role they have now; None when it is over."""
    session = None if token is None else await sessions.find(tx, token, at)
    user = None if session is None else await find_user_by_id(tx, session.user_id)
    if token is None or session is None or user is None:
        return None
    roles_by_place = dict(await list_memberships(tx, user.id))
    places = list(roles_by_place)
    if user.is_operator and session.organization_id is not None:
        places = list(dict.fromkeys([*places, session.organization_id]))  # others are opened at Operator
    found = [await find_organization(tx, id_) for id_ in places]
    known = [one for one in found if one is not None]
    if not known and user.is_operator:
        known = (await list_organizations(tx))[:1]
    organization = next((one for one in known if one.id == session.organization_id), known[0] if known else None)
    chosen = None if organization is None else organization.id
    role = roles_by_place.get(chosen or "")
    by = roles.page_actor(user, role, chosen, address)
    return Guest(session, token, user, by, organization, tuple((one.id, one.name) for one in known))


def _cookies(line: Line) -> dict[str, str]:
    pairs = b"; ".join(line.all_of(b"cookie")).decode("latin-1").split(";")
    return {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in pairs)}


def _foreign() -> Refusal:
    return Refusal("insufficient_scope", "This form was not sent by a page of this gateway. Load the page again.")
