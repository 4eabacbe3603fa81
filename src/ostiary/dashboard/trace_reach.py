"""Which agent keys a page of calls is about: those that were asked for, and that its visitor may look at."""

from __future__ import annotations

from ostiary.agents.pages_store import Wanted, list_page
from ostiary.agents.reach import list_reached
from ostiary.agents.store import find_agent_key
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.ledger import reports

_MOST_MATCHES = 20
"""Keys whose names hold what was typed; one looks for them one by one."""


async def keys_of(visit: Visit, tx: Transaction, deed: str, asked: str = "") -> list[str] | None:
    """The ids of agent keys whose calls are meant, None for everybody's.

    `asked` is a key by id or name, living or deleted, or a part of names; one that is not the visitor's to see is as
    one that is not there. What the children of a key call is the key's: they are not named beside it.
    """
    by, home = visit.by, visit.home
    if not asked:
        return await list_reached(tx, by, deed, home)
    is_all = by.may(deed, home)
    key = await find_agent_key(tx, home, asked)
    if key is not None and by.may(deed, home, key.owner_id):
        return [key.id]
    if is_all and (remembered := await reports.find_agent_key_id(tx, home, asked)) is not None:
        return [remembered]
    wanted = Wanted(search=asked, owner_id=None if is_all else by.id, limit=_MOST_MATCHES)
    found = (await list_page(tx, home, wanted, visit.at)).keys
    ids = {one.id for one in found}
    return [one.id for one in found if one.parent_id not in ids]
