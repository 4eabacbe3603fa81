"""Whose calls an actor may look at: everybody's, or those of their own keys."""

from __future__ import annotations

from ostiary.admin.visit import Visit
from ostiary.agents.pages_store import Wanted, list_page
from ostiary.agents.store import find_agent_key, find_agent_key_by_id
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import reports

_AT_ONCE = 1_000


async def keys_of(asking: Visit, tx: Transaction, asked: str | None) -> list[str] | None:
    """The ids of agent keys whose calls are meant, None for all; `asked` is one by id or name, living or deleted."""
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


async def find_owner_id(tx: Transaction, agent_key_id: str | None) -> str | None:
    """Whose calls those of a key are; of a deleted key, or of none, they are the organization's."""
    key = None if agent_key_id is None else await find_agent_key_by_id(tx, agent_key_id)
    return key.owner_id if key else None


async def _own(asking: Visit, tx: Transaction) -> list[str]:
    wanted = Wanted(owner_id=asking.by.id, limit=_AT_ONCE)
    page = await list_page(tx, asking.organization_id, wanted, asking.at)
    found = [key.id for key in page.keys]
    while page.after is not None:
        page = await list_page(tx, asking.organization_id, wanted, asking.at, page.after)
        found += [key.id for key in page.keys]
    return found
