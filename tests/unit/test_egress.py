"""Where we may connect: every spelling of a private place is refused, when it is entered and when it is resolved."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ostiary.errors import CannotStart
from ostiary.providers.egress import Blocked, Egress, is_public

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),  # noqa: S104 - refused
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "100.64.0.1", "192.0.0.192", "168.63.129.16"),
    *("198.18.0.1", "192.0.2.1", "203.0.113.9", "192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
    "255.255.255.255",
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
    *("100::1", "3fff::1", "5f00::1", "4000::1", "64:ff9b:1::7f00:1"),
]
"""Loopback, private, link-local, metadata services, documentation, and the rest of what is not everybody's."""

WRAPPED = [
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "::ffff:0:10.0.0.1",
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::100.100.100.200",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2002:a00:1::1",
    "2001:0:7f00:1::1",  # Teredo by a server on loopback
    "2001:0:808:808:0:0:80ff:fffe",  # Teredo to 127.0.0.1
]
"""IPv6 that leads to a private IPv4 address, or could."""

PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0"),
    *("2606:4700::1111", "2a00:1450:4001::200e", "::ffff:8.8.8.8", "64:ff9b::808:808"),
]


@pytest.mark.parametrize("address", PRIVATE + WRAPPED)
def test_an_address_that_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_that_is(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "0x7f.0.0.1", "2130706433", "１２７.0.0.1", "1.2.3.4.5", "1.2.3.4 "]
)
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)


# ---- URLs when they are entered ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [each for each in PRIVATE + WRAPPED if "%" not in each])
def test_a_url_of_a_private_address(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    for url in (f"https://{host}/v1", f"https://{host}:8443/v1", f"http://{host}/v1"):
        with pytest.raises(Blocked):
            Egress().check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        # other spellings of 127.0.0.1
        *(
            "https://2130706433/v1",
            "https://0x7f000001/",
            "https://0x7f.1/",
            "https://0x7f.0.0.1/",
            "https://0177.0.0.1/",
        ),
        *(
            "https://127.1/",
            "https://127.0.1/",
            "https://017700000001/",
            "https://127.0.0.01/",
            "https://0/",
            "https://0x/",
        ),
        *(
            "https://①②⑦.⓪.⓪.①/",
            "https://１２７.0.0.1/",
            "https://127。0。0。1/",
            "https://127.0.0.1./",
            "https://1.2.3.4./",
        ),
        *("https://[::ffff:127.0.0.1]/", "https://[0:0:0:0:0:0:0:1]/", "https://[::1%25lo]/", "https://[::1%lo]/"),
        *("https://[127.0.0.1]/", "https://::1/", "https://[::1/", "https://[v1.fe80::a]/", "https://999.1.1.1/"),
        # whose host is it?
        *("https://user@good.example/", "https://user:pass@good.example/", "https://good.example@127.0.0.1/"),
        *("https://good.example\\@127.0.0.1/", "https://127.0.0.1\\@good.example/", "https://good.example#@127.0.0.1/"),
        *("https://good.example/#x", "https://127.0.0.1#.good.example/", "https://good.example:443@127.0.0.1/"),
        *("https://good.example%2f@127.0.0.1/", "https://good.example%00.evil.example/", "https://good_%65xample/"),
        *("https:/good.example/", "https:good.example", "//good.example/", "good.example", "https://", "https:///v1"),
        *(
            "https://.good.example/",
            "https://good..example/",
            "https://good.example./",
            "https://-a.example/",
            "https://a-/",
        ),
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 127 + "example/",
        # what is it spoken with?
        *(
            "ftp://good.example/",
            "file:///etc/passwd",
            "gopher://good.example/",
            "unix:/var/run/docker.sock",
            "data:,x",
        ),
        *(
            "javascript:alert(1)",
            "http://good.example/",
            "HTTP://good.example/",
            "wss://good.example/",
            "$AWS_SECRET",
            "",
        ),
        # control characters, blanks, other scripts
        *(
            " https://good.example/",
            "https://good.example/ ",
            "https://good.example/\n",
            "https://good.example\r\nx: y/",
        ),
        *("https://good.example/\x00", "https://good.example\t/", "https://gооd.example/", "https://good.example/é"),
        "https://good.example/\x7f",
        # ports
        *(
            "https://good.example:0/",
            "https://good.example:65536/",
            "https://good.example:/",
            "https://good.example:-1/",
        ),
        *("https://good.example:0443/", "https://good.example:４４３/", "https://good.example:99999/"),
        # paths that can be read in two ways
        *(
            "https://good.example/../x",
            "https://good.example/v1/..",
            "https://good.example/./v1",
            "https://good.example//v1",
        ),
        *(
            "https://good.example/%2e%2e/x",
            "https://good.example/a%2fb",
            "https://good.example/a%5cb",
            "https://a.b/%0a",
        ),
        *(
            "https://good.example/%00",
            "https://good.example/%zz",
            "https://good.example/%",
            "https://good.example/a\\b",
        ),
        "https://good.example/" + "a" * 3_000,
        # names that never leave the machine or the house
        *(
            "https://localhost/",
            "https://LOCALHOST/",
            "https://a.localhost/",
            "https://printer.local/",
            "https://db.internal/",
        ),
        "https://metadata.google.internal/",
    ],
)
def test_a_url_that_is_not_taken(url: str) -> None:
    with pytest.raises(Blocked):
        Egress().check_url(url)


@pytest.mark.parametrize(
    ("url", "origin", "host", "port", "as_called"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com", "api.openai.com", 443, "https://api.openai.com/v1"),
        (
            "HTTPS://API.OpenAI.com:443/v1/",
            "https://api.openai.com",
            "api.openai.com",
            443,
            "https://api.openai.com/v1/",
        ),
        ("https://a.example:8443", "https://a.example:8443", "a.example", 8443, "https://a.example:8443"),
        ("https://8.8.8.8/v1", "https://8.8.8.8", "8.8.8.8", 443, "https://8.8.8.8/v1"),
        (
            "https://[2606:4700:0::1111]:8443/v1",
            "https://[2606:4700::1111]:8443",
            "2606:4700::1111",
            8443,
            "https://[2606:4700::1111]:8443/v1",
        ),
        (
            "https://xn--bcher-kva.example/a@b/%41?x=1&y=/..",
            "https://xn--bcher-kva.example",
            "xn--bcher-kva.example",
            443,
            "https://xn--bcher-kva.example/a@b/%41?x=1&y=/..",
        ),
    ],
)
def test_a_url_taken_apart(url: str, origin: str, host: str, port: int, as_called: str) -> None:
    target = Egress().check_url(url)
    assert (target.origin, target.host, target.port, target.url) == (origin, host, port, as_called)
    assert target.origin.startswith(target.scheme)


# ---- the operator's exceptions ----------------------------------------------------------------------------------


def test_a_listed_origin_may_be_private_and_plain() -> None:
    egress = Egress(["http://127.0.0.1:9000", "http://ollama:11434/", "https://[::1]:8443", " http://localhost:8080 "])
    for url in (
        "http://127.0.0.1:9000/v1",
        "http://ollama:11434/v1",
        "https://[::1]:8443/v1",
        "http://LOCALHOST:8080/v1",
    ):
        assert egress.check_url(url).origin in url.lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9001/v1",
        "http://127.0.0.1/v1",
        "http://127.0.0.2:9000/v1",
        "https://127.0.0.1/v1",
        "http://[::ffff:127.0.0.1]:9000/v1",
        "http://localhost:9000/v1",
        "http://user@127.0.0.1:9000/v1",
        "http://api.openai.com/v1",
        "http://127.0.0.1:90000/v1",
    ],
)
def test_listing_one_origin_lists_no_other(url: str) -> None:
    with pytest.raises(Blocked):
        Egress(["http://127.0.0.1:9000"]).check_url(url)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:9000",
        "http://",
        "http://127.0.0.1:9000/v1",
        "http://0x7f.1:9000",
        "*",
        "http://*.corp",
        "http://a b",
        "",
    ],
)
def test_a_listing_that_is_no_origin_stops_the_start(text: str) -> None:
    with pytest.raises(CannotStart, match="OSTIARY_EGRESS_ALLOW"):
        Egress([text])


# ---- names when they are resolved -------------------------------------------------------------------------------


def answering(*addresses: str) -> Egress:
    async def lookup(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return Egress(["http://listed.example:9000"], lookup)


async def test_public_addresses_are_given_as_they_came() -> None:
    assert await answering("8.8.8.8", "2606:4700::1111").resolve("good.example", 443) == ("8.8.8.8", "2606:4700::1111")


@pytest.mark.parametrize("address", PRIVATE + WRAPPED)
async def test_one_private_address_blocks_the_name(address: str) -> None:
    for addresses in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
        with pytest.raises(Blocked) as caught:
            await answering(*addresses).resolve("evil.example", 443)
        assert address not in caught.value.reason, "who enters a name does not learn where it leads in our network"


async def test_a_listed_name_may_lead_anywhere() -> None:
    egress = answering("10.0.0.5")
    assert await egress.resolve("listed.example", 9000) == ("10.0.0.5",)
    for host, port in (("listed.example", 443), ("other.example", 9000)):
        with pytest.raises(Blocked):
            await egress.resolve(host, port)


async def test_a_socket_opens_only_to_what_was_led_to() -> None:
    egress = answering("10.0.0.5")
    egress.check_socket("8.8.8.8", 443)
    with pytest.raises(Blocked):
        egress.check_socket("10.0.0.5", 9000)
    await egress.resolve("listed.example", 9000)
    egress.check_socket("10.0.0.5", 9000)
    for address, port in (("10.0.0.5", 9001), ("10.0.0.6", 9000), ("::ffff:10.0.0.5", 9000)):
        with pytest.raises(Blocked):
            egress.check_socket(address, port)
    Egress(["http://127.0.0.1:9000"]).check_socket("127.0.0.1", 9000)
