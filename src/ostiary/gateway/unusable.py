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
    wait = max(-(-(min(ends) - at) // SECOND_MS), 1) if ends else None
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


def _shown(target: Target, one: Trouble, organization_id: str) -> dict[str, Any]:
    """How a key is. What its provider says of it is its owner's business."""
    is_own = target.key.organization_id == organization_id
    return {
        "provider": target.provider.id,
        "model": target.model,
        "provider_key": target.key.name if is_own else _POOL,
        "state": one.state,
        "reason": one.reason if is_own else None,
        "retry_at": iso(one.until) if one.until is not None else None,
    }
