"""Organizations: the tenants of an instance."""

from __future__ import annotations

from typing import Final

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import audit
from ostiary.names import checked_name
from ostiary.orgs import roles, store
from ostiary.orgs.store import Organization

__all__ = ["Organization"]

_FIRST: Final = "default"


async def create(tx: Transaction, by: Actor, name: str, at: int) -> Organization:
    """Make an organization, with a client id of its own."""
    by.require("organizations.create", None)
    organization = Organization(new_id("orgn", at), new_id("org", at), checked_name(name), at)
    await store.add_organization(tx, organization)
    await audit.write(
        tx,
        by,
        "organizations.create",
        "organization",
        organization.id,
        organization.name,
        organization_id=organization.id,
        after={"name": organization.name, "client_id": organization.client_id},
        at=at,
    )
    await changes.append(tx, "organization", organization.id, organization.id, at)
    return organization


async def list_(tx: Transaction, by: Actor) -> list[Organization]:
    """All of them, oldest first."""
    by.require("organizations.list", None)
    return await store.list_organizations(tx)


async def get(tx: Transaction, id_or_name_or_client_id: str) -> Organization:
    """The one that is meant, or `not_found`. Asks nobody's leave: a door does, before it tells what it found."""
    organization = await store.find_organization(tx, id_or_name_or_client_id)
    if organization is None:
        raise Refusal("not_found", "There is no such organization. 'ostiary orgs list' shows all.")
    return organization


async def ensure_first(tx: Transaction, at: int) -> None:
    """Give a new instance the organization `default`, so that one person needs to know nothing of organizations."""
    if await store.has_organizations(tx):
        return
    try:
        async with tx.begin_nested():
            await create(tx, roles.system(), _FIRST, at)
    except Refusal as refusal:
        if refusal.code != "conflict":  # then another process, starting at the same moment, was first
            raise
