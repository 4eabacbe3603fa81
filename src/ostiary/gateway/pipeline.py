"""The way of a call: identify, read, admit, plan, reserve, attempt, relay, settle."""

from __future__ import annotations

import asyncio
from typing import Final

from ostiary.errors import TABLE, Refusal
from ostiary.gateway import plan as planning
from ostiary.gateway.admit import SCOPE, admit_call, admit_caller
from ostiary.gateway.bid import bid_on
from ostiary.gateway.call import read_call
from ostiary.gateway.caller import Caller
from ostiary.gateway.choose import choose
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.gateway.identify import identify
from ostiary.gateway.key_limits import Limit, hold_first
from ostiary.gateway.pace import refused_lines
from ostiary.gateway.relay import say_stopped
from ostiary.gateway.responses import keep_to
from ostiary.gateway.settle import Book
from ostiary.gateway.tries import Admitted, try_in_order
from ostiary.gateway.unusable import none_has_room

_US: Final = 1_000_000
_FOR_WANT_OF_NEWS: Final = tuple(TABLE[code] for code in ("model_not_found", "model_not_priced", "no_provider_key"))


async def answer_call(gate: Gate, exchange: Exchange, operation: str) -> None:
    """Serve one call from its first byte to its settlement, or raise the refusal that answers it.

    Nothing is consumed before `reserve`; from there on the book is closed whatever happens: an error, a hang-up, a
    shutdown. Retries are a loop over targets that are all allowed, priced and covered by the one hold.
    """
    begun = gate.clock.monotonic()
    caller = await identify(exchange, gate.directory)
    known = gate.clock.monotonic()
    admitted = await admit(gate, caller, exchange, operation)
    timings = {
        "identify_us": int((known - begun) * _US),
        "admit_us": int((admitted.judged_at - known) * _US),
        "reserve_us": int((admitted.held_at - admitted.judged_at) * _US),
    }
    book = Book(gate, exchange, admitted.caller, admitted.call, admitted.hold, timings, admitted.route.endpoint)
    book.key_hold = admitted.key_hold
    gate.books.add(book)
    try:
        exchange.watch()
        await try_in_order(book, admitted)
    except BaseException:
        exchange.unwatch()
        await book.close(book.seen)
        if not book.is_stopped:
            raise
        await _say_stopped(exchange)
    finally:
        gate.books.discard(book)


async def admit(gate: Gate, caller: Caller, exchange: Exchange, operation: str, *, is_asked: bool = False) -> Admitted:
    """Everything before the first attempt, in one order, the first refusal wins; the last step alone consumes.

    `explain` takes the same steps, only asking, and undoes the hold.
    """
    admit_caller(caller, gate.clock.now(), SCOPE, exchange.address)
    was_whole = exchange.is_whole
    call = await read_call(gate, exchange, operation)
    if not was_whole:  # a body may take a minute to come, in which a key can be stopped
        caller = await identify(exchange, gate.directory)
        admit_caller(caller, gate.clock.now(), SCOPE, exchange.address)
    admit_call(caller, call)
    try:
        route = planning.plan(caller, call, gate.directory)
    except Refusal as refusal:
        if refusal.kind not in _FOR_WANT_OF_NEWS or not await gate.directory.look_again():
            raise
        route = planning.plan(caller, call, gate.directory)
    among = route.every
    if call.previous_response_id is not None:
        among = await keep_to(gate, caller.organization_id, call.previous_response_id, among)
    order = choose(route, call, gate.directory.health, gate.clock.now(), caller.organization_id, among)
    bid = bid_on(call, order.reach)
    judged_at = gate.clock.monotonic()
    try:
        hold = await gate.reserve.take(caller.allowance, bid, call.max_cost_nano, is_asked=is_asked)
    except Refusal:
        if not is_asked:
            exchange.told = refused_lines(gate.counters, caller.allowance, gate.clock)
        raise
    key_hold = None
    if order.first.key.allowance is not None:
        at, resting = gate.clock.now(), gate.directory.health.troubles.resting

        def refuse(limits: list[Limit]) -> Refusal:
            return none_has_room(limits, resting(among, at), at, caller.organization_id)

        try:
            order, key_hold = await hold_first(gate.reserve, call, order, hold, refuse, at, is_asked=is_asked)
        except BaseException:
            gate.reserve.undo(hold)
            raise
    return Admitted(caller, call, order, hold, key_hold, route, judged_at, gate.clock.monotonic())


async def _say_stopped(exchange: Exchange) -> None:
    """The key was stopped while its call was open: that is why the call ends, and its caller hears so."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    if not exchange.is_started:
        raise Refusal("invalid_api_key")
    if not exchange.is_ended:
        await say_stopped(exchange)
