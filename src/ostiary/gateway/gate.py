"""Everything the path of a call needs, in one record."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ostiary.agents.policy import Network
from ostiary.clock import Clock
from ostiary.db.database import Database
from ostiary.gateway.bounds import Bounds
from ostiary.gateway.directory import Directory
from ostiary.gateway.known_responses import KnownResponses
from ostiary.gateway.marks import Marks
from ostiary.gateway.open_calls import OpenCalls
from ostiary.gateway.watch import Watch
from ostiary.ledger.spool import Spool
from ostiary.ledger.writer import Writer
from ostiary.limits.local import LocalCounters
from ostiary.limits.reserve import Reserve
from ostiary.providers.dialect import Dialect
from ostiary.providers.transport import DEFAULT_WAITS, Transport, Waits


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may wait, in seconds: for its whole body, and for a provider."""

    body_s: float = 60
    provider: Waits = DEFAULT_WAITS


@dataclass(frozen=True, slots=True)
class Gate:
    """Built once by `app.py`; `database` is for the routes that report, never for the path of a call."""

    clock: Clock
    directory: Directory
    dialect: Dialect
    counters: LocalCounters
    reserve: Reserve
    spool: Spool
    transport: Transport
    writer: Writer
    marks: Marks
    database: Database
    public_catalog: bool
    trusted_proxies: tuple[Network, ...]
    uploads: Path
    """Where bodies lie that are too large for memory."""
    keeps_parents: bool = False
    """Whether what a caller's own tracing says is written down, for spans to hang on to."""
    patience: Patience = Patience()
    watch: Watch = field(default_factory=Watch)
    bounds: Bounds = field(default_factory=Bounds)
    books: OpenCalls = field(default_factory=OpenCalls)
    responses: KnownResponses = field(default_factory=KnownResponses)
