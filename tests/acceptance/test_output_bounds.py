"""What a hard budget pays for is what a provider is told: every answer has a bound, and one that is too long is less.

The provider here answers for as long as it may, and 128,000 tokens where nobody says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.limits.budgets import Budget
from tests.acceptance.inside import USD, Key, events_of, mint, set_prices, spent
from tests.servers.behaviours import refuse
from tests.servers.gateway import Gateway
from tests.servers.upstream import Behaviour, Exchange, Received, Upstream
from tests.servers.waiting import until
from tests.servers.wire import LAST, completion, events, framed, stream_head, usage, whole

CHAT = "/v1/chat/completions"
UNTOLD = 128_000
FIRST_TRY = 32_768
MODELS = [f"openai-compatible/{name}" for name in ("spent", "self", "free", "own", "else", "prompt")]
STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def bound_of(request: Received) -> int | None:
    """What a provider was told of the length of an answer."""
    told = [request.json[name] for name in ("max_tokens", "max_completion_tokens") if name in request.json]
    assert len(told) <= 1, "which of two is heeded is not known"
    return told[0] if told else None


async def as_long_as_it_may(exchange: Exchange) -> None:
    """Uses all that it was told, in each choice."""
    request = exchange.request
    bound = bound_of(request)
    output = (UNTOLD if bound is None else min(bound, UNTOLD)) * request.json.get("n", 1)
    figures = usage(completion_tokens=output, total_tokens=output + 11)
    if request.json.get("stream"):
        await exchange.send(stream_head(), *map(framed, events(request, figures)), LAST)
    else:
        await exchange.send(whole(200, json.dumps(completion(request, figures)).encode()))


async def gated(exchange: Exchange) -> None:
    """The same, once all are here."""
    await exchange.gate()
    await as_long_as_it_may(exchange)


def at_most(limit: int, message: str, status: int = 400) -> Behaviour:
    """Refuses a larger bound in these words; `{asked}` and `{limit}` are filled in."""

    async def speak(exchange: Exchange) -> None:
        asked = bound_of(exchange.request)
        if asked is not None and asked > limit:
            await refuse(status, message.format(asked=asked, limit=limit), "invalid_value")(exchange)
        else:
            await as_long_as_it_may(exchange)

    return speak


@pytest.fixture(scope="module")
def gateway(shared_gateway: Gateway, shared_upstream: Upstream) -> Gateway:
    shared_gateway.add_provider_key("openai", "openai", shared_upstream.url)
    set_prices(shared_gateway, *MODELS, input_usd=1, output_usd=10)
    mint(shared_gateway, NewAgentKey("heard"))
    return shared_gateway


@pytest.fixture
def provider(shared_upstream: Upstream) -> Iterator[Upstream]:
    """Long-winded, and without the calls of the test before."""
    usual, shared_upstream.choose = shared_upstream.choose, lambda _request: as_long_as_it_may
    shared_upstream.received.clear()
    shared_upstream.gate.clear()
    yield shared_upstream
    shared_upstream.choose = usual


def key_of(gateway: Gateway, name: str, usd: int | None = 5) -> Key:
    (key,) = mint(gateway, NewAgentKey(name, budget=Budget("total", usd * USD) if usd else None))
    return key


def ask(gateway: Gateway, key: Key, model: str, headers: dict[str, str] | None = None, **more: Any) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Tell me everything."}], **more}
    return gateway.client().post(CHAT, json=body, headers={**key.bearer, **(headers or {})})


# ---- no more than is paid for -----------------------------------------------------------------------------------


@pytest.mark.main_job
@STREAM
@pytest.mark.parametrize("choices", [1, 2])
def test_calls_at_once_never_spend_more_than_the_cap(
    gateway: Gateway, provider: Upstream, choices: int, *, stream: bool
) -> None:
    """Two dollars a choice are six answers of the first length, and not even two of those that nobody bounds."""
    cap = 2 * choices
    key = key_of(gateway, f"spent {choices} {stream}", usd=cap)
    provider.choose = lambda _request: gated
    more: dict[str, Any] = {"stream": stream, **({"n": choices} if choices > 1 else {})}
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, gateway, key, MODELS[0], **more) for _ in range(8)]
        provider.wait_for(6)
        provider.gate.set()
        answers = [one.result(30) for one in asked]
    assert {answer.status_code for answer in answers} <= {200, 402}
    served = [answer for answer in answers if answer.status_code == 200]
    bounds = [bound_of(call) for call in provider.calls]
    assert len(bounds) == len(served)
    assert all(bound is not None and bound <= FIRST_TRY for bound in bounds), bounds
    assert FIRST_TRY in bounds
    assert any("x-ostiary-max-tokens-capped" not in answer.headers for answer in served), "not all holds did shrink"
    costs = [event["cost_nano"] for event in events_of(gateway, key, len(served))]
    assert cap * USD // 2 < sum(costs) == spent(gateway, key) <= cap * USD


@STREAM
def test_the_bound_is_put_where_the_provider_heeds_it(gateway: Gateway, provider: Upstream, *, stream: bool) -> None:
    key = key_of(gateway, f"field {stream}", usd=50)
    assert ask(gateway, key, "openai/gpt-4o", stream=stream).status_code == 200
    (call,) = provider.calls
    assert "max_tokens" not in call.json
    assert 0 < call.json["max_completion_tokens"] <= FIRST_TRY


def test_a_call_that_caps_itself_is_bound_too(gateway: Gateway, provider: Upstream) -> None:
    key = key_of(gateway, "self", usd=None)
    answer = ask(gateway, key, MODELS[1], {"x-ostiary-max-cost-usd": "1"})
    assert answer.status_code == 200
    assert bound_of(provider.calls[0]) == FIRST_TRY
    assert "x-ostiary-max-tokens-capped" not in answer.headers
    assert float(answer.headers["x-ostiary-cost-usd"]) <= 1


def test_where_nothing_is_bound_nothing_is_said(gateway: Gateway, provider: Upstream) -> None:
    assert ask(gateway, key_of(gateway, "free", usd=None), MODELS[2]).status_code == 200
    assert bound_of(provider.calls[0]) is None


# ---- more than the model can ------------------------------------------------------------------------------------


@STREAM
@pytest.mark.parametrize(
    ("limit", "message", "status"),
    [
        (
            16_384,
            (
                "max_tokens is too large: {asked}. This model supports at most {limit} completion tokens, "
                "whereas you provided {asked}."
            ),
            400,
        ),
        (
            8_192,
            "max_tokens: {asked} > {limit}, which is the maximum allowed number of output tokens for m-20241022",
            400,
        ),
        (8_192, "Invalid max_tokens value, the valid range of max_tokens is [1, {limit}]", 422),
        (4_096, "`max_tokens` must be less than or equal to {limit}.", 400),
        (
            4_000,
            (
                "This model's maximum context length is 4096 tokens. However, you requested {asked} tokens "
                "(96 in the messages, {asked} in the completion). Please reduce the length."
            ),
            400,
        ),
    ],
    ids=["openai", "anthropic", "deepseek", "a full stop", "context"],
)
def test_a_provider_that_can_less_is_asked_for_less_and_from_then_on_at_once(
    gateway: Gateway, provider: Upstream, limit: int, message: str, status: int, *, stream: bool
) -> None:
    model = f"openai-compatible/learns-{limit}-{len(message)}-{stream}"
    set_prices(gateway, model, input_usd=1, output_usd=10)
    key = key_of(gateway, model.partition("/")[2])
    provider.choose = lambda _request: at_most(limit, message, status)
    first = ask(gateway, key, model, stream=stream)
    assert first.status_code == 200, first.text
    tried = [bound_of(call) or 0 for call in provider.calls]
    assert tried[0] == FIRST_TRY
    assert tried == sorted(set(tried), reverse=True), "each is less than the one before"
    assert limit // 4 <= tried[-1] <= limit
    assert ask(gateway, key, model, stream=stream).status_code == 200
    assert [bound_of(call) for call in provider.calls[len(tried) :]] == [tried[-1]], "it is not refused again"
    assert ask(gateway, key, model, stream=stream, max_tokens=100).status_code == 200
    assert bound_of(provider.calls[-1]) == 100


def test_a_bound_of_the_callers_own_is_passed_through_and_so_is_its_refusal(
    gateway: Gateway, provider: Upstream
) -> None:
    key = key_of(gateway, "own")
    provider.choose = lambda _request: at_most(16_384, "max_tokens is too large: {asked}. At most {limit} tokens.")
    for _ in range(2):
        answer = ask(gateway, key, MODELS[3], max_tokens=50_000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
        assert "max_tokens is too large: 50000" in answer.json()["error"]["message"]
    assert [bound_of(call) for call in provider.calls] == [50_000] * 2
    until(lambda: not gateway.client(key.secret).get("/v1/key").json()["limits"]["budget"]["spent_usd"], "free again")


def test_a_refusal_of_something_else_is_relayed_at_once(gateway: Gateway, provider: Upstream) -> None:
    provider.choose = lambda _request: refuse(400, "Invalid value for 'temperature'.")
    answer = ask(gateway, key_of(gateway, "else"), MODELS[4], temperature=9)
    assert answer.status_code == 400
    assert "temperature" in answer.json()["error"]["message"]
    assert len(provider.calls) == 1


def test_a_prompt_that_is_too_long_does_not_shorten_the_answers_of_others(gateway: Gateway, provider: Upstream) -> None:
    """No bound helps it, so it says nothing about how long an answer may be."""
    said = "This model's maximum context length is 8192 tokens. However, your messages resulted in 20000 tokens."
    provider.choose = lambda _request: refuse(400, said, "context_length_exceeded")
    assert ask(gateway, key_of(gateway, "long"), MODELS[5]).status_code == 400
    provider.choose = lambda _request: as_long_as_it_may
    provider.received.clear()
    assert ask(gateway, key_of(gateway, "short"), MODELS[5]).status_code == 200
    bound = bound_of(provider.calls[0])
    assert bound is not None
    assert bound >= 1_024
