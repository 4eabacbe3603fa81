"""Which agent keys a list of calls is about: the one that was asked for, or those that the actor may look at."""

from __future__ import annotations

from ostiary.admin.visit import Visit
from ostiary.agents.reach import list_reached
from ostiary.agents.store import find_agent_key
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import reports


async def keys_of(asking: Visit, tx: Transaction, asked: str | None) -> list[str] | None:
    """The ids of agent keys whose calls are meant, None for all; `asked` is one by id or name, living or deleted.

    What the children of a key call is the key's: they are not named beside it.
    """
    by, deed, home = asking.by, asking.route.deed, asking.organization_id
    if asked is not None:
        key = await find_agent_key(tx, home, asked)
        if key is not None:
            by.require(deed, home, key.owner_id)
            return [key.id]
        by.require(deed, home)
        remembered = await reports.find_agent_key_id(tx, home, asked)
        if remembered is None:
            raise Refusal("not_found")
        return [remembered]
    return await list_reached(tx, by, deed, home)
