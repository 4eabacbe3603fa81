"""What a provider key is like at the moment: its health, what was spent with it, and which endpoints lean on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from ostiary.actor import Actor
from ostiary.db.database import Transaction
from ostiary.vault import health_store, quota_store, quota_words, store
from ostiary.vault.endpoint_store import EVERYBODY, Dependent, list_dependents
from ostiary.vault.health_store import HealthRow
from ostiary.vault.quota_store import QuotaRow
from ostiary.vault.store import ProviderKey

_HEALTHY: Final = "healthy"
_PASSING: Final = frozenset({"cooling", "exhausted"})
"""States that are over when their time is; others are over when a call has gone well."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A key with what stands beside it. `health` says what is not well, the whole key first."""

    key: ProviderKey
    status: str
    health: tuple[HealthRow, ...]
    spent_nano: int
    """Of the budget's running period, or of the month where there is no budget."""


@dataclass(frozen=True, slots=True)
class Uses:
    """Endpoints and aliases that lean on a key: those that may be named, and how many there are elsewhere."""

    named: tuple[Dependent, ...] = ()
    elsewhere: int = 0

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.named) + self.elsewhere

    def __bool__(self) -> bool:
        return self.count > 0

    @property
    def says(self) -> str:
        """The beginning of a sentence about them."""
        names = [f"the {one.kind} {one.name!r}" for one in self.named]
        if self.elsewhere:
            names.append(f"{self.elsewhere} of other organizations")
        said = ", ".join(names)
        return f"{said[:1].upper()}{said[1:]} {'is' if self.count == 1 else 'are'} served"

    @property
    def details(self) -> dict[str, Any]:
        """For machines."""
        return {"dependents": [described(one) for one in self.named], "elsewhere": self.elsewhere}


def described(one: Dependent) -> dict[str, str]:
    """A dependent as it is shown."""
    return {"kind": one.kind, "id": one.id, "name": one.name, "how": one.how}


async def stand(tx: Transaction, keys: Collection[ProviderKey], at: int) -> list[Standing]:
    """These keys, in their order."""
    health: defaultdict[str, list[HealthRow]] = defaultdict(list)
    for row in await health_store.find_health(tx, [key.id for key in keys]):
        if not _is_over(row, at):
            health[row.provider_key_id].append(row)
    spent = await store.list_key_spent(tx, keys, at)
    return [Standing(key, _status(key, health[key.id]), tuple(health[key.id]), spent[key.id]) for key in keys]


async def list_left(tx: Transaction, key: ProviderKey, at: int) -> list[QuotaRow]:
    """What its provider says that a key has left, as far as that still counts."""
    return quota_words.current(await quota_store.find_quotas(tx, key.id), at)


def _is_over(row: HealthRow, at: int) -> bool:
    return row.state in _PASSING and row.until is not None and row.until <= at


def _status(key: ProviderKey, health: Collection[HealthRow]) -> str:
    """The key's own word goes first: what does not open is not healed by a good call of yesterday."""
    if key.status != _HEALTHY:
        return key.status
    return next((row.state for row in health if not row.model), _HEALTHY)


async def find_uses(tx: Transaction, by: Actor, key: ProviderKey) -> Uses:
    """Everything that leans on a key. What belongs to others is counted for its owner and named to the operator."""
    return _told(by, key, await list_dependents(tx, key))


async def find_leaning(tx: Transaction, by: Actor, key: ProviderKey) -> Uses:
    """Those of them that would fall: they name this very key, or no other key of its provider serves them."""
    others = [one for one in await store.list_servers(tx, key.provider) if one[0] != key.id]
    owners = {organization_id for _, organization_id, _ in others}
    is_shared = any(shared for _, _, shared in others)

    def falls(one: Dependent) -> bool:
        home = key.organization_id if one.organization_id == EVERYBODY else one.organization_id
        return one.how == "named" or not (is_shared or home in owners)

    return _told(by, key, [one for one in await list_dependents(tx, key) if falls(one)])


def _told(by: Actor, key: ProviderKey, found: Collection[Dependent]) -> Uses:
    near = (key.organization_id, EVERYBODY)
    named = tuple(one for one in found if by.organization_id is None or one.organization_id in near)
    return Uses(named, len(found) - len(named))
