"""Agent keys at the admin API: found, made, edited, deleted."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Response
from pydantic import Field

from ostiary.admin import pages
from ostiary.admin.agent_key_shapes import (
    DetailedKey,
    KeyPatch,
    Keys,
    ListedKey,
    MadeKey,
    ModelSpend,
    NewKey,
    ShownKey,
    patched,
    shares,
    shown,
    wished,
)
from ostiary.admin.pages import Page
from ostiary.admin.shapes import Asking, Id, usd
from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import AgentKey, NewAgentKey
from ostiary.agents.pages_store import RECENT_DAYS, Wanted, list_spent
from ostiary.agents.store import get_rules
from ostiary.clock import DAY_MS, day_ends
from ostiary.db.database import Transaction
from ostiary.ledger import reports
from ostiary.ledger.reports import UsageFilter
from ostiary.orgs.roles import judge_scopes


class Filter(Page):
    """Which keys, and in which order."""

    search: Annotated[str | None, Field(max_length=200, description="A part of the name or of a preview.")] = None
    status: Literal["active", "inactive", "expired", "revoked"] | None = None
    owner_id: Annotated[str | None, Field(max_length=64)] = None
    parent_id: Annotated[str | None, Field(max_length=64)] = None
    sort: Literal["created_at", "name", "owner", "status", "requests"] = "created_at"
    direction: Literal["ascending", "descending"] = "ascending"


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Keys:
    """Agent keys: all of the organization's, or a member's own."""
    tx = await asking.begin()
    at, home, descending = asking.at, asking.organization_id, asked.direction == "descending"
    order = f"{asked.sort} {asked.direction}"
    after = pages.place_of(asked.cursor, order, (int if asked.sort in ("created_at", "requests") else str, str))
    wanted = Wanted(asked.search, asked.status, asked.owner_id, asked.parent_id, asked.sort, descending, asked.limit)
    page = await agent_keys.list_page(tx, asking.by, home, wanted, at, after)
    sums = await list_spent(tx, page.keys, at)
    traffic = await reports.list_traffic(tx, home, at, [key.id for key in page.keys])
    return Keys(
        data=[ListedKey(**shown(key, sums[key.id], at), **shares(key.id, traffic)) for key in page.keys],
        next_cursor=pages.cursor_of(order, page.after) if page.after else None,
    )


async def create(asking: Asking, asked: NewKey) -> MadeKey:
    """Make a key. Its secret is in this answer and never again."""
    tx = await asking.begin()
    wish = NewAgentKey(**wished(asked))  # type: ignore[arg-type]
    key, secret = await agent_keys.create(
        tx,
        asking.by,
        asking.organization_id,
        wish,
        pepper=asking.office.seal.pepper,
        at=asking.at,
        grant=judge_scopes,
        catalog=asking.office.catalog,
    )
    return MadeKey(**shown(key, 0, asking.at), secret=secret.reveal())


async def show(asking: Asking, id: Id) -> DetailedKey:
    """One key, by id or by name."""
    await asking.office.flush()
    tx = await asking.begin()
    at, home = asking.at, asking.organization_id
    key = await agent_keys.show(tx, asking.by, home, id)
    wanted = UsageFilter(day_ends(at) - RECENT_DAYS * DAY_MS, agent_key_ids=[key.id])
    rows = await reports.sum_usage(tx, home, wanted, ("provider", "model"))
    rules = await get_rules(tx, home)
    return DetailedKey(
        **shown(key, await spent(tx, key, at), at),
        **shares(key.id, await reports.list_traffic(tx, home, at, [key.id])),
        by_model=[
            ModelSpend(model=f"{row.provider}/{row.model}", requests=row.requests, cost_usd=usd(row.cost_nano))
            for row in rows
        ],
        content_is_captured=key.is_captured and not rules.capture_is_forbidden,
    )


async def change(asking: Asking, id: Id, asked: KeyPatch) -> ShownKey:
    """Edit what is named (RFC 7396): absent stays, null clears."""
    tx = await asking.begin()
    await agent_keys.keep_member(tx, asking.by, asking.organization_id, wished(asked).get("owner_id"))
    known = await agent_keys.get(tx, asking.by, "agent_keys.edit", asking.organization_id, id)
    wish = patched(asked, known)
    key = await agent_keys.change(
        tx,
        asking.by,
        asking.organization_id,
        known.id,
        wish,
        asking.at,
        grant=judge_scopes,
        catalog=asking.office.catalog,
    )
    return await described(tx, key, asking.at)


async def delete(asking: Asking, id: Id) -> Response:
    """Forget a key. This cannot be undone; what it did stays in the ledger under its name."""
    tx = await asking.begin()
    await agent_keys.delete(tx, asking.by, asking.organization_id, id, asking.at)
    return Response(status_code=204)


async def described(tx: Transaction, key: AgentKey, at: int) -> ShownKey:
    """A key with what it has spent."""
    return ShownKey(**shown(key, await spent(tx, key, at), at))


async def spent(tx: Transaction, key: AgentKey, at: int) -> int:
    """Nano-dollars of the budget's running period, or of the month where there is no budget."""
    return (await list_spent(tx, [key], at))[key.id]
