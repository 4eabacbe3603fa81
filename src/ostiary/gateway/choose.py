"""Which targets this very call is tried with: its route's, as its conversation or its turn has it, as they are now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from zlib import crc32

from ostiary.errors import Refusal
from ostiary.gateway.call import Call
from ostiary.gateway.health import Health
from ostiary.gateway.target import Route, Target, Tier
from ostiary.gateway.tiers import SLOTS

_MOST: Final = 12
"""Targets of one tier that a call looks at: more than it can try."""
_PLENTY: Final = 16
"""More than a call tries: what comes after them has a chance once something is known to be in trouble."""
_SPREAD: Final = 157
"""Turns pass over all slots without going from neighbour to neighbour: a prime, and so none of the slots' number."""
_USER: Final = b'"user"'
_ROLE: Final = b'"role"'
_BETWEEN: Final = b" \t\r\n,{]["


def choose(
    route: Route, call: Call, health: Health, at: int, organization_id: str, among: tuple[Target, ...]
) -> tuple[Target, ...]:
    """The targets in the order in which they are tried; never empty, else the refusal that says how each key is.

    `among` are those of the route that can serve the call: all of them, or what goes on from an earlier one.
    """
    if among is not route.every:
        found = among
    elif route.fixed is not None and not health.is_anything_known:
        found = route.fixed
    else:
        slot = slot_of(call, health.turns)
        tiers = route.variants[route.slots[slot] if route.slots else 0]
        if health.is_anything_known:
            found = _usable(tiers, slot, route.attempts, health, at)
        else:
            found = _first(tiers, slot, route.attempts)
    if call.max_cost_nano is not None:
        found = _priced(found)
    return health.usable(found, at, organization_id) if health.is_anything_known else found


def _first(tiers: tuple[Tier, ...], slot: int, attempts: int) -> tuple[Target, ...]:
    """Where all are well: of each tier as many as can be tried, until there are plenty."""
    found: tuple[Target, ...] = ()
    for tier in tiers:
        found += tier.in_turn(slot, attempts)
        if len(found) >= _PLENTY:
            break
    return found


def _usable(tiers: tuple[Tier, ...], slot: int, attempts: int, health: Health, at: int) -> tuple[Target, ...]:
    """Where some are in trouble: of each tier those that are not to be passed over, until plenty of them are well.

    Nothing usable is everything there is: then it can be said how each of them is.
    """
    found: list[Target] = []
    well = 0
    for tier in tiers:
        taken = of_it = 0
        for target in tier.in_turn(slot):
            if health.is_passed_over(target, at):
                continue
            found.append(target)
            taken += 1
            of_it += health.is_well(target)
            if taken >= _MOST or of_it >= attempts:
                break
        well += of_it
        if well >= _PLENTY:
            break
    return tuple(found) or tuple(target for tier in tiers for target in tier.targets)


def slot_of(call: Call, turns: Iterator[int]) -> int:
    """The slot of a conversation, so that it goes where its prompt is cached; the next one for what is none.

    A conversation is known by the cache key that the caller gives it, else by how it begins: everything up to the end
    of the first thing its user said. The same in every process.
    """
    fields = call.ask.fields
    named = fields.get("prompt_cache_key")
    if named is not None:
        return crc32(named) % SLOTS
    messages = fields.get("messages")
    if messages is None:
        return next(turns) * _SPREAD % SLOTS
    return crc32(_beginning(bytes(messages))) % SLOTS


def _beginning(messages: bytes) -> bytes:
    """Up to the end of the first message of the user, whatever comes after it."""
    said = messages.find(_USER)
    ends = messages.find(_ROLE, said + len(_USER)) if said >= 0 else -1
    return (messages if ends < 0 else messages[:ends]).rstrip(_BETWEEN)


def _priced(found: tuple[Target, ...]) -> tuple[Target, ...]:
    priced = tuple(target for target in found if target.price is not None)
    if not priced:
        raise Refusal(
            "model_not_priced", "This model has no price, so x-ostiary-max-cost-usd can't be kept.", param="model"
        )
    return priced
