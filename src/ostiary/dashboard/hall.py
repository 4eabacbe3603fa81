"""Everything the pages need, in one record, and what they ask of a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ostiary.clock import Clock
from ostiary.dashboard.letters import Post
from ostiary.dashboard.oidc_provider import Oidc
from ostiary.db.database import Database
from ostiary.mail import Mailer
from ostiary.providers.catalog import Catalog
from ostiary.providers.egress import Egress
from ostiary.providers.transport import Transport
from ostiary.settings import Settings
from ostiary.vault.seal import Seal
from ostiary.vault.user_secrets import UserSecrets

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
"""How a machine calls itself: what is sent there does not leave it."""


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


@dataclass(frozen=True, slots=True)
class Hall:
    """Built once by `app.py`, which hands in what the other doors do: doors never call each other."""

    clock: Clock
    database: Database
    seal: Seal
    egress: Egress
    catalog: Catalog
    transport: Transport
    settings: Settings
    address_of: Callable[[Line], str | None]
    flush: Callable[[], Awaitable[None]]
    """Writes what this process has settled into the ledger, and which keys it has used, so that pages are whole."""
    hear: Callable[[], Awaitable[None]]
    """Has this process's gateway know of what was just written."""
    explain: Callable[[str, bytes, str | None, str], Awaitable[dict[str, Any]]]
    """What a call would do: the agent key's id, the body, the operation (None: by its shape), the caller's address."""
    mailer: Mailer | None = None
    """None where no mail server is set."""
    post: Post = field(default_factory=Post)
    """Letters that are on their way."""
    oidc: Oidc | None = None
    """None where people sign in by password alone."""
    body_s: float = 30
    """How long a form may take."""

    @property
    def is_https(self) -> bool:
        """Whether people reach this gateway by TLS, as far as it was told."""
        return (self.settings.public_url or "").startswith("https://")

    @property
    def base_url(self) -> str:
        """How links in letters begin. Never what a request says of itself: anybody can ask for a letter."""
        settings = self.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return settings.public_url or f"http://{host}:{settings.port}"

    @property
    def factors(self) -> UserSecrets:
        """What opens the secrets of second factors."""
        return UserSecrets(self.seal)
