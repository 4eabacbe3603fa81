"""What one attempt was and cost, as the spool keeps it and the ledger writes it."""

from __future__ import annotations

from typing import Literal

import msgspec

from ostiary.providers.tokens import Tokens

UsageSource = Literal["provider", "estimated", "none"]
Status = Literal["ok", "error", "cancelled", "unknown"]


class Event(msgspec.Struct, array_like=True, omit_defaults=False):
    """One attempt of one call. A hold is the same record as it would be charged if nothing more came to be known.

    Money in nano-dollars, times in milliseconds since the epoch. `leased` names the accounts (scope, id, period)
    whose leases the hold was taken from; the others are charged without one. New fields go to the end: the spool of
    an older version must stay readable.
    """

    request_id: str
    attempt: int
    organization_id: str
    agent_key_id: str | None
    agent_key_name: str | None
    credential_id: str | None
    operation: str
    provider: str
    model_asked: str
    model: str
    provider_key_id: str
    provider_key_name: str
    stream: bool
    started_at: int
    client_ip: str | None
    metadata: dict[str, object]
    held_nano: int
    leased: tuple[tuple[str, str, str], ...]
    price_version: str | None
    cost_nano: int
    usage_source: UsageSource
    status: Status
    http_status: int = 0
    error_code: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    latency_ms: int = 0
    first_token_ms: int | None = None
    timings: dict[str, int] = {}
    held_at: int = 0
    """When the hold was taken: its periods pay, also for a later attempt. 0 in the spools of older versions."""
    parent_key_id: str | None = None
    endpoint: str | None = None
    model_served: str | None = None
    images: int = 0
    content: str | None = None
    """What was asked and answered, sealed; only where the key's content is captured."""
    content_version: int = 0
    audio_ms: int = 0
    characters: int = 0
    searches: int = 0
    response_id: str | None = None
    """What the provider keeps the answer under: the ledger remembers which provider key can be asked about it."""
    traceparent: bytes | None = None
    """What the caller's own tracing said, as it came; only where spans are sent to a collector."""

    def count(self, used: Tokens) -> None:
        """Write down what was used."""
        self.input_tokens = used.input
        self.output_tokens = used.output
        self.cache_read_tokens = used.cache_read
        self.cache_write_tokens = used.cache_write
        self.reasoning_tokens = used.reasoning
        self.audio_tokens = used.audio
        if self.operation != "chat":
            self.images, self.audio_ms = used.images, used.audio_ms
            self.characters, self.searches = used.characters, used.searches

    @property
    def over_hold_nano(self) -> int:
        """What the call cost beyond its hold: written in full, never hidden."""
        return max(self.cost_nano - self.held_nano, 0) if self.leased else 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Event).decode


def pack(event: Event) -> bytes:
    """The event as the spool stores it."""
    return _encode(event)


def unpack(data: bytes) -> Event:
    """The event of a spool's row; raises msgspec.DecodeError on a damaged one."""
    return _decode(data)
