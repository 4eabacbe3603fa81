"""Passes the vault to another master key while gateways serve: resumed after kill -9, checked, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from ostiary.actor import Actor
from ostiary.clock import Clock
from ostiary.db import changes
from ostiary.db.backup_file import Progress
from ostiary.db.database import Database, Transaction
from ostiary.errors import CannotStart, Refusal
from ostiary.ledger import audit, gateways
from ostiary.vault import seal_store as store
from ostiary.vault.key_file import new_key
from ostiary.vault.master_key import Keeper
from ostiary.vault.seal import HELD, HOW, RETIRED, MasterKeys, Seal, Undecryptable
from ostiary.vault.seal_store import DataKey

_MARK: Final = "rotation"
"""In the instance's values while a rotation is unfinished: the name of the key it goes to."""
_BATCH: Final = 200
_WAIT_S: Final = 10.0
_LOOK_S: Final = 0.1
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Vault:
    """All that is needed to change the keys of the vault."""

    database: Database
    seal: Seal
    keeper: Keeper
    clock: Clock


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation came to."""

    key: str
    """The name of the master key that everything is wrapped by."""
    retired: tuple[str, ...]
    """Keys that open nothing any more."""
    is_resumed: bool
    rewrapped: int
    opened: int
    """Data keys that the new master key opens, alone."""
    undecryptable: tuple[str, ...]
    """Data keys that no master key at hand opens, as organization and version."""
    is_dropped: bool
    """Whether the old keys are gone from where keys are kept; from a setting the operator takes them."""


async def rotate(vault: Vault, by: Actor, progress: Progress) -> Rotated:
    """Go over to the first of the master keys; where they are in our own file, to a new one made here.

    At any moment every data key opens with the keys that are kept: the new key is kept before anything is wrapped by
    it, and the old one until everything was found to open without it. Cut off, it is run again and goes on.
    """
    by.require("master_key.rotate", None)
    with vault.keeper.alone():
        async with vault.database.read() as tx:
            mark = await store.find_value(tx, _MARK)
        master = _prepared(vault.keeper, mark)
        await vault.seal.learn(vault.database)
        if vault.seal.master.names != master.names:
            raise CannotStart("The master keys cannot be read again as they are kept now. Nothing was rotated.")
        target, *old = master.names
        await _begin(vault, by, target, old, mark)
        progress("waiting for gateways", 0, 0)
        await _await_gateways(vault, target)
        await _switch(vault, master)
        rewrapped, opened, shut = await _rewrap(vault, master, progress)
        progress("dropping the old key", 0, 0)
        if vault.keeper.file is not None and old:
            vault.keeper.keep_first()
        retired = await _end(vault, by, target, opened, shut)
    return Rotated(
        key=target,
        retired=tuple(retired),
        is_resumed=mark is not None,
        rewrapped=rewrapped,
        opened=opened,
        undecryptable=tuple(f"{key.organization_id} version {key.version}" for key in shut),
        is_dropped=vault.keeper.file is not None or not old,
    )


def _prepared(keeper: Keeper, mark: str | None) -> MasterKeys:
    """The keys with the new one first. What a rotation that was cut off has prepared is not made again."""
    master = keeper.keys()
    [first, *others] = master.names
    if others or mark == first:
        return master
    if keeper.file is None:
        raise Refusal("conflict", _say_how(first))
    keeper.put_before(new_key())
    return keeper.keys()


def _say_how(name: str) -> str:
    return (
        f"There is one master key, {name}, and it comes from a setting, which is yours to change. Put a new key in "
        "front of it, separated by a comma: in the file that OSTIARY_MASTER_KEY_FILE names (gateways read it again by "
        "themselves), or in OSTIARY_MASTER_KEY (then restart each gateway); the same for this command. Then run it "
        f"again. {HOW}"
    )


async def _begin(vault: Vault, by: Actor, target: str, old: Sequence[str], mark: str | None) -> None:
    """Leave a mark, and let every gateway read the keys again."""
    at = vault.clock.now()
    async with vault.database.transaction() as tx:
        await store.set_value(tx, _MARK, target)
        if mark != target:
            await _tell(tx, by, target, at, before={"keys": list(old)}, after={"phase": "begun"})
        await changes.append(tx, "master_key", None, target, at)


async def _await_gateways(vault: Vault, target: str) -> None:
    """Until each that lives has the new key; refuses and names those that do not get it."""
    end = vault.clock.monotonic() + _WAIT_S
    while True:
        async with vault.database.read() as tx:
            lacking = await _lacking(tx, target, vault.clock.now())
        if not lacking:
            return
        if vault.clock.monotonic() > end:
            raise _not_yet(target, lacking)
        await vault.clock.sleep(_LOOK_S)


async def _lacking(tx: Transaction, target: str, at: int) -> list[str]:
    held = await store.find_values(tx, HELD)
    live = [one for one in await gateways.look(tx, at) if one.state == "live"]
    return sorted({one.name for one in live if target not in json.loads(held.get(one.id, "[]"))})


def _not_yet(target: str, lacking: Sequence[str]) -> Refusal:
    return Refusal(
        "conflict",
        f"These gateways do not have the master key {target} yet: {', '.join(lacking)}. Put it in front of the old one "
        "in their setting and restart them (one that was killed counts as gone after 15 seconds), then run this again. "
        "Until then everything stays under the old key.",
    )


async def _switch(vault: Vault, master: MasterKeys) -> None:
    """From here on every new data key is wrapped by the new master key, whoever makes it.

    Who wraps holds the instance's own data key until they commit, so that what they have wrapped is seen by what
    follows; a gateway that starts meanwhile either announces itself before this, or finds the door changed.
    """
    target, *old = master.names
    async with vault.database.transaction() as tx:
        own = await store.lock_own_key(tx, to_change=True)
        wrapped = master.rewrap(own.wrapped, target) if own else None
        if own is None or wrapped is None:
            raise Refusal("sealed")
        await store.change_wrapped(tx, [(own, wrapped)])
        lacking = await _lacking(tx, target, vault.clock.now())
        if lacking:
            raise _not_yet(target, lacking)
        retired = {*json.loads(await store.find_value(tx, RETIRED) or "[]"), *old} - {target}
        await store.set_value(tx, RETIRED, json.dumps(sorted(retired)))


async def _rewrap(vault: Vault, master: MasterKeys, progress: Progress) -> tuple[int, int, list[DataKey]]:
    """Wrap every data key anew and see that it opens: how many were changed, how many open, and which do not."""
    target = master.names[0]
    changed = 0
    for _ in range(_TRIES):
        async for page in _pages(vault.database, "wrapping anew", progress):
            changed += await _rewrap_page(vault.database, master, page)
        opened, behind = 0, 0
        shut: list[DataKey] = []
        alone = master.only(target)
        async for page in _pages(vault.database, "checking", progress):
            for key in page:
                if _opens(alone, key):
                    opened += 1
                elif master.rewrap(key.wrapped, target) in (None, key.wrapped):
                    shut.append(key)
                else:
                    behind += 1
        if not behind:
            return changed, opened, shut
    raise Refusal("service_unavailable", f"{behind} data keys are still under an old master key. Run this again.")


async def _rewrap_page(database: Database, master: MasterKeys, page: Sequence[DataKey]) -> int:
    found = [(key, master.rewrap(key.wrapped, master.names[0])) for key in page]
    changed = [(key, wrapped) for key, wrapped in found if wrapped is not None and wrapped != key.wrapped]
    if changed:
        async with database.transaction() as tx:
            await store.change_wrapped(tx, changed)
    return len(changed)


async def _pages(database: Database, what: str, progress: Progress) -> AsyncIterator[list[DataKey]]:
    async with database.read() as tx:
        total = await store.count_data_keys(tx)
    done = 0
    after: tuple[str, int] | None = None
    while True:
        async with database.read() as tx:
            page = await store.list_data_keys(tx, after, _BATCH)
        yield page
        done += len(page)
        progress(what, done, max(total, done))
        if len(page) < _BATCH:
            return
        after = (page[-1].organization_id, page[-1].version)


def _opens(alone: MasterKeys, key: DataKey) -> bool:
    try:
        alone.unwrap(*key)
    except Undecryptable:
        return False
    return True


async def _end(vault: Vault, by: Actor, target: str, opened: int, shut: Sequence[DataKey]) -> list[str]:
    """Take the mark away, and let gateways forget what they no longer need; the answer is what was ever retired."""
    at = vault.clock.now()
    async with vault.database.transaction() as tx:
        await store.remove_value(tx, _MARK)
        await store.remove_values_of_gone(tx, HELD)
        after = {"phase": "ended", "data_keys": opened, "undecryptable": len(shut)}
        await _tell(tx, by, target, at, before=None, after=after)
        await changes.append(tx, "master_key", None, target, at)
        retired: list[str] = json.loads(await store.find_value(tx, RETIRED) or "[]")
    return retired


async def _tell(
    tx: Transaction,
    by: Actor,
    name: str,
    at: int,
    *,
    before: dict[str, object] | None,
    after: dict[str, object],
) -> None:
    await audit.write(
        tx,
        by,
        "master_key.rotate",
        "master_key",
        name,
        name,
        organization_id=None,
        before=before,
        after=after,
        at=at,
    )
