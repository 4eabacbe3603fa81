"""The form of a provider key, without a browser: what it wishes for, what it says of a refusal, and of two who edit."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ostiary.dashboard import forms
from ostiary.dashboard.provider_key_forms import Typed, clashes, placed, typed, typed_of
from ostiary.errors import Refusal
from ostiary.limits.budgets import Budget
from ostiary.money import NANO_PER_USD
from ostiary.providers.catalog import load
from ostiary.secret import Secret
from ostiary.vault.fields import checked_fields, checked_target
from ostiary.vault.provider_keys import ProviderKey

CATALOG = load()
BEDROCK = CATALOG.get("bedrock")
KEY = ProviderKey(
    id="pkey_1",
    organization_id="org_1",
    name="one",
    provider="bedrock",
    base_url="https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
    origin="https://bedrock-runtime.us-east-1.amazonaws.com",
    fields={"region": "us-east-1"},
    sealed="",
    sealed_version=1,
    preview="",
    shared=False,
    status="healthy",
    created_at=1,
    updated_at=1,
    last_used_at=None,
    rpm=60,
    tags=("a", "b"),
    budget=Budget("day", 5 * NANO_PER_USD, thresholds=(10, 90)),
)


def test_a_form_that_nobody_touched_wishes_for_nothing() -> None:
    assert typed_of(KEY).edit(KEY, BEDROCK) == {}
    named_first = replace(KEY, auth=BEDROCK.auth[0].id)
    assert typed_of(KEY).edit(named_first, BEDROCK) == {}


def test_what_was_typed_is_all_that_is_wished_for() -> None:
    it = replace(typed_of(KEY), name="two", rpm="", tags="a, c", cap_usd="$1,000.50", fields={"region": "eu-west-1"})
    assert it.edit(KEY, BEDROCK) == {
        "name": "two",
        "rpm": None,
        "tags": ("a", "c"),
        "budget": Budget("day", 1_000_500_000_000, thresholds=(10, 90)),
        "fields": {"region": "eu-west-1"},
    }


def test_a_new_key_has_what_the_form_says_and_a_picked_region_is_its_address() -> None:
    sent = b"name=n&field.region=us-east-1&region=mantle&shared=on&free_tier=on&warn_usd=3&period=total&priority=-5"
    wish = typed(forms.read(sent), BEDROCK).wish(BEDROCK, Secret("s"))
    assert (wish.base_url, wish.fields, wish.shared) == ("mantle", {"region": "us-east-1"}, True)
    assert (wish.priority, wish.strategy) == (-5, "fill")
    assert wish.budget == Budget("total", None, 3 * NANO_PER_USD)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rpm", "sixty"),
        ("rpm", "²"),
        ("rpm", "-1"),
        ("weight", "1" * 5_000),
        ("priority", "--1"),
        ("cap_usd", "1e999"),
        ("cap_usd", "-1"),
        ("warn_usd", "NaN"),
        ("thresholds", "50%, many"),
    ],
)
def test_what_is_no_number_is_said_beside_its_field(name: str, value: str) -> None:
    wrong: dict[str, Any] = {name: value}
    it = replace(typed_of(KEY), **wrong)
    with pytest.raises(Refusal) as refused:
        it.edit(KEY, BEDROCK)
    assert placed(refused.value, BEDROCK).said(name)


def test_a_refusal_stands_beside_the_field_of_the_provider_and_speaks_of_no_option() -> None:
    with pytest.raises(Refusal) as refused:
        checked_fields(BEDROCK, {})
    said = placed(refused.value, BEDROCK)
    assert said.name == "field.region"
    with pytest.raises(Refusal) as refused:
        checked_target(None, CATALOG.get("openai-compatible"), None)  # type: ignore[arg-type]
    said = placed(refused.value, BEDROCK)
    assert said.name == "base_url"
    assert "--" not in said.message
    elsewhere = placed(Refusal("invalid_field", "Something.", param="nowhere"), BEDROCK)
    assert elsewhere.elsewhere == "Something."


def test_of_two_who_edit_the_second_sees_what_the_first_has_changed() -> None:
    was = json.dumps(typed_of(KEY).plain())
    now = typed_of(replace(KEY, name="theirs", rpm=None, fields={"region": "eu-west-1"}))
    found = {one.label: (one.was, one.now, one.typed) for one in clashes(was, now, Typed(name="mine"), BEDROCK)}
    assert found == {
        "Name": ("one", "theirs", "mine"),
        "Requests per minute": ("60", "", ""),
        "Region, such as us-east-1": ("us-east-1", "eu-west-1", ""),
    }


@pytest.mark.parametrize("was", ["", "[]", "{", "null", '{"name": {"x": 1}}', "[" * 5_000])
def test_what_a_browser_gives_back_of_the_old_values_may_be_anything(was: str) -> None:
    assert [one for one in clashes(was, typed_of(KEY), typed_of(KEY), BEDROCK) if one.label == "Name"]
