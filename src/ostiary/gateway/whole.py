"""Shorter ways to the socket for what is written most: a whole answer, and a piece of a stream."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_FORBIDDEN: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def write_whole(
    cycle: RequestResponseCycle, flow: FlowControl, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Write status, headers (with the length) and body at once, where uvicorn makes two messages and two system calls.

    False, with nothing written, where that needs more care: a reader who is slow, a connection that is to be closed,
    and an answer without a body.
    """
    if cycle.disconnected:
        return True
    if flow.write_paused or cycle.response_started or not cycle.keep_alive or cycle.scope["method"] == "HEAD":
        return False
    named = [b"%b: %b" % pair for pair in headers]
    if _FORBIDDEN.search(b"".join(named)):
        raise ValueError("a header holds a character that would end it")
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"%b%b\r\n\r\n%b" % (STATUS_LINE[status], b"\r\n".join(named), body))
    cycle.message_event.set()
    cycle.on_response()
    return True


def write_piece(cycle: RequestResponseCycle, flow: FlowControl, body: bytes) -> bool:
    """Write one piece of an answer whose head is out; False, with nothing written, where uvicorn has to look at it."""
    if cycle.disconnected:
        return True
    if flow.write_paused or not cycle.chunked_encoding or cycle.response_complete or not body:
        return False
    cycle.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
    return True
