"""What is done to an agent key at the admin API: rotated, stopped, let in again, and made the parent of others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from ostiary.actor import Actor
from ostiary.admin.agent_key_shapes import MadeKey, NewEphemeral, NewLoneEphemeral, Rotation, ShownKey, shown, wished
from ostiary.admin.agent_keys import described, spent
from ostiary.admin.shapes import Asking, Id
from ostiary.admin.visit import Visit
from ostiary.agents import agent_keys, ephemeral_keys
from ostiary.agents.agent_keys import AgentKey
from ostiary.agents.ephemeral_keys import NewEphemeralKey
from ostiary.clock import SECOND_MS
from ostiary.db.database import Transaction
from ostiary.orgs.roles import judge_scopes

Move = Callable[[Transaction, Actor, str, str, int], Awaitable[AgentKey]]
_AT_ONCE: Final = Rotation()


async def rotate(asking: Asking, id: Id, asked: Rotation = _AT_ONCE) -> MadeKey:
    """Give a key a new secret; the old one dies at once, or after an overlap of up to 7 days."""
    tx = await asking.begin()
    key, secret = await agent_keys.rotate(
        tx,
        asking.by,
        asking.organization_id,
        id,
        pepper=asking.office.seal.pepper,
        at=asking.at,
        overlap_ms=asked.overlap_s * SECOND_MS,
        grant=judge_scopes,
    )
    return MadeKey(**shown(key, await spent(tx, key, asking.at), asking.at), secret=secret.reveal())


async def deactivate(asking: Asking, id: Id) -> ShownKey:
    """Stop a key until it is activated again."""
    return await _move(asking, agent_keys.deactivate, id)


async def activate(asking: Asking, id: Id) -> ShownKey:
    """Let an inactive or revoked key in again."""
    tx = await asking.begin()
    key = await agent_keys.activate(tx, asking.by, asking.organization_id, id, asking.at, grant=judge_scopes)
    return await described(tx, key, asking.at)


async def revoke(asking: Asking, id: Id) -> ShownKey:
    """Stop a key, and its children with it, because it should never be used again."""
    return await _move(asking, agent_keys.revoke, id)


async def ephemeral(asking: Asking, id: Id, asked: NewEphemeral) -> MadeKey:
    """Make a short-lived child of a key: no power the parent has not, and spent from its budget too."""
    return await _make(asking, id, asked, None)


async def lone_ephemeral(asking: Asking, asked: NewLoneEphemeral) -> MadeKey:
    """Make a short-lived key without a parent, with limits of its own."""
    return await _make(asking, None, asked, asked.owner_id)


async def _make(asking: Visit, parent_id: str | None, asked: NewEphemeral, owner_id: str | None) -> MadeKey:
    tx = await asking.begin()
    apart = {"name", "ttl_s", "owner_id"}
    fields = {name: value for name, value in wished(asked).items() if name not in apart}
    wish = NewEphemeralKey(name=asked.name, ttl_s=asked.ttl_s, owner_id=owner_id, fields=fields)
    key, secret = await ephemeral_keys.create(
        tx,
        asking.by,
        asking.organization_id,
        parent_id,
        wish,
        pepper=asking.office.seal.pepper,
        at=asking.at,
        catalog=asking.office.catalog,
    )
    return MadeKey(**shown(key, 0, asking.at), secret=secret.reveal())


async def _move(asking: Visit, move: Move, id: str) -> ShownKey:
    tx = await asking.begin()
    return await described(tx, await move(tx, asking.by, asking.organization_id, id, asking.at), asking.at)
