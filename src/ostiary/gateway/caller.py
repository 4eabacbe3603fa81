"""Who a credential stands for and what goes out for them, as the steps ask about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from ostiary.agents.policy import Policy
from ostiary.agents.store import AgentKey, ClientCredential
from ostiary.limits.budgets import Budget
from ostiary.limits.local import Allowance, Holder
from ostiary.orgs.store import Organization
from ostiary.providers.catalog import Provider

_HTTP: Final = 80
_HTTPS: Final = 443


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a credential stands for, with everything the path of a call asks about them."""

    organization_id: str
    policy: Policy
    allowance: Allowance
    key: AgentKey | None = None
    credential: ClientCredential | None = None
    secret_expires_at: int | None = None
    allow_unpriced: bool = False
    """Whether a hard budget lets models pass that nobody has a price for: the organization's choice."""
    warnings: tuple[tuple[str, str, Budget], ...] = ()
    """(scope, id, budget) of every soft limit the calls count in."""
    is_captured: bool = False
    """Whether what is said is kept: as the key says, or its parent, unless the organization forbids it."""

    @property
    def holder_id(self) -> str:
        """The id of the key or credential."""
        return self.key.id if self.key is not None else self.credential.id if self.credential is not None else ""


@dataclass(frozen=True, slots=True)
class OpenKey:
    """A provider key ready to be sent. `headers` carry the credential, so they are never printed.

    `secrets` is what must be taken out of whatever the provider says: the credential, its owner's identifiers.
    """

    id: str
    name: str
    organization_id: str
    provider: Provider
    base_url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    shared: bool
    priority: int = 0
    weight: int = 1
    is_filled: bool = False
    """Used until its quota is, before the next one: what is given for nothing goes first."""
    account: str = ""
    """Whose quota it draws on, with every other key of that account; empty where it is alone."""
    is_operators: bool = False
    """Added by who runs the instance: in the pool it comes before what others share."""
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What its provider's addresses are made with."""
    allowance: Allowance | None = None
    """Its own limits and spend cap, None where it has none."""


def caller_of(
    whole: Organization | None,
    organization_id: str,
    policy: Policy,
    *,
    key: AgentKey | None = None,
    client: ClientCredential | None = None,
) -> Caller:
    """Whoever calls must fit the limits of the key, of its parent and of the organization, all of them."""
    holders: list[Holder] = []
    budgets: list[tuple[str, str, Budget]] = []
    for one in (key, key.parent) if key is not None else ():
        if one is not None:
            holders.append(Holder("agent_key", one.id, one.rpm, one.rpd, one.tpm, one.parallel))
            budgets += [("agent_key", one.id, one.budget)] if one.budget else []
    if whole is not None:
        holders.append(Holder("organization", whole.id, whole.rpm, whole.rpd, whole.tpm, whole.parallel))
        budgets += [("organization", whole.id, whole.budget)] if whole.budget else []
    holder_id = key.id if key is not None else client.id if client is not None else ""
    return Caller(
        organization_id,
        policy,
        Allowance(holder_id, tuple(holders), tuple(budgets)),
        key,
        client,
        allow_unpriced=whole is not None and whole.allow_unpriced,
        warnings=tuple(one for one in budgets if one[2].soft_nano is not None),
        is_captured=key is not None and key.is_captured and not (whole is not None and whole.capture_is_forbidden),
    )


def address_in(key: OpenKey) -> tuple[str, int] | None:
    """The host and port that a provider key is sent to; none where its owner is told by the name."""
    parts = urlsplit(key.base_url)
    host = parts.hostname or ""
    if not host or any(value and value.lower() in host for value in key.fields.values()):
        return None
    return host, parts.port or (_HTTPS if parts.scheme == "https" else _HTTP)
