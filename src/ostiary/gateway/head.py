"""What the head of a request may look like (pure)."""

from __future__ import annotations

import re
from typing import Final

from ostiary.errors import Refusal

MAX_HEAD: Final = 32 * 1024
MAX_HEADERS: Final = 100
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_UPGRADE: Final = re.compile(rb"\r\n(upgrade[ \t]*:)", re.IGNORECASE)


def without_upgrade(data: bytes) -> bytes:
    """A head whose offer to speak another protocol is under another name: the parser would throw the body away.

    Java's client makes this offer with every first request.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(rb"\r\nx-\1", head) + end + rest


def judge_head(headers: list[tuple[bytes, bytes]], version: str, url_bytes: int) -> Refusal | None:
    """Why a head is refused: too large, or open to two readings by two servers in a row."""
    size = url_bytes
    found: dict[bytes, int] = {b"host": 0, b"content-length": 0, b"transfer-encoding": 0}
    for name, value in headers:
        size += len(name) + len(value) + 4
        if name in found:
            found[name] += 1
    hosts, lengths, encodings = found.values()
    if size > MAX_HEAD or len(headers) > MAX_HEADERS:
        return Refusal("headers_too_large", f"The head is over {MAX_HEAD // 1024} KB or {MAX_HEADERS} headers.")
    if version not in _VERSIONS:
        return Refusal("invalid_request", "Speak HTTP/1.1 or HTTP/1.0.")
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return Refusal("invalid_request", "Send exactly one Host header.")
    if lengths + encodings > 1:
        return Refusal("invalid_request", "Send one Content-Length or one Transfer-Encoding, not both.")
    if encodings and version == "1.0":
        return Refusal("invalid_request", "HTTP/1.0 knows no Transfer-Encoding.")
    return None
