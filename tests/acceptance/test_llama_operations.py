"""Responses and completions of a real LLM server, through the gateway, with the official SDK."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai
import pytest

from ostiary.agents.agent_keys import NewAgentKey
from tests.acceptance import inside
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, making
from tests.servers.llama import Llama
from tests.servers.shell import Shell

MODEL = "openai-compatible/tiny"
ON: Any = {"ignore_eos": True}


@pytest.fixture(scope="module", name="house")
def the_house(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, llama: Llama
) -> Iterator[Gateway]:
    with making(tmp_path_factory.mktemp("operations"), canaries, shell) as maker:
        gateway = maker(allow=[llama.origin])
        gateway.add_provider_key("openai-compatible", "llama", llama.url, llama.key)
        inside.set_prices(gateway, MODEL, input_usd=1, output_usd=2)
        yield gateway


@pytest.fixture(name="client")
def the_client(house: Gateway, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    (key,) = inside.mint(house, NewAgentKey(name=request.node.name[:60]))
    with openai.OpenAI(base_url=house.url, api_key=key.secret, max_retries=0) as client:
        yield client


def check(house: Gateway, headers: Any, given: int, made: int) -> None:
    (event,) = inside.events(house, headers["x-request-id"])
    assert (event["input_tokens"], event["output_tokens"], event["usage_source"]) == (given, made, "provider")
    assert Decimal(event["cost_nano"]) / inside.USD == Decimal(given + 2 * made) / 1_000_000


def test_a_completion(house: Gateway, client: openai.OpenAI) -> None:
    raw = client.completions.with_raw_response.create(model=MODEL, prompt="The door", max_tokens=6, extra_body=ON)
    usage = raw.parse().usage
    assert usage
    assert usage.completion_tokens == 6
    check(house, raw.headers, usage.prompt_tokens, 6)


def test_a_streamed_completion(house: Gateway, client: openai.OpenAI) -> None:
    with client.completions.with_streaming_response.create(
        model=MODEL, prompt="The door", max_tokens=6, extra_body=ON, stream=True
    ) as raw:
        chunks = list(raw.parse())
        assert chunks[-1].choices[0].finish_reason == "length"
        (event,) = inside.events(house, raw.headers["x-request-id"])
    assert (event["output_tokens"], event["status"]) == (6, "ok")


@pytest.mark.main_job
def test_a_response(house: Gateway, client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(
        model=MODEL, input="Who keeps the door?", max_output_tokens=6, extra_body=ON
    )
    answer = raw.parse()
    assert answer.usage
    assert answer.usage.output_tokens == 6
    check(house, raw.headers, answer.usage.input_tokens, 6)


@pytest.mark.main_job
def test_a_streamed_response(house: Gateway, client: openai.OpenAI) -> None:
    with client.responses.with_streaming_response.create(
        model=MODEL, input="Who keeps the door?", max_output_tokens=6, extra_body=ON, stream=True
    ) as raw:
        events = list(raw.parse())
        last = events[-1]
        assert last.type in ("response.completed", "response.incomplete")
        assert last.response.usage
        check(house, raw.headers, last.response.usage.input_tokens, last.response.usage.output_tokens)
    assert any(event.type == "response.output_text.delta" for event in events)
