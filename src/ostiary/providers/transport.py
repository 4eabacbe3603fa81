"""The one HTTP client: pooled, bounded in time and bytes, never redirected, and only where egress lets it."""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDictProxy
from yarl import URL

from ostiary.providers.egress import Blocked, Egress

Failure = Literal[
    "refused",
    "dns",
    "tls",
    "connect_timeout",
    "first_byte_timeout",
    "idle_timeout",
    "total_timeout",
    "broken",
    "too_large",
    "blocked",
    "encoding",
]

MOST_STREAMED: Final = 64 * 1024 * 1024
"""Bytes of one streamed answer: more than any model writes in ten minutes."""
_MOST_HEADERS: Final = 100
_LONGEST_HEADER: Final = 16 * 1024
_READ_BYTES: Final = 64 * 1024
_KEEP_ALIVE_S: Final = 30
_DNS_S: Final = 30
_COPIED_BODY: Final = 1024 * 1024
_URLS_KEPT: Final = 1_024

_FAILURES: Final[tuple[tuple[type[BaseException], Failure, bool, str], ...]] = (
    (aiohttp.InvalidURL, "blocked", False, "the URL is not one to call"),
    (aiohttp.ClientConnectorDNSError, "dns", False, "the host name could not be resolved"),
    (aiohttp.ClientConnectorCertificateError, "tls", False, "the certificate is not trusted"),
    (aiohttp.ClientConnectorSSLError, "tls", False, "TLS could not be agreed on"),
    (aiohttp.ClientConnectorError, "refused", False, "the connection was refused"),
    (aiohttp.ConnectionTimeoutError, "connect_timeout", False, "no connection in time"),
    (aiohttp.ServerTimeoutError, "idle_timeout", True, "nothing came for too long"),
    (TimeoutError, "total_timeout", True, "the whole answer took too long"),
    (aiohttp.ClientResponseError, "broken", True, "the answer is not HTTP as agreed"),
    (aiohttp.ClientPayloadError, "broken", True, "the answer broke off"),
    (aiohttp.ServerDisconnectedError, "broken", True, "the connection was closed without an answer"),
    (aiohttp.ClientError, "broken", True, "the connection broke"),
    (OSError, "broken", True, "the connection broke"),
    (RuntimeError, "broken", True, "the connection broke"),  # uvloop's word for writing to a closed one
)
"""What an exception of the client means, and whether the request may have reached the server. First match wins."""
_CAUGHT: Final = (aiohttp.ClientError, OSError, RuntimeError)


class TransportError(Exception):
    """No answer, or not all of it. `sent`: some of the request may have reached the server. `text` holds no secret."""

    def __init__(self, kind: Failure, *, sent: bool, text: str) -> None:
        self.kind: Failure = kind
        self.sent = sent
        self.text = text
        super().__init__(f"{kind}: {text}")


@dataclass(frozen=True, slots=True)
class Waits:
    """How long to wait, in seconds: for the connection with its TLS, for the head and then for the first of the body,
    between two pieces of the body, for everything.
    """

    connect_s: float = 10
    first_byte_s: float = 120
    idle_s: float = 60
    total_s: float = 600


DEFAULT_WAITS: Final = Waits()


class Transport:
    """Opened once in a process; every call to a provider passes here."""

    def __init__(self, egress: Egress, trust: ssl.SSLContext | None = None) -> None:
        """`trust` replaces the system's certificate authorities."""
        self._egress = egress
        self._trust = trust
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[Waits, aiohttp.ClientTimeout] = {}

    async def open(self) -> None:
        """Make the pool; it belongs to the running loop."""
        connector = _Connector(
            resolver=_Resolver(self._egress),
            ttl_dns_cache=_DNS_S,
            keepalive_timeout=_KEEP_ALIVE_S,
            limit=0,  # how many calls run at a time is decided by limits, not by a queue in here
            ssl=self._trust or True,
            socket_factory=self._socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"accept-encoding": "identity"},
            skip_auto_headers=("accept", "content-type", "user-agent"),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BYTES,
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
            max_headers=_MOST_HEADERS,
        )

    async def close(self) -> None:
        """Close every connection; calls under way end as `broken`."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | None = None,
        limits: Waits = DEFAULT_WAITS,
    ) -> Answer:
        """Send a request and wait for the head of the answer, whatever its status. Raises TransportError.

        The answer must be read to its end, released or aborted.
        """
        response = await self._request(method, url, headers, body, limits)
        if isinstance(response, TransportError):
            raise response
        answer = Answer(response, limits.idle_s)
        encoding = answer.headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            answer.abort()
            raise TransportError("encoding", sent=True, text="the answer is compressed, though we asked for it plain")
        return answer

    async def _request(
        self, method: str, url: str, headers: Sequence[tuple[str, str]], body: bytes | None, limits: Waits
    ) -> aiohttp.ClientResponse | TransportError:
        """Returns the error, for it to be raised outside: the client's own exceptions hold the request's headers, and
        so the credential, and must not hang on to ours as their cause or context.
        """
        session = self._session
        if session is None or session.closed:
            return TransportError("broken", sent=False, text="the client is closed")
        try:
            return await session.request(
                method,
                self._urls.get(url) or self._url(url),
                headers=headers,
                # Long bodies go out in pieces, so that the loop is not held up by one write.
                data=body if body is None or len(body) <= _COPIED_BODY else io.BytesIO(body),
                allow_redirects=False,
                timeout=self._timeouts.get(limits) or self._timeout(limits),
            )
        except Blocked as error:
            return TransportError("blocked", sent=False, text=error.reason)
        except _CAUGHT as error:
            return _failure(error, "first_byte_timeout")
        except ValueError:
            return TransportError("blocked", sent=False, text="the request holds a forbidden character")

    def _url(self, url: str) -> URL:
        target = self._egress.check_url(url)
        if len(self._urls) >= _URLS_KEPT:
            self._urls.clear()
        known = self._urls[url] = URL(target.url, encoded=True)
        return known

    def _timeout(self, limits: Waits) -> aiohttp.ClientTimeout:
        if len(self._timeouts) >= _URLS_KEPT:
            self._timeouts.clear()
        known = self._timeouts[limits] = aiohttp.ClientTimeout(
            total=limits.total_s, connect=limits.connect_s, sock_read=limits.first_byte_s
        )
        return known

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """Where a socket is made its address is looked at once more: nothing upstream of here can slip past."""
        family, kind, protocol, _, address = info
        try:
            self._egress.check_socket(str(address[0]), int(address[1]))
        except Blocked as error:
            raise _SocketBlockedError(error.reason) from error
        return socket.socket(family, kind, protocol)


class Answer:
    """An answer whose head is here and whose body comes as it is read."""

    __slots__ = ("_begun", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, idle_s: float) -> None:
        self._response = response
        self._begun = False
        self.status: int = response.status
        self.headers: CIMultiDictProxy[str] = response.headers
        connection = response.connection
        if connection is not None and connection.protocol is not None:
            # Takes effect with the next piece that arrives; until then the wait for the first byte runs on, because
            # a model that thinks long sends its head at once and its first word late.
            connection.protocol.read_timeout = idle_s

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body. Raises TransportError, `too_large` as soon as it is known to be."""
        declared = self._response.content_length
        if declared is not None and declared > limit_bytes:
            self.abort()
            raise _too_large()
        parts: list[bytes] = []
        left = limit_bytes
        while chunk := await self._next(left):
            parts.append(chunk)
            left -= len(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self, limit_bytes: int = MOST_STREAMED) -> AsyncIterator[bytes]:
        """The body in the pieces in which it came. Raises TransportError, and then the connection is closed."""
        left = limit_bytes
        while chunk := await self._next(left):
            left -= len(chunk)
            yield chunk

    async def _next(self, left: int) -> bytes:
        """What has come since, at most `left` bytes; empty at the end, when the connection has been given back."""
        try:
            chunk = await self._response.content.readany()
        except _CAUGHT as error:
            failure = _failure(error, "idle_timeout" if self._begun else "first_byte_timeout")
        else:
            self._begun = True
            if len(chunk) <= left:
                return chunk
            failure = _too_large()
        self.abort()
        raise failure

    def release(self) -> None:
        """Done with it: the connection is kept if all was read, closed otherwise. Can be said twice."""
        self._response.release()

    def abort(self) -> None:
        """Close the connection at once, so that the provider stops too. Can be said twice."""
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()


class _Connection(ResponseHandler):
    """A connection that tells whoever reads a body when it cannot be parsed: aiohttp 3.14 leaves them waiting."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        body = self._payload
        if self._exception is not None and body is not None and body.exception() is None and not body.is_eof():
            body.set_exception(aiohttp.ClientPayloadError("not as agreed"))


class _Connector(aiohttp.TCPConnector):
    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - aiohttp's own
        super().__init__(**options)
        self._factory = cast("partial[ResponseHandler]", partial(_Connection, loop=self._loop))


class _SocketBlockedError(OSError):
    """A Blocked that the client's race over several addresses lets through."""


class _Resolver(AbstractResolver):
    """Gives the client the addresses that egress has checked; it connects to them without asking again."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        addresses = await self._egress.resolve(host, port)
        if not addresses:
            raise OSError("no address")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
            if family in (socket.AF_UNSPEC, socket.AF_INET6 if ":" in address else socket.AF_INET)
        ]

    async def close(self) -> None:
        return None


def _failure(error: BaseException, waiting: Failure) -> TransportError:
    """What to tell of an exception; `waiting` names the wait it was raised in, should it be that."""
    cause = getattr(error, "os_error", None)
    if isinstance(cause, _SocketBlockedError):
        return TransportError("blocked", sent=False, text=str(cause))
    kind, sent, text = next(row[1:] for row in _FAILURES if isinstance(error, row[0]))
    # What the system itself says of it: "Connection refused", "certificate has expired". None of it is the request's.
    detail = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    return TransportError(
        waiting if kind == "idle_timeout" else kind, sent=sent, text=f"{text} ({detail})" if detail else text
    )


def _too_large() -> TransportError:
    return TransportError("too_large", sent=True, text="the answer is larger than we take")
