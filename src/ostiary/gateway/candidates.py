"""The targets that a call looks at: of each tier as many as it can try, and all where some may have no room for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ostiary.gateway.health import Health
from ostiary.gateway.target import Route, Target, Tier, with_due

MOST: Final = 12
"""Targets of one tier that a call looks at: more than it can try."""
_PLENTY: Final = 16
"""More than a call tries: what comes after them has a chance once something is known to be in trouble.

A key with limits of its own counts for none of them: whether it has room is found out when it is its turn.
"""


def looked_at(route: Route, slot: int, health: Health, at: int) -> Sequence[Target]:
    """The targets of a call that begins in this slot, in the order of its route."""
    return usable(route, slot, health, at) if health.is_anything_known else of_each(route, slot)


def of_each(route: Route, slot: int) -> tuple[Target, ...]:
    """Where all are well: of each tier as many as can be tried, until there are plenty, and of enough places."""
    if route.fixed is not None:
        return route.fixed
    found: tuple[Target, ...] = ()
    sure = 0
    for tier in route.tiers_at(slot):
        if sure < _PLENTY:
            limited = sum(map(_is_limited, tier.targets))
            taken = tier.in_turn(slot, None if limited else route.attempts)
            found += taken
            sure += len(taken) - limited
        elif _are_enough(found, route.attempts):
            break
        found = with_due(found, tier.in_turn(slot), route.attempts)
    return found


def usable(route: Route, slot: int, health: Health, at: int) -> tuple[Target, ...]:
    """Where some are in trouble: of each tier those that are not to be passed over, until plenty of them are well.

    Nothing usable is everything there is: then it can be said how each of them is.
    """
    found: tuple[Target, ...] = ()
    well = 0
    for tier in route.tiers_at(slot):
        if well < _PLENTY:
            taken, of_it = _usable_of(tier, slot, route.attempts, health, at)
            found = (*found, *taken)
            well += of_it
        elif _are_enough(found, route.attempts):
            break
        others = (one for one in tier.in_turn(slot) if not health.troubles.is_skipped(one, at))
        found = with_due(found, others, route.attempts)
    return found or tuple(target for tier in route.tiers_at(slot) for target in tier.targets)


def _are_enough(found: Sequence[Target], attempts: int) -> bool:
    """Whether they are of as many places as can be due an attempt."""
    return len({one.place for one in found}) >= attempts


def _is_limited(target: Target) -> bool:
    return target.key.allowance is not None


def _usable_of(tier: Tier, slot: int, attempts: int, health: Health, at: int) -> tuple[list[Target], int]:
    """Those of one tier, and how many of them are well and have room; those that are nearly dry come last of it."""
    found: list[Target] = []
    well = sure = 0
    for target in tier.in_turn(slot):
        if health.troubles.is_skipped(target, at):
            continue
        found.append(target)
        if not _is_limited(target):
            sure += 1
            well += health.is_clear(target, at) and not is_low(target, tier, health, at)
        if sure >= MOST or well >= attempts:
            break
    if tier.turns and health.remaining.low:
        found.sort(key=lambda one: health.remaining.is_low(one, at))
    return found, well


def is_low(target: Target, tier: Tier, health: Health, at: int) -> bool:
    """Whether it comes after the others of its tier, where they take turns: what is filled is used until nothing is."""
    return tier.turns and health.remaining.is_low(target, at)
