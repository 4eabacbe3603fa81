"""The audit log at the admin API."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import Field, JsonValue

from ostiary.admin import pages
from ostiary.admin.pages import Page
from ostiary.admin.shapes import Asking, Moment, Shown, ShownMoment
from ostiary.clock import iso
from ostiary.ledger import audit
from ostiary.ledger.audit import AuditRow

_ORDER: Final = "audit"


class Filter(Page):
    """Which rows; each filter takes the whole of a thing, not a part of it."""

    actor: Annotated[str | None, Field(max_length=64, description="Who, by id.")] = None
    deed: Annotated[str | None, Field(max_length=64, description="What, such as `agent_keys.rotate`.")] = None
    target: Annotated[str | None, Field(max_length=200, description="To what, by id or by the name it had.")] = None
    result: Literal["ok", "denied"] | None = None
    since: Moment | None = None
    until: Moment | None = None


class ShownDeed(Shown):
    """One deed: who, what, to what, before and after, from where, and whether it was allowed."""

    seq: int
    at: ShownMoment
    actor_kind: str
    actor_id: str
    actor_name: str
    deed: str
    target_kind: str
    target_id: str
    target_name: str
    before: dict[str, JsonValue] | None
    after: dict[str, JsonValue] | None
    origin: str
    address: str | None
    result: str
    number: int | None = Field(description="Its place in the organization's chain.")
    hash: str | None = Field(description="What proves it and all before it; `ostiary audit verify` checks.")


class Deeds(Shown):
    """One page of them."""

    data: list[ShownDeed]
    next_cursor: str | None


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Deeds:
    """What was done and tried in the organization, the newest first."""
    tx = await asking.begin()
    after = pages.place_of(asked.cursor, _ORDER, (int, int))
    wanted = audit.Filter(asked.actor, asked.deed, asked.target, asked.result, asked.since, asked.until)
    rows = await audit.list_(tx, asking.by, asking.organization_id, wanted, after=after, limit=asked.limit)
    cursor = pages.go_on(rows, asked.limit, _ORDER, lambda row: (row.at, row.seq))
    return Deeds(data=[ShownDeed(**_shown(row)) for row in rows], next_cursor=cursor)


def _shown(row: AuditRow) -> dict[str, Any]:
    names = (
        *("seq", "actor_kind", "actor_id", "actor_name", "deed", "target_kind", "target_id", "target_name"),
        *("before", "after", "origin", "address", "result", "number"),
    )
    facts = {name: getattr(row, name) for name in names}
    return {**facts, "at": iso(row.at), "hash": row.hash.hex() if row.hash else None}
