"""A connection to a provider that is lost: whether any of the request can have reached it decides what may follow."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from ostiary.providers.connection import Connection, TransportError, Waits

_REQUEST = b"POST / HTTP/1.1\r\nhost: provider\r\ncontent-length: 2\r\n\r\n"


async def _lose(*, is_sent: bool, answers: bool = False) -> TransportError:
    loop = asyncio.get_running_loop()
    ours, peer = socket.socketpair()
    _, connection = await loop.create_connection(lambda: Connection(loop, "http://provider", ours), sock=ours)
    waiter = connection.start(_REQUEST, b"{}", Waits(), loop.time())
    if is_sent:
        assert await asyncio.to_thread(peer.recv, 1_000) == _REQUEST + b"{}"
    if answers:
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    else:
        peer.close()
    await waiter
    with pytest.raises(TransportError) as told:
        connection.check()
    peer.close()
    return told.value


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_request_that_never_left_is_not_taken_for_one_that_may_be_at_work(*, is_sent: bool) -> None:
    """On the loop that the gateway runs on: what happens within one round is the loop's own affair."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        error = runner.run(_lose(is_sent=is_sent))
    assert error.kind == "broken"
    assert error.sent is is_sent


def test_an_answer_that_came_before_its_request_had_left_is_nobody_s() -> None:
    """It belongs to another call, or to none: who is not asked yet has nothing to answer."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        error = runner.run(_lose(is_sent=False, answers=True))
    assert error.text == "more came than the answer"
    assert not error.sent
