"""Every operation through a real gateway with the official SDK: what is passed on, counted, priced and written down."""

from __future__ import annotations

import io
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx2
import openai
import pytest

from ostiary.agents.agent_keys import NewAgentKey
from ostiary.limits.budgets import Budget
from tests.acceptance import inside
from tests.servers.gateway import Gateway
from tests.servers.operations import SOUND, TRANSCRIPT, form_of
from tests.servers.sounds import mp3, wav
from tests.servers.upstream import Upstream
from tests.servers.wire import COMPLETION_TOKENS, PROMPT_TOKENS, TEXT

pytestmark = pytest.mark.main_job

P = "openai-compatible/"
PRICES = {
    "words": ("--input", "1", "--output", "2"),
    "gpt-image": ("--input", "10", "--output", "40"),
    "dall-e": ("--image", "0.04"),
    "tts": ("--characters", "15"),
    "gpt-tts": ("--input", "1", "--output", "12"),
    "whisper": ("--audio-minute", "0.006"),
    "gpt-transcribe": ("--input", "2.5", "--output", "10"),
    "cohere-rerank": ("--search", "0.002"),
    "jina-rerank": ("--input", "1", "--output", "0"),
    "moderation": ("--input", "0", "--output", "0"),
}
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(2_000)
AUDIO = mp3(tag=2_000)
MP3_S = Decimal(len(AUDIO)) / 990
OWNER = ("UPSTREAMOWNER", "UPSTREAMCOOKIE", "UPSTREAMREQUEST")


@pytest.fixture(scope="module", name="house")
def the_house(shared_gateway: Gateway) -> Gateway:
    """The shared gateway, with a price for each kind of model."""
    for model, options in PRICES.items():
        shared_gateway.cli("prices", "set", P + model, *options)
    return shared_gateway


@pytest.fixture(scope="module", name="key")
def the_key(house: Gateway) -> inside.Key:
    """A key with a hard budget: what has no price is refused, what has one is held for."""
    return inside.mint(house, NewAgentKey(name="operations", budget=Budget("total", 50 * inside.USD)))[0]


@pytest.fixture(name="client")
def the_client(house: Gateway, key: inside.Key) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=house.url, api_key=key.secret, max_retries=0) as client:
        yield client


def event_of(house: Gateway, headers: Any, cost: str) -> dict[str, Any]:
    """The event of a call, which cost so much, and whose answer names nobody."""
    told = " ".join(f"{name}: {value}" for name, value in headers.items())
    assert not any(word in told for word in OWNER), told
    (event,) = inside.events(house, headers["x-request-id"])
    assert Decimal(event["cost_nano"]) / inside.USD == Decimal(cost)
    assert event["status"] == "ok"
    assert event["held_nano"] >= event["cost_nano"]
    if "x-ostiary-cost-usd" in headers:
        assert Decimal(headers["x-ostiary-cost-usd"]) == Decimal(cost)
    return event


# ---- texts ------------------------------------------------------------------------------------------------------


def test_a_completion(house: Gateway, client: openai.OpenAI) -> None:
    raw = client.completions.with_raw_response.create(model=P + "words", prompt="Who keeps", max_tokens=9)
    assert raw.parse().choices[0].text == TEXT
    event = event_of(house, raw.headers, "0.000025")
    assert (event["operation"], event["input_tokens"], event["output_tokens"]) == ("completions", 11, 7)


def test_a_streamed_completion(house: Gateway, client: openai.OpenAI) -> None:
    with client.completions.with_streaming_response.create(
        model=P + "words", prompt="Who keeps", max_tokens=9, stream=True
    ) as raw:
        chunks = list(raw.parse())
        assert "".join(chunk.choices[0].text for chunk in chunks) == TEXT, "the usage chunk was not asked for"
        event = event_of(house, raw.headers, "0.000025")
    assert (event["input_tokens"], event["output_tokens"]) == (PROMPT_TOKENS, COMPLETION_TOKENS)
    assert (event["stream"], event["usage_source"]) == (1, "provider")


def test_a_response(house: Gateway, client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(model=P + "words", input="Who keeps the door?")
    assert raw.parse().output_text == TEXT
    event = event_of(house, raw.headers, "0.000038")
    counted = [event[f"{name}_tokens"] for name in ("input", "output", "cache_read", "reasoning")]
    assert (event["operation"], counted) == ("responses", [20, 9, 8, 4])


def test_a_streamed_response(house: Gateway, client: openai.OpenAI) -> None:
    with client.responses.with_streaming_response.create(
        model=P + "words", input="Who keeps the door?", stream=True
    ) as raw:
        events = list(raw.parse())
        event = event_of(house, raw.headers, "0.000038")
    assert [one.type for one in events][:3] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == TEXT
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage
    assert (event["output_tokens"], event["usage_source"]) == (9, "provider")


def test_a_moderation_is_free_and_needs_no_budget(house: Gateway, client: openai.OpenAI) -> None:
    raw = client.moderations.with_raw_response.create(model=P + "moderation", input="hello")
    assert not raw.parse().results[0].flagged
    event = event_of(house, raw.headers, "0")
    assert (event["operation"], event["output_tokens"]) == ("moderations", 0)


@pytest.mark.parametrize(
    ("model", "cost", "counted"), [("cohere-rerank", "0.002", (0, 1)), ("jina-rerank", "0.000033", (33, 0))]
)
def test_a_rerank(house: Gateway, key: inside.Key, model: str, cost: str, counted: tuple[int, int]) -> None:
    body = {"model": P + model, "query": "door", "documents": ["a", "b", "c"], "top_n": 2}
    answer = house.client(key.secret).post("/v1/rerank", json=body)
    assert [one["index"] for one in answer.json()["results"]] == [0, 1]
    event = event_of(house, answer.headers, cost)
    assert (event["input_tokens"], event["searches"]) == counted
    assert event["usage_source"] == "provider"


# ---- images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "cost", "output"), [("gpt-image", "0.00056", 9), ("dall-e", "0.08", 0)])
def test_images_are_paid_by_tokens_or_one_by_one(
    house: Gateway, client: openai.OpenAI, model: str, cost: str, output: int
) -> None:
    raw = client.images.with_raw_response.generate(model=P + model, prompt="a door", n=2)
    assert len(raw.parse().data or []) == 2
    event = event_of(house, raw.headers, cost)
    assert (event["operation"], event["images"], event["output_tokens"]) == ("images.generations", 2, output)
    assert event["usage_source"] == "provider"


def test_a_streamed_image(house: Gateway, client: openai.OpenAI) -> None:
    with client.images.with_streaming_response.generate(
        model=P + "gpt-image", prompt="a door", stream=True, partial_images=1
    ) as raw:
        events = list(raw.parse())
        event = event_of(house, raw.headers, "0.00056")
    assert [one.type for one in events] == ["image_generation.partial_image", "image_generation.completed"]
    assert (event["images"], event["input_tokens"], event["output_tokens"]) == (1, 20, 9)


def test_an_edit_is_a_form_that_arrives_as_it_was(
    house: Gateway, client: openai.OpenAI, shared_upstream: Upstream
) -> None:
    raw = client.images.with_raw_response.edit(
        model=P + "gpt-image",
        image=[("a.png", IMAGE, "image/png"), ("b.png", IMAGE[:99], "image/png")],
        prompt="öpen the door",
        n=1,
    )
    assert raw.parse().data
    event = event_of(house, raw.headers, "0.00056")
    assert (event["operation"], event["images"]) == ("images.edits", 1)
    arrived = form_of(shared_upstream.calls[-1])
    assert arrived["image[]"] == [("a.png", IMAGE), ("b.png", IMAGE[:99])]
    assert (arrived["prompt"], arrived["model"]) == ([(None, "öpen the door".encode())], [(None, b"gpt-image")])


def test_a_streamed_edit(house: Gateway, client: openai.OpenAI) -> None:
    with client.images.with_streaming_response.edit(
        model=P + "gpt-image", image=("a.png", IMAGE, "image/png"), prompt="x", stream=True
    ) as raw:
        assert [one.type for one in raw.parse()] == ["image_edit.partial_image", "image_edit.completed"]
        event_of(house, raw.headers, "0.00056")


# ---- sound ------------------------------------------------------------------------------------------------------


def test_speech_is_passed_on_as_it_is_and_paid_by_the_character(house: Gateway, client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        model=P + "tts", input="Öpen the door", voice="alloy"
    ) as raw:
        assert raw.headers["content-type"] == "audio/mpeg"
        assert b"".join(raw.iter_bytes()) == SOUND
        event = event_of(house, raw.headers, "0.000195")
    assert (event["operation"], event["characters"], event["output_tokens"]) == ("audio.speech", 13, 0)
    assert event["usage_source"] == "provider"
    assert event["first_token_ms"] is not None


def test_speech_that_is_paid_by_tokens_is_estimated(house: Gateway, client: openai.OpenAI) -> None:
    raw = client.audio.speech.with_raw_response.create(model=P + "gpt-tts", input="Open", voice="alloy")
    assert raw.content == SOUND
    (event,) = inside.events(house, raw.headers["x-request-id"])
    assert 0 < event["cost_nano"] <= event["held_nano"]
    assert (event["usage_source"], event["characters"]) == ("estimated", 4)


def test_speech_as_events_tells_its_tokens(house: Gateway, client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        model=P + "gpt-tts", input="Open", voice="alloy", stream_format="sse"
    ) as raw:
        text = b"".join(raw.iter_bytes()).decode()
        event = event_of(house, raw.headers, "0.000128")
    assert text.count("event: ") == 2
    assert text.rstrip().endswith("}")
    assert (event["output_tokens"], event["characters"], event["usage_source"]) == (9, 4, "provider")


def _transcribe(client: openai.OpenAI, model: str, **more: Any) -> Any:
    file = ("speech.mp3", io.BytesIO(AUDIO), "audio/mpeg")
    return client.audio.transcriptions.with_raw_response.create(model=P + model, file=file, **more)


def test_a_transcription_paid_by_the_minute(house: Gateway, client: openai.OpenAI) -> None:
    raw = _transcribe(client, "whisper")
    assert raw.parse().text == TRANSCRIPT
    event = event_of(house, raw.headers, "0.0009")
    assert (event["operation"], event["audio_ms"], event["input_tokens"]) == ("audio.transcriptions", 9_000, 0)
    assert event["usage_source"] == "provider"


def test_a_transcription_that_only_says_how_long_it_was(house: Gateway, client: openai.OpenAI) -> None:
    raw = _transcribe(client, "whisper", response_format="verbose_json")
    assert event_of(house, raw.headers, "0.00085")["audio_ms"] == 8_500


def test_a_transcription_as_text_is_charged_what_was_held_for(house: Gateway, client: openai.OpenAI) -> None:
    raw = _transcribe(client, "whisper", response_format="text")
    assert raw.text == TRANSCRIPT + "\n"
    assert raw.headers["content-type"] == "text/plain; charset=utf-8"
    (event,) = inside.events(house, raw.headers["x-request-id"])
    assert event["audio_ms"] // 1_000 == int(MP3_S) + 1
    assert event["usage_source"] == "estimated"
    assert 0 < event["cost_nano"] == event["held_nano"]


def test_a_transcription_paid_by_tokens(house: Gateway, client: openai.OpenAI) -> None:
    event = event_of(house, _transcribe(client, "gpt-transcribe").headers, "0.000085")
    assert (event["input_tokens"], event["output_tokens"], event["audio_tokens"]) == (14, 5, 14)


def test_a_streamed_transcription(house: Gateway, client: openai.OpenAI) -> None:
    with client.audio.transcriptions.with_streaming_response.create(
        model=P + "gpt-transcribe", file=("a.mp3", AUDIO), stream=True
    ) as raw:
        events = list(raw.parse())
        event_of(house, raw.headers, "0.000085")
    assert [one.type for one in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]


def test_a_translation(house: Gateway, client: openai.OpenAI) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):  # the SDK's own opinion; providers serve it on
        raw = client.audio.translations.with_raw_response.create(model=P + "whisper", file=("a.mp3", AUDIO))
    assert raw.parse().text == TRANSCRIPT
    assert event_of(house, raw.headers, "0.0009")["operation"] == "audio.translations"


# ---- what everything has in common ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("completions", {"prompt": "x"}),
        ("responses", {"input": "x"}),
        ("images/generations", {"prompt": "x"}),
        ("audio/speech", {"input": "x", "voice": "x"}),
        ("rerank", {"query": "x", "documents": []}),
        ("moderations", {"input": "x"}),
    ],
)
def test_what_has_no_price_is_refused_under_a_budget(
    house: Gateway, key: inside.Key, path: str, body: dict[str, Any]
) -> None:
    answer = house.client(key.secret).post(f"/v1/{path}", json={"model": P + "priceless", **body})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_priced")


def test_a_price_by_the_minute_is_none_for_a_chat(house: Gateway, key: inside.Key) -> None:
    body = {"model": P + "whisper", "messages": []}
    answer = house.client(key.secret).post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_priced")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("images/generations", {"model": "gpt-image-1", "prompt": "x"}),
        ("embeddings", {"model": "text-embedding-3-small", "input": "x"}),
        ("audio/speech", {"model": "tts-1", "input": "x", "voice": "x"}),
        ("responses", {"model": "gpt-4o", "input": "x"}),
        ("completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "x"}),
        ("moderations", {"model": "omni-moderation-latest", "input": "x"}),
    ],
)
def test_without_a_key_for_it_the_code_names_the_provider(
    house: Gateway, key: inside.Key, path: str, body: dict[str, Any]
) -> None:
    answer = house.client(key.secret).post(f"/v1/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_openai_key")


@pytest.mark.parametrize(
    ("path", "model", "field", "more"),
    [
        ("audio/transcriptions", "whisper-1", "file", {}),
        ("audio/translations", "whisper-1", "file", {}),
        ("images/edits", "gpt-image-1", "image", {"prompt": "x"}),
    ],
)
def test_a_form_without_a_key_for_it_is_answered_by_the_same_code(
    house: Gateway, key: inside.Key, path: str, model: str, field: str, more: dict[str, str]
) -> None:
    answer = house.client(key.secret).post(f"/v1/{path}", data={"model": model, **more}, files={field: ("a", AUDIO)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_openai_key")


def test_the_sdk_raises_what_a_provider_without_a_key_comes_to(house: Gateway, key: inside.Key) -> None:
    with openai.OpenAI(base_url=house.url, api_key=key.secret, max_retries=0) as client:
        with pytest.raises(openai.InternalServerError) as refused:
            client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", AUDIO))
        assert refused.value.code == "no_openai_key"


@pytest.mark.parametrize(
    ("model", "path", "more", "short_of"),
    [
        ("dall-e", "images/generations", {"prompt": "x", "n": 3}, "0.119"),
        ("tts", "audio/speech", {"input": "x" * 1_000, "voice": "v"}, "0.0149"),
        ("cohere-rerank", "rerank", {"query": "q", "documents": ["d"] * 150}, "0.0039"),
    ],
)
def test_the_hold_bounds_what_is_not_tokens(
    house: Gateway, key: inside.Key, model: str, path: str, more: dict[str, Any], short_of: str
) -> None:
    client, body = house.client(key.secret), {"model": P + model, **more}
    answer = client.post(f"/v1/{path}", json=body, headers={"x-ostiary-max-cost-usd": short_of})
    assert answer.status_code == 402
    assert answer.json()["error"]["scope"] == "call"
    assert client.post(f"/v1/{path}", json=body, headers={"x-ostiary-max-cost-usd": "0.15"}).status_code == 200


def test_a_transcription_is_held_for_by_its_bytes(house: Gateway, key: inside.Key) -> None:
    minutes = MP3_S / 60
    files, client = {"file": ("a.mp3", AUDIO)}, house.client(key.secret)
    for factor, status in ((Decimal("0.98"), 402), (Decimal("1.02"), 200)):
        cap = {"x-ostiary-max-cost-usd": f"{minutes * Decimal('0.006') * factor:.9f}"}
        answer = client.post("/v1/audio/transcriptions", data={"model": P + "whisper"}, files=files, headers=cap)
        assert answer.status_code == status, answer.text


def test_a_sound_that_may_last_for_ever_is_refused_where_a_call_must_be_bounded(
    house: Gateway, key: inside.Key
) -> None:
    free = inside.mint(house, NewAgentKey(name="unbounded"))[0]
    path, data, cap = "/v1/audio/transcriptions", {"model": P + "whisper"}, {"x-ostiary-max-cost-usd": "1"}
    for sound in (b"OggS" + bytes(9_000), b"fLaC" + bytes(9_000), b"ID3" + bytes(9_000)):
        files = {"file": ("a.mp3", sound)}
        with_budget = house.client(key.secret).post(path, data=data, files=files)
        with_cap = house.client(free.secret).post(path, data=data, files=files, headers=cap)
        for answer in (with_budget, with_cap):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_request", "file")
            assert "WAV" in error["message"]
        assert house.client(free.secret).post(path, data=data, files=files).status_code == 200


def test_a_wav_file_is_held_for_by_its_own_rate(house: Gateway, key: inside.Key) -> None:
    files, client = {"file": ("a.wav", wav(32_000 * 59))}, house.client(key.secret)
    for cap, status in (("0.0058", 402), ("0.006", 200)):
        answer = client.post(
            "/v1/audio/transcriptions",
            data={"model": P + "whisper"},
            files=files,
            headers={"x-ostiary-max-cost-usd": cap},
        )
        assert answer.status_code == status, answer.text


def test_a_price_for_text_is_none_for_a_chat_in_sound(house: Gateway, key: inside.Key) -> None:
    body = {"model": P + "words", "messages": [], "modalities": ["text", "audio"], "audio": {"voice": "x"}}
    answer = house.client(key.secret).post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_priced")


def test_usage_and_traces_show_each_in_its_unit(house: Gateway) -> None:
    (key,) = inside.mint(house, NewAgentKey(name="units"))
    with openai.OpenAI(base_url=house.url, api_key=key.secret, max_retries=0) as client:
        client.images.generate(model=P + "dall-e", prompt="a door", n=2)
        client.audio.speech.create(model=P + "tts", input="12345", voice="alloy")
        _transcribe(client, "whisper")
    house.client(key.secret).post("/v1/rerank", json={"model": P + "cohere-rerank", "query": "q", "documents": ["d"]})
    used = {row["model"]: row for row in house.client(key.secret).get("/v1/usage").json()["data"]}
    assert (used["dall-e"]["images"], used["tts"]["characters"]) == (2, 5)
    assert (used["whisper"]["audio_ms"], used["cohere-rerank"]["searches"]) == (9_000, 1)
    assert Decimal(str(used["dall-e"]["cost_usd"])) == Decimal("0.08")
    traces = {trace["model"]: trace for trace in house.traces("--key", "units")}
    assert (traces["dall-e"]["images"], traces["whisper"]["audio_ms"]) == (2, 9_000)
    table = house.cli("traces", "--key", "units").out
    for words in ("2 images", "5 chars", "9 s", "1 searches"):
        assert words in table
    shown = house.cli("prices", "show", P + "whisper").out
    assert "0.006 a minute" in shown


def test_a_request_that_codex_sends_goes_through_untouched(
    house: Gateway, client: openai.OpenAI, shared_upstream: Upstream, key: inside.Key
) -> None:
    body = {
        "model": P + "words",
        "instructions": "You are a coding agent running in the Codex CLI.",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "List the files."}]},
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA…"},
            {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "call_1"},
            {"type": "function_call_output", "call_id": "call_1", "output": "README.md"},
        ],
        "tools": [
            {"type": "function", "name": "shell", "strict": False, "parameters": {"type": "object", "properties": {}}},
            {
                "type": "custom",
                "name": "apply_patch",
                "format": {"type": "grammar", "syntax": "lark", "definition": "x"},
            },
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0199-session",
    }
    headers = {"accept": "text/event-stream", "originator": "codex_cli_rs", "session_id": "0199", **key.bearer}
    with httpx2.stream("POST", f"{house.url}/responses", json=body, headers=headers, timeout=20) as answer:
        text = answer.read().decode()
        assert answer.headers["content-type"] == "text/event-stream"
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert (names[0], names[-1]) == ("response.created", "response.completed")
    assert "[DONE]" not in text
    sent = shared_upstream.calls[-1]
    limit = sent.json.pop("max_output_tokens", None)
    assert {**sent.json, "max_output_tokens": limit} == {**body, "model": "words", "max_output_tokens": limit}
    assert sent.header("originator") is None
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_nobody")
