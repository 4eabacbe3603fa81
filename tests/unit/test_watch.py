"""Who is heard of, by one's own clock."""

from __future__ import annotations

from ostiary.limits.watch import Watch


def test_a_process_is_sure_as_long_as_others_may_have_heard_of_it() -> None:
    watch = Watch("me", 100.0)
    assert watch.sure_until == 160.0
    watch.hear({"me": 1}, 105.0)
    assert watch.sure_until == 160.0, "its heartbeat may be as old as the look before"
    watch.hear({"me": 1}, 110.0)
    assert watch.sure_until == 160.0
    watch.hear({"me": 2}, 115.0)
    assert watch.sure_until == 170.0
    watch.hear({}, 120.0)
    assert watch.sure_until == 170.0, "closed, or never made known: what was true stays true for a while"
    watch.beat(3, 300.0)
    assert watch.sure_until == 360.0
    watch.hear({"me": 3}, 320.0)
    assert watch.sure_until == 360.0


def test_another_lives_while_its_heartbeat_changes_whatever_its_clock_says() -> None:
    watch = Watch("me", 0.0)
    watch.hear({"me": 1, "late": -3_600_000, "early": 3_600_000}, 0.0)
    assert (watch.count_live(15.0), watch.count_live(16.0)) == (3, 1)
    watch.hear({"me": 2, "late": -3_600_000, "early": 3_600_001}, 100.0)
    assert watch.count_live(100.0) == 2
    assert watch.list_silent(120.0) == []
    assert watch.list_silent(121.0) == [("late", -3_600_000)]
    watch.hear({"me": 3, "late": -3_599_999}, 130.0)
    assert watch.list_silent(240.0) == []
