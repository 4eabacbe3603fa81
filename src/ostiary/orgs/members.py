"""Members: who belongs to an organization, and in which role."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.orgs import invitations, sessions, store, users, verified
from ostiary.orgs.roles import checked_role, key_actor
from ostiary.orgs.store import Member

__all__ = ["Member"]

LetGo = Callable[[Transaction, Actor, str, str, int], Awaitable[object]]
"""Ends what belongs to a user in an organization, at a time: `agents.agent_keys.revoke_all_of`."""


async def add(tx: Transaction, by: Actor, organization_id: str, email: str, name: str, role: str, at: int) -> Member:
    """Make somebody a member, and a user if they are new. Only who may give roles can add an owner."""
    by.require("members.add", organization_id)
    checked = checked_role(role)
    if checked == "owner":
        by.require("members.role", organization_id)
    user = await users.ensure(tx, email, name, at)
    await verified.require(tx, user, "Nobody can be added unseen")
    member = Member(organization_id, user.id, user.email, user.name, checked, at)
    await store.add_member(tx, member)
    await _tell(tx, by, "members.add", member, at, before=None, after={"role": checked})
    return member


async def list_(tx: Transaction, by: Actor, organization_id: str) -> list[Member]:
    """All of the organization, oldest first."""
    by.require("members.list", organization_id)
    return await store.list_members(tx, organization_id)


async def change_role(
    tx: Transaction,
    by: Actor,
    organization_id: str,
    id_or_email: str,
    role: str,
    at: int,
    *,
    was: str | None = None,
    but: str | None = None,
) -> Member:
    """Give a member another role; an organization that has owners keeps one.

    `was` is the role that whoever decides has seen: `conflict` when it is another by now.

    Browsers in which they are at work here are signed out, and their open invitations taken back. `but` is a session
    that goes on: the one in which somebody changes their own role, and which the door renews.
    """
    by.require("members.role", organization_id)
    checked = checked_role(role)
    members = await store.list_members(tx, organization_id, lock=True)  # two owners must not demote each other at once
    member = _meant(members, id_or_email)
    if was not in (None, member.role):
        said = f"Meanwhile somebody made {member.name} {member.role}; you saw {was}. Choose again."
        raise Refusal("conflict", said, param="role")
    if member.role == checked:
        return member
    _require_not_last(members, member)
    await store.change_member(tx, organization_id, member.user_id, checked)
    changed = replace(member, role=checked)
    await sessions.end_of(tx, member.user_id, organization_id=organization_id, but=but)
    await invitations.revoke_of(tx, organization_id, member.user_id, at)
    await _tell(tx, by, "members.role", changed, at, before={"role": member.role}, after={"role": checked})
    return changed


async def remove(
    tx: Transaction, by: Actor, organization_id: str, id_or_email: str, at: int, *, let_go: LetGo
) -> Member:
    """Let a member go, and with them what is theirs. Only who may give roles can remove an owner; the last one stays.

    Browsers in which they are at work here are signed out, and their open invitations taken back. `let_go`
    is told the user and ends what else belongs to them here; keys are another room's, so the door hands it in.
    """
    by.require("members.remove", organization_id)
    members = await store.list_members(tx, organization_id, lock=True)
    member = _meant(members, id_or_email)
    if member.role == "owner":
        by.require("members.role", organization_id)
    _require_not_last(members, member)
    await store.remove_member(tx, organization_id, member.user_id)
    await sessions.end_of(tx, member.user_id, organization_id=organization_id)
    await invitations.revoke_of(tx, organization_id, member.user_id, at)
    # Last of all: it says what has changed, and who ends a session or an invitation has that before they say so.
    await let_go(tx, by, organization_id, member.user_id, at)
    await _tell(tx, by, "members.remove", member, at, before={"role": member.role}, after=None)
    return member


async def actor_of_key(
    tx: Transaction,
    organization_id: str,
    owner_id: str | None,
    scopes: Collection[str],
    key_name: str,
    address: str | None = None,
) -> Actor:
    """Who holds an agent key, at the admin door: its owner as they are now, cut to the scopes that the key has now."""
    user = None if owner_id is None else await store.find_user_by_id(tx, owner_id)
    role = None if user is None else await store.find_role(tx, organization_id, user.id)
    return key_actor(user, role, organization_id, scopes, key_name, address)


def _meant(members: Iterable[Member], id_or_email: str) -> Member:
    sought = id_or_email.strip()
    member = next((one for one in members if sought == one.user_id or sought.lower() == one.email), None)
    if member is None:
        raise Refusal("not_found", "There is no such member. 'ostiary members list' shows all.")
    return member


def _require_not_last(members: Iterable[Member], member: Member) -> None:
    if [one for one in members if one.role == "owner"] == [member]:
        raise Refusal("conflict", "This is the last owner. Make another member an owner first.", param="role")


async def _tell(
    tx: Transaction,
    by: Actor,
    deed: str,
    member: Member,
    at: int,
    *,
    before: Mapping[str, object] | None,
    after: Mapping[str, object] | None,
) -> None:
    await audit.write(
        tx,
        by,
        deed,
        "member",
        member.user_id,
        member.email,
        organization_id=member.organization_id,
        before=before,
        after=after,
        at=at,
    )
    await changes.append(tx, "member", member.organization_id, member.user_id, at)
