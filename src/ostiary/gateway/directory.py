"""What this gateway knows by heart: callers, provider keys and prices, kept fresh by the change feed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from ostiary.agents import credential
from ostiary.agents import store as agents
from ostiary.agents.policy import Policy
from ostiary.agents.store import AgentKey, ClientCredential, KeySecret
from ostiary.clock import Clock, day_of
from ostiary.db import changes
from ostiary.db.changes import Change
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ledger import store as ledger
from ostiary.limits.local import Allowance
from ostiary.logs import get
from ostiary.orgs import store as orgs
from ostiary.providers import store as price_store
from ostiary.providers.catalog import Catalog, Model, Provider
from ostiary.providers.prices import PriceBook
from ostiary.vault import provider_keys
from ostiary.vault import store as vault
from ostiary.vault.seal import Seal

_LISTEN_S: Final = 0.25
_LOOK_AGAIN_S: Final = 0.02
_STALE_S: Final = 60.0
"""A gateway cut off from the feed may not know of a revocation; after so long it stops serving."""
_DAY_MS: Final = 86_400_000
_MINUTE_MS: Final = 60_000
_MOST_PLANS: Final = 10_000
_JSON: Final = ("content-type", "application/json")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a credential stands for, with everything the path of a call asks about them."""

    organization_id: str
    policy: Policy
    allowance: Allowance
    key: AgentKey | None = None
    credential: ClientCredential | None = None
    secret_expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class OpenKey:
    """A provider key ready to be sent. `headers` carry the credential, so they are never printed.

    `secrets` is what must be taken out of whatever the provider says: the credential, its owner's identifiers.
    """

    id: str
    name: str
    organization_id: str
    provider: Provider
    base_url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    shared: bool


class Directory:
    """The snapshot in memory. Every look-up is a dict; only `load` and `listen` touch the database."""

    def __init__(self, database: Database, seal: Seal, catalog: Catalog, clock: Clock) -> None:
        self._database = database
        self._seal = seal
        self._shelf = catalog
        self._clock = clock
        self._log = get("directory")
        self._callers: dict[bytes, Caller] = {}
        self._digests: defaultdict[str, set[bytes]] = defaultdict(set)
        self._provider_keys: dict[str, OpenKey] = {}
        self._by_provider: dict[str, tuple[OpenKey, ...]] = {}
        self._plans: dict[tuple[int, str, str], tuple[Caller, int, object]] = {}
        self._seq = 0
        self._heard_at = clock.monotonic()
        self._looking = asyncio.Lock()
        self._seed: Callable[[str, int], None] = lambda _key_id, _count: None
        self._changed: Callable[[Change], None] = lambda _change: None
        self.catalog = catalog
        self.prices = PriceBook((), clock)
        self.client_ids: dict[str, str] = {}

    def on_change(self, seed: Callable[[str, int], None], changed: Callable[[Change], None]) -> None:
        """Whom to tell of today's request counts (key id, count) and of every change heard."""
        self._seed = seed
        self._changed = changed

    # ---- what the path of a call asks --------------------------------------------------------------------------

    def find_caller(self, text: str) -> Caller | None:
        """The caller a credential of right shape stands for, None when nobody knows it or its overlap is over."""
        if self._clock.monotonic() - self._heard_at > _STALE_S:
            raise Refusal("service_unavailable", "This gateway has lost its database and may not know what changed.")
        caller = self._callers.get(credential.digest(self._seal.pepper, text))
        if caller is None:
            return None
        ends_at = caller.secret_expires_at
        return None if ends_at is not None and ends_at <= self._clock.now() else caller

    def keys_for(self, organization_id: str, provider_id: str) -> list[OpenKey]:
        """The provider keys an organization may use, its own before those shared with the pool."""
        keys = self._by_provider.get(provider_id, ())
        own = [key for key in keys if key.organization_id == organization_id]
        return own + [key for key in keys if key.shared and key.organization_id != organization_id]

    def recall(self, caller: Caller, asked: tuple[str, str]) -> Any:  # noqa: ANN401 - the plan's own kind of thing
        """What was remembered for this very caller since the last change and in this minute, or None."""
        found = self._plans.get((id(caller), *asked))
        if found is None or found[0] is not caller or found[1] != self._clock.now() // _MINUTE_MS:
            return None
        return found[2]

    def remember(self, caller: Caller, asked: tuple[str, str], plan: object) -> None:
        """Keep what was worked out for a caller until something changes."""
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[(id(caller), *asked)] = (caller, self._clock.now() // _MINUTE_MS, plan)

    # ---- loading and listening ---------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read everything once. The feed's position is read first, so that nothing falls between."""
        async with self._database.read() as tx:
            self._seq = await changes.latest(tx)
            for organization in await orgs.list_organizations(tx):
                self.client_ids[organization.id] = organization.client_id
            await self._load_prices(tx)
            await self._load_agent_keys(tx)
            for client in await agents.list_all_client_credentials(tx):
                self._put_client(client)
            for key in await vault.list_all_provider_keys(tx):
                await self._open(tx, key)
        self._shelve()
        self._heard_at = self._clock.monotonic()

    def warm(self) -> None:
        """Read the models and prices that the first call would otherwise wait half a second for."""
        self.catalog.served_by("")
        self.catalog.near("")

    async def listen(self) -> None:
        """Until cancelled: hear of changes within a quarter of a second, and say once when the feed is lost."""
        is_lost = False
        while True:
            await self._clock.sleep(_LISTEN_S)
            try:
                await self.catch_up()
            except Refusal as refusal:
                if not is_lost:
                    self._log.error("feed.lost", reason=str(refusal.__cause__ or refusal))
                is_lost = True
            else:
                if is_lost:
                    self._log.warning("feed.back", seq=self._seq)
                is_lost = False

    async def look_again(self) -> bool:
        """Before somebody is turned away: hear what was said until now, so that a key made a moment ago works.

        Looks at most fifty times a second, whoever asks; False when the feed can't be read.
        """
        asked_at = self._clock.monotonic()
        async with self._looking:
            if self._heard_at >= asked_at:
                return True
            await self._clock.sleep(max(self._heard_at + _LOOK_AGAIN_S - asked_at, 0))
            try:
                await self._database.to_the_end(self._catch_up())
            except Refusal:
                return False
        return True

    async def catch_up(self) -> None:
        """Read what changed since the last look, and nothing else."""
        async with self._looking:
            await self._database.to_the_end(self._catch_up())

    async def _catch_up(self) -> None:
        looked_at = self._clock.monotonic()
        async with self._database.read() as tx:
            heard = await changes.list_after(tx, self._seq)
            for change in {(c.noun, c.id): c for c in heard}.values():
                await self._hear(tx, change)
        if heard:
            self._seq = heard[-1].seq
            self._shelve()
            for change in heard:
                self._changed(change)
        self._heard_at = looked_at

    async def _hear(self, tx: Transaction, change: Change) -> None:
        if change.noun == "agent_key":
            key = await agents.find_agent_key_by_id(tx, change.id)
            self._put_key(change.id, key, await agents.list_secrets(tx, change.id))
            if key is not None:
                counts = await ledger.count_requests_since(tx, self._today(), key.id)
                self._seed(key.id, counts.get(key.id, 0))
        elif change.noun == "client_credential":
            self._put_client(await agents.find_client_credential_by_id(tx, change.id), change.id)
        elif change.noun == "provider_key":
            self._provider_keys.pop(change.id, None)
            found = await vault.find_provider_key_by_id(tx, change.id)
            if found is not None:
                await self._open(tx, found)
        elif change.noun == "price":
            await self._load_prices(tx)
        elif change.noun == "organization":
            for organization in await orgs.list_organizations(tx):
                self.client_ids[organization.id] = organization.client_id

    # ---- one noun each -----------------------------------------------------------------------------------------

    async def _load_agent_keys(self, tx: Transaction) -> None:
        secrets: defaultdict[str, list[KeySecret]] = defaultdict(list)
        for secret in await agents.list_all_secrets(tx):
            secrets[secret.agent_key_id].append(secret)
        counts = await ledger.count_requests_since(tx, self._today())
        for key in await agents.list_all_agent_keys(tx):
            self._put_key(key.id, key, secrets[key.id])
            self._seed(key.id, counts.get(key.id, 0))

    def _put_key(self, key_id: str, key: AgentKey | None, secrets: Iterable[KeySecret]) -> None:
        self._forget(key_id)
        if key is None:
            return
        budgets = (("agent_key", key.id, key.budget),) if key.budget else ()
        allowance = Allowance(key.id, key.rpm, key.rpd, budgets)
        policy = key.policy()
        for secret in secrets:
            self._callers[secret.digest] = Caller(
                key.organization_id, policy, allowance, key, secret_expires_at=secret.expires_at
            )
            self._digests[key_id].add(secret.digest)

    def _put_client(self, client: ClientCredential | None, client_id: str = "") -> None:
        self._forget(client.id if client else client_id)
        if client is not None:
            allowance = Allowance(client.id)
            self._callers[client.digest] = Caller(client.organization_id, client.policy(), allowance, credential=client)
            self._digests[client.id].add(client.digest)

    def _forget(self, holder_id: str) -> None:
        for digest in self._digests.pop(holder_id, ()):
            self._callers.pop(digest, None)

    async def _open(self, tx: Transaction, key: vault.ProviderKey) -> None:
        provider = self._shelf.find(key.provider)
        if provider is None or key.status == "disabled":
            return
        try:
            secret = await provider_keys.open_secret(tx, self._seal, key)
        except Refusal as refusal:  # a row moved or damaged: it alone is unusable
            self._log.error("provider_key.undecryptable", provider_key=key.id, reason=refusal.code)
            return
        self._provider_keys[key.id] = OpenKey(
            id=key.id,
            name=key.name,
            organization_id=key.organization_id,
            provider=provider,
            base_url=key.base_url.rstrip("/"),
            headers=(*provider_keys.headers(provider, key.fields, secret), _JSON),
            secrets=(secret.reveal(), *key.fields.values()),
            shared=key.shared,
        )

    def _shelve(self) -> None:
        self._plans.clear()
        shelves: defaultdict[str, list[OpenKey]] = defaultdict(list)
        for key in sorted(self._provider_keys.values(), key=lambda one: one.id):
            shelves[key.provider.id].append(key)
        self._by_provider = {name: tuple(keys) for name, keys in shelves.items()}

    async def _load_prices(self, tx: Transaction) -> None:
        overrides = await price_store.list_overrides(tx)
        self.prices = PriceBook(overrides, self._clock)
        self.catalog = self._shelf.with_models(Model(one.provider, one.model, free=False) for one in overrides)

    def _today(self) -> int:
        return day_of(self._clock.now()) * _DAY_MS
