"""Traces at the admin API: single attempts of single calls."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import Field, JsonValue

from ostiary.admin import pages, reach
from ostiary.admin.pages import LARGEST, USUAL
from ostiary.admin.shapes import Asking, Id, Moment, Shown, ShownMoment, ShownTokens, ShownUsd, Sought, Usd, tokens, usd
from ostiary.agents.reach import find_owner_id
from ostiary.clock import iso
from ostiary.ledger import reports
from ostiary.ledger.reports import Filter, Place, Trace
from ostiary.providers.tokens import UNITS
from ostiary.vault import contents

_ORDER: Final = "traces"


class Wanted(Sought):
    """Which attempts."""

    agent_key: Annotated[str | None, Field(max_length=200, description="By id or name; deleted ones too.")] = None
    status: Literal["ok", "error", "cancelled", "unknown"] | None = None
    since: Moment | None = None
    until: Moment | None = None
    model: Annotated[str | None, Field(max_length=200)] = None
    provider: Annotated[str | None, Field(max_length=64)] = None
    min_latency_ms: Annotated[int | None, Field(ge=0, le=86_400_000)] = None
    min_cost_usd: Usd | None = None

    def filter(self, agent_key_ids: list[str] | None) -> Filter:
        """As the ledger takes it."""
        return Filter(
            agent_key_ids,
            self.status,
            self.since,
            self.until,
            self.model,
            self.provider,
            self.min_latency_ms,
            self.min_cost_usd,
        )


class WantedPage(Wanted):
    """Which attempts, and which part of them."""

    limit: Annotated[int, Field(ge=1, le=LARGEST)] = USUAL
    cursor: Annotated[str | None, Field(max_length=1_000, description="`next_cursor` of the page before.")] = None


class ShownTrace(Shown):
    """One attempt of one call. Names are those at the time of the call; a client credential has its name of today."""

    request_id: str
    attempt: int
    at: ShownMoment
    agent_key_id: str | None
    agent_key: str | None
    parent_key_id: str | None
    credential_id: str | None
    credential: str | None
    operation: str
    endpoint: str | None
    provider: str
    provider_key: str
    model_asked: str
    model: str
    model_served: str | None
    status: str
    http_status: int
    error_code: str | None
    stream: bool
    tokens: ShownTokens
    images: int
    audio_ms: int = Field(description="Milliseconds of audio that was heard.")
    characters: int = Field(description="Characters that were spoken.")
    searches: int = Field(description="Searches of a rerank.")
    cost_usd: ShownUsd
    held_usd: ShownUsd
    over_hold_usd: ShownUsd
    price_version: str | None = Field(description="Null where tokens had no price.")
    usage_source: str
    latency_ms: int
    first_token_ms: int | None
    timings: dict[str, JsonValue] = Field(description="The waterfall: milliseconds of each step.")
    client_ip: str | None
    metadata: dict[str, JsonValue]


class Traces(Shown):
    """One page of them."""

    data: list[ShownTrace]
    next_cursor: str | None


class Call(Shown):
    """Every attempt of one call."""

    request_id: str
    attempts: list[ShownTrace]


class ShownContent(Shown):
    """Request and answer of one attempt, redacted; null where they can no longer be opened."""

    attempt: int
    at: ShownMoment
    request: str | None
    answer: str | None


class Contents(Shown):
    """What every attempt of one call said."""

    request_id: str
    attempts: list[ShownContent]


class ShownSummary(Shown):
    """What a list of traces comes to."""

    attempts: int
    requests: int
    errors: int
    error_percent: float
    cost_usd: ShownUsd
    average_ms: int | None
    p95_ms: int | None
    measured: int = Field(description="Over how many attempts, the newest, the p95 is taken.")


async def list_(asking: Asking, asked: Annotated[WantedPage, Query()]) -> Traces:
    """Attempts, the newest first: all of the organization's, or those of a member's own keys."""
    await asking.office.flush()
    tx = await asking.begin()
    after = pages.place_of(asked.cursor, _ORDER, (int, str, int))
    wanted = asked.filter(await reach.keys_of(asking, tx, asked.agent_key))
    found = await reports.list_traces(
        tx,
        asking.organization_id,
        wanted,
        after=Place(*after) if after else None,
        limit=asked.limit + 1,
    )
    page, cursor = pages.cut(found, asked.limit, _ORDER, lambda trace: tuple(trace.place))
    return Traces(data=[ShownTrace(**_shown(trace)) for trace in page], next_cursor=cursor)


async def summary(asking: Asking, asked: Annotated[Wanted, Query()]) -> ShownSummary:
    """How many attempts there are, how many failed, what they cost and how long they took."""
    await asking.office.flush()
    tx = await asking.begin()
    wanted = asked.filter(await reach.keys_of(asking, tx, asked.agent_key))
    found = await reports.sum_traces(tx, asking.organization_id, wanted)
    names = ("attempts", "requests", "errors", "error_percent", "average_ms", "p95_ms", "measured")
    facts: dict[str, Any] = {name: getattr(found, name) for name in names}
    return ShownSummary(**facts, cost_usd=usd(found.cost_nano))


async def show(asking: Asking, id: Id) -> Call:
    """Every attempt of one call, by its request id, the first first."""
    await asking.office.flush()
    tx = await asking.begin()
    attempts = await reports.get_call(tx, asking.organization_id, id)
    asking.by.require(asking.route.deed, asking.organization_id, await find_owner_id(tx, attempts[0]))
    return Call(request_id=id, attempts=[ShownTrace(**_shown(trace)) for trace in attempts])


async def content(asking: Asking, id: Id) -> Contents:
    """What one call asked and was answered, where that is captured; that somebody looked is written down."""
    await asking.office.flush()
    tx = await asking.begin()
    home = asking.organization_id
    attempts = await reports.get_call(tx, home, id)
    owner_id = await find_owner_id(tx, attempts[0])
    said = await contents.show(tx, asking.by, asking.office.seal, home, id, owner_id=owner_id, at=asking.at)
    return Contents(
        request_id=id,
        attempts=[
            ShownContent(attempt=one.attempt, at=iso(one.at), request=one.request, answer=one.answer) for one in said
        ],
    )


def _shown(trace: Trace) -> dict[str, Any]:
    names = (
        *("request_id", "attempt", "agent_key_id", "agent_key", "parent_key_id", "credential_id", "credential"),
        *("operation", "endpoint", "provider", "provider_key", "model_asked", "model", "model_served"),
        *("status", "http_status", "error_code", "stream", *UNITS, "price_version", "usage_source"),
        *("latency_ms", "first_token_ms", "client_ip"),
    )
    return {
        **{name: getattr(trace, name) for name in names},
        "at": iso(trace.at),
        "tokens": tokens(trace.tokens),
        "cost_usd": usd(trace.cost_nano),
        "held_usd": usd(trace.held_nano),
        "over_hold_usd": usd(trace.over_hold_nano),
        "timings": dict(trace.timings),
        "metadata": dict(trace.metadata),
    }
