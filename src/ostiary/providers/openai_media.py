"""What is asked for in images and sound: generations, edits, speech, transcriptions and translations."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Final

import msgspec

from ostiary.errors import Refusal
from ostiary.providers.dialect import Ask, Form
from ostiary.providers.openai_fields import BYTES_PER_TOKEN, MOST_CHOICES, fields_of, find_escape, outside, within
from ostiary.providers.sound_file import MP3_BYTES
from ostiary.providers.tokens import Tokens

IMAGE_TOKENS: Final = {"low": 1_024, "medium": 4_096, "standard": 4_096}
"""A ceiling for the tokens of one image by its quality."""
MOST_IMAGE_TOKENS: Final = 16_384
PARTIAL_TOKENS: Final = 128
OPUS_BYTES: Final = 750
"""Bytes of one second of speech at 6 kbit/s: a guess where nothing bounds it, for callers without a bound."""
AUDIO_TOKENS: Final = 25
"""A ceiling for the tokens that one second of sound is read as."""
SPOKEN_TOKENS: Final = 10
"""A ceiling for the tokens of what is said in one second."""
SPEECH_TOKENS: Final = 4
"""A ceiling for the tokens of sound that one small letter of English is spoken as, at normal speed.

A token is 0.05 seconds: a minute for which OpenAI names $0.015 is 1,250 tokens at its $12 a million. English is 12 to
15 letters a second, 1.7 tokens each at most; four are that of somebody who speaks at less than half that pace.
"""
SPEECH_TOKENS_OF_SIGNS: Final = 12
"""The same of what one character may be a syllable or a word of, in 0.6 seconds: Chinese, digits, capitals, `%`."""
SPEECH_TOKENS_OF_SYMBOLS: Final = 96
"""The same of what has a name of many words: emoji, and ligatures that are a sentence."""
INSTRUCTED_TOKENS: Final = 4_096
"""What instructions (to pause, to laugh, to draw it out) may add, beside doubling it: three minutes."""
_LIKELY_SPEECH: Final = 2
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz ")
_SLACK: Final = 64
_MS: Final = 1_000
_JSON_FORMATS: Final = frozenset({None, "json", "verbose_json", "diarized_json"})
"""Formats of a transcription that are JSON; whatever else a provider knows is text."""
_ELSEWHERE: Final = frozenset({"url", "file_url", "audio_url", "file_id"})
"""Fields by which some providers take the sound from elsewhere."""
_NO_LEAST: Final = (
    "A hard budget or x-ostiary-max-cost-usd needs to know how long `file` can last at most, which its size tells only "
    "of WAV (PCM) and MP3. Send it as one of these."
)
_IMAGE_FILES: Final = ("image", "image[]", "mask")
_SWITCH: Final = {"true": True, "1": True, "false": False, "0": False}
_MOST_PARTIAL: Final = 16


class _Images(msgspec.Struct):
    model: str
    prompt: str
    n: int | None = None
    quality: str | None = None
    stream: bool | None = None
    partial_images: int | None = None
    file_bytes: int = 0


class _Speech(msgspec.Struct):
    model: str
    input: str
    speed: float | None = None
    stream_format: str | None = None
    instructions: str | None = None


class _Sound(msgspec.Struct):
    """A transcription as JSON, for who only asks what it would cost: `file_bytes` stands for the file."""

    model: str
    file_bytes: int = 0
    stream: bool | None = None
    response_format: str | None = None


_images: Final = msgspec.json.Decoder(_Images).decode
_speech: Final = msgspec.json.Decoder(_Speech).decode
_sound: Final = msgspec.json.Decoder(_Sound).decode


def ask_images(operation: str, body: bytes) -> Ask:
    """`POST /images/generations`, and edits as they are explained."""
    asked = _images(body)
    fields = fields_of(body)
    ask = _ask_images(operation, asked, len(body), fields)
    ask.media = outside(body).media + bool(asked.file_bytes)
    ask.escape = find_escape(fields)
    return ask


def ask_image_edit(form: Form) -> Ask:
    """`POST /images/edits`, a form with images."""
    images = [one for one in form.files if one.name in _IMAGE_FILES]
    if not any(one.name != "mask" for one in images):
        raise Refusal("invalid_request", "`image` is missing: send it as a file.", param="image")
    asked = _Images(
        form.model,
        _one(form, "prompt") or "",
        n=_number(form, "n"),
        quality=_one(form, "quality"),
        stream=_is_true(form, "stream"),
        partial_images=_number(form, "partial_images"),
    )
    ask = _ask_images("images.edits", asked, form.size, _described(form))
    ask.media = len(form.files)
    ask.escape = _escape_of(form)
    ask.form = form
    return ask


def _ask_images(operation: str, asked: _Images, size: int, fields: dict[str, msgspec.Raw]) -> Ask:
    images = within("n", 1 if asked.n is None else asked.n, MOST_CHOICES)
    each = IMAGE_TOKENS.get(asked.quality or "", MOST_IMAGE_TOKENS)
    most = images * each + min(max(asked.partial_images or 0, 0), _MOST_PARTIAL) * images * PARTIAL_TOKENS
    ask = _ask(operation, asked.model, size, fields, most)
    ask.stream = bool(asked.stream)
    ask.units = Tokens(images=images)
    ask.guess = Tokens(input=size // BYTES_PER_TOKEN, output=most, images=images)
    ask.is_guess_exact = True
    return ask


def ask_speech(body: bytes) -> Ask:
    """`POST /audio/speech`: paid by the character, or by tokens made of them, of which slow speech has more."""
    asked = _speech(body)
    fields = fields_of(body)
    characters = len(asked.input)
    percent = 100 if asked.speed is None else min(max(int(asked.speed * 100), 1), 100)
    likely, most = (_SLACK + -(-tokens * 100 // percent) for tokens in _spoken(asked.input))
    if asked.instructions:
        likely = most = 2 * most + INSTRUCTED_TOKENS
    ask = _ask("audio.speech", asked.model, len(body), fields, most)
    ask.stream = asked.stream_format == "sse"
    ask.is_bytes = not ask.stream
    ask.units = Tokens(characters=characters)
    ask.guess = Tokens(input=len(body) // BYTES_PER_TOKEN, output=likely, audio=likely, characters=characters)
    ask.is_guess_exact = True
    ask.escape = find_escape(fields)
    return ask


def _spoken(text: str) -> tuple[int, int]:
    """Tokens of sound of a text, likely and at most; only what is plain is guessed at less than the most."""
    plain = other = 0
    for character, count in Counter(unicodedata.normalize("NFKC", text)).items():
        if character in _PLAIN:
            plain += count
        elif character.isascii() or unicodedata.category(character)[0] != "S":
            other += count * SPEECH_TOKENS_OF_SIGNS
        else:
            other += count * SPEECH_TOKENS_OF_SYMBOLS
    return plain * _LIKELY_SPEECH + other, plain * SPEECH_TOKENS + other


def ask_sound(operation: str, body: bytes) -> Ask:
    """A transcription or translation as it is explained."""
    asked = _sound(body)
    if asked.file_bytes < 0:
        raise Refusal("invalid_request", "`file_bytes` must not be negative.", param="file_bytes")
    ask = _ask_sound(operation, asked, -(-asked.file_bytes // MP3_BYTES), len(body), fields_of(body))
    ask.escape = find_escape(ask.fields)
    return ask


def ask_transcription(operation: str, form: Form) -> Ask:
    """`POST /audio/transcriptions` and `/audio/translations`, a form with one file."""
    files = [one for one in form.files if one.name == "file"]
    if len(files) != 1:
        what = "is missing: send it as a file" if not files else "came more than once"
        raise Refusal("invalid_request", f"`file` {what}.", param="file")
    asked = _Sound(
        form.model,
        files[0].size,
        stream=_is_true(form, "stream"),
        response_format=_one(form, "response_format"),
    )
    least = files[0].bytes_of_a_second
    ask = _ask_sound(operation, asked, -(-asked.file_bytes // (least or OPUS_BYTES)), form.size, _described(form))
    if least is None:
        ask.is_unbounded = _NO_LEAST
    ask.escape = _escape_of(form)
    ask.form = form
    return ask


def _ask_sound(operation: str, asked: _Sound, longest: int, size: int, fields: dict[str, msgspec.Raw]) -> Ask:
    """A sound of at most so many seconds. What is not told of it is charged as what is held: its caller picks both."""
    most = _SLACK + longest * SPOKEN_TOKENS
    ask = _ask(operation, asked.model, size, fields, most)
    ask.stream = bool(asked.stream)
    ask.is_text = asked.response_format not in _JSON_FORMATS
    ask.units = Tokens(input=longest * AUDIO_TOKENS, audio_ms=longest * _MS)
    heard = longest * AUDIO_TOKENS
    ask.guess = Tokens(input=heard + size // BYTES_PER_TOKEN, output=most, audio=heard, audio_ms=longest * _MS)
    if not _ELSEWHERE.isdisjoint(fields):
        ask.is_unbounded = "A hard budget or x-ostiary-max-cost-usd needs the sound itself. Send it as `file` alone."
    return ask


def _ask(operation: str, model: str, size: int, fields: dict[str, msgspec.Raw], output: int) -> Ask:
    return Ask(
        model=model,
        stream=False,
        wants_usage=True,
        output_tokens=output,
        choices=1,
        messages=1,
        media=0,
        reaches_out=False,
        escape=None,
        size=size,
        fields=fields,
        operation=operation,
    )


# ---- forms ------------------------------------------------------------------------------------------------------


def _one(form: Form, name: str) -> str | None:
    """A field that must not come twice, because nobody knows which one counts."""
    values = form.fields.get(name, [])
    if len(values) > 1:
        raise Refusal("invalid_request", f"`{name}` came more than once.", param=name)
    return values[0] if values else None


def _number(form: Form, name: str) -> int | None:
    text = _one(form, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MOST_CHOICES)):
        raise Refusal("invalid_request", f"`{name}` must be a whole number.", param=name)
    return int(text)


def _is_true(form: Form, name: str) -> bool:
    text = _one(form, name)
    if text is None:
        return False
    if text.lower() not in _SWITCH:  # a provider may take it for either
        raise Refusal("invalid_request", f"`{name}` must be true or false.", param=name)
    return _SWITCH[text.lower()]


def _escape_of(form: Form) -> str | None:
    return find_escape({name: msgspec.Raw(msgspec.json.encode(values[-1])) for name, values in form.fields.items()})


def _described(form: Form) -> dict[str, msgspec.Raw]:
    """The form without its files, as it is kept where content is captured."""
    told: dict[str, object] = {name: values if len(values) > 1 else values[0] for name, values in form.fields.items()}
    for file in form.files:
        told[file.name] = {"file": file.file_name, "bytes": file.size}
    told["model"] = form.model
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in told.items()}
