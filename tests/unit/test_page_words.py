"""How pages write amounts, counts and times: the digits that matter, and every one for who hovers."""

from __future__ import annotations

import pytest

from ostiary.clock import DAY_MS
from ostiary.dashboard import words
from ostiary.money import NANO_PER_USD

NOW = 1_795_000_000_000
MIN, HOUR = 60_000, 3_600_000


@pytest.mark.parametrize(
    ("nano", "shown", "exact"),
    [
        (None, "–", ""),
        (0, "$0", "$0"),
        (1, "$0.000000001", "$0.000000001"),
        (123_456, "$0.00012", "$0.000123456"),
        (42, "$0.000000042", "$0.000000042"),
        (158_000, "$0.00016", "$0.000158"),
        (999_499, "$0.001", "$0.000999499"),
        (4_000_000, "$0.004", "$0.004"),
        (9_949_999, "$0.0099", "$0.009949999"),
        (9_999_999, "$0.01", "$0.009999999"),
        (10_000_000, "$0.01", "$0.01"),
        (15_000_000, "$0.02", "$0.015"),
        (12_344_999_999, "$12.34", "$12.344999999"),
        (12_345_000_000, "$12.35", "$12.345"),
        (999_994_999_999, "$999.99", "$999.994999999"),
        (1_234_500_000_000, "$1,235", "$1234.5"),
        (1_234_567 * NANO_PER_USD, "$1,234,567", "$1234567"),
        (-2_500_000_000, "-$2.50", "$-2.5"),
    ],
)
def test_money_has_the_digits_that_matter(nano: int | None, shown: str, exact: str) -> None:
    assert words.usd(nano) == shown
    assert words.usd_exact(nano) == exact


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (9_999, "9,999"),
        (12_400, "12.4k"),
        (12_000, "12k"),
        (3_100_000, "3.1M"),
        (2_000_000_000, "2B"),
    ],
)
def test_large_counts_are_short(value: int | None, shown: str) -> None:
    assert words.short(value) == shown


@pytest.mark.parametrize(
    ("away", "shown"),
    [
        (0, "just now"),
        (44_000, "just now"),
        (46_000, "1 min ago"),
        (59 * MIN, "59 min ago"),
        (HOUR, "1 h ago"),
        (3 * DAY_MS, "3 d ago"),
        (45 * DAY_MS, "1 mo ago"),
        (800 * DAY_MS, "2 y ago"),
        (-5 * DAY_MS, "in 5 d"),
        (-89_000, "in 1 min"),
        (-91_000, "in 2 min"),
    ],
)
def test_times_are_told_from_now(away: int, shown: str) -> None:
    assert words.relative(NOW - away, NOW) == shown
    assert words.exact(NOW) == "2026-11-18 11:06:40 UTC"


@pytest.mark.parametrize(
    ("part", "shown"), [(0, "0 %"), (0.0004, "< 0.1 %"), (0.001, "0.1 %"), (0.125, "12.5 %"), (1, "100 %")]
)
def test_shares_have_one_digit_behind_the_point(part: float, shown: str) -> None:
    assert words.percent(part) == shown


@pytest.mark.parametrize(
    ("spent", "cap", "full", "level"),
    [
        (0, None, 0, "good"),
        (0, 0, 100, "bad"),
        (69, 100, 69, "good"),
        (70, 100, 70, "warn"),
        (89, 100, 89, "warn"),
        (90, 100, 90, "bad"),
        (250, 100, 100, "bad"),
    ],
)
def test_a_budget_is_green_amber_and_red(spent: int, cap: int | None, full: int, level: str) -> None:
    assert words.fill(spent, cap) == (full, level)
