"""Invitations: somebody is asked by e-mail or by a copied link to become a member, and comes in by it once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import alerts, audit
from ostiary.ledger.outbox_store import Subject
from ostiary.names import LONGEST_NAME, checked_email, checked_name
from ostiary.orgs import (
    access_store,
    link_store,
    passwords,
    proof,
    roles,
    second_factor,
    sign_in,
    store,
    throttle,
    tokens,
    users,
)
from ostiary.orgs.link_store import Invitation
from ostiary.orgs.roles import checked_role
from ostiary.orgs.second_factor import Sealing
from ostiary.orgs.sign_in import SignedIn
from ostiary.orgs.store import Member, User
from ostiary.orgs.throttle import Charge
from ostiary.secret import Secret

__all__ = ["Invitation"]

VALID_MS: Final = 72 * 3_600_000
_SHOWN_MS: Final = 30 * 24 * 3_600_000
_MOST_OPEN: Final = 500
_DEED: Final = "invitations.accept"
_SPENT: Final = (
    "This invitation does not work any more: it was used, taken back, or is older than 72 hours. "
    "Ask whoever invited you for another."
)


async def invite(
    tx: Transaction, by: Actor, organization_id: str, email: str, role: str, at: int
) -> tuple[Invitation, Secret]:
    """Ask somebody to become a member; the token is returned here and nowhere else. Only owners invite owners.

    It takes the place of an open one for the same address.
    """
    _require(by, organization_id, checked_role(role))
    address = checked_email(email)
    await _alone(tx, by, organization_id)
    user = await store.find_user(tx, address)
    if user is not None and await store.find_role(tx, organization_id, user.id) is not None:
        raise Refusal("conflict", f"{address} is a member already.", param="email")
    known = await link_store.list_invitations(tx, organization_id, at - VALID_MS)
    still_open = [one for one in known if one.is_open(at)]
    if len(still_open) >= _MOST_OPEN:
        raise Refusal("conflict", f"{_MOST_OPEN} invitations are open. Revoke some of them first.")
    await link_store.mark_revoked(tx, [one.id for one in still_open if one.email == address], at)
    token = tokens.mint()
    made = Invitation(
        new_id("inv", at),
        organization_id,
        address,
        checked_role(role),
        invited_by=by.id,
        invited_by_name=by.name,
        created_at=at,
        expires_at=at + VALID_MS,
    )
    await link_store.add_invitation(tx, made, tokens.kept(token))
    await _tell(tx, by, "invitations.create", made, at, after={"role": made.role})
    return made, token


async def find(tx: Transaction, token: str, at: int) -> Invitation | None:
    """The open invitation of a token; looking spends nothing, and whatever does not work looks alike."""
    digest = tokens.digest(token)
    found = await link_store.find_invitation(tx, digest) if digest else None
    return found if found is not None and found.is_open(at) else None


async def needs(tx: Transaction, invitation: Invitation) -> str:
    """What accepting takes of whoever was invited: `password` they have, or a `new` one."""
    user = await store.find_user(tx, invitation.email)
    return "password" if user and await access_store.find_hash(tx, user.id) else "new"


async def accept(  # noqa: PLR0913 - what a page and its browser give
    database: Database,
    token: str,
    *,
    name: str,
    password: Secret | None,
    at: int,
    address: str | None,
    agent: str | None,
    code: str | None = None,
    seal: Sealing | None = None,
) -> SignedIn:
    """Become a member and come in. Who has a password gives it, and a code where they have a second factor.

    Who is new chooses a name and a password. Of several at once one wins; what fails spends nothing.
    """
    given = password or Secret("")
    async with database.read() as tx:
        invitation = await _open(tx, token, at)
        user = await store.find_user(tx, invitation.email)
        old = await access_store.find_hash(tx, user.id) if user else None
        if user is not None and old is None:
            await _require_alone(tx, user)
    charge, fresh = None, None
    called = user.name if user else checked_name(name)
    if user is not None and old is not None:
        _, charge = await proof.prove(database, user, given, at, address=address, deed=_DEED)
    else:
        fresh = await passwords.hashed(given, unlike=(called, invitation.email))
    async with database.transaction() as tx:
        invitation = await _open(tx, token, at)
        user = await users.ensure(tx, invitation.email, called, at)
        if await access_store.find_hash(tx, user.id, lock=True) != old:
            raise Refusal("conflict", "The password was changed a moment ago. Try again.")
        found = await _judge(tx, user, charge, code, seal, at)
        if found == "missing":
            return SignedIn(user, None, None, needs_code=True)
        if found == "right":
            if fresh is not None:
                await _require_alone(tx, user)
                await access_store.change_hash(tx, user.id, fresh, at)
            return await _admit(tx, invitation, user, at, address=address, agent=agent)
    refusal = Refusal("invalid_field", "The code is not right, or was used already.", param="code")
    known = await proof.look(database, user.email)
    raise await proof.failed(database, known, refusal, at, address=address, deed=_DEED)


async def revoke(tx: Transaction, by: Actor, organization_id: str, id: str, at: int) -> None:
    """Take an invitation back."""
    by.require("members.add", organization_id)
    invitation = await link_store.find_invitation_by_id(tx, organization_id, id)
    if invitation is None:
        raise Refusal("not_found", "There is no such invitation.")
    _require(by, organization_id, invitation.role)
    if await link_store.mark_revoked(tx, [invitation.id], at):
        await _tell(tx, by, "invitations.revoke", invitation, at, before={"role": invitation.role})


async def list_(tx: Transaction, by: Actor, organization_id: str, at: int) -> list[Invitation]:
    """The last 30 days' of the organization, the newest first, with what became of them."""
    by.require("members.list", organization_id)
    return await link_store.list_invitations(tx, organization_id, at - _SHOWN_MS)


async def revoke_of(tx: Transaction, organization_id: str, user_id: str, at: int) -> None:
    """Take back what somebody has handed out who may do so no more; a part of the deed that ends it."""
    known = await link_store.list_invitations(tx, organization_id, at - VALID_MS)
    mine = [one.id for one in known if one.invited_by == user_id and one.is_open(at)]
    await link_store.mark_revoked(tx, mine, at)


def _require(by: Actor, organization_id: str, role: str) -> None:
    by.require("members.add", organization_id)
    if role == "owner":
        by.require("members.role", organization_id)


async def _alone(tx: Transaction, by: Actor, organization_id: str) -> None:
    """One at a time in an organization, or two would be open for one address; and only who may by now.

    Whoever lets the actor go, or gives them another role, waits: what they hand out here is taken back with the rest.
    """
    await store.find_organization(tx, organization_id, lock=True)
    if by.organization_id is not None and await store.find_role(tx, organization_id, by.id, lock=True) != by.role:
        raise Refusal("conflict", "What you may do here was changed a moment ago. Look again.")


async def _open(tx: Transaction, token: str, at: int) -> Invitation:
    found = await find(tx, token, at)
    if found is None:
        raise Refusal("not_found", _SPENT)
    return found


async def _require_alone(tx: Transaction, user: User) -> None:
    """Refuse to give a password to somebody who is more than this invitation makes them.

    Whoever invites has the link, too: by it they would come in wherever else the address belongs.
    """
    is_more = user.is_operator or await access_store.has_identity(tx, user.id)
    if is_more or await store.list_memberships(tx, user.id):
        said = "This address is known here, but has no password yet. Ask for a link by 'Forgotten password' first."
        raise Refusal("conflict", said, param="password")


async def _judge(
    tx: Transaction, user: User, charge: Charge | None, code: str | None, seal: Sealing | None, at: int
) -> second_factor.Judged:
    if charge is None:
        return "right"
    found = await second_factor.judge(tx, user.id, code, seal, at)
    if found != "wrong":
        await throttle.give_back(tx, charge, at, is_success=found == "right")
    return found


async def _admit(
    tx: Transaction, invitation: Invitation, user: User, at: int, *, address: str | None, agent: str | None
) -> SignedIn:
    home = invitation.organization_id
    if not await link_store.claim_invitation(tx, invitation.id, at):
        raise Refusal("not_found", _SPENT)
    if await store.find_role(tx, home, user.id) is None:  # somebody may have added them meanwhile: then as that
        await store.add_member(tx, Member(home, user.id, user.email, user.name, invitation.role, at))
        await changes.append(tx, "member", home, user.id, at)
    by = roles.member_actor(user, await store.find_role(tx, home, user.id), home, "dashboard", address)
    await _tell(tx, by, _DEED, replace(invitation, accepted_at=at), at, after={"role": by.role})
    await _announce(tx, invitation, user, by.role or invitation.role, at)
    return await sign_in.let_in(tx, user, at, address=address, agent=agent, how="invitation", organization_id=home)


async def _announce(tx: Transaction, one: Invitation, user: User, role: str, at: int) -> None:
    """Whoever invited them hears of it, and who looks after the organization; who comes in knows."""
    subject = Subject(one.id, one.organization_id, one.email[:LONGEST_NAME], one.invited_by)
    facts = {"email": one.email, "name": user.name, "role": role, "invited_by": one.invited_by_name}
    await alerts.tell(tx, "invitation.accepted", "invitation", subject, facts, at, knows=user.email)


async def _tell(
    tx: Transaction,
    by: Actor,
    deed: str,
    one: Invitation,
    at: int,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    await audit.write(
        tx,
        by,
        deed,
        "invitation",
        one.id,
        one.email,
        organization_id=one.organization_id,
        before=before,
        after=after,
        at=at,
    )
    await changes.append(tx, "invitation", one.organization_id, one.id, at)
