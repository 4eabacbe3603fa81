"""A provider's right answers beside chats and embeddings: by path, whole or streamed."""

from __future__ import annotations

import json
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Final

from tests.servers.upstream import Exchange, Received
from tests.servers.wire import DONE, LAST, WORDS, event, framed, head, stream_head, usage, whole

SOUND: Final = bytes(range(256)) * 64
TRANSCRIPT: Final = "The door is open."
HEARD_S: Final = 9
USAGE: Final = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 29,
}


def form_of(request: Received) -> dict[str, list[tuple[str | None, bytes]]]:
    """The parts of a form by name: (file name, bytes), read by another parser than the product's."""
    kind = request.header("content-type") or ""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + request.body)
    found: dict[str, list[tuple[str | None, bytes]]] = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        found.setdefault(name, []).append((part.get_filename(), content))
    return found


def field(request: Received, name: str) -> str | None:
    """A text field of a form."""
    found = form_of(request).get(name)
    return found[0][1].decode() if found else None


def typed(name: str, **fields: Any) -> bytes:
    """An event whose type is its name."""
    return b"event: " + name.encode() + b"\n" + event({"type": name, **fields})


def response_id(request: Received) -> str:
    """The one that is asked about, or a new one."""
    _, _, noun, *rest = request.target.partition("?")[0].split("/")
    return rest[0] if noun == "responses" and rest else f"resp_{int(request.at * 1e9):x}"


def response(request: Received, status: str = "completed", **more: Any) -> dict[str, Any]:
    """A response, as OpenAI gives it."""
    content = [{"type": "output_text", "text": "".join(WORDS), "annotations": []}]
    message = {"type": "message", "id": "msg_1", "status": status, "role": "assistant", "content": content}
    return {
        "id": response_id(request),
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": request.model,
        "output": [message] if status == "completed" else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE if status == "completed" else None,
        **more,
    }


def response_events(request: Received) -> list[bytes]:
    """A streamed response: reasoning, words, the end."""
    begun = response(request, "in_progress")
    item = {"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant", "content": []}
    parts: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": item}),
        (
            "response.content_part.added",
            {
                "item_id": "msg_1",
                "output_index": 0,
                "content_index": 0,
                "part": {"type": "output_text", "text": "", "annotations": []},
            },
        ),
        *(
            (
                "response.output_text.delta",
                {"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": word, "logprobs": []},
            )
            for word in WORDS
        ),
        ("response.completed", {"response": response(request)}),
    ]
    return [typed(name, sequence_number=number, **fields) for number, (name, fields) in enumerate(parts)]


async def _json(exchange: Exchange, body: Any) -> None:
    await exchange.send(whole(200, json.dumps(body).encode()))


async def _stream(exchange: Exchange, *parts: bytes) -> None:
    await exchange.send(stream_head(), *map(framed, parts), LAST)


async def responses(exchange: Exchange) -> None:
    """Made, asked for, deleted, cancelled."""
    request = exchange.request
    if request.method == "GET":
        await _json(exchange, response(request))
    elif request.method == "DELETE":
        await _json(exchange, {"id": response_id(request), "object": "response", "deleted": True})
    elif request.target.endswith("/cancel"):
        await _json(exchange, response(request, "cancelled"))
    elif request.json.get("stream"):
        await _stream(exchange, *response_events(request))
    elif request.json.get("background"):
        await _json(exchange, response(request, "queued"))
    else:
        await _json(exchange, response(request))


async def completions(exchange: Exchange) -> None:
    """The old kind."""
    request = exchange.request
    body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": request.model}
    if not request.json.get("stream"):
        choice = {"index": 0, "text": "".join(WORDS), "finish_reason": "stop", "logprobs": None}
        await _json(exchange, {**body, "choices": [choice], "usage": usage()})
        return
    parts = [event({**body, "choices": [{"index": 0, "text": word, "finish_reason": None}]}) for word in WORDS]
    parts.append(event({**body, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}))
    if (request.json.get("stream_options") or {}).get("include_usage"):
        parts.append(event({**body, "choices": [], "usage": usage()}))
    await _stream(exchange, *parts, DONE)


async def images(exchange: Exchange) -> None:
    """With usage for models named `gpt-…`, without for others."""
    request = exchange.request
    is_form = (request.header("content-type") or "").startswith("multipart/")
    model = field(request, "model") if is_form else request.model
    wants_stream = field(request, "stream") == "true" if is_form else request.json.get("stream")
    count = int((field(request, "n") if is_form else request.json.get("n")) or 1)
    counted = {"usage": {**USAGE, "input_tokens_details": {"text_tokens": 5, "image_tokens": 15}}}
    told = counted if (model or "").startswith("gpt-") else {}
    if wants_stream:
        name = "image_edit" if "edits" in request.target else "image_generation"
        partial = typed(f"{name}.partial_image", b64_json="AAAA", partial_image_index=0)
        await _stream(exchange, partial, typed(f"{name}.completed", b64_json="AAAB", **told))
    else:
        await _json(exchange, {"created": 1, "data": [{"b64_json": "AAAB"}] * count, **told})


async def speech(exchange: Exchange) -> None:
    """Sound in pieces, or events."""
    if exchange.request.json.get("stream_format") == "sse":
        await _stream(exchange, typed("speech.audio.delta", audio="AAAA"), typed("speech.audio.done", usage=USAGE))
        return
    await exchange.send(head(200, b"transfer-encoding: chunked", kind=b"audio/mpeg"))
    for at in range(0, len(SOUND), 4_096):
        await exchange.send(framed(SOUND[at : at + 4_096]))
    await exchange.send(LAST)


async def sound(exchange: Exchange) -> None:
    """Paid by seconds for models named `whisper…`, by tokens for others."""
    request = exchange.request
    is_timed = (field(request, "model") or "").startswith("whisper")
    tokens = {"type": "tokens", "input_tokens": 14, "input_token_details": {"audio_tokens": 14}, "output_tokens": 5}
    told = {"type": "duration", "seconds": HEARD_S} if is_timed else {**tokens, "total_tokens": 19}
    kind = field(request, "response_format") or "json"
    if field(request, "stream") == "true":
        words = [typed("transcript.text.delta", delta=word) for word in ("The door", " is open.")]
        await _stream(exchange, *words, typed("transcript.text.done", text=TRANSCRIPT, usage=told))
    elif kind == "json":
        await _json(exchange, {"text": TRANSCRIPT, "usage": told})
    elif kind == "verbose_json":
        more = {"task": "transcribe", "language": "english", "duration": 8.5, "segments": []}
        await _json(exchange, {"text": TRANSCRIPT, **more})
    else:
        await exchange.send(whole(200, TRANSCRIPT.encode() + b"\n", kind=b"text/plain; charset=utf-8"))


async def moderations(exchange: Exchange) -> None:
    """Nothing is wrong with anything."""
    result = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
    await _json(exchange, {"id": "modr-1", "model": exchange.request.model, "results": [result]})


async def rerank(exchange: Exchange) -> None:
    """In the order in which they came; models named `cohere…` are paid by searches."""
    request = exchange.request
    results = [{"index": at, "relevance_score": 0.9 - at / 10} for at in range(len(request.json["documents"]))]
    by_search = {"meta": {"billed_units": {"search_units": 1}}}
    told = by_search if request.model.startswith("cohere") else {"usage": {"total_tokens": 33}}
    await _json(exchange, {"model": request.model, "results": results[: request.json.get("top_n")], **told})


_SERVED: Final = {
    "/v1/responses": responses,
    "/v1/completions": completions,
    "/v1/images/": images,
    "/v1/audio/speech": speech,
    "/v1/audio/trans": sound,
    "/v1/moderations": moderations,
    "/v1/rerank": rerank,
}


async def served(exchange: Exchange) -> bool:
    """Answer well if it is one of these operations; whether it was."""
    for start, behave in _SERVED.items():
        if exchange.request.target.startswith(start):
            await behave(exchange)
            return True
    return False
