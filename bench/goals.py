"""What the gateway promises to cost, each goal judged by the rounds at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.load import Crowd
from bench.table import Round, added_of, median_of, number, ratio_of, ratio_within


@dataclass(frozen=True, slots=True)
class Goal:
    """One promise: a figure that stays below a limit."""

    text: str
    limit: float
    unit: str
    figure: Callable[[Sequence[Round], str], float | None]
    """Of the rounds and the gateway's name in them."""


GOALS = (
    Goal("CPU per JSON call against nginx", 10, "×", lambda rounds, name: ratio_of(rounds, name, "nginx", "cpu_us")),
    Goal(
        "CPU per streamed chunk against nginx", 3, "×", lambda rounds, name: ratio_of(rounds, name, "nginx", "chunk_us")
    ),
    Goal(
        "p50 added to the direct call at c=1",
        1.5,
        " ms",
        lambda rounds, name: added_of(rounds, name, "direct", "p50_1_ms"),
    ),
    Goal("memory when idle", 110, " MB", lambda rounds, name: median_of(rounds, name, "idle_mb")),
    Goal("start to the first /health", 2, " s", lambda rounds, name: median_of(rounds, name, "start_s")),
    Goal(
        "CPU of a call that falls back against one that does not",
        2,
        "×",
        lambda rounds, name: ratio_within(rounds, name, "fallback_us", "steady_us"),
    ),
)


CROWDED = (
    Goal(
        "CPU per JSON call against one key", 1.2, "×", lambda rounds, name: ratio_of(rounds, name, "ostiary", "cpu_us")
    ),
    Goal("start to the first /health", 5, " s", lambda rounds, name: median_of(rounds, name, "start_s")),
    Goal("memory when idle", 250, " MB", lambda rounds, name: median_of(rounds, name, "idle_mb")),
    Goal("memory after the load", 250, " MB", lambda rounds, name: median_of(rounds, name, "load_mb")),
)
"""With 100,000 agent keys."""

SHARED = (
    Goal(
        "purse top-ups per 1,000 calls, away from the cap",
        5,
        "",
        lambda rounds, name: median_of(rounds, name, "top_ups_per_1000"),
    ),
)
"""With several processes on one database."""


WIDE = (
    Goal(
        "CPU per JSON call against one provider key", 1.1, "×", lambda r, name: ratio_of(r, name, "ostiary", "cpu_us")
    ),
    Goal("start to the first /health", 5, " s", lambda rounds, name: median_of(rounds, name, "start_s")),
)
"""With 60 providers of 20 keys each; what that adds to a call is too little to be seen here: `python -m bench.step`."""


def goals_of(crowd: Crowd) -> tuple[Goal, ...]:
    """With many streams open."""
    said = f"{crowd.count:,} streams open, an event every {crowd.gap_ms:g} ms"
    return (
        Goal(f"memory with {said}", 250, " MB", lambda rounds, name: median_of(rounds, name, f"{crowd.name}_mb")),
        Goal(
            f"CPU per event against nginx with {said}",
            2,
            "×",
            lambda rounds, name: ratio_of(rounds, name, "nginx", f"{crowd.name}_chunk_us"),
        ),
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a goal fared."""

    goal: Goal
    found: float | None

    @property
    def is_reached(self) -> bool:
        """Below the limit, or at it; what was not measured is not reached."""
        return self.found is not None and self.found <= self.goal.limit

    def line(self) -> str:
        """As a line of a list."""
        mark = "reached" if self.is_reached else "MISSED" if self.found is not None else "not measured"
        found = number(self.found, 2)
        return f"- {self.goal.text}: {found}{self.goal.unit} (goal ≤ {self.goal.limit:g}{self.goal.unit}) – {mark}"


def judge(rounds: Sequence[Round], name: str, goals: Sequence[Goal] = GOALS) -> list[Verdict]:
    """Every goal, in the order of the issue."""
    return [Verdict(goal, goal.figure(rounds, name)) for goal in goals]
