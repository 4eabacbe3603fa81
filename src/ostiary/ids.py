"""Names for rows and requests: a prefix, the time, and chance, so that they sort by age and never collide."""

from __future__ import annotations

import os
from typing import Final

BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TIME_DIGITS: Final = 8
_CHANCE_DIGITS: Final = 14
_CHANCE_BYTES: Final = 10


def base62(number: int, digits: int) -> str:
    """A number in base 62, left-padded; higher digits than asked for are cut off."""
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, 62)
        text = BASE62[digit] + text
    return text


def new_id(prefix: str, at: int) -> str:
    """`prefix_` and 22 base62 digits, of which 8 are the time in milliseconds and 14 are random."""
    return f"{prefix}_{base62(at, _TIME_DIGITS)}{base62(int.from_bytes(os.urandom(_CHANCE_BYTES)), _CHANCE_DIGITS)}"
