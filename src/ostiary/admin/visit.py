"""One request to the admin API: who asks, in which organization, and the one transaction it is answered in."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

from ostiary.actor import Actor
from ostiary.admin import store
from ostiary.admin.office import Known, Office
from ostiary.admin.routes import Route
from ostiary.admin.store import Claim, Kept
from ostiary.agents.policy import judge_caller
from ostiary.agents.store import find_agent_key_by_id
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.orgs import members
from ostiary.orgs.store import find_organization


class Replayed(Exception):  # noqa: N818 - an answer, not an error
    """A write was done before, under the same key: what it was answered then is the answer."""

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.kept = kept


@dataclass(slots=True)
class Visit:
    """Made by the door once the credential is known; an answerer calls `begin` and has everything it needs."""

    office: Office
    route: Route
    known: Known
    address: str | None
    at: int
    target: str | None = None
    """What the path names, by id or name."""
    claim: Claim | None = None
    organization: str | None = None
    """Which one was asked for; without, the credential's own."""
    organization_id: str = ""
    _by: Actor | None = None
    _tx: Transaction | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def by(self) -> Actor:
        """Who acts, once `admit` has said so."""
        assert self._by is not None, "nobody was admitted"  # noqa: S101 - the door admits before it hands on
        return self._by

    @property
    def is_admitted(self) -> bool:
        """Whether it is known who acts."""
        return self._by is not None

    async def admit(self) -> None:
        """Refuse whoever may not do this at all, before anything of the body is read."""
        key, policy = self.known.key, self.known.policy
        refusal = judge_caller(policy, now=self.at, scope=self.route.scope, address=self.address)
        if refusal is None and (key is None or key.is_ephemeral):
            refusal = Refusal("insufficient_scope", "An ephemeral key opens nothing here.")
        if refusal is not None and (key is None or refusal.code != "insufficient_scope"):
            raise refusal
        async with self.office.database.read() as tx:
            await self._enter(tx, refusal)

    async def begin(self) -> Transaction:
        """The transaction of this request, for reading or for writing as the route says; the door ends it.

        Who asks is looked up again in it, so that a deed and the right to it are of one moment. Raises Replayed.
        """
        if self._tx is None:
            database = self.office.database
            writes = self.route.is_write or self.route.is_noted
            opened = database.transaction() if writes else database.read()
            self._tx = tx = await self._stack.enter_async_context(opened)
            await self._look_again(tx)
            await self._enter(tx)
            if self.claim is not None and not await store.claim(tx, self.claim, self.at):
                raise await self._replay(tx, self.claim)
        return self._tx

    async def __aenter__(self) -> Self:
        """Ends with what was begun: kept when all went well, else undone."""
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.__aexit__(*error)  # type: ignore[arg-type]

    async def keep(self, status: int, answer: object) -> None:
        """Remember the answer for whoever asks again."""
        if self.claim is not None and self._tx is not None:
            await store.keep_answer(self._tx, self.claim, status, answer)

    async def _replay(self, tx: Transaction, claim: Claim) -> Exception:
        kept = await store.get_answer(tx, claim)
        if kept.digest != claim.digest:
            return Refusal("conflict", "This Idempotency-Key was used for another request.", param="idempotency-key")
        return Replayed(kept)

    async def _look_again(self, tx: Transaction) -> None:
        """The key as it is now: while a body came slowly it may have been stopped, narrowed or given a new secret."""
        key = self.known.key
        fresh = await find_agent_key_by_id(tx, key.id) if key is not None else None
        if key is None or fresh is None or fresh.previews != key.previews:
            raise Refusal("invalid_api_key")
        refusal = judge_caller(fresh.policy(), now=self.at, scope=self.route.scope, address=self.address)
        if refusal is not None:
            raise refusal

    async def _enter(self, tx: Transaction, refusal: Refusal | None = None) -> None:
        """Find out who asks and where, and that they may."""
        key, deed = self.known.key, self.route.deed
        assert key is not None, "only agent keys have the scopes of this door"  # noqa: S101 - `admit` has judged it
        home = self.known.organization_id
        self._by = by = await members.actor_of_key(tx, home, key.owner_id, key.scopes, key.name, self.address)
        if refusal is not None:
            raise refusal
        self.organization_id = (
            home if self.organization is None else await self.find_organization(tx, self.organization)
        )
        if deed not in by.grants or by.organization_id not in (None, self.organization_id):
            by.require(deed, self.organization_id)

    async def find_organization(self, tx: Transaction, sought: str) -> str:
        """The one that is meant. To who reaches only one, all others look alike: as if there were none."""
        found = await find_organization(tx, sought)
        if found is None:
            self.by.require(self.route.deed, sought)
            raise Refusal("not_found")
        return found.id
