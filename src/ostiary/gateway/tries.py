"""The attempts of one call, in the order of its targets, until one is relayed."""

from __future__ import annotations

import msgspec

from ostiary.errors import Refusal
from ostiary.gateway.ahead import Ahead
from ostiary.gateway.attempt import Failure, attempt, refusal_of
from ostiary.gateway.call import Call
from ostiary.gateway.caller import Caller
from ostiary.gateway.choose import Order
from ostiary.gateway.exchange import Headers
from ostiary.gateway.hurry import was_hurried
from ostiary.gateway.key_limits import hold_key
from ostiary.gateway.outcome import CANCELLED, Outcome
from ostiary.gateway.pace import pace_lines
from ostiary.gateway.relay import relay, relay_stream
from ostiary.gateway.settle import Book
from ostiary.gateway.target import Route, Target
from ostiary.ledger.events import UsageSource
from ostiary.limits.reserve import Hold


class Admitted(msgspec.Struct, eq=False):
    """A call that may be made: in which order, and one hold that pays for any of its targets."""

    caller: Caller
    call: Call
    order: Order
    hold: Hold
    key_hold: Hold | None
    """What the first attempt takes of its provider key's own limits."""
    route: Route
    judged_at: float
    held_at: float


async def try_in_order(book: Book, admitted: Admitted) -> None:
    """Attempts, until one is relayed, one must not be repeated, or none is left."""
    failures: list[tuple[Target, Failure]] = []
    clock, route, ahead = book.gate.clock, admitted.route, None
    target: Target | None = admitted.order.first
    while target is not None:
        if book.is_billed and not await book.gate.reserve.extend(book.hold):
            break  # the attempt before may be charged for, and nothing is left for another
        began_at = clock.now()
        failure = await _try(book, target, failures, route.timeout_s)
        if failure is None:
            book.gate.directory.health.ended(target, book.ended, began_at)
            return
        is_of_provider, may_be_repeated = _failed(book, target, failure, failures, route.timeout_s)
        if ahead is None:  # not before it is known what the failure says of other keys
            ends_at = admitted.held_at + book.gate.patience.provider.total_s
            ahead = Ahead(route, admitted.order.others(clock.now()), clock, ends_at)
        ahead.note(target, failure, is_of_provider=is_of_provider, may_be_repeated=may_be_repeated)
        failures.append((target, failure))
        target = await _next(book, ahead)
    await book.close(Outcome("error", billed=False))
    _tell(book)
    raise refusal_of(book.call, failures)


def _failed(
    book: Book, target: Target, failure: Failure, before: list[tuple[Target, Failure]], timeout_s: float | None
) -> tuple[bool, bool]:
    """Settle an attempt that failed; whether it is the provider's fault, and whether it may be asked the same again.

    What a call finds with one key again and again it has found once: others say whether it goes on.
    """
    verdict, tokens = failure.verdict, failure.tokens
    is_hurried = was_hurried(failure.how, timeout_s, book.gate.patience.provider)
    is_known = any(one is target and told.verdict.cause == verdict.cause for one, told in before)
    health = book.gate.directory.health
    is_of_provider = not is_hurried and not is_known and health.failed(target, verdict, failure.headers, failure.body)
    source: UsageSource = "provider" if tokens is not None else "none"
    billed = verdict.billed or tokens is not None
    book.end_attempt(Outcome("error", failure.http_status, verdict.code, tokens, source, billed=billed))
    # What was sent and is not known to have failed may be at work there still.
    return is_of_provider, verdict.next != "stop" or is_hurried or book.call.ask.stream


async def _next(book: Book, ahead: Ahead) -> Target | None:
    """The next to try: one that is not known to be of no use by now, and whose key has room."""
    gate = book.gate
    while (found := ahead.take()) is not None:
        target, wait_s = found
        if wait_s:
            await gate.clock.sleep(wait_s)
            if not _is_usable_still(book, target):
                continue
        if gate.directory.health.may_follow(target) and await _has_room(book, target, is_last=ahead.is_empty):
            return target
    return None


def _is_usable_still(book: Book, target: Target) -> bool:
    """Whether the key is still there for this caller: it may have been taken away during the pause."""
    keys = book.gate.directory.keys_for(book.caller.organization_id, target.provider.id)
    return any(key.id == target.key.id for key in keys)


async def _has_room(book: Book, target: Target, *, is_last: bool) -> bool:
    """Whether the provider key's own limits let it be tried; what it takes of them is held."""
    try:
        book.key_hold = await hold_key(book.gate.reserve, book.call, target, book.hold, is_last=is_last)
    except Refusal:
        return False
    return True


async def _try(
    book: Book, target: Target, failures: list[tuple[Target, Failure]], timeout_s: float | None
) -> Failure | None:
    health = book.gate.directory.health
    if health.is_anything_known:
        health.trying(target)
    await book.open(target)
    book.seen = CANCELLED
    answer = await attempt(book.gate, book.call, target, _most_output(book), timeout_s)
    if isinstance(answer, Failure):
        return answer
    book.answered()
    health.look(target, answer)
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
    output = size.output_tokens
    is_bound = size.shrunk or bool(book.hold.purses) or book.hold.call_cap_nano is not None
    if book.key_hold is not None and book.key_hold.purses:
        output, is_bound = min(output, book.key_hold.size.output_tokens), True
    return max(output // ask.choices, 1) if output and is_bound else None


def _headers(book: Book, target: Target, failures: list[tuple[Target, Failure]]) -> Headers:
    headers = [
        (b"x-ostiary-provider", target.provider.id.encode()),
        (b"x-ostiary-model", target.model.encode("ascii", "replace")),
    ]
    if failures and failures[0][0] is not target:
        headers.append((b"x-ostiary-fallback-from", failures[0][0].provider.id.encode()))
    if book.hold.size.shrunk:
        headers.append((b"x-ostiary-max-tokens-capped", b"%d" % (_most_output(book) or 0)))
    if book.caller.warnings:
        headers += book.gate.directory.soft.warnings(book.caller)
    _tell(book)
    return headers


def _tell(book: Book) -> None:
    """What every answer of a call that was let in says, also one that failed."""
    pace = pace_lines(book.hold, book.gate.clock)
    book.exchange.told = b"x-ostiary-attempts: %d\r\n%b" % (book.attempt, pace)
