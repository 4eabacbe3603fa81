"""Whatever is left for later: a call is tried in the order that a look at everything finds, and its hold pays."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ostiary.errors import Refusal
from ostiary.gateway.bid import bid_for, bid_on, reach_of
from ostiary.gateway.call import Call
from ostiary.gateway.caller import OpenKey
from ostiary.gateway.choose import Order, choose
from ostiary.gateway.conversation import slot_of
from ostiary.gateway.health import Health
from ostiary.gateway.slots import slots_of
from ostiary.gateway.target import Route, Target, Tier, with_due
from ostiary.gateway.tiers import joined, tiers_of
from ostiary.limits.local import Allowance, Holder
from ostiary.providers import catalog
from ostiary.providers.openai import OpenAI
from ostiary.providers.prices import Price, Rates
from ostiary.providers.tokens import Tokens
from ostiary.providers.transport import Answer, Headers
from ostiary.providers.verdict import judge
from tests.fakes import SetClock

ROW = catalog.load().get("openai-compatible")
USD = 10**9
ENOUGH, MOST = 16, 12
LIMITS = Allowance("p", (Holder("provider_key", "p", rpm=1),))
"""Of a key that may have no room for a call: another one must be there for it."""


@st.composite
def prices(draw: st.DrawFn) -> Price | None:
    if draw(st.integers(0, 5)) == 0:
        return None
    starts = [-1, *draw(st.lists(st.sampled_from([0, 40, 400, 4_000]), max_size=2, unique=True))]
    names = ["input", "output", "cache_write", "reasoning", "request", "image"]
    rates = st.dictionaries(st.sampled_from(names), st.integers(0, 100 * USD))
    return Price([Rates.of(draw(rates), start) for start in starts], "v")


@st.composite
def legs(draw: st.DrawFn, place: int) -> list[Target]:
    """One model at one provider, by some keys."""
    row = replace(
        ROW,
        id=f"p{place}",
        tokens_per_byte=draw(st.sampled_from([100, 150])),
        message_overhead=draw(st.sampled_from([8, 20])),
    )
    price, most = draw(prices()), draw(st.sampled_from([None, 500, 90_000]))
    return [
        Target(
            OpenKey(
                f"{row.id}-{n}",
                f"{row.id}-{n}",
                "ours",
                row,
                f"https://{row.id}",
                (),
                (),
                shared=False,
                is_filled=draw(st.booleans()),
                priority=draw(st.integers(0, 1)),
                allowance=draw(st.sampled_from([None, None, LIMITS])),
            ),
            "m",
            price,
            max_output=most,
        )
        for n in range(draw(st.integers(1, 9)))
    ]


@st.composite
def routes(draw: st.DrawFn) -> Route:
    tiers = [tiers_of(draw(legs(place))) for place in range(draw(st.integers(1, 7)))]
    starts = range(draw(st.integers(1, len(tiers))))
    variants = tuple(
        joined([*tiers[start], *(tier for n, some in enumerate(tiers) if n != start for tier in some)])
        for start in starts
    )
    shares = slots_of(tuple((str(start), 1) for start in starts)) if len(starts) > 1 else ()
    every = tuple(target for tier in variants[0] for target in tier.targets)
    is_fixed = not shares and not any(tier.turns for tier in variants[0])
    attempts = draw(st.integers(1, 8))
    fixed = with_due(every[:64], every, attempts) if is_fixed else None
    return Route(variants, shares, fixed, every, attempts)


def asked(talk: int, output: int | None = None) -> Call:
    body: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": "x" * talk * 30}],
        "prompt_cache_key": f"{talk}",
    }
    if output is not None:
        body["max_tokens"] = output
    return Call("chat", OpenAI().read_ask("chat", json.dumps(body).encode()), None)


faults = st.lists(st.tuples(st.integers(0, 62), st.sampled_from([503, 429, 402, 403, 401, 200])), max_size=14)


def fail(health: Health, route: Route, some: list[tuple[int, int]], at: int) -> None:
    """What becomes known of keys; 200 is an answer that says that little is left, for a while."""
    for place, status in some:
        if status == 200:
            answered(health, route.every[place % len(route.every)], 9, 100, place + 1, at)
            continue
        headers = Headers({b"retry-after": b"%d" % (place + 1)} if status == 429 else {})
        health.failed(route.every[place % len(route.every)], judge(status, None, {}), headers, {})


def answered(health: Health, target: Target, remaining: int, most: int, seconds: int, at: int) -> None:
    said = {"remaining": remaining, "limit": most, "reset": seconds}
    fields = {f"x-ratelimit-{name}-requests".encode(): b"%d" % value for name, value in said.items()}
    health.look(target, cast("Answer", SimpleNamespace(fields=fields, headers=Headers(fields))))
    health.remaining.take_in(at)


def all_of(route: Route, call: Call, health: Health, at: int) -> tuple[Target, ...]:
    """The plain rule: of each tier as many as can be tried, those that are well first; none of a place is too few.

    Whose room is limited is looked at, and counts for nobody.
    """
    slot = slot_of(call, health.turns)
    tiers: tuple[Tier, ...] = route.variants[route.slots[slot] if route.slots else 0]
    if not health.is_anything_known:
        if route.fixed is not None:
            return route.fixed
        found: list[Target] = []
        sure = 0
        for tier in tiers:
            if sure < ENOUGH:
                limited = [one for one in tier.targets if one.key.allowance is not None]
                some = tier.in_turn(slot)[: None if limited else route.attempts]
                found += some
                sure += len(some) - len(limited)
            add_due(found, tier.in_turn(slot), route.attempts)
        return tuple(found)
    found, clear = [], 0
    for tier in tiers:
        held = taken = of_it = 0
        usable = [one for one in tier.in_turn(slot) if not health.troubles.is_skipped(one, at)]
        for target in usable if clear < ENOUGH else ():
            if taken < MOST and of_it < route.attempts:
                found.append(target)
                held += 1
                if target.key.allowance is not None:
                    continue
                taken += 1
                of_it += health.is_clear(target, at) and not (tier.turns and health.remaining.is_low(target, at))
        if tier.turns and held:
            found[-held:] = sorted(found[-held:], key=lambda one: health.remaining.is_low(one, at))
        clear += of_it
        add_due(found, usable, route.attempts)
    return tuple(health.usable(tuple(found) or tuple(one for tier in tiers for one in tier.targets), at, "ours"))


def add_due(found: list[Target], among: Iterable[Target], attempts: int) -> None:
    """A model at a provider that none is of comes in, as long as an attempt could be due to it."""
    for one in among:
        places = {(each.provider.id, each.model) for each in found}
        if len(places) < attempts and (one.provider.id, one.model) not in places:
            found.append(one)


def chosen(route: Route, call: Call, health: Health, at: int) -> Order | None:
    try:
        return choose(route, call, health, at, "ours", route.every)
    except Refusal as refusal:
        if refusal.code != "no_usable_key":
            raise
        return None


@settings(max_examples=60)
@given(routes(), st.lists(st.tuples(faults, st.sampled_from([0, 0.4, 3, 40])), min_size=1, max_size=4))
def test_the_order_and_the_bid_are_those_of_a_look_at_everything(
    route: Route, history: list[tuple[list[tuple[int, int]], float]]
) -> None:
    clock = SetClock()
    health = Health(clock)
    health.know({target.key.id: target.key for target in route.every})
    begun: list[tuple[Call, Order]] = []
    for faulty, seconds in [([], 0.0), *history]:
        clock.move(seconds)
        at = clock.now()
        fail(health, route, faulty, at)
        for before, held in begun:
            for late in held.others(at):
                assert bid_for(before, (late,)).nano_for(50) <= bid_on(before, held.reach).nano_for(50)
                assert bid_for(before, (late,)).output_tokens <= bid_on(before, held.reach).output_tokens
        for talk in range(8):
            call = asked(talk, None if talk % 2 else 50)
            order = chosen(route, call, health, at)
            if order is None:
                assert all(health.troubles.is_skipped(target, at) for target in route.every)
                continue
            expected = all_of(route, call, health, at)
            assert order.whole(at) == expected
            assert bid_on(call, order.reach) == bid_for(call, expected)
            begun.append((call, order))
            if health.is_anything_known:
                health.trying(order.first)
            health.ended(order.first, "ok", at)


@given(st.lists(prices(), min_size=1, max_size=9), st.integers(0, 9), st.sampled_from([None, 70]), st.data())
def test_the_few_that_decide_bid_as_all_do(
    some: list[Price | None], talk: int, output: int | None, data: st.DataObject
) -> None:
    targets = [msgspec.structs.replace(data.draw(legs(place))[0], price=price) for place, price in enumerate(some)]
    plain = asked(talk, output)
    pictured = Call("chat", msgspec.structs.replace(plain.ask, units=Tokens(images=talk)), None)
    for call in (plain, pictured):
        assert bid_on(call, reach_of(targets)) == bid_for(call, targets)


@given(st.integers(2, 9), st.lists(st.integers(0, 8), max_size=9), st.booleans())
def test_of_keys_that_take_turns_those_that_are_nearly_dry_come_last(
    count: int,
    low: list[int],
    is_filled: bool,  # noqa: FBT001 - Hypothesis gives it
) -> None:
    """And of keys that are filled none does, and no other provider comes before the one that was asked for."""
    clock = SetClock()
    first, second = (
        [
            Target(
                OpenKey(f"{name}{n}", f"{n}", "ours", row, f"https://{name}", (), (), shared=False, is_filled=fills),
                "m",
                None,
            )
            for n in range(count)
        ]
        for name, row, fills in (("a", replace(ROW, id="a"), is_filled), ("b", replace(ROW, id="b"), False))
    )
    tiers = joined([*tiers_of(first), *tiers_of(second)])
    every = tuple(target for tier in tiers for target in tier.targets)
    route = Route((tiers,), (), None, every, count * 2)
    health = Health(clock)
    health.know({target.key.id: target.key for target in every})
    plain = [one.key.id for one in all_of(route, asked(3), health, clock.now())]
    for number in low:
        answered(health, first[number % count], 9, 100, 60, clock.now())
        answered(health, second[number % count], 50, 100, 60, clock.now())
    dry = {f"a{number % count}" for number in low} if not is_filled else set()
    order = chosen(route, asked(3), health, clock.now())
    assert order is not None
    found = [one.key.id for one in order.whole(clock.now())]
    assert found == sorted(plain, key=lambda id: (id[0], id in dry))
    clock.move(60)
    order = chosen(route, asked(3), health, clock.now())
    assert order is not None
    assert [one.key.id for one in order.whole(clock.now())] == plain, "it is full again"
    health.remaining.take_in(clock.now())
    assert not health.is_anything_known
