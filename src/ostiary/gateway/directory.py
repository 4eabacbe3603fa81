"""What this gateway knows by heart: callers, provider keys and prices, kept fresh by the change feed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Hashable
from hashlib import blake2b
from typing import Any, Final

from ostiary.agents import credential, packed_store
from ostiary.agents import store as agents
from ostiary.clock import Clock
from ostiary.db import changes
from ostiary.db.changes import Change
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.gateway.caller import Caller
from ostiary.gateway.health import Health
from ostiary.gateway.keyring import Keyring
from ostiary.gateway.roster import Roster
from ostiary.gateway.routebook import RouteBook
from ostiary.gateway.soft import SoftBudgets
from ostiary.limits import store as money
from ostiary.logs import get
from ostiary.orgs import store as orgs
from ostiary.orgs.store import Organization
from ostiary.providers import store as price_store
from ostiary.providers.catalog import Catalog, Model
from ostiary.providers.prices import PriceBook
from ostiary.vault.contents import Sealer
from ostiary.vault.seal import Seal
from ostiary.vault.sealers import renew

_LISTEN_S: Final = 0.25
_LOOK_AGAIN_S: Final = 0.02
_HEAR_NOW_S: Final = 1.0
"""So long an answer waits at most for its deed to count here."""
_STALE_S: Final = 60.0
"""A gateway cut off from the feed may not know of a revocation; after so long it stops serving."""
_MINUTE_MS: Final = 60_000
_MOST_PLANS: Final = 10_000
_MOST_MET: Final = 20_000
_WITH_BUDGETS: Final = frozenset({"agent_key", "organization"})


class Directory:
    """The snapshot in memory. Every look-up is a dict; only `load` and `listen` touch the database."""

    def __init__(self, database: Database, seal: Seal, catalog: Catalog, clock: Clock) -> None:
        self._database = database
        self._seal = seal
        self._shelf = catalog
        self._clock = clock
        self._log = get("directory")
        self._met: dict[bytes, Caller] = {}
        self._met_by = os.urandom(32)
        self.health = Health(clock)
        self._keyring = Keyring(seal, catalog, self.health)
        self.keys_for = self._keyring.keys_for
        self._routebook = RouteBook()
        self.find_endpoint = self._routebook.find
        self.near_endpoints = self._routebook.near
        self.list_endpoints = self._routebook.list_for
        self._plans: dict[tuple[int, Hashable, str], tuple[Caller, int, object]] = {}
        self._seq = 0
        self._heard_at = clock.monotonic()
        self._looking = asyncio.Lock()
        self._changed: Callable[[Change], None] = lambda _change: None
        self.catalog = catalog
        self.prices = PriceBook((), clock)
        self.organizations: dict[str, Organization] = {}
        self._roster = Roster(self.organizations)
        self.find_holder = self._roster.find_holder
        self.soft = SoftBudgets(clock)
        self.sealers: dict[str, Sealer] = {}
        """Of the organizations that capture what some of their keys say."""

    def on_change(self, changed: Callable[[Change], None]) -> None:
        """Whom to tell of every change heard."""
        self._changed = changed

    @property
    def seq(self) -> int:
        """The newest change this gateway knows of."""
        return self._seq

    @property
    def silence_s(self) -> float:
        """How long ago the change feed was last heard out."""
        return self._clock.monotonic() - self._heard_at

    # ---- what the path of a call asks --------------------------------------------------------------------------

    def find_caller(self, text: str) -> Caller | None:
        """The caller a credential of right shape stands for, None when nobody knows it or its overlap is over."""
        if self._clock.monotonic() - self._heard_at > _STALE_S:
            raise Refusal("service_unavailable", "This gateway has lost its database and may not know what changed.")
        return self._unless_over(self._roster.find(credential.digest(self._seal.pepper, text)))

    def meet_again(self, presented: bytes) -> Caller | None:
        """The caller who was found by these very bytes since the last change; None says nothing.

        Kept under a keyed hash of this process, so that no credential lies in memory for longer than its request.
        """
        if self._clock.monotonic() - self._heard_at > _STALE_S:
            return None
        caller = self._met.get(blake2b(presented, key=self._met_by, digest_size=16).digest())
        return caller if caller is None or caller.secret_expires_at is None else self._unless_over(caller)

    def meet(self, presented: bytes, caller: Caller) -> None:
        """Remember a caller by what they presented until something changes."""
        if len(self._met) >= _MOST_MET:
            self._met.clear()
        self._met[blake2b(presented, key=self._met_by, digest_size=16).digest()] = caller

    def is_live(self, caller: Caller) -> bool:
        """Whether the key behind a call that was let in before would still be let in."""
        now = self._clock.now()
        known = self.find_holder(caller.holder_id)
        return known is not None and all(
            one.status == "active" and (one.expires_at is None or one.expires_at > now) for one in known.policy.line
        )

    def _unless_over(self, caller: Caller | None) -> Caller | None:
        """An old secret lives on for as long as its rotation said."""
        if caller is None or caller.secret_expires_at is None or caller.secret_expires_at > self._clock.now():
            return caller
        return None

    def recall(self, caller: Caller, asked: tuple[Hashable, str]) -> Any:  # noqa: ANN401 - the plan's own kind of thing
        """What was remembered for this very caller since the last change and in this minute, or None."""
        found = self._plans.get((id(caller), *asked))
        if found is None or found[0] is not caller or found[1] != self._clock.now() // _MINUTE_MS:
            return None
        return found[2]

    def remember(self, caller: Caller, asked: tuple[Hashable, str], plan: object) -> None:
        """Keep what was worked out for a caller until something changes."""
        if len(self._plans) >= _MOST_PLANS:
            self._plans.clear()
        self._plans[(id(caller), *asked)] = (caller, self._clock.now() // _MINUTE_MS, plan)

    # ---- loading and listening ---------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read everything once. The feed's position is read first, so that nothing falls between."""
        self.soft.begin()
        async with self._database.read() as tx:
            self._seq = await changes.latest(tx)
            await self._load_all(tx)
        self._shelve()
        self._heard_at = self._clock.monotonic()

    async def _load_all(self, tx: Transaction) -> None:
        await self._load_organizations(tx)
        await self._load_prices(tx)
        await self._roster.load(tx, self._ready_to_capture)
        self.soft.learn(await money.list_soft_spent(tx))
        await self._keyring.load(tx)
        await self._routebook.load(tx)

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
        try:
            await self._database.to_the_end(self._look_since(self._clock.monotonic()))
        except Refusal:
            return False
        return True

    async def hear_now(self) -> None:
        """After a deed at this very process: it counts here before whoever did it is told so.

        The deed is done, and its answer may hold a secret that is shown once: so nothing that is wrong with the feed
        keeps the answer back. It is heard later, as always.
        """
        try:
            async with asyncio.timeout(_HEAR_NOW_S):
                await self.catch_up()
        except (Refusal, TimeoutError):
            pass  # `listen` says so
        except asyncio.CancelledError:  # the drain is over; who still listens is answered
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        except Exception:  # noqa: BLE001 - logged; `listen` meets it, too, and ends the process for it
            self._log.exception("feed.failed")

    async def catch_up(self) -> None:
        """Read what changed since the last look, and nothing else."""
        await self._database.to_the_end(self._look_since(None))

    async def _look_since(self, asked_at: float | None) -> None:
        """One look at a time, and to its end, whoever waits for it; none where one has begun since `asked_at`."""
        async with self._looking:
            if asked_at is not None:
                if self._heard_at >= asked_at:
                    return
                await self._clock.sleep(max(self._heard_at + _LOOK_AGAIN_S - asked_at, 0))
            await self._catch_up()

    async def _catch_up(self) -> None:
        looked_at = self._clock.monotonic()
        self.soft.begin()
        async with self._database.read() as tx:
            heard = await changes.list_after(tx, self._seq)
            for change in {(c.noun, c.id): c for c in heard}.values():
                await self._hear(tx, change)
            if any(change.noun in _WITH_BUDGETS for change in heard):
                self.soft.learn(await money.list_soft_spent(tx, [change.id for change in heard]))
        if heard:
            self._seq = heard[-1].seq
            if any(change.noun != "key_health" for change in heard):
                self._shelve()
            for change in heard:
                self._changed(change)
        self._heard_at = looked_at

    async def _hear(self, tx: Transaction, change: Change) -> None:
        if change.noun == "agent_key":
            key = await packed_store.find_packed(tx, change.id)
            try:  # before the first call of the key, which is captured like any other
                await self._ready_to_capture({key.organization_id} if key is not None and key.capture else ())
            finally:
                self._roster.put_key(change.id, key)
        elif change.noun == "client_credential":
            self._roster.put_client(change.id, await agents.find_client_credential_by_id(tx, change.id))
        elif change.noun == "provider_key":
            await self._keyring.hear(tx, change.id)
        elif change.noun == "key_health":
            await self._keyring.hear_health(tx, change.id)
        elif change.noun == "endpoint":
            await self._routebook.hear(tx, change.id)
        elif change.noun == "price":
            await self._load_prices(tx)
        elif change.noun == "organization":
            await self._load_organizations(tx)
            self._roster.make_anew()
        elif change.noun in ("master_key", "data_key"):
            await self._seal.learn(self._database)
            await renew(self._database, self._seal, self.sealers, self.sealers, self._clock.now())
        elif change.noun == "everything":  # a backup was restored while this gateway slept, with its own data keys
            there = {one.id for one in await orgs.list_organizations(tx)}
            await renew(self._database, self._seal, self.sealers, self.sealers.keys() & there, self._clock.now())
            await self._load_all(tx)

    # ---- one noun each -----------------------------------------------------------------------------------------

    async def _ready_to_capture(self, organization_ids: Collection[str]) -> None:
        new = sorted(set(organization_ids) - self.sealers.keys())
        if new:
            await renew(self._database, self._seal, self.sealers, new, self._clock.now())

    def _shelve(self) -> None:
        self._plans.clear()
        self._met.clear()
        self._keyring.shelve()

    async def _load_organizations(self, tx: Transaction) -> None:
        fresh = {one.id: one for one in await orgs.list_organizations(tx)}
        self.organizations.clear()
        self.organizations.update(fresh)

    async def _load_prices(self, tx: Transaction) -> None:
        overrides = await price_store.list_overrides(tx)
        self.prices = PriceBook(overrides, self._clock)
        self.catalog = self._shelf.with_models(Model(one.provider, one.model, free=False) for one in overrides)
