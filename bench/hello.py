"""The floor under any Python server: uvicorn and ten lines of raw ASGI that answer without asking anybody."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

from bench import payload, proc
from bench.target import Target

_BODY = payload.answer()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Read the body, answer the canned one."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS, "trailers": False})
    await send({"type": "http.response.body", "body": _BODY, "more_body": False})


@contextlib.contextmanager
def serving(*, work: Path, cores: frozenset[int]) -> Iterator[Target]:
    """The floor, running."""
    port = proc.free_port()
    command = [sys.executable, "-m", "bench.hello", "--port", str(port)]
    with proc.started("hello", command, work=work, cores=cores) as running:
        start_s = proc.wait_until_open(running, port)
        yield Target("hello", (running,), (port,), start_s, stream_path=None)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(
        app,
        port=parser.parse_args().port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
