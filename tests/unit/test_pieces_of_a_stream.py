"""Pieces of a stream reach a slow caller in the order in which they came, and a nudge ends a wait but no answer."""

from __future__ import annotations

import asyncio
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from uvicorn.server import ServerState

from ostiary.gateway.edge import EdgeProtocol
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.stream import Passage
from ostiary.providers.connection import Connection, Waits
from ostiary.providers.openai import OpenAI
from ostiary.providers.transport import Answer

if TYPE_CHECKING:
    import socket

    from uvicorn.config import Config

    from ostiary.gateway.settle import Book
    from ostiary.providers.pool import Pool

pytestmark = pytest.mark.anyio
_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST = b"0\r\n\r\n"


class Socket(asyncio.Transport):
    """What was written, and whether it was hung up."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class Kept:
    """A pool that counts what it is given back."""

    def __init__(self) -> None:
        self.back: list[Connection] = []

    def give_back(self, connection: Connection) -> None:
        self.back.append(connection)


def framed(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def word(number: int) -> bytes:
    return framed(b'data: {"choices":[{"delta":{"content":"%d"},"finish_reason":null}]}\n\n' % number)


async def settle_down() -> None:
    """All that is ready has run: nothing here waits for more than turns of the loop."""
    for _ in range(10):
        await asyncio.sleep(0)


class Scene:
    """A provider's connection whose answer has begun, and a caller's."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.upstream, self.downstream, self.pool = Socket(), Socket(), Kept()
        self.connection = Connection(loop, "https://provider.example", cast("socket.socket", None))
        self.connection.connection_made(self.upstream)
        self.connection.start(b"GET / HTTP/1.1\r\n\r\n", None, Waits(), loop.time())
        self.connection.data_received(_HEAD)
        self.answer = Answer(cast("Pool", self.pool), self.connection)
        config = cast("Config", SimpleNamespace(app=None, timeout_keep_alive=5))
        self.caller = EdgeProtocol(config, ServerState(), {}, loop)
        self.caller.connection_made(self.downstream)

    def passage(self) -> Passage:
        exchange = Exchange(self.caller, "POST", "/v1/chat/completions", b"", {}, [])
        gate = SimpleNamespace(dialect=OpenAI(), clock=SimpleNamespace(now=lambda: 0))
        call = SimpleNamespace(ask=SimpleNamespace(operation="chat", wants_usage=False, stream=True))
        book = SimpleNamespace(exchange=exchange, gate=gate, call=call, said=None)
        return Passage(cast("Book", book), [], self.answer)

    def heard(self) -> list[int]:
        """The words that are on their way to the caller."""
        return [int(number) for number in re.findall(rb'"content":"(\d+)"', self.downstream.sent)]


async def test_what_comes_as_a_slow_caller_reads_on_waits_behind_what_is_in_hand() -> None:
    """The task still has to write the third word when the fourth arrives: the short way would let that one pass."""
    scene = Scene()
    forwarding = asyncio.ensure_future(scene.passage().forward())
    for number in (1, 2):
        scene.connection.data_received(word(number))
        await settle_down()
    scene.caller.pause_writing()
    scene.connection.data_received(word(3))
    await settle_down()
    assert scene.heard() == [1, 2]
    scene.caller.resume_writing()
    scene.connection.data_received(word(4))  # in the same turn of the loop
    await settle_down()
    assert scene.heard() == [1, 2, 3, 4]
    scene.connection.data_received(word(5) + _LAST)
    await settle_down()
    assert scene.heard() == [1, 2, 3, 4, 5]
    assert await forwarding is None


async def test_the_short_way_is_taken_again_once_the_caller_has_caught_up() -> None:
    """Else one slow moment would make the rest of the stream as dear as if there were no short way."""
    scene = Scene()
    forwarding = asyncio.ensure_future(scene.passage().forward())
    scene.connection.data_received(word(1))
    await settle_down()
    scene.caller.pause_writing()
    scene.connection.data_received(word(2) + word(3))
    await settle_down()
    scene.caller.resume_writing()
    await settle_down()
    assert scene.heard() == [1, 2, 3]
    scene.connection.data_received(word(4))
    scene.caller.out.flush()  # what the end of the round does
    assert scene.heard() == [1, 2, 3, 4], "without the turn of any task"
    scene.connection.data_received(_LAST)
    assert await forwarding is None


@pytest.mark.parametrize("waits", [True, False])
async def test_a_nudge_ends_the_wait_and_not_the_answer(*, waits: bool) -> None:
    """Whoever was nudged reads on or releases, as it likes: an answer that goes on is no broken one."""
    scene = Scene()
    heard: list[bytes] = []

    def hear(piece: bytes) -> bool:
        heard.append(piece)
        scene.answer.nudge()
        return True

    scene.answer.tap(hear)
    asked = asyncio.ensure_future(scene.answer.piece(100))
    if waits:
        await settle_down()
        assert not asked.done()
    scene.connection.data_received(framed(b"one"))
    await settle_down()
    assert asked.done()
    assert asked.result() == b""
    assert heard == [b"one"]
    assert not scene.upstream.is_aborted
    scene.connection.data_received(framed(b"two"))
    assert await scene.answer.piece(100) == b"two"
    asked = asyncio.ensure_future(scene.answer.piece(100))
    await settle_down()
    assert not asked.done(), "one nudge ends one wait"
    scene.connection.data_received(_LAST)
    assert await asked == b""
    assert scene.pool.back == [scene.connection]
    assert not scene.upstream.is_aborted
