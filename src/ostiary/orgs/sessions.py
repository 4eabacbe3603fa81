"""Sessions: browsers that are signed in, kept here, and known by a token of which only the digest is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import audit
from ostiary.orgs import link_store, roles, session_store, store, tokens
from ostiary.orgs.session_store import SessionRow
from ostiary.orgs.store import User
from ostiary.secret import Secret

_MINUTE_MS: Final = 60_000
IDLE_MS: Final = 30 * _MINUTE_MS
ABSOLUTE_MS: Final = 12 * 60 * _MINUTE_MS
PROVED_MS: Final = 10 * _MINUTE_MS
_SKEW_MS: Final = 5 * _MINUTE_MS
"""How far the clocks of two gateways may be apart. A session from further ahead is from before one was set back."""
_KEPT_MS: Final = 30 * 24 * 60 * _MINUTE_MS
"""For how long it can be seen what became of an invitation."""
_PORTION: Final = 1_000
_LONGEST_ADDRESS, _LONGEST_AGENT = 64, 300
_CSRF: Final = "csrf"
_GONE: Final = "This session has ended. Sign in again."


@dataclass(frozen=True, slots=True)
class Session:
    """A browser at work for a user in an organization; None where none is chosen, or there is none to choose.

    `csrf` is what its forms carry; only who has the token can tell it, so it is empty in lists.
    """

    id: str
    user_id: str
    organization_id: str | None
    created_at: int
    seen_at: int
    proved_at: int
    address: str | None
    agent: str | None
    csrf: str = field(repr=False)


# ---- begun and found --------------------------------------------------------------------------------------------


async def start(
    tx: Transaction,
    user_id: str,
    organization_id: str | None,
    at: int,
    *,
    address: str | None,
    agent: str | None,
    proved_at: int | None = None,
) -> tuple[Session, Secret]:
    """Begin one for somebody who has proved who they are, now or at `proved_at`; the token is returned here alone."""
    token = tokens.mint()
    row = SessionRow(
        new_id("ses", at),
        user_id,
        organization_id,
        created_at=at,
        seen_at=at,
        proved_at=at if proved_at is None else min(at, proved_at),
        address=_clipped(address, _LONGEST_ADDRESS),
        agent=_clipped(agent, _LONGEST_AGENT),
    )
    await session_store.add_session(tx, row, tokens.kept(token))
    return _session(row, token.reveal()), token


async def find(tx: Transaction, token: str, at: int) -> Session | None:
    """The session of a token; None when there is none, or it has run out."""
    digest = tokens.digest(token)
    row = await session_store.find_session(tx, digest) if digest else None
    return _session(row, token) if row is not None and _is_alive(row, at) else None


async def actor_of(tx: Transaction, session: Session, address: str | None = None) -> tuple[User, Actor]:
    """Who is at work in a session, with the role they have at this moment; an operator reaches everything."""
    user = await store.find_user_by_id(tx, session.user_id)
    if user is None:
        raise Refusal("not_found", _GONE)
    home = session.organization_id
    role = None if home is None else await store.find_role(tx, home, user.id)
    return user, roles.page_actor(user, role, home, address or session.address)


async def touch(tx: Transaction, session: Session, at: int) -> Session:
    """Note that it is still used: written once a minute at most."""
    if abs(at - session.seen_at) < _MINUTE_MS:
        return session
    await session_store.change_session(tx, session.id, seen_at=at)
    return replace(session, seen_at=at)


async def prove(tx: Transaction, session: Session, at: int) -> Session:
    """Note that its user has just proved again who they are; who calls this has seen to it."""
    await _change(tx, session, proved_at=at, seen_at=at)
    return replace(session, proved_at=at, seen_at=at)


def is_proved(session: Session, at: int) -> bool:
    """Whether its user has proved who they are within the last ten minutes."""
    return -_SKEW_MS <= at - session.proved_at <= PROVED_MS


async def renew(tx: Transaction, session: Session, at: int) -> tuple[Session, Secret]:
    """The same session under a new id and token; the old ones are worth nothing. It ends when it would have ended."""
    token, id_ = tokens.mint(), new_id("ses", at)
    await _change(tx, session, id=id_, digest=tokens.kept(token), seen_at=at)
    csrf = tokens.derived(token.reveal(), _CSRF)
    return replace(session, id=id_, seen_at=at, csrf=csrf), token


async def enter(tx: Transaction, session: Session, organization_id: str) -> Session:
    """Work in another organization: one that the user belongs to, or any for the operator."""
    user = await store.find_user_by_id(tx, session.user_id)
    role = await store.find_role(tx, organization_id, session.user_id)
    if role is None and user is not None and user.is_operator:
        known = await store.find_organization(tx, organization_id)
        role = "operator" if known is not None and known.id == organization_id else None
    if role is None:
        raise Refusal("not_found", "There is no such organization, or you do not belong to it.")
    await _change(tx, session, organization_id=organization_id)
    return replace(session, organization_id=organization_id)


# ---- listed and ended -------------------------------------------------------------------------------------------


async def list_(tx: Transaction, by: Actor, user_id: str, at: int) -> list[Session]:
    """A user's that are alive: all of one's own, of others those in the actor's organization. The last seen first."""
    return [_session(row, None) for row in await _reached(tx, by, "sessions.list", user_id) if _is_alive(row, at)]


async def end(tx: Transaction, by: Actor, session_id: str, at: int) -> None:
    """Sign one browser out: one's own, or one of a member's that works in the actor's organization."""
    row = await session_store.find_session_by_id(tx, session_id)
    is_own = row is not None and _is_own(by, row.user_id)
    home = by.organization_id if is_own or row is None else row.organization_id
    by.require("sessions.end", home, row.user_id if row else by.id)
    if row is None:
        raise Refusal("not_found", "There is no such session; it may have ended already.")
    if await session_store.remove_sessions(tx, [row.id]):
        await _tell(tx, by, [row], at)


async def end_all(tx: Transaction, by: Actor, user_id: str, at: int, but: str | None) -> int:
    """Sign out every browser that `list_` shows, but the one of this id; the answer is how many there were."""
    rows = [row for row in await _reached(tx, by, "sessions.end", user_id) if row.id != but]
    ended = await session_store.remove_sessions(tx, [row.id for row in rows])
    if ended:
        await _tell(tx, by, rows, at)
    return ended


async def end_of(tx: Transaction, user_id: str, *, organization_id: str | None = None, but: str | None = None) -> int:
    """End a user's sessions (only those in this organization, where one is given) as a part of another deed.

    Asks nobody's leave and writes no row: the deed that it is a part of does both.
    """
    rows = await session_store.list_sessions(tx, user_id)
    ids = [one.id for one in rows if one.id != but and organization_id in (None, one.organization_id)]
    return await session_store.remove_sessions(tx, ids)


async def prune(database: Database, at: int) -> None:
    """Forget sessions and links that have run out, old failures and invitations, in portions; runs by the clock."""
    while True:
        async with database.transaction() as tx:
            removed = await session_store.remove_expired(
                tx, seen_before=at - IDLE_MS, made_before=at - ABSOLUTE_MS, limit=_PORTION
            )
            removed += await session_store.remove_old_failures(tx, at - ABSOLUTE_MS, _PORTION)
            if removed < _PORTION:
                await link_store.remove_old_links(tx, at - ABSOLUTE_MS)
                await link_store.remove_old_invitations(tx, at - _KEPT_MS)
                return


# ---- parts ------------------------------------------------------------------------------------------------------


async def _reached(tx: Transaction, by: Actor, deed: str, user_id: str) -> list[SessionRow]:
    by.require(deed, by.organization_id, user_id)
    rows = await session_store.list_sessions(tx, user_id)
    if by.organization_id is None or _is_own(by, user_id):
        return rows
    return [row for row in rows if row.organization_id == by.organization_id]


def _is_own(by: Actor, user_id: str) -> bool:
    return by.kind == "user" and by.id == user_id


def _is_alive(row: SessionRow, at: int) -> bool:
    return -_SKEW_MS <= at - row.created_at <= ABSOLUTE_MS and at - row.seen_at <= IDLE_MS


async def _change(tx: Transaction, session: Session, **values: object) -> None:
    if not await session_store.change_session(tx, session.id, **values):
        raise Refusal("not_found", _GONE)


async def _tell(tx: Transaction, by: Actor, rows: Sequence[SessionRow], at: int) -> None:
    """One row of the log for each organization in which a session was ended."""
    user = await store.find_user_by_id(tx, rows[0].user_id)
    for home in dict.fromkeys(row.organization_id for row in rows):
        ended = [row.id for row in rows if row.organization_id == home]
        await audit.write(
            tx,
            by,
            "sessions.end",
            "user",
            rows[0].user_id,
            user.email if user else "",
            organization_id=home,
            before={"sessions": ended},
            at=at,
        )
    await changes.append(tx, "session", by.organization_id, rows[0].user_id, at)


def _session(row: SessionRow, token: str | None) -> Session:
    csrf = tokens.derived(token, _CSRF) if token is not None else ""
    return Session(
        row.id,
        row.user_id,
        row.organization_id,
        row.created_at,
        row.seen_at,
        row.proved_at,
        row.address,
        row.agent,
        csrf,
    )


def _clipped(text: str | None, longest: int) -> str | None:
    """What a browser says of itself, as far as it can be stored and shown."""
    if text is None:
        return None
    return "".join(letter for letter in text[: 4 * longest] if letter.isprintable())[:longest]
