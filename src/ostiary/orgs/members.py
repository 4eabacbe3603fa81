"""Members: who belongs to an organization, and in which role."""

from __future__ import annotations

from dataclasses import replace

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.orgs import store, users
from ostiary.orgs.roles import checked_role
from ostiary.orgs.store import Member

__all__ = ["Member"]


async def add(tx: Transaction, by: Actor, organization_id: str, email: str, name: str, role: str, at: int) -> Member:
    """Make somebody a member, and a user if they are new. Only who may give roles can add an owner."""
    by.require("members.add", organization_id)
    checked = checked_role(role)
    if checked == "owner":
        by.require("members.role", organization_id)
    user = await users.ensure(tx, email, name, at)
    member = Member(organization_id, user.id, user.email, user.name, checked, at)
    await store.add_member(tx, member)
    await _tell(tx, by, "members.add", member, at, before=None)
    return member


async def list_(tx: Transaction, by: Actor, organization_id: str) -> list[Member]:
    """All of the organization, oldest first."""
    by.require("members.list", organization_id)
    return await store.list_members(tx, organization_id)


async def change_role(tx: Transaction, by: Actor, organization_id: str, id_or_email: str, role: str, at: int) -> Member:
    """Give a member another role; an organization that has owners keeps one."""
    by.require("members.role", organization_id)
    checked = checked_role(role)
    members = await store.list_members(tx, organization_id, lock=True)  # two owners must not demote each other at once
    sought = id_or_email.strip()
    member = next((one for one in members if sought == one.user_id or sought.lower() == one.email), None)
    if member is None:
        raise Refusal("not_found", "There is no such member. 'ostiary members list' shows all.")
    if member.role == checked:
        return member
    owners = [one for one in members if one.role == "owner"]
    if owners == [member]:
        raise Refusal("conflict", "This is the last owner. Make another member an owner first.", param="role")
    await store.change_member(tx, organization_id, member.user_id, checked)
    changed = replace(member, role=checked)
    await _tell(tx, by, "members.role", changed, at, before=member.role)
    return changed


async def _tell(tx: Transaction, by: Actor, deed: str, member: Member, at: int, *, before: str | None) -> None:
    await audit.write(
        tx,
        by,
        deed,
        "member",
        member.user_id,
        member.email,
        organization_id=member.organization_id,
        before={"role": before} if before else None,
        after={"role": member.role},
        at=at,
    )
    await changes.append(tx, "member", member.organization_id, member.user_id, at)
