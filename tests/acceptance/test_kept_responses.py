"""Responses by their id: bound to the organization and the provider key that gave them, and to nobody else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from ostiary.agents import agent_keys
from ostiary.agents.agent_keys import NewAgentKey
from ostiary.secret import Secret
from ostiary.vault import provider_keys
from ostiary.vault.provider_keys import NewProviderKey
from tests.acceptance import inside
from tests.acceptance.wire import get, wire
from tests.servers.behaviours import raw, refuse
from tests.servers.gateway import Gateway, GatewayMaker
from tests.servers.operations import response, typed
from tests.servers.upstream import Behaviour, Exchange, Upstream
from tests.servers.waiting import require_prompt, until
from tests.servers.wire import LAST, ORGANIZATION, TEXT, framed, stream_head, whole

MODEL = "openai-compatible/words"


@pytest.fixture(name="upstream")
def the_upstream(shared_upstream: Upstream) -> Upstream:
    """The shared one, which has received nothing yet."""
    shared_upstream.received.clear()
    return shared_upstream


@pytest.fixture(scope="module")
def two_keys(shared_gateway: Gateway, shared_upstream: Upstream) -> Gateway:
    inside.add_provider_keys(shared_gateway, ("openai-compatible", "another", shared_upstream.url))
    return shared_gateway


@pytest.fixture(name="house")
def the_house(two_keys: Gateway, upstream: Upstream) -> Gateway:
    assert upstream.received == []
    return two_keys


@pytest.fixture(name="key")
def the_key(house: Gateway, request: pytest.FixtureRequest) -> inside.Key:
    return inside.mint(house, NewAgentKey(name=request.node.name[:60], rpm=100))[0]


def respond(house: Gateway, key: inside.Key, **more: Any) -> Any:
    body = {"model": MODEL, "input": "x", **more}
    return house.client(key.secret).post("/v1/responses", json=body)


def made_by(house: Gateway, key: inside.Key, **more: Any) -> str:
    """The id of a new response."""
    answer = respond(house, key, **more)
    assert answer.status_code == 200, answer.text
    if not more.get("stream"):
        return str(answer.json()["id"])
    last = answer.text.rstrip().rpartition("data: ")[2]
    return str(json.loads(last)["response"]["id"])


@pytest.mark.main_job
def test_it_is_asked_for_cancelled_and_deleted_at_the_key_that_gave_it(
    house: Gateway, key: inside.Key, upstream: Upstream
) -> None:
    with openai.OpenAI(base_url=house.url, api_key=key.secret, max_retries=0) as client:
        made = client.responses.create(model=MODEL, input="x")
        raw = client.responses.with_raw_response.retrieve(made.id, include=["reasoning.encrypted_content"])
        assert raw.parse().output_text == TEXT
        assert raw.headers["x-ostiary-provider"] == "openai-compatible"
        assert ORGANIZATION not in str(raw.headers)
        assert client.responses.cancel(made.id).status == "cancelled"
        client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(made.id)
    targets = [(call.method, call.target.partition("?")[0]) for call in upstream.received]
    assert targets == [
        ("POST", "/v1/responses"),
        ("GET", f"/v1/responses/{made.id}"),
        ("POST", f"/v1/responses/{made.id}/cancel"),
        ("DELETE", f"/v1/responses/{made.id}"),
    ]
    assert "include" in upstream.received[1].target
    assert len({call.key for call in upstream.received}) == 1


def test_they_cost_nothing_and_count_as_requests(house: Gateway, upstream: Upstream) -> None:
    (key,) = inside.mint(house, NewAgentKey(name="bob", rpm=2))
    made = made_by(house, key)
    client = house.client(key.secret)
    assert client.get(f"/v1/responses/{made}").status_code == 200
    refused = client.get(f"/v1/responses/{made}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(upstream.received) == 2
    assert len(inside.events_of(house, key, 1)) == 1


def test_another_organization_finds_nothing(house: Gateway, key: inside.Key, upstream: Upstream) -> None:
    made = made_by(house, key)
    house.cli("orgs", "create", "--name", "others")
    dora = house.canaries.watch(house.json("keys", "create", "--name", "dora", "--org", "others")["secret"])
    client = house.client(dora)
    until(lambda: client.get("/v1/key").status_code == 200, "the key")
    known = client.get(f"/v1/responses/{made}")
    unknown = client.get("/v1/responses/resp_nobody")
    assert (known.status_code, unknown.status_code) == (404, 404)
    same = [one.json()["error"] | {"request_id": ""} for one in (known, unknown)]
    assert same[0] == same[1]
    assert client.delete(f"/v1/responses/{made}").status_code == 404
    assert client.post(f"/v1/responses/{made}/cancel").status_code == 404
    assert len(upstream.received) == 1


def test_who_goes_on_from_a_response_comes_to_its_key(house: Gateway, key: inside.Key, upstream: Upstream) -> None:
    made = made_by(house, key)
    first = upstream.calls[-1].key
    for _ in range(4):
        assert respond(house, key, previous_response_id=made).status_code == 200
        assert upstream.calls[-1].key == first
        assert upstream.calls[-1].json["previous_response_id"] == made
    foreign = respond(house, key, previous_response_id="resp_nobody")
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "not_found")
    assert foreign.json()["error"]["param"] == "previous_response_id"
    assert len(upstream.calls) == 5


def test_what_is_not_stored_is_not_known(house: Gateway, key: inside.Key, upstream: Upstream) -> None:
    made = made_by(house, key, store=False)
    assert house.client(key.secret).get(f"/v1/responses/{made}").status_code == 404
    assert len(upstream.received) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_it_is_known_after_a_restart(house: Gateway, key: inside.Key, *, stream: bool) -> None:
    made = made_by(house, key, stream=stream)
    house.restart()
    assert house.client(key.secret).get(f"/v1/responses/{made}").status_code == 200
    assert respond(house, key, previous_response_id=made).status_code == 200


def test_another_gateway_on_the_same_data_knows_it_at_once(
    gateways: GatewayMaker, upstream: Upstream, postgres_url: str
) -> None:
    master = "m" * 43 + "="
    env = {"OSTIARY_DATABASE_URL": postgres_url, "OSTIARY_MASTER_KEY": master}
    one, two = (gateways(env=env, allow=[upstream.origin]) for _ in range(2))
    one.add_provider_key("openai-compatible", "one", upstream.url)
    secret = one.create_key("both")
    until(lambda: two.client(secret).get("/v1/key").status_code == 200, "the key")
    chat = {"model": MODEL, "messages": []}
    for gateway in (one, two):  # either may not have heard of the provider key yet
        client = gateway.client(secret)
        until(lambda: client.post("/v1/chat/completions", json=chat).status_code == 200, "the provider key")  # noqa: B023 - called at once

    def is_known_at_once() -> bool:
        made = one.client(secret).post("/v1/responses", json={"model": MODEL, "input": "x"}).json()["id"]
        return two.client(secret).get(f"/v1/responses/{made}").status_code == 200

    assert any(is_known_at_once() for _ in range(4)), "what is slow by itself is slow each time"


def test_a_response_in_the_background_is_charged_what_was_held(house: Gateway) -> None:
    inside.set_prices(house, MODEL)
    (key,) = inside.mint(house, NewAgentKey(name="background"))
    answer = respond(house, key, background=True, max_output_tokens=100)
    assert answer.json()["status"] == "queued"
    (event,) = inside.events(house, answer.headers["x-request-id"])
    assert (event["usage_source"], event["status"]) == ("none", "ok")
    assert event["cost_nano"] == event["held_nano"] > 100_000
    made = answer.json()["id"]
    assert house.client(key.secret).post(f"/v1/responses/{made}/cancel").status_code == 200


@pytest.mark.parametrize(
    "path", ["resp_x%2F..%2F..%2Fmodels", "resp_x%2Fcancel%3Fa", "x" * 300, "resp x", "cancel", "%00", "a%0d%0ab"]
)
def test_an_id_that_is_none_is_not_found(house: Gateway, key: inside.Key, path: str) -> None:
    assert house.client(key.secret).get(f"/v1/responses/{path}").status_code == 404


def test_a_method_that_is_none_says_so(house: Gateway, key: inside.Key) -> None:
    client = house.client(key.secret)
    assert client.post("/v1/responses/resp_1").status_code == 405
    assert client.get("/v1/responses/resp_1/cancel").status_code == 405


def test_what_the_provider_says_of_it_is_scrubbed(house: Gateway, key: inside.Key, upstream: Upstream) -> None:
    made = made_by(house, key)
    upstream.push(refuse(400, f"Cannot cancel a response of {ORGANIZATION}."))
    refused = house.client(key.secret).post(f"/v1/responses/{made}/cancel")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")
    assert "Cannot cancel" in refused.text
    assert ORGANIZATION not in refused.text
    upstream.push(refuse(404, "Response not found"))
    assert house.client(key.secret).delete(f"/v1/responses/{made}").status_code == 404


Gets = Callable[..., None]


@pytest.fixture(name="gets")
def the_gets(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Gets:
    """Says how the next questions after a response are answered."""

    def push(*behaviours: Behaviour) -> None:
        left, usual = list(behaviours), upstream.choose
        monkeypatch.setattr(
            upstream, "choose", lambda asked: left.pop(0) if left and asked.method == "GET" else usual(asked)
        )

    return push


def saying(**fields: Any) -> Behaviour:
    """A response with these fields."""

    async def speak(exchange: Exchange) -> None:
        await exchange.send(whole(200, json.dumps(response(exchange.request, **fields)).encode()))

    return speak


@pytest.mark.parametrize("made", ["x" * 201, "resp_\0", "..", "resp_1/../../models", "resp é"], ids=list("abcde"))
@pytest.mark.parametrize("stream", [False, True])
def test_an_id_that_cannot_be_one_stops_nothing(
    house: Gateway, key: inside.Key, upstream: Upstream, made: str, *, stream: bool
) -> None:
    async def streamed(exchange: Exchange) -> None:
        last = typed("response.completed", response=response(exchange.request, id=made))
        await exchange.send(stream_head(), framed(last), LAST)

    upstream.push(streamed if stream else saying(id=made))
    answer = respond(house, key, stream=stream)
    assert answer.status_code == 200
    assert inside.events(house, answer.headers["x-request-id"])[0]["status"] == "ok"
    assert inside.rows(house, "SELECT * FROM responses WHERE id = ?", made) == []
    assert respond(house, key, previous_response_id=made).status_code == 404


def test_what_it_says_of_its_failure_is_scrubbed(
    house: Gateway, key: inside.Key, upstream: Upstream, gets: Gets
) -> None:
    made = made_by(house, key)
    secret = upstream.calls[-1].key
    words = f"{ORGANIZATION} has no credit; its key is {secret}."
    failed: dict[str, Any] = {"status": "failed", "error": {"code": "server_error", "message": words}}

    async def streamed(exchange: Exchange) -> None:
        begun = typed("response.created", response=response(exchange.request, "queued"))
        ended = typed("response.failed", response=response(exchange.request, **failed))
        wrong = typed("error", code=None, message=words, param=None)
        await exchange.send(stream_head(), *map(framed, (begun, ended, wrong)), LAST)

    gets(saying(**failed), streamed, raw(whole(200, words.encode())))
    client = house.client(key.secret)
    plain = client.get(f"/v1/responses/{made}")
    assert plain.json()["error"] == {"code": "server_error", "message": "*** has no credit; its key is ***."}
    assert plain.json()["output"] == []
    events = client.get(f"/v1/responses/{made}?stream=true").text
    assert events.count("*** has no credit; its key is ***.") == 2
    assert events.startswith("event: response.created\n")
    unread = client.get(f"/v1/responses/{made}")
    assert (unread.status_code, unread.json()["error"]["code"]) == (502, "provider_error")
    for text in (plain.text, events, unread.text):
        assert ORGANIZATION not in text
        assert str(secret) not in text


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_key_that_is_stopped_ends_what_it_has_open(
    house: Gateway, upstream: Upstream, gets: Gets, *, has_begun: bool
) -> None:
    def trial(number: int) -> list[float]:
        (key,) = inside.mint(house, NewAgentKey(name=f"stopped {has_begun} {number}"))
        made, has_come = made_by(house, key), threading.Event()

        async def stalls(exchange: Exchange) -> None:
            if has_begun:
                begun = typed("response.created", response=response(exchange.request, "queued"))
                await exchange.send(stream_head(), framed(begun))
            has_come.set()
            await exchange.stall()

        gets(stalls)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(house.client(key.secret).get, f"/v1/responses/{made}?stream=true")
            assert has_come.wait(30)
            inside.change(house, key, agent_keys.revoke)
            since = time.monotonic()
            answer = asked.result(30)
            taken = time.monotonic() - since
        assert upstream.received[-1].abandoned.wait(30)
        if has_begun:
            assert answer.status_code == 200
            assert "was stopped while its call was open" in answer.text
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        return [taken]

    require_prompt(trial, 5, callers=0)


def test_who_hangs_up_before_the_answer_leaves_nothing_open(
    house: Gateway, key: inside.Key, upstream: Upstream, gets: Gets
) -> None:
    made = made_by(house, key)

    async def late(exchange: Exchange) -> None:
        await exchange.pause(3)
        await exchange.send(stream_head(), framed(typed("response.created")))
        await exchange.stall()

    gets(late)
    with wire(house) as line:
        line.send(get(f"/v1/responses/{made}?stream=true", f"authorization: Bearer {key.secret}"))
        until(lambda: len(upstream.received) == 2, "the question")
    assert upstream.received[-1].abandoned.wait(30)


def test_asking_for_what_nobody_was_given_counts_and_is_cheap(house: Gateway) -> None:
    (limited, free) = inside.mint(house, NewAgentKey("limited", rpm=2), NewAgentKey("free"))
    client = house.client(limited.secret)
    answers = [client.get(f"/v1/responses/resp_none_{number}").status_code for number in range(3)]
    assert answers == [404, 404, 429]

    def seconds(ask: Any) -> float:
        since = time.monotonic()
        assert ask().status_code == 404
        return time.monotonic() - since

    client = house.client(free.secret)
    for ask in (
        lambda: client.get("/v1/responses/resp_missed"),
        lambda: respond(house, free, previous_response_id="resp_gone_on_from"),
    ):
        assert seconds(ask) >= 0.3
        assert min(seconds(ask) for _ in range(3)) < 0.3, "it was looked up again"


def test_where_addresses_are_templates_they_are_of_responses_too(
    gateways: GatewayMaker, upstream: Upstream, gets: Gets
) -> None:
    house = gateways(allow=[upstream.origin])

    async def deed(base: Any, tx: Any, organization: Any) -> None:
        row = base.catalog.get("azure-openai")
        secret = Secret(house.canaries.plant())
        fields = {"resource": "mine", "api_version": "2025-04-01-preview"}
        wish = NewProviderKey("classic", row, secret, f"{upstream.origin}/openai/v1", fields=fields)
        await provider_keys.add(
            tx, inside.OPERATOR, organization.id, wish, seal=base.seal, egress=base.egress, at=base.clock.now()
        )

    inside.do(house, deed)
    (key,) = inside.mint(house, NewAgentKey("azure"))
    upstream.push(*[saying(id="resp_1")] * 2)
    gets(saying(id="resp_1"))
    made = house.client(key.secret).post("/v1/responses", json={"model": "azure-openai/words", "input": "x"})
    assert made.status_code == 200, made.text
    client = house.client(key.secret)
    assert client.get("/v1/responses/resp_1?stream=false&api-version=other").status_code == 200
    assert client.post("/v1/responses/resp_1/cancel").status_code == 200
    assert [call.target for call in upstream.received] == [
        "/openai/responses?api-version=2025-04-01-preview",
        "/openai/responses/resp_1?api-version=2025-04-01-preview&stream=false",
        "/openai/responses/resp_1/cancel?api-version=2025-04-01-preview",
    ]


def test_the_ledger_keeps_it_with_its_event(house: Gateway, key: inside.Key) -> None:
    answer = respond(house, key)
    (event,) = inside.events(house, answer.headers["x-request-id"])
    (row,) = inside.rows(house, "SELECT * FROM responses WHERE id = ?", answer.json()["id"])
    assert (row["id"], row["provider_key_id"]) == (answer.json()["id"], event["provider_key_id"])
    assert row["organization_id"] == event["organization_id"]
    assert row["created_at"] == event["started_at"] <= time.time() * 1_000
