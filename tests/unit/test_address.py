"""Where a call comes from: the peer, or what trusted proxies say, walked from the right and no further."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ostiary.agents.policy import Network
from ostiary.gateway.address import address_of

PROXIES = (ip_network("10.0.0.0/8"), ip_network("2001:db8:aaaa::/48"))


def found(peer: str | None, *forwarded: str, trusted: tuple[Network, ...] = PROXIES) -> str | None:
    return address_of(peer, [line.encode("latin-1") for line in forwarded], trusted)


@pytest.mark.parametrize("peer", ["192.0.2.1", "10.0.0.1", "127.0.0.1", "2001:db8::1"])
def test_nobody_is_believed_unless_trusted(peer: str) -> None:
    assert found(peer, "203.0.113.9", trusted=()) == peer


@pytest.mark.parametrize("peer", ["192.0.2.1", "127.0.0.1", "2001:db8::1", "11.0.0.1"])
def test_who_is_not_a_trusted_proxy_speaks_for_itself_only(peer: str) -> None:
    assert found(peer, "203.0.113.9") == peer


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9, 10.2.2.2"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9", "10.2.2.2"], "203.0.113.9"),
        (["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        ([" 203.0.113.9 "], "203.0.113.9"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["2001:db8:aaaa::7, 2001:0DB8::0009"], "2001:db8::9"),
        (["2001:db8::9, 2001:db8:aaaa::7"], "2001:db8::9"),
        (["203.0.113.9:51000"], "203.0.113.9"),
        (["[2001:db8::9]:51000"], "2001:db8::9"),
        (["fe80::1%eth0"], "fe80::1"),
    ],
)
def test_a_trusted_proxy_is_believed_up_to_the_first_stranger_from_the_right(lines: list[str], address: str) -> None:
    assert found("10.0.0.1", *lines) == address


@pytest.mark.parametrize(
    "hop", ["unknown", "_hidden", "1.2.3", "0x7f.1", "203.0.113.9.", "<script>", "\xe9", "1.2.3.4:x:y"]
)
def test_what_is_not_an_address_ends_the_walk(hop: str) -> None:
    assert found("10.0.0.1", f"203.0.113.9, {hop}") == "10.0.0.1"
    assert found("10.0.0.1", f"203.0.113.9, {hop}, 10.2.2.2") == "10.2.2.2"


def test_a_forged_beginning_of_the_list_changes_nothing() -> None:
    forged = ", ".join(["198.51.100.66"] * 5_000)
    assert found("10.0.0.1", forged, "203.0.113.9") == "203.0.113.9"
    assert found("10.0.0.1", ", ".join(["10.9.9.9"] * 5_000)) == "10.9.9.9"


def test_ipv4_in_ipv6s_clothes_is_ipv4() -> None:
    assert found("::ffff:192.0.2.1", trusted=()) == "192.0.2.1"
    assert found("::ffff:10.0.0.1", "203.0.113.9") == "203.0.113.9"
    assert found("::ffff:192.0.2.1", "203.0.113.9") == "192.0.2.1"


def test_a_peer_without_an_address_has_none() -> None:
    assert found(None, "203.0.113.9", trusted=()) is None
    assert found(None, "203.0.113.9") is None
    assert found("unix", "203.0.113.9") == "unix"
