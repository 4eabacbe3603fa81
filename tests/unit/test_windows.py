"""The windows: sliding minutes of requests and of tokens, the UTC day, slots."""

from __future__ import annotations

import math
import random
import tracemalloc

import pytest

from ostiary.limits.windows import DayCount, SlidingMinute, SlidingTokens, Slots


def test_a_minute_holds_its_limit_in_any_sixty_seconds() -> None:
    minute = SlidingMinute()
    for moment in (0.0, 10.0, 59.0):
        assert minute.fits(3, 0, moment, 0)
        minute.take(0, moment, 0)
    assert not minute.fits(3, 0, 59.5, 0)
    assert minute.wait_s(3, 0, 59.5) == 0.5
    assert minute.fits(3, 0, 60.0, 0)
    minute.take(0, 60.0, 0)
    assert minute.wait_s(3, 0, 69.0) == 1.0
    assert (minute.used(119.9), minute.reset_s(119.0)) == (1, 1.0)
    assert (minute.used(120.0), minute.reset_s(120.0)) == (0, 0.0)


def test_a_limit_lowered_below_what_was_taken_waits_until_enough_is_over() -> None:
    minute = SlidingMinute()
    for moment in (0.0, 10.0, 20.0):
        minute.take(0, moment, 0)
    assert minute.wait_s(1, 0, 30.0) == 50.0
    assert minute.wait_s(2, 0, 30.0) == 40.0


def test_a_limit_of_zero_never_fits() -> None:
    assert not SlidingMinute().fits(0, 0, 5.0, 0)
    assert SlidingMinute().wait_s(0, 0, 5.0) == 60.0


def test_what_is_not_ones_own_does_not_fit() -> None:
    minute, day, tokens, slots = SlidingMinute(1), DayCount(1), SlidingTokens(100), Slots(1)
    assert day.used(0, 0) == 0
    for window in (minute, day, tokens, slots):
        assert window.fits(1_000, 60, 5.0, 0)
        window.take(60, 5.0, 0)
        assert not window.fits(1_000, 60, 5.0, 0)


def test_an_untaken_request_leaves_room_again() -> None:
    minute = SlidingMinute()
    first = minute.take(0, 1.0, 0)
    minute.take(0, 2.0, 0)
    minute.untake(first)
    assert minute.used(60.5) == 1
    minute.untake(first)
    assert minute.used(60.5) == 1, "what is not there is not taken away"
    assert minute.used(61.5) == 1, "it was the other that stayed"


def test_the_day_starts_anew_and_never_goes_back() -> None:
    day = DayCount()
    assert day.fits(2, 0, 0.0, 100)
    receipt = day.take(0, 0.0, 100)
    assert day.used(0.0, 99) == 1, "a clock set back does not give a second day"
    assert day.fits(2, 0, 0.0, 99)
    day.take(0, 0.0, 99)
    assert not day.fits(2, 0, 0.0, 99)
    assert day.fits(2, 0, 0.0, 101)
    day.untake(receipt)
    assert day.used(0.0, 101) == 0, "yesterday's request is not taken from today"
    day.take(0, 0.0, 101)
    day.untake(101)
    day.untake(101)
    assert day.used(0.0, 101) == 0


def test_what_was_leased_of_a_day_ends_with_it() -> None:
    day = DayCount(0)
    assert day.used(0.0, 100) == 0
    day.leased, day.room, day.asked_at = 5, 3, 1.0
    assert day.fits(10, 0, 0.0, 100)
    assert not day.fits(10, 0, 0.0, 101)
    assert (day.leased, day.room, day.asked_at) == (0, 0, -math.inf)


def test_tokens_count_as_thought_and_then_as_known() -> None:
    window = SlidingTokens()
    first = window.take(700, 0.0, 0)
    assert not window.fits(1_000, 301, 1.0, 0)
    assert window.fits(1_000, 300, 1.0, 0)
    window.settle(first, 100)
    assert window.used(1.0) == 100
    window.settle(first, None)
    assert window.used(1.0) == 100, "nothing known changes nothing"
    second = window.take(900, 10.0, 0)
    window.settle(second, 1_400)
    assert window.used(11.0) == 1_500, "more than was thought counts in full"
    assert not window.fits(1_000, 1, 11.0, 0)
    assert window.used(60.0) == 1_400
    assert window.used(70.0) == 0


def test_more_tokens_than_there_can_be_are_counted_as_the_most() -> None:
    window = SlidingTokens()
    window.settle(window.take(700, 0.0, 0), 10**30)
    assert window.used(1.0) == 1 << 62
    assert window.used(60.0) == 0


def test_what_is_learnt_after_a_minute_no_longer_counts() -> None:
    window = SlidingTokens()
    old = window.take(500, 0.0, 0)
    assert window.used(61.0) == 0
    new = window.take(10, 61.0, 0)
    window.settle(old, 9_000)
    window.untake(old)
    assert window.used(62.0) == 10
    window.untake(new)
    assert (window.used(62.0), window.reset_s(62.0)) == (0, 0.0)


def test_tokens_wait_until_enough_of_the_oldest_are_out() -> None:
    window = SlidingTokens()
    for moment, tokens in ((0.0, 300), (10.0, 300), (20.0, 300)):
        window.take(tokens, moment, 0)
    assert window.wait_s(1_000, 200, 30.0) == 30.0
    assert window.wait_s(1_000, 500, 30.0) == 40.0
    assert window.wait_s(1_000, 5_000, 30.0) == 60.0, "it never fits"
    assert window.reset_s(30.0) == 50.0


def test_a_slot_is_free_again_when_its_call_is_over() -> None:
    slots = Slots()
    slots.take(0, 0.0, 0)
    assert slots.fits(2, 0, 0.0, 0)
    slots.take(0, 0.0, 0)
    assert not slots.fits(2, 0, 0.0, 0)
    slots.settle(None, 5)
    assert slots.fits(2, 0, 0.0, 0)
    slots.untake(None)
    assert slots.used() == 0


class Plain:
    """What the sliding windows are to count, as one would write it down: moment and tokens of each call."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []

    def used(self, now: float) -> tuple[int, int]:
        self.calls = [call for call in self.calls if call[0] > now - 60]
        return len(self.calls), sum(int(call[1]) for call in self.calls)


@pytest.mark.parametrize("seed", range(4))
def test_packed_moments_count_as_plain_ones_would(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same every time
    minute, tokens, plain = SlidingMinute(), SlidingTokens(), Plain()
    open_calls: list[tuple[float, int, list[float]]] = []
    now = 0.0
    for _ in range(12_000):
        now += chance.choice((0.0, 0.001, 0.02, 0.02)) if chance.random() < 0.999 else chance.choice((20, 59, 90))
        match chance.randrange(4):
            case 0 | 1:
                call = [now, chance.randrange(50)]
                plain.calls.append(call)
                open_calls.append((minute.take(0, now, 0), tokens.take(int(call[1]), now, 0), call))
            case 2 if open_calls:
                _, place, call = open_calls.pop(chance.randrange(len(open_calls)))
                call[1] = chance.randrange(90)
                tokens.settle(place, int(call[1]))
            case 3 if open_calls and chance.random() < 0.3:
                moment, place, call = open_calls.pop()
                minute.untake(moment)
                tokens.untake(place)
                plain.calls = [one for one in plain.calls if one is not call]
            case _:
                assert (minute.used(now), tokens.used(now)) == plain.used(now)
                newest = max((call[0] for call in plain.calls), default=now - 60)
                assert minute.reset_s(now) == tokens.reset_s(now) == pytest.approx(newest + 60 - now)
                assert minute.after(1, now, 0) == minute.used(now) + 1
                assert tokens.after(7, now, 0) == tokens.used(now) + 7
    assert (minute.used(now + 60), tokens.used(now + 60)) == (0, 0)


def test_a_busy_minute_takes_little_room() -> None:
    """As an object each, the calls of a minute were ten times as much, and the collector walked them all."""
    minute, tokens = SlidingMinute(), SlidingTokens()
    tracemalloc.start()
    for number in range(92_160):
        now = number / 1_024  # times that floats hold exactly
        minute.used(now)
        minute.take(0, now, 0)
        tokens.used(now)
        tokens.settle(tokens.take(900, now, 0), 1_000)
    room, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (minute.used(now), tokens.used(now)) == (61_440, 61_440_000)
    assert room < 4_000_000
