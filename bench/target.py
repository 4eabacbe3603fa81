"""Something that answers calls and is weighed while it does."""

from __future__ import annotations

from dataclasses import dataclass

from bench import payload
from bench.proc import Running

STEADY = "steady"
"""An endpoint whose first target answers."""
FALLING = "falling"
"""An endpoint of the same two targets, whose first one always refuses, so that the second one answers."""


@dataclass(frozen=True, slots=True)
class Target:
    """One way from the load to the upstream."""

    name: str
    running: tuple[Running, ...]
    ports: tuple[int, ...]
    """One for each process that shares the load."""
    start_s: float
    """From its start to its first answer."""
    bearer: str = "none"
    model: str = payload.MODEL
    stream_path: str | None = payload.PATH
    """None when it does not stream."""
    holds_many: bool = True
    """Whether thousands of streams can be held open through it."""
    falls_back: bool = False
    """Whether it has the endpoints `STEADY` and `FALLING`."""
    token: str | None = None
    """Opens the metrics of each process, where they are looked at."""
