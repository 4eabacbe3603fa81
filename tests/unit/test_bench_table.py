"""The bench's figures: medians of rounds, ratios within a round, and which goals they reach."""

from __future__ import annotations

from bench import goals
from bench.table import Column, added_of, markdown, median_of, ratio_of

# The machine was half as fast in the second round: absolute figures double, ratios stay.
ROUNDS = [
    {"nginx": {"cpu_us": 10.0}, "ours": {"cpu_us": 80.0, "p50": 1.0}},
    {"nginx": {"cpu_us": 20.0}, "ours": {"cpu_us": 160.0}},
    {"nginx": {"cpu_us": 10.0}, "ours": {"cpu_us": 90.0, "p50": 3.0}},
]


def test_the_median_counts_only_rounds_that_have_the_measure() -> None:
    assert median_of(ROUNDS, "ours", "cpu_us") == 90.0
    assert median_of(ROUNDS, "ours", "p50") == 2.0


def test_what_was_never_measured_is_none() -> None:
    assert median_of(ROUNDS, "nginx", "p50") is None
    assert median_of(ROUNDS, "nobody", "cpu_us") is None
    assert median_of([], "ours", "cpu_us") is None
    assert ratio_of(ROUNDS, "ours", "nginx", "p50") is None


def test_ratios_are_taken_within_a_round() -> None:
    # 8, 8 and 9; the ratio of the medians would be 9.
    assert ratio_of(ROUNDS, "ours", "nginx", "cpu_us") == 8.0
    assert ratio_of(ROUNDS, "nginx", "nginx", "cpu_us") == 1.0


def test_additions_are_taken_within_a_round() -> None:
    assert added_of(ROUNDS, "ours", "nginx", "cpu_us") == 80.0


def test_a_base_of_zero_is_no_ratio() -> None:
    rounds = [{"nginx": {"cpu_us": 0.0}, "ours": {"cpu_us": 5.0}}, *ROUNDS[:1]]
    assert ratio_of(rounds, "ours", "nginx", "cpu_us") == 8.0
    assert ratio_of(rounds[:1], "ours", "nginx", "cpu_us") is None


def test_the_table_shows_a_dash_for_what_is_missing() -> None:
    columns = [
        Column("µs", lambda target: median_of(ROUNDS, target, "cpu_us"), 0),
        Column("p50", lambda target: median_of(ROUNDS, target, "p50"), 2),
    ]
    assert markdown(["nginx", "ours"], columns).splitlines() == [
        "| | µs | p50 |",
        "|---|--:|--:|",
        "| nginx | 10 | – |",
        "| ours | 90 | 2.00 |",
    ]


def test_goals_are_reached_at_their_limit_and_missed_above_it() -> None:
    def judged(cpu_us: float) -> goals.Verdict:
        rounds = [{"nginx": {"cpu_us": 10.0}, "ours": {"cpu_us": cpu_us}}]
        return goals.judge(rounds, "ours")[0]

    assert judged(100.0).is_reached
    assert not judged(100.1).is_reached
    assert "MISSED" in judged(250.0).line()
    assert "25.00×" in judged(250.0).line()


def test_a_goal_nobody_measured_is_not_reached() -> None:
    verdicts = goals.judge([], "ours")
    assert verdicts
    assert not any(verdict.is_reached for verdict in verdicts)
    assert all("not measured" in verdict.line() for verdict in verdicts)
