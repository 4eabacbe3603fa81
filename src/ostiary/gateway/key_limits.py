"""A provider key's own limits and spend cap: held like the caller's; where they are used up the next key is tried."""

from __future__ import annotations

from typing import Final

from ostiary.errors import TABLE, Refusal
from ostiary.gateway.bid import bid_for
from ostiary.gateway.call import Call
from ostiary.gateway.target import Target
from ostiary.limits.budgets import Bid
from ostiary.limits.reserve import Hold, Reserve

_POOL: Final = "(pool)"
_AWAY: Final = TABLE["service_unavailable"]


async def hold_first(
    reserve: Reserve, call: Call, targets: tuple[Target, ...], hold: Hold, organization_id: str, *, is_asked: bool
) -> tuple[tuple[Target, ...], Hold | None]:
    """The targets from the first whose key still has room, and what is held of that; none is `no_usable_key`."""
    refusals: list[tuple[Target, Refusal]] = []
    for place, target in enumerate(targets):
        try:
            held = await hold_key(reserve, call, target, hold, is_asked=is_asked, is_last=place + 1 == len(targets))
        except Refusal as refusal:
            if refusal.kind is _AWAY:
                raise
            refusals.append((target, refusal))
        else:
            return targets[place:], held
    raise _none_left(refusals, organization_id)


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


def _none_left(refusals: list[tuple[Target, Refusal]], organization_id: str) -> Refusal:
    waits = [wait for _, one in refusals if isinstance(wait := one.details.get("retry_after_s"), int)]
    if any(one.details.get("retryable") for _, one in refusals):
        waits.append(1)
    wait = min(waits, default=None)
    first, why = refusals[0]
    name = first.key.name if first.key.organization_id == organization_id else _POOL
    return Refusal(
        "no_usable_key",
        f"Every provider key for this model is at a limit of its own: {name} at {first.provider.id}, for one. "
        f"{why.message if name != _POOL else ''}".rstrip(),
        headers=((b"retry-after", b"%d" % wait),) if wait else (),
        retry_after_s=wait,
        keys=[
            {
                "provider": target.provider.id,
                "model": target.model,
                "provider_key": target.key.name if target.key.organization_id == organization_id else _POOL,
                "state": "limited",
                "reason": one.code,
                "retry_at": one.details.get("resets_at"),
            }
            for target, one in refusals
        ],
    )
