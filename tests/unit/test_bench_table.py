"""The bench's figures: medians of rounds, ratios within a round, and which goals they reach."""

from __future__ import annotations

from bench import goals
from bench.load import Crowd
from bench.table import Column, added_of, markdown, median_of, ratio_of, ratio_within

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


def test_two_measures_of_one_target_are_compared_within_a_round() -> None:
    # Twice as slow a machine in the second round: 1.5, 2 and 1.75; the ratio of the medians would be 2.
    rounds = [
        {"ours": {"steady_us": 100.0, "fallback_us": 150.0}},
        {"ours": {"steady_us": 200.0, "fallback_us": 400.0}},
        {"ours": {"steady_us": 120.0, "fallback_us": 210.0}},
        {"ours": {"steady_us": 100.0}, "nginx": {"fallback_us": 900.0}},
    ]
    assert ratio_within(rounds, "ours", "fallback_us", "steady_us") == 1.75
    assert ratio_within(rounds, "nginx", "fallback_us", "steady_us") is None


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


def test_a_fallback_is_judged_against_a_call_without_one() -> None:
    def judged(fallback_us: float) -> goals.Verdict:
        verdicts = goals.judge([{"ours": {"steady_us": 300.0, "fallback_us": fallback_us}}], "ours")
        return next(one for one in verdicts if "falls back" in one.goal.text)

    assert judged(600.0).is_reached
    assert not judged(601.0).is_reached


def test_open_streams_are_judged_by_their_own_measures_and_gap() -> None:
    crowd = Crowd(2_000, 10.0, 2)
    rounds = [
        {
            "nginx": {"open_10ms_chunk_us": 15.0, "open_200ms_chunk_us": 20.0},
            "ours": {"open_10ms_chunk_us": 31.0, "open_10ms_mb": 249.0, "open_200ms_chunk_us": 40.0},
        }
    ]
    memory, cpu = goals.judge(rounds, "ours", goals.goals_of(crowd))
    assert "2,000 streams open, an event every 10 ms" in memory.line()
    assert memory.is_reached
    assert not cpu.is_reached
    memory, cpu = goals.judge(rounds, "ours", goals.goals_of(Crowd(2_000, 200.0, 2)))
    assert memory.found is None
    assert cpu.is_reached
