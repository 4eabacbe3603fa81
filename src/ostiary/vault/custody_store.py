"""What is sealed under which data key, counted in SQL."""

from __future__ import annotations

from collections import Counter
from typing import Final

from sqlalchemy import func, select

from ostiary.db import schema
from ostiary.db.database import Transaction
from ostiary.vault.seal_store import SHELVES

_CREDENTIALS: Final = tuple(shelf for shelf in SHELVES if shelf.table is not schema.contents)
"""Captured contents are as many as calls: counting them would read them all."""


async def count_credentials(tx: Transaction) -> dict[tuple[str, int], int]:
    """How many sealed credentials there are, by the organization and version of their data key."""
    found: Counter[tuple[str, int]] = Counter()
    for shelf in _CREDENTIALS:
        version = shelf.table.c.sealed_version
        if shelf.owner is None:
            whose = shelf.table.c.organization_id
            query = select(whose, version, func.count()).group_by(whose, version)
            for organization_id, sealed_version, number in await tx.execute(query):
                found[organization_id, sealed_version] += number
        else:
            for sealed_version, number in await tx.execute(select(version, func.count()).group_by(version)):
                found[shelf.owner, sealed_version] += number
    return dict(found)
