"""Many callers at once, as light as can be: what counts is what the gateways answer, not what asking costs."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.servers.gateway import Gateway

MODEL = "openai-compatible/ok"
_PATIENCE_S = 45.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    status: int
    headers: dict[str, str]
    body: bytes
    at: float
    """When the call was made, by the monotonic clock."""
    took_s: float

    @property
    def id(self) -> str:
        """The request id."""
        return self.headers["x-request-id"]

    @property
    def cost_nano(self) -> int:
        """What it cost, as the gateway told the caller."""
        return int(Decimal(self.headers["x-ostiary-cost-usd"]).scaleb(9))

    @property
    def error(self) -> dict[str, Any]:
        """Why not."""
        found: dict[str, Any] = json.loads(self.body).get("error", {})
        return found

    @property
    def may_be_retried(self) -> bool:
        """Whether only open calls are in the way of it."""
        return self.status == 402 and bool(self.error["retryable"])


async def ask(port: int, secret: str, model: str = MODEL, max_tokens: int = 10) -> Answer:
    """One call on a connection of its own."""
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": max_tokens}
    sent = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {secret}\r\n"
        f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(sent)}\r\n\r\n"
    )
    started = time.monotonic()
    async with asyncio.timeout(_PATIENCE_S):
        # Connected and sent in one step: in a crowd it may be seconds until a caller has its next turn, and the gateway
        # does not wait that long for a head.
        line = socket.create_connection(("127.0.0.1", port))
        try:
            line.sendall(head.encode() + sent)
            line.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=line)
        except BaseException:
            line.close()
            raise
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].decode().split("\r\n")
            headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
            content = await reader.readexactly(int(headers["content-length"]))
        finally:
            writer.close()
    return Answer(int(first.split(" ")[1]), headers, content, started, time.monotonic() - started)


def rush(gateways: Sequence[Gateway], secrets: Sequence[str], calls: int, tries: int) -> list[Answer]:
    """All calls at once, spread over gateways and keys; who is told to come back does, so often as `tries` says."""

    async def insist(number: int) -> list[Answer]:
        port, secret = gateways[number % len(gateways)].port, secrets[number % len(secrets)]
        answers: list[Answer] = []
        for _ in range(tries):
            answers.append(await ask(port, secret))
            if not answers[-1].may_be_retried:
                break
            await asyncio.sleep(int(answers[-1].headers["retry-after"]))
        return answers

    async def run() -> list[list[Answer]]:
        return await asyncio.gather(*(insist(number) for number in range(calls)))

    return [answer for answers in asyncio.run(run()) for answer in answers]


@dataclass(slots=True)
class Load:
    """Callers that go on until they are told to stop."""

    answers: list[tuple[str, Answer]] = field(default_factory=list)
    """The secret that was used, and what came back."""
    cut: Counter[str] = field(default_factory=Counter)
    """Calls that ended without a whole answer, by what the caller saw."""
    _over: threading.Event = field(default_factory=threading.Event)

    def of(self, secret: str, since: float = 0.0, until: float = float("inf")) -> list[Answer]:
        """The answers one key got to calls made in a span of time."""
        return [answer for used, answer in self.answers if used == secret and since <= answer.at < until]

    def costs(self) -> dict[str, int]:
        """What every answered call cost."""
        return costs([answer for _, answer in self.answers])

    async def _go_on(self, port: int, secret: str, pause_s: float) -> None:
        while not self._over.is_set():
            try:
                self.answers.append((secret, await ask(port, secret)))
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.cut[type(error).__name__] += 1
            await asyncio.sleep(pause_s)

    def _run(self, gateways: Sequence[Gateway], secrets: Sequence[str], callers: int, pause_s: float) -> None:
        async def run() -> None:
            pairs = [(gateway.port, secret) for gateway in gateways for secret in secrets]
            await asyncio.gather(*(self._go_on(*pair, pause_s) for pair in pairs for _ in range(callers)))

        asyncio.run(run())


@contextmanager
def loading(
    gateways: Sequence[Gateway], secrets: Sequence[str], callers: int = 2, pause_s: float = 0.02
) -> Iterator[Load]:
    """So many callers for each key at each gateway, until the block ends; then every call has come to its end."""
    load = Load()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load._run, gateways, secrets, callers, pause_s)
        try:
            yield load
        finally:
            load._over.set()
        running.result()


@contextmanager
def behind(calls: Sequence[Callable[[], Answer]]) -> Iterator[list[Future[Answer]]]:
    """Calls under way while the block runs."""
    with ThreadPoolExecutor(len(calls)) as pool:
        yield [pool.submit(call) for call in calls]


def one(gateway: Gateway, secret: str, model: str = MODEL, max_tokens: int = 10) -> Answer:
    """One call, waited for."""
    return asyncio.run(ask(gateway.port, secret, model, max_tokens))


def costs(answers: Sequence[Answer]) -> dict[str, int]:
    """What every answered call cost, by request id."""
    return {answer.id: answer.cost_nano for answer in answers if answer.status == 200}
