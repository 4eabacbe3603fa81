"""Tells an organization that one of its provider keys is out of use: once a day for each key and state."""

from __future__ import annotations

from typing import Final

from ostiary.clock import date_of
from ostiary.db.database import Transaction
from ostiary.ledger import alerts
from ostiary.ledger import outbox_store as store
from ostiary.ledger.outbox_store import Alert

_SCOPE: Final = "key_health"
_PLACES: Final = {"unhealthy": 1, "exhausted": 2, "disabled": 3}
"""States that are told of, by their numbers in the alerts."""


async def tell_of_key(tx: Transaction, key_id: str, state: str, reason: str, until: int | None, at: int) -> None:
    """To be called in the transaction that writes the state down; other states are nobody's concern."""
    place = _PLACES.get(state)
    subject = await store.find_subject(tx, "provider_key", key_id) if place is not None else None
    if place is None or subject is None:
        return
    if await store.add_alert(tx, Alert(_SCOPE, key_id, date_of(at), place), at):
        facts = {"reason": reason, "until_at": until}
        await alerts.tell(tx, f"provider_key.{state}", "provider_key", subject, facts, at)
