"""The playground: a conversation from the browser itself through /v1, and what each call of it was and cost."""

from __future__ import annotations

from typing import Final

import msgspec

from ostiary.agents import agent_keys, ephemeral_keys
from ostiary.agents.ephemeral_keys import NewEphemeralKey
from ostiary.agents.pages_store import Wanted
from ostiary.agents.records import AgentKey
from ostiary.agents.store import find_agent_key_by_id
from ostiary.clock import SECOND_MS
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import reports
from ostiary.ledger.reports import Trace
from ostiary.vault import endpoint_store

_TTL_S: Final = 300
_MOST_KEYS: Final = 100
_MOST_LOOKS: Final = 6
"""How often a page asks for a trace that is not written yet, with a second in between."""


async def show(visit: Visit) -> Answer:
    """The conversation, with the keys that one may use; `key` and `model` in the query choose what it begins with."""
    async with visit.reading() as tx:
        found: dict[str, AgentKey] = {}
        has_more = False
        for owner_id in (visit.by.id, None):  # one's own first
            wanted = Wanted(status="active", owner_id=owner_id, sort="name", limit=_MOST_KEYS)
            page = await agent_keys.list_page(tx, visit.by, visit.home, wanted, visit.at)
            found |= {key.id: key for key in page.keys if _is_usable(visit, key) and key.id not in found}
            has_more |= page.after is not None and visit.may("agent_keys.ephemeral", owner_id)
        chosen = visit.query.text("key")
        if chosen and chosen not in found:
            key = await _find(visit, tx, chosen)
            found |= {key.id: key} if key is not None else {}
        keyed = await endpoint_store.list_keyed_providers(tx, visit.home)
    return visit.page(
        "playground/show.html",
        keys=[*found.values()],
        chosen=chosen if chosen in found else next(iter(found), ""),
        model=visit.query.text("model"),
        has_provider_keys=bool(keyed),
        has_more=has_more,
    )


async def mint(visit: Visit) -> Answer:
    """A child of an agent key that lives for five minutes; its secret goes to the script that asked, nowhere else."""
    id = visit.form.text("key")
    try:
        async with visit.writing() as tx:
            parent = await agent_keys.get(tx, visit.by, "agent_keys.ephemeral", visit.home, id)
            left = _TTL_S if parent.expires_at is None else (parent.expires_at - visit.at) // SECOND_MS
            wish = NewEphemeralKey(ttl_s=max(min(_TTL_S, left), ephemeral_keys.SHORTEST_TTL_S))
            pepper = visit.hall.seal.pepper
            child, secret = await ephemeral_keys.create(
                tx, visit.by, visit.home, parent.id, wish, pepper=pepper, at=visit.at
            )
    except Refusal as refusal:
        visit.refused(refusal)
        return _json({"error": refusal.message}, refusal.status)
    expires_at = child.expires_at or visit.at
    # How long, not until when: the browser's clock is another.
    return _json({"secret": secret.reveal(), "lasts_ms": expires_at - visit.at})


async def call(visit: Visit) -> Answer:
    """What one call was and cost, as the ledger has it; asks again by itself while it is not written."""
    request_id = visit.names["id"]
    looks = visit.query.number("look") or 1
    await visit.hall.flush()
    async with visit.reading() as tx:
        attempts = await _attempts(visit, tx, request_id)
    return visit.page(
        "playground/call.html",
        attempts=attempts,
        request_id=request_id,
        cost_nano=sum(one.cost_nano for one in attempts),
        has_price=any(one.price_version is not None for one in attempts),
        last=attempts[-1] if attempts else None,
        next_look=looks + 1 if not attempts and looks < _MOST_LOOKS else None,
    )


def _is_usable(visit: Visit, key: AgentKey) -> bool:
    return (
        not key.is_ephemeral
        and key.shown_status(visit.at) == "active"
        and visit.may("agent_keys.ephemeral", key.owner_id)
    )


async def _find(visit: Visit, tx: Transaction, id: str) -> AgentKey | None:
    try:
        key = await agent_keys.show(tx, visit.by, visit.home, id)
    except Refusal:
        return None
    return key if _is_usable(visit, key) else None


async def _attempts(visit: Visit, tx: Transaction, request_id: str) -> list[Trace]:
    """All that the visitor may see of one call: a pasted key may be anybody's, and is then as if it were elsewhere."""
    try:
        found = await reports.get_call(tx, visit.home, request_id)
    except Refusal:
        return []
    key_id = found[0].agent_key_id
    key = None if key_id is None else await find_agent_key_by_id(tx, key_id)
    return found if visit.may("traces.show", key.owner_id if key is not None else None) else []


def _json(value: dict[str, object], status: int = 200) -> Answer:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    return Answer(status, msgspec.json.encode(value), headers)
