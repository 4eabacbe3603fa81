"""A connection that says exactly what a test says, byte by byte, and reads what comes back."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.servers.gateway import Gateway


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer off the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json["error"]["code"])


class Wire:
    """One connection to the gateway."""

    def __init__(self, port: int, timeout_s: float = 30) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._read = bytearray()

    def send(self, *parts: bytes) -> None:
        """Write these bytes as they are."""
        for part in parts:
            self.socket.sendall(part)

    def answer(self) -> Answer:
        """The next answer, by its length or its chunks."""
        head = self._until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self._exactly(int(headers["content-length"]))
        return Answer(int(first.split(" ")[1]), headers, body)

    def is_closed(self, within_s: float = 20) -> bool:
        """Whether the gateway hangs up in time, without another byte."""
        if self._read:
            return False
        self.socket.settimeout(within_s)
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def reset(self) -> None:
        """Hang up with a RST, as a killed client's kernel does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.socket.close()

    def until(self, mark: bytes) -> bytes:
        """Read on until this has come; everything up to its end."""
        return self._until(mark)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._until(b"\r\n"), 16):
            yield self._exactly(size + 2)[:-2]
        self._until(b"\r\n")

    def _until(self, mark: bytes) -> bytes:
        seen = 0
        while (start := self._read.find(mark, seen)) < 0:
            seen = max(len(self._read) - len(mark), 0)
            self._more()
        return self._take(start + len(mark))

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        found = bytes(self._read[:size])
        del self._read[:size]
        return found

    def _more(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionResetError(f"the gateway hung up after {bytes(self._read[-1_000:])!r}")
        self._read += data


@contextmanager
def wire(gateway: Gateway, timeout_s: float = 30) -> Iterator[Wire]:
    """A connection, closed at the end of the block."""
    made = Wire(gateway.port, timeout_s)
    try:
        yield made
    finally:
        made.socket.close()


def say(gateway: Gateway, *parts: bytes) -> Answer:
    """One request, one answer."""
    with wire(gateway) as line:
        line.send(*parts)
        return line.answer()


def get(path: str = "/health", *lines: str, version: str = "1.1", method: str = "GET") -> bytes:
    """The head of a request without a body; a Host is added unless a line names one."""
    host = () if any(line.lower().startswith("host") for line in lines) else ("host: gateway",)
    return "\r\n".join([f"{method} {path} HTTP/{version}", *host, *lines, "", ""]).encode("latin-1")


def post(secret: str, body: bytes, *lines: str, path: str = "/v1/chat/completions") -> bytes:
    """A whole request with a body framed by its length, unless a line says otherwise."""
    framing = [] if any(line.lower().startswith(("content-length", "transfer-enc")) for line in lines) else [len(body)]
    head = get(
        path,
        f"authorization: Bearer {secret}",
        "content-type: application/json",
        *(f"content-length: {size}" for size in framing),
        *lines,
        method="POST",
    )
    return head + body


def took(begun: float) -> float:
    """Seconds since."""
    return time.monotonic() - begun
