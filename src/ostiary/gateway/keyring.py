"""The provider keys of this gateway's memory, opened, and who may use which."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import Final

from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.gateway.caller import OpenKey
from ostiary.gateway.health import Health
from ostiary.limits import store as money
from ostiary.limits.budgets import Budget
from ostiary.limits.local import Allowance, Holder
from ostiary.logs import get
from ostiary.providers.auth import headers
from ostiary.providers.catalog import Catalog
from ostiary.secret import Secret
from ostiary.vault import provider_keys, store
from ostiary.vault.health_store import find_health, list_all_health
from ostiary.vault.seal import Seal
from ostiary.vault.store import ProviderKey

_JSON: Final = ("content-type", "application/json")
_SCOPE: Final = "provider_key"


class Keyring:
    """What goes out. Every look-up is a dict."""

    def __init__(self, seal: Seal, catalog: Catalog, health: Health) -> None:
        self._seal = seal
        self._catalog = catalog
        self._health = health
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
        budgets = await money.list_budgets(tx, _SCOPE)
        for key in await store.list_all_provider_keys(tx):
            await self._open(tx, key, budgets.get(key.id))
        for key_id, rows in groupby(await list_all_health(tx), key=lambda row: row.provider_key_id):
            self._health.troubles.hear(key_id, rows)

    async def hear(self, tx: Transaction, id: str) -> None:
        """One of them has changed."""
        self._keys.pop(id, None)
        self._health.troubles.forget(id)
        self._health.remaining.forget(id)
        found = await store.find_provider_key_by_id(tx, id)
        if found is not None:
            await self.hear_health(tx, id)
            await self._open(tx, found, await money.find_budget(tx, _SCOPE, id))

    async def hear_health(self, tx: Transaction, id: str) -> None:
        """Something was found out of one of them, here or elsewhere."""
        self._health.troubles.hear(id, await find_health(tx, [id]))

    def shelve(self) -> None:
        """Put in order what was opened; until then nothing of it is seen."""
        shelves: defaultdict[str, list[OpenKey]] = defaultdict(list)
        for key in sorted(self._keys.values(), key=lambda one: one.id):
            shelves[key.provider.id].append(key)
        self._by_provider = {name: tuple(keys) for name, keys in shelves.items()}
        self._health.know(self._keys)

    async def _open(self, tx: Transaction, key: ProviderKey, budget: Budget | None) -> None:
        provider = self._catalog.find(key.provider)
        if provider is None or key.status == "disabled":
            return
        try:
            secret = await provider_keys.open_secret(tx, self._seal, key)
        except Refusal as refusal:  # a row moved or damaged: it alone is unusable, and is known to be so
            self._log.error("provider_key.undecryptable", provider_key=key.id, reason=refusal.code)
            self._health.troubles.shut(key.id, "its credential does not open with the vault's keys")
            secret = Secret("")
        self._keys[key.id] = OpenKey(
            id=key.id,
            name=key.name,
            organization_id=key.organization_id,
            provider=provider,
            base_url=key.base_url.rstrip("/"),
            headers=(*headers(provider, key.fields, secret, key.auth), _JSON),
            secrets=(secret.reveal(), *key.fields.values()),
            shared=key.shared,
            priority=key.priority,
            weight=key.weight,
            is_filled=key.strategy == "fill",
            account=key.account or "",
            is_operators=key.by_operator,
            fields=key.fields,
            allowance=_allowance(key, budget),
        )


def _allowance(key: ProviderKey, budget: Budget | None) -> Allowance | None:
    """The key's own limits; most have none, and cost a call nothing."""
    holder = Holder(_SCOPE, key.id, key.rpm, key.rpd, key.tpm, key.parallel)
    made = Allowance(key.id, (holder,), ((_SCOPE, key.id, budget),) if budget is not None else ())
    return made if made.holders or made.budgets else None
