"""What a call looks like as OpenTelemetry spans: one for the call, one below it for each attempt (pure)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from ostiary.ledger.events import Event

Value = str | int | float
Address = tuple[str, int]
"""Host and port."""

_NS: Final = 1_000_000
"""In a millisecond."""
_US: Final = 1_000
_BEFORE: Final = ("identify_us", "admit_us", "reserve_us")
_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-?)")
"""A `traceparent` of W3C; versions to come may have more behind it."""
LONGEST_PARENT: Final = 56
_FIRST_VERSION, _NO_VERSION = b"00", b"ff"
_SAMPLED: Final = 1
_OPERATIONS: Final[Mapping[str, str]] = MappingProxyType({"completions": "text_completion", "responses": "chat"})
"""Ours by the names the conventions have for them; the others are called alike, or have no name there."""
_PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "azure-openai": "azure.ai.openai",
        "azure-ai-foundry": "azure.ai.inference",
        "bedrock": "aws.bedrock",
        "gemini": "gcp.gemini",
        "mistral": "mistral_ai",
        "moonshot": "moonshot_ai",
        "vertex-ai": "gcp.vertex_ai",
        "watsonx": "ibm.watsonx.ai",
        "xai": "x_ai",
    }
)
"""Likewise."""
_USAGE: Final = (
    ("gen_ai.usage.input_tokens", "input_tokens"),
    ("gen_ai.usage.output_tokens", "output_tokens"),
    ("gen_ai.usage.cache_read.input_tokens", "cache_read_tokens"),
    ("gen_ai.usage.cache_creation.input_tokens", "cache_write_tokens"),
    ("gen_ai.usage.reasoning.output_tokens", "reasoning_tokens"),
    ("ostiary.usage.images", "images"),
    ("ostiary.usage.audio_ms", "audio_ms"),
    ("ostiary.usage.characters", "characters"),
    ("ostiary.usage.searches", "searches"),
)


class Span(NamedTuple):
    """One span, of kind CLIENT; an empty `parent_id` makes it the first of its trace. Times since the epoch."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    begins_ns: int
    ends_ns: int
    is_error: bool
    has_remote_parent: bool
    attributes: dict[str, Value]


class _Parent(NamedTuple):
    trace_id: bytes
    span_id: bytes
    is_sampled: bool


def spans_of(attempts: Sequence[Event], address_of: Callable[[Event], Address | None]) -> list[Span]:
    """The spans of a whole call, in the order of its attempts; none where its caller's trace is not sampled.

    The ids come of the request's id: whoever sends a call twice sends the same spans. What was asked and answered,
    who asked from where, and what a key's owner has noted down of it are in none of them.
    """
    attempts = sorted(attempts, key=lambda one: one.attempt)
    first, last = attempts[0], attempts[-1]
    parent = _parent_in(first.traceparent)
    if parent is not None and not parent.is_sampled:
        return []
    digest = hashlib.sha256(first.request_id.encode()).digest()
    trace_id, call_id = parent.trace_id if parent else digest[:16], digest[16:24]
    below = [_attempt(event, trace_id, call_id, address_of(event)) for event in attempts]
    begins_ns = below[0].begins_ns - sum(max(first.timings.get(name, 0), 0) for name in _BEFORE) * _US
    call = Span(
        trace_id,
        call_id,
        parent.span_id if parent else b"",
        f"{_operation(first)} {first.model_asked}",
        begins_ns,
        max(one.ends_ns for one in below),
        below[-1].is_error,
        parent is not None,
        _of_call(attempts, address_of(last)),
    )
    return [call, *below]


def _parent_in(header: bytes | None) -> _Parent | None:
    """What a caller's tracing said, where it is understood; the rest is as if nothing had been said."""
    found = _PARENT.fullmatch(header) if header is not None else None
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    trace_id, span_id = bytes.fromhex(trace.decode()), bytes.fromhex(span.decode())
    is_odd = version == _NO_VERSION or (version == _FIRST_VERSION and more)
    if is_odd or not any(trace_id) or not any(span_id):
        return None
    return _Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def _attempt(event: Event, trace_id: bytes, call_id: bytes, address: Address | None) -> Span:
    span_id = hashlib.sha256(f"{event.request_id}/{event.attempt}".encode()).digest()[:8]
    begins_ns = event.started_at * _NS
    error = _error_of(event)
    attributes = _known(
        {
            "gen_ai.provider.name": _provider(event),
            "gen_ai.request.model": event.model,
            "gen_ai.response.model": _served(event),
            **_at(address),
            "http.response.status_code": event.http_status or None,
            "error.type": error,
            "ostiary.status": event.status,
            "ostiary.attempt": event.attempt,
            "ostiary.attempt.input_tokens": event.input_tokens or None,
            "ostiary.attempt.output_tokens": event.output_tokens or None,
            "ostiary.attempt.cost_nano_usd": event.cost_nano,
            "ostiary.provider_key.id": event.provider_key_id,
            "ostiary.provider_key.name": event.provider_key_name,
        }
    )
    ends_ns = begins_ns + max(event.latency_ms, 0) * _NS
    name = f"attempt {event.provider}"
    return Span(trace_id, span_id, call_id, name, begins_ns, ends_ns, error is not None, False, attributes)


def _of_call(attempts: Sequence[Event], address: Address | None) -> dict[str, Value]:
    """What the conventions ask of a call to a model, as of its last attempt, and what it came to in all of them.

    Tokens are told here only: whoever adds up spans counts none twice.
    """
    first, last = attempts[0], attempts[-1]
    chunk_s = None
    if last.stream and last.first_token_ms is not None:
        chunk_s = (last.started_at - first.started_at + last.first_token_ms) / 1_000
    return _known(
        {
            "gen_ai.operation.name": _operation(first),
            "gen_ai.provider.name": _provider(last),
            "gen_ai.request.model": first.model_asked,
            "gen_ai.request.stream": True if first.stream else None,
            "gen_ai.response.model": _served(last),
            "gen_ai.response.time_to_first_chunk": chunk_s,
            **_used(attempts),
            **_at(address),
            "error.type": _error_of(last),
            "ostiary.request_id": first.request_id,
            "ostiary.operation": first.operation,
            "ostiary.status": last.status,
            "ostiary.attempts": last.attempt,
            "ostiary.cost_nano_usd": sum(event.cost_nano for event in attempts),
            "ostiary.usage_source": last.usage_source,
            "ostiary.organization.id": first.organization_id,
            "ostiary.agent_key.id": first.agent_key_id,
            "ostiary.agent_key.name": first.agent_key_name,
            "ostiary.agent_key.parent_id": first.parent_key_id,
            "ostiary.client_credential.id": first.credential_id,
            "ostiary.endpoint": first.endpoint,
        }
    )


def _used(attempts: Iterable[Event]) -> dict[str, Value | None]:
    counted = [event for event in attempts if event.usage_source != "none"]
    sums = {name: sum(getattr(event, field) for event in counted) for name, field in _USAGE}
    always = {name for name, _ in _USAGE[:2]} if counted else set()
    return {name: count if count or name in always else None for name, count in sums.items()}


def _operation(event: Event) -> str:
    return _OPERATIONS.get(event.operation, event.operation)


def _provider(event: Event) -> str:
    return _PROVIDERS.get(event.provider, event.provider)


def _served(event: Event) -> str | None:
    """What answered, if anything did; a provider that says nothing of it has served what was asked."""
    return event.model_served or (event.model if event.status == "ok" else None)


def _error_of(event: Event) -> str | None:
    """Why an attempt failed, in one word; that a caller hung up is no failure."""
    if event.error_code is not None:
        return event.error_code
    return event.status if event.status in ("error", "unknown") else None


def _at(address: Address | None) -> dict[str, Value | None]:
    return {} if address is None else {"server.address": address[0], "server.port": address[1]}


def _known(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None}
