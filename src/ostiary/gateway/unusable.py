"""What a caller hears when no provider key can be used now: how each is, and when to come back."""

from __future__ import annotations

from typing import Any, Final

from ostiary.clock import SECOND_MS, iso
from ostiary.errors import Refusal
from ostiary.gateway.target import Target
from ostiary.vault.health import Trouble

_POOL: Final = "(pool)"


def no_usable_key(found: list[tuple[Target, Trouble | None]], at: int, organization_id: str) -> Refusal:
    """The refusal, for targets of which at least one is in trouble."""
    known = [(target, one) for target, one in found if one is not None]
    ends = [one.until for _, one in known if one.until is not None]
    wait = _seconds_to(min(ends), at) if ends else None
    then = f" Try again in {wait} s." if wait else " Somebody has to look at them: 'ostiary vault list' shows them."
    target, first = known[0]
    why = f": {first.reason}" if target.key.organization_id == organization_id else ""
    return Refusal(
        "no_usable_key",
        f"None of the {len(known)} provider keys for this model is usable now; the first is {first.state}{why}.{then}",
        headers=((b"retry-after", b"%d" % wait),) if wait else (),
        retry_after_s=wait,
        keys=[_shown(target, one, organization_id) for target, one in known],
    )


def none_has_room(
    limits: list[tuple[Target, Refusal]], resting: list[tuple[Target, Trouble]], at: int, organization_id: str
) -> Refusal:
    """The refusal where keys that are well are at limits of their own, and the others rest."""
    waits = [wait for _, one in limits if isinstance(wait := one.details.get("retry_after_s"), int)]
    if any(one.details.get("retryable") for _, one in limits):
        waits.append(1)
    waits += [_seconds_to(one.until, at) for _, one in resting if one.until is not None]
    wait = min(waits, default=None)
    first, why = limits[0]
    is_own = first.key.organization_id == organization_id
    name = first.key.name if is_own else _POOL
    each = "is at a limit of its own, or rests" if resting else "is at a limit of its own"
    return Refusal(
        "no_usable_key",
        f"Every provider key for this model {each}: {name} at {first.provider.id}, for one. "
        f"{why.message if is_own else ''}".rstrip(),
        headers=((b"retry-after", b"%d" % wait),) if wait else (),
        retry_after_s=wait,
        keys=[_limited(target, one, organization_id) for target, one in limits]
        + [_shown(target, one, organization_id) for target, one in resting],
    )


def _seconds_to(moment: int, at: int) -> int:
    return max(-(-(moment - at) // SECOND_MS), 1)


def _limited(target: Target, one: Refusal, organization_id: str) -> dict[str, Any]:
    """A key that has no room now."""
    return _described(target, organization_id, "limited", one.code, one.details.get("resets_at"))


def _shown(target: Target, one: Trouble, organization_id: str) -> dict[str, Any]:
    """How a key is. What its provider says of it is its owner's business."""
    reason = one.reason if target.key.organization_id == organization_id else None
    return _described(target, organization_id, one.state, reason, iso(one.until) if one.until is not None else None)


def _described(
    target: Target, organization_id: str, state: str, reason: str | None, retry_at: str | None
) -> dict[str, Any]:
    is_own = target.key.organization_id == organization_id
    return {
        "provider": target.provider.id,
        "model": target.model,
        "provider_key": target.key.name if is_own else _POOL,
        "state": state,
        "reason": reason,
        "retry_at": retry_at,
    }
