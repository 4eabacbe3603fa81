"""Gives organizations new data keys while gateways serve, and seals every record anew under them, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.backup_file import Progress
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import audit, gateways
from ostiary.vault import seal_store as store
from ostiary.vault.rotation import Vault
from ostiary.vault.seal import Place, Undecryptable, open_record, seal_record
from ostiary.vault.seal_store import OWN, SHELVES, USERS, SealedRow, Shelf

_MARK: Final = "rekey"
"""In the instance's values while a rekeying is unfinished: what it has set out to do."""
_WAIT_S: Final = 20.0
_LOOK_S: Final = 0.2
_PASSES: Final = 5
_TRIES: Final = 5
_MOST_NAMED: Final = 100


class _Work(msgspec.Struct, frozen=True):
    """What a rekeying has set out to do: it is kept until that is done, whoever is killed meanwhile."""

    scope: str | None
    """An organization, or None for all of them and the instance itself."""
    versions: dict[str, int]
    """The new version by organization."""
    seq: int
    """The change of the feed by which gateways hear of it."""
    is_resumed: bool = False


@dataclass(slots=True)
class Rekeyed:
    """What it came to. `undecryptable` counts records that open under no key, of which the first are named."""

    organizations: int
    is_resumed: bool
    resealed: int = 0
    opened: int = 0
    undecryptable: int = 0
    named: list[str] = field(default_factory=list)
    removed: int = 0
    """Old data keys that are gone."""
    waits_for: tuple[str, ...] = ()
    """Gateways that may still seal, or have sealed, under old data keys: those are kept until they have been heard."""


async def rekey(vault: Vault, by: Actor, organization_id: str | None, progress: Progress) -> Rekeyed:
    """Make new data keys, seal all records anew under them, and remove the old ones when nothing uses them.

    Cut off, it is run again and goes on: only what is left is changed. A record that does not open stays as it is,
    and so does the data key it was sealed under.
    """
    by.require("vault.rekey", organization_id)
    with vault.keeper.alone():
        work = await _begin(vault, by, organization_id)
        result = Rekeyed(len(work.versions.keys() - {OWN, USERS}), work.is_resumed)
        if OWN in work.versions:
            async with vault.database.transaction() as tx:
                await vault.seal.renew_instance(tx, work.versions[OWN], vault.clock.now())
        await _Pass(vault, work).run(result, progress, "sealing anew")
        progress("waiting for gateways", 0, 0)
        result.waits_for = await _await_heard(vault, work.seq)
        for _ in range(_PASSES):  # what was on its way while the keys were changed has arrived meanwhile
            if not await _Pass(vault, work).run(result, progress, "checking"):
                break
        if not result.waits_for:
            result.removed = await _remove_old(vault, work)
            await _end(vault, by, work, result)
    return result


async def _begin(vault: Vault, by: Actor, organization_id: str | None) -> _Work:
    at = vault.clock.now()
    async with vault.database.transaction() as tx:
        own = await store.lock_own_key(tx, to_change=True)  # of two who begin at once, one finds what the other began
        text = await store.find_value(tx, _MARK)
        if text is not None:
            return _resumed(text, organization_id)
        newest = await store.list_newest_versions(tx, organization_id)
        versions = {one: version + 1 for one, version in newest.items()}
        await store.add_data_keys(tx, await vault.seal.new_data_keys(tx, versions), at)
        if organization_id is None and own is not None:
            versions[OWN] = own.version + 1
        await _tell(tx, by, organization_id, at, {"phase": "begun", "data_keys": len(versions)})
        await changes.append(tx, "data_key", organization_id, organization_id or OWN, at)
        work = _Work(organization_id, versions, await changes.latest(tx))
        await store.set_value(tx, _MARK, msgspec.json.encode(work).decode())
    return work


def _resumed(text: str, organization_id: str | None) -> _Work:
    work = msgspec.json.decode(text, type=_Work)
    if work.scope != organization_id:
        how = "without --org" if work.scope is None else f"with --org {work.scope}"
        raise Refusal("conflict", f"Another one is unfinished. Run 'ostiary vault rekey' {how} first: it goes on.")
    return msgspec.structs.replace(work, is_resumed=True)


class _Pass:
    """One walk through all records: each is opened, and what stands under an old data key is sealed anew."""

    def __init__(self, vault: Vault, work: _Work) -> None:
        self._vault = vault
        self._work = work
        self._keys: dict[tuple[str, int], bytes | None] = {}
        self._named: list[str] = []
        self._shut = 0
        self._opened = 0
        self._resealed = 0

    async def run(self, result: Rekeyed, progress: Progress, what: str) -> int:
        """How many records were sealed anew; what was found takes the place of what the pass before has found."""
        async with self._vault.database.read() as tx:
            total = await store.count_sealed(tx, self._work.scope)
        done = 0
        for shelf in SHELVES:
            after: tuple[Any, ...] | None = None
            while True:
                page = await self._turn_in_peace(shelf, after)
                done += len(page)
                progress(what, done, max(total, done))
                if len(page) < shelf.limit:
                    break
                after = page[-1].ids
        result.opened, result.undecryptable, result.named = self._opened, self._shut, self._named
        result.resealed += self._resealed
        return self._resealed

    async def _turn_in_peace(self, shelf: Shelf, after: tuple[Any, ...] | None) -> list[SealedRow]:
        """As `_turn`, again where the database has ended it: two who change the same rows may wait for each other."""
        for left in reversed(range(_TRIES)):
            try:
                return await self._turn(shelf, after)
            except Refusal as refusal:
                if refusal.code != "service_unavailable" or not left:
                    raise
                await self._vault.clock.sleep(_LOOK_S)
        raise AssertionError("the last try has returned or raised")

    async def _turn(self, shelf: Shelf, after: tuple[Any, ...] | None) -> list[SealedRow]:
        """One page. Nothing is locked while it is worked on: who changes a row meanwhile has sealed it anew already."""
        shut: list[str] = []
        fresh: list[tuple[SealedRow, str, int]] = []
        async with self._vault.database.read() as tx:
            page = await store.list_sealed(tx, shelf, self._work.scope, after)
            for row in page:
                try:
                    token = await self._resealed_row(tx, row)
                except Undecryptable:
                    shut.append(f"{shelf.table.name} {row.name}")
                else:
                    fresh += [(row, token, self._work.versions[row.organization_id])] if token else []
        if fresh:
            async with self._vault.database.transaction() as tx:
                await store.change_sealed(tx, fresh)
        self._named += shut[: _MOST_NAMED - len(self._named)]
        self._shut += len(shut)
        self._opened += len(page) - len(shut)
        self._resealed += len(fresh)
        return page

    async def _resealed_row(self, tx: Transaction, row: SealedRow) -> str | None:
        """The record under the new data key; None where it stands under that, or under a newer one. Opens it anyhow."""
        secret = open_record(
            await self._key(tx, row.organization_id, row.version), _place(row, row.version), row.sealed
        )
        wanted = self._work.versions.get(row.organization_id, row.version)
        if row.version >= wanted:
            return None
        return seal_record(await self._key(tx, row.organization_id, wanted), _place(row, wanted), secret)

    async def _key(self, tx: Transaction, organization_id: str, version: int) -> bytes:
        """A data key, unwrapped once a pass; raises Undecryptable where it does not open."""
        place = (organization_id, version)
        if place not in self._keys:
            try:
                self._keys[place] = await self._vault.seal.data_key(tx, *place)
            except Undecryptable:
                self._keys[place] = None
        found = self._keys[place]
        if found is None:
            raise Undecryptable
        return found


def _place(row: SealedRow, version: int) -> Place:
    return Place(row.organization_id, row.shelf.table.name, row.name, row.shelf.field, version, row.origin)


async def _await_heard(vault: Vault, seq: int) -> tuple[str, ...]:
    """Until every gateway knows of the new data keys; the answer is which do not.

    A gateway writes what it has sealed before each heartbeat. So after a second one since it knew, nothing that it
    sealed before is still on its way. One that is lost may still bring what it has sealed.
    """
    end = vault.clock.monotonic() + _WAIT_S
    knew: dict[str, int] = {}
    while True:
        async with vault.database.read() as tx:
            known = await gateways.look(tx, vault.clock.now())
        for one in known:
            if one.revision is not None and one.revision >= seq:
                knew.setdefault(one.id, one.heartbeat_at)
        waiting = [one for one in known if one.heartbeat_at <= knew.get(one.id, one.heartbeat_at)]
        if vault.clock.monotonic() > end or all(one.state == "lost" for one in waiting):
            return tuple(sorted({one.name for one in waiting}))
        await vault.clock.sleep(_LOOK_S)


async def _remove_old(vault: Vault, work: _Work) -> int:
    """Forget data keys of before that no record needs; the answer is how many."""
    async with vault.database.read() as tx:
        known = await store.list_versions(tx, list(work.versions))
    removed = 0
    for organization_id, version in known:
        if organization_id != OWN and version < work.versions[organization_id]:
            removed += await _remove_unused(vault, organization_id, version)
    return removed


async def _remove_unused(vault: Vault, organization_id: str, version: int) -> bool:
    """Removed first and looked at then: whoever seals under it has a lock on it until their record can be seen."""
    async with vault.database.transaction() as tx:
        attempt = await tx.begin_nested()
        await store.remove_data_key(tx, organization_id, version)
        is_used = await store.is_used(tx, organization_id, version)
        await (attempt.rollback() if is_used else attempt.commit())
    return not is_used


async def _end(vault: Vault, by: Actor, work: _Work, result: Rekeyed) -> None:
    at = vault.clock.now()
    after = {
        "phase": "ended",
        "records": result.opened,
        "undecryptable": result.undecryptable,
        "data_keys_removed": result.removed,
    }
    async with vault.database.transaction() as tx:
        await store.remove_value(tx, _MARK)
        await _tell(tx, by, work.scope, at, after)
        await changes.append(tx, "data_key", work.scope, work.scope or OWN, at)


async def _tell(tx: Transaction, by: Actor, organization_id: str | None, at: int, after: Mapping[str, object]) -> None:
    await audit.write(
        tx,
        by,
        "vault.rekey",
        "vault",
        organization_id or OWN,
        organization_id or "all organizations",
        organization_id=organization_id,
        after=after,
        at=at,
    )
