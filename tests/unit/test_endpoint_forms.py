"""What is typed into the form of an endpoint, and what that wishes for."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

import pytest

from ostiary.dashboard import forms
from ostiary.dashboard.endpoint_forms import Typed, TypedTarget, differences, typed, typed_of
from ostiary.errors import Refusal
from ostiary.vault.endpoint_store import Endpoint, EndpointTarget

ONE = Endpoint(
    id="endp_1",
    organization_id="org_1",
    name="chat",
    strategy="split",
    retries=0,
    timeout_ms=2_050,
    targets=(
        EndpointTarget("openai", "gpt-5", "pkey_1", 3),
        EndpointTarget("groq", "llama", None, 1, is_fallback=True),
    ),
    created_at=1,
    updated_at=7,
)
ROWS = [("provider", "openai"), ("model", "gpt-5"), ("key", ""), ("weight", "2"), ("role", "fallback")]


def test_a_record_comes_back_as_it_was() -> None:
    shown = typed_of(ONE)
    assert shown.timeout_s == "2.05"
    assert shown.seen_at == "7"
    wish = shown.wish()
    assert (wish.name, wish.targets, wish.strategy) == ("chat", [*ONE.targets], "split")
    assert (wish.retries, wish.timeout_ms) == (0, 2_050)
    assert differences(ONE, shown) == []


@pytest.mark.parametrize(
    ("text", "ms"), [("", None), ("30", 30_000), ("0.5", 500), ("0.001", 1), ("600", 600_000), ("0", 0)]
)
def test_time_outs_are_typed_in_seconds(text: str, ms: int | None) -> None:
    assert replace(typed_of(ONE), timeout_s=text).wish().timeout_ms == ms


@pytest.mark.parametrize("text", ["-1", "1e9", "1e999999999", "NaN", "inf", "0.0001", "1,5", "٣", ".5", "9" * 10])
def test_what_is_no_time_is_refused_at_once(text: str) -> None:
    with pytest.raises(Refusal) as raised:
        replace(typed_of(ONE), timeout_s=text).wish()
    assert raised.value.param == "timeout_ms"


@pytest.mark.parametrize(
    ("meant", "param"),
    [
        (Typed(name="x", targets=(TypedTarget("openai", "a"), TypedTarget("", "b"))), "targets.1.provider"),
        (Typed(name="x", targets=(TypedTarget("openai", ""),)), "targets.0.model"),
        (Typed(name="x", targets=(TypedTarget("openai", "a", weight="²"),)), "targets.0.weight"),
        (Typed(name="x", targets=(TypedTarget("openai", "a"),), retries="-1"), "retries"),
        (Typed(name="x", targets=(TypedTarget("openai", "a"),), retries="1" * 5_000), "retries"),
    ],
)
def test_a_refusal_names_the_field(meant: Typed, param: str) -> None:
    with pytest.raises(Refusal) as raised:
        meant.wish()
    assert raised.value.param == param


def test_rows_are_read_in_their_order_and_only_whole() -> None:
    pairs = [("name", "x"), *ROWS, ("provider", "groq"), ("model", ""), ("key", "k"), ("weight", ""), ("role", "")]
    found = typed(forms.read(urlencode(pairs).encode()))
    assert found.targets == (
        TypedTarget("openai", "gpt-5", "", "2", "fallback"),
        TypedTarget("groq", "", "k", "", ""),
    )
    with pytest.raises(Refusal) as raised:
        typed(forms.read(urlencode([*ROWS, ("model", "one too many")]).encode()))
    assert raised.value.code == "invalid_request"


def test_both_values_are_told_of_what_differs() -> None:
    meant = replace(typed_of(ONE), name="talk", timeout_s="", targets=(TypedTarget("openai", "gpt-5"),))
    assert differences(ONE, meant) == [
        ("Name", "chat", "talk"),
        ("Time-out", "2.05", "–"),
        ("Targets", "openai/gpt-5 by pkey_1 × 3, groq/llama (fallback)", "openai/gpt-5"),
    ]
