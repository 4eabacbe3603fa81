"""The gateway that tests start is the real process: it serves, tells its time, dies and comes back."""

from __future__ import annotations

import httpx2
import pytest

from tests.servers.gateway import CommandError, Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.wire import TEXT

MODEL = "openai-compatible/ok"
DAY_S = 86_400


def ready(gateway: Gateway, upstream: Upstream) -> str:
    """A vault with one key, and an agent key."""
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    return gateway.create_key("first", "--expires", "30d")


def test_calls_reach_the_upstream_with_the_key_of_the_vault(gateway: Gateway, upstream: Upstream) -> None:
    sealed = gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    answer = gateway.chat(gateway.create_key("first"), MODEL)
    assert answer.json()["choices"][0]["message"]["content"] == TEXT
    assert upstream.calls[0].key == sealed
    assert len(gateway.traces()) == 1


def test_it_comes_back_after_sigkill_on_the_same_data(gateway: Gateway, upstream: Upstream) -> None:
    secret = ready(gateway, upstream)
    gateway.kill()
    with pytest.raises(httpx2.ConnectError):
        gateway.chat(secret, MODEL)
    gateway.start()
    assert gateway.chat(secret, MODEL).status_code == 200


def test_its_clock_is_moved_from_outside(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], clock=True)
    secret = ready(gateway, upstream)
    assert gateway.chat(secret, MODEL).status_code == 200
    gateway.shift(29 * DAY_S)
    assert gateway.chat(secret, MODEL).status_code == 200
    gateway.shift(31 * DAY_S)
    assert gateway.chat(secret, MODEL).json()["error"]["code"] == "invalid_api_key"


def test_two_gateways_share_a_postgres(gateways: GatewayMaker, upstream: Upstream, postgres_url: str) -> None:
    env = {"OSTIARY_DATABASE_URL": postgres_url, "OSTIARY_MASTER_KEY": "A" * 43 + "="}
    one, two = (gateways(allow=[upstream.origin], env=env) for _ in range(2))
    secret = ready(one, upstream)
    one.stop()
    two.stop()
    two.start()
    assert two.chat(secret, MODEL).status_code == 200


def test_it_has_heard_what_was_done_before(gateway: Gateway, upstream: Upstream) -> None:
    secret = ready(gateway, upstream)
    gateway.cli("keys", "revoke", "first")
    gateway.hear()
    assert gateway.chat(secret, MODEL).status_code == 401


def test_failed_commands_fail_the_test(gateways: GatewayMaker) -> None:
    house = gateways(start=False)
    with pytest.raises(CommandError, match="nobody"):
        house.cli("keys", "show", "nobody")
    assert house.cli("keys", "show", "nobody", check=False).code == 1


def test_a_start_that_fails_says_why(gateways: GatewayMaker) -> None:
    with pytest.raises(RuntimeError, match="OSTIARY_PROT is not a setting"):
        gateways(env={"OSTIARY_PROT": "1"})
