"""A provider key that is shared with the pool serves everybody, and only its owner learns what it is called."""

from __future__ import annotations

import pytest

from tests.servers.gateway import Gateway
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

_MODEL = "openai-compatible/ok"
_NAMES = ("acme-emea-2026", "acme-apac-2026")
"""Names tell of their owner's business."""
_OWNER, _OTHER = "Home", "Elsewhere"


@pytest.fixture
def callers(gateway: Gateway, upstream: Upstream) -> dict[str, str]:
    """The secrets of two organizations' keys; the first owns the only provider key."""
    gateway.cli("orgs", "create", _OWNER)
    gateway.cli("orgs", "create", _OTHER)
    gateway.cli(
        "vault", "add", "openai-compatible", "--name", _NAMES[0], "--base-url", upstream.url, "--shared", "--no-test",
        "--secret-stdin", "--org", _OWNER, stdin=gateway.canaries.plant(),
    )  # fmt: skip
    return {place: gateway.create_key("a", "--org", place) for place in (_OWNER, _OTHER)}


def _ask(gateway: Gateway, callers: dict[str, str], calls: int) -> None:
    """One call of each, and so many of each are in the ledger."""
    for secret in callers.values():
        assert gateway.chat(secret, _MODEL).status_code == 200
    until(lambda: all(len(gateway.json("traces", "--org", place)) == calls for place in callers), "the ledger")


def _shown(gateway: Gateway, place: str) -> tuple[set[str], set[str]]:
    """The names of provider keys among single calls, and in the sums."""
    traces = gateway.json("traces", "--org", place)
    sums = gateway.json("usage", "--by", "provider-key", "--org", place)
    return {one["provider_key"] for one in traces}, {one["provider_key"] for one in sums}


def test_the_name_of_a_shared_provider_key_is_its_owners(gateway: Gateway, callers: dict[str, str]) -> None:
    _ask(gateway, callers, 1)
    assert _shown(gateway, _OTHER) == ({"(pool)"}, {"(pool)"})
    assert _shown(gateway, _OWNER) == ({_NAMES[0]}, {_NAMES[0]})
    gateway.cli("vault", "edit", _NAMES[0], "--name", _NAMES[1], "--no-test", "--org", _OWNER)
    gateway.create_key("heard", "--org", _OWNER)
    _ask(gateway, callers, 2)
    assert _shown(gateway, _OTHER) == ({"(pool)"}, {"(pool)"})
    assert _shown(gateway, _OWNER) == (set(_NAMES), {_NAMES[1]})
    request_id = gateway.json("traces", "--org", _OTHER)[0]["request_id"]
    said = [
        gateway.cli(*words, "--org", _OTHER).out
        for words in (
            ("traces",),
            ("traces", "show", request_id, "--json"),
            ("usage", "--by", "day,provider-key,model"),
            ("usage", "--by", "provider-key", "--csv"),
            ("vault", "list"),
        )
    ]
    assert not [(name, text) for name in _NAMES for text in said if name in text]
