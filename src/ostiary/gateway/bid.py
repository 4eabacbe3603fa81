"""The most that a call can cost at any of the targets that its one hold pays for (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ostiary.errors import Refusal
from ostiary.gateway.call import Call
from ostiary.gateway.target import Reach, Target
from ostiary.limits.budgets import Bid
from ostiary.money import MAX_NANO
from ostiary.providers.catalog import Provider

_UNKNOWN_OUTPUT = 32_768
"""Output tokens to hold where neither the caller nor the catalogue says how long an answer may be."""
_LIKELY_OUTPUT = 1_024
"""Output tokens to count against tokens per minute until it is known how many they are, where none were asked for."""
_BYTES_PER_TOKEN = 4
_LONGEST_CONTEXT = 1_048_576
"""Tokens of input that no model known today reads more than, for those whose context is not published."""
_MEDIA_TOKENS = 20_000
"""A ceiling for one image, file or sound, whose tokens are not in the bytes of the body."""


def reach_of(targets: Iterable[Target]) -> Reach:
    """What a hold for these must pay for, as it is worth finding out where many calls have the same."""
    each = tuple({(one.provider.id, one.model): one for one in targets}.values())
    return Reach(each, _decisive(each))


def bid_on(call: Call, reach: Reach) -> Bid:
    """The most the call can cost at the dearest of what its hold must pay for."""
    is_text = call.ask.units is None and not call.ask.reaches_out
    return bid_for(call, reach.decisive if is_text else reach.each)


def _decisive(targets: Sequence[Target]) -> tuple[Target, ...]:
    """The longest answer, the dearest output, and the dearest input of those where as many bytes are as many tokens.

    Whose input has steps, or is paid by the request too, is kept: which of those is dearest depends on its size.
    """
    found = [max(targets, key=_longest)]
    priced = [(one, one.price) for one in targets if one.price is not None]
    if priced:
        found.append(max(priced, key=lambda one: one[1].output_nano_per_million)[0])
    inputs: dict[tuple[int, int], tuple[int, Target]] = {}
    for one, price in priced:
        rates = price.steps[0]
        row = (one.provider.tokens_per_byte, one.provider.message_overhead)
        if len(price.steps) > 1 or rates.above >= 0 or rates.request:
            found.append(one)
        elif row not in inputs or rates.dearest_input > inputs[row][0]:
            inputs[row] = (rates.dearest_input, one)
    return tuple({id(one): one for one in (*found, *(one for _, one in inputs.values()))}.values())


def _longest(target: Target) -> int:
    return target.max_output or _UNKNOWN_OUTPUT


def bid_for(call: Call, targets: Sequence[Target]) -> Bid:
    """The most the call can cost at the dearest target: bytes bound the input, `max_tokens` or the model the output."""
    fixed = rate = longest = 0
    asked = call.ask.output_tokens
    last: Target | None = None
    for target in targets:
        if last is not None and target.model == last.model and target.key.provider is last.key.provider:
            continue  # by another key it costs the same
        last = target
        output = _longest(target) * call.ask.choices if asked is None else asked
        longest = max(longest, output)
        if target.price is not None:
            given = input_bound(call, target.provider, target.context)
            fixed = max(fixed, target.price.bound_nano(given, 0, call.ask.units))
            rate = max(rate, target.price.output_nano_per_million)
    likely = call.ask.size // _BYTES_PER_TOKEN + (min(longest, _LIKELY_OUTPUT) if asked is None else asked)
    bid = Bid(fixed, longest, rate, may_shrink=asked is None, tokens=likely)
    if bid.nano_for(longest) > MAX_NANO:
        raise Refusal("invalid_request", "The call could cost more than can be counted. Lower `max_tokens`.")
    return bid


def input_bound(call: Call, provider: Provider, context: int | None = None) -> int:
    """Input tokens never exceed this: one a byte for byte-level tokenizers, with what templates and media add.

    What is not in the body is held for at the model's whole `context`.
    """
    ask = call.ask
    outside = (context or _LONGEST_CONTEXT) if ask.reaches_out else 0
    return outside + (
        ask.size * provider.tokens_per_byte // 100
        + ask.messages * provider.message_overhead
        + ask.media * _MEDIA_TOKENS
    )
