"""Every row that can be called, against a server that behaves as its provider does: it demands what is written in
`catalog_facts.py`, and knows nothing of the catalogue.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from ostiary.errors import Refusal
from ostiary.providers import catalog
from ostiary.providers.address import url_of
from ostiary.providers.auth import headers
from ostiary.providers.catalog import Provider
from ostiary.providers.egress import Egress
from ostiary.providers.openai import OpenAI
from ostiary.providers.transport import Answer, Transport
from ostiary.secret import Secret
from ostiary.vault import trial
from ostiary.vault.fields import checked_auth, checked_fields, checked_target
from tests.contract.catalog_facts import DEMANDS, Demand, refusal_of
from tests.servers.upstream import Behaviour, Exchange, Received, Upstream
from tests.servers.wire import whole

GOOD, BAD = "k{model}-Good_0123456789abcdef", "k-Bad_0123456789abcdef"
LOCAL = [f"http://localhost:{port}" for port in (11434, 8000, 1234, 8080)]
ROWS = catalog.load()
EVERY = pytest.mark.parametrize("name", DEMANDS)
LIMIT = 64
CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")


# ---- a provider -------------------------------------------------------------------------------------------------


def place_of(url: str) -> str:
    """Path and query, as the first line of a request has them."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


class Server:
    """Takes what it demands and answers anything else as its provider would, remembering why."""

    def __init__(self, provider: str, demand: Demand, status: int) -> None:
        self.provider = provider
        self.demand = demand
        self.status = status
        self.faults: list[str] = []

    def choose(self, request: Received) -> Behaviour:
        demand = self.demand
        test = (request.method, request.target) == (demand.test_method, place_of(demand.test))
        call = (request.method, request.target) == ("POST", place_of(demand.call))
        if test and (not call or request.json == demand.test_body):
            return self._tested(request)
        if call:
            return self._called(request)
        return self._wrong(404, f"nobody is at {request.method} {request.target}")

    def _tested(self, request: Received) -> Behaviour:
        demand = self.demand
        if demand.test_body is not None and (
            request.json != demand.test_body or request.header("content-type") != "application/json"
        ):
            return self._wrong(400, f"the test says {request.body!r}")
        if not self._is_signed(request, demand.test_sign or demand.sign) and not demand.is_open:
            return _say(self.status, refusal_of(self.provider, self.status))
        return self._with_headers(request) or _say(200, b'{"object":"list","data":[]}')

    def _called(self, request: Received) -> Behaviour:
        if not self._is_signed(request, self.demand.sign):
            return _say(self.status, refusal_of(self.provider, self.status))
        body = request.json
        if body.get("model") != self.demand.model:
            return self._wrong(404, f"there is no model {body.get('model')!r}")
        if self.demand.operation == "chat" and (wrong := self._wrong_in_chat(body)):
            return self._wrong(400, wrong)
        return self._with_headers(request) or _say(200, json.dumps({"seen": body}).encode())

    def _wrong_in_chat(self, body: dict[str, Any]) -> str | None:
        limits = {name: body[name] for name in ("max_tokens", "max_completion_tokens") if name in body}
        if limits != {self.demand.limit: LIMIT}:
            return f"the limits are {limits}"
        options = body.get("stream_options")
        if self.demand.tells == "always" and options is not None:
            return "stream_options are not taken"
        if self.demand.tells == "ask" and body.get("stream") and options != {"include_usage": True}:
            return f"nothing would be counted: {options}"
        return None

    def _is_signed(self, request: Received, sign: tuple[str, str]) -> bool:
        name, form = sign
        others = [other for other in CREDENTIALS if other != name and request.header(other) is not None]
        if others:
            self.faults.append(f"a credential came in {others}, too")
        return request.header(name) == form.replace("{}", GOOD)

    def _with_headers(self, request: Received) -> Behaviour | None:
        missing = {name: request.header(name) for name, value in self.demand.headers.items()
                   if request.header(name) != value}  # fmt: skip
        return self._wrong(400, f"headers are {missing}") if missing else None

    def _wrong(self, status: int, why: str) -> Behaviour:
        self.faults.append(why)
        return _say(status, json.dumps({"detail": "Not Found" if status == 404 else why}).encode())


def _say(status: int, body: bytes) -> Behaviour:
    async def speak(exchange: Exchange) -> None:
        await exchange.send(whole(status, body))

    return speak


# ---- our side ---------------------------------------------------------------------------------------------------


class Caller:
    """A key of the row, and calls with it as the vault and the gateway make them: to the local server."""

    def __init__(self, upstream: Upstream, transport: Transport, name: str) -> None:
        self.demand = DEMANDS[name]
        self.row = ROWS.get(name.partition(",")[0])
        self.upstream, self.transport = upstream, transport
        egress = Egress(LOCAL)
        self.auth = checked_auth(self.row, self.demand.auth)
        self.fields = checked_fields(self.row, self.demand.fields, self.auth, self.demand.region)
        target = checked_target(self.demand.region, self.row, egress, self.fields)
        self.base_url = target.url
        self.local_url = upstream.origin + target.url.removeprefix(target.origin)

    def behave(self, status: int) -> Server:
        server = Server(self.row.id, self.demand, status)
        self.upstream.choose = server.choose
        return server

    async def test(self, key: str) -> trial.TestResult:
        return await trial.test(self.transport, self.row, self.local_url, self.fields, Secret(key), self.auth)

    async def call(self, key: str, **more: object) -> tuple[Answer, Any]:
        dialect, operation = OpenAI(), self.demand.operation
        ask = dialect.read_ask(operation, json.dumps(BODIES[operation] | more).encode())
        limit = LIMIT if operation == "chat" else None
        body = dialect.write_body(ask, self.row, self.demand.model, limit)
        assert isinstance(body, bytes)
        url = url_of(self.row, self.local_url, self.fields, operation, dialect.path_of(operation), self.demand.model)
        sent = [*headers(self.row, self.fields, Secret(key), self.auth), ("content-type", "application/json")]
        answer = await self.transport.send("POST", url, sent, body)
        return answer, json.loads(await answer.read(100_000))


BODIES: dict[str, dict[str, object]] = {
    "chat": {"model": "x", "messages": [{"role": "user", "content": "Hi"}], "seed": 7},
    "embeddings": {"model": "x", "input": "Hi", "seed": 7},
    "images.generations": {"model": "x", "prompt": "a door", "seed": 7},
    "responses": {"model": "x", "input": "Hi", "seed": 7},
    "rerank": {"model": "x", "query": "door", "documents": ["a", "b"], "seed": 7},
}


@pytest.fixture
async def caller(upstream: Upstream) -> AsyncIterator[Callable[[str], Caller]]:
    transport = Transport(Egress([upstream.origin]))
    await transport.open()
    yield lambda name: Caller(upstream, transport, name)
    await transport.close()


# ---- what holds -------------------------------------------------------------------------------------------------


def test_every_row_that_can_be_called_is_demanded_something_of() -> None:
    called = {row.id for row in ROWS.search() if row.callable}
    assert called == {name.partition(",")[0] for name in DEMANDS}
    assert len(called) >= 45


@EVERY
async def test_the_addresses_are_the_providers(caller: Callable[[str], Caller], name: str) -> None:
    one = caller(name)
    path = OpenAI().path_of(one.demand.operation)
    assert one.demand.operation in one.row.operations
    assert url_of(one.row, one.base_url, one.fields, one.demand.operation, path, one.demand.model) == one.demand.call
    assert Egress(LOCAL).check_url(one.demand.call).url == one.demand.call


@EVERY
async def test_a_good_key_and_a_bad_one_are_told_apart(caller: Callable[[str], Caller], name: str) -> None:
    one = caller(name)
    for status in one.demand.bad:
        server = one.behave(status)
        good, bad = await one.test(GOOD), await one.test(BAD)
        assert server.faults == []
        if one.demand.is_open:
            assert (good.outcome, bad.outcome) == ("unknown", "unknown"), good.message
            assert "only a call proves the key" in good.message
        else:
            assert (good.outcome, bad.outcome) == ("valid", "invalid_key"), (status, good.message, bad.message)
        assert BAD not in bad.message


@EVERY
async def test_a_call_arrives_as_the_provider_demands(caller: Callable[[str], Caller], name: str) -> None:
    one = caller(name)
    server = one.behave(one.demand.bad[0])
    answer, said = await one.call(GOOD)
    assert server.faults == []
    assert answer.status == 200
    assert said["seen"]["seed"] == 7, "what we do not know passes through"
    refused, _ = await one.call(BAD)
    assert (refused.status, server.faults) == (one.demand.bad[0], [])
    if one.demand.operation == "chat":
        streamed, said = await one.call(GOOD, stream=True, max_tokens=LIMIT)
        assert (streamed.status, server.faults) == (200, [])
        assert said["seen"]["stream"] is True


async def test_the_server_finds_what_is_wrong(caller: Callable[[str], Caller]) -> None:
    """It is not one that takes anything: neither another path, nor header, nor limit."""
    one = caller("azure-openai, classic")
    server = one.behave(401)
    one.fields = {}
    answer, _ = await one.call(GOOD)
    assert answer.status == 404
    assert server.faults.pop().startswith("nobody is at")
    one = caller("mistral")
    server = one.behave(401)
    one.row = ROWS.get("openai")
    answer, _ = await one.call(GOOD)
    assert (answer.status, server.faults.pop()) == (400, f"the limits are {{'max_completion_tokens': {LIMIT}}}")
    one = caller("anthropic")
    server = one.behave(401)
    one.row = ROWS.get("openai")
    assert (await one.test(GOOD)).outcome == "invalid_key"
    assert server.faults == ["a credential came in ['authorization'], too"]


NOT_CALLED = [row for row in ROWS.search() if not row.callable]


@pytest.mark.parametrize("row", NOT_CALLED, ids=lambda row: str(row.id))
def test_the_others_say_why(row: Provider) -> None:
    assert row.id not in DEMANDS
    assert row.reason
    assert not row.reason.endswith("."), "it stands within a sentence"
    assert not row.operations, "nothing may be routed there"


@pytest.mark.parametrize(
    ("id", "auth"),
    [(row.id, method.id) for row in ROWS.search() for method in row.auth if not method.callable],
)
def test_sign_ins_that_are_not_built_are_refused(id: str, auth: str) -> None:
    row = ROWS.get(id)
    with pytest.raises(Refusal, match=r"not built yet|not offered") as caught:
        checked_auth(row, auth)
    assert (caught.value.code, caught.value.param) == ("invalid_field", "auth")
    assert row.callable is False or row.auth[0].callable, "the first method is the one for those who choose none"
