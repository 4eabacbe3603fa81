"""Gateways: every start of a process, whether it lives, what it knows, and the money it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import audit, operation_store
from ostiary.ledger.operation_store import OwnerRow
from ostiary.limits import store as money

State = Literal["live", "lost", "closed", "retired"]

_LIVE_MS: Final = 15_000
"""Three heartbeats. The same as counts when leases are sized."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One start of a gateway process.

    `revision` is the newest change of the feed it knows, `behind` how many it does not; None before it has said so.
    `leased_nano` may have been spent by it, so it counts as such until the process, or its spool, gives it back.
    """

    id: str
    name: str
    version: str
    state: State
    started_at: int
    heartbeat_at: int
    heard_ms: int
    """How long ago, by the clock of whoever asks."""
    revision: int | None
    behind: int | None
    leased_nano: int


@dataclass(frozen=True, slots=True)
class Serving:
    """A gateway as those see it whom it serves: whether it is up, and holds what was configured. No money, no id."""

    name: str
    version: str
    is_live: bool
    started_at: int
    heartbeat_at: int
    revision: int | None
    behind: int | None

    @property
    def state(self) -> State:
        """In the words of `Gateway`."""
        return "live" if self.is_live else "lost"


async def list_(tx: Transaction, by: Actor, at: int, *, everyone: bool = False) -> list[Gateway]:
    """Those that live or are lost, the newest start first; with `everyone` also what closed or was retired."""
    by.require("gateways.list", None)
    return await look(tx, at, everyone=everyone)


async def list_serving(tx: Transaction, by: Actor, organization_id: str, at: int) -> list[Serving]:
    """What an organization may know of those that serve it, as all others: the newest start first."""
    by.require("gateways.show", organization_id)
    return [
        Serving(one.name, one.version, one.state == "live", one.started_at, one.heartbeat_at, one.revision, one.behind)
        for one in await look(tx, at)
    ]


async def look(tx: Transaction, at: int, *, everyone: bool = False) -> list[Gateway]:
    """As `list_`, for the instance itself: health, metrics, the doctor."""
    latest = await changes.latest(tx)
    rows = await operation_store.list_owners(tx, open_only=not everyone)
    return [_described(row, latest, at) for row in rows]


async def retire(tx: Transaction, by: Actor, name_or_id: str, at: int) -> list[Gateway]:
    """Give up on lost gateways of that name: what they lease counts as spent from now on.

    Their spools may still turn up: what they settle later is drawn from that charge. One that lives is refused.
    """
    by.require("gateways.retire", None)
    found = [one for one in await look(tx, at, everyone=True) if name_or_id in (one.id, one.name)]
    lost = [one for one in found if one.state == "lost"]
    if not lost:
        raise _not_lost(found)
    # All accounts before anything is said, as who changes a budget has them.
    charged = {one.id: await money.retire_owner(tx, one.id, at) for one in lost}
    for one in lost:
        await audit.write(
            tx,
            by,
            "gateways.retire",
            "gateway",
            one.id,
            one.name,
            organization_id=None,
            before={"state": one.state, "leased_nano": one.leased_nano},
            after={"state": "retired", "charged_nano": charged[one.id]},
            at=at,
        )
        await changes.append(tx, "gateway", None, one.id, at)
    return lost


def _not_lost(found: list[Gateway]) -> Refusal:
    if any(one.state == "live" for one in found):
        return Refusal("conflict", "This gateway lives: stop it, and it gives back what it holds by itself.")
    if found:
        how = "retired already" if any(one.state == "retired" for one in found) else "stopped, and holds nothing"
        return Refusal("conflict", f"This gateway is {how}.")
    return Refusal("not_found", "There is no such gateway. 'ostiary gateways list' shows all.")


def _described(row: OwnerRow, latest: int, at: int) -> Gateway:
    return Gateway(
        id=row.id,
        name=row.name,
        version=row.version,
        state=_state(row, at),
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        heard_ms=max(at - row.heartbeat_at, 0),
        revision=row.revision,
        behind=None if row.revision is None else max(latest - row.revision, 0),
        leased_nano=row.leased_nano,
    )


def _state(row: OwnerRow, at: int) -> State:
    if row.closed_at is not None:
        return "closed"
    if row.retired_at is not None:
        return "retired"
    return "live" if row.heartbeat_at > at - _LIVE_MS else "lost"
