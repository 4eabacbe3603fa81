"""Agent keys: the list, at its own address and under Members, and what can be done to one of them from there."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection
from typing import Final, cast, get_args
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import AgentKey
from ostiary.agents.pages_store import After, ShownStatus, Sort, Wanted, list_spent
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.ledger import reports
from ostiary.orgs import members
from ostiary.orgs.store import find_user_by_id

LIST: Final = "/dashboard/keys"
AMONG_MEMBERS: Final = "/dashboard/settings/members/agents"
STATUSES: Final = (
    ("", "All"),
    ("active", "Active"),
    ("inactive", "Inactive"),
    ("expired", "Expired"),
    ("revoked", "Revoked"),
)
_FROM: Final = ("from", "members")
_ON_A_PAGE: Final = 50
_LONGEST_SEARCH: Final = 200


async def show(visit: Visit) -> Answer:
    """The list, searched, filtered and sorted; a script that asks gets the table alone."""
    wanted = _wanted(visit)
    await visit.hall.flush()
    async with visit.reading() as tx:
        page = await agent_keys.list_page(tx, visit.by, visit.home, wanted, visit.at, _place(visit, wanted.sort))
        spent = await list_spent(tx, page.keys, visit.at)
        traffic = await reports.list_traffic(tx, visit.home, visit.at, [key.id for key in page.keys])
        owners = await names_of(tx, visit, {key.owner_id for key in page.keys if key.owner_id is not None})
    is_searched = bool(wanted.search or wanted.status or wanted.owner_id)
    return visit.page(
        "agent_keys/table.html" if wants_part(visit) else "agent_keys/list.html",
        keys=page.keys,
        spent=spent,
        traffic=traffic,
        owners=owners,
        other_owner=wanted.owner_id if wanted.owner_id != visit.by.id else None,
        expiring={key.id for key in page.keys if key.expires_soon(visit.at)},
        statuses=STATUSES,
        sort=wanted.sort,
        direction="descending" if wanted.descending else "ascending",
        is_searched=is_searched,
        is_first=not visit.query.text("cursor"),
        next_page=None if page.after is None else _link(visit, wanted, page.after),
        first_page=_link(visit, wanted, None),
        among_members=visit.line.path == AMONG_MEMBERS,
        tail=tail_of(visit),
        tab="members",
        sees_all=visit.may("agent_keys.list"),
    )


async def show_menu(visit: Visit) -> Answer:
    """What can be done to a key, as the menu of its row."""
    async with visit.reading() as tx:
        key = await agent_keys.show(tx, visit.by, visit.home, visit.names["id"])
    return visit.page("agent_keys/menu.html", key=key, moves=moves_of(visit, key), tail=tail_of(visit))


def moves_of(visit: Visit, key: AgentKey) -> frozenset[str]:
    """What the visitor may do to a key as it is now; its page and its row offer the same."""
    is_lost = key.status == "revoked" and _is_final(visit)
    fits = {
        "edit": True,
        "rotate": not key.is_ephemeral,
        "ephemeral": not key.is_ephemeral and key.shown_status(visit.at) == "active",
        "deactivate": key.status == "active",
        "activate": key.status in ("inactive", "revoked") and not is_lost,
        "revoke": key.status != "revoked",
        "delete": True,
    }
    return frozenset(name for name, does in fits.items() if does and visit.may(f"agent_keys.{name}", key.owner_id))


async def ask_revoke(visit: Visit) -> Answer:
    """The question whether a key shall really be revoked, as a dialog."""
    return await _ask(visit, "revoke")


async def ask_delete(visit: Visit) -> Answer:
    """The question whether a key shall really be deleted, as a dialog."""
    return await _ask(visit, "delete")


async def _ask(visit: Visit, move: str) -> Answer:
    async with visit.reading() as tx:
        key = await agent_keys.get(tx, visit.by, f"agent_keys.{move}", visit.home, visit.names["id"], lock=False)
        children = 0 if key.is_ephemeral else await count_children(tx, visit, key)
    return visit.page(f"agent_keys/{move}.html", key=key, children=children, is_final=_is_final(visit))


def _is_final(visit: Visit) -> bool:
    organization = visit.here.organization
    return organization is not None and organization.revocation_is_final


async def count_children(tx: Transaction, visit: Visit, key: AgentKey) -> int:
    """How many ephemeral keys go with it; beyond a page of them the exact number says nothing."""
    wanted = Wanted(parent_id=key.id, limit=_ON_A_PAGE)
    return len((await agent_keys.list_page(tx, visit.by, visit.home, wanted, visit.at)).keys)


async def names_of(tx: Transaction, visit: Visit, ids: Collection[str]) -> dict[str, tuple[str, str]]:
    """Name and address of owners by id, those who have left among them."""
    me = visit.here.user
    known = {me.id: (me.name, me.email)}
    if visit.may("members.list"):
        known |= {one.user_id: (one.name, one.email) for one in await members.list_(tx, visit.by, visit.home)}
    for id in ids:
        if id not in known:
            user = await find_user_by_id(tx, id)
            known[id] = (user.name, user.email) if user else ("somebody who is gone", "")
    return known


def wants_part(visit: Visit) -> bool:
    """Whether only the part of a page is asked for that changes; a browser that goes back wants the whole."""
    return visit.is_partial and visit.line.headers.get(b"hx-history-restore-request") != b"true"


def back(visit: Visit, id: str = "") -> str:
    """The list somebody acted from, with its filters; where they did not, the page of a key, or the list it is of."""
    here = _seen(visit)
    if here.path in (LIST, AMONG_MEMBERS):
        return f"{here.path}?{here.query}" if here.query else here.path
    if id:
        return page_of(visit, id)
    return AMONG_MEMBERS if tail_of(visit) else LIST


def page_of(visit: Visit, id: str) -> str:
    """The page of a key, from which the way back leads where this one's does."""
    return f"{LIST}/{id}{tail_of(visit)}"


def tail_of(visit: Visit) -> str:
    """What links to a key, and from it, carry where it was opened among the agents of members, and not under Keys."""
    here = _seen(visit)
    is_among = AMONG_MEMBERS in (visit.line.path, here.path)
    is_kept = visit.query.text(_FROM[0]) == _FROM[1] or _FROM in parse_qsl(here.query)
    return f"?{urlencode([_FROM])}" if is_among or is_kept else ""


def _seen(visit: Visit) -> SplitResult:
    """The page from which a script asks."""
    return urlsplit(visit.line.headers.get(b"hx-current-url", b"").decode("latin-1"))


def _wanted(visit: Visit) -> Wanted:
    query = visit.query
    sort, status, owner = query.text("sort"), query.text("status"), query.text("owner")[:_LONGEST_SEARCH]
    return Wanted(
        search=query.text("q")[:_LONGEST_SEARCH] or None,
        status=cast("ShownStatus", status) if status in get_args(ShownStatus) else None,
        owner_id=visit.by.id if owner == "me" else owner or None,
        sort=cast("Sort", sort) if sort in get_args(Sort) else "created_at",
        descending=query.text("direction", "descending") != "ascending",
        limit=_ON_A_PAGE,
    )


def _link(visit: Visit, wanted: Wanted, after: After | None) -> str:
    """The same list from elsewhere on."""
    query = {name: visit.query.text(name) for name in ("q", "status", "owner") if visit.query.text(name)}
    query |= {"sort": wanted.sort, "direction": "descending" if wanted.descending else "ascending"}
    if after is not None:
        query["cursor"] = base64.urlsafe_b64encode(json.dumps(after).encode()).decode().rstrip("=")
    return f"{visit.line.path}?{urlencode(query)}"


def _place(visit: Visit, sort: Sort) -> After | None:
    """Where the page begins; a cursor that is none of this order begins anew."""
    text = visit.query.text("cursor")
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        value, id = found
    except (ValueError, TypeError, RecursionError):
        return None
    is_number = sort in ("created_at", "requests")
    fits = type(value) is int and 0 <= value < 2**63 if is_number else isinstance(value, str) and "\0" not in value
    return (value, id) if fits and isinstance(id, str) and "\0" not in id else None
