"""Users: people, known by their e-mail address in every organization they belong to."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import audit
from ostiary.names import checked_email, checked_name
from ostiary.orgs import access_store, sessions, store, verified
from ostiary.orgs.store import User

__all__ = ["User"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A user, and the ways in that they have."""

    user: User
    password_changed_at: int | None
    """None where there is no password."""
    has_second_factor: bool


async def list_(tx: Transaction, by: Actor) -> list[Seen]:
    """All of the instance, oldest first."""
    by.require("users.list", None)
    ways = await access_store.list_ways(tx)
    return [Seen(one, *ways.get(one.id, (None, False))) for one in await store.list_users(tx)]


async def ensure(tx: Transaction, email: str, name: str, at: int) -> User:
    """The user with this address, made if new. Who is known keeps the name they have: another organization gave it."""
    address, called = checked_email(email), checked_name(name)
    known = await store.find_user(tx, address)
    if known is not None:
        return known
    user = User(new_id("usr", at), address, called, is_operator=False, created_at=at)
    await store.add_user(tx, user)
    return user


async def change_operator(tx: Transaction, by: Actor, email: str, at: int, *, is_operator: bool) -> User:
    """Let a user run the instance, or not any more: their keys with `admin:` scopes then reach every organization.

    Whatever browser they are signed in with is signed out: what it may do has changed.
    """
    by.require("users.operator", None)
    user = await store.find_user(tx, checked_email(email))
    if user is None:
        raise Refusal("not_found", "There is no user with this address. 'ostiary members add EMAIL' makes one.")
    if user.is_operator == is_operator:
        return user
    if is_operator:
        await verified.require(tx, user, "Nobody can be made an operator unseen")
    await store.change_user(tx, user.id, is_operator=is_operator)
    changed = replace(user, is_operator=is_operator)
    await sessions.end_of(tx, user.id)
    await audit.write(
        tx,
        by,
        "users.operator",
        "user",
        user.id,
        user.email,
        organization_id=None,
        before={"is_operator": user.is_operator},
        after={"is_operator": is_operator},
        at=at,
    )
    await changes.append(tx, "user", None, user.id, at)
    return changed


async def rename(tx: Transaction, by: Actor, user_id: str, name: str, at: int) -> User:
    """Call somebody otherwise, in every organization they belong to: their own deed, or the operator's.

    Each of these organizations finds it in its log. What was written before keeps the e-mail address, which stays.
    """
    by.require("users.name", by.organization_id, user_id)
    called = checked_name(name)
    user = await store.find_user_by_id(tx, user_id, lock=True)
    if user is None:
        raise Refusal("not_found", "There is no such user. 'ostiary users list' shows all.")
    if user.name == called:
        return user
    await store.change_user(tx, user.id, name=called)
    for home, _ in await store.list_homes(tx, user.id):
        await audit.write(
            tx,
            by,
            "users.name",
            "user",
            user.id,
            user.email,
            organization_id=home,
            before={"name": user.name},
            after={"name": called},
            at=at,
        )
    await changes.append(tx, "user", None, user.id, at)
    return replace(user, name=called)
