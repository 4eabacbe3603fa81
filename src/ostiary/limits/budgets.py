"""What a budget is, and how large a hold a call needs and may have (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from ostiary.clock import date_of, day_ends, month_ends, month_of
from ostiary.money import TOKENS_PER_RATE

Kind = Literal["day", "month", "total"]
TOTAL = "total"
"""The period id of accounts that never end."""

_LEAST_OUTPUT = 64
"""Output tokens below which an answer is not worth lowering `max_tokens` for."""
_SHARE = 4
"""An unfixed answer may take one part in four of the headroom, so that one call does not starve the next."""


_USUAL_THRESHOLDS = (50, 80, 100)
_FULL = 100
_MONTH = len("2026-11")


def kind_of(period_id: str) -> Kind:
    """Of which kind of budget a period is one."""
    if period_id == TOTAL:
        return "total"
    return "month" if len(period_id) == _MONTH else "day"


def periods_of(scope: str, at: int) -> tuple[str, ...]:
    """The periods in which what is spent at a time is counted; days are counted for provider keys only."""
    if scope == "provider_key":
        return date_of(at), month_of(at), TOTAL
    return month_of(at), TOTAL


def period_ends(period_id: str, at: int) -> int | None:
    """When a period of this kind ends that has begun before `at`, None when it never does."""
    return {"day": day_ends(at), "month": month_ends(at)}.get(kind_of(period_id))


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent per UTC day or month or in total, in nano-dollars; at least one of the two bounds is set.

    `cap_nano` is hard: no call passes it. `soft_nano` only warns. `thresholds` are the percents at which somebody is
    told: of the cap where there is one, else of the soft bound.
    """

    kind: Kind
    cap_nano: int | None
    soft_nano: int | None = None
    thresholds: tuple[int, ...] = _USUAL_THRESHOLDS

    @property
    def last_threshold(self) -> int:
        """The percent from which it needs somebody: the last threshold before it is full."""
        return max((one for one in self.thresholds if one < _FULL), default=_FULL)

    def period_at(self, at: int) -> str:
        """The id of the period that a call held at `at` is paid from."""
        match self.kind:
            case "month":
                return month_of(at)
            case "day":
                return date_of(at)
            case _:
                return TOTAL

    def resets_at(self, at: int) -> int | None:
        """When the current period ends, None when it never does."""
        return period_ends(self.period_at(at), at)


class AccountKey(NamedTuple):
    """Which account: `scope` is agent_key, organization or provider_key; `period_id` a month, a day or `total`."""

    scope: str
    id: str
    period_id: str


class Bid(msgspec.Struct, frozen=True, gc=False):
    """The most a call can cost: a fixed part, and output tokens at a rate in nano-dollars per million.

    `tokens` is what the call is thought to use of tokens per minute, until it is known.
    """

    fixed_nano: int
    output_tokens: int
    output_rate: int
    may_shrink: bool
    tokens: int = 0

    def nano_for(self, output_tokens: int) -> int:
        """The hold for that much output, rounded up."""
        return self.fixed_nano + -(-output_tokens * self.output_rate // TOKENS_PER_RATE)


class Size(msgspec.Struct, frozen=True, gc=False):
    """A hold in nano-dollars and the output it pays for; `shrunk` when that is less than was bid."""

    nano: int
    output_tokens: int
    shrunk: bool


def size_hold(bid: Bid, headroom_nano: int) -> Size:
    """The hold to ask for, given what is left.

    Output that the caller did not fix is lowered to a quarter of the headroom, else to all of it, never below 64
    tokens; a hold that still does not fit is returned as it is and will be refused.
    """
    full = bid.nano_for(bid.output_tokens)
    if not bid.may_shrink or bid.output_rate == 0 or full <= headroom_nano // _SHARE:
        return Size(full, bid.output_tokens, shrunk=False)
    for share in (headroom_nano // _SHARE, headroom_nano):
        tokens = (share - bid.fixed_nano) * TOKENS_PER_RATE // bid.output_rate
        if tokens >= _LEAST_OUTPUT:
            tokens = min(tokens, bid.output_tokens)
            return Size(bid.nano_for(tokens), tokens, shrunk=tokens < bid.output_tokens)
    least = min(_LEAST_OUTPUT, bid.output_tokens)
    return Size(bid.nano_for(least), least, shrunk=least < bid.output_tokens)
