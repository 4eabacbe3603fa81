"""Listens under uvicorn's server, and ends as it is told to."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from ostiary.errors import CannotStart
from ostiary.gateway.edge import EdgeProtocol
from ostiary.gateway.exchange import Exchange
from ostiary.settings import Settings

_KEEP_ALIVE_S: Final = 75
_LAST_WORDS_S: Final = 5.0
_OF_THE_PORT: Final = frozenset({errno.EADDRINUSE, errno.EACCES})
"""What keeps a port from being listened on; everything else is about the address."""


class Server(uvicorn.Server):
    """uvicorn's server, which leaves the signals to us: they begin a drain, and settling comes after it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def server_of(doors: Callable[[Exchange], Awaitable[None]], settings: Settings) -> Server:
    """A server for these doors that is not running yet."""
    config = uvicorn.Config(
        doors,
        http=EdgeProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_s,
    )
    return Server(config)


def stop(server: uvicorn.Server) -> None:
    """Begin to drain."""
    server.should_exit = True


async def serve_and_drain(server: Server, listener: socket.socket) -> None:
    """Serve until told to stop, then drain; also when this is cancelled, because something beside the doors has failed.

    So no call is under way any more when what it needs is closed.
    """
    serving = asyncio.get_running_loop().create_task(server.serve([listener]))
    try:
        await asyncio.shield(serving)
    finally:
        stop(server)
        await asyncio.wait({serving})
        await _await_last_calls(server)


async def _await_last_calls(server: Server) -> None:
    """Calls cut off at the end of the drain have been cancelled; give them the moment it takes to settle."""
    if server.server_state.tasks:
        await asyncio.wait(server.server_state.tasks, timeout=_LAST_WORDS_S)


@contextmanager
def bind(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that is ours before anything else is opened. Raises CannotStart with what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            option = "--port" if error.errno in _OF_THE_PORT else "--host"
            raise CannotStart(
                f"Cannot listen on {host} port {port}: {error.strerror}. Choose another by {option}."
            ) from None
        yield listener


def url_of(listener: socket.socket) -> str:
    """Where it can be reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
