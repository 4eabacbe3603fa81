"""Whose calls a visitor may look at: everybody's, or those of their own keys."""

from __future__ import annotations

from ostiary.agents.pages_store import Wanted, list_page
from ostiary.agents.store import find_agent_key, find_agent_key_by_id
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.ledger import reports

_AT_ONCE = 1_000
_MOST_MATCHES = 20
"""Keys whose names hold what was typed; one looks for them one by one."""


async def keys_of(visit: Visit, tx: Transaction, deed: str, asked: str = "") -> list[str] | None:
    """The ids of agent keys whose calls are meant, None for everybody's.

    `asked` is a key by id or name, living or deleted, or a part of names; one that is not the visitor's to see is as
    one that is not there.
    """
    by, home = visit.by, visit.home
    is_all = by.may(deed, home)
    if not asked:
        return None if is_all else await _own(visit, tx)
    key = await find_agent_key(tx, home, asked)
    if key is not None and by.may(deed, home, key.owner_id):
        return [key.id]
    if is_all and (remembered := await reports.find_agent_key_id(tx, home, asked)) is not None:
        return [remembered]
    wanted = Wanted(search=asked, owner_id=None if is_all else by.id, limit=_MOST_MATCHES)
    return [one.id for one in (await list_page(tx, home, wanted, visit.at)).keys]


async def find_owner_id(tx: Transaction, agent_key_id: str | None) -> str | None:
    """Whose calls those of a key are; of a deleted key, or of none, they are the organization's."""
    key = None if agent_key_id is None else await find_agent_key_by_id(tx, agent_key_id)
    return key.owner_id if key else None


async def _own(visit: Visit, tx: Transaction) -> list[str]:
    wanted = Wanted(owner_id=visit.by.id, limit=_AT_ONCE)
    found: list[str] = []
    after = None
    while True:
        page = await list_page(tx, visit.home, wanted, visit.at, after)
        found += [key.id for key in page.keys]
        if (after := page.after) is None:
            return found
