"""When each key was last used: noted at every call, written now and then."""

from __future__ import annotations

import asyncio
from typing import Final

from ostiary.agents import store as agents
from ostiary.clock import Clock
from ostiary.db.database import Database
from ostiary.errors import Refusal
from ostiary.vault import endpoint_store
from ostiary.vault import store as vault

_WRITE_S: Final = 30.0
_FEW: Final = 50
"""As many are written for somebody who looks; of more, hardly one is the first of its key."""


class Marks:
    """The newest use of agent keys and provider keys that the database has not been told of yet."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._agent_keys: dict[str, int] = {}
        self._provider_keys: dict[str, int] = {}
        self._endpoints: dict[tuple[str, str, str], int] = {}
        self._one = asyncio.Lock()

    def note(
        self, agent_key_id: str | None, provider_key_id: str | None, at: int, parent_key_id: str | None = None
    ) -> None:
        """Remember a use, which is its parent's as well; costs two or three entries in a dict."""
        if agent_key_id is not None:
            self._agent_keys[agent_key_id] = at
        if parent_key_id is not None:
            self._agent_keys[parent_key_id] = at
        if provider_key_id is not None:
            self._provider_keys[provider_key_id] = at

    def note_endpoint(self, endpoint_id: str, organization_id: str, agent_key_id: str, at: int) -> None:
        """Remember by which agent key an endpoint was used."""
        self._endpoints[endpoint_id, organization_id, agent_key_id] = at

    async def run(self) -> None:
        """Until cancelled, write what is news every 30 seconds."""
        while True:
            await self._clock.sleep(_WRITE_S)
            await self._database.to_the_end(self.write())

    async def write_few(self) -> None:
        """For who looks at keys now: no key that was called stands there as never used, nor one being written now."""
        if self._one.locked() or 0 < len(self._agent_keys) + len(self._provider_keys) <= _FEW:
            await self._database.to_the_end(self.write())

    async def write(self) -> None:
        """Write what is news. A mark that can't be written is kept; it is only a mark, so nobody is told."""
        async with self._one:
            await self._write()

    async def _write(self) -> None:
        agent_keys, provider_keys, used = self._agent_keys, self._provider_keys, self._endpoints
        if not agent_keys and not provider_keys:
            return
        self._agent_keys, self._provider_keys, self._endpoints = {}, {}, {}
        try:
            async with self._database.transaction() as tx:
                await agents.mark_agent_keys_used(tx, agent_keys)
                await vault.mark_provider_keys_used(tx, provider_keys)
                await endpoint_store.mark_endpoints_used(tx, used)
        except Refusal:
            self._agent_keys = agent_keys | self._agent_keys
            self._provider_keys = provider_keys | self._provider_keys
            self._endpoints = used | self._endpoints
