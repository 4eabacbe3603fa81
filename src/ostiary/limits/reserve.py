"""One Hold: everything a call can use, taken together or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec.structs import replace

from ostiary.clock import Clock, day_of, iso
from ostiary.errors import Refusal
from ostiary.limits.budgets import AccountKey, Bid, Size, period_ends, size_hold
from ostiary.limits.local import Allowance, Fitted, Holder, LocalCounters
from ostiary.limits.purse import Purse, Purses
from ostiary.limits.windows import Receipt
from ostiary.money import show_usd, usd_number

_ASK_AGAIN_S = 0.25
_PATIENCE_S = 2.0
"""How long a call waits, in order, for open holds to settle."""


class Hold(msgspec.Struct, eq=False):
    """What a call holds until it is settled: `held_nano` in each purse, and its part of each window."""

    size: Size
    """What one attempt may cost."""
    purses: tuple[Purse, ...]
    fitted: Fitted
    counts: list[int]
    """What each window counted with this call in it."""
    receipts: list[Receipt]
    """What was taken of each window."""
    at: int
    """The moment whose periods pay, in milliseconds since the epoch: settlements go there, however late they come."""
    call_cap_nano: int | None
    held_nano: int
    """What all attempts so far may cost: `size.nano`, and as much again each time the hold was extended."""
    is_open: bool = True

    @property
    def accounts(self) -> tuple[AccountKey, ...]:
        """The accounts whose leases pay."""
        return tuple(purse.key for purse in self.purses)

    def settle(self, cost_nano: int, tokens: int | None = None) -> None:
        """Put the true cost, and the true tokens if they are known, in place of the hold.

        The cost is that of all attempts. The second call does nothing: settled is settled.
        """
        if self.is_open:
            self.is_open = False
            for purse in self.purses:
                purse.give(self.held_nano, cost_nano)
            if self.fitted.ending:
                self.fitted.settle(self.receipts, tokens)


class Leases(Protocol):
    """Where a process that shares its windows with others gets more of them."""

    async def fill(self, holder: Holder, tokens: int) -> None:
        """Return when more has been leased of the holder's windows; refuse (429) when that can't be."""
        ...

    async def look(self, holder: Holder) -> None:
        """Ask how the windows stand, and lease nothing that is not needed."""
        ...


class Reserve:
    """Takes holds from the windows and purses of this process."""

    def __init__(
        self,
        clock: Clock,
        counters: LocalCounters,
        purses: Purses,
        leases: Leases | None = None,
        when_spent: Callable[[AccountKey], None] | None = None,
    ) -> None:
        """All belong to this process and its one event loop; without `leases` its windows are nobody else's.

        `when_spent` is told of every account by which a call is refused because it is spent.
        """
        self._when_spent = when_spent
        self._clock = clock
        self._counters = counters
        self._purses = purses
        self._leases = leases

    def beside(self, counters: LocalCounters, leases: Leases) -> Reserve:
        """One with the same purses and other windows, that tells nobody of what is spent."""
        return Reserve(self._clock, counters, self._purses, leases)

    async def take(
        self,
        allowance: Allowance,
        bid: Bid,
        call_cap_nano: int | None = None,
        *,
        is_asked: bool = False,
        may_wait: bool = True,
        at: int | None = None,
    ) -> Hold:
        """Hold what the bid needs, or refuse (429, 402) with nothing consumed.

        Who only asks (`is_asked`) is refused alike, and nobody is told of it. Who may not wait is refused at once where
        open holds are in the way. `at` is the moment whose periods pay, where that is another one than now.

        Checks and takings are one step without an await; only a purse that is short asks the authority or waits.
        """
        clock, counters, tokens = self._clock, self._counters, bid.tokens
        begun_at = clock.now()
        is_now, day, at = at is None, day_of(begun_at), begun_at if at is None else at
        served: set[AccountKey] = set()
        deadline = math.inf
        while True:
            now = clock.monotonic()
            fitted = counters.fit(allowance)
            counts = counters.judge(fitted, tokens, now, day)
            if isinstance(counts, Holder):
                await self._lease_more(counts, tokens)
                if is_now and day_of(clock.now()) > day:  # let in today: so the ledger and the purses must say, too
                    return await self.take(allowance, bid, call_cap_nano, is_asked=is_asked, may_wait=may_wait)
                continue
            purses = self._purses_of(allowance, bid, at) if allowance.budgets else ()
            size = _fit_call_cap(bid, _size(bid, purses), call_cap_nano)
            short = _first_short(purses, size.nano, served)
            if short is None:
                receipts = [window.take(tokens, now, day) for window in fitted.windows]
                for purse in purses:
                    purse.take(size.nano, now)
                return Hold(size, purses, fitted, counts, receipts, at, call_cap_nano, size.nano)
            if deadline == math.inf:
                deadline = now + (_PATIENCE_S if may_wait else 0)
            try:
                await self._make_room(short, purses, bid, deadline)
            except Refusal as refusal:
                if not is_asked:
                    self._note_spent(refusal, short)
                raise
            served.add(short.key)
            if is_now and day_of(clock.now()) > day:
                return await self.take(allowance, bid, call_cap_nano, is_asked=is_asked, may_wait=may_wait)

    async def _lease_more(self, holder: Holder, tokens: int) -> None:
        if self._leases is None:
            raise RuntimeError("these windows are shared, and there is nowhere to lease more of them")
        await self._leases.fill(holder, tokens)

    def _note_spent(self, refusal: Refusal, short: Purse) -> None:
        if refusal.details.get("retryable") is False and self._when_spent is not None:
            self._when_spent(short.key)

    async def look(self, allowance: Allowance) -> None:
        """Hear how the windows stand that are shared with other processes, for somebody who asks."""
        if self._leases is not None:
            for holder in allowance.holders:
                await self._leases.look(holder)

    async def extend(self, hold: Hold) -> bool:
        """Hold as much again, for an attempt after one that may have been billed; False when there is no room.

        Asks the authority where a purse is short, but waits for nobody, and never passes the call's own cap.
        """
        more = hold.size.nano
        if not hold.is_open or (hold.call_cap_nano is not None and hold.held_nano + more > hold.call_cap_nano):
            return False
        for purse in hold.purses:
            if purse.free < more or not purse.is_known:  # its cap may have been lowered since
                await self._purses.top_up(purse, more)
        if not hold.is_open or any(purse.free < more for purse in hold.purses):
            return False
        hold.held_nano += more
        now = self._clock.monotonic()
        for purse in hold.purses:
            purse.take(more, now)
        return True

    def undo(self, hold: Hold) -> None:
        """Take back a hold whose call was refused after all: it costs nothing and counts nowhere."""
        if hold.is_open:
            hold.is_open = False
            for purse in hold.purses:
                purse.give(hold.held_nano, 0)
            hold.fitted.untake(hold.receipts)

    def _purses_of(self, allowance: Allowance, bid: Bid, at: int) -> tuple[Purse, ...]:
        if bid.nano_for(bid.output_tokens) == 0:
            return ()  # free models pass over a spent budget
        get = self._purses.get
        return tuple([get(AccountKey(scope, id_, budget.period_at(at))) for scope, id_, budget in allowance.budgets])

    async def _make_room(self, purse: Purse, purses: tuple[Purse, ...], bid: Bid, deadline: float) -> None:
        """Return when the purse can pay its part; refuse at once when spend is in the way, in time when holds are.

        How much that is depends on all purses: what one could pay alone may be less than what all pay together.
        """
        async with purse.turn():
            patience = deadline - self._clock.monotonic()
            while True:
                purse.settled.clear()
                size = _size(bid, _known(purses, purse))
                if self._is_surely_spent(purse, size):
                    raise self._spent(purse, size)
                need = max(size.nano, bid.nano_for(0))
                if self._is_worth_asking(purse, size, patience) and await self._top_up(purse, need, patience):
                    size = _size(bid, _known(purses, purse))
                    if purse.free < size.nano <= purse.free + purse.room:
                        await self._top_up(purse, size.nano, patience)
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
                await self._purses.put_together(purse)
                patience = min(patience - wait, deadline - self._clock.monotonic())

    def _is_surely_spent(self, purse: Purse, size: Size) -> bool:
        """A moment ago spend was in the way, and still is: who calls again and again must not reach the database."""
        return purse.is_known and self._is_fresh(purse) and size.nano > purse.possible

    def _is_worth_asking(self, purse: Purse, size: Size, patience: float) -> bool:
        """Who may not wait asks all the same where something was left, or may have come back since."""
        if not purse.is_known:
            return True
        if purse.free >= size.nano:
            return False
        if patience > 0:
            return True
        if self._clock.monotonic() - purse.missed_at < _ASK_AGAIN_S:
            return False
        return size.nano <= purse.free + purse.room or (size.nano <= purse.possible and not self._is_fresh(purse))

    def _is_fresh(self, purse: Purse) -> bool:
        return self._clock.monotonic() - purse.asked_at < _ASK_AGAIN_S

    async def _top_up(self, purse: Purse, need_nano: int, patience: float) -> bool:
        """Whether it could be asked for: who may not wait does without, as another key may serve them."""
        try:
            await self._purses.top_up(purse, need_nano)
        except Refusal:
            if patience > 0 or not purse.is_known:
                raise
            purse.missed_at = self._clock.monotonic()
            return False
        return True

    def _spent(self, purse: Purse, size: Size) -> Refusal:
        cap = purse.cap or 0
        held = purse.held + purse.others
        retryable = size.nano <= purse.possible
        ends_at = period_ends(purse.key.period_id, self._clock.now())
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
    if not purses or not bid.may_shrink:
        return Size(bid.nano_for(bid.output_tokens), bid.output_tokens, shrunk=False)
    return size_hold(bid, min([purse.headroom for purse in purses]))


def _known(purses: tuple[Purse, ...], asked: Purse) -> tuple[Purse, ...]:
    """Those that say something of the size of a hold: what others could pay is not known yet."""
    return tuple(purse for purse in purses if purse.is_known or purse is asked)


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
