"""Verified addresses: whether a password is that of whoever reads the mail of its address."""

# Whoever invites has the link of the invitation, too, and may have opened the account themselves. That account may do
# what this invitation says; it is given nothing more by anybody else until the address has spoken for itself, by a
# mailed link or an OpenID provider, or the operator has.

from __future__ import annotations

from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.orgs import access_store, sessions
from ostiary.orgs.store import User


async def mark(tx: Transaction, user: User, at: int, *, has_new_password: bool) -> None:
    """The address has spoken. The first time, a password that another may have chosen goes.

    A second factor stays: if it fell with the first mail, whoever reads the mail would need nothing else.
    """
    is_first = await access_store.mark_verified(tx, user.id, at)
    if is_first and not has_new_password and await access_store.remove_hash(tx, user.id):
        await sessions.end_of(tx, user.id)


async def require(tx: Transaction, user: User, doing: str) -> None:
    """Refuse to give something to whoever chose the password of an address that has never spoken. `doing` begins it.

    Until the transaction ends nobody chooses one: whoever does so by an invitation waits, and finds what was given.
    """
    await access_store.find_hash(tx, user.id, lock=True)
    if await access_store.is_unverified(tx, user.id):
        said = (
            f"{doing}: {user.email} signs in here by a password, but nobody knows yet that the address is theirs. "
            "Invite them instead, or let them ask for a new password by mail first."
        )
        raise Refusal("conflict", said, param="email")
