"""What is written in one round of the loop: sent together behind it, in order, and nothing on a line that is lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from ostiary.outgoing import Outgoing


@dataclass(frozen=True, slots=True)
class _Line:
    """A connection of this loop, and the socket of who is at its other end."""

    out: Outgoing
    transport: asyncio.Transport
    peer: socket.socket

    def heard(self) -> bytes | None:
        """What the peer has been sent by now; None when nothing, empty when the line was closed."""
        try:
            return self.peer.recv(1 << 20)
        except BlockingIOError:
            return None


@pytest.fixture
async def line() -> AsyncIterator[_Line]:
    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair()
    peer.setblocking(False)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    yield _Line(Outgoing(loop, transport), transport, peer)
    transport.abort()
    peer.close()
    await asyncio.sleep(0)


async def _round() -> None:
    for _ in range(2):
        await asyncio.sleep(0)


async def test_what_is_written_in_one_round_goes_out_behind_it_in_one_piece(line: _Line) -> None:
    line.out.write(b"head ")
    line.out.write(b"body")
    assert line.heard() is None
    await _round()
    assert line.heard() == b"head body"
    line.out.write(b"next")
    await _round()
    assert line.heard() == b"next"


async def test_much_goes_out_at_once(line: _Line) -> None:
    """So that whoever writes hears in time that the reader is slow."""
    line.out.write(b"x")
    line.out.write(b"y" * 65_536)
    assert line.heard() == b"x" + b"y" * 65_536
    await _round()
    assert line.heard() is None


async def test_closing_sends_what_was_written(line: _Line) -> None:
    line.out.write(b"goodbye")
    line.out.close()
    assert line.heard() == b"goodbye"
    await _round()
    assert line.heard() == b""


async def test_aborting_sends_nothing_more_and_says_what_was_not_sent(line: _Line) -> None:
    line.out.write(b"sent")
    line.out.flush()
    line.out.write(b"not sent")
    assert line.out.abort()
    await _round()
    assert line.heard() == b"sent"
    assert not line.out.abort()


async def test_a_connection_that_is_closing_is_sent_nothing(line: _Line) -> None:
    line.out.write(b"late")
    line.transport.close()
    line.out.flush()
    await _round()
    assert line.heard() == b""
