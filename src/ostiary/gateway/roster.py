"""Everybody who may call, by the digest of their secret; a caller is made of a packed key when one calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from ostiary.agents import packed_store
from ostiary.agents import store as agents
from ostiary.agents.packed_store import PackedKey, digests_of, unpack
from ostiary.agents.records import AgentKey, ClientCredential
from ostiary.db.database import Transaction
from ostiary.gateway.caller import Caller, caller_of
from ostiary.orgs.store import Organization

_MOST_MADE: Final = 20_000
"""Callers that are kept ready: one that is not takes its next call some 20 µs longer."""


class Roster:
    """All agent keys and client credentials there are. What is said of a holder is said of a key or a credential."""

    def __init__(self, organizations: Mapping[str, Organization]) -> None:
        self._organizations = organizations
        self._holders: dict[bytes, str] = {}
        self._until: dict[bytes, int] = {}
        """When secrets end that live on after a rotation."""
        self._keys: dict[str, bytes] = {}
        self._clients: dict[str, ClientCredential] = {}
        self._made: dict[str, Caller] = {}

    def find(self, digest: bytes) -> Caller | None:
        """The caller that a secret stands for."""
        holder_id = self._holders.get(digest)
        caller = None if holder_id is None else self.find_holder(holder_id)
        if caller is None or digest not in self._until:
            return caller
        return replace(caller, secret_expires_at=self._until[digest])

    def find_holder(self, holder_id: str) -> Caller | None:
        """The caller that a key or credential makes."""
        caller = self._made.get(holder_id)
        if caller is None:
            caller = self._make(holder_id)
            if caller is not None:
                if len(self._made) >= _MOST_MADE:
                    self._made.clear()
                self._made[holder_id] = caller
        return caller

    async def load(self, tx: Transaction, get_ready: Callable[[set[str]], Awaitable[None]]) -> None:
        """Read everybody anew. Before they are known, it is got ready for organizations of whom something is captured.

        So the first call of a key is captured like any other.
        """
        fresh, capturing = Roster(self._organizations), set()
        async for key in packed_store.list_packed(tx):
            fresh.put_key(key.id, key)
            if key.capture:
                capturing.add(key.organization_id)
        for client in await agents.list_all_client_credentials(tx):
            fresh.put_client(client.id, client)
        await get_ready(capturing)
        self._holders, self._until, self._keys, self._clients = (
            fresh._holders,
            fresh._until,
            fresh._keys,
            fresh._clients,
        )
        self._made.clear()

    def put_key(self, id: str, key: PackedKey | None) -> None:
        """A key as it is now, None where it is gone."""
        self._forget(id)
        if key is None:
            return
        self._keys[key.id] = key.packed
        for digest, ends_at in key.ends.items():
            self._holders[digest] = key.id
            if ends_at is not None:
                self._until[digest] = ends_at

    def put_client(self, id: str, client: ClientCredential | None) -> None:
        """A client credential as it is now, None where it is gone."""
        self._forget(id)
        if client is not None:
            self._clients[id] = client
            self._holders[client.digest] = id

    def make_anew(self) -> None:
        """An organization's own limits or rules have changed, by which everybody in it is judged."""
        self._made.clear()

    def _make(self, holder_id: str) -> Caller | None:
        client = self._clients.get(holder_id)
        key = None if client is not None else self._unpacked(holder_id)
        holder = client or key
        if holder is None:
            return None
        whole = self._organizations.get(holder.organization_id)
        return caller_of(whole, holder.organization_id, holder.policy(), key=key, client=client)

    def _unpacked(self, key_id: str) -> AgentKey | None:
        found = self._keys.get(key_id)
        if found is None:
            return None
        key = unpack(found)
        return key if key.parent_id is None else replace(key, parent=self._unpacked(key.parent_id))

    def _forget(self, holder_id: str) -> None:
        self._made.pop(holder_id, None)
        client, key = self._clients.pop(holder_id, None), self._keys.pop(holder_id, None)
        digests = [client.digest] if client is not None else []
        if key is not None:
            digests += digests_of(key)
        for digest in digests:
            self._holders.pop(digest, None)
            self._until.pop(digest, None)
