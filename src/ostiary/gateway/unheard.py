"""A request that nobody sent, for who wants to know what would become of one."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from urllib.parse import urlencode

from ostiary.gateway.exchange import Exchange
from ostiary.gateway.request import Request


class _Nowhere:
    """The connection of somebody who hears nothing."""

    transport = cast("asyncio.Transport", None)
    is_stuck = False

    async def drain(self) -> None:
        """Nobody reads."""

    def ask_for_body(self, *, is_expected: bool) -> None:
        """It is all here."""

    def hold_back(self) -> None:
        """It is all here."""

    def has_ended(self, exchange: Request) -> None:
        """Nobody waits for the next."""


def unheard(body: bytes, address: str | None, operation: str | None = None) -> Exchange:
    """A call with this body from that address, complete, whose answer would go nowhere."""
    wire: Any = _Nowhere()
    query = urlencode({"operation": operation}).encode() if operation is not None else b""
    exchange = Exchange(wire, "POST", "/v1/explain", query, {b"content-type": b"application/json"}, [], peer=address)
    exchange.take_in(body)
    exchange.complete()
    exchange.request_id = "none"
    return exchange
