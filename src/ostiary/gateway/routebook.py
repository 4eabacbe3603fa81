"""The endpoints and aliases of this gateway's memory, by the names that calls ask for."""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.db.database import Transaction
from ostiary.providers.spelling import Speller
from ostiary.vault import endpoint_store as store
from ostiary.vault.endpoint_store import EVERYBODY, Endpoint


class RouteBook:
    """Every look-up is one of a dict, or two."""

    def __init__(self) -> None:
        self._by_id: dict[str, Endpoint] = {}
        self._by_name: dict[tuple[str, str], Endpoint] = {}

    def find(self, organization_id: str, name: str) -> Endpoint | None:
        """The organization's own endpoint of this name, else the alias."""
        by_name = self._by_name
        return by_name.get((organization_id, name)) or by_name.get((EVERYBODY, name))

    def list_for(self, organization_id: str | None) -> list[Endpoint]:
        """The endpoints of an organization, None of nobody, by name; and all aliases."""
        wanted = (EVERYBODY, organization_id)
        return sorted((one for one in self._by_id.values() if one.organization_id in wanted), key=lambda one: one.name)

    def near(self, organization_id: str, name: str) -> tuple[str, ...]:
        """Names like this one that the organization may ask for."""
        return Speller([one.name for one in self.list_for(organization_id)]).near(name)

    async def load(self, tx: Transaction) -> None:
        """Read them all."""
        self._keep(await store.list_all_endpoints(tx))

    async def hear(self, tx: Transaction, id: str) -> None:
        """One of them has changed, or is gone."""
        found = await store.find_endpoint_by_id(tx, id)
        others = [one for one in self._by_id.values() if one.id != id]
        self._keep([*others, found] if found is not None else others)

    def _keep(self, endpoints: Iterable[Endpoint]) -> None:
        self._by_id = {one.id: one for one in endpoints}
        self._by_name = {(one.organization_id, one.name): one for one in self._by_id.values()}
