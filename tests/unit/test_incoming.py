"""How much of a request's body lies in memory: no more than who reads it has room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from ostiary.gateway.incoming import Incoming
from ostiary.outgoing import Outgoing

_PIECE = b"x" * 40_000


class _Line:
    """A connection that says whether its socket is read."""

    is_stuck = False
    out = cast("Outgoing", None)

    def __init__(self) -> None:
        self._is_read = True

    def reads(self) -> bool:
        """A method, since who looks twice may see something else."""
        return self._is_read

    async def drain(self) -> None:
        """There is room."""

    def ask_for_body(self, *, is_expected: bool) -> None:
        assert not is_expected
        self._is_read = True

    def hold_back(self) -> None:
        self._is_read = False

    def has_ended(self, exchange: Incoming) -> None:
        raise AssertionError(exchange)


@pytest.fixture
def line() -> _Line:
    return _Line()


async def _turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_the_socket_waits_while_who_reads_by_pieces_is_not_at_his_turn(line: _Line) -> None:
    """Once woken he runs in the loop's next turn; the loop may hand over thirty pieces in this one."""
    incoming = Incoming(line, {})
    pieces: AsyncIterator[bytes] = incoming.read_pieces(5, 10**6)
    first = asyncio.ensure_future(anext(pieces))
    await _turns()
    incoming.take_in(_PIECE)
    assert line.reads()
    incoming.take_in(_PIECE)
    assert not line.reads()
    assert await first == _PIECE
    assert await anext(pieces) == _PIECE
    assert not line.reads()
    last = asyncio.ensure_future(anext(pieces))
    await _turns()
    assert line.reads()
    incoming.take_in(_PIECE)
    assert line.reads()
    incoming.complete()
    assert await last == _PIECE
    assert [piece async for piece in pieces] == []


async def test_who_wants_the_whole_body_is_handed_it_without_a_stop(line: _Line) -> None:
    incoming = Incoming(line, {})
    whole = asyncio.ensure_future(incoming.read_body(5))
    await _turns()
    for _ in range(5):
        incoming.take_in(_PIECE)
        assert line.reads()
    incoming.complete()
    assert await whole == _PIECE * 5


async def test_a_body_that_nobody_asked_for_waits_in_the_socket(line: _Line) -> None:
    incoming = Incoming(line, {})
    incoming.take_in(_PIECE)
    assert line.reads()
    incoming.take_in(_PIECE)
    assert not line.reads()
