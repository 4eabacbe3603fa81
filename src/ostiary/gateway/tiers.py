"""Provider keys that can stand in for each other, in the order in which they are tried: filled, or in turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from ostiary.gateway.target import Target, Tier


def tiers_of(targets: Iterable[Target]) -> list[Tier]:
    """One model at one provider, by keys of one kind: the highest priority first, what is filled before what turns."""
    tiers: list[Tier] = []
    ordered = list(targets)
    if len({(one.key.priority, one.key.is_filled) for one in ordered}) > 1:
        ordered.sort(key=lambda one: (-one.key.priority, not one.key.is_filled))
    for (_, is_filled), group in groupby(ordered, key=lambda one: (one.key.priority, one.key.is_filled)):
        same = tuple(group)
        tiers.append(Tier(same, turns=not is_filled and len(same) > 1))
    return tiers


def joined(tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    """The same, with neighbours that do not turn as one."""
    out: list[Tier] = []
    for turns, group in groupby(tiers, key=lambda tier: tier.turns):
        if turns:
            out += group
        else:
            out.append(Tier(tuple(target for tier in group for target in tier.targets)))
    return tuple(out)
