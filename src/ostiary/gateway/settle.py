"""What an attempt came to, written once and always: into the purse, the spool, and so the ledger."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

import msgspec

from ostiary.clock import day_ends
from ostiary.gateway.call import Call
from ostiary.gateway.caller import Caller
from ostiary.gateway.capture import capture
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.gateway.outcome import CANCELLED_UNSENT, Outcome
from ostiary.gateway.target import Target
from ostiary.ledger.events import Event, Status
from ostiary.ledger.spans import LONGEST_PARENT
from ostiary.ledger.spool import SpoolFull
from ostiary.limits.reserve import Hold
from ostiary.vault.endpoint_store import Endpoint

_US: Final = 1_000_000
_POOL: Final = "(pool)"
"""The name of a provider key that another organization shares: whose it is is its owner's business."""


class Book(msgspec.Struct, eq=False):
    """The book of one call: a hold for the attempt under way, and its one settlement."""

    gate: Gate
    exchange: Exchange
    caller: Caller
    call: Call
    hold: Hold
    timings: dict[str, int]
    endpoint: Endpoint | None = None
    """The endpoint or alias that was asked for."""
    key_hold: Hold | None = None
    """What the attempt under way takes of its provider key's own limits."""
    ended: Status = "unknown"
    """How the last attempt ended."""
    attempt: int = 0
    cost_nano: int = 0
    seen: Outcome = CANCELLED_UNSENT
    """What would be settled if the call ended now; kept true by the steps."""
    target: Target | None = None
    is_billed: bool = False
    """Whether an attempt that has ended may be charged for: then the next one needs a hold of its own."""
    is_stopped: bool = False
    said: bytearray | None = None
    """What goes by of the answer, where the key's content is captured."""
    tokens: int | None = None
    """Input and output of all attempts, where the provider said."""
    response_id: str | None = None
    _marked_at: float = 0.0
    _event: Event | None = None
    _hold_id: int | None = None
    _written: Awaitable[None] | None = None

    async def open(self, target: Target) -> None:
        """Commit a hold for the next attempt before anything is sent; refuses (503) when that can't be done."""
        self.attempt += 1
        self.target, self.response_id = target, None
        self.seen = CANCELLED_UNSENT
        self._marked_at = self.gate.clock.monotonic()
        self._event = self._describe(target)
        if self.caller.is_captured:
            self.said = bytearray()
        self._hold_id, committed = self.gate.spool.hold(self._event)
        try:
            await committed
        except SpoolFull:
            self._hold_id = None
            raise

    def end_attempt(self, outcome: Outcome) -> None:
        """Settle one attempt; the call's hold stays for the next if this one cost nothing."""
        event, hold_id = self._event, self._hold_id
        if event is None or hold_id is None:
            return
        self._hold_id = None
        self.ended = outcome.status
        self._complete(event, outcome)
        if self.key_hold is not None:
            tokens = outcome.tokens
            self.key_hold.settle(event.cost_nano, tokens.input + tokens.output if tokens is not None else None)
            self.key_hold = None
        self.cost_nano += event.cost_nano
        if self.said is not None:
            capture(self.gate.directory, event, self.call.ask.fields, self.said)
        self.gate.marks.note(event.agent_key_id, event.provider_key_id, event.started_at, event.parent_key_id)
        if self.endpoint is not None and event.agent_key_id is not None:
            self.gate.marks.note_endpoint(self.endpoint.id, event.organization_id, event.agent_key_id, event.started_at)
        self.gate.watch.settled(event)
        self._written = self.gate.spool.settle(hold_id, event)
        self.is_billed = self.is_billed or outcome.billed

    def answered(self) -> None:
        """The head of an answer is here: from now on it is relayed."""
        now = self.gate.clock.monotonic()
        if self._event is not None:
            self._event.timings["attempt_us"] = int((now - self._marked_at) * _US)
        self._marked_at = now

    def stop(self) -> None:
        """End the call: its key was stopped. What was used until now is settled."""
        if self.exchange.task is not None and not self.is_stopped and not self.exchange.is_ended:
            self.is_stopped = True
            self.exchange.task.cancel()

    async def close(self, outcome: Outcome) -> None:
        """Settle what is still open, once; the caller may hear the end of the answer when this returns.

        The settlement is on its way before the first await, so a cancelled call is settled too.
        """
        self.end_attempt(outcome)
        if self.key_hold is not None:
            self.gate.reserve.undo(self.key_hold)
        if self._written is None:
            self.gate.reserve.undo(self.hold)
            return
        self.hold.settle(self.cost_nano, self.tokens)
        await self._written

    def _describe(self, target: Target) -> Event:
        """The attempt as it would be charged if nothing more came to be known of it."""
        key, credential, hold = self.caller.key, self.caller.credential, self.hold
        return Event(
            request_id=self.exchange.request_id,
            attempt=self.attempt,
            organization_id=self.caller.organization_id,
            agent_key_id=key.id if key else None,
            agent_key_name=key.name if key else None,
            credential_id=credential.id if credential else None,
            operation=self.call.operation,
            provider=target.provider.id,
            model_asked=self.call.ask.model,
            model=target.model,
            provider_key_id=target.key.id,
            provider_key_name=target.key.name if target.key.organization_id == self.caller.organization_id else _POOL,
            stream=self.call.ask.stream,
            started_at=self._begins_at(),
            client_ip=self.exchange.address,
            metadata=dict(key.metadata) if key else {},
            held_nano=hold.size.nano,
            leased=hold.accounts + self.key_hold.accounts if self.key_hold is not None else hold.accounts,
            price_version=target.price.version if target.price else None,
            cost_nano=hold.size.nano if target.price else 0,
            usage_source="none",
            status="unknown",
            timings=dict(self.timings),
            held_at=hold.at,
            parent_key_id=key.parent_id if key else None,
            endpoint=self.endpoint.name if self.endpoint is not None else None,
            traceparent=self.exchange.headers.get(b"traceparent", b"")[:LONGEST_PARENT] or None
            if self.gate.keeps_parents
            else None,
        )

    def _begins_at(self) -> int:
        """Now; but a call that was let in before midnight counts in that day, here as in the windows."""
        now = self.gate.clock.now()
        return min(now, day_ends(self.hold.at) - 1) if self.attempt == 1 else now

    def _complete(self, event: Event, outcome: Outcome) -> None:
        event.cost_nano = self._cost(outcome)
        event.status = outcome.status
        event.usage_source = outcome.source
        event.http_status = outcome.http_status
        event.error_code = "invalid_api_key" if self.is_stopped else outcome.error_code
        event.response_id = self.response_id
        event.latency_ms = max(self.gate.clock.now() - event.started_at, 0)
        if "attempt_us" in event.timings:
            event.timings["relay_us"] = int((self.gate.clock.monotonic() - self._marked_at) * _US)
        if outcome.tokens is not None:
            event.count(outcome.tokens)
            self.tokens = (self.tokens or 0) + outcome.tokens.input + outcome.tokens.output
        if outcome.first_token_at is not None:
            event.first_token_ms = max(outcome.first_token_at - event.started_at, 0)

    def _cost(self, outcome: Outcome) -> int:
        """The price of what was used; an estimate never passes the hold; nothing known costs what was held."""
        price = self.target.price if self.target else None
        if not outcome.billed or price is None:
            return 0
        if outcome.tokens is None:
            return self.hold.size.nano
        cost = price.cost_nano(outcome.tokens)
        return min(cost, self.hold.size.nano) if outcome.source == "estimated" else cost
