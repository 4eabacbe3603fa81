"""Testing a connection: the provider's cheapest call over real HTTP, and what its answer means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ostiary.providers import catalog
from ostiary.providers.catalog import AuthMethod, Field, Probe, Provider
from ostiary.providers.egress import Egress
from ostiary.providers.transport import Transport
from ostiary.secret import Secret
from ostiary.vault import trial
from tests.servers import answers
from tests.servers.behaviours import list_models, quota, raw, refuse, status, unauthorized
from tests.servers.canaries import Canaries
from tests.servers.llama import Llama
from tests.servers.upstream import Behaviour, Upstream
from tests.servers.wire import ORGANIZATION

KEY = "sk-test-0123456789"
ROW = Provider(
    "openai",
    "OpenAI",
    ("llm",),
    None,
    Probe("/models", bad_key=(400, 401)),
    fields=(Field("project", "Project", "OpenAI-Project"), Field("note", "Note")),
)


@pytest.fixture
async def transport(upstream: Upstream) -> AsyncIterator[Transport]:
    made = Transport(Egress([upstream.origin]))
    await made.open()
    yield made
    await made.close()


async def answered(
    transport: Transport,
    upstream: Upstream,
    behaviour: Behaviour,
    row: Provider = ROW,
    secret: str = KEY,
) -> trial.TestResult:
    upstream.choose = lambda _request: behaviour
    return await trial.test(transport, row, upstream.url, {}, Secret(secret))


async def test_the_call_carries_the_key_and_the_fields(transport: Transport, upstream: Upstream) -> None:
    fields = {"project": "p1", "note": "kept here"}
    result = await trial.test(transport, ROW, upstream.url + "/", fields, Secret("sk-test-0123456789"))
    assert result.outcome == "valid"
    (request,) = upstream.received
    assert (request.method, request.target, request.key) == ("GET", "/v1/models", "sk-test-0123456789")
    assert request.header("openai-project") == "p1"
    assert "kept here" not in repr(request.headers)


async def test_the_header_and_its_form_are_the_providers(transport: Transport, upstream: Upstream) -> None:
    row = replace(ROW, auth=(AuthMethod(header="x-api-key", format="{key}"),))
    await trial.test(transport, row, upstream.url, {}, Secret("a{key}b"))
    assert upstream.received[0].header("x-api-key") == "a{key}b"
    assert upstream.received[0].header("authorization") is None


async def test_without_a_secret_no_credential_is_sent(transport: Transport, upstream: Upstream) -> None:
    await trial.test(transport, replace(ROW, key_optional=True), upstream.url, {}, Secret(""))
    assert upstream.received[0].header("authorization") is None


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (list_models, "valid"),
        (unauthorized, "invalid_key"),
        (refuse(400, "API key not valid."), "invalid_key"),
        (status(403), "no_model_access"),
        (status(402), "valid"),
        (status(404), "unknown"),
        (status(429), "unknown"),
        (status(500), "unknown"),
        (raw(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"), "network"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"), "network"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx"), "network"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"), "network"),
        (raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), "network"),
        (raw(b""), "network"),
    ],
)
async def test_what_the_answer_means(
    transport: Transport, upstream: Upstream, behaviour: Behaviour, outcome: str
) -> None:
    result = await answered(transport, upstream, behaviour)
    assert result.outcome == outcome, result.message
    assert result.message


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (quota, "valid"),
        (refuse(402, "Payment required"), "valid"),
        (refuse(403, "Blocked", "billing_hard_limit_reached"), "valid"),
        (refuse(429, "Slow down", "rate_limit_exceeded"), "unknown"),
        (refuse(400, "There is no such parameter"), "unknown"),
        (refuse(400, "Bad request", "API_KEY_INVALID"), "invalid_key"),
        (refuse(403, "Invalid", "invalid_api_key"), "invalid_key"),
        (refuse(403, "Not here", "unsupported_country_region_territory"), "unknown"),
        (refuse(404, "The model `x` does not exist"), "unknown"),
    ],
)
async def test_a_key_is_judged_by_what_is_said_of_it(
    transport: Transport, upstream: Upstream, behaviour: Behaviour, outcome: str
) -> None:
    result = await answered(transport, upstream, behaviour)
    assert result.outcome == outcome, result.message
    assert ("accepts the key, but its account is out of money" in result.message) is (outcome == "valid")


async def test_a_test_that_is_a_call_says_when_its_model_is_not_the_keys(
    transport: Transport, upstream: Upstream
) -> None:
    row = replace(ROW, test=Probe("/chat/completions", "POST", body=b'{"model":"m","max_tokens":1}'))
    assert (await answered(transport, upstream, answers.answer(), row)).outcome == "valid"
    (request,) = upstream.received
    assert (request.method, request.target, request.model) == ("POST", "/v1/chat/completions", "m")
    assert request.header("content-type") == "application/json"
    gone = refuse(404, "Function '1': Not found for account")
    assert (await answered(transport, upstream, gone, row)).outcome == "no_model_access"
    nothing = raw(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")
    assert (await answered(transport, upstream, nothing, row)).outcome == "unknown", "nobody speaks the API there"


async def test_a_test_may_sign_in_in_a_way_of_its_own(transport: Transport, upstream: Upstream) -> None:
    row = replace(ROW, test=Probe("{origin}/me", auth=AuthMethod(header="x-api-key", format="{key}")))
    await trial.test(transport, row, upstream.url, {}, Secret(KEY))
    (request,) = upstream.received
    assert (request.target, request.header("x-api-key"), request.header("authorization")) == ("/me", KEY, None)


async def test_an_answer_that_anybody_gets_proves_nothing(transport: Transport, upstream: Upstream) -> None:
    row = replace(ROW, test=Probe("/models", proves=False))
    assert (await answered(transport, upstream, list_models, row)).outcome == "unknown"
    assert (await answered(transport, upstream, unauthorized, row)).outcome == "invalid_key"


@pytest.mark.parametrize("name", ["vllm", "lmstudio", "llamacpp"])
async def test_a_server_that_takes_any_key_is_told_from_one_that_accepts_this_one(
    transport: Transport, upstream: Upstream, name: str
) -> None:
    row = catalog.load().get(name)
    upstream.keys = {KEY}
    result = await trial.test(transport, row, upstream.url, {}, Secret(KEY))
    assert (result.outcome, result.message) == ("valid", f"{row.name} accepts the key.")
    assert [one.key for one in upstream.received] == [KEY, None]
    assert (await trial.test(transport, row, upstream.url, {}, Secret("another-0123456789"))).outcome == "invalid_key"
    upstream.keys = None
    result = await trial.test(transport, row, upstream.url, {}, Secret(KEY))
    assert (result.outcome, "it takes any" in result.message) == ("valid", True)
    upstream.received.clear()
    assert (await trial.test(transport, row, upstream.url, {}, Secret(""))).outcome == "valid"
    assert [one.key for one in upstream.received] == [None]


@pytest.mark.parametrize("proves", [True, False])
@pytest.mark.parametrize("code", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_not_the_api(transport: Transport, upstream: Upstream, code: int, *, proves: bool) -> None:
    head = b"HTTP/1.1 %d Moved\r\nlocation: %b/elsewhere\r\n" % (code, upstream.origin.encode())
    row = replace(ROW, test=Probe("/models", proves=proves))
    result = await answered(transport, upstream, raw(head + b"content-length: 0\r\n\r\n"), row)
    assert (result.outcome, f"answered {code}, a redirect" in result.message) == ("network", True)
    assert len(upstream.received) == 1, "it is not followed"


async def test_a_real_server_tells_its_keys_from_others(llama: Llama) -> None:
    row = catalog.load().get("llamacpp")
    made = Transport(Egress([llama.origin]))
    await made.open()
    try:
        found = [(await trial.test(made, row, llama.url, {}, Secret(key))).outcome for key in (llama.key, KEY, "")]
    finally:
        await made.close()
    assert found == ["valid", "invalid_key", "invalid_key"]


async def test_the_message_is_the_providers_without_what_it_gives_away(
    transport: Transport, upstream: Upstream, canaries: Canaries
) -> None:
    secret = canaries.plant("sk-")
    result = await answered(transport, upstream, unauthorized, secret=secret)
    assert result.outcome == "invalid_key"
    assert "Incorrect API key" in result.message
    for hidden in (secret, ORGANIZATION, "billing@owner.example"):
        assert hidden not in result.message


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b"[" * 100_000, b'{"error": 5}', b'{"error": {"message": null}}', b"\xff\xfe"],
)
async def test_any_body_of_an_error_is_survived(transport: Transport, upstream: Upstream, body: bytes) -> None:
    head = b"HTTP/1.1 401 No\r\ncontent-length: %d\r\n\r\n" % len(body)
    result = await answered(transport, upstream, raw(head, body))
    assert (result.outcome, result.message) == ("invalid_key", "OpenAI answered 401.")


async def test_where_nobody_listens_it_is_the_network(transport: Transport, upstream: Upstream) -> None:
    result = await trial.test(transport, ROW, "http://127.0.0.1:1/v1", {}, Secret("sk-test-0123456789"))
    assert result.outcome == "network"
    assert upstream.received == []
