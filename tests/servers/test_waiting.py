"""The patience of the tests forgives the machine, and not the product."""

from __future__ import annotations

import time

import pytest

from tests.servers.waiting import require_prompt, until


def test_what_came_true_while_the_test_stood_still_is_seen() -> None:
    looks: list[float] = []

    def done() -> bool:
        looks.append(time.monotonic())
        if len(looks) == 1:
            time.sleep(0.2)  # beyond the time there is
        return len(looks) > 1

    until(done, "the second look", 0.1)


def test_what_never_comes_true_is_told() -> None:
    with pytest.raises(TimeoutError, match="the moon"):
        until(lambda: False, "the moon", 0.1)


@pytest.mark.parametrize(
    ("trials", "callers", "made"),
    [
        ([[0.1, 0.1]], 1, 1),
        ([[0.1, 9.0]], 1, 1),
        ([[9.0, 9.0, 0.1], [0.1, 9.0, 0.1]], 1, 2),
        ([[9.0], [0.1]], 0, 2),
        ([[9.0], [9.0], [0.1]], 0, 3),
    ],
)
def test_who_is_prompt_in_one_trial_is_prompt(trials: list[list[float]], callers: int, made: int) -> None:
    asked: list[int] = []

    def trial(number: int) -> list[float]:
        asked.append(number)
        return trials[number - 1]

    require_prompt(trial, callers=callers)
    assert asked == list(range(1, made + 1))


@pytest.mark.parametrize(("taken", "callers"), [([9.0], 0), ([0.1, 9.0], 0), ([0.1, 9.0, 9.0], 1)])
def test_who_is_slow_in_every_trial_is_slow(taken: list[float], callers: int) -> None:
    with pytest.raises(AssertionError):
        require_prompt(lambda _number: taken, callers=callers)
