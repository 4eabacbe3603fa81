"""What an attempt came to, written once and always: into the purse, the spool, and so the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ostiary.gateway.call import Call
from ostiary.gateway.directory import Caller
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.gateway.plan import Target
from ostiary.ledger.events import Event, Status, UsageSource
from ostiary.ledger.spool import SpoolFull
from ostiary.limits.reserve import Hold
from ostiary.providers.tokens import Tokens


@dataclass(slots=True)
class Outcome:
    """How one attempt ended. `billed` without `tokens` is nothing known: then the held amount is charged."""

    status: Status = "unknown"
    http_status: int = 0
    error_code: str | None = None
    tokens: Tokens | None = None
    source: UsageSource = "none"
    billed: bool = True
    first_token_at: int | None = None


@dataclass(slots=True, eq=False)
class Book:
    """The book of one call: a hold for the attempt under way, and its one settlement."""

    gate: Gate
    exchange: Exchange
    caller: Caller
    call: Call
    hold: Hold
    timings: dict[str, int]
    attempt: int = 0
    cost_nano: int = 0
    seen: Outcome = field(default_factory=lambda: Outcome("cancelled", billed=False))
    """What would be settled if the call ended now; kept true by the steps."""
    target: Target | None = None
    _event: Event | None = None
    _hold_id: int | None = None
    _written: asyncio.Future[None] | None = field(default=None, repr=False)

    async def open(self, target: Target) -> None:
        """Commit a hold for the next attempt before anything is sent; refuses (503) when that can't be done."""
        self.attempt += 1
        self.target = target
        self.seen = Outcome("cancelled", billed=False)
        self._event = self._describe(target)
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
        self._complete(event, outcome)
        self.cost_nano += event.cost_nano
        self.gate.marks.note(event.agent_key_id, event.provider_key_id, event.started_at)
        self._written = self.gate.spool.settle(hold_id, event)
        if outcome.billed:
            self.hold.settle(event.cost_nano)

    async def close(self, outcome: Outcome) -> None:
        """Settle what is still open, once; the caller may hear the end of the answer when this returns.

        The settlement is on its way before the first await, so a cancelled call is settled too.
        """
        self.end_attempt(outcome)
        if self._written is None:
            self.gate.reserve.undo(self.hold)
            return
        self.hold.settle(self.cost_nano)
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
            provider_key_name=target.key.name,
            stream=self.call.ask.stream,
            started_at=self.gate.clock.now(),
            client_ip=self.exchange.address,
            metadata=dict(key.metadata) if key else {},
            held_nano=hold.size.nano,
            leased=hold.accounts,
            price_version=target.price.version if target.price else None,
            cost_nano=hold.size.nano if target.price else 0,
            usage_source="none",
            status="unknown",
            timings=self.timings,
            held_at=hold.at,
        )

    def _complete(self, event: Event, outcome: Outcome) -> None:
        tokens = outcome.tokens or Tokens()
        event.cost_nano = self._cost(outcome)
        event.status = outcome.status
        event.usage_source = outcome.source
        event.http_status = outcome.http_status
        event.error_code = outcome.error_code
        event.input_tokens = tokens.input
        event.output_tokens = tokens.output
        event.cache_read_tokens = tokens.cache_read
        event.cache_write_tokens = tokens.cache_write
        event.reasoning_tokens = tokens.reasoning
        event.audio_tokens = tokens.audio
        event.latency_ms = max(self.gate.clock.now() - event.started_at, 0)
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
