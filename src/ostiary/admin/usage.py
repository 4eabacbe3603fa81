"""Usage at the admin API: requests, tokens and cost, summed by what is asked for."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import AfterValidator, Field

from ostiary.admin import reach
from ostiary.admin.shapes import Asking, Moment, Shown, ShownMoment, ShownTokens, ShownUsd, Sought, tokens, usd
from ostiary.clock import DAY_MS, iso
from ostiary.ledger import reports
from ostiary.ledger.reports import USUAL, Dimension, UsageFilter, UsageRow
from ostiary.providers.tokens import UNITS

_DIMENSIONS: Final[tuple[Dimension, ...]] = ("day", "agent_key", "credential", "provider", "model", "provider_key")
_USUAL_MS: Final = 30 * DAY_MS
_MOST_ROWS: Final = 1_000


def _by(text: str) -> str:
    unknown = sorted(set(text.split(",")) - set(_DIMENSIONS))
    if unknown:
        raise ValueError(f"there is no dimension {unknown[0][:40]!r}; there are {', '.join(_DIMENSIONS)}")
    return text


class Wanted(Sought):
    """Which usage, and by what it is summed."""

    since: Annotated[Moment | None, Field(description="Absent: 30 days ago. Counted in whole UTC hours.")] = None
    until: Moment | None = None
    by: Annotated[
        str,
        Field(max_length=200, pattern=rf"^({'|'.join(_DIMENSIONS)})(,({'|'.join(_DIMENSIONS)}))*$"),
        AfterValidator(_by),
    ] = ",".join(USUAL)
    agent_key: Annotated[str | None, Field(max_length=200, description="By id or name; deleted ones too.")] = None
    credential_id: Annotated[str | None, Field(max_length=64)] = None
    provider: Annotated[str | None, Field(max_length=64)] = None
    model: Annotated[str | None, Field(max_length=200)] = None
    limit: Annotated[int, Field(ge=1, le=_MOST_ROWS)] = _MOST_ROWS


class ShownUsage(Shown):
    """One sum. What it was not summed by is null."""

    day: str | None
    agent_key_id: str | None
    agent_key: str | None
    credential_id: str | None
    provider: str | None
    model: str | None
    provider_key_id: str | None
    provider_key: str | None
    requests: int
    attempts: int
    errors: int
    cancelled: int
    unpriced: int = Field(description="Attempts whose tokens had no price.")
    tokens: ShownTokens
    images: int
    audio_ms: int = Field(description="Milliseconds of audio that was heard.")
    characters: int = Field(description="Characters that were spoken.")
    searches: int = Field(description="Searches of reranks.")
    latency_ms: int = Field(description="Of all attempts together.")
    cost_usd: ShownUsd


class Usage(Shown):
    """Sums, the newest day first, then the dearest."""

    since: ShownMoment
    until: ShownMoment | None
    is_whole: bool = Field(description="False when there are more sums than were asked for.")
    data: list[ShownUsage]


async def show(asking: Asking, asked: Annotated[Wanted, Query()]) -> Usage:
    """What was used and what it cost: by all of the organization, or by a member's own keys."""
    await asking.office.flush()
    tx = await asking.begin()
    since_at = asking.at - _USUAL_MS if asked.since is None else asked.since
    wanted = UsageFilter(
        since_at=since_at,
        until_at=asked.until,
        agent_key_ids=await reach.keys_of(asking, tx, asked.agent_key),
        credential_id=asked.credential_id,
        provider=asked.provider,
        model=asked.model,
    )
    by = [one for one in _DIMENSIONS if one in asked.by.split(",")]
    rows = await reports.sum_usage(tx, asking.organization_id, wanted, by, asked.limit + 1)
    return Usage(
        since=iso(since_at),
        until=None if asked.until is None else iso(asked.until),
        is_whole=len(rows) <= asked.limit,
        data=[ShownUsage(**_shown(row)) for row in rows[: asked.limit]],
    )


def _shown(row: UsageRow) -> dict[str, Any]:
    names = (
        *("day", "agent_key_id", "agent_key", "credential_id", "provider", "model", "provider_key_id"),
        *("provider_key", "requests", "attempts", "errors", "cancelled", "unpriced", *UNITS, "latency_ms"),
    )
    facts = {name: getattr(row, name) for name in names}
    return {**facts, "tokens": tokens(row.tokens), "cost_usd": usd(row.cost_nano)}
