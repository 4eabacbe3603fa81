"""Whose calls an actor may look at: everybody's, or those of their own keys."""

from __future__ import annotations

from ostiary.admin.visit import Visit
from ostiary.agents.pages_store import Wanted, list_page
from ostiary.agents.store import find_agent_key, find_agent_key_by_id
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import reports
from ostiary.ledger.reports import Trace

_AT_ONCE = 1_000


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
    return None if by.may(deed, home) else await _own(asking, tx)


async def find_owner_id(tx: Transaction, call: Trace) -> str | None:
    """Whose a call is: its key's owner's, or the parent's; of deleted keys, or of none, it is the organization's."""
    for id_ in (call.agent_key_id, call.parent_key_id):
        key = None if id_ is None else await find_agent_key_by_id(tx, id_)
        if key is not None:
            return key.owner_id
    return None


async def _own(asking: Visit, tx: Transaction) -> list[str]:
    wanted = Wanted(owner_id=asking.by.id, limit=_AT_ONCE)
    found: list[str] = []
    after = None
    while True:
        page = await list_page(tx, asking.organization_id, wanted, asking.at, after)
        found += [key.id for key in page.keys if key.parent_id is None]  # a child belongs to whom its parent does
        if (after := page.after) is None:
            return found
