"""Which providers and keys to try, in which order, and the most that any of them could cost."""

from __future__ import annotations

from dataclasses import dataclass

from ostiary.agents import policy
from ostiary.errors import Refusal
from ostiary.gateway.call import Call
from ostiary.gateway.caller import Caller, OpenKey
from ostiary.gateway.directory import Directory
from ostiary.limits.budgets import Bid
from ostiary.money import MAX_NANO
from ostiary.providers.catalog import Provider
from ostiary.providers.prices import Price

_MOST_ATTEMPTS = 3
_UNKNOWN_OUTPUT = 32_768
"""Output tokens to hold where neither the caller nor the catalogue says how long an answer may be."""
_LIKELY_OUTPUT = 1_024
"""Output tokens to count against tokens per minute until it is known how many they are, where none were asked for."""
_BYTES_PER_TOKEN = 4
_LONGEST_CONTEXT = 1_048_576
"""Tokens of input that no model known today reads more than, for those whose context is not published."""
_MEDIA_TOKENS = 20_000
"""A ceiling for one image, file or sound, whose tokens are not in the bytes of the body."""


@dataclass(frozen=True, slots=True)
class Target:
    """One attempt that could be made: a model at a provider with one provider key. No price is `unpriced`."""

    key: OpenKey
    model: str
    price: Price | None
    context: int | None = None
    """Tokens that the model reads at most, where that is published."""
    max_output: int | None = None

    @property
    def provider(self) -> Provider:
        """The provider of the key."""
        return self.key.provider


def plan(caller: Caller, call: Call, directory: Directory) -> tuple[Target, ...]:
    """The targets in order, each allowed to this caller; never empty, else the refusal that says what is missing.

    What one caller may use for one model changes with the directory only, so it is worked out once a minute at most:
    some prices depend on the time of the day.
    """
    asked = (call.ask.model, call.operation)
    known: tuple[Target, ...] | None = directory.recall(caller, asked)
    if known is None:
        known = _work_out(caller, call, directory)
        directory.remember(caller, asked, known)
    if call.max_cost_nano is not None:
        known = tuple(target for target in known if target.price is not None)
        if not known:
            raise Refusal(
                "model_not_priced", "This model has no price, so x-ostiary-max-cost-usd can't be kept.", param="model"
            )
    return known


def _work_out(caller: Caller, call: Call, directory: Directory) -> tuple[Target, ...]:
    model = call.ask.model
    provider_ids, bare = _resolve(model, directory)
    serving = [provider for provider in provider_ids if call.operation in directory.catalog.get(provider).operations]
    if not serving:
        raise Refusal("model_not_found", f"{model!r} does not serve {call.operation}.", param="model")
    allowed, first_refusal = _judge(caller, serving, model, bare, directory)
    if not allowed and first_refusal is not None:
        raise first_refusal
    keys = [key for provider in allowed for key in directory.keys_for(caller.organization_id, provider)]
    if not keys:
        raise Refusal(
            "no_provider_key",
            f"There is no key for {allowed[0]} in the vault. Add one with 'ostiary vault add {allowed[0]}'.",
            provider=allowed[0],
        )
    targets = [_target(key, bare, directory) for key in keys]
    if caller.allowance.budgets and not caller.allow_unpriced:
        targets = [target for target in targets if target.price is not None]
        if not targets:
            raise Refusal("model_not_priced", param="model")
    return tuple(targets[:_MOST_ATTEMPTS])


def _target(key: OpenKey, bare: str, directory: Directory) -> Target:
    model = directory.catalog.models.get(f"{key.provider.id}/{bare}")
    price = directory.prices.find(key.provider, bare)
    return Target(key, bare, price, model.context if model else None, model.max_output if model else None)


def bid_for(call: Call, targets: tuple[Target, ...]) -> Bid:
    """The most the call can cost at the dearest target: bytes bound the input, `max_tokens` or the model the output."""
    fixed = rate = longest = 0
    asked = call.ask.output_tokens
    for target in targets:
        output = (target.max_output or _UNKNOWN_OUTPUT) * call.ask.choices if asked is None else asked
        longest = max(longest, output)
        if target.price is not None:
            fixed = max(fixed, target.price.bound_nano(input_bound(call, target.provider, target.context), 0))
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


def _resolve(model: str, directory: Directory) -> tuple[tuple[str, ...], str]:
    """The providers that could serve a name, and the model's bare name there.

    `provider/model` goes to that provider; else a bare name goes to every provider whose catalogue has it, those with
    a usable key first.
    """
    catalog = directory.catalog
    provider, slash, bare = model.partition("/")
    if slash and bare and catalog.find(provider) is not None:
        return (provider,), bare
    serving = catalog.served_by(model)
    if serving:
        return serving, model
    near = catalog.near(model)
    hint = f" Did you mean {' or '.join(near)}?" if near else " GET /v1/models lists what there is."
    raise Refusal("model_not_found", f"There is no model {model[:200]!r}.{hint}", param="model", near=list(near))


def _judge(
    caller: Caller, provider_ids: list[str], model: str, bare: str, directory: Directory
) -> tuple[list[str], Refusal | None]:
    """Who of the providers may serve this caller, by any name the model has there; and why the first who may not."""
    allowed = []
    first_refusal = None
    # `openai/gpt-4o` at OpenRouter is not what a list means by `openai/gpt-4o`: that is OpenAI's own.
    of_another = directory.catalog.find(bare.partition("/")[0]) is not None and "/" in bare
    names = {model} if of_another else {model, bare}
    for provider_id in provider_ids:
        is_free = caller.policy.is_free_only and _is_free(provider_id, bare, directory)
        refusal = policy.judge_model(caller.policy, names | {f"{provider_id}/{bare}"}) or policy.judge_target(
            caller.policy, provider_id, free=is_free
        )
        if refusal is None:
            allowed.append(provider_id)
        first_refusal = first_refusal or refusal
    return allowed, first_refusal


def _is_free(provider_id: str, bare: str, directory: Directory) -> bool:
    model = directory.catalog.models.get(f"{provider_id}/{bare}")
    if model is not None and model.free:
        return True
    price = directory.prices.find(directory.catalog.get(provider_id), bare)
    return price is not None and price.is_free
