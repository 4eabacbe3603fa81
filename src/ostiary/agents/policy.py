"""What a key may do: restrictions as values, judged without I/O (pure)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

from ostiary.errors import Refusal

Mode = Literal["all", "only", "none"]
Status = Literal["active", "inactive", "revoked"]
Network = IPv4Network | IPv6Network

SCOPES: Final = frozenset({"gate:chat", "gate:models", "gate:usage"})
"""What a key may be used for; all three unless asked for otherwise."""

_MAPPED_BITS: Final = 96
"""::ffff:0:0/96 is IPv4 in IPv6's clothes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """All, only these, or none: the mode is said, never guessed from an empty list."""

    mode: Mode = "all"
    items: frozenset[str] = frozenset()

    def admits(self, names: Collection[str]) -> bool:
        """Whether any of the names that one thing goes by is chosen."""
        return self.mode == "all" or (self.mode == "only" and not self.items.isdisjoint(names))


ALL: Final = Choice()


def choice_of(items: Iterable[str]) -> Choice:
    """The shorthand of forms and command lines, where naming nothing means all."""
    chosen = frozenset(items)
    return Choice("only", chosen) if chosen else ALL


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that is asked about a key on the path of a call. `networks` of None is any address.

    `within` is the parent's, for an ephemeral key: whatever is asked is asked of both, so that a child never reaches
    further than its parent does at this moment.
    """

    status: Status = "active"
    expires_at: int | None = None
    scopes: frozenset[str] = SCOPES
    models: Choice = ALL
    providers: Choice = ALL
    free_only: bool = False
    networks: tuple[Network, ...] | None = None
    within: Policy | None = None

    @property
    def line(self) -> tuple[Policy, ...]:
        """The policy itself and those it stands within."""
        return (self,) if self.within is None else (self, *self.within.line)

    @property
    def powers(self) -> frozenset[str]:
        """The scopes it may be used for now."""
        return self.scopes if self.within is None else self.scopes & self.within.powers

    @property
    def is_free_only(self) -> bool:
        """Whether only models that cost nothing will do."""
        return self.free_only or (self.within is not None and self.within.is_free_only)

    @property
    def limits_models(self) -> bool:
        """Whether there is any model it may not ask for."""
        return self.models.mode != "all" or self.is_free_only or (self.within is not None and self.within.limits_models)


# What is asked, in this order, whoever asks it: status, expiry, address, scope – then, with a body, model, provider,
# free. How often and for how much comes after all of it (`limits/`), because only that consumes anything.


def judge_caller(policy: Policy, *, now: int, scope: str, address: str | None) -> Refusal | None:
    """Whether the key may come in at all, at this time, from there, for that.

    Status and expiry come first and look like a key nobody knows: whoever holds a dead key learns nothing else. So
    does whoever holds the child of one.
    """
    line = policy.line
    for one in line:
        if one.status != "active" or (one.expires_at is not None and one.expires_at <= now):
            return Refusal("invalid_api_key")
    for one in line:
        if one.networks is not None and not _is_within(one.networks, address):
            return Refusal("ip_not_allowed")
    for one in line:
        if scope not in one.scopes:
            return Refusal("insufficient_scope", f"This key lacks the scope {scope}.", scope=scope)
    return None


def judge_model(policy: Policy, names: Collection[str]) -> Refusal | None:
    """Whether the key may ask for a model, by any of its names: as asked, `provider/model`, bare.

    A name is compared letter by letter: one that only looks the same, or has blanks around it, is another.
    """
    for one in policy.line:
        if not one.models.admits(names):
            return Refusal("model_not_allowed", param="model")
    return None


def judge_target(policy: Policy, provider_id: str, *, free: bool) -> Refusal | None:
    """Whether the key may be served by this provider, with a model that is free or not."""
    line = policy.line
    for one in line:
        if not one.providers.admits((provider_id,)):
            return Refusal("provider_not_allowed", f"This key may not use the provider {provider_id}.")
    for one in line:
        if one.free_only and not free:
            return Refusal("model_not_allowed", "This key may use free models only.", param="model")
    return None


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and CIDR ranges, v4 and v6, as networks; raises ValueError that names the one it cannot read."""
    return tuple(_parse_network(text) for text in texts)


def _parse_network(text: str) -> Network:
    try:
        network = ip_network(text if "%" not in text else "", strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address or range such as 192.0.2.7 or 2001:db8::/32") from None
    if "/" in text and ip_address(text.partition("/")[0]) != network.network_address:
        raise ValueError(f"{text!r} names one address and a range; write {network} for the range")
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


@lru_cache(maxsize=4_096)
def _is_within(networks: tuple[Network, ...], address: str | None) -> bool:
    """Remembered, because the same caller comes from the same place all day."""
    try:
        found = _unmapped(ip_address(address or ""))
    except ValueError:
        return False
    return any(found in network for network in networks)


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
