"""An endpoint that waits no longer than it says: what that makes of the waits, and of how an attempt ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ostiary.providers.transport import Waits

_IMPATIENT: Final = ("first_byte_timeout", "total_timeout")


def hurried(waits: Waits, timeout_s: float, *, is_stream: bool) -> Waits:
    """In this time a stream begins, with its first content, or a whole answer is here; connecting is part of it."""
    if is_stream:
        return replace(waits, first_byte_s=timeout_s, begin_s=timeout_s)
    return replace(waits, first_byte_s=timeout_s, total_s=timeout_s)


def was_hurried(how: str | None, timeout_s: float | None, waits: Waits) -> bool:
    """Whether only the endpoint would not wait: then the key is not to blame. `waits` are those of any other call."""
    if timeout_s is None:
        return False
    if how == "connect_timeout":
        return timeout_s < waits.connect_s
    return how in _IMPATIENT
