"""The form of an agent key: what it shows, what was typed, what has changed meanwhile; and a key in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ostiary.agents.policy import Choice
from ostiary.agents.records import AgentKey
from ostiary.clock import DAY_MS
from ostiary.dashboard.agent_key_fields import (
    Values,
    differences,
    recall,
    sent,
    values_of,
    wished,
)
from ostiary.dashboard.agent_key_words import powers, snippets
from ostiary.dashboard.forms import Form
from ostiary.limits.budgets import Budget

NOW = 1_780_000_000_000


def _key(**changed: object) -> AgentKey:
    key = AgentKey(
        id="key_1",
        organization_id="orgn_1",
        owner_id="user_1",
        name="Production API",
        status="active",
        expires_at=NOW + 30 * DAY_MS,
        scopes=frozenset({"gate:chat"}),
        rpm=60,
        rpd=None,
        models=Choice("only", frozenset({"b", "a"})),
        providers=Choice("none"),
        free_only=True,
        addresses=Choice("only", frozenset({"10.0.0.0/8"})),
        metadata={"team": "backend"},
        budget=Budget("total", 2_500_000_000, None, (40, 90)),
        previews=("ost_pat_1…2",),
        created_at=NOW,
        updated_at=NOW,
        last_used_at=None,
    )
    return replace(key, **changed)  # type: ignore[arg-type]


def test_a_key_is_shown_and_recalled_as_it_is() -> None:
    shown = values_of(_key())
    assert (shown.budget, shown.budget_kind, shown.thresholds) == ("2.5", "total", "40, 90")
    assert (shown.models, shown.providers, shown.expires) == ("a, b", (), "keep")
    assert recall(shown.text()) == shown
    assert recall(values_of(_key(providers=Choice("all"))).text()) == values_of(_key(providers=Choice("all")))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"name": 1}', "[" * 10_000])
def test_what_no_form_of_ours_showed_is_not_recalled(text: str) -> None:
    assert recall(text) is None


def test_only_what_was_changed_is_wished_for() -> None:
    shown = values_of(_key())
    assert wished(shown, NOW, shown) == ({}, {})
    found, wrong = wished(replace(shown, rpm="1,000", budget="3", models=""), NOW, shown)
    assert not wrong
    assert found == {"rpm": 1_000, "budget": Budget("total", 3_000_000_000, None, (40, 90)), "models": Choice()}


def test_all_that_is_wrong_is_said_at_once() -> None:
    bad = Values(rpm="x", budget="y", thresholds="0", metadata="{", addresses="300.1.1.1", expires="custom")
    _, wrong = wished(bad, NOW)
    assert set(wrong) == {"name", "rpm", "budget", "metadata", "addresses", "expires_at"}


def test_a_custom_time_is_in_utc() -> None:
    found, wrong = wished(Values(name="n", expires="custom", expires_at="2026-06-01T10:30"), NOW)
    assert not wrong
    assert found["expires_at"] == 1_780_309_800_000


def test_all_providers_on_is_no_restriction_and_those_not_shown_stay() -> None:
    shown = ["a", "b"]
    assert sent(Form({"provider_shown": shown, "providers": ["a", "b"]})).providers is None
    assert sent(Form({"provider_shown": shown, "providers": []})).providers == ()
    kept = {"provider_shown": shown, "providers": ["a"], "provider_kept": ["gone"]}
    assert sent(Form(kept)).providers == ("a", "gone")


def test_what_somebody_else_has_changed_is_told_with_both_values() -> None:
    before = values_of(_key())
    now = replace(before, rpm="20", free_only=False)
    typed = replace(before, rpm="30")
    assert differences(before, now, typed) == [
        "Requests/min was “60” and is now “20”. You typed “30”.",
        "Free models only was on and is now off.",
    ]
    assert differences(before, before, typed) == []


def test_a_key_in_words() -> None:
    said = [(one.words, one.names) for one in powers(_key())]
    assert ("Only from this address:", ("10.0.0.0/8",)) in said
    assert ("Only for these models:", ("a", "b")) in said
    assert ("No provider at all: every call is refused.", ()) in said
    assert ("At most 60 requests a minute.", ()) in said
    money = "It may spend $2.50 in total; then calls that cost are refused. Alerts at 40 % and 90 %."
    assert (money, ()) in said


def test_what_is_kept_of_a_keys_calls_in_words() -> None:
    kept = "Prompts and answers of its calls are kept, redacted."
    key, parent = _key(), _key(capture=True)
    child = replace(key, parent_id=parent.id, parent=parent)
    for one, is_said in ((key, False), (parent, True), (child, True)):
        assert (kept in {power.words for power in powers(one)}) is is_said
        said = {power.words for power in powers(one, capture_is_forbidden=True)}
        assert kept not in said
        assert any("its organization forbids it" in words for words in said) is is_said


def test_what_expires_within_a_week_is_marked() -> None:
    assert not _key().expires_soon(NOW)
    assert _key(expires_at=NOW + DAY_MS).expires_soon(NOW)
    assert not _key(expires_at=NOW - 1).expires_soon(NOW)
    assert not _key(expires_at=NOW + DAY_MS, status="revoked").expires_soon(NOW)
    assert not _key(expires_at=None).expires_soon(NOW)


def test_lines_to_copy_are_quoted_for_their_shell() -> None:
    curl, python, typescript = snippets("https://gate.example.org", 'it\'s "a" model', "ost_pat_x")
    assert '\'{"model": "it\'\\\'\'s \\"a\\" model"' in curl.code
    assert "ost_pat_x" in curl.code
    assert "ost_pat_x" not in python.code + typescript.code
    assert 'model="it\'s \\"a\\" model"' in python.code
