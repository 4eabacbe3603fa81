"""Recosts that pages have begun are found by who began them, as long as there is room."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.dashboard.recosts import Recosts
from ostiary.errors import Refusal
from ostiary.providers.prices import Override, PriceBook

AT = 1_795_200_000_000
WISHED = {"since": "7", "model": "echo"}


def book(nano: int = 3) -> PriceBook:
    return PriceBook([Override("openai", "echo", {"input": nano, "output": nano}, f"v{nano}")])


def test_only_who_began_one_is_told_of_it() -> None:
    known = Recosts()
    made = known.begin("usr_olga", {"since": "7"}, book(), AT, is_applied=True)
    made.note(2_000, 9_000, 700)
    assert known.find(made.id, "usr_olga") is made
    assert known.find(made.id, "usr_oscar") is None
    assert known.find("recost_other", "usr_olga") is None
    assert (made.done, made.total, made.changed) == (2_000, 9_000, 700)


def test_the_oldest_makes_room() -> None:
    known = Recosts()
    made = [known.begin("usr_olga", {}, book(), AT + number, is_applied=False) for number in range(9)]
    assert [known.find(one.id, "usr_olga") is one for one in made] == [False, *[True] * 8]


def test_one_that_does_just_this_is_found_while_it_runs() -> None:
    known = Recosts()
    made = known.begin("usr_olga", WISHED, book(), AT, is_applied=True)
    assert known.find_running("usr_olga", dict(WISHED), book(), is_applied=True) is made
    assert known.find_running("usr_olga", WISHED, book(), is_applied=False) is None
    assert known.find_running("usr_olga", {**WISHED, "since": "30"}, book(), is_applied=True) is None
    assert known.find_running("usr_oscar", WISHED, book(), is_applied=True) is None
    assert known.find_running("usr_olga", WISHED, book(4), is_applied=True) is None, "a price was set meanwhile"


@pytest.mark.parametrize("end", [{"tallies": []}, {"refusal": Refusal("service_unavailable")}])
def test_one_that_is_over_does_nothing_any_more(end: dict[str, Any]) -> None:
    known = Recosts()
    made = known.begin("usr_olga", WISHED, book(), AT, is_applied=True)
    for name, value in end.items():
        setattr(made, name, value)
    assert known.find_running("usr_olga", WISHED, book(), is_applied=True) is None
