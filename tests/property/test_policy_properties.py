"""Policies under any input: one more restriction never admits more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ostiary.agents.policy import SCOPES, Choice, Network, Policy, judge_caller, judge_model, judge_target

NAMES = ["a", "b", "p/a", "p/b", "p", "q"]
NETWORKS: list[Network] = [ip_network(text) for text in ("192.0.2.0/24", "192.0.2.0/25", "::/0", "2001:db8::/32")]
ADDRESSES = ["192.0.2.1", "192.0.2.200", "::ffff:192.0.2.1", "2001:db8::1", "2001:db9::1", "", None]

names = st.frozensets(st.sampled_from(NAMES))
choices = st.builds(Choice, st.sampled_from(["all", "only", "none"]), names)
networks = st.none() | st.lists(st.sampled_from(NETWORKS)).map(tuple)
times = st.integers(0, 10)
policies = st.builds(
    Policy,
    status=st.sampled_from(["active", "inactive", "revoked"]),
    expires_at=st.none() | times,
    scopes=st.frozensets(st.sampled_from(sorted(SCOPES))),
    models=choices,
    providers=choices,
    free_only=st.booleans(),
    networks=networks,
)


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
