"""Whose calls an actor may look at: everybody's, or those of their own keys."""

from __future__ import annotations

from ostiary.actor import Actor
from ostiary.agents.store import find_agent_key_by_id, list_parents_of
from ostiary.db.database import Transaction
from ostiary.ledger.reports import Trace


async def list_reached(tx: Transaction, by: Actor, deed: str, organization_id: str) -> list[str] | None:
    """The ids of the agent keys whose calls the actor may do this to, None for everybody's.

    What the children of a key call is the key's: they are not named beside it.
    """
    return None if by.may(deed, organization_id) else await list_parents_of(tx, organization_id, by.id)


async def find_owner_id(tx: Transaction, call: Trace) -> str | None:
    """Whose a call is: its key's owner's, or the parent's; of deleted keys, or of none, it is the organization's."""
    for id_ in (call.agent_key_id, call.parent_key_id):
        key = None if id_ is None else await find_agent_key_by_id(tx, id_)
        if key is not None:
            return key.owner_id
    return None
