"""Who may not come in: every way to have no right credential is refused as specified, and tells nothing."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from ostiary.agents import agent_keys, client_credentials, credential
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.agents.policy import choice_of
from ostiary.clock import SystemClock
from tests.acceptance.inside import OPERATOR, Key, change, do, events, mint, mint_credential, rows
from tests.servers.gateway import Gateway
from tests.servers.upstream import Upstream
from tests.servers.waiting import until

pytestmark = pytest.mark.main_job

MODEL = "openai-compatible/ok"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
CARRIERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
DOORS = ("POST /v1/chat/completions", "GET /v1/key", "GET /v1/usage", "GET /v1/models")


@dataclass(frozen=True)
class People:
    """The keys of this file."""

    good: Key
    client: Key
    dead: dict[str, str]
    """Secrets that were never known or no longer are, by why."""


@pytest.fixture(scope="module")
def people(shared_gateway: Gateway, ask: Ask) -> People:
    names = ("inactive", "revoked", "deleted", "rotated", "expired")
    good, *doomed = mint(shared_gateway, NewAgentKey("good"), *map(NewAgentKey, names))
    keys = dict(zip(names, doomed, strict=True))
    change(shared_gateway, keys["inactive"], agent_keys.deactivate)
    change(shared_gateway, keys["revoked"], agent_keys.revoke)
    change(shared_gateway, keys["deleted"], agent_keys.delete)

    async def rotate(base: Any, tx: Any, organization: Any) -> None:
        await agent_keys.rotate(
            tx, OPERATOR, organization.id, keys["rotated"].id, pepper=base.seal.pepper, at=base.clock.now()
        )
        await tx.exec_driver_sql(
            "UPDATE agent_keys SET expires_at = :at WHERE id = :id", {"at": base.clock.now(), "id": keys["expired"].id}
        )
        await agent_keys.change(tx, OPERATOR, organization.id, keys["expired"].id, {"rpm": 5}, base.clock.now())

    do(shared_gateway, rotate)
    client, ended = mint_credential(shared_gateway, "client"), mint_credential(shared_gateway, "ended")
    change(shared_gateway, ended, client_credentials.revoke)
    dead = {name: key.secret for name, key in keys.items()} | {
        "revoked client": ended.secret,
        "unknown": shared_gateway.canaries.watch(credential.mint("pat").reveal()),
        "unknown ephemeral": shared_gateway.canaries.watch(credential.mint("eph").reveal()),
        "unknown client": shared_gateway.canaries.watch(credential.mint_triple(client.secret.split(":")[0]).reveal()),
    }
    until(lambda: all(ask({"x-api-key": secret}).status_code == 401 for secret in dead.values()), "the end of keys")
    return People(good, client, dead)


@dataclass(frozen=True)
class Ask:
    """Sends what a test says, over one client."""

    client: httpx2.Client
    served: list[httpx2.Response] = field(default_factory=list)
    """The calls that were let through."""

    def __call__(self, headers: Any, door: str = DOORS[0], query: str = "") -> httpx2.Response:
        method, path = door.split()
        content = json.dumps(BODY).encode() if method == "POST" else None
        carried = list(headers.items()) if isinstance(headers, dict) else headers
        kind = ("content-type", "application/json")
        answer = self.client.request(method, path + query, content=content, headers=[kind, *carried])
        if answer.status_code == 200 and door == DOORS[0]:
            self.served.append(answer)
        return answer


@pytest.fixture(scope="module")
def ask(shared_gateway: Gateway) -> Ask:
    return Ask(shared_gateway.client())


def refused(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["message"]
    assert error["type"] == ("authentication_error" if status == 401 else "invalid_request_error")
    return error


# ---- nothing, or nothing of ours --------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS[:3])
def test_without_a_credential(ask: Ask, door: str) -> None:
    answer = ask({}, door)
    refused(answer, 401, "missing_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"  # RFC 6750: no error= when nothing was sent


def malformed(good: str) -> dict[str, str]:
    last = "1" if good[-1] != "1" else "2"
    return {
        "another's": "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789",
        "too short": good[:-1],
        "too long": good + "a",
        "wrong checksum": good[:-1] + last,
        "wrong kind": good.replace("_pat_", "_eph_"),
        "unknown kind": good.replace("_pat_", "_xyz_"),
        "upper case": good.upper(),
        "with a blank": good[:20] + " " + good[20:],
        "twice": f"{good} {good}",
        "with a comma": f"{good},{good}",
        "quoted": f'"{good}"',
        "very long": "ost_pat_" + "a" * 8_000,
        "part of a client credential": credential.mint("ck").reveal(),
        "an invite": credential.mint("inv").reveal(),
    }


@pytest.mark.parametrize("kind", malformed("ost_pat_" + "0" * 49))
@pytest.mark.parametrize("carrier", ["authorization", "x-api-key"])
def test_malformed_credentials(ask: Ask, people: People, kind: str, carrier: str) -> None:
    text = malformed(people.good.secret)[kind]
    answer = ask({carrier: f"Bearer {text}" if carrier == "authorization" else text})
    error = refused(answer, 401, "invalid_token_format")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert len(text) < 9 or text not in error["message"]


@pytest.mark.parametrize("how", ["", "Bearer", "{}", "Basic {b64}", "Token {}", "Bearer: {}", "Digest {}"])
def test_other_schemes(ask: Ask, people: People, how: str) -> None:
    basic = base64.b64encode(f"key:{people.good.secret}".encode()).decode()
    answer = ask({"authorization": how.format(people.good.secret, b64=basic)})
    refused(answer, 401, "invalid_token_format")


@pytest.mark.parametrize(
    "damage",
    [
        lambda parts: parts[:2],
        lambda parts: [parts[0], parts[2], parts[1]],
        lambda parts: [parts[1], parts[2]],
        lambda parts: [*parts, parts[2]],
        lambda parts: [parts[0], parts[1], parts[2][:-1]],
        lambda parts: ["", parts[1], parts[2]],
    ],
)
def test_damaged_client_credentials(ask: Ask, people: People, damage: Any) -> None:
    text = ":".join(damage(people.client.secret.split(":")))
    refused(ask({"authorization": f"Bearer {text}"}), 401, "invalid_token_format")


def test_a_client_credential_is_one_and_not_its_parts_mixed(ask: Ask, people: People) -> None:
    client_id, api_key, _ = people.client.secret.split(":")
    other_secret = credential.mint("cs").reveal()
    refused(ask({"api-key": f"{client_id}:{api_key}:{other_secret}"}), 401, "invalid_api_key")
    other_id = "org_" + "A" * 22
    mixed = ":".join([other_id, *people.client.secret.split(":")[1:]])
    refused(ask({"api-key": mixed}), 401, "invalid_api_key")


# ---- dead ones look alike ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS)
def test_dead_and_unknown_credentials_look_alike_to_the_byte(ask: Ask, people: People, door: str) -> None:
    seen = set()
    for secret in people.dead.values():
        answer = ask({"authorization": f"Bearer {secret}"}, door)
        refused(answer, 401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        own = answer.headers["x-request-id"].encode()
        head = tuple((name, value) for name, value in answer.headers.raw if value != own)
        seen.add((answer.status_code, head, answer.content.replace(own, b"REQUEST")))
    assert len(seen) == 1


def test_a_dead_key_learns_nothing_of_what_it_was_restricted_to(ask: Ask, shared_gateway: Gateway) -> None:
    (key,) = mint(
        shared_gateway,
        NewAgentKey("far away", addresses=choice_of(["192.0.2.0/24"]), scopes=frozenset({"gate:models"})),
    )
    refused_for = ask(key.bearer)
    assert (refused_for.status_code, refused_for.json()["error"]["code"]) == (403, "ip_not_allowed")
    change(shared_gateway, key, agent_keys.revoke)
    until(lambda: ask(key.bearer).status_code == 401, "the revocation")
    refused(ask(key.bearer), 401, "invalid_api_key")


def test_a_key_expires_to_the_millisecond(ask: Ask, shared_gateway: Gateway) -> None:
    """Judged by the moments around each question, however long the machine takes over any of them."""
    now = SystemClock().now
    (key,) = mint(shared_gateway, NewAgentKey("short-lived"))
    assert ask(key.bearer).status_code == 200
    at = now() + 3_000

    async def shorten(base: Any, tx: Any, organization: Any) -> None:
        await tx.exec_driver_sql("UPDATE agent_keys SET expires_at = :at WHERE id = :id", {"at": at, "id": key.id})
        await agent_keys.change(tx, OPERATOR, organization.id, key.id, {"rpm": 500}, base.clock.now())

    do(shared_gateway, shorten)
    mint(shared_gateway, NewAgentKey("heard after it"))
    while True:
        before = now()
        answer = ask(key.bearer)
        if answer.status_code != 200:
            break
        assert before < at
        time.sleep(0.02)  # so that the rate is not what ends it
    assert now() >= at
    refused(answer, 401, "invalid_api_key")


def test_a_bad_credential_is_refused_where_none_is_needed(ask: Ask, people: People) -> None:
    assert ask({}, "GET /v1/models").status_code == 200
    refused(ask({"x-api-key": "nonsense"}, "GET /v1/models"), 401, "invalid_token_format")
    refused(ask({"x-api-key": people.dead["revoked"]}, "GET /v1/models"), 401, "invalid_api_key")
    assert ask({"x-api-key": "nonsense"}, "GET /health").status_code == 200


# ---- carriers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("who", ["good", "client"])
def test_every_carrier_carries(ask: Ask, people: People, carrier: str, who: str) -> None:
    secret = getattr(people, who).secret
    answer = ask({carrier: f"Bearer {secret}" if carrier == "authorization" else secret}, "GET /v1/key")
    assert answer.status_code == 200
    assert answer.json()["kind"] == {"good": "agent_key", "client": "client_credential"}[who]


def test_a_client_credential_calls_as_the_organization(ask: Ask, people: People) -> None:
    answer = ask(people.client.bearer)
    assert answer.status_code == 200
    assert ask(people.client.bearer, "GET /v1/usage").status_code == 200


@pytest.mark.parametrize("how", ["bearer {}", "BEARER {}", "Bearer   {}"])
def test_the_scheme_is_read_generously(ask: Ask, people: People, how: str) -> None:
    answer = ask({"authorization": how.format(people.good.secret)}, "GET /v1/key")
    assert answer.status_code == 200


@pytest.mark.parametrize("other", CARRIERS[1:])
def test_the_same_credential_twice_is_one(ask: Ask, people: People, other: str) -> None:
    secret = people.good.secret
    for bearer in (f"Bearer {secret}", f"bearer {secret}"):
        assert ask({"authorization": bearer, other: secret}, "GET /v1/key").status_code == 200
    again = [("authorization", f"Bearer {secret}")] * 2
    assert ask(again, "GET /v1/key").status_code == 200


@pytest.mark.parametrize("door", DOORS)
def test_two_credentials_are_refused_even_if_both_are_right(ask: Ask, people: People, door: str) -> None:
    good, client = people.good.secret, people.client.secret
    for pair in (
        [("authorization", f"Bearer {good}"), ("x-api-key", client)],
        [("x-api-key", good), ("x-api-key", client)],
        [("authorization", f"Bearer {good}"), ("authorization", f"Bearer {client}")],
        [("api-key", good), ("x-goog-api-key", people.dead["unknown"])],
    ):
        refused(ask(pair, door), 400, "invalid_request")


@pytest.mark.parametrize("name", ["key", "api_key", "api-key", "apikey", "access_token", "token", "KEY", "x"])
@pytest.mark.parametrize("with_header", [True, False])
def test_a_credential_in_the_query_is_refused(ask: Ask, people: People, name: str, with_header: bool) -> None:  # noqa: FBT001 - a parameter of the test
    headers = people.good.bearer if with_header else {}
    query = f"?a=1&{name}={people.good.secret}"
    for door in (DOORS[0], "GET /v1/models"):
        error = refused(ask(headers, door, query), 400, "invalid_request")
        assert "header" in error["message"]
        assert people.good.secret not in error["message"]


def test_words_that_only_look_like_one_may_stand_in_the_query(ask: Ask) -> None:
    answer = ask({}, "GET /v1/providers", "?search=host_post_pat")
    assert answer.status_code == 200


def test_a_cookie_is_not_a_credential(ask: Ask, people: People) -> None:
    refused(ask({"cookie": f"session={people.good.secret}"}), 401, "missing_api_key")


def test_nobody_who_was_refused_was_heard_of_by_the_provider_or_the_ledger(
    shared_gateway: Gateway, shared_upstream: Upstream, ask: Ask, people: People
) -> None:
    ask(people.good.bearer)
    for secret in people.dead.values():
        ask({"x-api-key": secret})
    for answer in ask.served:
        events(shared_gateway, answer.headers["x-request-id"])
    assert rows(shared_gateway, "SELECT count(*) AS n FROM usage_events") == [{"n": len(ask.served)}]
    assert len(shared_upstream.calls) == len(ask.served)


def test_no_secret_was_written_down(shared_gateway: Gateway, people: People) -> None:
    for secret in (people.good.secret, *people.dead.values()):
        for part in secret.split(":")[-2:]:
            assert part not in shared_gateway.output
