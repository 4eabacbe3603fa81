"""The way of a call: identify, read, admit, plan, reserve, attempt, relay, settle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from ostiary.errors import TABLE, Refusal
from ostiary.gateway import plan as planning
from ostiary.gateway.admit import SCOPE, admit_call, admit_caller
from ostiary.gateway.attempt import Failure, attempt
from ostiary.gateway.call import Call, read_call
from ostiary.gateway.exchange import Exchange, Headers
from ostiary.gateway.gate import Gate
from ostiary.gateway.identify import identify
from ostiary.gateway.pace import pace_headers
from ostiary.gateway.plan import Target
from ostiary.gateway.relay import relay, relay_stream
from ostiary.gateway.settle import Book, Outcome
from ostiary.providers.verdict import scrub

_T = TypeVar("_T")
_US: Final = 1_000_000
_FOR_WANT_OF_NEWS: Final = tuple(TABLE[code] for code in ("model_not_found", "model_not_priced", "no_provider_key"))


async def answer_call(gate: Gate, exchange: Exchange, operation: str) -> None:
    """Serve one call from its first byte to its settlement, or raise the refusal that answers it.

    Nothing is consumed before `reserve`; from there on the book is closed whatever happens: an error, a hang-up, a
    shutdown. Retries are a loop over targets that are all allowed, priced and covered by the one hold.
    """
    begun = gate.clock.monotonic()
    caller = await identify(exchange, gate.directory)
    admit_caller(caller, gate.clock.now(), SCOPE, exchange.address)
    call = await read_call(exchange, operation, gate.dialect, gate.patience.body_s)
    admit_call(caller, call)
    targets = await _or_look_again(gate, lambda: planning.plan(caller, call, gate.directory))
    bid = planning.bid_for(call, targets, gate.directory)
    judged = gate.clock.monotonic()
    hold = await gate.reserve.take(caller.allowance, bid, call.max_cost_nano)
    held = gate.clock.monotonic()
    timings = {"judge_us": int((judged - begun) * _US), "reserve_us": int((held - judged) * _US)}
    book = Book(gate, exchange, caller, call, hold, timings)
    try:
        exchange.when_gone(_hang_up(book))
        await _try_in_order(book, targets)
    except BaseException:
        await book.close(book.seen)
        raise
    finally:
        exchange.when_gone(None)


async def _or_look_again(gate: Gate, step: Callable[[], _T]) -> _T:
    """Take a step that may refuse for want of news: then hear what changed and take it once more."""
    try:
        return step()
    except Refusal as refusal:
        if refusal.kind not in _FOR_WANT_OF_NEWS or not await gate.directory.look_again():
            raise
    return step()


async def _try_in_order(book: Book, targets: tuple[Target, ...]) -> None:
    """Attempts, until one is relayed, one must not be repeated, or none is left."""
    failures: list[tuple[Target, Failure]] = []
    for target in targets:
        failure = await _try(book, target, failures)
        if failure is None:
            return
        failures.append((target, failure))
        verdict = failure.verdict
        book.end_attempt(Outcome("error", failure.http_status, verdict.code, billed=verdict.billed))
        if verdict.next == "stop":
            break
    await book.close(Outcome("error", billed=False))
    raise _refusal_of(book.call, failures)


async def _try(book: Book, target: Target, failures: list[tuple[Target, Failure]]) -> Failure | None:
    await book.open(target)
    book.seen = Outcome("cancelled")
    answer = await attempt(book.gate, book.call, target, _most_output(book))
    if isinstance(answer, Failure):
        return answer
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
    if size.shrunk or (book.hold.purses and ask.output_tokens):
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
    return headers + pace_headers(book.gate.counters, book.caller.allowance)


def _refusal_of(call: Call, failures: list[tuple[Target, Failure]]) -> Refusal:
    """What the caller hears when no attempt succeeded: the last verdict, and each attempt in its words, scrubbed."""
    tried = [
        {
            "provider": target.provider.id,
            "model": target.model,
            "status": failure.http_status or None,
            "code": failure.verdict.code,
            "reason": failure.how or failure.verdict.reason,
            "provider_code": failure.word("code"),
            "message": scrub(failure.message, target.key.secrets),
        }
        for target, failure in failures
    ]
    last = failures[-1][1]
    verdict, said = last.verdict, str(tried[-1]["message"])
    if verdict.scope == "caller":
        message = said or f"{TABLE[verdict.code].message} The provider said no more."
    else:
        message = f"{TABLE[verdict.code].message} The last attempt: {verdict.reason}" + (f": {said}" if said else ".")
    waits = [failure.retry_after for _, failure in failures if failure.retry_after is not None]
    param = last.word("param") if verdict.scope == "caller" else None
    return Refusal(
        verdict.code,
        message,
        status=verdict.status,
        param=param or ("model" if verdict.code == "model_not_found" else None),
        headers=((b"retry-after", b"%d" % min(waits)),) if waits else (),
        model=call.ask.model,
        attempts=tried,
    )


class _hang_up:  # noqa: N801 - used like a function
    """Ends the call when its caller has gone; the task finds out by being cancelled."""

    def __init__(self, book: Book) -> None:
        self._task = asyncio.current_task()
        self._book = book

    def __call__(self) -> None:
        self._book.exchange.is_gone = True
        if self._task is not None:
            self._task.cancel()
