"""Refuses malformed, oversized and slow HTTP before anything reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from ostiary.errors import Refusal
from ostiary.gateway.exchange import MAX_BODY
from ostiary.gateway.head import MAX_HEAD, judge_head, without_upgrade
from ostiary.gateway.whole import write_piece, write_whole

_MOST_SENT: Final = 2 * MAX_BODY
"""Bytes of one body with its framing, read or thrown away: chunks have heads and may have trailers."""
_SWEEP_S: Final = 1.0


class EdgeProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the checks it leaves out: head size and time, one Host, one framing, stalled readers.

    Times are looked at by one sweep a second over all connections, so that a request costs no timer of its own.
    """

    head_s: ClassVar[float] = 5.0
    stalled_s: ClassVar[float] = 60.0
    linger_s: ClassVar[float] = 10.0
    """For how long the rest of a body is thrown away that was answered before it was read."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_since: float | None = self.loop.time()
        self._is_in_body = False
        self._piece = 0
        self._counted = 0
        self._stuck_since: float | None = None
        self._refusal: Refusal | None = None
        self._hang_up: Callable[[], None] | None = None

    def data_received(self, data: bytes) -> None:
        """Count what has come of the head or body that is not complete yet."""
        if not self._is_in_body:
            if self._head_since is None:
                self._head_since = self.loop.time()
                self._counted = 0
            if b"pgrade" in data:
                data = without_upgrade(data)
        self._piece = len(data)
        super().data_received(data)
        self._counted += self._piece
        if self._counted > MAX_HEAD and not self.transport.is_closing():
            if self._head_since is not None:
                self._refuse(Refusal("headers_too_large"))
            elif self._is_in_body and self._counted > _MOST_SENT:
                self._refuse(Refusal("request_too_large"))

    def on_message_begin(self) -> None:
        """A head begins, at times in the piece that ends the request before it: then counting begins after it."""
        if self._head_since is None:
            self._head_since = self.loop.time()
            self._counted = -self._piece
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The whole head is here: judge it, then let uvicorn begin."""
        self._head_since = None
        self._counted = -self._piece
        self._refusal = judge_head(self.headers, self.parser.get_http_version(), len(self.url))
        if self.parser.should_upgrade():
            self._refusal = Refusal("invalid_request", "This connection stays with HTTP/1.1.")
        if self._refusal is not None:
            raise ValueError(self._refusal.code)  # stops the parser; send_400_response answers
        self._is_in_body = True
        self.scope["ostiary.when_gone"] = self._watch  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        self.scope["ostiary.reply"] = partial(write_whole, self.cycle, self.flow)  # type: ignore[typeddict-unknown-key]
        self.scope["ostiary.piece"] = partial(write_piece, self.cycle, self.flow)  # type: ignore[typeddict-unknown-key]
        self.headers = []  # trailers are not headers: nobody in front of us has looked at them as such

    def on_message_complete(self) -> None:
        """The body has ended, whether anybody read it or not."""
        self._is_in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser or the judge refused, in the shape of every other error."""
        self._refuse(self._refusal or Refusal("invalid_request", f"This is not valid HTTP: {msg}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the call, if one is on its way, that nobody is listening any more."""
        super().connection_lost(exc)
        if self._hang_up is not None:
            self._hang_up()
            self._hang_up = None

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._stuck_since = None
        super().resume_writing()

    def sweep(self, now: float) -> None:
        """Close what has been slow for too long."""
        if self._head_since is not None and now - self._head_since > self.head_s and self._is_between_answers():
            self._refuse(Refusal("request_timeout", "The head of the request was not received in time."))
        patience = self._patience()
        if patience is None:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > patience:
            self.transport.abort()

    def _patience(self) -> float | None:
        """How long things may stay as they are: a reader that does not read, a body that nobody wants."""
        if self.flow.write_paused or self.transport.is_closing():
            return self.stalled_s
        return self.linger_s if self._is_in_body and self._is_between_answers() else None

    def _is_between_answers(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self, hang_up: Callable[[], None] | None) -> bool:
        """Whom to tell when the caller goes; False: too late, the caller has gone."""
        self._hang_up = hang_up
        return self.parser is not None

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, if it is this request's turn and nothing was said yet, and hang up."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if self._is_between_answers() or (self._is_in_body and not cycle.response_started and not self.pipeline):
            body = msgspec.json.encode(refusal.body())
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[refusal.status] + head + body)
        elif not self._is_in_body:
            cycle.keep_alive = False  # what was asked before this is still answered
            return
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
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
