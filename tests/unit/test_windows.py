"""The sliding minute and the UTC day."""

from __future__ import annotations

from ostiary.limits.windows import DayCount, SlidingMinute


def test_a_minute_holds_its_limit_in_any_sixty_seconds() -> None:
    minute = SlidingMinute()
    for moment in (0.0, 10.0, 59.0):
        assert minute.wait_s(3, moment) is None
        minute.take(moment)
    assert minute.wait_s(3, 59.5) == 0.5
    assert minute.wait_s(3, 60.0) is None
    minute.take(60.0)
    assert minute.wait_s(3, 69.0) == 1.0


def test_a_limit_lowered_below_what_was_taken_waits_until_enough_is_over() -> None:
    minute = SlidingMinute()
    for moment in (0.0, 10.0, 20.0):
        minute.take(moment)
    assert minute.wait_s(1, 30.0) == 50.0


def test_a_limit_of_zero_never_fits() -> None:
    assert SlidingMinute().wait_s(0, 5.0) == 60.0


def test_an_untaken_request_leaves_room_again() -> None:
    minute = SlidingMinute()
    minute.take(1.0)
    assert minute.wait_s(1, 2.0) is not None
    minute.untake(1.0)
    assert minute.wait_s(1, 2.0) is None


def test_the_day_starts_anew_and_never_goes_back() -> None:
    day = DayCount(day=100, count=4)
    day.take(100)
    assert day.used(100) == 5
    assert day.used(99) == 5, "a clock set back does not give a second day"
    day.take(101)
    assert day.used(101) == 1
    day.untake(101)
    day.untake(101)
    assert day.used(101) == 0
