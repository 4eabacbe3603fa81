"""What a call would do, found by taking its own steps and giving back what they took."""

from __future__ import annotations

from typing import Any, Final, get_args
from urllib.parse import parse_qs

import msgspec

from ostiary.clock import iso
from ostiary.errors import Refusal
from ostiary.gateway.caller import Caller
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.gateway.identify import identify
from ostiary.gateway.pipeline import admit
from ostiary.gateway.target import Target
from ostiary.gateway.tries import Admitted
from ostiary.money import show_usd, usd_number
from ostiary.providers.provider import Operation

_OPERATIONS: Final = frozenset(get_args(Operation))


async def explain(gate: Gate, exchange: Exchange) -> None:
    """`POST /v1/explain`, with the body of a call; a credential that opens nothing is refused as everywhere."""
    caller = await identify(exchange, gate.directory)
    if not exchange.is_whole:  # a key can be stopped while its body comes in
        await exchange.peek_body(gate.patience.body_s)
        caller = await identify(exchange, gate.directory)
    told = await explain_call(gate, caller, exchange)
    await exchange.reply(200, msgspec.json.encode(told))


async def explain_call(gate: Gate, caller: Caller, exchange: Exchange) -> dict[str, Any]:
    """Whether the call would be made, by which targets in which order, and for how much at most; else its refusal.

    Raises Refusal only where the key itself is dead: whoever holds one learns nothing else.
    """
    operation = _asked(exchange) or _operation_of(await exchange.peek_body(gate.patience.body_s))
    try:
        admitted = await admit(gate, caller, exchange, operation, is_asked=True)
    except Refusal as refusal:
        if refusal.code == "invalid_api_key":
            raise
        return {
            "object": "explanation",
            "allowed": False,
            "operation": operation,
            "would_answer": {"status": refusal.status, **refusal.body(exchange.request_id)},
            "in_words": f"No: {refusal.message}",
        }
    for hold in (admitted.hold, admitted.key_hold):
        if hold is not None:
            gate.reserve.undo(hold)
    return _told(caller, admitted, operation, gate.clock.now())


def _told(caller: Caller, admitted: Admitted, operation: str, at: int) -> dict[str, Any]:
    size = admitted.hold.size
    accounts = [{"scope": key.scope, "id": key.id, "period": key.period_id} for key in admitted.hold.accounts]
    targets = admitted.order.whole(at)
    first = admitted.order.first
    return {
        "object": "explanation",
        "allowed": True,
        "operation": operation,
        "model": admitted.call.ask.model,
        "stream": admitted.call.ask.stream,
        "endpoint": admitted.route.endpoint.name if admitted.route.endpoint else None,
        "attempts": admitted.route.attempts,
        "targets": [_target(caller, target) for target in targets],
        "most_usd": usd_number(size.nano),
        "most_output_tokens": size.output_tokens,
        "max_tokens_capped": size.shrunk,
        "held_on": accounts,
        "content_is_captured": caller.is_captured,
        "expires_at": iso(caller.policy.expires_at) if caller.policy.expires_at else None,
        "in_words": f"Yes: {first.model} at {first.provider.id} would be asked first, of {len(targets)} "
        f"{'way' if len(targets) == 1 else 'ways'}, and it could cost up to ${show_usd(size.nano)}.",
    }


def _target(caller: Caller, target: Target) -> dict[str, Any]:
    """One attempt that could be made. Whose the keys of the pool are is their owners' business."""
    is_own = target.key.organization_id == caller.organization_id
    return {
        "provider": target.provider.id,
        "model": target.model,
        "provider_key": target.key.name if is_own else None,
        "provider_key_id": target.key.id if is_own else None,
        "is_shared": not is_own,
        "price_version": target.price.version if target.price else None,
    }


def _asked(exchange: Exchange) -> str | None:
    """The operation of a `?operation=`, for bodies that do not say it by their shape."""
    names = parse_qs(exchange.query.decode("latin-1"), keep_blank_values=True).get("operation")
    if names is None:
        return None
    if len(names) > 1 or names[0] not in _OPERATIONS:
        known = ", ".join(sorted(_OPERATIONS))
        raise Refusal("invalid_request", f"`operation` is one of {known}.", param="operation")
    return names[0]


class _Shape(msgspec.Struct):
    input: msgspec.Raw | None = None
    messages: msgspec.Raw | None = None


_shape = msgspec.json.Decoder(_Shape).decode


def _operation_of(body: bytes) -> str:
    """Which call a body is of by its shape; what cannot be told is a chat, and is refused as one."""
    try:
        shape = _shape(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return "chat"
    return "embeddings" if shape.messages is None and shape.input is not None else "chat"
