"""What is done to an agent key by a button: rotated, stopped, let in again, made a parent, deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from ostiary.actor import Actor
from ostiary.agents import agent_keys, ephemeral_keys
from ostiary.agents.agent_keys import AgentKey
from ostiary.agents.ephemeral_keys import NewEphemeralKey
from ostiary.clock import SECOND_MS
from ostiary.dashboard import agent_key_fields as fields
from ostiary.dashboard.agent_key_connect import connect
from ostiary.dashboard.agent_key_detail import OVERLAPS, TTLS
from ostiary.dashboard.agent_keys import back, tail_of
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Form, Wrong
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.orgs.roles import judge_scopes

Move = Callable[[Transaction, Actor, str, str, int], Awaitable[AgentKey]]
_UNFIT: Final = 422


async def rotate(visit: Visit) -> Answer:
    """Give the key a new secret, shown this once; the old one dies at once, or after an overlap."""
    try:
        overlap_ms = (visit.form.number("overlap", at_least=0) or 0) * SECOND_MS
        async with visit.writing() as tx:
            key, secret = await agent_keys.rotate(
                tx,
                visit.by,
                visit.home,
                visit.names["id"],
                pepper=visit.hall.seal.pepper,
                at=visit.at,
                overlap_ms=overlap_ms,
                grant=judge_scopes,
            )
            shown = await connect(visit, tx, key, secret)
    except Refusal as refusal:
        return await _again(visit, "agent_keys/rotate.html", visit.refused(refusal))
    return visit.page("agent_keys/reveal.html", key=key, secret=secret.reveal(), tail=tail_of(visit), **shown)


async def ephemeral(visit: Visit) -> Answer:
    """Make a short-lived child of the key and show its secret this once."""
    try:
        wish = _child(visit.form)
        async with visit.writing() as tx:
            key, secret = await ephemeral_keys.create(
                tx, visit.by, visit.home, visit.names["id"], wish, pepper=visit.hall.seal.pepper, at=visit.at
            )
            shown = await connect(visit, tx, key, secret)
    except Refusal as refusal:
        return await _again(visit, "agent_keys/ephemeral.html", visit.refused(refusal))
    return visit.page("agent_keys/reveal.html", key=key, secret=secret.reveal(), tail=tail_of(visit), **shown)


async def deactivate(visit: Visit) -> Answer:
    """Stop it until it is activated again."""
    return await _move(visit, agent_keys.deactivate, "The key is inactive: no call with it is let in.")


async def activate(visit: Visit) -> Answer:
    """Let a stopped key in again."""
    async with visit.writing() as tx:
        key = await agent_keys.activate(tx, visit.by, visit.home, visit.names["id"], visit.at, grant=judge_scopes)
    return visit.go(back(visit, key.id), said="The key is active again.")


async def revoke(visit: Visit) -> Answer:
    """Stop it, and its children with it, because it should never be used again."""
    return await _move(visit, agent_keys.revoke, "The key is revoked.")


async def delete(visit: Visit) -> Answer:
    """Forget it; back to the list it was seen in."""
    async with visit.writing() as tx:
        key = await agent_keys.get(tx, visit.by, "agent_keys.delete", visit.home, visit.names["id"])
        await agent_keys.delete(tx, visit.by, visit.home, key.id, visit.at)
    return visit.go(back(visit), said="The key is deleted.")


def _child(form: Form) -> NewEphemeralKey:
    named: dict[str, object] = {}
    if form.text("budget"):
        named["budget"] = fields.budget(fields.Values(budget=form.text("budget"), budget_kind="total"))
    ttl_s = fields.count("ttl_s", form.text("ttl_s"))
    return NewEphemeralKey(name=form.text("name") or None, ttl_s=ttl_s, fields=named)


async def _again(visit: Visit, template: str, wrong: Wrong) -> Answer:
    """The dialog's form, with what is wrong in it."""
    async with visit.reading() as tx:
        key = await agent_keys.show(tx, visit.by, visit.home, visit.names["id"])
    return visit.page(template, _UNFIT, key=key, wrong=wrong, overlaps=OVERLAPS, ttls=TTLS)


async def _move(visit: Visit, move: Move, said: str) -> Answer:
    async with visit.writing() as tx:
        key = await move(tx, visit.by, visit.home, visit.names["id"], visit.at)
    return visit.go(back(visit, key.id), said=said)
