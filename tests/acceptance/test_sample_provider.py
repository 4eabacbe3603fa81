"""The sample provider behaves as an OpenAI-compatible server does, and never pretends to be a model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest

from ostiary.cli.sample import CHAT_MODEL, EMBEDDING_MODEL, sample_provider
from ostiary.clock import SystemClock
from ostiary.secret import Secret

pytestmark = [pytest.mark.anyio, pytest.mark.main_job]

KEY = "sample-key"
MESSAGES: list[Any] = [{"role": "user", "content": "Who keeps the door?"}]


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        sample_provider(Secret(KEY), SystemClock()) as base_url,
        httpx2.AsyncClient(base_url=base_url, headers={"authorization": f"Bearer {KEY}"}) as one,
    ):
        yield one


async def chat(client: httpx2.AsyncClient, **more: Any) -> httpx2.Response:
    return await client.post("chat/completions", json={"model": CHAT_MODEL, "messages": MESSAGES, **more})


async def test_only_its_own_key_opens_it(client: httpx2.AsyncClient) -> None:
    assert (await client.get("models")).status_code == 200
    for given in ("Bearer other", "Bearer", KEY, f"Bearer {KEY}x", "Bearer s\u00e4mple"):
        answer = await client.get("models", headers={b"authorization": given.encode()})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_it_says_that_there_is_no_model_and_counts_its_tokens(client: httpx2.AsyncClient) -> None:
    body = (await chat(client)).json()
    (choice,) = body["choices"]
    text = "This is the sample provider; there is no model behind it. You said: Who keeps the door?"
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
    assert body["usage"]["completion_tokens"] == len(text.split(" "))
    assert 0 < body["usage"]["prompt_tokens"] <= len(json.dumps(MESSAGES))
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_it_keeps_to_the_limit(client: httpx2.AsyncClient, field: str) -> None:
    body = (await chat(client, **{field: 3})).json()
    assert body["choices"][0]["message"]["content"] == "This is the"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_ends_with_usage_only_when_asked(client: httpx2.AsyncClient, *, asked: bool) -> None:
    answer = await chat(client, stream=True, max_tokens=2, stream_options={"include_usage": asked})
    assert answer.headers["content-type"] == "text/event-stream"
    *events, done = answer.text.strip().split("\n\n")
    assert done == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    said = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]
    assert "".join(said) == "This is"
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")] == ([2] if asked else [])


async def test_the_official_sdk_reads_its_embeddings(client: httpx2.AsyncClient) -> None:
    async with openai.AsyncOpenAI(base_url=str(client.base_url), api_key=KEY) as sdk:
        packed = await sdk.embeddings.create(model=EMBEDDING_MODEL, input=["a", "b", "a"], dimensions=5)
        plain = await sdk.embeddings.create(model=EMBEDDING_MODEL, input="a", encoding_format="float")
    vectors = [one.embedding for one in packed.data]
    assert [len(vector) for vector in vectors] == [5, 5, 5]
    assert vectors[0] == vectors[2] != vectors[1]
    assert plain.data[0].embedding[:5] == pytest.approx(vectors[0])
    assert all(-1 <= number <= 1 for vector in vectors for number in vector)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("chat/completions", b"{", 400),
        ("chat/completions", b"[]", 400),
        ("chat/completions", b'{"model": "gpt-4o"}', 404),
        ("chat/completions", b'{"model": "sample-chat"}', 400),
        ("chat/completions", b'{"model": "sample-chat", "messages": []}', 400),
        ("chat/completions", b'{"model": "sample-chat", "messages": ["x"]}', 400),
        ("chat/completions", b'{"model": "sample-chat", "messages": [{}], "max_tokens": 0}', 400),
        ("chat/completions", b'{"model": "sample-chat", "messages": [{}], "max_tokens": true}', 400),
        ("embeddings", b'{"model": "sample-chat", "input": "x"}', 404),
        ("embeddings", b'{"model": "sample-embedding"}', 400),
        ("embeddings", b'{"model": "sample-embedding", "input": []}', 400),
        ("embeddings", b'{"model": "sample-embedding", "input": "x", "dimensions": 100000}', 400),
    ],
)
async def test_it_refuses_what_it_cannot_answer(
    client: httpx2.AsyncClient, path: str, body: bytes, status: int
) -> None:
    answer = await client.post(path, content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_it_answers_other_operations_and_says_what_it_is() -> None:
    async with (
        sample_provider(Secret(KEY), SystemClock()) as base_url,
        openai.AsyncOpenAI(base_url=base_url, api_key=KEY, max_retries=0) as sdk,
    ):
        response = await sdk.responses.create(model=CHAT_MODEL, input="Who keeps the door?")
        assert "there is no model behind it" in response.output_text
        assert response.usage
        assert response.usage.output_tokens > 1
        events = [one async for one in await sdk.responses.create(model=CHAT_MODEL, input="x", stream=True)]
        assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
        completion = await sdk.completions.create(model=CHAT_MODEL, prompt="x", max_tokens=3)
        assert (completion.choices[0].finish_reason, completion.usage and completion.usage.completion_tokens) == (
            "length",
            3,
        )
        assert len((await sdk.images.generate(model=CHAT_MODEL, prompt="x", n=2)).data or []) == 2
        assert not (await sdk.moderations.create(model=CHAT_MODEL, input="x")).results[0].flagged
        sound = await sdk.audio.speech.create(model=CHAT_MODEL, input="x", voice="alloy")
        assert sound.content.startswith(b"RIFF")
