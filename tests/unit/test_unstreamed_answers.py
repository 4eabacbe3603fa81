"""What counts as a whole answer where a stream was asked for."""

from __future__ import annotations

import json

import pytest

from ostiary.gateway.relay import _is_answer, _is_text
from ostiary.providers.openai import OpenAI

CHAT = OpenAI().read_ask("chat", json.dumps({"model": "m", "messages": [], "stream": True}).encode())
SPEECH = OpenAI().read_ask("audio.speech", b'{"model": "m", "input": "x", "stream_format": "sse"}')


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        (b'{"choices": [{}]}', True),
        (b'{"choices": null}', False),
        (b'{"detail": "busy"}', False),
        (b'{"choices": [{"mess', False),
        (b"[]", False),
        (b"null", False),
        (b"", False),
    ],
)
def test_an_answer_to_a_chat_has_choices(body: bytes, *, is_one: bool) -> None:
    assert _is_answer(body, CHAT) == is_one
    assert not _is_answer(body, SPEECH), "of speech none is in JSON"


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        ("Öpen the door.\n".encode(), True),
        (b"<|nospeech|>", True),
        (b"\n", True),
        (b"", False),
        (b"ID3\xff\xfe", False),
        (b"\n <!DOCTYPE html><html>", False),
        (b"<HTML><body>", False),
    ],
)
def test_text_is_words_and_no_page(body: bytes, *, is_one: bool) -> None:
    assert _is_text(body) == is_one
