"""Exact money."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ostiary.money import MAX_NANO, cost_of, nano_of, show_usd, usd_of


@pytest.mark.parametrize(
    ("usd", "nano"),
    [
        ("0", 0),
        ("-0", 0),
        ("0e-999999", 0),
        ("0.000000001", 1),
        ("1e-9", 1),
        ("5", 5_000_000_000),
        (7, 7_000_000_000),
        (Decimal("0.25"), 250_000_000),
        ("9000000000", MAX_NANO),
    ],
)
def test_amounts_are_read_exactly(usd: str | int | Decimal, nano: int) -> None:
    assert nano_of(usd) == nano


@pytest.mark.parametrize(
    "usd",
    [
        "",
        "five",
        "1,50",
        "NaN",
        "Infinity",
        "-0.01",
        "0.0000000001",
        "1e-999999",
        "9000000001",
        "1e999999",
        "0x10",
        "1_",
    ],
)
def test_what_is_not_an_exact_amount_is_said_so(usd: str) -> None:
    with pytest.raises(ValueError, match=r"not an amount|more than nine|not between"):
        nano_of(usd)


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "0"), (1, "0.000000001"), (5_000_000_000, "5"), (1_230_000_000, "1.23"), (10**19, "10000000000")],
)
def test_amounts_are_shown_without_exponents(nano: int, text: str) -> None:
    assert show_usd(nano) == text
    assert usd_of(nano) == Decimal(text)


def test_a_cost_is_rounded_up_once_at_the_end() -> None:
    assert cost_of([(1, 1), (1, 1)]) == 1
    assert cost_of([(1_000_000, 150_000_000), (1, 1)]) == 150_000_001
    assert cost_of([]) == 0
