"""What a command does is heard by the running gateway within a second, on both databases."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest

from tests.acceptance.wire import Answer, post, wire
from tests.servers.canaries import Canaries
from tests.servers.gateway import NO_TLS, Gateway, GatewayMaker
from tests.servers.upstream import Upstream
from tests.servers.waiting import require_prompt

_MODEL = "openai-compatible/ok"
_LONGEST_S = 30
"""Until a deed is taken for one that was never heard; whether it was heard soon is judged by all of them together."""
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


def _until(gateway: Gateway, secret: str, status: int, since: float) -> float:
    """Seconds until calls are answered so."""
    with gateway.client(secret) as client:
        while time.monotonic() - since < _LONGEST_S:
            body = {"model": _MODEL, "messages": []}
            if client.post("/v1/chat/completions", json=body).status_code == status:
                return time.monotonic() - since
    pytest.fail(f"never answered {status}")


def _after(deed: Callable[[], object]) -> float:
    deed()
    return time.monotonic()


@pytest.mark.main_job
def test_keys_stop_and_start_within_a_second(house: Gateway) -> None:
    def trial(_number: int) -> list[float]:
        secret = house.create_key("a")
        assert house.chat(secret, _MODEL).status_code == 200
        taken = [_until(house, secret, 401, _after(lambda: house.cli("keys", "deactivate", "a")))]
        taken.append(_until(house, secret, 200, _after(lambda: house.cli("keys", "activate", "a"))))
        taken.append(_until(house, secret, 401, _after(lambda: house.cli("keys", "revoke", "a"))))
        taken.append(_until(house, secret, 200, _after(lambda: house.cli("keys", "activate", "a"))))
        rotated = house.json("keys", "rotate", "a")["secret"]
        taken.append(_until(house, secret, 401, time.monotonic()))
        assert house.chat(rotated, _MODEL).status_code == 200
        taken.append(_until(house, rotated, 429, _after(lambda: house.cli("keys", "edit", "a", "--rpm", "1"))))
        taken.append(_until(house, rotated, 401, _after(lambda: house.cli("keys", "delete", "a"))))
        return taken

    require_prompt(trial)


def test_credentials_and_provider_keys_are_heard_too(house: Gateway, upstream: Upstream, canaries: Canaries) -> None:
    def trial(number: int) -> list[float]:
        if number > 1:
            house.add_provider_key("openai-compatible", "upstream", upstream.url)
        triple = house.create_credential(f"backend-{number}")
        assert house.chat(triple, _MODEL).status_code == 200
        fresh = canaries.plant()
        house.cli("vault", "edit", "upstream", "--secret-stdin", "--no-test", stdin=fresh)
        since = time.monotonic()
        while upstream.calls[-1].key != fresh and time.monotonic() - since < _LONGEST_S:
            house.chat(triple, _MODEL)
        assert upstream.calls[-1].key == fresh
        taken = [time.monotonic() - since]
        taken.append(_until(house, triple, 503, _after(lambda: house.cli("vault", "delete", "upstream", "--force"))))
        taken.append(
            _until(house, triple, 401, _after(lambda: house.cli("credentials", "revoke", f"backend-{number}")))
        )
        return taken

    require_prompt(trial)


def test_a_key_made_a_moment_ago_works_at_once(house: Gateway) -> None:
    for number in range(5):
        secret = house.json("keys", "create", "--name", f"k{number}")["secret"]
        answer = httpx2.post(
            f"{house.url}/chat/completions",
            json={"model": _MODEL, "messages": []},
            headers={"authorization": f"Bearer {secret}"},
            timeout=20,
            verify=NO_TLS,
        )
        assert answer.status_code == 200


def test_an_expired_key_is_refused_without_any_change(gateways: GatewayMaker, upstream: Upstream) -> None:
    gateway = gateways(allow=[upstream.origin], clock=True)
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    secret = gateway.create_key("a", "--expires", "12h")
    assert gateway.chat(secret, _MODEL).status_code == 200
    gateway.shift(12 * 3_600 - 30)
    assert gateway.chat(secret, _MODEL).status_code == 200
    gateway.shift(12 * 3_600 + 5)
    refused = gateway.chat(secret, _MODEL)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


# ---- while the body is still coming -----------------------------------------------------------------------------


def _slowly(gateway: Gateway, secret: str, path: str, body: bytes, deed: Callable[[], object]) -> Answer:
    """Everything but the last byte, a deed that the gateway hears of, and the last byte."""
    with wire(gateway) as line:
        line.send(post(secret, b"", f"content-length: {len(body)}", "expect: 100-continue", path=path))
        assert line.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n", "it knows who asks"
        line.send(body[:-1])
        deed()
        gateway.hear()
        line.send(body[-1:])
        return line.answer()


@pytest.mark.parametrize("deed", ["revoke", "deactivate", "delete"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/explain"])
def test_a_key_stopped_while_its_body_comes_in_opens_nothing(
    gateway: Gateway, upstream: Upstream, path: str, deed: str
) -> None:
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    secret = gateway.create_key("a")
    body = json.dumps({"model": "openai-compatible/ok", "messages": []}).encode()
    assert _slowly(gateway, secret, path, body, lambda: None).status == 200, "slowness alone is no fault"
    before = len(upstream.calls)
    answer = _slowly(gateway, secret, path, body, lambda: gateway.cli("keys", deed, "a"))
    assert (answer.status, answer.code) == (401, "invalid_api_key")
    assert len(upstream.calls) == before


@pytest.mark.parametrize("deed", ["revoke", "deactivate", "delete"])
def test_a_key_stopped_while_its_body_comes_in_makes_no_other(gateway: Gateway, deed: str) -> None:
    gateway.cli("members", "add", "erin@example.org", "--role", "admin")
    scopes = "gate:usage,admin:agent-keys:write,admin:agent-keys:read"
    secret = gateway.create_key("a", "--owner", "erin@example.org", "--scopes", scopes)
    body = json.dumps({"name": "honest"}).encode()
    assert _slowly(gateway, secret, "/api/v1/agent-keys", body, lambda: None).status == 201
    body = json.dumps({"name": "backdoor", "scopes": ["gate:chat", "admin:agent-keys:write"]}).encode()
    answer = _slowly(gateway, secret, "/api/v1/agent-keys", body, lambda: gateway.cli("keys", deed, "a"))
    assert (answer.status, answer.json["code"]) == (401, "invalid_api_key")
    made = {one["name"] for one in gateway.json("keys", "list")}
    assert "honest" in made
    assert "backdoor" not in made
