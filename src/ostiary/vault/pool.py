"""The pool as the operator looks at it: every provider key that all organizations may use, whosever it is."""

from __future__ import annotations

from ostiary.actor import Actor
from ostiary.db.database import Transaction
from ostiary.vault import key_uses, store
from ostiary.vault.key_uses import Standing


async def list_(tx: Transaction, by: Actor, at: int) -> list[Standing]:
    """Those that are shared, over all organizations, oldest first. Who shares one is said by its organization."""
    by.require("organizations.list", None)
    shared = [key for key in await store.list_all_provider_keys(tx) if key.shared]
    return await key_uses.stand(tx, shared, at)
