"""One attempt that could be made, and everything that a call could be tried with."""

from __future__ import annotations

from dataclasses import dataclass

from ostiary.gateway.caller import OpenKey
from ostiary.providers.catalog import Provider
from ostiary.providers.prices import Price
from ostiary.vault.endpoint_store import Endpoint


@dataclass(frozen=True, slots=True)
class Target:
    """One attempt that could be made: a model at a provider with one provider key. No price is `unpriced`."""

    key: OpenKey
    model: str
    price: Price | None
    context: int | None = None
    """Tokens that the model reads at most, where that is published."""
    max_output: int | None = None

    @property
    def provider(self) -> Provider:
        """The provider of the key."""
        return self.key.provider

    def is_beside(self, other: Target) -> bool:
        """Whether both are the same provider at the same address."""
        return self.key.provider is other.key.provider and self.key.base_url == other.key.base_url


@dataclass(frozen=True, slots=True)
class Tier:
    """Targets that may be tried after one another. With `slots`, each call begins at the one its slot names."""

    targets: tuple[Target, ...]
    slots: tuple[int, ...] = ()

    def in_turn(self, slot: int, most: int | None = None) -> tuple[Target, ...]:
        """The targets, the slot's own first and the others after it in a circle; `most` of them where that is given."""
        first = self.slots[slot] if self.slots else 0
        if most is not None:
            found = self.targets[first : first + most]
            return found if len(found) == most or not first else found + self.targets[: min(most - len(found), first)]
        return self.targets[first:] + self.targets[:first] if first else self.targets


@dataclass(frozen=True, slots=True)
class Route:
    """Everything that one caller's calls for one model can be tried with; changes with the directory only.

    `variants` are orders of the same tiers, of which each call takes the one its slot names in `slots`. `fixed` is the
    order where nothing turns.
    """

    variants: tuple[tuple[Tier, ...], ...]
    slots: tuple[int, ...]
    fixed: tuple[Target, ...] | None
    every: tuple[Target, ...]
    """All of them, in the order of the first variant."""
    attempts: int
    endpoint: Endpoint | None = None

    @property
    def timeout_s(self) -> float | None:
        """How long each attempt may take, where the endpoint says so."""
        if self.endpoint is None or self.endpoint.timeout_ms is None:
            return None
        return self.endpoint.timeout_ms / 1_000
