"""Where we may connect: judges URLs when they are entered, and addresses when a socket is opened."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from ostiary.errors import CannotStart

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""Asks the DNS: the addresses of a host. Raises OSError when there are none."""

_LONGEST_URL: Final = 2_048
_LONGEST_HOST: Final = 253
_PORTS: Final = {"http": 80, "https": 443}
_TOP_PORT: Final = 65_535
_MOST_LED: Final = 1_000

_URL: Final = re.compile(
    r"(?P<scheme>(?i:https?))://"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?)"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?"
    r"(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)
"""The whole of a URL we take: no user, no fragment, no backslash, nothing outside ASCII."""
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label like this makes `getaddrinfo` read the host as an IPv4 address in one of its old spellings."""
_PATH_TRICK: Final = re.compile(r"//|/\.{1,2}(?:/|$)|%(?![0-9a-f]{2})|%(?:0|1|2e|2f|5c|7f)", re.IGNORECASE)
_LOCAL_NAME: Final = re.compile(r"(?:.*\.)?(?:localhost|local|internal|home\.arpa)")

_GLOBAL_V6: Final = IPv6Network("2000::/3")
"""All that is given out to the public so far; `is_global` also passes multicast, fec0::/10 and ::127.0.0.1."""
_REFUSED: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # shared; 100.100.100.200 is Alibaba's metadata service
        "168.63.129.16/32",  # Azure's platform address: public by its number, reachable only from inside
        "192.0.0.0/24",  # 192.0.0.192 is Oracle's metadata service
        "192.88.99.0/24",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
    )
)
"""Beyond what Python's `is_global` says, which passes some of these in some versions."""
_WRAPPINGS: Final[tuple[tuple[IPv6Network, Callable[[int], tuple[int, ...]]], ...]] = (
    (IPv6Network("::ffff:0:0/96"), lambda bits: (bits,)),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), lambda bits: (bits,)),  # translated
    (IPv6Network("64:ff9b::/96"), lambda bits: (bits,)),  # NAT64
    (IPv6Network("2002::/16"), lambda bits: (bits >> 80,)),  # 6to4
    (IPv6Network("2001::/32"), lambda bits: (bits >> 64, ~bits)),  # Teredo: its server, its client
)
"""IPv6 addresses that lead to IPv4 ones, and where the latter stand in them."""
_LOW_32: Final = 0xFFFF_FFFF


class Blocked(Exception):  # noqa: N818 - an answer to whoever entered the URL, not an error of ours
    """We do not connect there; `reason` says why, in words for a person."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be called. `origin` is `scheme://host[:port]`, in lower case and without a default port."""

    url: str
    origin: str
    scheme: str
    host: str
    port: int


class Egress:
    """The rule and the operator's exceptions to it: origins that may be private or plain http."""

    def __init__(self, allow: Iterable[str] = (), lookup: Lookup | None = None) -> None:
        """`allow` are origins such as `http://127.0.0.1:9000`; CannotStart names one that is not."""
        targets = [_allowed(text) for text in allow]
        self._origins = frozenset(target.origin for target in targets)
        self._places = frozenset((target.host, target.port) for target in targets)
        self._led = {*self._places}
        self._lookup = lookup or _ask_system

    def check_url(self, url: str) -> Target:
        """The URL taken apart, or Blocked. Names are judged again when they are resolved."""
        target = _parse(url)
        if target.origin not in self._origins and target.scheme != "https":
            raise Blocked(f"{target.origin} is not https, and not listed in OSTIARY_EGRESS_ALLOW.")
        if (target.host, target.port) in self._places:
            return target
        if _LOCAL_NAME.fullmatch(target.host) or (_is_literal(target.host) and not is_public(target.host)):
            raise Blocked(f"{target.origin} is not public, and not listed in OSTIARY_EGRESS_ALLOW.")
        return target

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """The addresses to connect to, asked for once. Blocked when any is not public; OSError when there are none.

        One private address among public ones is how a hostile name server gets in, so nothing is picked out.
        """
        addresses = await self._lookup(host, port)
        if (host, port) in self._places:
            if len(self._led) > _MOST_LED:
                self._led = {*self._places}
            self._led.update((address, port) for address in addresses)
        elif not all(map(is_public, addresses)):
            raise Blocked(f"{host} leads to an address that is not public, and is not listed in OSTIARY_EGRESS_ALLOW.")
        return addresses

    def check_socket(self, address: str, port: int) -> None:
        """The last look, at the very address of a socket: Blocked unless public or led to by a listed name."""
        if (address, port) not in self._led and not is_public(address):
            raise Blocked("The address is not public.")


def is_public(address: str) -> bool:
    """Whether an address is one anybody on the internet can reach, by itself and by the IPv4 it leads to."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv4Address):
        return _is_public(ip)
    for network, unwrap in _WRAPPINGS:
        if ip in network:
            return all(_is_public(IPv4Address(bits & _LOW_32)) for bits in unwrap(int(ip)))
    return ip in _GLOBAL_V6 and _is_public(ip)


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    return ip.is_global and not any(
        ip in network for network in _REFUSED if isinstance(network, IPv4Network) == isinstance(ip, IPv4Address)
    )


def _parse(url: str) -> Target:
    match = _URL.fullmatch(url) if len(url) <= _LONGEST_URL else None
    if match is None:
        raise Blocked("This is not a plain http(s) URL: no user, fragment, blanks or characters beyond ASCII.")
    if _PATH_TRICK.search(match["path"] or ""):
        raise Blocked("The path of the URL has empty, dotted or escaped parts that can be read in two ways.")
    scheme, host = match["scheme"].lower(), _host(match["host"].lower())
    port = int(match["port"] or _PORTS[scheme])
    if port > _TOP_PORT:
        raise Blocked("The URL has no such port.")
    shown = f"[{host}]" if ":" in host else host
    origin = f"{scheme}://{shown}" if port == _PORTS[scheme] else f"{scheme}://{shown}:{port}"
    return Target(origin + url[match.end("port") if match["port"] else match.end("host") :], origin, scheme, host, port)


def _host(text: str) -> str:
    """A host name or a canonical address, without brackets."""
    try:
        if text.startswith("["):
            return IPv6Address(text[1:-1]).compressed
        if _NUMBER.fullmatch(text.rpartition(".")[2]):
            return str(IPv4Address(text))
    except ValueError as error:
        raise Blocked("The URL's host is an address in a spelling that is not the usual one.") from error
    if len(text) > _LONGEST_HOST or not all(map(_LABEL.fullmatch, text.split("."))):
        raise Blocked("The URL's host is not a host name.")
    return text


def _is_literal(host: str) -> bool:
    return ":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _allowed(text: str) -> Target:
    try:
        target = _parse(text.strip())
    except Blocked as error:
        raise CannotStart(f"OSTIARY_EGRESS_ALLOW: {text!r} is not understood. {error.reason}") from error
    if target.url.rstrip("/") != target.origin:
        raise CannotStart(f"OSTIARY_EGRESS_ALLOW: {text!r} is more than an origin. Write {target.origin}.")
    return target


async def _ask_system(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))
