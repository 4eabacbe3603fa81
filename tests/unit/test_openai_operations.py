"""The other operations of the OpenAI dialect: what is read of a request, what bounds it, what an answer tells."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ostiary.errors import Refusal
from ostiary.providers import catalog
from ostiary.providers.dialect import Ask, Form, Part, Reading
from ostiary.providers.openai import OpenAI
from ostiary.providers.tokens import Tokens
from ostiary.providers.upload import UploadedBody

DIALECT = OpenAI()
OPENAI = catalog.load().get("openai")


def asked(operation: str, **fields: Any) -> Ask:
    return DIALECT.read_ask(operation, json.dumps({"model": "m", **fields}).encode())


def unwritten(_model: str) -> UploadedBody:
    raise AssertionError


def form(files: tuple[Part, ...] = (Part("file", 7_500, "a.mp3", 750),), **fields: list[str]) -> Form:
    return Form(fields, files, "m", 100, unwritten)


def written(ask: Ask, max_tokens: int | None = None) -> dict[str, Any]:
    body = DIALECT.write_body(ask, OPENAI, "served", max_tokens)
    assert isinstance(body, bytes)
    found: dict[str, Any] = json.loads(body)
    return found


def read(ask: Ask, **answer: Any) -> Reading:
    return DIALECT.read_answer(json.dumps(answer).encode(), ask)


# ---- completions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "choices", "output"),
    [
        ({"prompt": "a"}, 1, None),
        ({"prompt": "a", "max_tokens": 5}, 1, 5),
        ({"prompt": ["a", "b"], "max_tokens": 5, "n": 2}, 4, 20),
        ({"prompt": "a", "max_tokens": 5, "n": 2, "best_of": 3}, 3, 15),
        ({"prompt": [1, 2, 3], "max_tokens": 5}, 1, 5),
        ({"prompt": [[1], [2]], "max_tokens": 5}, 2, 10),
    ],
)
def test_completions_are_bound_by_all_that_is_made(fields: dict[str, Any], choices: int, output: int | None) -> None:
    ask = asked("completions", **fields)
    assert (ask.choices, ask.output_tokens) == (choices, output)


def test_a_completion_keeps_its_own_name_for_the_limit_and_its_stream_is_asked_for_usage() -> None:
    body = written(asked("completions", prompt="a", stream=True), 9)
    assert (body["max_tokens"], body["stream_options"]) == (9, {"include_usage": True})
    assert "max_completion_tokens" not in body


# ---- responses --------------------------------------------------------------------------------------------------


def test_a_response_is_read() -> None:
    ask = asked("responses", input=[{}, {}], tools=[{"type": "function"}], max_output_tokens=7, stream=True)
    assert (ask.messages, ask.output_tokens, ask.stream, ask.is_stored, ask.escape) == (3, 7, True, True, None)
    assert not ask.reaches_out
    assert not asked("responses", input="x", store=False).is_stored
    assert asked("responses", input="x", background=True).is_deferred


@pytest.mark.parametrize("more", [{"previous_response_id": "resp_1"}, {"conversation": "c"}, {"prompt": {"id": "p"}}])
def test_what_the_provider_keeps_is_held_for_as_long_as_the_model_reads(more: dict[str, Any]) -> None:
    assert asked("responses", input="x", **more).reaches_out


@pytest.mark.parametrize(
    ("item", "is_elsewhere"),
    [
        ({"type": "item_reference", "id": "msg_1"}, True),
        ({"type": "item_reference", "id": "msg_1", "content": "x"}, True),
        ({"id": "msg_1"}, True),
        ({"id": "msg_1", "type": None, "content": None, "input": "x"}, True),
        ({"id": "rs_1", "type": "reasoning", "summary": []}, True),
        ({"id": "ig_1", "type": "image_generation_call"}, True),
        ({"id": "msg_1", "type": "message", "role": "user", "content": "x"}, False),
        ({"id": "fc_1", "call_id": "c", "output": "x"}, False),
        ({"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, False),
        ({"id": "ct_1", "type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}, False),
        ({"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}, False),
        ({"role": "user", "content": "x"}, False),
    ],
)
def test_an_item_that_only_names_another_is_held_for_like_it(item: Any, *, is_elsewhere: bool) -> None:
    assert asked("responses", input=[{"role": "user", "content": "x"}, item]).reaches_out == is_elsewhere


@pytest.mark.parametrize(("items", "says"), [(["x"], "input[0]"), ([0] * 99_999, "input[0]"), ([{}] * 10_001, "10000")])
def test_what_would_take_long_to_look_at_is_no_input(items: list[Any], says: str) -> None:
    """A body of ten megabytes has room for millions of items, and while they are looked at nobody is served."""
    with pytest.raises(Refusal) as refused:
        asked("responses", input=items)
    assert (refused.value.status, refused.value.code) == (400, "invalid_request")
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("more", "reaches_out", "rates"),
    [
        ({}, False, ()),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, True, ("audio_input",)),
        ({"messages": [{"role": "assistant", "audio": None, "content": "x"}]}, False, ()),
        ({"messages": [{"content": [{"type": "input_audio", "input_audio": {}}]}]}, False, ("audio_input",)),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x"}}, False, ("audio_output",)),
        ({"modalities": ["text"]}, False, ()),
        ({"messages": [{"content": 'say "audio"'}]}, False, ()),
    ],
)
def test_sound_in_a_chat_is_noticed(more: dict[str, Any], rates: tuple[str, ...], *, reaches_out: bool) -> None:
    ask = asked("chat", **{"messages": [], **more})
    assert (ask.reaches_out, ask.audio_rates) == (reaches_out, rates)


def test_sound_in_a_long_spelling_is_noticed_too() -> None:
    body = b'{"model":"m","messages":[{"\\u0061udio":{"id":"a"}}],"modalities":["\\u0061udio"]}'
    ask = DIALECT.read_ask("chat", body)
    assert (ask.reaches_out, ask.audio_rates) == (True, ("audio_input", "audio_output"))


@pytest.mark.parametrize(
    ("more", "escape"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "mcp"}]}, "tools"),
        ({"tools": [{"type": "image_generation"}]}, "tools"),
        ({"tools": [{"type": "custom"}, {"type": "local_shell"}, {"type": "apply_patch"}]}, None),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"service_tier": "priority"}, "service_tier"),
    ],
)
def test_services_with_a_price_of_their_own_are_found(more: dict[str, Any], escape: str | None) -> None:
    assert asked("responses", input="x", **more).escape == escape


def test_a_response_is_kept_short_in_its_own_field_and_left_alone_else() -> None:
    ask = asked("responses", input="x", stream=True, include=["reasoning.encrypted_content"], prompt_cache_key="k")
    body = written(ask, 9)
    assert body == {
        "model": "served",
        "input": "x",
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k",
        "max_output_tokens": 9,
    }


def test_a_response_tells_its_tokens_and_its_id() -> None:
    usage = {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 2},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 29,
    }
    found = read(asked("responses", input="x"), id="resp_1", output=[{}], usage=usage, error=None)
    assert found.tokens == Tokens(20, 9, 8, 2, 4)
    assert (found.response_id, found.error) == ("resp_1", None)
    unkept = read(asked("responses", input="x", store=False), id="resp_1", output=[], usage=usage)
    assert unkept.response_id is None


def test_a_failed_response_is_an_error_though_its_status_is_200() -> None:
    error = {"code": "server_error", "message": "no"}
    assert read(asked("responses", input="x"), id="resp_1", status="failed", output=[], error=error).error == error


# ---- the rest of the texts --------------------------------------------------------------------------------------


def test_a_moderation_needs_no_model() -> None:
    ask = DIALECT.read_ask("moderations", b'{"input":["a","b"]}')
    assert (ask.model, ask.messages, ask.output_tokens) == ("omni-moderation-latest", 2, 0)
    assert written(ask)["model"] == "served"


@pytest.mark.parametrize(("documents", "searches"), [(1, 1), (100, 1), (101, 2), (250, 3)])
def test_a_rerank_is_bound_by_searches_of_a_hundred_documents(documents: int, searches: int) -> None:
    ask = asked("rerank", query="q", documents=["d"] * documents)
    assert ask.units is not None
    assert ask.guess is not None
    assert ask.guess.searches == searches
    assert ask.units.searches >= searches
    assert ask.output_tokens == 0


def test_long_documents_make_more_searches() -> None:
    ask = asked("rerank", query="q", documents=["x" * 50_000] * 100)
    assert ask.units is not None
    assert ask.units.searches >= 100


@pytest.mark.parametrize(
    ("query", "more", "least"),
    [
        ("q" * 100, {}, 125),  # 400 of the 500 tokens are left to each piece of 5 MB
        ("q" * 499, {}, 50_000),
        ("ä" * 300, {}, 50_000),
        ("q" * 100, {"max_tokens_per_doc": 4_000}, 10),
        ("q" * 499, {"max_tokens_per_doc": 4_000}, 4_000),
        ("q", {"max_tokens_per_doc": 10**9}, 101),
    ],
)
def test_the_query_counts_in_each_piece_of_a_document(query: str, more: dict[str, Any], least: int) -> None:
    ask = asked("rerank", query=query, documents=["x" * 50_000] * 100, **more)
    assert ask.units is not None
    assert least <= ask.units.searches <= least * 1.01 + 1


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ({"meta": {"billed_units": {"search_units": 2}}}, Tokens(searches=2)),
        ({"usage": {"total_tokens": 815}}, Tokens(input=815)),
        ({"usage": {"prompt_tokens": 815, "total_tokens": 815}}, Tokens(input=815)),
        ({"meta": {"billed_units": {"input_tokens": 44}}}, Tokens(input=44)),
        ({}, None),
    ],
)
def test_a_rerank_tells_in_searches_or_tokens(answer: dict[str, Any], tokens: Tokens | None) -> None:
    ask = asked("rerank", query="q", documents=["d"])
    found = read(ask, results=[], **answer)
    assert found.tokens == tokens
    assert found.guess is not None
    assert found.guess.searches == (2 if tokens is not None and tokens.searches else 1)


@pytest.mark.parametrize("odd", ["inf", "-inf", "nan", "1e999", -1, 0, "many", [1], {}])
def test_a_rerank_whose_count_is_none_is_not_counted(odd: Any) -> None:
    ask = asked("rerank", query="q", documents=["d"])
    for name in ("search_units", "input_tokens"):
        assert read(ask, results=[], meta={"billed_units": {name: odd}}).tokens is None


# ---- images and sound -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "images", "output"),
    [
        ({}, 1, 16_384),
        ({"n": 3}, 3, 3 * 16_384),
        ({"quality": "low"}, 1, 1_024),
        ({"n": 2, "quality": "high", "partial_images": 2}, 2, 2 * 16_384 + 4 * 128),
    ],
)
def test_images_are_bound_by_their_number_and_quality(more: dict[str, Any], images: int, output: int) -> None:
    ask = asked("images.generations", prompt="a door", **more)
    assert ask.units == Tokens(images=images)
    assert ask.output_tokens == output


def test_images_tell_tokens_and_are_counted() -> None:
    ask = asked("images.generations", prompt="a door", n=2)
    usage = {"input_tokens": 5, "output_tokens": 50, "total_tokens": 55}
    assert read(ask, data=[{}, {}], usage=usage).tokens == Tokens(5, 50, images=2)
    silent = read(ask, data=[{}])
    assert silent.tokens is None
    assert silent.guess is not None
    assert silent.guess.images == 1


def test_speech_is_bound_by_characters_and_slow_speech_by_more() -> None:
    plain, slow = (asked("audio.speech", input="a" * 100, voice="x", **more) for more in ({}, {"speed": 0.25}))
    assert plain.units == slow.units == Tokens(characters=100)
    assert plain.output_tokens == 64 + 400
    assert slow.output_tokens == 64 + 1_600
    assert plain.is_bytes
    assert not plain.stream
    events = asked("audio.speech", input="a", voice="x", stream_format="sse")
    assert events.stream
    assert not events.is_bytes


def test_a_transcription_is_bound_by_the_tightest_sound_its_bytes_could_hold() -> None:
    ask = DIALECT.read_form("audio.transcriptions", form())
    assert ask.units == Tokens(input=10 * 25, audio_ms=10_000)
    assert ask.guess is not None
    assert ask.guess.audio_ms == 10_000, "nothing bounds from below what its caller chose the bit rate of"
    assert ask.is_unbounded is None
    assert (ask.size, ask.stream, ask.is_text) == (100, False, False)


@pytest.mark.parametrize(
    ("value", "streams"),
    [("true", True), ("TRUE", True), ("1", True), ("false", False), ("False", False), ("0", False)],
)
@pytest.mark.parametrize(
    ("operation", "name"), [("audio.transcriptions", "file"), ("audio.translations", "file"), ("images.edits", "image")]
)
def test_a_form_says_in_words_whether_it_streams(operation: str, name: str, value: str, *, streams: bool) -> None:
    files = (Part(name, 9, "a"),)
    assert DIALECT.read_form(operation, form(files, stream=[value])).stream == streams
    assert not DIALECT.read_form(operation, form(files)).stream
    for unclear in ("yes", "", "on", "2", " true"):
        with pytest.raises(Refusal) as refused:
            DIALECT.read_form(operation, form(files, stream=[unclear]))
        assert (refused.value.code, refused.value.param) == ("invalid_request", "stream")


@pytest.mark.parametrize(
    ("told", "is_text"),
    [
        ({}, False),
        ({"response_format": ["json"]}, False),
        ({"response_format": ["verbose_json"]}, False),
        ({"response_format": ["diarized_json"]}, False),
        ({"response_format": ["text"]}, True),
        ({"response_format": ["srt"], "stream": ["true"]}, True),
        ({"response_format": ["vtt"]}, True),
        ({"response_format": ["tsv"]}, True),
    ],
)
def test_whatever_format_of_a_transcription_is_not_json_is_text(told: dict[str, Any], *, is_text: bool) -> None:
    assert (
        DIALECT.read_form("audio.transcriptions", Form(told, (Part("file", 9, "a"),), "m", 100, unwritten)).is_text
        == is_text
    )


@pytest.mark.parametrize(
    ("answer", "tokens", "heard_ms"),
    [
        ({"usage": {"type": "duration", "seconds": 9}}, None, 9_000),
        ({"duration": 8.47}, None, 8_470),
        ({"duration": "8.47"}, None, 8_470),
        ({"usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45}}, Tokens(14, 45), None),
        (
            {"usage": {"input_tokens": 14, "input_token_details": {"audio_tokens": 14}, "output_tokens": 4}},
            Tokens(14, 4, audio=14),
            None,
        ),
        ({"duration": -1}, None, None),
        ({}, None, None),
    ],
)
def test_a_transcription_tells_seconds_or_tokens(
    answer: dict[str, Any], tokens: Tokens | None, heard_ms: int | None
) -> None:
    ask = DIALECT.read_form("audio.transcriptions", form())
    found = read(ask, text="hello", **answer)
    assert found.tokens == tokens
    assert found.guess is not None
    assert found.is_guess_exact == (heard_ms is not None)
    assert found.guess.audio_ms == (heard_ms or 10_000)


def test_a_sound_without_a_least_or_from_elsewhere_is_not_bounded() -> None:
    ogg = DIALECT.read_form("audio.transcriptions", form((Part("file", 7_500, "a.mp3"),)))
    assert ogg.is_unbounded is not None
    assert "WAV" in ogg.is_unbounded
    assert DIALECT.read_form("audio.transcriptions", form(url=["https://sound.example/a"])).is_unbounded is not None
    assert asked("audio.translations", file_bytes=9_900).is_unbounded is None
    assert asked("audio.translations", file_bytes=9_900).units == Tokens(input=250, audio_ms=10_000)


@pytest.mark.parametrize(
    ("more", "likely", "most"),
    [
        ({"input": "open the door"}, 64 + 26, 64 + 52),
        ({"input": "OPEN"}, 64 + 48, 64 + 48),
        ({"input": "7%\n"}, 64 + 36, 64 + 36),
        ({"input": "開けゴマ"}, 64 + 48, 64 + 48),
        ({"input": "\uff17"}, 64 + 12, 64 + 12),
        ({"input": "\ufdfa"}, 64 + 15 * 12 + 3 * 2, 64 + 15 * 12 + 3 * 4),
        ({"input": "\ufdfd🧑"}, 64 + 192, 64 + 192),
        ({"input": "7", "speed": 0.3}, 64 + 40, 64 + 40),
        ({"input": "open", "instructions": "slowly"}, 4_096 + 160, 4_096 + 160),
    ],
)
def test_speech_is_bound_by_how_long_each_character_may_be_said(more: dict[str, Any], likely: int, most: int) -> None:
    ask = asked("audio.speech", voice="x", **more)
    assert ask.guess is not None
    assert (ask.guess.output, ask.guess.audio, ask.output_tokens) == (likely, likely, most)


def test_text_is_no_malformed_answer_but_an_error_is_an_error() -> None:
    ask = DIALECT.read_form("audio.transcriptions", form(response_format=["text"]))
    assert not DIALECT.read_answer(b"The door is open.\n", ask).is_malformed
    assert not DIALECT.read_answer(b"{not json", ask).is_malformed
    assert DIALECT.read_answer(b'{"error":{"message":"no"}}', ask).error == {"message": "no"}


@pytest.mark.parametrize(
    ("operation", "asked_for", "param"),
    [
        ("audio.transcriptions", form(files=()), "file"),
        ("audio.transcriptions", form(files=(Part("file", 1, "a"), Part("file", 1, "b"))), "file"),
        ("audio.transcriptions", form(response_format=["json", "srt"]), "response_format"),
        ("images.edits", form(), "image"),
        ("images.edits", form(files=(Part("mask", 1, "m"),)), "image"),
        ("images.edits", form(files=(Part("image", 1, "m"),), n=["x"]), "n"),
        ("images.edits", form(files=(Part("image", 1, "m"),), n=["1000"]), "n"),
        ("images.edits", form(files=(Part("image", 1, "m"),), n=["1", "9"]), "n"),
    ],
)
def test_a_form_that_lacks_or_repeats_is_refused_by_name(operation: str, asked_for: Form, param: str) -> None:
    with pytest.raises(Refusal) as refused:
        DIALECT.read_form(operation, asked_for)
    assert (refused.value.code, refused.value.param) == ("invalid_request", param)


def test_an_edit_counts_its_images() -> None:
    files = (Part("image[]", 9, "a"), Part("image[]", 9, "b"), Part("mask", 9, "c"))
    ask = DIALECT.read_form("images.edits", form(files, prompt=["x"], n=["2"], quality=["low"]))
    assert (ask.media, ask.units, ask.output_tokens) == (3, Tokens(images=2), 2_048)
    assert bytes(ask.fields["n"]) == b'"2"'
    assert DIALECT.path_of("images.edits") == "/images/edits"
