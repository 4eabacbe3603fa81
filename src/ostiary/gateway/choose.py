"""Which targets this very call is tried with: its route's, as its conversation or its turn has it, as they are now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from ostiary.errors import Refusal
from ostiary.gateway.bid import reach_of
from ostiary.gateway.call import Call
from ostiary.gateway.candidates import MOST, is_low, looked_at, of_each, usable
from ostiary.gateway.conversation import slot_of
from ostiary.gateway.health import Health
from ostiary.gateway.target import Reach, Route, Target


class Order(msgspec.Struct, frozen=True, gc=False):
    """The targets of one call in the order in which they are tried; most calls need but the first.

    `reach` is what its hold pays for: whatever `others` finds when it is asked for them is covered by that.
    """

    first: Target
    reach: Reach
    others: Callable[[int], Sequence[Target]]
    """Those after the first, as far as they may be used at that time."""

    @classmethod
    def listed(cls, targets: Sequence[Target], reach: Reach | None = None) -> Order:
        """Of targets that are known already; the hold pays for them, or for more."""
        each = tuple(targets)
        return cls(each[0], reach or Reach(each, each), lambda _at: each[1:])

    def whole(self, at: int) -> tuple[Target, ...]:
        """The first and the others."""
        return (self.first, *self.others(at))


def choose(route: Route, call: Call, health: Health, at: int, organization_id: str, among: tuple[Target, ...]) -> Order:
    """The targets in the order in which they are tried; never none, else the refusal that says how each key is.

    `among` are those of the route that can serve the call: all of them, or what goes on from an earlier one.
    """
    is_known = health.is_anything_known
    if among is route.every:
        slot = slot_of(call, health.turns) if route.fixed is None else 0
        if call.max_cost_nano is None:
            order = _known(route, slot, health, at) if is_known else _all_well(route, slot, health, at)
            if order is not None:
                return order
        found = looked_at(route, slot, health, at)
    else:
        found = among
    if call.max_cost_nano is not None:
        found = _priced(found)
    return Order.listed(health.usable(found, at, organization_id) if is_known else found)


# ---- the first, and the others when one is needed ---------------------------------------------------------------


def _all_well(route: Route, slot: int, health: Health, at: int) -> Order:
    """Where nothing is known against any."""
    first, reach = route.first_at(slot), _reach(route, slot, health, at, None)
    return Order(first, reach, partial(_after_first, route, slot, health, first, reach))


def _known(route: Route, slot: int, health: Health, at: int) -> Order | None:
    """Where something is known against some; None where it takes a look at all to find the first."""
    first = route.first_at(slot)
    low = health.remaining.low
    if not health.is_clear(first, at) or (low and is_low(first, route.tiers_at(slot)[0], health, at)):
        found = _clear(route, slot, health, at)
        if found is None:
            return None
        first = found
    reach = _reach(route, slot, health, at, health.epoch.number(at))
    return Order(first, reach, partial(_others, route, slot, health, first, reach))


def _clear(route: Route, slot: int, health: Health, at: int) -> Target | None:
    """The first of its tier that nothing is known against, where those before it come after it or not at all."""
    tier = route.tiers_at(slot)[0]
    for target in tier.in_turn(slot, MOST):
        is_dry = is_low(target, tier, health, at)
        if health.is_clear(target, at) and not is_dry:
            return target
        if not is_dry and not health.is_behind(target, at):
            break
    return None


def _reach(route: Route, slot: int, health: Health, at: int, epoch: int | None) -> Reach:
    """What a hold must pay for: the same for all calls that begin in a variant, until health is another.

    Whichever key of a tier a slot begins with, it is the same model at the same provider.
    """
    variant = route.slots[slot] if route.slots else 0
    known = route.reaches.get(variant)
    if known is not None and known[0] == epoch:
        return known[1]
    found = looked_at(route, slot, health, at)
    reach = reach_of(health.ranked(found, at) if epoch is not None else found)
    route.reaches[variant] = epoch, reach
    return reach


def _after_first(route: Route, slot: int, health: Health, first: Target, reach: Reach, at: int) -> Sequence[Target]:
    """The others: what has become known since then, by the first of them, may be known against some of them."""
    if health.is_anything_known:
        return _others(route, slot, health, first, reach, at)
    return of_each(route, slot)[1:]


def _others(route: Route, slot: int, health: Health, first: Target, reach: Reach, at: int) -> Sequence[Target]:
    """The others as they are now; one that has become usable since is left out where the hold does not pay for it."""
    found = health.ranked(usable(route, slot, health, at), at)
    return [one for one in found if one is not first and reach.covers(one)]


# ---- a price for every one --------------------------------------------------------------------------------------


def _priced(found: Sequence[Target]) -> tuple[Target, ...]:
    priced = tuple(target for target in found if target.price is not None)
    if not priced:
        raise Refusal(
            "model_not_priced", "This model has no price, so x-ostiary-max-cost-usd can't be kept.", param="model"
        )
    return priced
