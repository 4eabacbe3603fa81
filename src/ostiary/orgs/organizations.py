"""Organizations: the tenants of an instance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import alerts, audit
from ostiary.limits.store import change_budget
from ostiary.limits.wishes import budget_facts
from ostiary.names import checked_name
from ostiary.orgs import roles, store
from ostiary.orgs.fields import checked
from ostiary.orgs.store import Organization

__all__ = ["Organization"]

_FIRST: Final = "default"
_UNKNOWN: Final = "There is no such organization. 'ostiary orgs list' shows all."


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


async def show(tx: Transaction, by: Actor, organization_id: str) -> Organization:
    """One of them, with its limits and rules."""
    by.require("organizations.show", organization_id)
    return await get(tx, organization_id)


async def change(
    tx: Transaction, by: Actor, organization_id: str, wished: Mapping[str, object], at: int
) -> Organization:
    """Edit the fields that are named; None lifts a limit or a rule, absent is unchanged. The budget is the owners'."""
    by.require("organizations.edit", organization_id)
    if "budget" in wished:
        by.require("organizations.budget", organization_id)
    values: dict[str, Any] = checked(wished)
    known = await store.find_organization(tx, organization_id, lock=True)
    if known is None:
        raise Refusal("not_found", _UNKNOWN)
    values = {name: value for name, value in values.items() if value != getattr(known, name)}
    if not values:
        return known
    columns = {name: value for name, value in values.items() if name != "budget"}
    if columns:
        await store.change_organization(tx, known.id, columns)
    if "budget" in values:
        await change_budget(tx, store.SCOPE, known.id, values["budget"], at)
        await alerts.rearm(tx, store.SCOPE, known.id, at)
    edited = replace(known, **values)
    before, after = _facts(known), _facts(edited)
    await audit.write(
        tx,
        by,
        "organizations.edit",
        "organization",
        known.id,
        edited.name,
        organization_id=known.id,
        before={name: before[name] for name in values},
        after={name: after[name] for name in values},
        at=at,
    )
    await changes.append(tx, "organization", known.id, known.id, at)
    return edited


def _facts(one: Organization) -> dict[str, object]:
    known = {field.name: getattr(one, field.name) for field in fields(one)}
    return {**known, "budget": budget_facts(one.budget)}


async def list_(tx: Transaction, by: Actor) -> list[Organization]:
    """All of them, oldest first."""
    by.require("organizations.list", None)
    return await store.list_organizations(tx)


async def get(tx: Transaction, id_or_name_or_client_id: str, *, lock: bool = False) -> Organization:
    """The one that is meant, or `not_found`. Asks nobody's leave: a door does, before it tells what it found.

    `lock` keeps others from changing it meanwhile.
    """
    organization = await store.find_organization(tx, id_or_name_or_client_id, lock=lock)
    if organization is None:
        raise Refusal("not_found", _UNKNOWN)
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
