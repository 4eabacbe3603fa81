"""A server that webhooks post to, written from the standard: it takes what is signed, fresh and new."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.servers.upstream import Behaviour, Exchange, Received, Upstream
from tests.servers.waiting import until
from tests.servers.wire import whole

_TOLERANCE_S = 300


class Receiver:
    """What it took is in `taken`; every request, taken or not, in `requests`."""

    def __init__(self, server: Upstream) -> None:
        self._server = server
        self.secret = ""
        """As it was shown when the webhook was made."""
        self.taken: dict[str, Any] = {}
        """Messages by their id."""
        self.refused: list[str] = []
        """Why others were not taken."""
        self.status: int | None = None
        """What to answer instead of taking anything; a redirect leads to `/elsewhere`."""
        self.is_silent = False
        """Never answer."""
        server.choose = self._behave

    @property
    def origin(self) -> str:
        """As OSTIARY_EGRESS_ALLOW takes it."""
        return self._server.origin

    @property
    def url(self) -> str:
        """Where to post."""
        return f"{self.origin}/hooks/ostiary"

    @property
    def requests(self) -> list[Received]:
        """Everything that came."""
        return self._server.received

    def wait_for(self, messages: int, timeout_s: float = 30) -> Any:
        """Block until so many were taken; the last of them."""
        until(lambda: len(self.taken) >= messages, f"{messages} messages at the webhook", timeout_s)
        return list(self.taken.values())[messages - 1]

    def judge(self, request: Received) -> str | None:
        """Why a request is not taken; None takes it."""
        id, timestamp = request.header("webhook-id") or "", request.header("webhook-timestamp") or ""
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        signed = f"{id}.{timestamp}.".encode() + request.body
        right = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        if right not in (request.header("webhook-signature") or "").split(" "):
            return "not signed"
        if abs(time.time() - int(timestamp)) > _TOLERANCE_S:
            return "too old"
        return "seen before" if id in self.taken else None

    def _behave(self, _request: Received) -> Behaviour:
        return self._answer

    async def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        if self.is_silent:
            await exchange.stall()
        if self.status is not None:
            await exchange.send(whole(self.status, b"{}", b"location: " + f"{self.origin}/elsewhere".encode()))
            return
        why = self.judge(request)
        if why is None:
            self.taken[request.header("webhook-id") or ""] = json.loads(request.body)
        else:
            self.refused.append(why)
        await exchange.send(whole(400 if why else 204, b"" if why is None else b"{}"))


@contextmanager
def running(port: int = 0) -> Iterator[Receiver]:
    """Serve while the block runs."""
    server = Upstream()
    made = Receiver(server)
    with server.running(port):
        yield made
    assert not server.faults, f"the receiver itself went wrong: {server.faults}"
