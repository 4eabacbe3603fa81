"""Everything the admin API needs, in one record, and what it asks of a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from ostiary.agents.policy import Policy
from ostiary.agents.store import AgentKey
from ostiary.clock import Clock
from ostiary.db.database import Database
from ostiary.providers.catalog import Catalog
from ostiary.providers.egress import Egress
from ostiary.providers.transport import Transport
from ostiary.settings import Settings
from ostiary.vault.seal import Seal


class Line(Protocol):
    """One request and its answer, as the server gives them; header names are in lower case."""

    method: str
    path: str
    query: bytes
    headers: dict[bytes, bytes]
    keep_alive: bool
    is_gone: bool
    is_started: bool
    request_id: str

    def all_of(self, name: bytes) -> list[bytes]:
        """Every value of a header, in the order they came."""
        ...

    async def read_body(self, wait_s: float) -> bytes:
        """The whole body, within the server's bounds."""
        ...

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """A whole answer with exactly these headers, and its length."""
        ...


class Known(Protocol):
    """Whoever a credential stands for, as the gateway knows them."""

    @property
    def organization_id(self) -> str:
        """Where the credential belongs."""
        ...

    @property
    def policy(self) -> Policy:
        """What it may do."""
        ...

    @property
    def key(self) -> AgentKey | None:
        """The agent key; None when the credential is none."""
        ...


@dataclass(frozen=True, slots=True)
class Office:
    """Built once by `app.py`, which hands in what the other door does: doors never call each other."""

    clock: Clock
    database: Database
    seal: Seal
    egress: Egress
    catalog: Catalog
    transport: Transport
    settings: Settings
    identify: Callable[[Line], Awaitable[Known]]
    """The caller behind the one credential of a request; refuses as /v1 does."""
    address_of: Callable[[Line], str | None]
    flush: Callable[[], Awaitable[None]]
    """Writes what this process has settled into the ledger, and which keys it has used, so that reports are whole."""
    hear: Callable[[], Awaitable[None]]
    """Has this process's gateway know of what was just written."""
    body_s: float = 60
    """How long a body may take."""
