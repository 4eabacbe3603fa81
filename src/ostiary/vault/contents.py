"""What was asked and answered where that is captured: sealed on the path of a call, opened for who may look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from ostiary.actor import Actor
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ledger import audit
from ostiary.ledger import store as ledger
from ostiary.logs import redact
from ostiary.vault.seal import Place, Seal, Undecryptable, record_key

_MOST: Final = 65_536
"""Characters that are kept of a request, and of an answer."""


@dataclass(frozen=True, slots=True)
class Said:
    """One attempt's request and answer, redacted; None where it can no longer be opened."""

    request_id: str
    attempt: int
    at: int
    request: str | None
    answer: str | None


class _Text(msgspec.Struct):
    request: str
    answer: str


class Sealer:
    """Seals contents of one organization without asking the database: its data key is held while the gateway runs."""

    __slots__ = ("__data_key", "_organization_id", "version")

    def __init__(self, organization_id: str, version: int, data_key: bytes) -> None:
        self._organization_id = organization_id
        self.version = version
        self.__data_key = data_key

    def seal(self, request_id: str, attempt: int, request: bytes, answer: bytes) -> str:
        """Redact, cut and seal."""
        text = msgspec.json.encode(_Text(_cut(request), _cut(answer)))
        place = place_of(self._organization_id, request_id, attempt, self.version)
        return record_key(self.__data_key, place).encrypt(text).decode()


async def sealer_for(tx: Transaction, seal: Seal, organization_id: str, at: int) -> Sealer:
    """A sealer with the organization's newest data key, which is made if there is none."""
    version = await seal.newest_version(tx, organization_id, at)
    return Sealer(organization_id, version, await seal.data_key(tx, organization_id, version))


async def show(
    tx: Transaction, by: Actor, seal: Seal, organization_id: str, request_id: str, *, owner_id: str | None, at: int
) -> list[Said]:
    """What one call said, attempt by attempt. Looking is a deed of its own, and is written down."""
    by.require("traces.content", organization_id, owner_id)
    kept = await ledger.list_contents(tx, organization_id, request_id)
    if not kept:
        raise Refusal("not_found", "Nothing was kept of this call: content is captured only for keys that say so.")
    said = []
    for one in kept:
        place = place_of(organization_id, request_id, one.attempt, one.sealed_version)
        try:
            text = msgspec.json.decode((await seal.open(tx, place, one.sealed)).reveal(), type=_Text)
        except Undecryptable:
            said.append(Said(request_id, one.attempt, one.at, None, None))
        else:
            said.append(Said(request_id, one.attempt, one.at, text.request, text.answer))
    await audit.write(tx, by, "traces.content", "trace", request_id, request_id, organization_id=organization_id, at=at)
    return said


def place_of(organization_id: str, request_id: str, attempt: int, version: int) -> Place:
    """Where a content lives; moved to another call it does not open."""
    return Place(organization_id, "contents", f"{request_id}#{attempt}", "content", version, "")


def _cut(data: bytes) -> str:
    """Redacted before the last cut, which could leave half a secret that looks like none."""
    return redact(data[: 4 * _MOST].decode("utf-8", "replace"))[:_MOST]
