"""A provider key's own limits and spend cap: held like the caller's; where they are used up the next key is tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ostiary.errors import TABLE, Refusal
from ostiary.gateway.bid import bid_for
from ostiary.gateway.call import Call
from ostiary.gateway.choose import Order
from ostiary.gateway.target import Target
from ostiary.limits.budgets import Bid
from ostiary.limits.reserve import Hold, Reserve

_AWAY: Final = TABLE["service_unavailable"]
Limit = tuple[Target, Refusal]
"""A key that has no room, and what it refused a call with."""


async def hold_first(
    reserve: Reserve,
    call: Call,
    order: Order,
    hold: Hold,
    refuse: Callable[[list[Limit]], Refusal],
    at: int,
    *,
    is_asked: bool,
) -> tuple[Order, Hold | None]:
    """The order from the first whose key has room, and what is held of that; where none has, `refuse` says so."""
    first = order.first
    has_cap = first.key.allowance is not None and bool(first.key.allowance.budgets)
    others = order.others(at) if has_cap else None  # of windows alone, the last is like the others
    try:
        held = await hold_key(reserve, call, first, hold, is_asked=is_asked, is_last=has_cap and not others)
    except Refusal as refusal:
        refusals = [_limit(first, refusal)]
    else:
        return order, held
    others = order.others(at) if others is None else others
    for place, target in enumerate(others):
        is_last = place + 1 == len(others)
        try:
            held = await hold_key(reserve, call, target, hold, is_asked=is_asked, is_last=is_last)
        except Refusal as refusal:
            refusals.append(_limit(target, refusal))
        else:
            return Order.listed(others[place:], order.reach), held
    raise refuse(refusals)


def _limit(target: Target, refusal: Refusal) -> Limit:
    """One more that has no room; what says nothing of its limits is raised."""
    if refusal.kind is _AWAY:
        raise refusal
    return target, refusal


async def hold_key(
    reserve: Reserve, call: Call, target: Target, hold: Hold, *, is_asked: bool = False, is_last: bool = True
) -> Hold | None:
    """What an attempt takes of its key's own limits, None where it has none.

    That is the most the call can cost at this target, for no more output than the caller's own `hold` is for, and in
    its periods. Only for the last key anybody waits, and is an answer bounded by what the key has left.
    """
    allowance = target.key.allowance
    if allowance is None:
        return None
    whole = bid_for(call, (target,))
    bid = Bid(
        whole.fixed_nano,
        min(hold.size.output_tokens, whole.output_tokens) if whole.output_tokens else 0,
        whole.output_rate,
        may_shrink=whole.may_shrink and is_last,
        tokens=whole.tokens,
    )
    return await reserve.take(allowance, bid, is_asked=is_asked, may_wait=is_last, at=hold.at)
