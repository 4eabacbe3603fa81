"""A database that is away: nothing of it is left behind when a test ends."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ostiary.db.database import Database
from tests.servers.waiting import until

_THREAD = "_connection_"
"""In the names that the driver gives to its threads."""


@asynccontextmanager
async def database_away() -> AsyncIterator[Database]:
    """One that cannot be opened, closed at the end of the block.

    A connection that failed has a thread that tells so, for which the loop must still be there.
    """
    known = set(threading.enumerate())
    away = Database("sqlite:////nowhere/at/all.db")
    try:
        yield away
    finally:
        await away.close()
        until(lambda: not _threads() - known, "the end of connections that failed")


def _threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if _THREAD in one.name}
