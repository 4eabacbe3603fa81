"""Testing a connection: the provider's cheapest call over real HTTP, and what its answer means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ostiary.providers.catalog import Field, Probe, Provider
from ostiary.providers.egress import Egress
from ostiary.providers.transport import Transport
from ostiary.secret import Secret
from ostiary.vault import provider_keys
from tests.servers.behaviours import list_models, raw, refuse, status, unauthorized
from tests.servers.canaries import Canaries
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
) -> provider_keys.TestResult:
    upstream.choose = lambda _request: behaviour
    return await provider_keys.test(transport, row, upstream.url, {}, Secret(secret))


async def test_the_call_carries_the_key_and_the_fields(transport: Transport, upstream: Upstream) -> None:
    fields = {"project": "p1", "note": "kept here"}
    result = await provider_keys.test(transport, ROW, upstream.url + "/", fields, Secret("sk-test-0123456789"))
    assert result.outcome == "valid"
    (request,) = upstream.received
    assert (request.method, request.target, request.key) == ("GET", "/v1/models", "sk-test-0123456789")
    assert request.header("openai-project") == "p1"
    assert "kept here" not in repr(request.headers)


async def test_the_header_and_its_form_are_the_providers(transport: Transport, upstream: Upstream) -> None:
    row = replace(ROW, auth_header="x-api-key", auth_format="{key}")
    await provider_keys.test(transport, row, upstream.url, {}, Secret("a{key}b"))
    assert upstream.received[0].header("x-api-key") == "a{key}b"
    assert upstream.received[0].header("authorization") is None


async def test_without_a_secret_no_credential_is_sent(transport: Transport, upstream: Upstream) -> None:
    await provider_keys.test(transport, replace(ROW, key_optional=True), upstream.url, {}, Secret(""))
    assert upstream.received[0].header("authorization") is None


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (list_models, "valid"),
        (unauthorized, "invalid_key"),
        (refuse(400, "API key not valid."), "invalid_key"),
        (status(403), "no_model_access"),
        (status(402), "unknown"),
        (status(404), "unknown"),
        (status(429), "unknown"),
        (status(500), "unknown"),
        (raw(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"), "unknown"),
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


async def test_an_answer_that_anybody_gets_proves_nothing(transport: Transport, upstream: Upstream) -> None:
    row = replace(ROW, test=Probe("/models", proves=False))
    assert (await answered(transport, upstream, list_models, row)).outcome == "unknown"
    assert (await answered(transport, upstream, unauthorized, row)).outcome == "invalid_key"


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
    result = await provider_keys.test(transport, ROW, "http://127.0.0.1:1/v1", {}, Secret("sk-test-0123456789"))
    assert result.outcome == "network"
    assert upstream.received == []
