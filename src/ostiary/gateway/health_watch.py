"""Shares what this gateway finds out of provider keys, and asks whether those are valid that were not accepted."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from ostiary.clock import Clock
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.gateway.directory import Directory
from ostiary.gateway.troubles import WHOLE
from ostiary.ledger.key_alerts import tell_of_key
from ostiary.logs import get
from ostiary.providers.transport import Transport
from ostiary.vault import health_store, provider_keys, store, trial
from ostiary.vault.health import LASTING, spared
from ostiary.vault.seal import Seal

_LOOK_S: Final = 0.25
_ASK_AGAIN_S: Final = 30.0
"""Between two test calls with one key, however often it is suspected."""
_AT_ONCE: Final = 8
"""Test calls; the next ones wait."""
NOUN: Final = "key_health"


class HealthWatch:
    """Runs beside the calls: they note what they find in memory, and this writes it down, a row for each key."""

    def __init__(
        self, directory: Directory, database: Database, transport: Transport, seal: Seal, clock: Clock
    ) -> None:
        self._directory = directory
        self._health = directory.health
        self._database = database
        self._transport = transport
        self._seal = seal
        self._clock = clock
        self._log = get("health")
        self._asked: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled: tell others what is news, and confirm what is suspected, neither waiting for the other."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._tell())
            both.create_task(self._ask())

    async def _tell(self) -> None:
        while True:
            await self._clock.sleep(_LOOK_S)
            if self._health.troubles.changed:
                with suppress(Refusal):  # the database is away: it is told when it is back
                    await self._database.to_the_end(self.write())

    async def _ask(self) -> None:
        """Have each suspect's test call made, and disable it only if that says that the credential is not valid.

        A provider that takes long to answer keeps none of the others waiting, as far as there is room.
        """
        room = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as calls:
            while True:
                await self._clock.sleep(_LOOK_S)
                for key_id in self._to_be_asked():
                    calls.create_task(self._judge(key_id, room))

    async def write(self) -> None:
        """Put down how the keys are of which there is news."""
        troubles, at = self._health.troubles, self._clock.now()
        told, troubles.changed = troubles.changed, set()
        troubles.telling |= told
        try:
            async with self._database.transaction() as tx:
                # All keys before the feed, as who edits one has them: else two could wait for each other.
                locked = [key_id for key_id in sorted(told) if await health_store.lock_key(tx, key_id)]
                edited = await self._edited(tx)
                for key_id in locked:
                    if key_id not in edited:
                        await self._put(tx, key_id, at)
        except Refusal:
            troubles.changed |= told
            raise
        finally:
            troubles.telling -= told
        for key_id in sorted(told):
            if key_id not in troubles.changed:
                troubles.healed.pop(key_id, None)
            for row in troubles.rows(key_id):
                self._log.warning(
                    "provider_key." + row.state, provider_key=key_id, model=row.model or None, reason=row.reason
                )

    async def _put(self, tx: Transaction, key_id: str, at: int) -> None:
        stored = await health_store.find_health(tx, [key_id])
        before = {row.state for row in stored}
        if "disabled" not in before:
            await self._spare_the_last(tx, key_id, at)
        rows = self._health.troubles.joined(key_id, stored)
        await health_store.put_health(tx, key_id, rows)
        await changes.append(tx, NOUN, None, key_id, at)
        for row in rows:
            if not row.model and row.state not in before:
                await tell_of_key(tx, key_id, row.state, row.reason, row.until, at)

    async def _spare_the_last(self, tx: Transaction, key_id: str, at: int) -> None:
        """Another gateway may have disabled meanwhile what was a spare here: one key at least stays usable."""
        key, known = self._health.find(key_id), self._health.troubles.of(key_id).get(WHOLE)
        if key is None or known is None or known.state != "disabled":
            return
        await changes.take_turn(tx)
        if not self._health.has_spare(key, await health_store.list_shut(tx, LASTING)):
            self._health.troubles.add(key_id, WHOLE, spared(known, at))

    async def _edited(self, tx: Transaction) -> set[str]:
        """Keys that somebody has edited or reset and this process has not heard of yet: what it knows is over."""
        news = await changes.list_after(tx, self._directory.seq)
        return {change.id for change in news if change.noun == "provider_key"}

    def _to_be_asked(self) -> list[str]:
        """The suspects that have not been asked about of late; nobody suspects them now."""
        suspects = self._health.suspects
        if not suspects:
            return []
        self._health.suspects = set()
        now = self._clock.monotonic()
        self._asked = {key_id: at for key_id, at in self._asked.items() if now - at < _ASK_AGAIN_S}
        found = sorted(suspects - self._asked.keys())
        self._asked |= dict.fromkeys(found, now)
        return found

    async def _judge(self, key_id: str, room: asyncio.Semaphore) -> None:
        async with room:
            asked = self._health.find(key_id)  # before its secret is read: what is edited meanwhile is not judged by it
            try:
                async with self._database.read() as tx:
                    key = await store.find_provider_key_by_id(tx, key_id)
                    secret = await provider_keys.open_secret(tx, self._seal, key) if key is not None else None
            except Refusal as refusal:
                if refusal.code == "service_unavailable":  # it is asked when the database is back
                    self._asked.pop(key_id, None)
                    self._health.suspects.add(key_id)
                return
            row = self._directory.catalog.find(key.provider) if key is not None else None
            if key is None or secret is None or row is None:
                return
            result = await trial.test(self._transport, row, key.base_url, key.fields, secret, key.auth)
        if result.outcome == "invalid_key" and self._health.find(key_id) is asked:
            self._health.confirm(key_id, f"the provider says that it is not valid ({result.message})")
