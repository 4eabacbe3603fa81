"""Reads what answers say of quotas, beside the calls, and writes it down now and then for people to see."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from ostiary.clock import DAY_MS, Clock
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.gateway.health import Health
from ostiary.gateway.remaining import Remaining
from ostiary.vault.quota_store import LONGEST_MODEL, QuotaRow, put_quotas, remove_old_quotas

_LOOK_S: Final = 0.25
_WRITE_S: Final = 5.0
_KEPT_MS: Final = DAY_MS
"""What nobody has heard of for longer than that is not worth a row."""


class QuotaWatch:
    """Of one process; `name` is what people call it."""

    def __init__(self, health: Health, database: Database, clock: Clock, name: str) -> None:
        self._remaining: Remaining = health.remaining
        self._database = database
        self._clock = clock
        self._name = name

    async def run(self) -> None:
        """Until cancelled: have calls know within moments who is nearly dry, and people within seconds."""
        written_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(_LOOK_S)
            self._remaining.take_in(self._clock.now())
            if self._clock.monotonic() - written_at >= _WRITE_S:
                written_at = self._clock.monotonic()
                await self._database.to_the_end(self.write())

    async def write(self) -> None:
        """Put down what is news. What cannot be is tried again; it is there to be looked at, so nobody is told."""
        self._remaining.take_in(self._clock.now())
        news, self._remaining.news = self._remaining.news, {}
        rows = [
            QuotaRow(key_id, model, one.what, one.remaining, one.most, one.resets_at, heard_at, self._name)
            for (key_id, model), (heard_at, found) in news.items()
            if len(model) <= LONGEST_MODEL
            for one in found
        ]
        if not rows:
            return
        with suppress(Refusal):
            async with self._database.transaction() as tx:
                await put_quotas(tx, rows)
                await remove_old_quotas(tx, self._clock.now() - _KEPT_MS)
            return
        self._remaining.news = news | self._remaining.news
