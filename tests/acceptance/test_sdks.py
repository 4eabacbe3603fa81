"""Official SDKs with the names of endpoints and aliases as models, against a real LLM server and its several keys.

Where a model must answer in a given way, such as calling a tool, aimock stands in for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, RunConfig, Runner, function_tool
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, SecretStr
from pydantic_ai import Agent as TypedAgent
from pydantic_ai import NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.openai import OpenAIResponsesModel as OpenAITypedResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.agents.policy import choice_of
from ostiary.secret import Secret
from ostiary.vault import aliases, endpoints, provider_keys
from ostiary.vault.endpoint_changes import NewEndpoint
from ostiary.vault.endpoint_store import EndpointTarget
from ostiary.vault.provider_keys import NewProviderKey, ProviderKeyEdit
from tests.acceptance import inside
from tests.servers import aimock
from tests.servers.aimock import Aimock, Fixture
from tests.servers.canaries import Canaries
from tests.servers.gateway import Gateway, making
from tests.servers.llama import Llama
from tests.servers.shell import Shell
from tests.servers.waiting import until

pytestmark = pytest.mark.main_job

ALIAS, EMBED, OWN = "ostiary/tiny", "ostiary/tiny-embed", "our-model"
DOUBTFUL = "our-doubtful-model"
"""Of whose two provider keys one is not valid."""
TOOLS, JUDGE, WORDS = "our-tools", "our-judge", "our-words"
MEDIA = {"ostiary/draw": "dots", "ostiary/say": "voice", "our-ears": "ears"}
QUESTION = "Who keeps the door?"
TEXT = "Janus does."
GIVEN, MADE = 11, 7
USAGE = {"prompt_tokens": GIVEN, "completion_tokens": MADE}
FIXTURES: list[Fixture] = [
    {
        "match": {"model": "tooled", "hasToolResult": False},
        "response": {"toolCalls": [{"name": "keeper_of", "arguments": {"door": "west"}}], "usage": USAGE},
    },
    {"match": {"model": "tooled", "toolResultContains": "Janus"}, "response": {"content": TEXT, "usage": USAGE}},
    {
        "match": {"model": "judge"},
        "response": {
            "toolCalls": [{"name": "final_result", "arguments": {"door": "west", "state": "shut"}}],
            "usage": USAGE,
        },
    },
    {"match": {"model": "words"}, "response": {"content": TEXT, "usage": USAGE}, "chunkSize": 4},
    {"match": {"model": "dots", "endpoint": "image"}, "response": {"images": [{"b64Json": "AAAA"}] * 2}},
    {"match": {"model": "voice", "endpoint": "speech"}, "response": {"audio": "SUQzBAAA", "format": "mp3"}},
    {"match": {"model": "ears", "endpoint": "transcription"}, "response": {"transcription": {"text": TEXT}}},
]
CONVERSATIONS = 20
"""So many that each of two keys gets some of them."""
ON: Any = {"ignore_eos": True}
"""For the LLM server: to say as much as it may."""


class Verdict(BaseModel):
    """What is to be found out of a door."""

    door: Literal["east", "west"]
    state: Literal["open", "shut"]


def keeper_of(door: str) -> str:
    """Who keeps a door."""
    return f"Janus keeps the {door} door"


@dataclass(frozen=True, slots=True)
class Place:
    """The gateway of all these tests, and the LLM server behind it."""

    house: Gateway
    llama: Llama
    callers: Iterator[inside.Key]
    """Each test takes one, so that it finds its own events."""
    narrow: inside.Key
    """One that may use `OWN` only."""

    def health(self, name: str) -> list[str]:
        """What the vault says of a provider key."""
        return [one["state"] for one in self.house.json("vault", "show", name)["health"]]

    def mend(self, name: str, secret: str) -> None:
        """Another secret for a provider key, heard by the gateway."""

        async def deed(base: Any, tx: Any, organization: Any) -> None:
            one = await provider_keys.show(tx, inside.OPERATOR, organization.id, name, seal=base.seal)
            edit, at = ProviderKeyEdit(base.catalog.get(one.provider), {"secret": Secret(secret)}), base.clock.now()
            await provider_keys.change(
                tx, inside.OPERATOR, organization.id, one.id, edit, seal=base.seal, egress=base.egress, at=at
            )

        inside.do(self.house, deed)
        self.house.hear()


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory, canaries: Canaries) -> Iterator[Aimock]:
    with aimock.running(tmp_path_factory.mktemp("tools"), canaries, FIXTURES) as server:
        yield server


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    canaries: Canaries,
    shell: Shell,
    started: Path,
    llama: Llama,
    llama_embeddings: Llama,
    vendor: Aimock,
) -> Iterator[Place]:
    stored = [
        ("openai-compatible", "one", llama.keys[0], llama.url),
        ("openai-compatible", "two", llama.keys[1], llama.url),
        ("ollama", "right", llama.keys[0], llama.url),
        ("ollama", "wrong", canaries.plant(), llama.url),
        ("vllm", "vectors", llama_embeddings.key, llama_embeddings.url),
        ("openai", "tools", vendor.keys[0], vendor.url),
    ]
    named = [
        (ALIAS, "openai-compatible", llama.model),
        (OWN, "openai-compatible", llama.model),
        (DOUBTFUL, "ollama", llama.model),
        (EMBED, "vllm", llama_embeddings.model),
        (TOOLS, "openai", "tooled"),
        (JUDGE, "openai", "judge"),
        (WORDS, "openai", "words"),
        *((name, "openai", model) for name, model in MEDIA.items()),
    ]

    async def deed(base: Any, tx: Any, organization: Any) -> None:
        at = base.clock.now()
        for provider, name, secret, url in stored:
            new = NewProviderKey(name, base.catalog.get(provider), Secret(secret), url)
            await provider_keys.add(
                tx, inside.OPERATOR, organization.id, new, seal=base.seal, egress=base.egress, at=at
            )
        for name, provider, model in named:
            wish = NewEndpoint(name, [EndpointTarget(provider, model)])
            if name.startswith(aliases.OURS):
                await aliases.create(tx, inside.OPERATOR, wish, catalog=base.catalog, at=at)
            else:
                await endpoints.create(tx, inside.OPERATOR, organization.id, wish, catalog=base.catalog, at=at)

    with making(tmp_path_factory.mktemp("sdks"), canaries, shell, started) as maker:
        house = maker(allow=[llama.origin, llama_embeddings.origin, vendor.origin])
        inside.do(house, deed)
        inside.set_prices(house, *(f"{provider}/{model}" for _, provider, model in named), input_usd=1, output_usd=2)
        wishes = [NewAgentKey(name=f"caller {number}") for number in range(40)]
        *callers, narrow = inside.mint(house, *wishes, NewAgentKey(name="narrow", models=choice_of([OWN])))
        yield Place(house, llama, iter(callers), narrow)


@pytest.fixture
def key(place: Place) -> inside.Key:
    return next(place.callers)


@pytest.fixture
def client(place: Place, key: inside.Key) -> Iterator[OpenAI]:
    with OpenAI(base_url=place.house.url, api_key=key.secret, max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(place: Place, key: inside.Key) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=place.house.url, api_key=key.secret, max_retries=0) as made:
        yield made


def check(place: Place, key: inside.Key, endpoint: str, *counted: tuple[int, int], **facts: Any) -> None:
    """What a key has used: attempts that all were good, each with so many tokens by the provider's own word, priced."""
    found = inside.events_of(place.house, key, len(counted))
    assert [(row["input_tokens"], row["output_tokens"]) for row in found] == [*counted]
    expected = {"status": "ok", "endpoint": endpoint, "model_asked": endpoint, "usage_source": "provider", **facts}
    for row in found:
        assert {name: row[name] for name in expected} == expected
        assert row["cost_nano"] == 1_000 * row["input_tokens"] + 2_000 * row["output_tokens"]
        assert row["price_version"]


# ---- openai -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ALIAS, OWN])
def test_openai_chats(place: Place, key: inside.Key, client: OpenAI, name: str) -> None:
    answer = client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": QUESTION}], max_tokens=6, extra_body=ON
    )
    assert answer.usage
    assert answer.usage.completion_tokens == 6
    check(place, key, name, (answer.usage.prompt_tokens, 6), operation="chat", stream=0)


async def test_openai_chats_in_a_stream(place: Place, key: inside.Key, async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(
        model=ALIAS,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=6,
        extra_body=ON,
        stream=True,
        stream_options={"include_usage": True},
    )
    parts = [part async for part in stream]
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    usage = parts[-1].usage
    assert usage
    await asyncio.to_thread(check, place, key, ALIAS, (usage.prompt_tokens, 6), operation="chat", stream=1)


async def test_openai_responds_in_a_stream(place: Place, key: inside.Key, async_client: AsyncOpenAI) -> None:
    stream = await async_client.responses.create(
        model=ALIAS, input=QUESTION, max_output_tokens=6, extra_body=ON, stream=True
    )
    events = [event async for event in stream]
    assert any(event.type == "response.output_text.delta" for event in events)
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    usage = last.response.usage
    assert usage
    counted = usage.input_tokens, usage.output_tokens
    await asyncio.to_thread(check, place, key, ALIAS, counted, operation="responses", stream=1)


async def test_openai_puts_a_response_together(place: Place, key: inside.Key, async_client: AsyncOpenAI) -> None:
    async with async_client.responses.stream(model=WORDS, input=QUESTION) as stream:
        said = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        answer = await stream.get_final_response()
    assert len(said) > 1
    assert answer.output_text == "".join(said) == TEXT
    await asyncio.to_thread(check, place, key, WORDS, (GIVEN, MADE), operation="responses", stream=1)


async def test_openai_draws_speaks_and_hears(place: Place, key: inside.Key, async_client: AsyncOpenAI) -> None:
    draw, say, hear = MEDIA
    drawn = await async_client.images.generate(model=draw, prompt="a door", n=2)
    assert len(drawn.data or ()) == 2
    said = await async_client.audio.speech.create(model=say, input="Pass", voice="alloy")
    assert said.content.startswith(b"ID3")
    heard = await async_client.audio.transcriptions.create(model=hear, file=("speech.mp3", b"ID3" * 99))
    assert heard.text == TEXT
    rows = await asyncio.to_thread(inside.events_of, place.house, key, 3)
    assert [(row["endpoint"], row["model"], row["operation"], row["status"]) for row in rows] == [
        (draw, "dots", "images.generations", "ok"),
        (say, "voice", "audio.speech", "ok"),
        (hear, "ears", "audio.transcriptions", "ok"),
    ]
    assert (rows[0]["images"], rows[1]["characters"]) == (2, 4)
    assert rows[2]["audio_ms"] > 0


def test_openai_parses_what_a_grammar_made(place: Place, key: inside.Key, client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=OWN, messages=[{"role": "user", "content": QUESTION}], response_format=Verdict, max_tokens=200
    )
    verdict = answer.choices[0].message.parsed
    assert isinstance(verdict, Verdict)
    assert answer.usage
    check(place, key, OWN, (answer.usage.prompt_tokens, answer.usage.completion_tokens))


def test_openai_embeds(place: Place, key: inside.Key, client: OpenAI) -> None:
    answer = client.embeddings.create(model=EMBED, input=["one door", "two doors"])
    assert [len(one.embedding) for one in answer.data] == [64, 64]
    check(place, key, EMBED, (answer.usage.prompt_tokens, 0), operation="embeddings")


def test_openai_raises_its_own_errors(place: Place, client: OpenAI) -> None:
    asked: Any = {"messages": [{"role": "user", "content": QUESTION}]}
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="ostiary/tinny", **asked)
    assert unknown.value.code == "model_not_found"
    assert ALIAS in unknown.value.message, "what was probably meant"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-nobody").chat.completions.create(model=ALIAS, **asked)
    with pytest.raises(openai.PermissionDeniedError) as denied:
        client.with_options(api_key=place.narrow.secret).chat.completions.create(model=ALIAS, **asked)
    assert denied.value.code == "model_not_allowed"


def test_openai_sees_nothing_of_a_provider_key_that_is_not_valid(place: Place, key: inside.Key, client: OpenAI) -> None:
    def attempts() -> list[int]:
        answers = [
            client.chat.completions.with_raw_response.create(
                model=DOUBTFUL, messages=[{"role": "user", "content": f"Conversation {number}"}], max_tokens=2
            )
            for number in range(CONVERSATIONS)
        ]
        assert all(answer.parse().choices for answer in answers)
        return [int(answer.headers["x-ostiary-attempts"]) for answer in answers]

    def used(count: int) -> Counter[tuple[str, str]]:
        rows = inside.events_of(place.house, key, count)
        return Counter((row["provider_key_name"], row["status"]) for row in rows)

    first = sum(attempts())
    assert first > CONVERSATIONS, "the key that is not valid was tried"
    assert used(first) == {("right", "ok"): CONVERSATIONS, ("wrong", "error"): first - CONVERSATIONS}
    until(lambda: place.health("wrong") == ["disabled"], "the confirmed end of a key")
    assert sum(attempts()) == CONVERSATIONS
    place.mend("wrong", place.llama.keys[1])
    assert sum(attempts()) == CONVERSATIONS
    healed = used(first + 2 * CONVERSATIONS)
    assert healed["wrong", "ok"] > 0, "what was mended is used again"
    assert healed["wrong", "error"] == first - CONVERSATIONS
    assert healed["wrong", "ok"] + healed["right", "ok"] == 3 * CONVERSATIONS


def test_openai_is_served_by_every_key_of_the_server(place: Place, key: inside.Key, client: OpenAI) -> None:
    for number in range(CONVERSATIONS):
        client.chat.completions.create(
            model=OWN, messages=[{"role": "user", "content": f"Conversation {number}"}], max_tokens=2
        )
    assert {row["provider_key_name"] for row in inside.events_of(place.house, key, CONVERSATIONS)} == {"one", "two"}


# ---- langchain --------------------------------------------------------------------------------------------------


def chain(place: Place, key: inside.Key, model: str, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=place.house.url, api_key=SecretStr(key.secret), max_retries=0, **more)


@pytest.mark.parametrize(("through", "operation"), [(False, "chat"), (True, "responses")])
def test_langchain_invokes_and_streams(place: Place, key: inside.Key, operation: str, *, through: bool) -> None:
    model = chain(place, key, ALIAS, max_tokens=6, extra_body=ON, stream_usage=True, use_responses_api=through)
    whole = model.invoke(QUESTION)
    told = [whole.usage_metadata]
    parts = list(model.stream(QUESTION))
    streamed = parts[0]
    for part in parts[1:]:
        streamed += part
    told.append(streamed.usage_metadata)
    assert whole.text
    assert streamed.text
    counted = [(usage["input_tokens"], usage["output_tokens"]) for usage in told if usage]
    assert [made for _, made in counted] == [6, 6]
    check(place, key, ALIAS, *counted, operation=operation)


def test_langchain_calls_tools(place: Place, key: inside.Key) -> None:
    model = chain(place, key, TOOLS).bind_tools([keeper_of])
    asked = model.invoke(QUESTION)
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("keeper_of", {"door": "west"})
    result = ToolMessage(keeper_of(**call["args"]), tool_call_id=call["id"])
    assert model.invoke([HumanMessage(QUESTION), asked, result]).text == TEXT
    check(place, key, TOOLS, (GIVEN, MADE), (GIVEN, MADE), model="tooled")


async def test_langchain_embeds(place: Place, key: inside.Key) -> None:
    # Lengths are counted with a tokenizer that would be downloaded: it is told not to.
    embeddings = OpenAIEmbeddings(
        model=EMBED, base_url=place.house.url, api_key=SecretStr(key.secret), check_embedding_ctx_length=False
    )
    assert [len(one) for one in embeddings.embed_documents(["one door", "two doors"])] == [64, 64]
    ((row,)) = await asyncio.to_thread(inside.events_of, place.house, key, 1)
    assert (row["endpoint"], row["operation"], row["usage_source"]) == (EMBED, "embeddings", "provider")
    assert row["cost_nano"] == 1_000 * row["input_tokens"] > 0


# ---- openai-agents ----------------------------------------------------------------------------------------------

UNWATCHED = RunConfig(tracing_disabled=True)
"""Its traces would go to OpenAI."""


@pytest.mark.parametrize("operation", ["chat", "responses"])
async def test_an_agent_runs_a_tool(place: Place, key: inside.Key, async_client: AsyncOpenAI, operation: str) -> None:
    speak = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}[operation]
    agent = Agent("doorkeeper", model=speak(TOOLS, async_client), tools=[function_tool(keeper_of)])
    done = await Runner.run(agent, QUESTION, run_config=UNWATCHED)
    assert done.final_output == TEXT
    assert [type(item).__name__ for item in done.new_items] == [
        "ToolCallItem",
        "ToolCallOutputItem",
        "MessageOutputItem",
    ]
    usage = done.context_wrapper.usage
    assert (usage.requests, usage.input_tokens, usage.output_tokens) == (2, 2 * GIVEN, 2 * MADE)
    await asyncio.to_thread(check, place, key, TOOLS, (GIVEN, MADE), (GIVEN, MADE), operation=operation, stream=0)


@pytest.mark.parametrize("operation", ["chat", "responses"])
async def test_an_agent_runs_a_tool_in_streams(
    place: Place, key: inside.Key, async_client: AsyncOpenAI, operation: str
) -> None:
    speak = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}[operation]
    agent = Agent("doorkeeper", model=speak(TOOLS, async_client), tools=[function_tool(keeper_of)])
    run = Runner.run_streamed(agent, QUESTION, run_config=UNWATCHED)
    said = [event.type async for event in run.stream_events()]
    assert "raw_response_event" in said
    assert run.final_output == TEXT
    await asyncio.to_thread(check, place, key, TOOLS, (GIVEN, MADE), (GIVEN, MADE), operation=operation, stream=1)


# ---- pydantic-ai ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["chat", "responses"])
async def test_a_typed_agent_runs_a_tool(
    place: Place, key: inside.Key, async_client: AsyncOpenAI, operation: str
) -> None:
    speak = {"chat": OpenAIChatModel, "responses": OpenAITypedResponsesModel}[operation]
    model = speak(TOOLS, provider=OpenAIProvider(openai_client=async_client))
    done = await TypedAgent(model, tools=[keeper_of]).run(QUESTION)
    assert done.output == TEXT
    assert (done.usage.requests, done.usage.input_tokens, done.usage.output_tokens) == (2, 2 * GIVEN, 2 * MADE)
    await asyncio.to_thread(check, place, key, TOOLS, (GIVEN, MADE), (GIVEN, MADE), operation=operation)


async def test_a_typed_agent_is_answered_by_a_tool(place: Place, key: inside.Key, async_client: AsyncOpenAI) -> None:
    model = OpenAIChatModel(JUDGE, provider=OpenAIProvider(openai_client=async_client))
    done = await TypedAgent(model, output_type=Verdict).run(QUESTION)
    assert done.output == Verdict(door="west", state="shut")
    await asyncio.to_thread(check, place, key, JUDGE, (GIVEN, MADE))


async def test_a_typed_agent_is_answered_by_a_grammar(place: Place, key: inside.Key, async_client: AsyncOpenAI) -> None:
    model = OpenAIChatModel(ALIAS, provider=OpenAIProvider(openai_client=async_client))
    settings = ModelSettings(max_tokens=200)
    done = await TypedAgent(model, output_type=NativeOutput(Verdict), model_settings=settings).run(QUESTION)
    assert isinstance(done.output, Verdict)
    counted = done.usage.input_tokens, done.usage.output_tokens
    await asyncio.to_thread(check, place, key, ALIAS, counted)
