"""The main job: an agent key goes in, a provider key comes out, a real LLM answers, and the call is in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest

from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, making
from tests.servers.llama import Llama
from tests.servers.shell import Shell
from tests.servers.waiting import until

_MODEL = "openai-compatible/tiny"
_ON: Any = {"ignore_eos": True}
"""A field of llama.cpp's own, which passes through: random weights would else end some answers early."""
_QUESTION: Any = [{"role": "user", "content": "Who keeps the door?"}]


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, llama: Llama, llama_embeddings: Llama
) -> Iterator[Gateway]:
    """A gateway in front of two real llama.cpp servers, priced at $1 and $2 a million."""
    with making(tmp_path_factory.mktemp("first"), canaries, shell, forked=False) as maker:
        gateway = maker(allow=[llama.origin, llama_embeddings.origin])
        gateway.add_provider_key("openai-compatible", "llama", llama.url, llama.key)
        gateway.add_provider_key("vllm", "embeddings", llama_embeddings.url, llama_embeddings.key)
        gateway.cli("prices", "set", _MODEL, "--input", "1", "--output", "2")
        gateway.cli("prices", "set", "vllm/tiny-embed", "--input", "1", "--output", "0")
        yield gateway


@pytest.fixture(params=["agent key", "client credential"])
def secret(request: pytest.FixtureRequest, house: Gateway) -> str:
    name = f"{request.node.name[:40]}-{len(house.json('keys', 'list')) + 1}"
    if request.param == "agent key":
        return house.create_key(name, "--budget-usd", "5", "--rpm", "100", "--rpd", "1000")
    return house.create_credential(name)


@pytest.fixture
def client(house: Gateway, secret: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=house.url, api_key=secret, max_retries=0) as made:
        yield made


def _event(house: Gateway, request_id: str) -> dict[str, Any]:
    """What the ledger says of a call, once it does."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [event for event in house.traces() if event["request_id"] == request_id]
        return bool(found)

    until(is_there, f"{request_id} in the ledger")
    (event,) = found
    return event


@pytest.mark.main_job
def test_a_plain_answer_passes_and_is_written_down(house: Gateway, client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=_MODEL, messages=_QUESTION, max_tokens=12, extra_body=_ON
    )
    answer = raw.parse()
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage
    assert answer.usage.completion_tokens == 12
    cost = Decimal(answer.usage.prompt_tokens + 2 * answer.usage.completion_tokens) / 1_000_000
    assert Decimal(raw.headers["x-ostiary-cost-usd"]) == cost
    assert raw.headers["x-ostiary-provider"] == "openai-compatible"
    assert raw.headers["x-ostiary-model"] == "tiny"
    assert raw.headers["x-ostiary-attempts"] == "1"
    event = _event(house, raw.headers["x-request-id"])
    assert (event["status"], event["usage_source"], event["attempt"]) == ("ok", "provider", 1)
    assert Decimal(str(event["cost_usd"])) == cost
    assert event["tokens"]["input"] == answer.usage.prompt_tokens
    assert event["tokens"]["output"] == 12


@pytest.mark.main_job
def test_a_stream_passes_and_its_usage_is_asked_for_but_hidden(house: Gateway, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=_MODEL, messages=_QUESTION, max_tokens=12, extra_body=_ON, stream=True
    )
    chunks = list(stream)
    assert chunks
    assert all(chunk.choices for chunk in chunks), "the usage chunk was not asked for"
    assert chunks[-1].choices[0].finish_reason == "length"
    event = _event(house, stream.response.headers["x-request-id"])
    assert (event["status"], event["usage_source"], event["stream"]) == ("ok", "provider", True)
    assert event["tokens"]["output"] == 12


def test_a_stream_with_usage_gives_it_to_who_asks(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=_MODEL,
            messages=_QUESTION,
            max_tokens=5,
            extra_body=_ON,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 5
    assert chunks[-1].choices == []


@pytest.mark.anyio
async def test_the_async_client_works_as_well(house: Gateway, secret: str) -> None:
    async with openai.AsyncOpenAI(base_url=house.url, api_key=secret, max_retries=0) as client:
        answer = await client.chat.completions.create(model="tiny", messages=_QUESTION, max_tokens=3, extra_body=_ON)
        assert answer.usage
        stream = await client.chat.completions.create(
            model="tiny", messages=_QUESTION, max_tokens=4, extra_body=_ON, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "length"
    assert _event(house, stream.response.headers["x-request-id"])["tokens"]["output"] == 4


@pytest.mark.main_job
def test_embeddings_pass_and_cost_their_input(house: Gateway, client: openai.OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(model="vllm/tiny-embed", input=["the door", "the key"])
    answer = raw.parse()
    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) > 8
    event = _event(house, raw.headers["x-request-id"])
    assert (event["operation"], event["model"]) == ("embeddings", "tiny-embed")
    assert event["tokens"]["input"] == answer.usage.prompt_tokens
    assert Decimal(str(event["cost_usd"])) == Decimal(answer.usage.prompt_tokens) / 1_000_000


def test_the_sdk_lists_models_and_reads_one(client: openai.OpenAI) -> None:
    assert _MODEL in {model.id for model in client.models.list()}
    assert client.models.retrieve(_MODEL).owned_by == "openai-compatible"
    with pytest.raises(openai.NotFoundError, match="gpt-4o"):
        client.models.retrieve("gpt-4oo")


def test_embeddings_of_openai_without_its_key_say_what_is_missing(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as refused:
        client.embeddings.create(model="text-embedding-3-small", input="x")
    assert refused.value.status_code == 503
    assert refused.value.code == "no_openai_key"


@pytest.mark.usefixtures("one_day")
def test_a_key_knows_its_own_use_to_the_nano(house: Gateway) -> None:
    secret = house.create_key("own-use", "--budget-usd", "5")
    spent = Decimal(0)
    with openai.OpenAI(base_url=house.url, api_key=secret, max_retries=0) as client:
        for _ in range(3):
            raw = client.chat.completions.with_raw_response.create(
                model=_MODEL, messages=_QUESTION, max_tokens=7, extra_body=_ON
            )
            spent += Decimal(raw.headers["x-ostiary-cost-usd"])
    shown = house.client(secret).get("/v1/key").json()
    assert Decimal(str(shown["limits"]["budget"]["spent_usd"])) == spent
    assert Decimal(str(shown["limits"]["budget"]["remaining_usd"])) == 5 - spent
    usage = house.client(secret).get("/v1/usage").json()
    assert Decimal(str(usage["cost_usd"])) == spent
    assert usage["data"][0]["requests"] == 3
    printed = house.json("usage", "--key", "own-use")
    assert Decimal(str(printed[0]["cost_usd"])) == spent
