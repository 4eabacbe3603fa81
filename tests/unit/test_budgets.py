"""How large a hold is."""

from __future__ import annotations

from datetime import UTC, datetime

from ostiary.limits.budgets import Bid, Budget, size_hold

_USD_PER_MTOK = 1_000_000_000
_NOVEMBER = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)


def test_a_fixed_answer_is_held_in_full_even_if_it_cannot_be_paid() -> None:
    bid = Bid(fixed_nano=100, output_tokens=1_000, output_rate=_USD_PER_MTOK, may_shrink=False)
    size = size_hold(bid, headroom_nano=5)
    assert (size.nano, size.output_tokens, size.shrunk) == (1_000_100, 1_000, False)


def test_an_unfixed_answer_that_fits_in_a_quarter_stays_as_it_is() -> None:
    bid = Bid(fixed_nano=0, output_tokens=100, output_rate=_USD_PER_MTOK, may_shrink=True)
    assert size_hold(bid, 4 * bid.nano_for(100)).shrunk is False


def test_an_unfixed_answer_is_lowered_to_a_quarter_of_the_headroom() -> None:
    bid = Bid(fixed_nano=10_000, output_tokens=100_000, output_rate=_USD_PER_MTOK, may_shrink=True)
    size = size_hold(bid, headroom_nano=4_000_000)
    assert size.shrunk
    assert size.output_tokens == 990
    assert size.nano == 1_000_000


def test_near_the_cap_it_takes_what_remains() -> None:
    bid = Bid(fixed_nano=0, output_tokens=100_000, output_rate=_USD_PER_MTOK, may_shrink=True)
    size = size_hold(bid, headroom_nano=100_000)
    assert (size.output_tokens, size.nano) == (100, 100_000)


def test_below_64_tokens_it_is_not_lowered_further() -> None:
    bid = Bid(fixed_nano=0, output_tokens=100_000, output_rate=_USD_PER_MTOK, may_shrink=True)
    size = size_hold(bid, headroom_nano=63_000)
    assert size.output_tokens == 64
    assert size.nano > 63_000, "and so it will be refused"


def test_an_answer_shorter_than_64_is_never_lengthened() -> None:
    bid = Bid(fixed_nano=0, output_tokens=10, output_rate=_USD_PER_MTOK, may_shrink=True)
    assert size_hold(bid, 0).output_tokens == 10


def test_a_hold_is_rounded_up() -> None:
    assert Bid(0, 1, 1, may_shrink=False).nano_for(1) == 1


def test_a_month_resets_and_a_total_never_does() -> None:
    assert Budget("month", 1).period_at(_NOVEMBER) == "2026-11"
    december = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp() * 1000)
    assert Budget("month", 1).resets_at(_NOVEMBER) == december
    assert Budget("month", 1).period_at(december - 1) == "2026-11"
    assert Budget("month", 1).period_at(december) == "2026-12"
    assert Budget("total", 1).period_at(_NOVEMBER) == "total"
    assert Budget("total", 1).resets_at(_NOVEMBER) is None
