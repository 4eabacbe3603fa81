"""What is asked and what is answered in every run: 0.9 kB each way, and a stream of events."""

from __future__ import annotations

import json

MODEL = "bench-model"
PATH = "/v1/chat/completions"
STREAM_PATH = "/stream" + PATH
"""Where nginx serves streams, with its buffering off; everybody else uses PATH for both."""
FAILING = "/failing"
"""In front of PATH: where the upstream refuses every call."""
INPUT_TOKENS, OUTPUT_TOKENS = 180, 120

_SIZE = 900
_WORDS = "The quick brown fox jumps over the lazy dog near the river bank while rain falls. "
_USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}
_COMMON = {"id": "chatcmpl-bench00000000000000000000", "created": 1_763_600_000, "model": MODEL}

DONE = b"data: [DONE]\n\n"
ENDLESS = "an event every "
"""How `user` begins in a call for a stream that never ends."""
PAUSE_S = 5.0
"""Between the first event of such a stream and the second, so that thousands can be opened before they flow."""


def request(*, model: str = MODEL, stream: bool = False, gap_ms: float | None = None) -> bytes:
    """The body of a chat completion call of about 0.9 kB; `gap_ms` asks for a stream that never ends, at this pace."""
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": ""}]
    body = {"model": model, "messages": messages, "max_tokens": 256, "temperature": 0.2}
    if stream:
        body["stream"] = True
    if gap_ms is not None:
        body["user"] = f"{ENDLESS}{gap_ms:g} ms"
    messages[1]["content"] = _words(_SIZE - len(json.dumps(body)))
    return json.dumps(body).encode()


def answer() -> bytes:
    """The JSON answer of about 0.9 kB, with usage."""
    message = {"role": "assistant", "content": ""}
    body = {
        **_COMMON,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
    message["content"] = _words(_SIZE - len(json.dumps(body)))
    return json.dumps(body).encode()


def refusal() -> bytes:
    """What a call is refused with that no other key, and no later call, would be refused with."""
    said = {"message": "Not served in your country.", "code": "unsupported_country_region_territory"}
    return json.dumps({"error": said}).encode()


def event(delta: str) -> bytes:
    """One event of a stream that carries a piece of text."""
    choice = {"index": 0, "delta": {"content": delta}, "logprobs": None, "finish_reason": None}
    return _event({**_COMMON, "object": "chat.completion.chunk", "choices": [choice]})


def last_event() -> bytes:
    """The event that says why the text ends."""
    choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    return _event({**_COMMON, "object": "chat.completion.chunk", "choices": [choice]})


def usage_event() -> bytes:
    """The event a caller gets who asked for `stream_options.include_usage`."""
    return _event({**_COMMON, "object": "chat.completion.chunk", "choices": [], "usage": _USAGE})


def _event(body: object) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def _words(length: int) -> str:
    return (_WORDS * (length // len(_WORDS) + 1))[:length]
