"""Recosts that pages have begun are found by who began them, as long as there is room."""

from __future__ import annotations

from ostiary.dashboard.recosts import Recosts

AT = 1_795_200_000_000


def test_only_who_began_one_is_told_of_it() -> None:
    known = Recosts()
    made = known.begin("usr_olga", {"since": "7"}, AT, is_applied=True)
    made.note(2_000, 9_000)
    assert known.find(made.id, "usr_olga") is made
    assert known.find(made.id, "usr_oscar") is None
    assert known.find("recost_other", "usr_olga") is None
    assert (made.done, made.total) == (2_000, 9_000)


def test_the_oldest_makes_room() -> None:
    known = Recosts()
    made = [known.begin("usr_olga", {}, AT + number, is_applied=False) for number in range(9)]
    assert [known.find(one.id, "usr_olga") is one for one in made] == [False, *[True] * 8]
