"""The pool as the operator looks at it: every provider key that all organizations may use, whosever it is."""

from __future__ import annotations

from ostiary.actor import Actor
from ostiary.db.database import Transaction
from ostiary.vault import endpoint_store, key_uses, store
from ostiary.vault.key_uses import Standing


async def list_(tx: Transaction, by: Actor, at: int) -> list[Standing]:
    """Those that are shared, over all organizations, oldest first. Who shares one is said by its organization."""
    by.require("organizations.list", None)
    shared = [key for key in await store.list_all_provider_keys(tx) if key.shared]
    return await key_uses.stand(tx, shared, at)


async def list_for_all(tx: Transaction, by: Actor, at: int) -> list[Standing]:
    """What aliases can count on whoever calls: the pool, and where there is one organization alone, all its keys."""
    by.require("organizations.list", None)
    is_alone = await endpoint_store.is_alone(tx)
    usable = [key for key in await store.list_all_provider_keys(tx) if key.shared or is_alone]
    return await key_uses.stand(tx, usable, at)
