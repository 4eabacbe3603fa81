"""Which master keys are in use: what each opens, which gateways have it, and whether a rotation is under way."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from ostiary.actor import Actor
from ostiary.db.database import Transaction
from ostiary.ledger import gateways
from ostiary.vault import custody_store, seal_store
from ostiary.vault.seal import HELD, RETIRED, MasterKeys, Seal
from ostiary.vault.seal_store import DataKey

_ROTATION: Final = "rotation"
"""In the instance's values: what `rotation` leaves there while one is unfinished."""
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A master key by its name, and what is under it. `name` None stands for whatever no key at hand opens."""

    name: str | None
    is_first: bool
    """Whether new data keys are wrapped by it."""
    is_held: bool
    """Whether this gateway has it."""
    is_retired: bool
    data_keys: int
    records: int
    """Credentials sealed under those data keys: provider keys, webhooks, second factors."""
    gateways: tuple[str, ...]
    """The names of the live gateways that have it."""


@dataclass(frozen=True, slots=True)
class Custody:
    """All of them, the first before the others. `target` is where an unfinished rotation goes."""

    keys: tuple[KeyUse, ...]
    target: str | None

    @property
    def data_keys(self) -> int:
        """How many there are in all."""
        return sum(key.data_keys for key in self.keys)

    @property
    def moved(self) -> int:
        """How many of them an unfinished rotation has behind it."""
        return sum(key.data_keys for key in self.keys if key.name == self.target)


async def look(tx: Transaction, by: Actor, seal: Seal, at: int) -> Custody:
    """As it is at this moment; finds out which key wraps what by trying, beside the loop."""
    by.require("master_key.rotate", None)
    master = seal.master
    wrapped_by: dict[tuple[str, int], str | None] = {}
    after: tuple[str, int] | None = None
    while True:
        page = await seal_store.list_data_keys(tx, after, _PAGE)
        wrapped_by |= await asyncio.to_thread(_judged, master, page)
        if len(page) < _PAGE:
            break
        after = (page[-1].organization_id, page[-1].version)
    data_keys = Counter(wrapped_by.values())
    records: Counter[str | None] = Counter()
    for (organization_id, version), number in (await custody_store.count_credentials(tx)).items():
        records[wrapped_by.get((organization_id, version))] += number
    retired = json.loads(await seal_store.find_value(tx, RETIRED) or "[]")
    holders = await _holders(tx, at)
    target = await seal_store.find_value(tx, _ROTATION)
    known = list(dict.fromkeys([*master.names, *([target] if target else []), *sorted(holders), *retired]))
    shown = [*known, *([None] if data_keys[None] or records[None] else [])]
    return Custody(
        tuple(
            KeyUse(
                name,
                is_first=name == master.names[0],
                is_held=name in master.names,
                is_retired=name in retired,
                data_keys=data_keys[name],
                records=records[name],
                gateways=tuple(sorted(holders.get(name or "", ()))),
            )
            for name in shown
        ),
        target,
    )


def _judged(master: MasterKeys, page: Collection[DataKey]) -> dict[tuple[str, int], str | None]:
    alone = {name: master.only(name) for name in master.names}
    return {
        (key.organization_id, key.version): next(
            (name for name, one in alone.items() if one.rewrap(key.wrapped, name) is not None), None
        )
        for key in page
    }


async def _holders(tx: Transaction, at: int) -> Mapping[str, set[str]]:
    """The names of live gateways by the name of each master key they have said to have."""
    held = await seal_store.find_values(tx, HELD)
    found: dict[str, set[str]] = {}
    for one in await gateways.look(tx, at):
        for name in json.loads(held.get(one.id, "[]")) if one.state == "live" else ():
            found.setdefault(name, set()).add(one.name)
    return found
