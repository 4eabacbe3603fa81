"""What a deed to an agent key leaves behind: an audit row, and word to every gateway."""

from __future__ import annotations

from collections.abc import Mapping

from ostiary.actor import Actor
from ostiary.agents import store
from ostiary.agents.policy import Choice
from ostiary.agents.records import AgentKey
from ostiary.db import changes
from ostiary.db.database import Transaction
from ostiary.ledger import audit
from ostiary.limits.wishes import budget_facts

_PLAIN = (
    "name",
    "owner_id",
    "status",
    "expires_at",
    "scopes",
    "rpm",
    "rpd",
    "tpm",
    "parallel",
    "free_only",
    "capture",
    "is_ephemeral",
    "parent_id",
)


def facts(key: AgentKey) -> dict[str, object]:
    """What the audit log may know of a key. Of its metadata only the names: people put anything there."""
    known: dict[str, object] = {name: getattr(key, name) for name in _PLAIN}
    for name in ("models", "providers", "addresses"):
        choice: Choice = getattr(key, name)
        known[name] = {"mode": choice.mode, "items": choice.items}
    return {**known, "metadata": sorted(key.metadata), "budget": budget_facts(key.budget)}


async def tell(
    tx: Transaction,
    by: Actor,
    deed: str,
    key: AgentKey,
    at: int,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """Write the deed down and say that the key has changed; what its living children may do has changed with it."""
    await audit.write(
        tx,
        by,
        deed,
        "agent_key",
        key.id,
        key.name,
        organization_id=key.organization_id,
        before=before,
        after=after,
        at=at,
    )
    await changes.append(tx, "agent_key", key.organization_id, key.id, at)
    if not key.is_ephemeral:
        for id in await store.list_living_children(tx, key.id, at):
            await changes.append(tx, "agent_key", key.organization_id, id, at)
