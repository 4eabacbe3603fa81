"""What each failure makes of a provider key: the whole table, and its bounds."""

from __future__ import annotations

from math import inf
from typing import cast, get_args

import pytest

from ostiary.providers.verdict import Cause
from ostiary.vault.health import LASTING, State, Trouble, disabled, is_incident, on_trial, worsened

AT = 1_000_000_000
HOUR = 3_600_000


def after(*causes: Cause, at: int = AT, resets_at: int | None = None) -> Trouble:
    known: Trouble | None = None
    for cause in causes:
        known = worsened(known, cause, "said so", at, resets_at)
    assert known is not None
    return known


def _failed(count: int) -> list[Cause]:
    return ["failed"] * count


def test_two_failures_are_doubt_and_the_third_is_enough() -> None:
    for count in (1, 2):
        one = after(*_failed(count))
        assert (one.state, one.failures) == ("degraded", count)
        assert one.is_doubtful(AT)
        assert not one.is_skipped(AT)
        assert not one.is_doubtful(AT + 30_000)
    third = after("failed", "failed", "failed")
    assert (third.state, third.until) == ("unhealthy", AT + 5_000)
    assert third.is_skipped(AT + 4_999)
    assert not third.is_skipped(AT + 5_000), "then real traffic asks again"


def test_a_cool_down_doubles_and_is_never_longer_than_an_hour() -> None:
    waits = [after(*_failed(count)).until or 0 for count in range(3, 40)]
    assert waits[:4] == [AT + 5_000, AT + 10_000, AT + 20_000, AT + 40_000]
    assert waits[-1] == AT + HOUR == max(waits)


def test_pace_rests_until_the_provider_says_and_money_an_hour() -> None:
    assert after("pace", resets_at=AT + 7_000).until == AT + 7_000
    assert after("pace").until == AT + 5_000
    assert after("pace", "pace").until == AT + 10_000
    assert (after("money").state, after("money").until) == ("exhausted", AT + HOUR)
    assert after("money", resets_at=AT + 60_000).until == AT + 60_000
    assert (after("quota", resets_at=AT + 9_000).state, after("quota").until) == ("exhausted", AT + HOUR)
    causes: tuple[Cause, ...] = ("pace", "quota", "money")
    for cause in causes:
        assert after(cause, resets_at=AT + 24 * HOUR).until == AT + HOUR, "no cool-down is longer"
        assert (after(cause, resets_at=AT - 1).until or 0) > AT, "what is past says nothing"


@pytest.mark.parametrize("cause", get_args(Cause))
def test_what_a_person_must_mend_no_failure_changes(cause: Cause) -> None:
    for state in LASTING:
        known = Trouble(cast("State", state), 3, "why", AT, None)
        assert worsened(known, cause, "other", AT + 1, None) is known
    assert disabled(after("bad_key"), "not valid", AT).until is None


@pytest.mark.parametrize("cause", get_args(Cause))
def test_every_cause_ends_by_itself(cause: Cause) -> None:
    one = after(cause, cause, cause, cause)
    assert one.until is not None
    assert AT < one.until <= AT + HOUR


def test_one_call_finds_out_and_others_keep_away() -> None:
    known = after("failed", "failed", "failed")
    trial = on_trial(known, AT + 5_000)
    assert trial.is_skipped(AT + 14_999)
    assert not trial.is_skipped(AT + 15_000)
    assert (trial.state, trial.failures) == (known.state, known.failures)


@pytest.mark.parametrize(("keys", "enough"), [(1, 3), (2, 3), (3, 3), (9, 3), (10, 3), (11, 4), (20, 6), (100, 30)])
def test_an_incident_is_three_or_three_in_ten(keys: int, enough: int) -> None:
    assert not is_incident(enough - 1, keys)
    assert is_incident(enough, keys)


def test_it_is_known_when_trouble_ends_by_itself() -> None:
    resting = after("pace", resets_at=AT + 20_000)
    assert resting.turn_at(AT) == AT + 20_000
    assert resting.turn_at(AT + 20_000) == disabled(None, "not valid", AT).turn_at(AT) == inf
    ahead = Trouble("cooling", 1, "by a clock that is ahead", AT, AT + 3 * HOUR)
    assert ahead.turn_at(AT) == AT + 2 * HOUR
    assert (ahead.is_skipped(AT + 2 * HOUR - 1), ahead.is_skipped(AT + 2 * HOUR)) == (False, True)
