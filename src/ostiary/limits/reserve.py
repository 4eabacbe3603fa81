"""One Hold: everything a call can use, taken together or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass, replace

from ostiary.clock import Clock, iso, month_ends
from ostiary.errors import Refusal
from ostiary.limits.budgets import TOTAL, AccountKey, Bid, Size, size_hold
from ostiary.limits.local import Allowance, LocalCounters
from ostiary.limits.purse import Purse, Purses
from ostiary.money import show_usd, usd_number

_ASK_AGAIN_S = 0.25
_PATIENCE_S = 2.0
"""How long a call waits, in order, for open holds to settle."""


@dataclass(slots=True, eq=False)
class Hold:
    """What a call holds until it is settled: `size.nano` in each purse, and one request in each window."""

    allowance: Allowance
    size: Size
    purses: tuple[Purse, ...]
    taken: tuple[float, int]
    at: int
    """The moment whose periods pay, in milliseconds since the epoch: settlements go there, however late they come."""
    is_open: bool = True

    @property
    def accounts(self) -> tuple[AccountKey, ...]:
        """The accounts whose leases pay."""
        return tuple(purse.key for purse in self.purses)

    def settle(self, cost_nano: int) -> None:
        """Put the true cost in place of the hold. The second call does nothing: settled is settled."""
        if self.is_open:
            self.is_open = False
            for purse in self.purses:
                purse.give(self.size.nano, cost_nano)


class Reserve:
    """Takes holds from the windows and purses of this process."""

    def __init__(self, clock: Clock, counters: LocalCounters, purses: Purses) -> None:
        """All three belong to this process and its one event loop."""
        self._clock = clock
        self._counters = counters
        self._purses = purses

    async def take(self, allowance: Allowance, bid: Bid, call_cap_nano: int | None = None) -> Hold:
        """Hold what the bid needs, or refuse (429, 402) with nothing consumed.

        Checks and takings are one step without an await; only a purse that is short leaves the loop to ask the
        authority or to wait in line.
        """
        at = self._clock.now()
        purses = self._purses_of(allowance, bid, at)
        served: set[AccountKey] = set()
        deadline = math.inf
        while True:
            self._counters.require(allowance)
            size = _fit_call_cap(bid, _size(bid, purses), call_cap_nano)
            short = _first_short(purses, size.nano, served)
            if short is None:
                taken = self._counters.take(allowance)
                for purse in purses:
                    purse.take(size.nano, taken[0])
                return Hold(allowance, size, purses, taken, at)
            if deadline == math.inf:
                deadline = self._clock.monotonic() + _PATIENCE_S
            await self._make_room(short, bid, deadline)
            served.add(short.key)

    def undo(self, hold: Hold) -> None:
        """Take back a hold whose call was refused after all: it costs nothing and counts nowhere."""
        if hold.is_open:
            hold.settle(0)
            self._counters.untake(hold.allowance, hold.taken)

    def _purses_of(self, allowance: Allowance, bid: Bid, at: int) -> tuple[Purse, ...]:
        if not allowance.budgets or bid.nano_for(bid.output_tokens) == 0:
            return ()  # free models pass over a spent budget
        return tuple(
            self._purses.get(AccountKey(scope, owner, budget.period_at(at)))
            for scope, owner, budget in allowance.budgets
        )

    async def _make_room(self, purse: Purse, bid: Bid, deadline: float) -> None:
        """Return when the purse can pay the bid; refuse at once when spend is in the way, in time when holds are."""
        async with purse.line:
            patience = deadline - self._clock.monotonic()
            while True:
                purse.settled.clear()
                size = _size(bid, (purse,))
                if not purse.is_known or purse.free < size.nano:
                    await self._purses.top_up(purse, max(size.nano, bid.nano_for(0)))
                    size = _size(bid, (purse,))
                    if purse.free < size.nano <= purse.headroom:
                        await self._purses.top_up(purse, size.nano)
                if purse.free >= size.nano:
                    return
                if size.nano > purse.possible or patience <= 0:
                    raise self._spent(purse, size)
                # Only our own settlements wake us; what others give back has to be asked for.
                wait = min(patience, _ASK_AGAIN_S) if purse.others else patience
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await purse.settled.wait()
                        wait = 0
                patience = min(patience - wait, deadline - self._clock.monotonic())

    def _spent(self, purse: Purse, size: Size) -> Refusal:
        cap = purse.cap or 0
        held = purse.held + purse.others
        retryable = size.nano <= purse.possible
        ends_at = None if purse.key.period_id == TOTAL else month_ends(self._clock.now())
        name = purse.key.scope.replace("_", " ")
        why = "open calls hold the rest" if retryable else "this call could cost more than is left"
        return Refusal(
            "budget_exceeded",
            f"The {name}'s budget of ${show_usd(cap)} does not allow this call: it may cost up to "
            f"${show_usd(size.nano)}, and {why}.",
            headers=((b"retry-after", b"2"),) if retryable else (),
            scope=purse.key.scope,
            limit_usd=usd_number(cap),
            spent_usd=usd_number(max(cap - purse.possible, purse.spent)),
            held_usd=usd_number(held),
            needed_usd=usd_number(size.nano),
            resets_at=iso(ends_at) if ends_at else None,
            retryable=retryable,
        )


def _size(bid: Bid, purses: tuple[Purse, ...]) -> Size:
    if not purses:
        return Size(bid.nano_for(bid.output_tokens), bid.output_tokens, shrunk=False)
    return size_hold(bid, min(purse.headroom for purse in purses))


def _first_short(purses: tuple[Purse, ...], nano: int, served: set[AccountKey]) -> Purse | None:
    """The first purse that cannot pay at once, or where others stand in line before us."""
    for purse in purses:
        if not purse.is_known or purse.free < nano or (purse.line.locked() and purse.key not in served):
            return purse
    return None


def _fit_call_cap(bid: Bid, size: Size, cap_nano: int | None) -> Size:
    """Honour the caller's own cap on one call (`x-ostiary-max-cost-usd`)."""
    if cap_nano is None or size.nano <= cap_nano:
        return size
    if bid.may_shrink and bid.output_rate:
        shrunk = size_hold(replace(bid, output_tokens=size.output_tokens), cap_nano)
        if shrunk.nano <= cap_nano:
            return shrunk
    raise Refusal(
        "budget_exceeded",
        f"The call may cost up to ${show_usd(size.nano)}, over its own cap of ${show_usd(cap_nano)}. "
        "Lower max_tokens or raise x-ostiary-max-cost-usd.",
        scope="call",
        limit_usd=usd_number(cap_nano),
        needed_usd=usd_number(size.nano),
        retryable=False,
    )
