"""The floor under a gateway of these parts: uvicorn in, aiohttp out, nothing looked at and nothing written down."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import aiohttp
import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPRequestEvent, Scope
from yarl import URL

from bench import payload, proc
from bench.target import Target

_SENT = {"content-type": "application/json", "authorization": "Bearer none"}


class Proxy:
    """A raw ASGI application with one aiohttp session."""

    def __init__(self, upstream: int) -> None:
        self._url = URL(f"http://127.0.0.1:{upstream}{payload.PATH}")
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Hand a call on, and its answer back piece by piece."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        session = self._session
        if scope["type"] != "http" or session is None:
            return
        async with session.post(self._url, data=await _body(receive), headers=_SENT) as answer:
            kind = answer.headers["content-type"].encode()
            if answer.content_length is not None:
                whole = await answer.read()
                await _start(send, answer.status, [(b"content-type", kind), (b"content-length", b"%d" % len(whole))])
                await send({"type": "http.response.body", "body": whole, "more_body": False})
                return
            await _start(send, answer.status, [(b"content-type", kind)])
            async for piece in answer.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _live(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await receive()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            auto_decompress=False,
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._session.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _start(send: ASGISendCallable, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": False})


async def _body(receive: ASGIReceiveCallable) -> bytes:
    parts: list[bytes] = []
    while True:
        message = cast("HTTPRequestEvent", await receive())
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


@contextlib.contextmanager
def serving(upstream: int, *, work: Path, cores: frozenset[int]) -> Iterator[Target]:
    """The bare proxy, running."""
    port = proc.free_port()
    command = [sys.executable, "-m", "bench.proxy", "--port", str(port), "--upstream", str(upstream)]
    with proc.started("proxy", command, work=work, cores=cores) as running:
        start_s = proc.wait_until_open(running, port)
        # It takes more than a minute to open two thousand streams once the first of them flow.
        yield Target("proxy", (running,), (port,), start_s, holds_many=False)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    given = parser.parse_args()
    uvicorn.run(
        Proxy(given.upstream),
        port=given.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        proxy_headers=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
