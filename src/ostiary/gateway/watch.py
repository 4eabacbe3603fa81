"""What this process has done since its start, as plain integers: the path of a call adds, whoever looks reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ostiary.clock import Clock
from ostiary.errors import Refusal
from ostiary.ledger.events import Event
from ostiary.ledger.telemetry import SpanCounts
from ostiary.limits.ration import RationState
from ostiary.secret import Secret

_BEAT_S: Final = 0.5
_BEATS: Final = 120
"""The lag that is shown is the worst of the last minute: two who look do not take it from one another."""
_HUNDRED: Final = 100


@dataclass(slots=True)
class Watch:
    """One process as its operator sees it. `token` is what a monitor shows; without one nobody may look."""

    name: str = ""
    token: Secret | None = None
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    """By operation and class of the answer: `2xx`, `4xx`, `5xx`, or `gone` when the caller hung up first."""
    refusals: dict[str, int] = field(default_factory=dict)
    attempts: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """By operation, provider and how it ended."""
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("input", "output"), 0))
    cost_nano: int = 0
    over_hold_nano: int = 0
    open_calls: int = 0
    purses: Callable[[], tuple[int, int, int]] = lambda: (0, 0, 0)
    """Nano-dollars that are free, held and leased in this process's purses."""
    rations: Callable[[], RationState | None] = lambda: None
    """How this process stands with the windows that it shares with others."""
    spans: Callable[[], SpanCounts | None] = lambda: None
    """What became of spans, where they are sent to a collector."""
    top_ups: Callable[[], int] = lambda: 0
    """How often they were filled up from the database."""
    _lags: deque[float] = field(default_factory=lambda: deque(maxlen=_BEATS))

    def answered(self, operation: str, refusal: Refusal | None) -> None:
        """A call has ended, served or refused."""
        status = "2xx" if refusal is None else f"{refusal.status // _HUNDRED}xx"
        self._ended(operation, status)
        if refusal is not None:
            self.refusals[refusal.code] = self.refusals.get(refusal.code, 0) + 1

    def left(self, operation: str) -> None:
        """A call has ended without an answer: the caller hung up, or the gateway stopped."""
        self._ended(operation, "gone")

    def _ended(self, operation: str, status: str) -> None:
        key = (operation, status)
        self.calls[key] = self.calls.get(key, 0) + 1

    def settled(self, event: Event) -> None:
        """An attempt has come to its end, whatever it was."""
        key = (event.operation, event.provider, event.status)
        self.attempts[key] = self.attempts.get(key, 0) + 1
        self.tokens["input"] += event.input_tokens
        self.tokens["output"] += event.output_tokens
        self.cost_nano += event.cost_nano
        self.over_hold_nano += max(event.cost_nano - event.held_nano, 0)

    @property
    def lag_s(self) -> float:
        """By how much the event loop was late at worst, in the last minute."""
        return max(self._lags, default=0.0)

    async def run(self, clock: Clock) -> None:
        """Until cancelled: feel the pulse of the loop."""
        while True:
            slept_at = clock.monotonic()
            await clock.sleep(_BEAT_S)
            self._lags.append(max(clock.monotonic() - slept_at - _BEAT_S, 0.0))
