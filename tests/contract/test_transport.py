"""The one HTTP client against servers that do, byte for byte, what a hostile or broken provider does."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import cast

import pytest
import trustme

from ostiary.providers.connection import Connection
from ostiary.providers.egress import Egress
from ostiary.providers.transport import Failure, Transport, TransportError, Waits

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

BRISK = Waits(connect_s=0.5, first_byte_s=0.5, idle_s=0.5, total_s=10)
PATIENT = Waits(connect_s=10, first_byte_s=10, idle_s=10, total_s=20)
CANARY = "sk-canary-transport-0123456789"
FOREVER_S = 120
SOON_S = 30
"""So long a machine that stands still may take to do what is done at once."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, marks=pytest.mark.thorough, id="asyncio"), pytest.param(True, id="uvloop")],
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Both loops: the product's own breaks connections off in other words."""
    return "asyncio", {"use_uvloop": request.param}


class Server:
    """A TCP server that remembers what it was sent, and by how many connections."""

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.hung_up = asyncio.Event()
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(content_length(head)))
                await self._behave(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, RuntimeError):  # the last is uvloop's, for a closed one
            self.hung_up.set()
        finally:
            writer.close()


def content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


@contextlib.asynccontextmanager
async def serving(behave: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, str]]:
    server = Server(behave)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield server, f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        listener.close()
        await listener.wait_closed()
        for writer in server.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def transport_to(
    *origins: str,
    trust: ssl.SSLContext | None = None,
    lookup: Callable[[str, int], Awaitable[Sequence[str]]] | None = None,
) -> AsyncIterator[Transport]:
    transport = Transport(Egress(origins, lookup), trust)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()
        await asyncio.sleep(0)


def says(*pieces: bytes, pause_s: float = 0.02) -> Behaviour:
    async def behave(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s if len(pieces) > 1 else 0)

    return behave


def then_closes(*pieces: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(*pieces)(reader, writer)
        writer.close()
        raise ConnectionResetError

    return behave


def then_stalls(*pieces: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(*pieces)(reader, writer)
        await asyncio.wait_for(reader.read(1), FOREVER_S)
        raise ConnectionResetError

    return behave


def then_resets(*pieces: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(*pieces)(reader, writer)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        raise ConnectionResetError

    return behave


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"data: {}\n\n"
PIECE = b"a\r\n" + EVENT + b"\r\n"


async def fetch(transport: Transport, url: str, *, limit: int = 1_000_000, waits: Waits = PATIENT) -> bytes:
    got = await transport.send("POST", url, [("authorization", f"Bearer {CANARY}")], b"{}", waits)
    return await got.read(limit)


async def until(done: Callable[[], object]) -> None:
    """Wait for what comes about by itself, however long the machine takes."""
    async with asyncio.timeout(SOON_S):
        while not done():  # noqa: ASYNC110 - nothing of the client's own tells of it
            await asyncio.sleep(0.01)


async def until_closed(transport: Transport, origin: str) -> None:
    """Wait until the client has heard that no connection it has kept is open any more."""
    pool = transport._pool
    assert pool is not None
    await until(lambda: not any(connection.is_open for connection in pool._idle.get(origin, [])))


async def failing(transport: Transport, url: str, *, limit: int = 1_000_000, waits: Waits = PATIENT) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await fetch(transport, url, limit=limit, waits=waits)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "the client's own exceptions hold the credential"
    return caught.value


# ---- what goes well ---------------------------------------------------------------------------------------------


async def test_a_call_and_its_answer_pass_unchanged() -> None:
    headers = [("Content-Type", "application/json"), ("X-A", "1")]
    async with (
        serving(says(answer(b'{"ok":1}', "x-request-id: r1", "Set-Cookie: a=b; Path=/"))) as (server, origin),
        transport_to(origin) as transport,
    ):
        got = await transport.send("POST", f"{origin}/v1/chat?api-version=1", headers, b"body")
        assert (got.status, got.headers.get("X-Request-ID")) == (200, "r1")
        assert await got.read(100) == b'{"ok":1}'
        await fetch(transport, f"{origin}/again")
    head = server.heads[0].lower()
    assert head.startswith(b"post /v1/chat?api-version=1 http/1.1\r\n")
    for line in (b"\r\ncontent-type: application/json\r\n", b"\r\nx-a: 1\r\n", b"\r\naccept-encoding: identity\r\n"):
        assert line in head
    assert b"user-agent" not in head
    assert b"cookie" not in server.heads[1].lower()
    assert server.bodies[0] == b"body"


async def test_connections_are_kept_and_used_again() -> None:
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        for _ in range(5):
            assert await fetch(transport, origin) == b"x"
        assert server.connections == 1


async def test_a_large_body_arrives_whole() -> None:
    body = bytes(range(256)) * 20_000
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        got = await transport.send("POST", origin, [], body)
        assert await got.read(10) == b"x"
        assert server.bodies == [body]


async def test_pieces_come_as_they_were_sent() -> None:
    async with serving(says(CHUNKED, PIECE, PIECE, PIECE, b"0\r\n\r\n")) as (server, origin):
        async with transport_to(origin) as transport:
            got = await transport.send("POST", origin, [], b"{}", PATIENT)
            assert [chunk async for chunk in got.chunks()] == [EVENT, EVENT, EVENT]
            assert await fetch(transport, origin) == EVENT * 3
        assert server.connections == 1


async def test_every_status_is_an_answer() -> None:
    for status in ("204 No Content", "400 Bad", "401 No", "429 Slow", "500 Oh", "529 Full"):
        async with serving(says(answer(b"", status=status))) as (_, origin), transport_to(origin) as transport:
            got = await transport.send("GET", origin, [])
            assert got.status == int(status[:3])
            assert await got.read(10) == b""


async def test_a_redirect_is_not_followed() -> None:
    async with serving(says(answer(b"secret"))) as (elsewhere, other):
        for status in ("301", "302", "303", "307", "308"):
            away = says(answer(b"", f"location: {other}/", status=f"{status} Away"))
            async with serving(away) as (_, origin), transport_to(origin, other) as transport:
                got = await transport.send("POST", origin, [("x-api-key", CANARY)], b"{}", PATIENT)
                assert got.status == int(status)
                got.release()
        assert elsewhere.connections == 0


async def test_the_environment_does_not_send_us_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(says(answer(b"proxied"))) as (proxy, elsewhere):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, elsewhere)
        async with serving(says(answer(b"direct"))) as (_, origin), transport_to(origin) as transport:
            assert await fetch(transport, origin) == b"direct"
        assert proxy.connections == 0


# ---- no connection: nothing was sent ----------------------------------------------------------------------------


async def test_a_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        origin = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with transport_to(origin) as transport:
            error = await failing(transport, origin)
    assert (error.kind, error.sent) == ("refused", False)


async def test_a_connection_that_never_comes_about() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        try:
            origin = f"http://127.0.0.1:{port}"
            async with transport_to(origin) as transport:
                error = await failing(transport, origin, waits=BRISK)
        finally:
            for filler in fillers:
                filler.close()
    assert (error.kind, error.sent) == ("connect_timeout", False)


async def test_a_name_nobody_knows() -> None:
    async def unknown(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with transport_to(lookup=unknown) as transport:
        error = await failing(transport, "https://nobody.example/v1")
    assert (error.kind, error.sent) == ("dns", False)


async def test_a_name_without_addresses() -> None:
    async def nothing(_host: str, _port: int) -> Sequence[str]:
        return []

    async with transport_to(lookup=nothing) as transport:
        error = await failing(transport, "https://nobody.example/v1")
    assert (error.kind, error.sent) == ("dns", False)


async def test_a_name_server_that_does_not_answer() -> None:
    async def silent(_host: str, _port: int) -> Sequence[str]:
        await asyncio.sleep(FOREVER_S)
        return []

    async with transport_to(lookup=silent) as transport:
        error = await failing(transport, "https://slow.example/v1", waits=BRISK)
    assert (error.kind, error.sent) == ("connect_timeout", False)


# ---- TLS --------------------------------------------------------------------------------------------------------


def server_side(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def client_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_a_trusted_certificate() -> None:
    authority = trustme.CA()
    async with (
        serving(says(answer(b"sealed")), server_side(authority, "127.0.0.1")) as (_, origin),
        transport_to(origin, trust=client_side(authority)) as transport,
    ):
        assert await fetch(transport, origin) == b"sealed"


@pytest.mark.parametrize("name", ["127.0.0.1", "another.example"])
async def test_a_certificate_that_is_not_to_be_trusted(name: str) -> None:
    """Of an unknown authority, and of a trusted one but for another name."""
    theirs, ours = trustme.CA(), trustme.CA()
    trusted = theirs if name == "another.example" else ours
    async with (
        serving(says(answer(b"x")), server_side(theirs, name)) as (server, origin),
        transport_to(origin, trust=client_side(trusted)) as transport,
    ):
        error = await failing(transport, origin)
        assert (error.kind, error.sent) == ("tls", False)
        assert server.heads == []


async def test_plain_http_where_tls_is_spoken() -> None:
    async with serving(says(answer(b"x"))) as (server, origin):
        secure = origin.replace("http:", "https:")
        async with transport_to(secure) as transport:
            error = await failing(transport, secure, waits=BRISK)
    assert (error.kind, error.sent) in {("tls", False), ("connect_timeout", False)}
    assert server.heads == []


# ---- sent, and then no answer or half of one --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behave", "kind"),
    [
        pytest.param(then_stalls(), "first_byte_timeout", id="no head"),
        pytest.param(then_stalls(b"HTTP/1.1 200"), "first_byte_timeout", id="half a head"),
        pytest.param(then_stalls(CHUNKED), "first_byte_timeout", id="head, then nothing"),
        pytest.param(then_stalls(CHUNKED, PIECE), "idle_timeout", id="stalls in the body"),
        pytest.param(
            then_stalls(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", b"abc"), "idle_timeout", id="stalls short"
        ),
        pytest.param(then_closes(), "broken", id="closes without a word"),
        pytest.param(then_closes(CHUNKED, PIECE), "broken", id="closes in the body"),
        pytest.param(then_closes(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"), "broken", id="promised more"),
        pytest.param(then_resets(), "broken", id="resets"),
        pytest.param(then_resets(CHUNKED, PIECE), "broken", id="resets in the body"),
        pytest.param(then_stalls(CHUNKED, b"zz\r\nnot a chunk\r\n"), "broken", id="bad chunk"),
        pytest.param(then_stalls(CHUNKED, PIECE, PIECE + b"-1\r\n"), "broken", id="bad chunk later"),
        pytest.param(then_closes(b"SSH-2.0-OpenSSH_9.6\r\n"), "broken", id="not HTTP"),
        pytest.param(then_closes(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n"), "broken", id="long header"),
        pytest.param(then_closes(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5_000 + b"\r\n"), "broken", id="many headers"),
        pytest.param(
            then_closes(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
            "broken",
            id="two lengths",
        ),
        pytest.param(
            then_closes(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            "broken",
            id="length and chunks",
        ),
        pytest.param(then_closes(b"HTTP/0.9 200 OK\r\n\r\nabc"), "broken", id="HTTP/0.9"),
        pytest.param(then_closes(b"just text, as HTTP once was"), "broken", id="no head at all"),
        pytest.param(then_closes(b"HTTP/2.0 200 OK\r\ncontent-length: 1\r\n\r\na"), "broken", id="HTTP/2"),
        pytest.param(then_closes(b"RTSP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na"), "broken", id="RTSP"),
        pytest.param(
            then_stalls(b"HTTP/1.1 101 Now\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"), "broken", id="upgrade"
        ),
        pytest.param(then_closes(b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n"), "broken", id="folded header"),
        pytest.param(then_closes(b"HTTP/1.1 200 OK\r\nx : a\r\n\r\n"), "broken", id="blank before the colon"),
        pytest.param(
            then_closes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc"), "broken", id="other coding"
        ),
        pytest.param(
            then_stalls(CHUNKED[:-2] + b"transfer-encoding: identity\r\n\r\n0\r\n\r\n"), "broken", id="two codings"
        ),
        pytest.param(then_stalls(b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000), "broken", id="interim without end"),
        pytest.param(
            then_stalls(CHUNKED + PIECE, b"0\r\n" + b"x: y\r\n" * 200), "broken", id="headers behind, without end"
        ),
        pytest.param(
            then_stalls(CHUNKED + PIECE, b"0\r\nx: ", *[b"a" * 100_000] * 4), "broken", id="a long header behind"
        ),
        pytest.param(then_stalls(CHUNKED + b"1;x=", *[b"a" * 100_000] * 4), "broken", id="a long chunk extension"),
        pytest.param(then_resets(b"HTTP/1.1 200 OK\r\n\r\nabc"), "broken", id="resets where closing is the end"),
    ],
)
async def test_a_sent_call_that_fails(behave: Behaviour, kind: Failure) -> None:
    """Nothing but the wait that is meant is a short one."""
    short = {"first_byte_timeout": replace(PATIENT, first_byte_s=0.5), "idle_timeout": replace(PATIENT, idle_s=0.5)}
    async with serving(behave) as (server, origin), transport_to(origin) as transport:
        error = await failing(transport, origin, waits=short.get(kind, PATIENT))
        assert (error.kind, error.sent) == (kind, True)
        assert len(server.heads) == 1, "a call that may have been billed is not repeated"


async def test_the_wait_for_the_first_word_is_longer_than_between_words() -> None:
    """A model that thinks long sends its head at once and its first word late; then it must not pause as long."""
    waits = Waits(connect_s=10, first_byte_s=60, idle_s=1, total_s=90)

    async def thinks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        await asyncio.sleep(1.5)
        await then_stalls(PIECE)(reader, writer)

    async with serving(thinks) as (_, origin), transport_to(origin) as transport:
        got = await transport.send("POST", origin, [], b"{}", waits)
        chunks = got.chunks()
        assert await anext(chunks) == EVENT
        with pytest.raises(TransportError, match="idle_timeout"):
            async with asyncio.timeout(20):
                await anext(chunks)


async def test_a_drip_is_bounded_by_the_total() -> None:
    drip = says(CHUNKED, *[PIECE] * 100, pause_s=0.1)
    async with serving(drip) as (_, origin), transport_to(origin) as transport:
        error = await failing(transport, origin, waits=Waits(connect_s=5, first_byte_s=5, idle_s=5, total_s=0.5))
    assert (error.kind, error.sent) == ("total_timeout", True)


async def test_what_does_not_begin_in_time_is_given_up_and_what_has_begun_goes_on() -> None:
    waits = Waits(connect_s=5, first_byte_s=5, idle_s=5, total_s=30, begin_s=1.2)
    drip = says(CHUNKED, *[PIECE] * 12, b"0\r\n\r\n", pause_s=0.2)
    async with serving(drip) as (_, origin), transport_to(origin) as transport:
        error = await failing(transport, origin, waits=waits)
        assert (error.kind, error.sent) == ("total_timeout", True)
        got = await transport.send("POST", origin, [], b"{}", replace(waits, begin_s=20))
        chunks = got.chunks()
        assert await anext(chunks) == EVENT
        assert got._connection is not None
        got._connection._total_at = asyncio.get_running_loop().time()  # the time to begin in is over just now
        got.begun()
        assert b"".join([chunk async for chunk in chunks]) == EVENT * 11


async def test_a_slow_reader_of_ours_is_not_the_providers_fault() -> None:
    """While nobody reads, reading is paused, and a pause of ours is not an idle provider."""
    much = b"x" * 400_000
    async with serving(says(answer(much))) as (_, origin), transport_to(origin) as transport:
        got = await transport.send("POST", origin, [], b"{}", replace(PATIENT, idle_s=0.5))
        chunks = got.chunks()
        first = await anext(chunks)
        await asyncio.sleep(1)
        assert len(first) + sum([len(chunk) async for chunk in chunks]) == len(much)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_what_came_in_time_is_taken_by_a_process_that_stood_still(*, is_answered: bool) -> None:
    """The loop looks at its timers before its sockets: to it the wait is over, and the answer not read yet."""
    asked, answered, pieces = threading.Event(), threading.Event(), [answer(b"x")] if is_answered else []

    def provide(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(10_000)
            asked.set()
            for piece in pieces:
                stands_still.wait(FOREVER_S)
                peer.sendall(piece)
            answered.set()
            over.wait(FOREVER_S)

    stands_still, over = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider = asyncio.ensure_future(asyncio.to_thread(provide, listener))
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with transport_to(origin) as transport:
                call = asyncio.ensure_future(fetch(transport, origin))
                await asyncio.to_thread(asked.wait, FOREVER_S)
                assert transport._pool is not None
                [connection] = transport._pool._busy
                stands_still.set()
                answered.wait(FOREVER_S)
                connection.due_at = asyncio.get_running_loop().time()
                transport._pool._sweep()
                if is_answered:
                    assert await call == b"x"
                else:
                    with pytest.raises(TransportError, match="first_byte_timeout"):
                        await call
        finally:
            over.set()
            await provider


# ---- bounds in bytes, encodings, headers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(then_stalls(answer(b"x" * 1_001)[:-1]), id="declared"),
        pytest.param(then_stalls(CHUNKED, PIECE * 200), id="chunked"),
        pytest.param(then_stalls(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"), id="promised"),
    ],
)
async def test_more_bytes_than_we_take(behave: Behaviour) -> None:
    async with serving(behave) as (server, origin), transport_to(origin) as transport:
        error = await failing(transport, origin, limit=1_000)
        assert (error.kind, error.sent) == ("too_large", True)
        await asyncio.wait_for(server.hung_up.wait(), SOON_S)


async def test_exactly_as_many_as_we_take() -> None:
    async with serving(says(answer(b"x" * 1_000))) as (_, origin), transport_to(origin) as transport:
        assert len(await fetch(transport, origin, limit=1_000)) == 1_000


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip", "GZIP"])
async def test_what_we_asked_for_plain_comes_plain(encoding: str) -> None:
    bomb = gzip.compress(bytes(2_000_000))
    async with (
        serving(then_stalls(answer(bomb, f"content-encoding: {encoding}")[:-1])) as (server, origin),
        transport_to(origin) as transport,
    ):
        error = await failing(transport, origin)
        assert (error.kind, error.sent) == ("encoding", True)
        await asyncio.wait_for(server.hung_up.wait(), SOON_S)


async def test_bytes_after_the_answer_reach_no_other_call() -> None:
    two = answer(b"first") + answer(b"smuggled")
    async with serving(says(two)) as (server, origin), transport_to(origin) as transport:
        assert await fetch(transport, origin) == b"first"
        assert await fetch(transport, origin) == b"first"
        assert server.connections == 2


@pytest.mark.parametrize("value", ["a\r\nx-admin: 1", "a\nb", "a\x00b"])
async def test_a_header_cannot_become_two(value: str) -> None:
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send("POST", origin, [("authorization", f"{CANARY}{value}")], b"{}", BRISK)
        assert (caught.value.kind, caught.value.sent) == ("blocked", False)
        assert CANARY not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"
        assert server.heads == []


# ---- stopping ---------------------------------------------------------------------------------------------------


async def test_abort_hangs_up_at_once() -> None:
    async with serving(then_stalls(CHUNKED, PIECE)) as (server, origin), transport_to(origin) as transport:
        got = await transport.send("POST", origin, [], b"{}")
        chunks = got.chunks()
        assert await anext(chunks) == EVENT
        got.abort()
        got.abort()
        await asyncio.wait_for(server.hung_up.wait(), SOON_S)
        with pytest.raises(TransportError):
            await anext(chunks)


async def test_abort_does_not_wait_for_a_provider_that_does_not_read() -> None:
    """Closing politely would keep the socket, and what is still to be sent, for as long as the peer likes."""
    done = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CHUNKED + PIECE)
        await done.wait()
        writer.transport.abort()

    listener = await asyncio.start_server(deaf, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        async with transport_to(origin) as transport:
            got = await transport.send("POST", origin, [], bytes(32_000_000))
            assert got._connection is not None
            connection = cast("asyncio.Transport", got._connection._transport)
            async with asyncio.timeout(SOON_S):
                while connection.get_write_buffer_size() == 0:  # noqa: ASYNC110 - till the peer's buffers are full
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
            ours = connection.get_extra_info("socket").fileno()
            opened = os.fstat(ours).st_ino
            got.abort()
            await asyncio.sleep(0.05)
            with contextlib.suppress(OSError):
                assert os.fstat(ours).st_ino != opened
    finally:
        done.set()
        listener.close()
        await asyncio.sleep(0.01)


async def test_a_cancelled_call_hangs_up() -> None:
    async with serving(then_stalls()) as (server, origin), transport_to(origin) as transport:
        call = asyncio.ensure_future(transport.send("POST", origin, [], b"{}"))
        await until(lambda: server.heads)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.hung_up.wait(), SOON_S)


async def test_release_before_the_end_closes() -> None:
    async with serving(then_stalls(CHUNKED, PIECE)) as (server, origin), transport_to(origin) as transport:
        got = await transport.send("POST", origin, [], b"{}")
        got.release()
        got.release()
        await asyncio.wait_for(server.hung_up.wait(), SOON_S)


async def test_a_connection_closed_while_idle_is_not_used_again() -> None:
    async with serving(then_closes(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        for _ in range(3):
            assert await fetch(transport, origin) == b"x"
            await until_closed(transport, origin)
        assert server.connections == 3


async def test_a_closed_client_says_so() -> None:
    async with serving(says(answer(b"x"))) as (_, origin):
        transport = Transport(Egress([origin]))
        for _ in range(2):
            error = await failing(transport, origin)
            assert (error.kind, error.sent) == ("broken", False)
            await transport.open()
            assert await fetch(transport, origin) == b"x"
            await transport.close()


# ---- framing ----------------------------------------------------------------------------------------------------


async def test_an_interim_answer_is_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\nx-request-id: no\r\n\r\n"
    for pieces in ((interim + answer(b"x"),), (interim[:30], interim[30:], answer(b"x"))):
        async with serving(says(*pieces)) as (server, origin), transport_to(origin) as transport:
            for _ in range(2):
                got = await transport.send("POST", origin, [], b"{}")
                assert (got.status, got.headers.get("x-request-id", "-")) == (200, "-")
                assert await got.read(10) == b"x"
            assert server.connections == 1


@pytest.mark.parametrize(
    ("behave", "connections"),
    [
        pytest.param(then_closes(b"HTTP/1.1 200 OK\r\n\r\nabc"), 2, id="until it closes"),
        pytest.param(then_closes(b"HTTP/1.0 200 OK\r\n\r\nab", b"c"), 2, id="until HTTP/1.0 closes"),
        pytest.param(says(answer(b"abc", "connection: close")), 2, id="says that it closes"),
        pytest.param(says(answer(b"abc", "connection: keep-alive")), 1, id="says that it does not"),
        pytest.param(says(CHUNKED, b"3\r\nabc\r\n0\r\nx-trailer: y\r\n\r\n"), 1, id="headers behind the last chunk"),
        pytest.param(says(CHUNKED + b"1;x=y\r\na\r\n02\r\nbc\r\n0\r\n\r\n"), 1, id="chunk extension"),
        pytest.param(says(*[b"%c" % one for one in answer(b"abc")], pause_s=0), 1, id="byte by byte"),
    ],
)
async def test_where_an_answer_ends(behave: Behaviour, connections: int) -> None:
    async with serving(behave) as (server, origin), transport_to(origin) as transport:
        for _ in range(2):
            assert await fetch(transport, origin) == b"abc"
        assert server.connections == connections


async def test_an_answer_without_a_body_ends_with_its_head() -> None:
    for status in ("204 None", "304 Same"):
        async with (
            serving(says(f"HTTP/1.1 {status}\r\netag: a\r\n\r\n".encode())) as (server, origin),
            transport_to(origin) as transport,
        ):
            for _ in range(2):
                assert await fetch(transport, origin) == b""
            assert server.connections == 1


async def test_the_first_of_two_headers_counts() -> None:
    async with (
        serving(says(answer(b"x", "Retry-After: 1 ", "RETRY-AFTER: 2", "x-empty:"))) as (_, origin),
        transport_to(origin) as transport,
    ):
        got = await transport.send("GET", origin, [])
        assert [got.headers.get(name, "-") for name in ("retry-after", "x-empty", "other")] == ["1", "", "-"]
        got.release()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transfer-encoding", "chunked"),
        ("Content-Length", "0"),
        ("Host", "other.example"),
        ("Connection", "close"),
        ("Accept-Encoding", "gzip"),
        ("Expect", "100-continue"),
        ("", "x"),
        ("x y", "z"),
        ("x:", "z"),
        ("x\r\ny", "z"),
        ("ä", "z"),
        ("x", "\x7f"),
        ("x", "\ud800"),
    ],
)
async def test_a_header_that_is_not_the_callers(name: str, value: str) -> None:
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        with pytest.raises(TransportError, match="blocked"):
            await transport.send("POST", origin, [(name, value)], b"{}", BRISK)
        assert server.connections == 0


@pytest.mark.parametrize("method", ["HEAD", "CONNECT", "get", "", "GET /x HTTP/1.1\r\nhost: other\r\n\r\nGET"])
async def test_a_method_that_is_not_one(method: str) -> None:
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        with pytest.raises(TransportError, match="blocked"):
            await transport.send(method, origin, [], None, BRISK)
        assert server.connections == 0


@pytest.mark.parametrize("path", ["/a b", "/a\r\nx-admin: 1", "/a\x00", "/ä"])
async def test_an_url_cannot_become_a_header(path: str) -> None:
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        error = await failing(transport, origin + path)
        assert (error.kind, error.sent) == ("blocked", False)
        assert server.connections == 0


async def test_what_stands_in_a_request() -> None:
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        for url, body in ((origin, None), (f"{origin}?a=b", b""), (f"{origin}/v1", b"12")):
            got = await transport.send("POST", url, (("x", "ä\t1"),), body)
            await got.read(1)
    host = origin.removeprefix("http://")
    common = f"host: {host}\r\naccept-encoding: identity\r\nx: ä\t1\r\n"
    assert [head.decode() for head in server.heads] == [
        f"POST / HTTP/1.1\r\n{common}\r\n",
        f"POST /?a=b HTTP/1.1\r\n{common}content-length: 0\r\n\r\n",
        f"POST /v1 HTTP/1.1\r\n{common}content-length: 2\r\n\r\n",
    ]


# ---- connections that are used again, and those that must not be ------------------------------------------------


def hang_up_unseen(server: Server) -> None:
    """The server ends its connections, and the loop has had no turn to tell us."""
    for writer in server.writers:
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as twin:
            twin.shutdown(socket.SHUT_WR)


async def test_a_connection_closed_a_moment_ago_is_not_used_again() -> None:
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        assert await fetch(transport, origin) == b"x"
        await asyncio.sleep(0.6)
        hang_up_unseen(server)
        assert await fetch(transport, origin) == b"x"
        assert (server.connections, len(server.heads)) == (2, 2)


async def test_a_connection_being_closed_is_not_used_again() -> None:
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        assert await fetch(transport, origin) == b"x"
        for connection in transport._pool._idle[origin] if transport._pool else []:
            connection.abort()
        assert await fetch(transport, origin) == b"x"
        assert server.connections == 2


@pytest.mark.parametrize("ends", [then_closes, then_resets])
async def test_what_was_sent_on_a_kept_connection_is_not_sent_again(ends: Callable[[], Behaviour]) -> None:
    answered: list[bool] = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered.append(True)
        await (says(answer(b"x")) if len(answered) == 1 else ends())(reader, writer)

    async with serving(once) as (server, origin), transport_to(origin) as transport:
        assert await fetch(transport, origin) == b"x"
        error = await failing(transport, origin)
        assert (error.kind, error.sent) == ("broken", True)
        assert (server.connections, len(server.heads)) == (1, 2)


@pytest.mark.parametrize("extra", [answer(b"smuggled"), b"x", b"\r\n"])
async def test_bytes_that_come_between_two_calls_end_the_connection(extra: bytes) -> None:
    async with serving(says(answer(b"first"), extra)) as (server, origin), transport_to(origin) as transport:
        for _ in range(2):
            assert await fetch(transport, origin) == b"first"
            await until_closed(transport, origin)
        assert server.connections == 2


async def test_a_server_that_speaks_first_is_not_spoken_to() -> None:
    async def hasty(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"unasked"))
        await done.wait()
        writer.close()

    done = asyncio.Event()
    listener = await asyncio.start_server(hasty, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        async with transport_to(origin) as transport:
            pool = transport._pool
            assert pool is not None
            outcome = await pool.connect(Egress([origin]).check_url(origin), 10)
            if isinstance(outcome, Connection):
                spoken_to = outcome
                await until(lambda: not spoken_to.is_open)
            else:
                assert (outcome.kind, outcome.sent) == ("broken", False)
    finally:
        done.set()
        listener.close()
        await asyncio.sleep(0.01)


async def test_an_aborted_connection_is_not_used_again() -> None:
    """Not even when its answer was whole, or comes whole afterwards."""
    async with serving(says(CHUNKED, PIECE, b"0\r\n\r\n")) as (server, origin), transport_to(origin) as transport:
        whole = await transport.send("POST", origin, [], b"{}")
        await asyncio.sleep(0.1)
        whole.abort()
        half = await transport.send("POST", origin, [], b"{}")
        assert await anext(half.chunks()) == EVENT
        half.abort()
        assert await fetch(transport, origin) == EVENT
        assert server.connections == 3


async def test_an_answer_that_was_read_holds_no_connection() -> None:
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        read = await transport.send("POST", origin, [], b"{}")
        assert await read.read(1) == b"x"
        following = await transport.send("POST", origin, [], b"{}")
        read.abort()
        read.release()
        assert [await read.read(1), await following.read(1)] == [b"", b"x"]
        assert server.connections == 1


async def test_a_call_cancelled_while_it_is_read_hangs_up() -> None:
    async with serving(then_stalls(CHUNKED, PIECE)) as (server, origin), transport_to(origin) as transport:
        got = await transport.send("POST", origin, [], b"{}")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await got.read(1_000)
        await asyncio.wait_for(server.hung_up.wait(), SOON_S)
        with pytest.raises(TransportError):
            await got.read(1_000)


async def test_an_answer_before_the_body_was_sent_ends_the_connection() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"too much", status="413 Large"))
        while await reader.read(65_536):
            pass
        gone.set()
        writer.close()

    gone = asyncio.Event()
    listener = await asyncio.start_server(early, "127.0.0.1", 0)
    origin = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        async with transport_to(origin) as transport:
            got = await transport.send("POST", origin, [], bytes(64_000_000))
            assert (got.status, await got.read(100)) == (413, b"too much")
            await asyncio.wait_for(gone.wait(), SOON_S)
    finally:
        listener.close()
        await asyncio.sleep(0.01)


async def test_the_connection_used_last_is_used_next() -> None:
    async with serving(says(CHUNKED, PIECE, b"0\r\n\r\n")) as (server, origin), transport_to(origin) as transport:
        await asyncio.gather(*[fetch(transport, origin) for _ in range(3)])
        assert server.connections == 3
        pool = transport._pool
        assert pool is not None
        last = pool._idle[origin][-1]
        for _ in range(2):
            assert await fetch(transport, origin) == EVENT
            assert pool._idle[origin][-1] is last


async def test_an_idle_connection_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.providers.pool._KEEP_ALIVE_S", 0.1)
    async with serving(says(answer(b"x"))) as (server, origin), transport_to(origin) as transport:
        assert await fetch(transport, origin) == b"x"
        await asyncio.wait_for(server.hung_up.wait(), SOON_S)
        assert transport._pool is not None
        assert (transport._pool._idle, transport._pool._timer) == ({}, None), "and then nothing is left to look at"


async def test_a_call_nobody_reads_on_ends_with_its_time() -> None:
    async with serving(then_stalls(CHUNKED, PIECE)) as (server, origin), transport_to(origin) as transport:
        got = await transport.send("POST", origin, [], b"{}", Waits(connect_s=10, total_s=3))
        await asyncio.wait_for(server.hung_up.wait(), SOON_S)
        with pytest.raises(TransportError, match="total_timeout"):
            await got.read(1_000)


async def test_closing_ends_the_calls_under_way() -> None:
    async with serving(then_stalls()) as (server, origin), transport_to(origin) as transport:
        async with asyncio.TaskGroup() as group:
            call = group.create_task(failing(transport, origin))
            await until(lambda: server.heads)
            await transport.close()
        assert (call.result().kind, call.result().sent) == ("broken", True)
        await asyncio.wait_for(server.hung_up.wait(), SOON_S)


async def test_nobody_reading_stops_the_provider() -> None:
    """What it can send beyond the buffers waits with it, not in our memory."""
    piece, count = bytes(100_000), 400
    written: list[int] = []

    async def floods(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * count))
        for _ in range(count):
            writer.write(piece)
            await writer.drain()
            written.append(len(piece))

    async with serving(floods) as (server, origin), transport_to(origin) as transport:
        got = await transport.send("POST", origin, [], b"{}", PATIENT)
        await asyncio.sleep(0.5)
        assert sum(written) < 20_000_000
        assert sum([len(chunk) async for chunk in got.chunks()]) == len(piece) * count
        assert await fetch(transport, origin, limit=100_000_000) == piece * count
        assert server.connections == 1


# ---- addresses and names ----------------------------------------------------------------------------------------


def leads_to(*addresses: str, asked: list[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    async def lookup(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        await asyncio.sleep(0.01)
        return addresses

    return lookup


async def test_the_next_address_is_tried_and_the_one_that_worked_kept() -> None:
    asked: list[str] = []
    async with serving(then_closes(answer(b"x", "connection: close"))) as (server, origin):
        listed = origin.replace("127.0.0.1", "listed.example")
        lookup = leads_to("127.0.0.2", "127.0.0.3", "127.0.0.1", asked=asked)
        async with transport_to(listed, lookup=lookup) as transport:
            for _ in range(2):
                assert await fetch(transport, listed) == b"x"
            [host] = transport._pool._hosts.values() if transport._pool else []
            assert host.addresses == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        assert (server.connections, asked) == (2, ["listed.example"])


async def test_no_address_that_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        listed = f"http://listed.example:{taken.getsockname()[1]}"
        async with transport_to(listed, lookup=leads_to("127.0.0.2", "127.0.0.1", asked=[])) as transport:
            error = await failing(transport, listed)
    assert (error.kind, error.sent) == ("refused", False)


async def test_an_address_that_swallows_leaves_time_for_the_next() -> None:
    async with serving(says(answer(b"x"))) as (_, origin):
        port = int(origin.rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(socket.socket())
            full.bind(("127.0.0.2", port))
            full.listen(0)
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.2", port))
            listed = f"http://listed.example:{port}"
            async with transport_to(listed, lookup=leads_to("127.0.0.2", "127.0.0.1", asked=[])) as transport:
                assert await fetch(transport, listed, waits=Waits(connect_s=12)) == b"x"


async def test_calls_at_the_same_time_ask_for_a_name_once() -> None:
    asked: list[str] = []
    async with serving(says(answer(b"x"))) as (_, origin):
        listed = origin.replace("127.0.0.1", "listed.example")
        async with transport_to(listed, lookup=leads_to("127.0.0.1", asked=asked)) as transport:
            assert await asyncio.gather(*[fetch(transport, listed) for _ in range(5)]) == [b"x"] * 5
    assert asked == ["listed.example"]


async def test_the_certificate_is_for_the_name_and_the_name_is_told() -> None:
    authority, told = trustme.CA(), cast("list[str | None]", [])
    theirs = server_side(authority, "listed.example")
    theirs.sni_callback = lambda _socket, name, _context: told.append(name)
    body = bytes(range(256)) * 20_000
    async with serving(says(answer(b"sealed")), theirs) as (server, origin):
        listed = origin.replace("127.0.0.1", "listed.example")
        async with transport_to(
            listed, trust=client_side(authority), lookup=leads_to("127.0.0.1", asked=[])
        ) as transport:
            for _ in range(2):
                got = await transport.send("POST", listed, [], body, PATIENT)
                assert await got.read(10) == b"sealed"
        assert (server.connections, server.bodies, told) == (1, [body, body], ["listed.example"])


async def test_tls_that_never_comes_about() -> None:
    async with serving(then_stalls()) as (server, origin):
        secure = origin.replace("http:", "https:")
        async with transport_to(secure) as transport:
            error = await failing(transport, secure, waits=BRISK)
        assert (error.kind, error.sent, server.heads) == ("connect_timeout", False, [])


# ---- egress at the socket ---------------------------------------------------------------------------------------


async def test_a_private_address_is_not_connected_to() -> None:
    async with serving(says(answer(b"x"))) as (server, origin):
        port = origin.rpartition(":")[2]

        async def inward(_host: str, _port: int) -> Sequence[str]:
            return ["127.0.0.1"]

        async with transport_to(lookup=inward) as transport:
            for url in (f"https://rebound.example:{port}/v1", f"https://127.0.0.1:{port}/v1", origin):
                error = await failing(transport, url)
                assert (error.kind, error.sent) == ("blocked", False)
        assert server.connections == 0


async def test_one_private_address_among_public_ones_blocks_all() -> None:
    async with serving(says(answer(b"x"))) as (server, origin):
        port = origin.rpartition(":")[2]
        for addresses in (["93.184.216.34", "127.0.0.1"], ["127.0.0.1", "93.184.216.34"], ["2606:2800::1", "::1"]):

            async def mixed(_host: str, _port: int, addresses: list[str] = addresses) -> Sequence[str]:
                return addresses

            async with transport_to(lookup=mixed) as transport:
                error = await failing(transport, f"https://mixed.example:{port}/v1")
                assert (error.kind, error.sent) == ("blocked", False)
        assert server.connections == 0


async def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    """A name server that answers differently the second time is not asked a second time."""
    async with serving(says(answer(b"x"))) as (server, origin):
        port = origin.rpartition(":")[2]
        asked: list[str] = []

        async def rebinding(host: str, _port: int) -> Sequence[str]:
            asked.append(host)
            return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

        async with transport_to(f"http://listed.example:{port}", lookup=rebinding) as transport:
            assert await fetch(transport, f"http://listed.example:{port}/v1") == b"x"
            assert await fetch(transport, f"http://listed.example:{port}/v2") == b"x"
        assert asked == ["listed.example"]
        assert f"host: listed.example:{port}".encode() in server.heads[0].lower()


async def test_the_socket_itself_is_guarded() -> None:
    """Should anything before it fail to look: here a resolver that checks nothing."""

    class Blind(Egress):
        async def resolve(self, host: str, port: int) -> Sequence[str]:
            return [] if not host or not port else ["127.0.0.1"]

    class BlindTwice(Egress):
        async def resolve(self, host: str, port: int) -> Sequence[str]:
            return [] if not host or not port else ["127.0.0.1", "127.0.0.2"]

    async with serving(says(answer(b"x"))) as (server, origin):
        port = origin.rpartition(":")[2]
        for blind in (Blind(), BlindTwice()):
            transport = Transport(blind)
            await transport.open()
            error = await failing(transport, f"https://blind.example:{port}/v1")
            assert (error.kind, error.sent) == ("blocked", False)
            await transport.close()
        assert server.connections == 0
