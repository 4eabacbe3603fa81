"""What comes in and whose it is, as records: agent keys, their secrets, client credentials, owners, rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ostiary.agents.policy import Choice, Policy, Status, parse_networks
from ostiary.clock import DAY_MS
from ostiary.limits.budgets import Budget

_SOON_MS: Final = 7 * DAY_MS


@dataclass(frozen=True, slots=True)
class AgentKey:
    """What a caller is known by: an identity with limits, which outlives the secrets that open it."""

    id: str
    organization_id: str
    owner_id: str | None
    name: str
    status: Status
    expires_at: int | None
    scopes: frozenset[str]
    rpm: int | None
    rpd: int | None
    models: Choice
    providers: Choice
    free_only: bool
    addresses: Choice
    metadata: Mapping[str, Any]
    budget: Budget | None
    previews: tuple[str, ...]
    """Of each secret, newest first: several while an old one is let live on after a rotation."""
    created_at: int
    updated_at: int
    last_used_at: int | None
    tpm: int | None = None
    parallel: int | None = None
    capture: bool = False
    is_ephemeral: bool = False
    parent_id: str | None = None
    parent: AgentKey | None = None
    """The key that `parent_id` names; whatever is read here comes with it."""

    @property
    def is_captured(self) -> bool:
        """Whether what is said is kept where the organization lets it: a child cannot hide what its parent shows."""
        return self.capture or (self.parent is not None and self.parent.capture)

    def policy(self) -> Policy:
        """What is asked about this key on the path of a call, with its networks read once."""
        networks = None if self.addresses.mode == "all" else parse_networks(sorted(self.addresses.items))
        return Policy(
            self.status,
            self.expires_at,
            self.scopes,
            self.models,
            self.providers,
            self.free_only,
            networks,
            within=self._within(),
        )

    def _within(self) -> Policy | None:
        if self.parent_id is None:
            return None
        return self.parent.policy() if self.parent is not None else _GONE

    def shown_status(self, now: int) -> str:
        """The status as people see it: an active key whose time is over is `expired`; a child stops with its parent."""
        if self.status != "active":
            return self.status
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        if self.parent_id is None:
            return "active"
        return self.parent.shown_status(now) if self.parent is not None else "revoked"

    def expires_soon(self, now: int) -> bool:
        """Whether somebody should see to it: it works now, will not in a week, and was not made to be short-lived."""
        if self.is_ephemeral or self.expires_at is None or self.shown_status(now) != "active":
            return False
        return self.expires_at - now <= _SOON_MS


_GONE: Final = Policy(status="revoked")
"""What a child stands within whose parent is no more."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose key it is. Who runs the instance has the role `operator` wherever they are a member."""

    id: str
    role: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What an organization says of all its keys."""

    revocation_is_final: bool
    max_lifetime_ms: int | None
    capture_is_forbidden: bool


@dataclass(frozen=True, slots=True)
class KeySecret:
    """One of the secrets that open an agent key; `expires_at` only while a rotation lets it live on."""

    digest: bytes
    agent_key_id: str
    preview: str
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class ClientCredential:
    """A triple client_id:api_key:api_secret that authenticates as the organization."""

    id: str
    organization_id: str
    name: str
    digest: bytes
    preview: str
    created_at: int
    revoked_at: int | None

    def policy(self) -> Policy:
        """What it may do: everything at the door, until it is revoked."""
        return Policy("active" if self.revoked_at is None else "revoked")
