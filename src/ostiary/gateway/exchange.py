"""One request and its answer, between the edge and the steps."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import msgspec

from ostiary.errors import Refusal
from ostiary.gateway.request import MAX_BODY, Headers, Request

__all__ = ["MAX_BODY", "STATUS", "Exchange", "Headers"]

STATUS: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_NO_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_SAFE: Final = b"x-content-type-options: nosniff\r\ncache-control: no-store\r\nx-request-id: %b\r\n%b"
"""Lines of our own, with the request's id and what else is told with this answer."""
_JSON: Final = b"content-type: application/json\r\n" + _SAFE
_KINDS: Final = frozenset(
    {
        *("application/json", "text/plain", "text/vtt", "text/srt", "application/x-subrip", "text/event-stream"),
        *("audio/mpeg", "audio/mp3", "audio/wav", "audio/x-wav", "audio/wave", "audio/opus", "audio/ogg", "audio/aac"),
        *("audio/flac", "audio/x-flac", "audio/pcm", "audio/l16", "audio/basic", "audio/webm", "audio/mp4"),
    }
)
"""Types of answers that are passed on as the provider gives them."""
_ANY_KIND: Final = "application/octet-stream"


def kind_of(content_type: str) -> bytes:
    """A provider's content type as a caller may have it: nothing that a browser would run, nor what names nobody."""
    kind, _, rest = content_type.partition(";")
    kind = kind.strip().lower()
    if kind not in _KINDS:
        return _ANY_KIND.encode()
    charset = ";".join(part for part in rest.split(";") if part.strip().lower() in _PLAIN_PARAMETERS)
    return f"{kind}; {charset.strip()}".encode("ascii") if charset else kind.encode()


_PLAIN_PARAMETERS: Final = frozenset({"charset=utf-8", "rate=24000", "channels=1", "codecs=opus"})


class Exchange(Request):
    """What a step reads of the request and writes of the answer. One per request, one task."""

    __slots__ = ("_chunked",)

    _chunked: bool

    async def reply(self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Answer with a whole JSON body."""
        await self.answer(status, body, headers, _JSON % (self.request_id.encode(), self.told))

    async def reply_as(self, kind: bytes, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Answer with a whole body of another type than JSON."""
        pairs = (*headers, (b"content-type", kind))
        await self.answer(HTTPStatus.OK, body, pairs, _SAFE % (self.request_id.encode(), self.told))

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with an error object; nothing if an answer has begun."""
        if self.is_started:
            return
        headers = [pair for pair in refusal.headers if pair[0] != b"connection"]
        if len(headers) != len(refusal.headers):
            self.keep_alive = False
        if refusal.status == HTTPStatus.UNAUTHORIZED:  # RFC 6750: no error= when nothing was sent
            self.told = b""  # whoever holds a dead key learns nothing else
            sent = refusal.code != "missing_api_key"
            headers.append((b"www-authenticate", b'Bearer error="invalid_token"' if sent else b"Bearer"))
        await self.reply(refusal.status, msgspec.json.encode(refusal.body(self.request_id)), headers)

    async def start(self, status: int, headers: Headers) -> None:
        """Begin a stream; the request id and the safe headers are added."""
        await self.begin(status, headers, _SAFE % (self.request_id.encode(), self.told))

    async def answer(
        self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]], fixed: bytes = b""
    ) -> None:
        """A whole answer with exactly these headers, its length and what the connection needs, in one write.

        `fixed` are header lines of our own, as they are sent: they need not be looked at.
        """
        if self._wire.is_stuck:
            await self._wire.drain()
        if self.is_ended:
            return
        self.is_started = True
        if self.method == "HEAD" or status in _NO_BODY:
            fixed += b"" if status in _NO_BODY else b"content-length: %d\r\n" % len(body)
            body = b""
        else:
            fixed = b"%bcontent-length: %d\r\n" % (fixed, len(body))
        head = _head(status, headers, fixed)
        self._write(b"%b%b%b" % (head, b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n", body))
        self._end()

    async def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]], fixed: bytes = b"") -> None:
        """The head of an answer whose length nobody knows yet; who speaks HTTP/1.0 hears its end by the hang-up."""
        if self._wire.is_stuck:
            await self._wire.drain()
        self.is_started = True
        self._chunked = self.version != "1.0" and self.method != "HEAD"
        head = _head(status, headers, fixed + (b"transfer-encoding: chunked\r\n" if self._chunked else b""))
        self._write(head + (b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"))

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; `more=False` ends the answer."""
        if self._wire.is_stuck:
            await self._wire.drain()
        if self.is_ended:
            return
        if self.method == "HEAD":
            body = b""
        if body and self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        if more:
            self._write(body)
            return
        self._write(body + b"0\r\n\r\n" if self._chunked else body)
        self._end()

    @property
    def is_stuck(self) -> bool:
        """Whether the caller reads more slowly than we write."""
        return self._wire.is_stuck

    def write_now(self, body: bytes) -> None:
        """Send a part of a stream, whose head is out, to a caller who is not stuck."""
        if not self.is_gone:
            self._wire.out.write(b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body)

    def cut(self) -> None:
        """End an answer so that nobody takes it for whole: it is no text, so no words can say it."""
        if not self.is_ended and not self.is_gone:
            self._wire.out.abort()

    def _write(self, data: bytes) -> None:
        if data and not self.is_gone:
            self._wire.out.write(data)

    def _end(self) -> None:
        self.is_ended = True
        self._is_watched = False
        self._wire.has_ended(self)


def _head(status: int, headers: Iterable[tuple[bytes, bytes]], fixed: bytes) -> bytes:
    lines = [name + b": " + value for name, value in headers]
    head = b"\r\n".join(lines)
    ends = len(lines) - 1
    if ends < 0:
        return STATUS[status] + fixed
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
        raise ValueError("a header holds a character that would end it")
    return b"%b%b\r\n%b" % (STATUS[status], head, fixed)
