"""What a key may do: each restriction by itself, and which refusal comes first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ostiary.agents.policy import (
    ALL,
    Choice,
    Policy,
    choice_of,
    judge_caller,
    judge_model,
    judge_target,
    parse_networks,
)
from ostiary.errors import Refusal

NOW = 1_000_000
OPEN = Policy()


def code(refusal: Refusal | None) -> str | None:
    return refusal.code if refusal else None


def asked(policy: Policy, *, now: int = NOW, scope: str = "gate:chat", address: str | None = "192.0.2.7") -> str | None:
    return code(judge_caller(policy, now=now, scope=scope, address=address))


def test_a_key_without_restrictions_may_come_in() -> None:
    assert asked(OPEN) is None
    assert judge_model(OPEN, ["anything"]) is None
    assert judge_target(OPEN, "openai", free=False) is None


@pytest.mark.parametrize("status", ["inactive", "revoked"])
def test_a_stopped_key_looks_like_one_nobody_knows(status: str) -> None:
    refusal = judge_caller(Policy(status=status), now=NOW, scope="gate:chat", address=None)  # type: ignore[arg-type]
    assert refusal is not None
    assert refusal.body() == Refusal("invalid_api_key").body()


def test_a_key_expires_at_its_very_millisecond() -> None:
    policy = Policy(expires_at=NOW)
    assert asked(policy, now=NOW - 1) is None
    assert asked(policy, now=NOW) == "invalid_api_key"
    assert asked(policy, now=NOW + 1) == "invalid_api_key"


def test_a_dead_key_tells_nothing_else() -> None:
    """Status, then expiry, then address, then scope: whoever holds a dead key does not learn where it was good."""
    policy = Policy(status="revoked", expires_at=NOW - 1, scopes=frozenset(), networks=())
    assert asked(policy) == "invalid_api_key"
    assert asked(replace(policy, status="active")) == "invalid_api_key"
    assert asked(replace(policy, status="active", expires_at=None)) == "ip_not_allowed"
    assert asked(replace(policy, status="active", expires_at=None, networks=None)) == "insufficient_scope"


def test_a_scope_is_needed_by_its_very_name() -> None:
    policy = Policy(scopes=frozenset({"gate:models"}))
    assert asked(policy, scope="gate:models") is None
    for scope in ("gate:chat", "gate:", "gate:model", "gate:models:x", ""):
        assert asked(policy, scope=scope) == "insufficient_scope"


@pytest.mark.parametrize(
    ("networks", "address", "may"),
    [
        (["192.0.2.0/24"], "192.0.2.255", True),
        (["192.0.2.0/24"], "192.0.3.0", False),
        (["192.0.2.7"], "192.0.2.7", True),
        (["192.0.2.7"], "::ffff:192.0.2.7", True),  # the same, as a dual-stack socket says it
        (["::ffff:192.0.2.0/120"], "192.0.2.9", True),
        (["::ffff:192.0.2.7"], "192.0.2.7", True),
        (["2001:db8::/32"], "2001:db8:ffff::1", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["::/0"], "192.0.2.7", False),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["192.0.2.0/24", "2001:db8::1"], "2001:db8::1", True),
        (["192.0.2.0/24"], None, False),
        (["192.0.2.0/24"], "", False),
        (["192.0.2.0/24"], "unix:", False),
        (["192.0.2.0/24"], "192.0.2.7, 10.0.0.1", False),
        (["192.0.2.0/24"], "0300.0.2.7", False),
        ([], "192.0.2.7", False),
    ],
)
def test_the_address_is_within_or_refused(networks: list[str], address: str | None, may: bool) -> None:  # noqa: FBT001 - a column of the table
    policy = Policy(networks=parse_networks(networks))
    assert asked(policy, address=address) == (None if may else "ip_not_allowed")


@pytest.mark.parametrize(
    "text",
    ["", "x", "192.0.2", "192.0.2.256", "192.0.2.0/33", "192.0.2.7/24", "2001:db8::1/32", "010.0.0.1", "fe80::1%eth0",
     "192.0.2.0/24/24", "3221225985", "0x7f.1", " 192.0.2.7", "::1/129", "192.0.2.0/-1"],
)  # fmt: skip
def test_an_address_that_cannot_be_meant_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"IP address|write"):
        parse_networks(["192.0.2.1", text])


def test_a_range_by_one_of_its_addresses_is_corrected() -> None:
    with pytest.raises(ValueError, match=r"write 192\.0\.2\.0/24 for the range"):
        parse_networks(["192.0.2.7/24"])


def test_any_of_a_models_names_will_do() -> None:
    policy = Policy(models=Choice("only", frozenset({"openai/gpt-9", "llama"})))
    assert judge_model(policy, ("gpt-9", "openai/gpt-9")) is None
    assert judge_model(policy, ("llama",)) is None
    assert code(judge_model(policy, ("gpt-9",))) == "model_not_allowed"
    assert code(judge_model(policy, ("openrouter/gpt-9", "gpt-9"))) == "model_not_allowed"
    assert code(judge_model(policy, ())) == "model_not_allowed"


def test_none_means_none() -> None:
    assert code(judge_model(Policy(models=Choice("none")), ("gpt-9",))) == "model_not_allowed"
    assert code(judge_target(Policy(providers=Choice("none")), "openai", free=True)) == "provider_not_allowed"


def test_only_with_an_empty_list_is_not_all() -> None:
    assert code(judge_model(Policy(models=Choice("only")), ("gpt-9",))) == "model_not_allowed"


def test_the_shorthand_of_an_empty_list_is_all() -> None:
    assert choice_of([]) == ALL
    assert choice_of(["a"]) == Choice("only", frozenset({"a"}))


def test_providers_and_free_models() -> None:
    policy = Policy(providers=Choice("only", frozenset({"groq"})), free_only=True)
    assert judge_target(policy, "groq", free=True) is None
    assert code(judge_target(policy, "groq", free=False)) == "model_not_allowed"
    assert code(judge_target(policy, "openai", free=True)) == "provider_not_allowed"


def test_a_child_stands_within_its_parent() -> None:
    parent = Policy(
        expires_at=NOW + 5,
        scopes=frozenset({"gate:chat"}),
        models=Choice("only", frozenset({"a", "b"})),
        providers=Choice("only", frozenset({"groq"})),
        free_only=True,
        networks=parse_networks(["192.0.2.0/24"]),
    )
    child = Policy(models=Choice("only", frozenset({"b", "c"})), within=parent)
    assert asked(child) is None
    assert asked(child, now=NOW + 5) == "invalid_api_key"
    assert asked(child, address="198.51.100.1") == "ip_not_allowed"
    assert asked(child, scope="gate:usage") == "insufficient_scope"
    assert [code(judge_model(child, (name,))) for name in "abc"] == ["model_not_allowed", None, "model_not_allowed"]
    assert code(judge_target(child, "openai", free=True)) == "provider_not_allowed"
    assert code(judge_target(child, "groq", free=False)) == "model_not_allowed"
    assert judge_target(child, "groq", free=True) is None
    assert (child.is_free_only, child.limits_models, child.powers) == (True, True, frozenset({"gate:chat"}))
    for status in ("inactive", "revoked"):
        assert asked(replace(child, within=replace(parent, status=status))) == "invalid_api_key"


def test_the_child_of_a_dead_key_learns_nothing_either() -> None:
    """The parent is dead, and the child is used from a wrong address: it looks like a key nobody knows."""
    dead = Policy(status="revoked")
    assert asked(Policy(networks=(), scopes=frozenset(), within=dead)) == "invalid_api_key"


@pytest.mark.parametrize(
    "name",
    [" gpt-9", "gpt-9 ", "gpt-9\u00a0", "GPT-9", "gpt\u20119", "gpt-\uff19", "gрt-9", "gpt-9\u200b", "gpt-9\0", ""],
)
def test_what_only_looks_like_a_model_is_another(name: str) -> None:
    policy = Policy(models=Choice("only", frozenset({"gpt-9"})))
    assert code(judge_model(policy, (name,))) == "model_not_allowed"
    assert judge_model(policy, ("gpt-9",)) is None
