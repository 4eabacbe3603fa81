"""What the head of a request may look like (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from ostiary.errors import Refusal

MAX_HEAD: Final = 32 * 1024
MAX_HEADERS: Final = 100
_BETWEEN: Final = len(": \r\n")
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_ONCE: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})
_UPGRADE: Final = re.compile(rb"\r\n(upgrade[ \t]*:)", re.IGNORECASE)


def without_upgrade(data: bytes) -> bytes:
    """A head whose offer to speak another protocol is under another name: the parser would throw the body away.

    Java's client makes this offer with every first request.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(rb"\r\nx-\1", head) + end + rest


def judge_head(
    headers: Mapping[bytes, bytes], repeated: Sequence[tuple[bytes, bytes]], version: str, target: int
) -> Refusal | None:
    """Why a head is refused: too large, with a target of so many bytes, or open to two readings by two servers."""
    size = target + sum(map(len, headers)) + sum(map(len, headers.values())) + _BETWEEN * len(headers)
    if repeated:
        size += sum(len(name) + len(value) + _BETWEEN for name, value in repeated)
    if size > MAX_HEAD or len(headers) + len(repeated) > MAX_HEADERS:
        return Refusal("headers_too_large", f"The head is over {MAX_HEAD // 1024} KB or {MAX_HEADERS} headers.")
    if version not in _VERSIONS:
        return Refusal("invalid_request", "Speak HTTP/1.1 or HTTP/1.0.")
    again = {name for name, _ in repeated} & _ONCE if repeated else None
    if (again and b"host" in again) or (b"host" not in headers and version == "1.1"):
        return Refusal("invalid_request", "Send exactly one Host header.")
    if again or (b"content-length" in headers and b"transfer-encoding" in headers):
        return Refusal("invalid_request", "Send one Content-Length or one Transfer-Encoding, not both.")
    if version == "1.0" and b"transfer-encoding" in headers:
        return Refusal("invalid_request", "HTTP/1.0 knows no Transfer-Encoding.")
    return None
