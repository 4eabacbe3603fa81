"""Whose each slot is: those who take turns share them by weight, and keep theirs when others come or go (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import shake_128
from math import log
from struct import unpack
from typing import Final

SLOTS: Final = 256
_FIT_A_BYTE: Final = 256
"""There is one of these for every route and many keys: as bytes they stay in the processor's cache."""


@lru_cache(maxsize=4_096)
def slots_of(shares: tuple[tuple[str, int], ...]) -> Sequence[int]:
    """Which of the shares (name, weight) each slot belongs to, by weighted rendezvous hashing.

    When one comes or goes, only slots that it gains or had change hands, so that conversations stay where their prompts
    are cached. Source: Thaler and Ravishankar 1998; weights as -w / ln(h).
    """
    drawn = [_draw(name) for name, _ in shares]
    if len({weight for _, weight in shares}) > 1:
        drawn = [[weight * _score(one) for one in some] for some, (_, weight) in zip(drawn, shares, strict=True)]
    places = (column.index(max(column)) for column in zip(*drawn, strict=True))
    return bytes(places) if len(shares) <= _FIT_A_BYTE else tuple(places)


def _draw(name: str) -> Sequence[float]:
    """What chance gives a name in each slot, the same in every process."""
    return unpack(f">{SLOTS}I", shake_128(name.encode()).digest(4 * SLOTS))


def _score(drawn: float) -> float:
    """-1 / ln(h), greater for what is greater: among equal weights the draw itself will do."""
    return -1 / log((drawn + 0.5) / 2**32)
