"""Exact US dollars as integer nano-dollars."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final, NewType

import msgspec

Nano = NewType("Nano", int)
"""Nano-dollars: 1e-9 USD."""

NANO_PER_USD: Final = 1_000_000_000
TOKENS_PER_RATE: Final = 1_000_000
"""Rates are nano-dollars per million tokens, so that every published price is an integer."""
MAX_NANO: Final = 9_000_000_000 * NANO_PER_USD
"""Nine billion dollars: what a signed 64-bit column holds with room for sums."""


def nano_of(usd: str | int | Decimal) -> Nano:
    """Nano-dollars of an amount in USD as people write it; raises ValueError on what is not an exact amount."""
    try:
        amount = Decimal(usd if "_" not in str(usd) else "")
    except (InvalidOperation, TypeError) as error:
        raise ValueError(f"{usd!r} is not an amount in USD") from error
    if not amount.is_finite():
        raise ValueError(f"{usd!r} is not an amount in USD")
    if not 0 <= amount <= MAX_NANO // NANO_PER_USD:
        raise ValueError(f"{usd!r} is not between 0 and {MAX_NANO // NANO_PER_USD} USD")
    nano = amount.scaleb(9) if amount else Decimal(0)
    if nano != nano.to_integral_value():
        raise ValueError(f"{usd!r} has more than nine decimals")
    return Nano(int(nano))


def usd_of(nano: int) -> Decimal:
    """USD of nano-dollars, without trailing zeros."""
    return Decimal(nano).scaleb(-9).normalize() + 0


def show_usd(nano: int) -> str:
    """Nano-dollars as a plain decimal number of USD: `0.00125`, never in exponent form."""
    whole, part = divmod(abs(nano), NANO_PER_USD)
    shown = f"{whole}.{part:09d}".rstrip("0") if part else str(whole)
    return f"-{shown}" if nano < 0 else shown


def usd_number(nano: int) -> msgspec.Raw:
    """Nano-dollars as a JSON number of USD: written out digit by digit, so nothing is lost on our side."""
    return msgspec.Raw(show_usd(nano).encode())


def cost_of(parts: list[tuple[int, int]]) -> Nano:
    """Nano-dollars of (tokens, rate) pairs, rates in nano-dollars per million tokens; rounded up once, at the end."""
    return Nano(-(-sum(tokens * rate for tokens, rate in parts) // TOKENS_PER_RATE))
