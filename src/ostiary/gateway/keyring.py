"""The provider keys of this gateway's memory, opened, and who may use which."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.gateway.caller import OpenKey
from ostiary.logs import get
from ostiary.providers.catalog import Catalog
from ostiary.vault import provider_keys, store
from ostiary.vault.seal import Seal
from ostiary.vault.store import ProviderKey

_JSON: Final = ("content-type", "application/json")


class Keyring:
    """What goes out. Every look-up is a dict."""

    def __init__(self, seal: Seal, catalog: Catalog) -> None:
        self._seal = seal
        self._catalog = catalog
        self._keys: dict[str, OpenKey] = {}
        self._by_provider: dict[str, tuple[OpenKey, ...]] = {}
        self._log = get("directory")

    def keys_for(self, organization_id: str, provider_id: str) -> list[OpenKey]:
        """The provider keys an organization may use, its own before those shared with the pool."""
        keys = self._by_provider.get(provider_id, ())
        own = [key for key in keys if key.organization_id == organization_id]
        return own + [key for key in keys if key.shared and key.organization_id != organization_id]

    async def load(self, tx: Transaction) -> None:
        """Open every key there is."""
        self._keys.clear()
        for key in await store.list_all_provider_keys(tx):
            await self._open(tx, key)

    async def hear(self, tx: Transaction, id: str) -> None:
        """One of them has changed."""
        self._keys.pop(id, None)
        found = await store.find_provider_key_by_id(tx, id)
        if found is not None:
            await self._open(tx, found)

    def shelve(self) -> None:
        """Put in order what was opened; until then nothing of it is seen."""
        shelves: defaultdict[str, list[OpenKey]] = defaultdict(list)
        for key in sorted(self._keys.values(), key=lambda one: one.id):
            shelves[key.provider.id].append(key)
        self._by_provider = {name: tuple(keys) for name, keys in shelves.items()}

    async def _open(self, tx: Transaction, key: ProviderKey) -> None:
        provider = self._catalog.find(key.provider)
        if provider is None or key.status == "disabled":
            return
        try:
            secret = await provider_keys.open_secret(tx, self._seal, key)
        except Refusal as refusal:  # a row moved or damaged: it alone is unusable
            self._log.error("provider_key.undecryptable", provider_key=key.id, reason=refusal.code)
            return
        self._keys[key.id] = OpenKey(
            id=key.id,
            name=key.name,
            organization_id=key.organization_id,
            provider=provider,
            base_url=key.base_url.rstrip("/"),
            headers=(*provider_keys.headers(provider, key.fields, secret), _JSON),
            secrets=(secret.reveal(), *key.fields.values()),
            shared=key.shared,
        )
