"""One request and its answer, as ASGI carries them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from ostiary.errors import Refusal

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
WriteWhole = Callable[[int, Headers, bytes], bool]

MAX_BODY = 10 * 1024 * 1024
_JSON = (b"content-type", b"application/json")
_SAFE: Headers = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class Exchange:
    """What a step reads of the request and writes of the answer. One per request, one task."""

    __slots__ = (
        "_receive",
        "_send",
        "address",
        "headers",
        "is_ended",
        "is_gone",
        "is_started",
        "path",
        "raw_headers",
        "request_id",
        "scope",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, address: str | None) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.request_id = request_id
        self.address = address
        self.path: str = scope["path"]
        self.raw_headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.headers = dict(self.raw_headers)
        self.is_started = False
        self.is_ended = False
        self.is_gone = False

    async def read_body(self, wait_s: float) -> bytes:
        """The whole body, at most 10 MB; `wait_s` is for all of it."""
        if int(self.headers.get(b"content-length", b"0")) > MAX_BODY:
            raise _too_large()
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body") and message["type"] == "http.request":
            return body
        try:
            async with asyncio.timeout(wait_s):
                return await self._read_rest(message)
        except TimeoutError:
            raise Refusal("request_timeout", headers=((b"connection", b"close"),)) from None

    async def _read_rest(self, message: dict[str, Any]) -> bytes:
        parts = []
        size = 0
        while message["type"] == "http.request":
            parts.append(message["body"])
            size += len(message["body"])
            if size > MAX_BODY:
                raise _too_large()
            if not message.get("more_body"):
                return b"".join(parts)
            message = await self._receive()
        self.is_gone = True
        raise asyncio.CancelledError  # the caller hung up in the middle of its own request

    def when_gone(self, hang_up: Callable[[], None] | None) -> None:
        """Have `hang_up` called if the caller's connection goes before the answer has ended; None takes that back.

        Raises CancelledError when it has gone already. Nothing happens once the answer has ended: from there on the
        connection is the next request's.
        """
        watch = self.scope.get("ostiary.when_gone")
        if watch is not None and not self.is_ended and not watch(hang_up) and hang_up is not None:
            self.is_gone = True
            raise asyncio.CancelledError

    async def reply(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Answer with a whole JSON body, in one write where the server can."""
        at_once = self.scope.get("ostiary.reply")
        if at_once is not None and self._say_at_once(at_once, status, body, headers):
            return
        await self.start(status, [_JSON, (b"content-length", b"%d" % len(body)), *headers])
        await self.write(body, more=False)

    def _say_at_once(self, write: WriteWhole, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        if any(name == b"connection" for name, _ in headers):
            return False
        self.when_gone(None)
        named = [_JSON, (b"content-length", b"%d" % len(body)), *headers, (b"x-request-id", self.request_id.encode())]
        self.is_started = self.is_ended = write(status, [*named, *_SAFE], body)
        return self.is_started

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with an error object; nothing if an answer has begun."""
        if self.is_started:
            return
        headers = list(refusal.headers)
        if refusal.status == 401:  # noqa: PLR2004 - RFC 6750: no error= when nothing was sent
            sent = refusal.code != "missing_api_key"
            headers.append((b"www-authenticate", b'Bearer error="invalid_token"' if sent else b"Bearer"))
        await self.reply(refusal.status, msgspec.json.encode(refusal.body(self.request_id)), headers)

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers; the request id and the safe ones are added."""
        self.is_started = True
        named = [*headers, (b"x-request-id", self.request_id.encode()), *_SAFE]
        await self._send({"type": "http.response.start", "status": status, "headers": named})

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; `more=False` ends the answer."""
        if more:
            at_once = self.scope.get("ostiary.piece")
            if at_once is not None and at_once(body):
                return
        if not more:
            self.when_gone(None)
            self.is_ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _too_large() -> Refusal:
    return Refusal("request_too_large", f"The body is larger than {MAX_BODY // 1024 // 1024} MB.")
