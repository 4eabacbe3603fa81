"""From where a request came, behind proxies that are trusted and only those (pure)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from ostiary.agents.policy import Network

_MOST_HOPS = 32


def address_of(peer: str | None, lines: list[bytes], trusted: tuple[Network, ...]) -> str | None:
    """The address of the caller: the peer, or, where the peer is trusted, the first untrusted hop from the right.

    `lines` are the X-Forwarded-For headers. IPv4 in IPv6's clothes is written as IPv4. What a hop that is not an
    address says is not believed any further.
    """
    found = _read(peer)
    if found is None or not _is_within(found, trusted):
        return plain(peer)
    hops = b",".join(lines).decode("latin-1").split(",")[-_MOST_HOPS:] if lines else []
    for hop in reversed(hops):
        said = _read(_without_port(hop.strip()))
        if said is None:
            break
        found = said
        if not _is_within(said, trusted):
            break
    return str(found)


def _without_port(hop: str) -> str:
    """Some proxies add the port: `192.0.2.7:4711`, `[2001:db8::7]:4711`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def plain(peer: str | None) -> str | None:
    """Most peers are plain IPv4 and stay as they are."""
    if peer is None or ":" not in peer:
        return peer
    return str(_read(peer) or peer)


def _read(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_within(address: IPv4Address | IPv6Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)
