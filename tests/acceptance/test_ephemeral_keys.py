"""Ephemeral keys at the gateway: never more than their parent at that moment, at its cost, and gone with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import require_prompt, until

_MODEL = "openai-compatible/ok"
_MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, gateways: GatewayMaker, upstream: Upstream) -> Iterator[Gateway]:
    env = {}
    if request.param == "postgresql":
        env = {"OSTIARY_DATABASE_URL": request.getfixturevalue("postgres_url"), "OSTIARY_MASTER_KEY": _MASTER_KEY}
    gateway = gateways(allow=[upstream.origin], env=env)
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    yield gateway
    gateway.close()


@pytest.fixture
def priced(gateways: GatewayMaker, upstream: Upstream) -> Iterator[Gateway]:
    """A gateway whose one model costs a dollar for a thousand tokens, either way."""
    gateway = gateways(allow=[upstream.origin])
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "1000", "--output", "1000")
    yield gateway
    gateway.close()


def child_of(gateway: Gateway, parent: str, *options: str) -> str:
    """The secret of a child that the gateway knows."""
    secret: str = gateway.json("keys", "ephemeral", parent, *options)["secret"]
    gateway.hear()
    return secret


def code(gateway: Gateway, secret: str, **more: object) -> str | None:
    """Why a call is refused; None when it is not."""
    answer = gateway.chat(secret, _MODEL, **more)
    return None if answer.status_code == 200 else str(answer.json()["error"]["code"])


def _until(gateway: Gateway, secret: str, expected: str | None, deed: Callable[[], object]) -> float:
    """Seconds from the end of the deed until calls are answered so."""
    deed()
    since = time.monotonic()
    while time.monotonic() - since < 30:
        if code(gateway, secret) == expected:
            return time.monotonic() - since
    pytest.fail(f"never answered {expected}")


def test_what_stops_a_parent_stops_its_children_within_a_second(house: Gateway) -> None:
    dead = "invalid_api_key"

    def trial(_number: int) -> list[float]:
        parent = house.create_key("ci")
        child = child_of(house, "ci")
        assert (code(house, parent), code(house, child)) == (None, None)
        taken = [_until(house, child, dead, lambda: house.cli("keys", "deactivate", "ci"))]
        taken.append(_until(house, child, None, lambda: house.cli("keys", "activate", "ci")))
        narrow = ("keys", "edit", "ci", "--models", "openai-compatible/other")
        taken.append(_until(house, child, "model_not_allowed", lambda: house.cli(*narrow)))
        taken.append(_until(house, child, None, lambda: house.cli("keys", "edit", "ci", "--models", "all")))
        alone = ("keys", "edit", "ci", "--ip", "192.0.2.1")
        taken.append(_until(house, child, "ip_not_allowed", lambda: house.cli(*alone)))
        taken.append(_until(house, child, None, lambda: house.cli("keys", "edit", "ci", "--ip", "all")))
        taken.append(_until(house, child, dead, lambda: house.cli("keys", "revoke", "ci")))
        taken.append(_until(house, parent, None, lambda: house.cli("keys", "activate", "ci")))
        assert code(house, child) == dead  # what was revoked with its parent does not come back with it
        another = child_of(house, "ci")
        assert code(house, another) is None
        taken.append(_until(house, another, dead, lambda: house.cli("keys", "delete", "ci")))
        return taken

    require_prompt(trial)


def test_a_child_that_is_revoked_leaves_its_parent_alone(house: Gateway) -> None:
    parent = house.create_key("ci")

    def trial(_number: int) -> list[float]:
        taken = []
        for _ in range(2):
            made = house.json("keys", "ephemeral", "ci")
            house.hear()
            assert code(house, made["secret"]) is None
            revoke = partial(house.cli, "keys", "revoke", made["name"])
            taken.append(_until(house, made["secret"], "invalid_api_key", revoke))
            assert code(house, parent) is None
        return taken

    require_prompt(trial)


def test_a_child_ends_by_itself(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], clock=True)
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    parent = gateway.create_key("ci")
    child = child_of(gateway, "ci", "--ttl", "10m")
    gateway.shift(9 * 60)
    assert code(gateway, child) is None
    gateway.shift(10 * 60 + 5)
    assert code(gateway, child) == "invalid_api_key"
    assert code(gateway, parent) is None


def test_a_child_uses_its_parents_limits(house: Gateway) -> None:
    parent = house.create_key("ci", "--rpm", "3")
    first, second = child_of(house, "ci"), child_of(house, "ci", "--rpm", "1")
    assert [code(house, one) for one in (first, second, second)] == [None, None, "rate_limit_exceeded"]
    assert code(house, parent) is None
    assert [code(house, one) for one in (first, second, parent)] == ["rate_limit_exceeded"] * 3


@pytest.mark.usefixtures("one_day")
def test_a_day_limit_set_at_noon_knows_what_the_children_did(house: Gateway) -> None:
    parent = house.create_key("ci")
    child = child_of(house, "ci")
    assert [code(house, one) for one in (child, parent, child)] == [None] * 3
    until(lambda: len(house.traces()) == 3, "the ledger to have it")
    house.cli("keys", "edit", "ci", "--rpd", "5")
    house.hear()
    over = "daily_rate_limit_exceeded"
    assert [code(house, one) for one in (child, parent, child, parent)] == [None, None, over, over]
    house.restart()
    assert [code(house, one) for one in (parent, child)] == [over, over]


@pytest.mark.main_job
@pytest.mark.usefixtures("one_day")
def test_a_child_spends_its_parents_budget_and_no_more_than_its_slice(priced: Gateway) -> None:
    """A call costs at most some ten tokens of input and ten of output here: two or three cents."""
    parent = priced.create_key("ci", "--budget-usd", "1000")
    child = child_of(priced, "ci", "--name", "job", "--budget-usd", "0.5")
    assert code(priced, child, max_tokens=10) is None
    spent = priced.client(parent).get("/v1/key").json()
    mine = priced.client(child).get("/v1/key").json()
    assert mine["name"] == "job"
    shown = {name: priced.json("keys", "show", name) for name in ("ci", "job")}
    assert shown["ci"]["spent_usd"] == shown["job"]["spent_usd"] > 0, (spent, mine)
    assert code(priced, child, max_tokens=1_000) == "budget_exceeded"
    assert code(priced, parent, max_tokens=1_000) is None
    priced.cli("keys", "edit", "ci", "--budget-usd", "0")
    priced.hear()
    assert code(priced, child, max_tokens=10) == "budget_exceeded"
    (first, *_) = [one for one in priced.json("traces", "--limit", "0") if one["agent_key"] == "job"][::-1]
    assert first["parent_key_id"] == shown["ci"]["id"]
