"""Addresses, formats and faults of many providers, as aimock has them, behind a real gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance import inside
from tests.acceptance.vendors import (
    AZURE,
    CALL,
    DOUBTFUL,
    GIVEN,
    MADE,
    SECOND,
    TEXT,
    Vendors,
    faulty,
    route,
    stream_tells,
    vendors_of,
)
from tests.servers.canaries import Canaries
from tests.servers.shell import Shell
from tests.servers.waiting import until

ADDRESSES = {
    "openai": "/v1/chat/completions",
    "groq": "/openai/v1/chat/completions",
    "gemini": "/v1beta/openai/chat/completions",
    "fireworks": "/inference/v1/chat/completions",
    "cohere": "/compatibility/v1/chat/completions",
    "perplexity": "/chat/completions",
    "openrouter": "/api/v1/chat/completions",
    AZURE: "/openai/deployments/steady/chat/completions?api-version=2024-10-21",
}
"""Where the chats of each arrive."""
COST = Decimal(GIVEN + 2 * MADE) / 1_000_000
"""In dollars, at 1 $ a million tokens given and 2 $ a million made."""
QUESTION: Any = [{"role": "user", "content": "Who keeps the door?"}]
BOTH = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture(scope="module")
def vendors(
    tmp_path_factory: pytest.TempPathFactory, canaries: Canaries, shell: Shell, started: Path
) -> Iterator[Vendors]:
    with vendors_of(tmp_path_factory.mktemp("vendors"), canaries, shell, started, [*ADDRESSES]) as made:
        yield made


def check(vendors: Vendors, headers: Any, cost: Decimal | str = COST, **facts: Any) -> None:
    """The only event of a call: what it cost, and what else is expected of it."""
    (event,) = inside.events(vendors.house, headers["x-request-id"])
    assert Decimal(event["cost_nano"]) / inside.USD == Decimal(cost)
    expected = {"status": "ok", "usage_source": "provider", **facts}
    assert {name: event[name] for name in expected} == expected


def check_guessed(vendors: Vendors, headers: Any, status: str) -> None:
    """The only event of a call of which the provider did not tell what it used, or not credibly."""
    (event,) = inside.events(vendors.house, headers["x-request-id"])
    assert (event["status"], event["usage_source"]) == (status, "estimated")
    assert 0 < event["cost_nano"] <= event["held_nano"]


def spoken(answer: httpx2.Response) -> str:
    """The text of a chat, whole or streamed."""
    if "event-stream" not in answer.headers["content-type"]:
        return str(answer.json()["choices"][0]["message"]["content"])
    parts = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for part in parts for choice in part.get("choices", ()))


# ---- addresses and formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ADDRESSES)
def test_a_chat_finds_its_way_by_the_row_and_is_counted(vendors: Vendors, provider: str) -> None:
    before = len(vendors.aimock.received("steady"))
    asked: Any = {"model": f"{provider}/steady", "messages": QUESTION}
    raw = vendors.openai.chat.completions.with_raw_response.create(**asked)
    assert raw.parse().choices[0].message.content == TEXT
    check(vendors, raw.headers, provider=provider, input_tokens=GIVEN, output_tokens=MADE)
    with vendors.openai.chat.completions.with_streaming_response.create(**asked, stream=True) as stream:
        parts = [part.choices[0].delta.content or "" for part in stream.parse() if part.choices]
        headers = stream.headers
    assert "".join(parts) == TEXT
    if stream_tells(provider):
        check(vendors, headers, provider=provider, input_tokens=GIVEN, output_tokens=MADE, stream=1)
    else:
        check_guessed(vendors, headers, "ok")
    arrived = vendors.aimock.received("steady")[before:]
    assert [one["path"] for one in arrived] == [ADDRESSES[provider]] * 2


def test_tools_are_called_and_answered(vendors: Vendors) -> None:
    tool: Any = {"type": "function", "function": {"name": CALL["name"], "parameters": {"type": "object"}}}
    asked: Any = {"model": "openai/tooled", "tools": [tool]}
    raw = vendors.openai.chat.completions.with_raw_response.create(messages=QUESTION, **asked)
    message = raw.parse().choices[0].message
    [call] = message.tool_calls or []
    assert call.type == "function"
    assert {"id": call.id, "name": call.function.name, "arguments": json.loads(call.function.arguments)} == CALL
    check(vendors, raw.headers, input_tokens=GIVEN, output_tokens=MADE)
    result = {"role": "tool", "tool_call_id": call.id, "content": "Janus"}
    said: Any = [*QUESTION, message.model_dump(exclude_none=True), result]
    assert vendors.openai.chat.completions.create(messages=said, **asked).choices[0].message.content == TEXT


def test_tool_calls_come_in_pieces(vendors: Vendors) -> None:
    with vendors.openai.chat.completions.with_streaming_response.create(
        model="openai/tooled", messages=QUESTION, stream=True
    ) as raw:
        deltas = [part.choices[0].delta for part in raw.parse() if part.choices]
        headers = raw.headers
    calls = [call.function for delta in deltas for call in delta.tool_calls or () if call.function]
    assert "".join(call.name or "" for call in calls) == CALL["name"]
    assert json.loads("".join(call.arguments or "" for call in calls)) == CALL["arguments"]
    assert len(calls) > 2
    check(vendors, headers, input_tokens=GIVEN, output_tokens=MADE, stream=1)


@pytest.mark.parametrize("model", ["steady", "thinker"])
def test_a_response_whole_and_streamed(vendors: Vendors, model: str) -> None:
    asked: Any = {"model": f"openai/{model}", "input": "Who keeps the door?"}
    raw = vendors.openai.responses.with_raw_response.create(**asked)
    assert raw.parse().output_text == TEXT
    check(vendors, raw.headers, operation="responses", input_tokens=GIVEN, output_tokens=MADE)
    with vendors.openai.responses.with_streaming_response.create(**asked, stream=True) as stream:
        events = list(stream.parse())
        headers = stream.headers
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed"
    assert any(event.type.startswith("response.reasoning") for event in events) == (model == "thinker")
    check(vendors, headers, operation="responses", input_tokens=GIVEN, output_tokens=MADE, stream=1)


def test_a_response_that_calls_a_tool(vendors: Vendors) -> None:
    tool = {"type": "function", "name": CALL["name"], "parameters": {"type": "object"}, "strict": False}
    asked: Any = {"model": "openai/tooled", "tools": [tool]}
    raw = vendors.openai.responses.with_raw_response.create(input=QUESTION, **asked)
    (call,) = [item for item in raw.parse().output if item.type == "function_call"]
    assert json.loads(call.arguments) == CALL["arguments"]
    check(vendors, raw.headers, operation="responses", input_tokens=GIVEN, output_tokens=MADE)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Janus"}
    said: Any = [*QUESTION, call.model_dump(exclude_none=True), result]
    assert vendors.openai.responses.create(input=said, **asked).output_text == TEXT


def test_embeddings_that_are_said_to_have_cost_nothing(vendors: Vendors) -> None:
    raw = vendors.openai.embeddings.with_raw_response.create(
        model="openai/vectors", input=["a", "b"], encoding_format="float"
    )
    answer = raw.parse()
    assert [one.embedding for one in answer.data] == [[0.25, -0.5]] * 2
    assert answer.usage.prompt_tokens == 0
    check_guessed(vendors, raw.headers, "ok")


def test_images_speech_and_transcriptions(vendors: Vendors) -> None:
    dots = vendors.openai.images.with_raw_response.generate(model="openai/dots", prompt="a door", n=2)
    assert [one.b64_json for one in dots.parse().data or ()] == ["AAAA"] * 2
    check(vendors, dots.headers, "0.08", operation="images.generations", images=2)
    voice = vendors.openai.audio.speech.with_raw_response.create(model="openai/voice", input="Pass", voice="alloy")
    assert voice.content.startswith(b"ID3")
    check(vendors, voice.headers, "0.00006", operation="audio.speech", characters=4)
    file = ("speech.mp3", b"ID3" * 99)
    ears = vendors.openai.audio.transcriptions.with_raw_response.create(model="openai/ears", file=file)
    assert ears.parse().text == TEXT
    check(vendors, ears.headers, "0.0009", operation="audio.transcriptions", audio_ms=9_000)


# ---- faults -----------------------------------------------------------------------------------------------------

FAULTS = {
    "pace": (429, "cooling", "pace"),
    "quota": (429, "exhausted", None),
    "unpaid": (402, "exhausted", None),
    "barred": (403, "cooling", "barred"),
    "crash": (500, "degraded", None),
    "dropped": (500, "degraded", None),
    "busy": (503, "degraded", None),
    "overloaded": (529, "degraded", None),
}
"""By model: what the provider says, and what is then known against the key, or against the model at it."""
LEAST_REST_S = 5
"""For so long is nobody asked again in any case; a few seconds before its end it is told to nobody any more."""


@BOTH
@pytest.mark.parametrize("model", FAULTS)
def test_a_fault_falls_back_and_the_right_thing_pays(vendors: Vendors, model: str, *, stream: bool) -> None:
    status, state, of_model = FAULTS[model]
    provider = faulty(model, stream=stream)
    asked_at = time.monotonic()
    answer = vendors.ask(route(model, stream=stream), stream=stream)
    assert (answer.status_code, spoken(answer)) == (200, TEXT)
    told = {name: answer.headers[f"x-ostiary-{name}"] for name in ("provider", "attempts", "fallback-from")}
    assert told == {"provider": SECOND, "attempts": "2", "fallback-from": provider}
    first, second = inside.events(vendors.house, answer.headers["x-request-id"], 2)
    assert {first["endpoint"], second["endpoint"]} == {route(model, stream=stream)}
    assert (first["provider"], first["http_status"], first["status"], first["cost_nano"]) == (
        provider,
        status,
        "error",
        0,
    )
    assert (second["status"], second["input_tokens"], second["usage_source"]) == ("ok", GIVEN, "provider")
    assert Decimal(second["cost_nano"]) / inside.USD == COST

    def rests() -> bool:
        """A machine that stood still meanwhile has missed it; each further failure makes it twice as long."""
        nonlocal asked_at
        began_at = time.monotonic()
        again = vendors.ask(route(model, stream=stream), stream=stream)
        assert again.headers["x-ostiary-provider"] == SECOND
        if again.headers["x-ostiary-attempts"] != "1":
            assert time.monotonic() - asked_at >= LEAST_REST_S
            asked_at = began_at
            return False
        return vendors.health(provider) == [(state, of_model)]

    until(rests, f"{state}, {of_model}", 60)


@BOTH
def test_a_callers_mistake_is_tried_nowhere_else(vendors: Vendors, *, stream: bool) -> None:
    answer = vendors.ask(route("wrong", stream=stream), stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    check(vendors, answer.headers, "0", status="error", http_status=400, usage_source="none")
    assert vendors.health(faulty("wrong", stream=stream)) == []


@BOTH
def test_a_model_that_the_caller_names_and_nobody_knows_is_tried_nowhere_else(
    vendors: Vendors, *, stream: bool
) -> None:
    provider = faulty("unknown", stream=stream)
    answer = vendors.ask(f"{provider}/unknown", stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    check(vendors, answer.headers, "0", status="error", http_status=404, usage_source="none")
    assert vendors.health(provider) == []


@BOTH
def test_a_model_that_a_target_names_and_nobody_knows_leads_to_the_next_target(
    vendors: Vendors, *, stream: bool
) -> None:
    provider = faulty("unknown", stream=stream)
    answer = vendors.ask(route("unknown", stream=stream), stream=stream)
    assert (answer.status_code, spoken(answer)) == (200, TEXT)
    assert answer.headers["x-ostiary-fallback-from"] == provider
    first, second = inside.events(vendors.house, answer.headers["x-request-id"], 2)
    assert (first["provider"], first["http_status"], first["cost_nano"]) == (provider, 404, 0)
    assert (second["provider"], second["status"]) == (SECOND, "ok")
    assert vendors.health(provider) == [], "a model that is no more is no fault of the key"


def test_a_key_that_was_refused_for_its_pace_is_used_again_when_the_provider_said(vendors: Vendors) -> None:
    vendors.aimock.fail_next(429, "slow down", "rate_limit_exceeded")
    refused = vendors.ask("groq/steady")
    assert (refused.status_code, refused.headers["retry-after"]) == (502, "1")
    until(lambda: vendors.ask("groq/steady").status_code == 200, "the key to be well")


def test_a_key_that_is_not_valid_is_disabled_and_nobody_sees_it(vendors: Vendors) -> None:
    def attempts() -> list[str]:
        answers = [vendors.ask(f"{DOUBTFUL}/steady", f"conversation {number}") for number in range(20)]
        assert {answer.status_code for answer in answers} == {200}
        return [answer.headers["x-ostiary-attempts"] for answer in answers]

    assert "2" in attempts()
    until(lambda: vendors.health(f"{DOUBTFUL}-wrong") == [("disabled", None)], "the confirmed end of a key", 10)
    assert attempts() == ["1"] * 20
    assert vendors.health(DOUBTFUL) == []


def test_a_stream_that_breaks_off_ends_in_an_error_and_is_paid_for(vendors: Vendors) -> None:
    before = len(vendors.aimock.received("steady"))
    answer = vendors.ask(route("torn", stream=True), stream=True)
    assert (answer.status_code, answer.headers["x-ostiary-attempts"]) == (200, "1")
    said = spoken(answer)
    assert said
    assert TEXT.startswith(said)
    assert said != TEXT
    assert '"error"' in answer.text
    assert "[DONE]" not in answer.text
    check_guessed(vendors, answer.headers, "error")
    assert len(vendors.aimock.received("steady")) == before, "it is tried nowhere else"


@pytest.mark.parametrize(
    ("model", "stream"), [("gone", False), ("gone", True), ("garbled", False), ("garbled", True), ("begun", True)]
)
def test_what_may_have_been_billed_is_paid_for_and_another_provider_answers(
    vendors: Vendors, model: str, *, stream: bool
) -> None:
    answer = vendors.ask(route(model, stream=stream), stream=stream)
    assert (answer.status_code, spoken(answer)) == (200, TEXT)
    assert answer.headers["x-ostiary-fallback-from"] == faulty(model, stream=stream)
    assert answer.text.count('"role"') == 1, "the caller sees one clean answer"
    lost, good = inside.events(vendors.house, answer.headers["x-request-id"], 2)
    assert (lost["status"], lost["usage_source"]) == ("error", "none")
    assert lost["cost_nano"] == lost["held_nano"] > 0
    assert (good["status"], Decimal(good["cost_nano"]) / inside.USD) == ("ok", COST)
