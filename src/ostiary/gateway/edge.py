"""Refuses malformed, oversized and slow HTTP before anything reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from ostiary.errors import Refusal

MAX_HEAD = 32 * 1024
MAX_HEADERS = 100
_HEAD_S: Final = 5.0
_STALLED_S: Final = 60.0
_SWEEP_S: Final = 1.0


class EdgeProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the checks it leaves out: head size and time, one Host, one framing, stalled readers.

    Times are looked at by one sweep a second over all connections, so that a request costs no timer of its own.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_since: float | None = self.loop.time()
        self._head_bytes = 0
        self._stalled_since: float | None = None
        self._refusal: Refusal | None = None
        self._hang_up: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        """Count the head before and after the parser has seen it."""
        if self._head_since is None and (self.cycle is None or not self.cycle.more_body):
            self._head_since = self.loop.time()
            self._head_bytes = 0
        super().data_received(data)
        if self._head_since is not None and self.parser is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD and not self.transport.is_closing():
                self._refuse(Refusal("headers_too_large"))

    def on_headers_complete(self) -> None:
        """The whole head is here: judge it, then let uvicorn begin."""
        self._head_since = None
        self._refusal = _judge_head(self.headers, self.parser.get_http_version(), len(self.url))
        if self._refusal is not None:
            raise ValueError(self._refusal.code)  # stops the parser; send_400_response answers
        self.scope["ostiary.when_gone"] = self._watch  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser or the judge refused, in the shape of every other error."""
        self._refuse(self._refusal or Refusal("invalid_request", f"This is not valid HTTP: {msg}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the call, if one is on its way, that nobody is listening any more."""
        super().connection_lost(exc)
        if self._hang_up is not None:
            self._hang_up()
            self._hang_up = None

    def pause_writing(self) -> None:
        """The reader is slower than we are."""
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._stalled_since = None
        super().resume_writing()

    def sweep(self, now: float) -> None:
        """Close what has been slow for too long."""
        if self._head_since is not None and now - self._head_since > _HEAD_S and self._is_between_answers():
            self._refuse(Refusal("request_timeout", "The head of the request was not received within 5 seconds."))
        elif self._stalled_since is not None and now - self._stalled_since > _STALLED_S:
            self.transport.abort()

    def _is_between_answers(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self, hang_up: Callable[[], None] | None) -> None:
        self._hang_up = hang_up

    def _refuse(self, refusal: Refusal) -> None:
        if self.transport.is_closing():
            return
        if self._is_between_answers():
            body = msgspec.json.encode(refusal.body())
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[refusal.status] + head + body)
        self.transport.close()


async def sweep_connections(state: ServerState) -> None:
    """Once a second, until cancelled, close the connections that stall."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_SWEEP_S)
        now = loop.time()
        for connection in list(state.connections):
            if isinstance(connection, EdgeProtocol):
                connection.sweep(now)


def _judge_head(headers: list[tuple[bytes, bytes]], version: str, url_bytes: int) -> Refusal | None:
    size = url_bytes
    hosts = lengths = encodings = 0
    for name, value in headers:
        size += len(name) + len(value) + 4
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            lengths += 1
        elif name == b"transfer-encoding":
            encodings += 1
    if size > MAX_HEAD or len(headers) > MAX_HEADERS:
        return Refusal("headers_too_large", f"The head is over {MAX_HEAD // 1024} KB or {MAX_HEADERS} headers.")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return Refusal("invalid_request", "Send exactly one Host header.")
    if lengths + encodings > 1:
        return Refusal("invalid_request", "Send one Content-Length or one Transfer-Encoding, not both.")
    return None
