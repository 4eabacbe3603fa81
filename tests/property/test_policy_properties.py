"""Policies under any input: one more restriction never admits more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.agents.lineage import require_narrower
from ostiary.agents.policy import SCOPES, Choice, Network, Policy, judge_caller, judge_model, judge_target
from ostiary.agents.records import AgentKey
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget

NAMES = ["a", "b", "p/a", "p/b", "p", "q"]
NETWORKS: list[Network] = [ip_network(text) for text in ("192.0.2.0/24", "192.0.2.0/25", "::/0", "2001:db8::/32")]
ADDRESSES = ["192.0.2.1", "192.0.2.200", "::ffff:192.0.2.1", "2001:db8::1", "2001:db9::1", "", None]

names = st.frozensets(st.sampled_from(NAMES))
choices = st.builds(Choice, st.sampled_from(["all", "only", "none"]), names)
networks = st.none() | st.lists(st.sampled_from(NETWORKS)).map(tuple)
times = st.integers(0, 10)
single = st.builds(
    Policy,
    status=st.sampled_from(["active", "inactive", "revoked"]),
    expires_at=st.none() | times,
    scopes=st.frozensets(st.sampled_from(sorted(SCOPES))),
    models=choices,
    providers=choices,
    free_only=st.booleans(),
    networks=networks,
)
policies = st.builds(lambda policy, parent: replace(policy, within=parent), single, st.none() | single)
"""Of keys by themselves, and of children with their parent's."""


@dataclass(frozen=True)
class Asked:
    now: int
    scope: str
    address: str | None
    model: frozenset[str]
    provider: str
    free: bool


calls = st.builds(
    Asked,
    now=times,
    scope=st.sampled_from(sorted(SCOPES)),
    address=st.sampled_from(ADDRESSES),
    model=names,
    provider=st.sampled_from(NAMES),
    free=st.booleans(),
)


def admits(policy: Policy, call: Asked) -> bool:
    refusals = (
        judge_caller(policy, now=call.now, scope=call.scope, address=call.address),
        judge_model(policy, call.model),
        judge_target(policy, call.provider, free=call.free),
    )
    return not any(refusals)


def narrowed(draw: st.DrawFn, choice: Choice) -> Choice:
    if choice.mode == "all":
        return draw(choices)
    return replace(choice, items=choice.items & draw(names)) if draw(st.booleans()) else Choice("none")


@st.composite
def restrictions(draw: st.DrawFn, policy: Policy) -> Policy:
    """The policy with one thing, or everything, taken further."""
    expiries = times if policy.expires_at is None else st.integers(0, policy.expires_at)
    steps: list[dict[str, Any]] = [
        {"status": draw(st.sampled_from(["inactive", "revoked"]))},
        {"expires_at": draw(expiries)},
        {"scopes": policy.scopes & draw(st.frozensets(st.sampled_from(sorted(SCOPES))))},
        {"models": narrowed(draw, policy.models)},
        {"providers": narrowed(draw, policy.providers)},
        {"free_only": True},
        {"networks": draw(networks) if policy.networks is None else policy.networks[:-1]},
        {"within": draw(single) if policy.within is None else draw(restrictions(policy.within))},
    ]
    taken = draw(st.lists(st.sampled_from(steps), min_size=1))
    return replace(policy, **{name: value for step in taken for name, value in step.items()})


@given(st.data(), policies, calls)
def test_a_restriction_never_admits_more(data: st.DataObject, policy: Policy, call: Asked) -> None:
    if admits(data.draw(restrictions(policy)), call):
        assert admits(policy, call)


@given(policies, calls, times)
def test_time_never_admits_more(policy: Policy, call: Asked, later: int) -> None:
    if admits(policy, replace(call, now=call.now + later)):
        assert admits(policy, call)


@given(policies, calls)
def test_the_same_question_has_the_same_answer_under_another_name_for_the_address(policy: Policy, call: Asked) -> None:
    mapped = replace(call, address="::ffff:192.0.2.1")
    assert admits(policy, mapped) == admits(policy, replace(call, address="192.0.2.1"))


@given(policies, single, calls)
def test_a_child_never_does_what_its_parent_may_not(child: Policy, parent: Policy, call: Asked) -> None:
    """Whatever the two are, and whatever happens to the parent later."""
    if admits(replace(child, within=parent), call):
        assert admits(parent, call)
        assert admits(replace(child, within=None), call)


@given(policies, calls)
def test_what_is_said_of_a_policy_in_short_is_what_it_judges(policy: Policy, call: Asked) -> None:
    if admits(policy, call):
        assert call.scope in policy.powers
        assert call.free or not policy.is_free_only
    if not policy.limits_models:
        assert judge_model(policy, call.model) is None
        assert not any(one.free_only for one in policy.line)


@given(policies, calls)
def test_a_dead_key_or_parent_tells_nothing_else(policy: Policy, call: Asked) -> None:
    refusal = judge_caller(policy, now=call.now, scope=call.scope, address=call.address)
    is_dead = any(
        one.status != "active" or (one.expires_at is not None and one.expires_at <= call.now) for one in policy.line
    )
    assert (refusal is not None and refusal.code == "invalid_api_key") == is_dead


# ---- what a child may be made with -------------------------------------------------------------------------------

TEXTS = ["192.0.2.0/24", "192.0.2.0/25", "192.0.2.128/25", "::/0", "2001:db8::/32"]
limits = st.none() | st.integers(1, 5)
stored = st.one_of(
    st.just(Choice()),
    st.just(Choice("none")),
    st.builds(Choice, st.just("only"), st.frozensets(st.sampled_from(NAMES), min_size=1)),
)
placed = st.one_of(
    st.just(Choice()),
    st.just(Choice("none")),
    st.builds(Choice, st.just("only"), st.frozensets(st.sampled_from(TEXTS), min_size=1)),
)
keys = st.fixed_dictionaries(
    {
        "expires_at": st.none() | times,
        "scopes": st.frozensets(st.sampled_from(sorted(SCOPES))),
        "rpm": limits,
        "rpd": limits,
        "tpm": limits,
        "parallel": limits,
        "models": stored,
        "providers": stored,
        "free_only": st.booleans(),
        "addresses": placed,
        "capture": st.booleans(),
        "budget": st.none() | st.builds(Budget, st.sampled_from(["month", "total"]), st.integers(1, 5)),
    }
)


def key_of(values: dict[str, Any]) -> AgentKey:
    return AgentKey(
        id="key_1", organization_id="orgn_1", owner_id=None, name="parent", status="active", metadata={}, previews=(),
        created_at=0, updated_at=0, last_used_at=None, **values,
    )  # fmt: skip


@given(keys, keys, calls)
def test_what_is_let_through_at_mint_is_no_more_than_the_parent(
    child: dict[str, Any], parent: dict[str, Any], call: Asked
) -> None:
    """By its own fields alone, before the parent is even asked at use."""
    try:
        require_narrower(child, key_of(parent))
    except Refusal:
        return
    if admits(key_of(child).policy(), call):
        assert admits(key_of(parent).policy(), call)
    for name in ("rpm", "rpd", "tpm", "parallel"):
        assert parent[name] is None or (child[name] is not None and child[name] <= parent[name])


@given(keys)
def test_a_copy_of_the_parent_is_let_through(parent: dict[str, Any]) -> None:
    require_narrower(parent, key_of(parent))


@given(st.data(), keys)
def test_each_thing_more_is_refused_by_name(data: st.DataObject, parent: dict[str, Any]) -> None:
    more: dict[str, Any] = {}
    for name in ("rpm", "rpd", "tpm", "parallel", "expires_at"):
        if parent[name] is not None:
            more[name] = data.draw(st.sampled_from([None, parent[name] + 1]))
    for name in ("models", "providers", "addresses"):
        if parent[name].mode != "all":
            more[name] = Choice()
        if parent[name].mode == "none":
            more[name] = Choice("only", frozenset({"::1/128"}))
    if parent["free_only"]:
        more["free_only"] = False
    if parent["capture"]:
        more["capture"] = False
    if parent["budget"] is not None:
        more["budget"] = Budget("total", parent["budget"].cap_nano + 1)
    for name, value in more.items():
        with pytest.raises(Refusal) as caught:
            require_narrower({**parent, name: value}, key_of(parent))
        assert (caught.value.code, caught.value.param) == ("invalid_field", name)
