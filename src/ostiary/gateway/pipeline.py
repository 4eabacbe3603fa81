"""The way of a call: identify, read, admit, plan, reserve, attempt, relay, settle."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from ostiary.errors import TABLE, Refusal
from ostiary.gateway import plan as planning
from ostiary.gateway.admit import SCOPE, admit_call, admit_caller
from ostiary.gateway.attempt import Failure, attempt, refusal_of
from ostiary.gateway.call import Call, read_call
from ostiary.gateway.caller import Caller
from ostiary.gateway.exchange import Exchange, Headers
from ostiary.gateway.gate import Gate
from ostiary.gateway.identify import identify
from ostiary.gateway.pace import pace_headers
from ostiary.gateway.plan import Target
from ostiary.gateway.relay import relay, relay_stream, say_stopped
from ostiary.gateway.settle import Book, Outcome
from ostiary.limits.reserve import Hold

_US: Final = 1_000_000
_FOR_WANT_OF_NEWS: Final = tuple(TABLE[code] for code in ("model_not_found", "model_not_priced", "no_provider_key"))


@dataclass(slots=True, eq=False)
class Admitted:
    """A call that may be made: its targets in order, and one hold that pays for any of them."""

    caller: Caller
    call: Call
    targets: tuple[Target, ...]
    hold: Hold
    judged_at: float
    held_at: float


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
    book = Book(gate, exchange, admitted.caller, admitted.call, admitted.hold, timings)
    gate.books.add(book)
    try:
        exchange.watch()
        await _try_in_order(book, admitted.targets)
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
    call = await read_call(exchange, operation, gate.dialect, gate.patience.body_s)
    if not was_whole:  # a body may take a minute to come, in which a key can be stopped
        caller = await identify(exchange, gate.directory)
        admit_caller(caller, gate.clock.now(), SCOPE, exchange.address)
    admit_call(caller, call)
    try:
        targets = planning.plan(caller, call, gate.directory)
    except Refusal as refusal:
        if refusal.kind not in _FOR_WANT_OF_NEWS or not await gate.directory.look_again():
            raise
        targets = planning.plan(caller, call, gate.directory)
    bid = planning.bid_for(call, targets)
    judged_at = gate.clock.monotonic()
    hold = await gate.reserve.take(caller.allowance, bid, call.max_cost_nano, is_asked=is_asked)
    return Admitted(caller, call, targets, hold, judged_at, gate.clock.monotonic())


async def _try_in_order(book: Book, targets: tuple[Target, ...]) -> None:
    """Attempts, until one is relayed, one must not be repeated, or none is left."""
    failures: list[tuple[Target, Failure]] = []
    for target in targets:
        if book.is_billed and not await book.gate.reserve.extend(book.hold):
            break  # the attempt before may be charged for, and nothing is left for another
        failure = await _try(book, target, failures)
        if failure is None:
            return
        failures.append((target, failure))
        verdict, tokens = failure.verdict, failure.tokens
        outcome = Outcome(
            "error", failure.http_status, verdict.code, tokens, billed=verdict.billed or tokens is not None
        )
        outcome.source = "provider" if tokens is not None else "none"
        book.end_attempt(outcome)
        if verdict.next == "stop":
            break
    await book.close(Outcome("error", billed=False))
    raise refusal_of(book.call, failures)


async def _try(book: Book, target: Target, failures: list[tuple[Target, Failure]]) -> Failure | None:
    await book.open(target)
    book.seen = Outcome("cancelled")
    answer = await attempt(book.gate, book.call, target, _most_output(book))
    if isinstance(answer, Failure):
        return answer
    book.answered()
    try:
        headers = _headers(book, target, failures)
        if book.call.ask.stream:
            return await relay_stream(book, answer, headers)
        return await relay(book, answer, headers)
    except BaseException:
        answer.abort()  # the upstream stops too: nobody is listening
        raise


def _most_output(book: Book) -> int | None:
    """What to say in `max_tokens`, for each choice: the hold pays for no more; None where the caller's own will do."""
    size, ask = book.hold.size, book.call.ask
    is_bound = book.hold.purses or book.hold.call_cap_nano is not None
    if size.output_tokens and (size.shrunk or is_bound):
        return max(size.output_tokens // ask.choices, 1)
    return None


def _headers(book: Book, target: Target, failures: list[tuple[Target, Failure]]) -> Headers:
    headers = [
        (b"x-ostiary-provider", target.provider.id.encode()),
        (b"x-ostiary-model", target.model.encode("ascii", "replace")),
        (b"x-ostiary-attempts", b"%d" % book.attempt),
    ]
    if failures:
        headers.append((b"x-ostiary-fallback-from", failures[0][0].provider.id.encode()))
    if book.hold.size.shrunk:
        headers.append((b"x-ostiary-max-tokens-capped", b"%d" % (_most_output(book) or 0)))
    if book.caller.warnings:
        headers += book.gate.directory.soft.warnings(book.caller)
    return headers + pace_headers(book.hold.fitted, book.gate.clock)


async def _say_stopped(exchange: Exchange) -> None:
    """The key was stopped while its call was open: that is why the call ends, and its caller hears so."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    if not exchange.is_started:
        raise Refusal("invalid_api_key")
    if not exchange.is_ended:
        await say_stopped(exchange)
