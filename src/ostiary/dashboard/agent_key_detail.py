"""One agent key: what it may do, what it has used, what a call with it would do, and how a program uses it."""

from __future__ import annotations

import json
from typing import Any, Final

from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import AgentKey
from ostiary.agents.pages_store import RECENT_DAYS, Wanted, list_spent
from ostiary.agents.store import get_rules, list_secrets
from ostiary.clock import DAY_MS, day_ends
from ostiary.dashboard.agent_key_connect import connect
from ostiary.dashboard.agent_key_words import powers
from ostiary.dashboard.agent_keys import moves_of, names_of, tail_of
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import reports
from ostiary.ledger.reports import Traffic, UsageFilter

_MOST_CHILDREN: Final = 20
_MOST_MODELS: Final = 20
_NO_TRAFFIC: Final = Traffic(0, 0.0)
TTLS: Final = (
    ("900", "15 minutes"),
    ("3600", "1 hour"),
    ("14400", "4 hours"),
    ("28800", "8 hours"),
    ("86400", "1 day"),
)
OVERLAPS: Final = (
    ("0", "None: the old secret stops working immediately"),
    ("3600", "1 hour"),
    ("21600", "6 hours"),
    ("86400", "1 day"),
    ("172800", "2 days"),
    ("259200", "3 days"),
    ("604800", "7 days"),
)
"""How long old and new secret work side by side, in seconds."""


async def show(visit: Visit) -> Answer:
    """The page of one key."""
    await visit.hall.flush()
    async with visit.reading() as tx:
        key = await agent_keys.show(tx, visit.by, visit.home, visit.names["id"])
        known = await _known(visit, tx, key)
    return visit.page("agent_keys/detail.html", **known)


async def explain(visit: Visit) -> Answer:
    """What a call with this key would do; nothing is called and nothing is spent."""
    form = visit.form
    async with visit.reading() as tx:
        key = await agent_keys.show(tx, visit.by, visit.home, visit.names["id"])
    body = form.text("body")
    if not body:
        messages = [{"role": "user", "content": form.text("message")}]
        body = json.dumps({"model": form.text("model"), "messages": messages})
    address = form.text("address") or visit.address or "127.0.0.1"
    try:
        told = await visit.hall.explain(key.id, body.encode("utf-8", "replace"), None, address)
    except Refusal as refusal:
        if refusal.code in ("service_unavailable", "sealed"):
            raise
        told = {"allowed": False, "in_words": refusal.message, "would_answer": {"status": refusal.status}}
    return visit.page("agent_keys/explained.html", told=told, code=_code(told))


def _code(told: dict[str, Any]) -> str:
    """The answer's status and code, of a call that would be refused."""
    answer = told.get("would_answer") or {}
    code = (answer.get("error") or {}).get("code", "")
    return f"{answer.get('status', '')} {code}".strip()


async def _known(visit: Visit, tx: Transaction, key: AgentKey) -> dict[str, Any]:
    at, home = visit.at, visit.home
    since = day_ends(at) - RECENT_DAYS * DAY_MS
    by_model = await reports.sum_usage(tx, home, UsageFilter(since, agent_key_ids=[key.id]), ("provider", "model"))
    wanted = Wanted(parent_id=key.id, descending=True, limit=_MOST_CHILDREN)
    children = await agent_keys.list_page(tx, visit.by, home, wanted, at)
    owners = await names_of(tx, visit, {key.owner_id} if key.owner_id else set())
    rules = await get_rules(tx, home)
    return {
        "key": key,
        "tail": tail_of(visit),
        "state": key.shown_status(at),
        "moves": moves_of(visit, key),
        "owner": owners.get(key.owner_id or ""),
        "powers": powers(key, capture_is_forbidden=rules.capture_is_forbidden),
        "is_expiring": key.expires_soon(at),
        "spent": (await list_spent(tx, [key], at))[key.id],
        "resets_at": key.budget.resets_at(at) if key.budget else None,
        "traffic": (await reports.list_traffic(tx, home, at, [key.id])).get(key.id, _NO_TRAFFIC),
        "by_model": by_model[:_MOST_MODELS],
        "total": sum(row.cost_nano for row in by_model),
        "secrets": await list_secrets(tx, key.id),
        "children": children.keys,
        "more_children": children.after is not None,
        "metadata": json.dumps(dict(key.metadata), indent=2, ensure_ascii=False) if key.metadata else "",
        "ttls": TTLS,
        "overlaps": OVERLAPS,
        "from_address": visit.address or "",
        **(await connect(visit, tx, key)),
    }
