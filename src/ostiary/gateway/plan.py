"""Where a call may go: every target that its caller is allowed, priced, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ostiary.agents import policy
from ostiary.errors import Refusal
from ostiary.gateway.call import Call
from ostiary.gateway.caller import Caller, OpenKey
from ostiary.gateway.directory import Directory
from ostiary.gateway.resolve import Leg, Resolved, resolve
from ostiary.gateway.slots import slots_of
from ostiary.gateway.target import Route, Target, Tier, with_due
from ostiary.gateway.tiers import joined, tiers_of

_MOST_ATTEMPTS = 3
_MOST_FIXED = 64
"""Targets that a call looks at where all are well, and none has limits of its own: more than it can try."""


def plan(caller: Caller, call: Call, directory: Directory) -> Route:
    """The route of a call, each of its targets allowed to this caller; never empty, else the refusal that says why.

    What one caller may use for one model changes with the directory only, so it is worked out once a minute at most:
    some prices depend on the time of the day.
    """
    ask = call.ask
    asked = (ask.model, " ".join((call.operation, *ask.audio_rates)) if ask.audio_rates else call.operation)
    known: Route | None = directory.recall(caller, asked)
    if known is None:
        known = _work_out(caller, call, asked[1], directory)
        directory.remember(caller, asked, known)
    return known


def _work_out(caller: Caller, call: Call, use: str, directory: Directory) -> Route:
    model = call.ask.model
    resolved = resolve(model, caller.organization_id, call.operation, directory)
    legs = _allowed(caller, resolved, model, directory)
    is_shared = resolved.endpoint is not None
    served = {leg: _served(caller, leg, call, use, directory, is_shared=is_shared) for leg in legs}
    if not any(one.has_keys for one in served.values()):
        provider = legs[0].provider_id
        raise Refusal(
            "no_provider_key",
            f"There is no key for {provider} in the vault. Add one with 'ostiary vault add {provider}'.",
            provider=provider,
        )
    found = {leg: one for leg, one in served.items() if one.tiers}
    if not found:
        raise Refusal("model_not_priced", param="model")
    return _route(resolved, found)


@dataclass(frozen=True, slots=True)
class _Served:
    """One leg for one caller: whether there are keys for it, and what may be called by them."""

    has_keys: bool
    own: list[Tier]
    """By the organization's own keys, which come first everywhere."""
    operators: list[Tier]
    """By those of the pool that who runs the instance has added."""
    shared: list[Tier]
    """By those that other organizations share."""

    @property
    def tiers(self) -> list[Tier]:
        """All of them, in order."""
        return [*self.own, *self.operators, *self.shared]


def _served(caller: Caller, leg: Leg, call: Call, use: str, directory: Directory, *, is_shared: bool) -> _Served:
    """Endpoints that lead to the same model share what is known of its keys.

    Two hundred endpoints with targets of their own would push each other's out of the processor's cache.
    """
    place = (leg.provider_id, leg.model, leg.key_id), use
    known: _Served | None = directory.recall(caller, place) if is_shared else None
    if known is None:
        keys = _keys_of(caller, leg, directory)
        targets = _targets(keys, leg.model, call, directory)
        if not caller.allow_unpriced:
            is_capped = bool(caller.allowance.budgets)
            targets = [one for one in targets if one.price is not None or not (is_capped or _is_capped(one.key))]
        home = caller.organization_id
        own = tiers_of(one for one in targets if one.key.organization_id == home)
        pool = [one for one in targets if one.key.organization_id != home]
        operators, shared = (tiers_of(one for one in pool if one.key.is_operators is is_so) for is_so in (True, False))
        known = _Served(bool(keys), own, operators, shared)
        if is_shared:
            directory.remember(caller, place, known)
    return known


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


def _targets(keys: list[OpenKey], bare: str, call: Call, directory: Directory) -> list[Target]:
    """One model at one provider, by each of these keys: what is known of the model is the same for all."""
    if not keys:
        return []
    provider = keys[0].provider
    model = directory.catalog.models.get(f"{provider.id}/{bare}")
    price = directory.prices.find(provider, bare)
    if price is not None and not price.covers(call.operation, call.ask.audio_rates):
        price = None  # it is paid by what this call does not use, or not for sound: its tokens would look free or cheap
    context, most = (model.context, model.max_output) if model else (None, None)
    return [Target(key, bare, price, context, most) for key in keys]


# ---- in which order ---------------------------------------------------------------------------------------------


def _route(resolved: Resolved, served: dict[Leg, _Served]) -> Route:
    endpoint = resolved.endpoint
    if endpoint is None:
        each = served.values()
        kinds = ([one.own for one in each], [one.operators for one in each], [one.shared for one in each])
        variants = [[tier for kind in kinds for tiers in kind for tier in tiers]]
        shares: Sequence[int] = ()
    else:
        tiers = {leg: one.tiers for leg, one in served.items()}
        first = [leg for leg in served if not leg.is_fallback] or list(served)
        last = [tier for leg in served if leg not in first for tier in tiers[leg]]
        starts = first if endpoint.strategy == "split" and len(first) > 1 else first[:1]
        variants = [
            [*tiers[start], *(tier for leg in first if leg is not start for tier in tiers[leg]), *last]
            for start in starts
        ]
        weights = tuple((f"{place} {leg.provider_id}/{leg.model}", leg.weight) for place, leg in enumerate(starts))
        shares = slots_of(weights) if len(starts) > 1 else ()
    attempts = _MOST_ATTEMPTS if endpoint is None else endpoint.retries + 1
    orders = tuple(joined(tiers) for tiers in variants)
    every = [target for tier in orders[0] for target in tier.targets]
    is_fixed = not shares and not any(tier.turns for tier in orders[0])
    most = None if any(one.key.allowance is not None for one in every) else _MOST_FIXED
    return Route(
        variants=orders,
        slots=shares,
        fixed=with_due(every[:most], every, attempts) if is_fixed else None,
        every=tuple(every),
        attempts=attempts,
        endpoint=endpoint,
    )
