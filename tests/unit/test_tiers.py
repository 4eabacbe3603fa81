"""In which order provider keys take turns: by priority, filled before turning, and as conversations have it."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from typing import Any

import pytest

from ostiary.gateway.call import Call
from ostiary.gateway.caller import OpenKey
from ostiary.gateway.conversation import slot_of
from ostiary.gateway.slots import SLOTS, slots_of
from ostiary.gateway.target import Target
from ostiary.gateway.tiers import joined, tiers_of
from ostiary.providers import catalog
from ostiary.providers.openai import OpenAI

ROW = catalog.load().get("openai-compatible")


def target(id: str, **more: Any) -> Target:
    return Target(OpenKey(id, id, "ours", ROW, "https://x", (), (), shared=False, **more), "m", None)


def names(targets: tuple[Target, ...]) -> str:
    return "".join(one.key.id for one in targets)


def test_priority_first_then_what_is_filled_then_what_turns() -> None:
    tiers = tiers_of(
        [
            target("a"),
            target("b", is_filled=True),
            target("c", priority=5),
            target("d"),
            target("e", is_filled=True),
            target("f", priority=-1),
        ]
    )
    assert [(names(tier.targets), tier.turns) for tier in tiers] == [
        ("c", False),
        ("be", False),
        ("ad", True),
        ("f", False),
    ]
    assert [names(tier.targets) for tier in joined(tiers)] == ["cbe", "ad", "f"]


def test_a_turn_begins_anywhere_and_goes_round() -> None:
    (tier,) = tiers_of([target(name) for name in "abc"])
    orders = {names(tier.in_turn(slot)) for slot in range(SLOTS)}
    assert orders == {"abc", "bca", "cab"}
    for slot in range(SLOTS):
        for most in range(1, 6):
            assert tier.in_turn(slot, most) == tier.in_turn(slot)[:most]
    assert [names(one.in_turn(7, 2)) for one in tiers_of([target("a"), target("b", priority=-1)])] == ["a", "b"]


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (1, 1, 1, 1), (5, 3, 1, 1), (1,) * 20])
def test_slots_are_shared_by_weight(weights: tuple[int, ...]) -> None:
    drawn = Counter[int]()
    for salt in range(160):
        drawn.update(slots_of(tuple((f"{salt} {place}", weight) for place, weight in enumerate(weights))))
    for place, weight in enumerate(weights):
        assert drawn[place] / drawn.total() == pytest.approx(weight / sum(weights), rel=0.12)


def test_who_comes_or_goes_moves_only_its_own() -> None:
    before = slots_of(tuple((name, 1) for name in "abcd"))
    without = slots_of(tuple((name, 1) for name in "abc"))
    assert all(new == old for old, new in zip(before, without, strict=True) if old != 3)
    heavier = slots_of((("a", 1), ("b", 1), ("c", 1), ("d", 2)))
    assert all(new in (old, 3) for old, new in zip(before, heavier, strict=True))


def call(*said: str, operation: str = "chat", **more: Any) -> Call:
    messages = [
        {"role": ("system", "user", "assistant")[place % 3], "content": text} for place, text in enumerate(said)
    ]
    asked = {"input": list(said)} if operation == "embeddings" else {"messages": messages}
    body = json.dumps({"model": "m", **asked, **more}).encode()
    return Call(operation, OpenAI().read_ask(operation, body), None)


def test_a_conversation_stays_where_it_is_cached() -> None:
    first = slot_of(call("be kind", "hello"), count())
    assert slot_of(call("be kind", "hello", "hi", "and now?"), count(5)) == first
    assert slot_of(call("be kind", "hello", "hi", "and now?", "well"), count(9)) == first
    others = {slot_of(call("be kind", f"hello {number}"), count()) for number in range(200)}
    assert len(others) > 100, "other conversations go elsewhere, though they begin alike"


def going_on(operation: str, **asked: Any) -> Call:
    return Call(operation, OpenAI().read_ask(operation, json.dumps({"model": "m", **asked}).encode()), None)


def test_a_conversation_by_responses_stays_where_it_is_cached() -> None:
    user, again = {"role": "user", "content": "hello"}, {"role": "user", "content": "and now?"}
    items = [
        {"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": "hi"}], "role": "assistant"},
        {"type": "function_call_output", "call_id": "c", "output": "7"},
    ]
    first = slot_of(going_on("responses", instructions="be kind", input=[user]), count())
    assert slot_of(going_on("responses", instructions="be kind", input=[user, *items, again]), count(5)) == first
    others = {
        slot_of(going_on("responses", instructions=told, input=said), count())
        for told in ("be kind", "be brief")
        for said in (*(f"hello {number}" for number in range(50)), [again], [items[1], user])
    }
    assert len(others) > 50, "others go elsewhere, though they are told alike"


def test_a_text_that_grows_stays_where_its_beginning_is_cached() -> None:
    story = "Once upon a time " * 400
    slots = {slot_of(going_on("completions", prompt=story + more), count()) for more in ("", "there", "there was")}
    assert len(slots) == 1
    assert len({slot_of(going_on("completions", prompt=f"{number}{story}"), count()) for number in range(100)}) > 50


def test_a_key_for_the_cache_says_which_conversation_it_is() -> None:
    slots = {slot_of(call("be kind", text, prompt_cache_key="mine"), count()) for text in ("a", "b", "c")}
    assert len(slots) == 1
    assert slot_of(call("x", prompt_cache_key="other"), count()) not in slots


def test_what_is_no_conversation_takes_turns() -> None:
    turns = count()
    asked = call("text", operation="embeddings")
    assert {slot_of(asked, turns) for _ in range(SLOTS)} == set(range(SLOTS))
