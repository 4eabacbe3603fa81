"""The sample provider: a small OpenAI-compatible server on loopback, with no model behind it, and it says so."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiohttp import web

from ostiary.cli import sample_operations as operations
from ostiary.clock import Clock
from ostiary.ids import new_id
from ostiary.secret import Secret

PROVIDER: Final = "sample"
CHAT_MODEL: Final = "sample-chat"
EMBEDDING_MODEL: Final = "sample-embedding"

_HOST: Final = "127.0.0.1"
_DIMENSIONS: Final = 8
_MAX_DIMENSIONS: Final = 1_024
_MAX_BODY: Final = 11 * 1024 * 1024
_MAX_ECHO: Final = 200
_MAX_IMAGES: Final = 10
_PAUSE_S: Final = 0.02
"""Between two pieces of a streamed answer, so that one sees it stream."""

Body = dict[str, Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def sample_provider(key: Secret, clock: Clock) -> AsyncIterator[str]:
    """Runs it on a free port of loopback; the value is its base URL. Only `key` opens it."""
    runner = web.AppRunner(_app(key, clock), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, _HOST, 0)
        await site.start()
        yield f"http://{_HOST}:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def _app(key: Secret, clock: Clock) -> web.Application:
    server = _Server(clock)
    app = web.Application(middlewares=[_only_with(key)], client_max_size=_MAX_BODY)
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_post("/v1/embeddings", server.embeddings)
    app.router.add_post("/v1/completions", server.completions)
    app.router.add_post("/v1/responses", server.responses)
    app.router.add_post("/v1/moderations", server.moderations)
    app.router.add_post("/v1/rerank", server.rerank)
    app.router.add_post("/v1/images/generations", server.images)
    app.router.add_post("/v1/audio/speech", server.speech)
    return app


def _only_with(key: Secret) -> Any:  # noqa: ANN401 - aiohttp's decorated middleware
    expected = f"Bearer {key.reveal()}".encode()

    @web.middleware
    async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, expected):
            return _error(401, "invalid_api_key", "The sample provider does not know this key.")
        try:
            return await handler(request)
        except _Unusable as unusable:
            return _error(unusable.status, unusable.code, unusable.message)

    return checked


class _Unusable(Exception):  # noqa: N818 - an answer, not an error of ours
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Server:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def models(self, _request: web.Request) -> web.StreamResponse:
        made = {"object": "model", "created": 0, "owned_by": PROVIDER}
        return _json({"object": "list", "data": [{"id": name, **made} for name in (CHAT_MODEL, EMBEDDING_MODEL)]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, CHAT_MODEL)
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
            raise _Unusable(400, "invalid_request", "messages must be a list of at least one object.")
        pieces, reason = _answer(messages, _limit(body))
        usage = _usage(_count(messages), len(pieces))
        now = self._clock.now()
        head = {"id": new_id("chatcmpl", now), "created": now // 1_000, "model": CHAT_MODEL}
        if body.get("stream") is not True:
            message = {"role": "assistant", "content": "".join(pieces), "refusal": None}
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
            return _json({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
        options = body.get("stream_options")
        asked = isinstance(options, dict) and options.get("include_usage") is True
        return await self._stream(request, head, pieces, reason, usage if asked else None)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, CHAT_MODEL)
        pieces, reason = _answer([{"content": body.get("prompt")}], _limit(body))
        usage = _usage(_count(body.get("prompt")), len(pieces))
        return _json(operations.completion(self._head("cmpl"), "".join(pieces), reason, usage))

    async def responses(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, CHAT_MODEL)
        given = body.get("input")
        said = given[-1] if isinstance(given, list) and given and isinstance(given[-1], dict) else {"content": given}
        limit = body.get("max_output_tokens")
        pieces, _ = _answer([said], limit if isinstance(limit, int) and limit > 0 else None)
        head, count = self._head("resp"), _count(given)
        if body.get("stream") is not True:
            return _json(operations.response(head, "".join(pieces), count, len(pieces)))
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        for event in operations.response_events(head, pieces, count):
            await response.write(b"event: " + event["type"].encode() + b"\n" + _event(event))
            await self._clock.sleep(_PAUSE_S)
        await response.write_eof()
        return response

    async def moderations(self, request: web.Request) -> web.StreamResponse:
        await _body(request, CHAT_MODEL)
        return _json(operations.moderation(self._head("modr")))

    async def rerank(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, CHAT_MODEL)
        documents = body.get("documents")
        if not isinstance(documents, list):
            raise _Unusable(400, "invalid_request", "documents must be a list.")
        most = body.get("top_n")
        return _json(
            operations.ranking(self._head("rank"), documents, most if isinstance(most, int) else len(documents))
        )

    async def images(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, CHAT_MODEL)
        count = body.get("n", 1)
        if not isinstance(count, int) or not 1 <= count <= _MAX_IMAGES:
            raise _Unusable(400, "invalid_request", f"n must be from 1 to {_MAX_IMAGES}.")
        return _json(operations.images(self._head("img"), count))

    async def speech(self, request: web.Request) -> web.StreamResponse:
        await _body(request, CHAT_MODEL)
        return web.Response(body=operations.silence(), content_type="audio/wav")

    def _head(self, kind: str) -> Body:
        now = self._clock.now()
        return {"id": new_id(kind, now), "created": now // 1_000, "model": CHAT_MODEL}

    async def _stream(
        self, request: web.Request, head: Body, pieces: list[str], reason: str, usage: Body | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await response.prepare(request)
        head = {**head, "object": "chat.completion.chunk"}
        extra = {"usage": None} if usage else {}

        async def send(delta: Body, finished: str | None = None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finished}
            await response.write(_event({**head, "choices": [choice], **extra}))

        await send({"role": "assistant", "content": ""})
        for piece in pieces:
            await send({"content": piece})
            await self._clock.sleep(_PAUSE_S)
        await send({}, reason)
        if usage:
            await response.write(_event({**head, "choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, EMBEDDING_MODEL)
        given = body.get("input")
        texts = given if isinstance(given, list) and not all(isinstance(one, int) for one in given) else [given]
        if not texts or not all(isinstance(one, str | list) and one for one in texts):
            raise _Unusable(400, "invalid_request", "input must be a text or a list of texts.")
        size = body.get("dimensions", _DIMENSIONS)
        if not isinstance(size, int) or not 1 <= size <= _MAX_DIMENSIONS:
            raise _Unusable(400, "invalid_request", f"dimensions must be from 1 to {_MAX_DIMENSIONS}.")
        packed = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(one, size, packed=packed)}
            for index, one in enumerate(texts)
        ]
        count = sum(_count(one) for one in texts)
        usage = {"prompt_tokens": count, "total_tokens": count}
        return _json({"object": "list", "data": data, "model": EMBEDDING_MODEL, "usage": usage})


async def _body(request: web.Request, model: str) -> Body:
    try:
        body = msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise _Unusable(400, "invalid_request", "The body is not JSON.") from error
    if not isinstance(body, dict):
        raise _Unusable(400, "invalid_request", "The body is not a JSON object.")
    if body.get("model") != model:
        raise _Unusable(404, "model_not_found", f"Here is only the model {model}.")
    return body


def _limit(body: Body) -> int | None:
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is None:
        return None
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise _Unusable(400, "invalid_request", "max_tokens must be a whole number from 1.")
    return limit


def _answer(messages: list[Body], limit: int | None) -> tuple[list[str], str]:
    """The pieces of the answer – one is one token here – and why it ended."""
    said = messages[-1].get("content")
    asked = said if isinstance(said, str) else ""
    echo = asked if len(asked) <= _MAX_ECHO else asked[:_MAX_ECHO] + " …"
    text = f"This is the sample provider; there is no model behind it. You said: {echo}"
    words = text.split(" ")
    pieces = [word if index == 0 else f" {word}" for index, word in enumerate(words)]
    return (pieces, "stop") if limit is None or len(pieces) <= limit else (pieces[:limit], "length")


def _count(part: object) -> int:
    """Tokens of an input: one for each begun four bytes of its JSON, never none."""
    return -(-len(msgspec.json.encode(part)) // 4)


def _usage(given: int, produced: int) -> Body:
    return {"prompt_tokens": given, "completion_tokens": produced, "total_tokens": given + produced}


def _vector(part: object, size: int, *, packed: bool) -> object:
    """Numbers from a digest of the input: the same for the same input, and without any meaning."""
    raw = hashlib.shake_256(msgspec.json.encode(part)).digest(size)
    numbers = [byte / 127.5 - 1 for byte in raw]
    return base64.b64encode(struct.pack(f"<{size}f", *numbers)).decode() if packed else numbers


def _event(value: Body) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _json(value: Body, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _error(status: int, code: str, message: str) -> web.Response:
    kind = "authentication_error" if status == 401 else "invalid_request_error"  # noqa: PLR2004 - HTTP's own number
    return _json({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)
