"""Agent keys packed into bytes: a gateway keeps a hundred thousand of them, of which few call at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, select

from ostiary.agents.records import AgentKey
from ostiary.agents.store import agent_key_of, select_agent_keys
from ostiary.db import schema
from ostiary.db.database import Transaction

_AT_ONCE: Final = 2_000
_CAPTURE: Final = schema.agent_keys.c.keys().index("capture")

_Secret = tuple[bytes, str, int | None]
"""Digest, preview, and when it ends."""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[list[Any], list[_Secret]]).decode
_skim: Final = msgspec.msgpack.Decoder(tuple[msgspec.Raw, list[_Secret]]).decode


@dataclass(frozen=True, slots=True)
class PackedKey:
    """A key with its secrets: `packed` has a tenth of the size of its record."""

    id: str
    organization_id: str
    capture: bool
    ends: Mapping[bytes, int | None]
    """Digests of what opens it, with the time when each ends that does."""
    packed: bytes


def unpack(packed: bytes) -> AgentKey:
    """The key, without its parent."""
    row, secrets = _decode(packed)
    return agent_key_of(row, {row[0]: [preview for _, preview, _ in secrets]})


def digests_of(packed: bytes) -> list[bytes]:
    """What opens it."""
    return [digest for digest, _, _ in _skim(packed)[1]]


async def find_packed(tx: Transaction, id: str) -> PackedKey | None:
    """Anybody's, for a gateway that heard of a change."""
    k, s = schema.agent_keys.c, schema.agent_key_secrets.c
    found = await _list(tx, k.id == id, s.agent_key_id == id)
    return found[0] if found else None


async def list_packed(tx: Transaction) -> AsyncIterator[PackedKey]:
    """Everybody's, for a gateway that starts; some thousands at a time are all that it has in memory unpacked."""
    k, s = schema.agent_keys.c, schema.agent_key_secrets.c
    last = ""
    while True:
        ids = (await tx.scalars(select(k.id).where(k.id > last).order_by(k.id).limit(_AT_ONCE))).all()
        if not ids:
            return
        for key in await _list(tx, k.id.between(ids[0], ids[-1]), s.agent_key_id.between(ids[0], ids[-1])):
            yield key
        last = ids[-1]


async def _list(tx: Transaction, which: ColumnElement[bool], whose: ColumnElement[bool]) -> list[PackedKey]:
    s = schema.agent_key_secrets.c
    secrets = select(s.agent_key_id, s.digest, s.preview, s.expires_at).where(whose)
    rows = await tx.execute(secrets.order_by(s.agent_key_id, s.created_at.desc(), s.expires_at.is_not(None)))
    by_key: defaultdict[str, list[_Secret]] = defaultdict(list)
    for id, *secret in rows:
        by_key[id].append(tuple(secret))
    return [_packed(tuple(row), by_key.get(row[0], ())) for row in await tx.execute(select_agent_keys().where(which))]


def _packed(row: tuple[Any, ...], secrets: Sequence[_Secret]) -> PackedKey:
    ends = {digest: ends_at for digest, _, ends_at in secrets}
    return PackedKey(row[0], row[1], bool(row[_CAPTURE]), ends, _encode((row, secrets)))
