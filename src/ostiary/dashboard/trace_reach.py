"""Whose calls a visitor may look at: everybody's, or those of their own keys."""

from __future__ import annotations

from ostiary.agents.pages_store import Wanted, list_page
from ostiary.agents.store import find_agent_key, find_agent_key_by_id
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.ledger import reports
from ostiary.ledger.reports import Trace

_AT_ONCE = 1_000
_MOST_MATCHES = 20
"""Keys whose names hold what was typed; one looks for them one by one."""


async def keys_of(visit: Visit, tx: Transaction, deed: str, asked: str = "") -> list[str] | None:
    """The ids of agent keys whose calls are meant, None for everybody's.

    `asked` is a key by id or name, living or deleted, or a part of names; one that is not the visitor's to see is as
    one that is not there. What the children of a key call is the key's: they are not named beside it.
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
    found = (await list_page(tx, home, wanted, visit.at)).keys
    ids = {one.id for one in found}
    return [one.id for one in found if one.parent_id not in ids]


async def find_owner_id(tx: Transaction, call: Trace) -> str | None:
    """Whose a call is: its key's owner's, or the parent's; of deleted keys, or of none, it is the organization's."""
    for id_ in (call.agent_key_id, call.parent_key_id):
        key = None if id_ is None else await find_agent_key_by_id(tx, id_)
        if key is not None:
            return key.owner_id
    return None


async def _own(visit: Visit, tx: Transaction) -> list[str]:
    wanted = Wanted(owner_id=visit.by.id, limit=_AT_ONCE)
    found: list[str] = []
    after = None
    while True:
        page = await list_page(tx, visit.home, wanted, visit.at, after)
        found += [key.id for key in page.keys if key.parent_id is None]  # a child belongs to whom its parent does
        if (after := page.after) is None:
            return found
