"""Whether the call may come in: the caller's restrictions, in one order, the first refusal wins."""

from __future__ import annotations

from ostiary.agents import policy
from ostiary.errors import Refusal
from ostiary.gateway.call import Call
from ostiary.gateway.caller import Caller

SCOPE = "gate:chat"


def admit_caller(caller: Caller, now: int, scope: str, address: str | None) -> None:
    """Status, expiry, address, scope: everything that can be judged before the body is read."""
    refusal = policy.judge_caller(caller.policy, now=now, scope=scope, address=address)
    if refusal is not None:
        raise refusal


def admit_call(caller: Caller, call: Call) -> None:
    """No field that would pick another model, or spend more, behind our back. The model is judged with its targets."""
    escape, is_unbounded = call.ask.escape, call.ask.is_unbounded
    is_bound = caller.allowance.budgets or call.max_cost_nano is not None
    if escape is not None and (is_bound or caller.policy.limits_models):
        raise Refusal(
            "unsupported_parameter",
            f"`{escape}` may pick another model, tier or paid service, which a key with a hard budget "
            "or a model list, or a call with a cap of its own, may not.",
            param=escape,
        )
    if is_unbounded is not None and is_bound:
        raise Refusal("invalid_request", is_unbounded, param="file")
