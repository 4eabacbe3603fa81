"""Where a call may go: every target that its caller is allowed, in order, and the most that any of them could cost."""

from __future__ import annotations

from collections.abc import Iterable

from ostiary.agents import policy
from ostiary.errors import Refusal
from ostiary.gateway.call import Call
from ostiary.gateway.caller import Caller, OpenKey
from ostiary.gateway.directory import Directory
from ostiary.gateway.resolve import Leg, Resolved, resolve
from ostiary.gateway.target import Route, Target, Tier
from ostiary.gateway.tiers import joined, slots_of, tiers_of
from ostiary.limits.budgets import Bid
from ostiary.money import MAX_NANO
from ostiary.providers.catalog import Provider

_MOST_ATTEMPTS = 3
_MOST_FIXED = 64
"""Targets that a call looks at where all are well: more than it can try."""
_UNKNOWN_OUTPUT = 32_768
"""Output tokens to hold where neither the caller nor the catalogue says how long an answer may be."""
_LIKELY_OUTPUT = 1_024
"""Output tokens to count against tokens per minute until it is known how many they are, where none were asked for."""
_BYTES_PER_TOKEN = 4
_LONGEST_CONTEXT = 1_048_576
"""Tokens of input that no model known today reads more than, for those whose context is not published."""
_MEDIA_TOKENS = 20_000
"""A ceiling for one image, file or sound, whose tokens are not in the bytes of the body."""


def plan(caller: Caller, call: Call, directory: Directory) -> Route:
    """The route of a call, each of its targets allowed to this caller; never empty, else the refusal that says why.

    What one caller may use for one model changes with the directory only, so it is worked out once a minute at most:
    some prices depend on the time of the day.
    """
    ask = call.ask
    asked = (ask.model, " ".join((call.operation, *ask.audio_rates)) if ask.audio_rates else call.operation)
    known: Route | None = directory.recall(caller, asked)
    if known is None:
        known = _work_out(caller, call, directory)
        directory.remember(caller, asked, known)
    return known


def _work_out(caller: Caller, call: Call, directory: Directory) -> Route:
    model, operation = call.ask.model, call.operation
    resolved = resolve(model, caller.organization_id, operation, directory)
    legs = _allowed(caller, resolved, model, directory)
    keys = {leg: _keys_of(caller, leg, directory) for leg in legs}
    if not any(keys.values()):
        provider = legs[0].provider_id
        raise Refusal(
            "no_provider_key",
            f"There is no key for {provider} in the vault. Add one with 'ostiary vault add {provider}'.",
            provider=provider,
        )
    targets = {leg: [_target(key, leg.model, call, directory) for key in keys[leg]] for leg in legs}
    if not caller.allow_unpriced:
        is_capped = bool(caller.allowance.budgets)
        targets = {
            leg: [one for one in found if one.price is not None or not (is_capped or _is_capped(one.key))]
            for leg, found in targets.items()
        }
        if not any(targets.values()):
            raise Refusal("model_not_priced", param="model")
    return _route(caller.organization_id, resolved, {leg: found for leg, found in targets.items() if found})


def _allowed(caller: Caller, resolved: Resolved, model: str, directory: Directory) -> list[Leg]:
    """The legs that may serve this caller, by any name the model has there; else why the first one may not."""
    allowed, first_refusal = [], None
    for leg in resolved.legs:
        is_free = caller.policy.is_free_only and _is_free(leg, directory)
        names = _names(leg, model, directory)
        refusal = policy.judge_model(caller.policy, names) or policy.judge_target(
            caller.policy, leg.provider_id, free=is_free
        )
        if refusal is None:
            allowed.append(leg)
        first_refusal = first_refusal or refusal
    if not allowed and first_refusal is not None:
        raise first_refusal
    return allowed


def _names(leg: Leg, model: str, directory: Directory) -> set[str]:
    """`openai/gpt-4o` at OpenRouter is not what a list means by `openai/gpt-4o`: that is OpenAI's own."""
    of_another = directory.catalog.find(leg.model.partition("/")[0]) is not None and "/" in leg.model
    return {model, f"{leg.provider_id}/{leg.model}"} | (set() if of_another else {leg.model})


def _is_free(leg: Leg, directory: Directory) -> bool:
    model = directory.catalog.models.get(f"{leg.provider_id}/{leg.model}")
    if model is not None and model.free:
        return True
    price = directory.prices.find(directory.catalog.get(leg.provider_id), leg.model)
    return price is not None and price.is_free


def _keys_of(caller: Caller, leg: Leg, directory: Directory) -> list[OpenKey]:
    keys = directory.keys_for(caller.organization_id, leg.provider_id)
    return keys if leg.key_id is None else [key for key in keys if key.id == leg.key_id]


def _is_capped(key: OpenKey) -> bool:
    return key.allowance is not None and bool(key.allowance.budgets)


def _target(key: OpenKey, bare: str, call: Call, directory: Directory) -> Target:
    model = directory.catalog.models.get(f"{key.provider.id}/{bare}")
    price = directory.prices.find(key.provider, bare)
    if price is not None and not price.covers(call.operation, call.ask.audio_rates):
        price = None  # it is paid by what this call does not use, or not for sound: its tokens would look free or cheap
    return Target(key, bare, price, model.context if model else None, model.max_output if model else None)


# ---- in which order ---------------------------------------------------------------------------------------------


def _route(organization_id: str, resolved: Resolved, targets: dict[Leg, list[Target]]) -> Route:
    endpoint = resolved.endpoint
    if endpoint is None:
        variants: list[list[Tier]] = [_own_first(organization_id, list(targets.values()))]
        shares: tuple[int, ...] = ()
    else:
        tiers = {leg: _own_first(organization_id, [found]) for leg, found in targets.items()}
        first = [leg for leg in targets if not leg.is_fallback] or list(targets)
        last = [tier for leg in targets if leg not in first for tier in tiers[leg]]
        starts = first if endpoint.strategy == "split" and len(first) > 1 else first[:1]
        variants = [
            [*tiers[start], *(tier for leg in first if leg is not start for tier in tiers[leg]), *last]
            for start in starts
        ]
        weights = tuple((f"{place} {leg.provider_id}/{leg.model}", leg.weight) for place, leg in enumerate(starts))
        shares = slots_of(weights) if len(starts) > 1 else ()
    orders = tuple(joined(tiers) for tiers in variants)
    every = [target for tier in orders[0] for target in tier.targets]
    is_fixed = not shares and not any(tier.slots for tier in orders[0])
    return Route(
        variants=orders,
        slots=shares,
        fixed=tuple(every[:_MOST_FIXED]) if is_fixed else None,
        every=tuple(every),
        attempts=_MOST_ATTEMPTS if endpoint is None else endpoint.retries + 1,
        endpoint=endpoint,
    )


def _own_first(organization_id: str, groups: Iterable[list[Target]]) -> list[Tier]:
    """The organization's own keys everywhere, then those of the pool; each group is one model at one provider."""
    groups = list(groups)
    own = [[target for target in group if target.key.organization_id == organization_id] for group in groups]
    pool = [[target for target in group if target.key.organization_id != organization_id] for group in groups]
    return [tier for group in (*own, *pool) for tier in tiers_of(group)]


# ---- what it may cost -------------------------------------------------------------------------------------------


def bid_for(call: Call, targets: tuple[Target, ...]) -> Bid:
    """The most the call can cost at the dearest target: bytes bound the input, `max_tokens` or the model the output."""
    fixed = rate = longest = 0
    asked = call.ask.output_tokens
    last: Target | None = None
    for target in targets:
        if last is not None and target.model == last.model and target.key.provider is last.key.provider:
            continue  # by another key it costs the same
        last = target
        output = (target.max_output or _UNKNOWN_OUTPUT) * call.ask.choices if asked is None else asked
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
