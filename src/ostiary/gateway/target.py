"""One attempt that could be made, and everything that a call could be tried with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from ostiary.gateway.caller import OpenKey
from ostiary.gateway.slots import slots_of
from ostiary.providers.catalog import Provider
from ostiary.providers.prices import Price
from ostiary.vault.endpoint_store import Endpoint

Place = tuple[str, str]
"""A model at a provider, by whichever key: what an endpoint calls a target."""


class Target(msgspec.Struct, frozen=True, gc=False):
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

    @property
    def place(self) -> Place:
        """Which model at which provider it is."""
        return self.key.provider.id, self.model

    def is_beside(self, other: Target) -> bool:
        """Whether both are the same provider at the same address."""
        return self.key.provider is other.key.provider and self.key.base_url == other.key.base_url


def with_due(found: Sequence[Target], among: Iterable[Target], attempts: int) -> tuple[Target, ...]:
    """These, and the first of each place that has none there, until as many places are there as attempts can be due."""
    places = {one.place for one in found}
    due = []
    for target in among:
        if len(places) >= attempts:
            break
        if target.place not in places:
            places.add(target.place)
            due.append(target)
    return (*found, *due)


class Tier:
    """Targets that may be tried after one another. Where it `turns`, each call begins at the one its slot names."""

    __slots__ = ("_slots", "targets", "turns")

    def __init__(self, targets: tuple[Target, ...], *, turns: bool = False) -> None:
        self.targets = targets
        self.turns = turns
        self._slots: Sequence[int] | None = None

    def start(self, slot: int) -> int:
        """The place of the one that a slot begins with. Whose the slots are is found out when it is first asked."""
        if not self.turns:
            return 0
        if self._slots is None:
            self._slots = slots_of(tuple((one.key.id, one.key.weight) for one in self.targets))
        return self._slots[slot]

    def in_turn(self, slot: int, most: int | None = None) -> tuple[Target, ...]:
        """The targets, the slot's own first and the others after it in a circle; `most` of them where that is given."""
        first = self.start(slot)
        if most is not None:
            found = self.targets[first : first + most]
            return found if len(found) == most or not first else found + self.targets[: min(most - len(found), first)]
        return self.targets[first:] + self.targets[:first] if first else self.targets


@dataclass(frozen=True, slots=True)
class Reach:
    """What one hold pays for: each model at each provider that a call may be tried with, by one of its keys.

    `decisive` are those of them that decide what a call of nothing but text can cost at most.
    """

    each: tuple[Target, ...]
    decisive: tuple[Target, ...]

    def covers(self, target: Target) -> bool:
        """Whether the hold pays for this one, by whichever key."""
        return any(one.model == target.model and one.provider is target.provider for one in self.each)


@dataclass(frozen=True, slots=True)
class Route:
    """Everything that one caller's calls for one model can be tried with; changes with the directory only.

    `variants` are orders of the same tiers, of which each call takes the one its slot names in `slots`. `fixed` is the
    order where nothing turns.
    """

    variants: tuple[tuple[Tier, ...], ...]
    slots: Sequence[int]
    fixed: tuple[Target, ...] | None
    every: tuple[Target, ...]
    """All of them, in the order of the first variant."""
    attempts: int
    endpoint: Endpoint | None = None
    reaches: dict[int, tuple[int | None, Reach]] = field(default_factory=dict, compare=False, repr=False)
    """By variant: what a hold must pay for, and of which epoch of health that is; None where all are well."""

    def tiers_at(self, slot: int) -> tuple[Tier, ...]:
        """The tiers of a slot's variant, in order."""
        return self.variants[self.slots[slot] if self.slots else 0]

    def first_at(self, slot: int) -> Target:
        """The one that a slot begins with."""
        tier = self.variants[self.slots[slot] if self.slots else 0][0]
        return tier.targets[tier.start(slot) if tier.turns else 0]

    @property
    def timeout_s(self) -> float | None:
        """How long each attempt may take, where the endpoint says so."""
        if self.endpoint is None or self.endpoint.timeout_ms is None:
            return None
        return self.endpoint.timeout_ms / 1_000
