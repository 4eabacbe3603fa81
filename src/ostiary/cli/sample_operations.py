"""What the sample provider answers beside chats and embeddings: texts that say what it is, one grey dot, silence."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any, Final

Body = dict[str, Any]

_RATE: Final = 8_000
_SILENCE_S: Final = 1


def completion(head: Body, text: str, reason: str, usage: Body) -> Body:
    """A completion of the old kind."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    return {**head, "object": "text_completion", "choices": [choice], "usage": usage}


def response(head: Body, text: str, given: int, made: int) -> Body:
    """A response that is complete."""
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    message = {"type": "message", "id": "msg_0", "status": "completed", "role": "assistant", "content": content}
    usage = {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + made,
    }
    return _response(head, "completed", [message], usage)


def response_events(head: Body, pieces: list[str], given: int) -> list[Body]:
    """The events of a streamed response, in their order."""
    begun = {"response": _response(head, "in_progress", [], None)}
    item = {"type": "message", "id": "msg_0", "status": "in_progress", "role": "assistant", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    place = {"item_id": "msg_0", "output_index": 0, "content_index": 0}
    events: list[tuple[str, Body]] = [
        ("response.created", begun),
        ("response.in_progress", begun),
        ("response.output_item.added", {"output_index": 0, "item": item}),
        ("response.content_part.added", {**place, "part": part}),
        *(("response.output_text.delta", {**place, "delta": piece, "logprobs": []}) for piece in pieces),
        ("response.completed", {"response": response(head, "".join(pieces), given, len(pieces))}),
    ]
    return [{"type": name, "sequence_number": number, **fields} for number, (name, fields) in enumerate(events)]


def _response(head: Body, status: str, output: list[Body], usage: Body | None) -> Body:
    return {
        "id": head["id"],
        "object": "response",
        "created_at": head["created"],
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": head["model"],
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }


def moderation(head: Body) -> Body:
    """Nothing is flagged, because nothing is read."""
    result = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
    return {"id": head["id"], "model": head["model"], "results": [result]}


def ranking(head: Body, documents: list[Any], most: int) -> Body:
    """The order in which they came."""
    results = [{"index": at, "relevance_score": 1 / (at + 1)} for at in range(min(len(documents), most))]
    return {"model": head["model"], "results": results, "meta": {"billed_units": {"search_units": 1}}}


def images(head: Body, count: int) -> Body:
    """One grey dot each."""
    return {"created": head["created"], "data": [{"b64_json": base64.b64encode(_dot()).decode()}] * count}


def silence() -> bytes:
    """One second of nothing, as WAV."""
    sound = bytes([128]) * (_RATE * _SILENCE_S)
    shape = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, _RATE, _RATE, 1, 8)
    data = struct.pack("<4sI", b"data", len(sound)) + sound
    return struct.pack("<4sI4s", b"RIFF", 4 + len(shape) + len(data), b"WAVE") + shape + data


def _dot() -> bytes:
    """A PNG of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    shape = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", shape) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")
