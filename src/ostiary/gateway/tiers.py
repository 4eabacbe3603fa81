"""Provider keys that can stand in for each other, in the order in which they are tried: filled, or in turns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import shake_128
from itertools import groupby
from math import log
from struct import unpack
from typing import Final

from ostiary.gateway.target import Target, Tier

SLOTS: Final = 256


def tiers_of(targets: Iterable[Target]) -> list[Tier]:
    """One model at one provider, by keys of one kind: the highest priority first, what is filled before what turns."""
    tiers: list[Tier] = []
    ordered = sorted(targets, key=lambda one: (-one.key.priority, not one.key.is_filled))
    for (_, is_filled), group in groupby(ordered, key=lambda one: (one.key.priority, one.key.is_filled)):
        same = tuple(group)
        if is_filled or len(same) == 1:
            tiers.append(Tier(same))
        else:
            tiers.append(Tier(same, slots_of(tuple((one.key.id, one.key.weight) for one in same))))
    return tiers


def joined(tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    """The same, with neighbours that do not turn as one."""
    out: list[Tier] = []
    for tier in tiers:
        if out and not tier.slots and not out[-1].slots:
            out[-1] = Tier(out[-1].targets + tier.targets)
        else:
            out.append(tier)
    return tuple(out)


@lru_cache(maxsize=4_096)
def slots_of(shares: tuple[tuple[str, int], ...]) -> tuple[int, ...]:
    """Which of the shares (name, weight) each slot belongs to, by weighted rendezvous hashing.

    When one comes or goes, only slots that it gains or had change hands, so that conversations stay where their prompts
    are cached. Source: Thaler and Ravishankar 1998; weights as -w / ln(h).
    """
    scores = [[weight * drawn for drawn in _draws(name)] for name, weight in shares]
    return tuple(column.index(max(column)) for column in zip(*scores, strict=True))


@lru_cache(maxsize=10_000)
def _draws(name: str) -> tuple[float, ...]:
    """What chance gives a name in each slot: -1 / ln(h), the same in every process."""
    drawn = unpack(f">{SLOTS}I", shake_128(name.encode()).digest(4 * SLOTS))
    return tuple(-1 / log((one + 0.5) / 2**32) for one in drawn)
