"""The deeds of prices: the operator sets one, and whoever may looks them up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ostiary.actor import Actor
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.ledger import audit
from ostiary.money import NANO_PER_USD
from ostiary.names import checked_name
from ostiary.providers import store
from ostiary.providers.catalog import Provider
from ostiary.providers.prices import DIMENSIONS, PER_UNIT, Override, Price, PriceBook

_LONGEST_ID: Final = 64
_DEAREST: Final = 100_000_000 * NANO_PER_USD
"""A hundred dollars a token: the cost of the longest call still fits its column."""
_REQUIRED: Final = ("input", "output")


@dataclass(frozen=True, slots=True)
class Shown:
    """The price of a model and where it comes from; `price` None: none is known."""

    provider: str
    model: str
    price: Price | None


async def alone(tx: Transaction, by: Actor) -> None:
    """Nobody else sets a price until this transaction ends: for who looks first what it is."""
    by.require("prices.set", None)
    await changes.take_turn(tx)


async def set_price(
    tx: Transaction, by: Actor, provider: Provider, model: str, rates: Mapping[str, int], at: int
) -> Override:
    """Set what a model costs from now on, for every organization.

    `rates` are nano-dollars per million of each dimension: tokens of `input` and `output` (both needed, 0 is a price,
    unless something else is paid for), `cache_read` and `cache_write` (else as input), `request`, and what is not
    tokens: `image`, `audio_minute`, `character`, `search`. Raises Refusal on anything else.
    """
    await alone(tx, by)
    checked = Override(provider.id, checked_name(model, "model"), _checked_rates(rates), new_id("price", at))
    before = await store.find_override(tx, provider.id, checked.model)
    await store.change_override(tx, checked, at)
    name = f"{provider.id}/{checked.model}"
    await audit.write(
        tx,
        by,
        "prices.set",
        "price",
        name[:_LONGEST_ID],
        name,
        organization_id=None,
        before=None if before is None else before.rates,
        after=checked.rates,
        at=at,
    )
    await changes.append(tx, "price", None, name[:_LONGEST_ID], at)
    return checked


async def show(tx: Transaction, by: Actor, provider: Provider | None = None, model: str | None = None) -> list[Shown]:
    """The price of one model, set or published; without a model every price that was set."""
    by.require("prices.show", by.organization_id)
    overrides = await store.list_overrides(tx)
    if provider is not None and model is not None:
        return [Shown(provider.id, model, PriceBook(overrides).find(provider, model))]
    return [
        Shown(each.provider, each.model, Price.of(each.rates, each.version))
        for each in overrides
        if provider is None or each.provider == provider.id
    ]


def _checked_rates(rates: Mapping[str, int]) -> dict[str, int]:
    unknown = sorted(rates.keys() - set(DIMENSIONS))
    if unknown:
        raise Refusal(
            "invalid_field", f"{unknown[0]} has no price. Prices are for {', '.join(DIMENSIONS)}.", param=unknown[0]
        )
    is_by_unit = not rates.keys().isdisjoint(PER_UNIT)
    for dimension in () if is_by_unit and rates.keys().isdisjoint(_REQUIRED) else _REQUIRED:
        if dimension not in rates:
            raise Refusal("invalid_field", f"The price of {dimension} is missing; 0 is a price.", param=dimension)
    for dimension, rate in rates.items():
        if type(rate) is not int or not 0 <= rate <= _DEAREST:
            raise Refusal(
                "invalid_field", f"The price of {dimension} must be 0 to 100000000 USD per million.", param=dimension
            )
    return {dimension: rates[dimension] for dimension in DIMENSIONS if dimension in rates}
