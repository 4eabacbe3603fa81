"""Users: people, known by their e-mail address in every organization they belong to."""

from __future__ import annotations

from ostiary.db.database import Transaction
from ostiary.ids import new_id
from ostiary.names import checked_email, checked_name
from ostiary.orgs import store
from ostiary.orgs.store import User

__all__ = ["User"]


async def ensure(tx: Transaction, email: str, name: str, at: int) -> User:
    """The user with this address, made if new. Who is known keeps the name they have: another organization gave it."""
    address, called = checked_email(email), checked_name(name)
    known = await store.find_user(tx, address)
    if known is not None:
        return known
    user = User(new_id("usr", at), address, called, is_operator=False, created_at=at)
    await store.add_user(tx, user)
    return user
