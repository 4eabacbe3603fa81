"""Puts the costs of past calls right after a price was: first as a preview, then batch by batch, exactly once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ostiary.actor import Actor
from ostiary.clock import iso
from ostiary.db import changes
from ostiary.db.database import Database, Transaction
from ostiary.errors import Refusal
from ostiary.ledger import alerts, audit, outbox_store
from ostiary.ledger import recost_store as store
from ostiary.ledger.recost_store import Costed, Recosted, Wish
from ostiary.ledger.trace_store import Place
from ostiary.ledger.writer import accounts_of
from ostiary.limits.budgets import AccountKey
from ostiary.limits.charge_store import Cost, charge_all
from ostiary.providers.catalog import Catalog
from ostiary.providers.prices import PriceBook
from ostiary.providers.tokens import Tokens

__all__ = ["Wish"]

_BATCH: Final = 2_000
_STOPPING: Final = "The gateway is being stopped."
_AWAY: Final = "The database is not available."
Progress = Callable[[int, int, int], None]
"""Told how many events were looked at, of how many, and how many of them cost something else."""


@dataclass(slots=True)
class Tally:
    """What became, or would become, of the events of one model."""

    provider: str
    model: str
    events: int = 0
    changed: int = 0
    before_nano: int = 0
    after_nano: int = 0
    unpriced: int = 0
    """Without a price now as then: they stay as they are."""
    unknown: int = 0
    """Their tokens are not known: they stay as they are, unless it is wished otherwise."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices to count with, and the providers they are of."""

    catalog: Catalog
    book: PriceBook


async def recost(
    database: Database,
    by: Actor,
    rates: Rates,
    wish: Wish,
    at: int,
    *,
    organization_id: str | None = None,
    is_applied: bool = False,
    progress: Progress = lambda _done, _total, _changed: None,
) -> list[Tally]:
    """Find what events would cost by the prices of today for their time, and with `is_applied` write it.

    Every batch is one transaction: events, sums, accounts and audit move together. Cut off, as by the end of the
    gateway, it is run again, and changes only what is left to change. The dearest difference comes first.
    """
    by.require("prices.recost", None)
    tallies: dict[tuple[str, str], Tally] = {}
    async with database.read() as tx:
        ids = await store.list_organization_ids(tx) if organization_id is None else [organization_id]
        total = sum([await store.count_costed(tx, one, wish) for one in ids])
    done = changed = 0
    try:
        for one in ids:
            after: Place | None = None
            while True:
                _require_open(database)
                async with database.transaction() if is_applied else database.read() as tx:
                    batch = await store.list_costed(tx, one, wish, after, _BATCH, lock=is_applied)
                    found = _judge(batch, rates, wish, tallies)
                    if is_applied and found:
                        await _apply(tx, by, one, wish, found, at)
                done, changed = done + len(batch), changed + len(found)
                progress(done, total, changed)
                if len(batch) < _BATCH:
                    break
                after = Place(batch[-1].started_at, batch[-1].request_id, batch[-1].attempt)
    except Refusal as refusal:
        if not is_applied or not done:
            raise
        raise cut_off(_STOPPING if database.is_closing else _AWAY, done, changed) from refusal
    return sorted(tallies.values(), key=lambda tally: -abs(tally.after_nano - tally.before_nano))


def _require_open(database: Database) -> None:
    """Who closes it waits for what is under way: for a batch, and not for all that is left."""
    if database.is_closing:
        raise Refusal("service_unavailable", f"{_STOPPING} Nothing was changed; start it again later.")


def cut_off(why: str, done: int, changed: int) -> Refusal:
    """One that was to be written and ended halfway: what was put right stays so."""
    looked = "One call was looked at" if done == 1 else f"{done:,} calls were looked at"
    return Refusal(
        "service_unavailable", f"{why} {looked} and {changed:,} put right; starting it again puts right the rest."
    )


def _judge(batch: Sequence[Costed], rates: Rates, wish: Wish, tallies: dict[tuple[str, str], Tally]) -> list[Recosted]:
    found: list[Recosted] = []
    for event in batch:
        tally = tallies.setdefault((event.provider, event.model), Tally(event.provider, event.model))
        new = _recosted(event, rates, wish, tally)
        tally.events += 1
        tally.before_nano += event.cost_nano
        tally.after_nano += event.cost_nano if new is None else new.cost_nano
        if new is not None:
            tally.changed += 1
            found.append(new)
    return found


def _recosted(event: Costed, rates: Rates, wish: Wish, tally: Tally) -> Recosted | None:
    """The event at its new cost; None when it stays as it is."""
    if event.usage_source == "none" and not (wish.unknown_too and event.cost_nano):
        tally.unknown += event.cost_nano > 0
        return None
    provider = rates.catalog.find(event.provider)
    price = rates.book.find_at(provider, event.model, event.started_at) if provider else None
    if price is None:
        tally.unpriced += event.price_version is None
        return None
    cost_nano = int(
        price.cost_nano(
            Tokens(
                input=event.input_tokens,
                output=event.output_tokens,
                cache_read=event.cache_read_tokens,
                cache_write=event.cache_write_tokens,
                reasoning=event.reasoning_tokens,
                audio=event.audio_tokens,
                images=event.images,
                audio_ms=event.audio_ms,
                characters=event.characters,
                searches=event.searches,
            )
        )
    )
    if event.usage_source == "estimated" and event.held_nano:
        cost_nano = min(cost_nano, event.held_nano)  # as when it was settled: an estimate never passes its hold
    if cost_nano == event.cost_nano and event.price_version is not None:
        return None
    return Recosted(event, cost_nano, price.version)


async def _apply(
    tx: Transaction, by: Actor, organization_id: str, wish: Wish, found: Sequence[Recosted], at: int
) -> None:
    await store.change_costs(tx, found)
    costs: defaultdict[AccountKey, int] = defaultdict(int)
    for event, cost_nano, _ in found:
        keys = (event.agent_key_id, event.parent_key_id)
        for key in accounts_of(organization_id, keys, event.provider_key_id, event.held_at or event.started_at):
            costs[key] += cost_nano - event.cost_nano
    charged = await charge_all(tx, "", {key: Cost(nano) for key, nano in costs.items()})
    await _tell(tx, organization_id, charged, at)
    await audit.write(
        tx,
        by,
        "prices.recost",
        "organization",
        organization_id,
        organization_id,
        organization_id=organization_id,
        after={
            "since": iso(wish.since_at),
            "events": len(found),
            "from": iso(found[0].event.started_at),
            "to": iso(found[-1].event.started_at),
            "more_nano": sum(cost_nano - event.cost_nano for event, cost_nano, _ in found),
        },
        at=at,
    )


async def _tell(tx: Transaction, organization_id: str, charged: Mapping[AccountKey, tuple[int, int]], at: int) -> None:
    """Gateways read the accounts of budgets again; whoever is to be told of a passed mark is told."""
    for scope, id_ in sorted(await outbox_store.list_budgets(tx, charged)):
        await changes.append(tx, scope, organization_id, id_, at)
    await alerts.watch(tx, charged, at)
