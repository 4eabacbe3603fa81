"""What a provider's answers are made of: heads, frames, events, bodies."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.servers.upstream import Received

PROMPT_TOKENS: Final = 11
COMPLETION_TOKENS: Final = 7
CACHED_TOKENS: Final = 5
REASONING_TOKENS: Final = 3
WORDS: Final = ("The", " door", " is", " öpen", " –", " pass", ".")
TEXT: Final = "".join(WORDS)
ORGANIZATION: Final = "org-UPSTREAMOWNER1234567890"
"""Identifies the owner of the provider key; no caller may ever see it."""
OWNER_HEADERS: Final = (
    b"openai-organization: " + ORGANIZATION.encode() + b"\r\n"
    b"openai-project: proj_UPSTREAMOWNER\r\n"
    b"set-cookie: __cf_bm=UPSTREAMCOOKIE; path=/\r\n"
    b"x-request-id: req_UPSTREAMREQUEST\r\n"
)


def head(status: int = 200, *lines: bytes, kind: bytes = b"application/json") -> bytes:
    """A response head up to the blank line."""
    start = b"HTTP/1.1 %d Said\r\ncontent-type: %s\r\n" % (status, kind)
    return start + OWNER_HEADERS + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def whole(status: int, body: bytes, *lines: bytes, kind: bytes = b"application/json") -> bytes:
    """A response framed by its length."""
    return head(status, b"content-length: %d" % len(body), *lines, kind=kind) + body


def stream_head() -> bytes:
    """The head of a chunked event stream."""
    return head(200, b"transfer-encoding: chunked", kind=b"text/event-stream; charset=utf-8")


def framed(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST: Final = b"0\r\n\r\n"
DONE: Final = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def usage(**changed: Any) -> dict[str, Any]:
    """Token figures as OpenAI gives them."""
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS,
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        **changed,
    }


def completion(request: Received, figures: Any, text: str = TEXT) -> dict[str, Any]:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request.model, "choices": [choice]}
    return body | ({"usage": figures} if figures is not None else {})


def chunk(request: Received, delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of a streamed chat completion; without a delta it has no choices, as the usage chunk."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": request.model} | {
        "choices": choices,
        **more,
    }


def events(request: Received, figures: Any) -> list[bytes]:
    """A whole stream: role, words, end, usage if asked for (or given), [DONE]."""
    asked = (request.json.get("stream_options") or {}).get("include_usage", False)
    parts = [event(chunk(request, {"role": "assistant", "content": ""}))]
    parts += [event(chunk(request, {"content": word})) for word in WORDS]
    parts += [event(chunk(request, {}, "stop"))]
    if asked and figures is not None:
        parts += [event(chunk(request, None, usage=figures))]
    return [*parts, DONE]


def streams(request: Received) -> bool:
    """Whether the request asks for a stream."""
    return bool(request.body) and request.json.get("stream") is True


def embeddings(request: Received) -> dict[str, Any]:
    """One short vector for each input."""
    given = request.json["input"]
    count = len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
    data = [{"object": "embedding", "index": i, "embedding": [0.25, -0.5, 0.125]} for i in range(count)]
    figures = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
    return {"object": "list", "data": data, "model": request.model, "usage": figures}


def compact(data: Any) -> bytes:
    """JSON, as UTF-8."""
    return json.dumps(data, ensure_ascii=False).encode()
